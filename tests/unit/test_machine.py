"""pythia_fast.machine: the lowest limit of all groups above the process, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pythia_fast.machine import available_cores, memory_limit_bytes

CORES = len(os.sched_getaffinity(0))
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def tree(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """(mount, membership) of a made-up machine."""
    mount = folder / "cgroup"
    mount.mkdir()
    for name, content in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (folder / "membership").write_text(membership + "\n")
    return mount, folder / "membership"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, CORES),
        ("0::/", {}, CORES),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/pod/worker", {"pod/cpu.max": "100000 100000", "pod/worker/cpu.max": "max 100000"}, 1),
        ("0::/pod/worker", {"pod/cpu.max": "max 100000", "pod/worker/cpu.max": "100000 100000"}, 1),
        ("0::/of/the/host", {"cpu.max": "100000 100000"}, 1),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, CORES),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "0"}, CORES),
        ("7:memory:/a", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, CORES),
        ("0::/", {"cpu.max": "not a number"}, CORES),
        ("0::/", {"cpu.max": f"{(CORES + 5) * 100000} 100000"}, CORES),
    ],
)
def test_cores(tmp_path: Path, membership: str, files: dict[str, str], cores: int) -> None:
    assert available_cores(*tree(tmp_path, membership, files)) == cores


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/", {"memory.max": "268435456"}, 268435456),
        ("0::/", {"memory.max": "max"}, PHYSICAL),
        ("0::/", {}, PHYSICAL),
        ("0::/pod/worker", {"pod/memory.max": "1000000", "pod/worker/memory.max": "2000000"}, 1000000),
        ("9:memory:/a", {"memory/a/memory.limit_in_bytes": "123456789"}, 123456789),
        ("9:memory:/a", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, PHYSICAL),
        ("0::/", {"memory.max": str(PHYSICAL * 2)}, PHYSICAL),
    ],
)
def test_memory(tmp_path: Path, membership: str, files: dict[str, str], limit: int) -> None:
    assert memory_limit_bytes(*tree(tmp_path, membership, files)) == limit


def test_a_machine_without_control_groups_has_all_of_itself(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert available_cores(nowhere, nowhere) == CORES
    assert memory_limit_bytes(nowhere, nowhere) == PHYSICAL

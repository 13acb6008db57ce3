"""What this process may use of the machine: cores, and memory, as its container says.

Control groups, version 2: ``cpu.max`` and ``memory.max`` of the process' own group and of every group above it.
Version 1: ``cpu.cfs_quota_us`` over ``cpu.cfs_period_us`` and ``memory.limit_in_bytes``. Where several limits hold, the
lowest does. See cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
#: Version 1 says "no limit" by a number near 2**63, rounded down to a page.
NO_LIMIT = 1 << 60


def available_cores(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Cores that this process may use: its affinity, at most what its quota comes to; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(mount, membership, "cpu") if (quota := _cores_of(folder)) is not None]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def memory_limit_bytes(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Memory that this process and its children may have together: their group's limit, at most the machine's."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    limits = [limit for folder in _groups(mount, membership, "memory") if (limit := _bytes_of(folder)) is not None]
    return min([physical, *limits])


def _groups(mount: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, from its own up to the mount."""
    for line in _lines(membership):
        _number, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root = mount
        elif controller in controllers.split(","):
            # The mount of several controllers is named by all of them or by each; both names are there as links.
            root = mount / controller
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the group's path is often that of the host: then the mount itself is the group.
        while not folder.is_dir() and folder != root:
            folder = folder.parent
        yield folder
        while folder != root:
            folder = folder.parent
            yield folder


def _cores_of(folder: Path) -> float | None:
    """Cores that a group's quota comes to; None: it has none."""
    both = _words(folder / "cpu.max")
    if not both:
        both = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(both) != 2 or not all(word.isdigit() for word in both) or int(both[1]) == 0:
        return None  # "max", or -1: no quota
    return int(both[0]) / int(both[1])


def _bytes_of(folder: Path) -> int | None:
    """Memory of a group; None: it has no limit."""
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    if len(words) != 1 or not words[0].isdigit() or int(words[0]) >= NO_LIMIT:
        return None
    return int(words[0])


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

"""How long one waits before anything runs: building the extension, and ``python -m pythia_fast --help``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.conftest import Bars

ROOT = Path(__file__).parent.parent


def test_help(bars: Bars, interleaved: Callable[..., dict[str, float]]) -> None:
    """``--help`` beside a bare start of the interpreter."""

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)

    seconds = interleaved(
        {"--help": lambda: run("-m", "pythia_fast", "--help"), "bare": lambda: run("-c", "pass")}, rounds=11
    )
    bars.report("python -m pythia_fast --help", seconds["--help"], "s", at_most=0.3)
    bars.report("  of it the bare interpreter", seconds["bare"], "s")


@pytest.mark.timeout(600)
def test_build(bars: Bars, tmp_path: Path) -> None:
    """The extension from nothing, with as many compilers at once as there are cores."""
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("ext", "pythia_fast"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    started, cpu_before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, cpu_after = time.perf_counter() - started, os.times()
    cpu = cpu_after.children_user + cpu_after.children_system - cpu_before.children_user - cpu_before.children_system
    bars.report("build of the extension", seconds, "s", at_most=60)
    bars.report("  its CPU time, spread over the cores", cpu, "s")
    built = {path.name.partition(".")[0] for path in (tmp_path / "pythia_fast" / "_ext").glob("*.so")}
    assert built >= {path.stem for path in (ROOT / "pythia_fast" / "_ext").glob("*decoder.pyi")}

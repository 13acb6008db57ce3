"""``bench``: the project's benchmarks, from a source tree."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.errors import ConfigError

Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAME", help="this benchmark only; may be given again")
]
ListNames = Annotated[bool, typer.Option("--list", help="print the names of the benchmarks")]


def bench(only: Only = None, list_names: ListNames = False) -> int:
    """Run the benchmarks, print each figure beside its bar; exit code 1 when a bar is missed.

    \b
    Examples:
      python -m pythia_fast bench
      python -m pythia_fast bench --only decoders --only file_to_handler
    """
    found = benchmark_files()
    if list_names:
        print("\n".join(sorted(found)))
        return ExitCode.DONE
    unknown = [name for name in only or () if name not in found]
    if unknown:
        raise ConfigError(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(sorted(found))}")
    files = [str(found[name]) for name in only or sorted(found)]
    root = next(iter(found.values())).parent.parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "--benchmark-columns=median,min,rounds",
        "-o",
        "timeout=1800",
    ]
    finished = subprocess.run([*command, *files], cwd=root, check=False)
    return ExitCode.DONE if finished.returncode == 0 else ExitCode.FAILED


def benchmark_files() -> dict[str, Path]:
    """Name -> file of every benchmark.

    Raises:
        ConfigError: the package is installed without its sources, or pytest-benchmark is missing.
    """
    folder = Path(__file__).parent.parent.parent / "benchmarks"
    files = {path.stem.removeprefix("bench_"): path for path in folder.glob("bench_*.py")}
    if not files:
        raise ConfigError("the benchmarks are in the source tree: clone the project and run make bench there")
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise ConfigError("the benchmarks need pytest-benchmark: pip install 'pythia-fast[dev]', or run make bench")
    return files

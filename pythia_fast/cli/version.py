"""``version``: what runs here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from pythia_fast.errors import ConfigError


def version() -> None:
    """Print the versions and the machine, for a report of a problem.

    \b
    Example:
      python -m pythia_fast version
    """
    for name, value in facts():
        print(f"{name:<14} {value}")


def facts() -> list[tuple[str, str]]:
    """(name, value) pairs, also printed at the head of every benchmark run."""
    import pythia_fast

    return [
        ("pythia_fast", pythia_fast.__version__),
        ("librdkafka", _librdkafka()),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("NumPy", _installed("numpy")),
        ("msgspec", _installed("msgspec")),
        ("CPU", f"{_cpu_model()}, {_usable_cores()} of {os.cpu_count()} cores usable"),
        ("SIMD", _simd()),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
    ]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _librdkafka() -> str:
    try:
        import confluent_kafka
    except ImportError as error:
        return f"not usable: {error}"
    return f"{confluent_kafka.libversion()[0]} (confluent-kafka {confluent_kafka.__version__})"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _simd() -> str:
    """The JSON decoder's kernel in use, and those that this processor can run."""
    try:
        from pythia_fast._ext.json_decoder import available_simd, chosen_simd
    except ImportError as error:
        return f"not usable: {error}"
    try:
        chosen = chosen_simd()
    except ConfigError as error:
        return str(error)
    return f"{chosen} (this processor runs {', '.join(available_simd())})"

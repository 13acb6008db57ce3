"""What ``import pythia_fast`` brings along, and what it says when the extension is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pythia_fast


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("statement", ["import pythia_fast", "from pythia_fast import App, Batch, FileConsumer"])
def test_no_broker_client_is_imported(statement: str) -> None:
    clients = ["confluent_kafka", "redis", "pyarrow", "polars", "pandas", "rich"]
    finished = python(f"import sys; {statement}; print([name for name in {clients} if name in sys.modules])")
    assert finished.stdout == "[]\n", finished.stderr


def test_all_names_can_be_imported() -> None:
    assert list(pythia_fast.__all__) == sorted(pythia_fast.__all__)
    for name in pythia_fast.__all__:
        assert getattr(pythia_fast, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pythia_fast.no_such_name  # type: ignore[attr-defined]


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A folder that holds the package without its compiled modules."""
    package = Path(pythia_fast.__file__).parent
    shutil.copytree(package, tmp_path / "pythia_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_a_missing_extension_is_named(unbuilt: Path) -> None:
    finished = python("from pythia_fast import Batch", cwd=unbuilt)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("pythia_fast.errors.ExtensionError: the compiled modules of pythia_fast are missing in ")
    assert "pip install ." in last


def test_an_extension_for_another_python_is_named(unbuilt: Path) -> None:
    (unbuilt / "pythia_fast" / "_ext" / "decoder.cpython-30-x86_64-linux-gnu.so").touch()
    finished = python("from pythia_fast import Batch", cwd=unbuilt)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert "are for another Python (decoder.cpython-30-x86_64-linux-gnu.so), not for Python 3." in last


def test_help_works_without_the_extension(unbuilt: Path) -> None:
    finished = python("import sys; from pythia_fast.cli.main import main; sys.exit(main(['--help']))", cwd=unbuilt)
    assert finished.returncode == 0, finished.stderr

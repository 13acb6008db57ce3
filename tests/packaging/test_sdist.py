"""The sdist holds everything that a build needs and nothing that was built; the wheel holds no sources."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of the working tree, built from a copy: setuptools writes beside setup.py."""
    folder = tmp_path_factory.mktemp("packaging")
    copy = folder / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("ext", "pythia_fast", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    _build("--sdist", "--outdir", str(folder), str(copy))
    (path,) = folder.glob("*.tar.gz")
    return path


def _build(*arguments: str) -> None:
    """Run ``python -m build`` with the tools of this environment, so that nothing is fetched.

    Without optimisation, since nothing of it is run here: what is in the archives is the same.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", *arguments]
    finished = subprocess.run(
        command,
        env={**os.environ, "PYTHIA_FAST_OPTIMIZE": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:]


def test_sdist_holds_the_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        str(path.relative_to(ROOT))
        for folder in ("ext", "pythia_fast")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".h", ".c")
    }
    assert tracked <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "pythia_fast/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.timeout(600)
def test_sdist_builds_a_wheel_by_itself(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    _build("--wheel", "--outdir", str(tmp_path / "wheel"), str(tree))
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    compiled = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {path.stem for path in (ROOT / "ext").glob("*.pyx")}
    assert "pythia_fast/py.typed" in names
    assert {Path(name).name.removesuffix(".pyi") for name in names if name.endswith(".pyi")} >= compiled
    assert not [name for name in names if name.endswith((".pyx", ".c", ".h"))]
    assert not [name for name in names if name.startswith(("tests/", "ext/", "benchmarks/"))]

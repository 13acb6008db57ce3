"""The state folder: made for its user alone, and refused where nothing can be kept in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pythia_fast.errors import ConfigError
from pythia_fast.runtime.state_dir import prepare_folder


def test_a_folder_that_is_made_is_its_users_alone(tmp_path: Path) -> None:
    made = prepare_folder(tmp_path / "a" / "state", "positions", "--state-dir")
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (made, made.parent)} == {0o700}
    assert list(made.iterdir()) == []


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    there = tmp_path / "state"
    there.mkdir()
    there.chmod(0o750)
    assert stat.S_IMODE(prepare_folder(there, "positions", "--state-dir").stat().st_mode) == 0o750


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(
        ConfigError, match=r"cannot keep positions in .*: it is not a folder; choose another .*--state-dir"
    ):
        prepare_folder(tmp_path / "state", "positions", "--state-dir")


@pytest.mark.skipif(os.getuid() != 0 or not Path("/proc/self").exists(), reason="others may not write there at all")
def test_where_no_folder_can_be_made_it_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"^cannot keep positions in /proc/x: the folder cannot be made there; choose"
    ):
        prepare_folder(Path("/proc/x"), "positions", "--state-dir")

"""Handlers whose own output comes back to them: refused before the run, or left out of what is read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from pythia_fast import App, FileConsumer, FileProducer
from pythia_fast.errors import SourceError
from pythia_fast.runtime.dead_letter import read_dead_letters


class StopsOnceLeftOut:
    """Ends the run once all rows are done and it was said that dead letters are left out, or when more rows come."""

    def __init__(self, rows: int) -> None:
        self.lines: list[str] = []
        self._rows = rows

    def started(self, info):
        pass

    def sample(self, snapshot):
        told = any("own.ndjson is left out" in line for line in self.lines)
        if snapshot.rows > self._rows or (snapshot.rows == self._rows and told):
            os.kill(os.getpid(), signal.SIGTERM)

    def event(self, text):
        self.lines.append(text)

    def finished(self, report):
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "g"
    folder.mkdir()
    (folder / "in.ndjson").write_bytes(b'{"id":0}\n{"id":1}\n{"id":2}\n{"id":3}\n{"id":4}\n')
    return folder


def rejecting(
    source: FileConsumer, *, dead_letter: FileProducer | None = None, names: tuple[str, ...] = ("own",)
) -> App:
    """Every handler of it gives up the first three rows, and all dead letters."""
    app = App("feeding")
    for name in names:

        def handle(batch):
            wanted = (b'{"id":3}', b'{"id":4}')
            rejected = np.array([payload not in wanted for payload in batch["payload"].tolist()])
            batch.reject(rejected, reason="not wanted")

        app.batch_handler(source=source, dead_letter=dead_letter, decoder="raw", dead_letter_limit=None, name=name)(
            handle
        )
    return app


@pytest.mark.parametrize("until", ["end", "forever"])
def test_a_file_of_dead_letters_made_within_the_glob_of_its_source_is_refused(
    folder: Path, tmp_path: Path, until: str
) -> None:
    source = FileConsumer(folder / "*.ndjson", follow=until == "forever")
    app = rejecting(source, dead_letter=FileProducer(folder / "dead.ndjson"))
    with pytest.raises(SourceError, match=r"dead.ndjson is written by a sink .* results or dead letters"):
        app.run(workers=1, until=until, state_dir=tmp_path / "state")
    assert (folder / "dead.ndjson").read_bytes() == b""


@pytest.mark.parametrize("names", [("own",), ("own", "other")])
def test_dead_letters_in_a_state_folder_within_the_glob_are_left_out(folder: Path, names: tuple[str, ...]) -> None:
    app = rejecting(FileConsumer(folder / "**/*.ndjson", follow=True), names=names)
    observer = StopsOnceLeftOut(rows=5 * len(names))
    report = app.run(workers=len(names), until="forever", state_dir=folder / "st", observer=observer)
    assert [handler.rows for handler in report.handlers] == [5] * len(names)
    for name in names:
        assert len(list(read_dead_letters(folder / f"st/dead-letters/{name}.ndjson"))) == 3
    assert any("dead-letters/own.ndjson is left out: dead letters of this app" in line for line in observer.lines)
    (folder / "later.ndjson").write_bytes(b'{"id":4}\n')
    again = app.run(workers=len(names), until="end", state_dir=folder / "st")  # now they are there from the beginning
    assert [handler.rows for handler in again.handlers] == [1] * len(names)


def test_dead_letters_of_another_handler_are_read_where_a_path_names_their_folder(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    rejecting(FileConsumer(folder / "in.ndjson")).run(workers=1, until="end", state_dir=state)
    mender = rejecting(FileConsumer(state / "dead-letters/*.ndjson"), names=("mender",))
    for rows in (3, 0):  # of its own, three more by then, it reads none
        assert mender.run(workers=1, until="end", state_dir=state).rows == rows
    assert len(list(read_dead_letters(state / "dead-letters/mender.ndjson"))) == 3


def test_a_handler_that_is_to_read_its_own_dead_letters_is_refused(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    rejecting(FileConsumer(folder / "in.ndjson")).run(workers=1, until="end", state_dir=state)
    letters = FileConsumer(state / "dead-letters/own.ndjson")
    with pytest.raises(SourceError, match=r"own.ndjson is where the handler .* with a handler of another name"):
        rejecting(letters).run(workers=1, until="end", state_dir=state)
    assert rejecting(letters, names=("mender",)).run(workers=1, until="end", state_dir=state).rows == 3

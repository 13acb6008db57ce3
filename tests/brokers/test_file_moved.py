"""A sink's file that others rename, remove, replace, append to or cut while it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast.brokers import sink_file
from pythia_fast.brokers.base import Publisher
from pythia_fast.brokers.locked_file import open_locked
from tests.support.command_line import HEAD, run
from tests.support.file_sink import framed, open_sink, wait_delivered
from tests.support.left_behind import nothing_left_behind

Move = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "rows.ndjson"


def renamed(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def replaced(path: Path) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(b"other\n")
    beside.replace(path)


def removed_with_its_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def deliver(sink: Publisher, *payloads: bytes, ticket: int = 0) -> None:
    sink.publish(framed(*payloads), len(payloads), ticket)
    wait_delivered(sink, 1)


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
@pytest.mark.parametrize(
    ("move", "before", "where"),
    [
        (Path.unlink, b"", "a new file"),
        (renamed, b"", "a new file"),
        (removed_with_its_folder, b"", "a new file"),
        (replaced, b"other\n", "the file that has it now, behind its 6 bytes"),
    ],
)
def test_a_file_that_loses_its_name_is_followed_by_another_one(
    path: Path, fsync: str, move: Move, before: bytes, where: str
) -> None:
    lines: list[str] = []
    sink = open_sink(path, lines.append, fsync=fsync)
    deliver(sink, b"1")
    move(path)
    deliver(sink, b"2")
    assert path.read_bytes() == before + b"2\n"
    deliver(sink, b"3")
    sink.close(10)
    assert path.read_bytes() == before + b"2\n3\n"
    (line,) = lines
    assert line == (
        f"{path} was removed, renamed or replaced while it was written: the 2 bytes written before are no longer under "
        f"that name; writing goes on in {where}"
    )
    if move is renamed:
        assert path.with_suffix(".1").read_bytes() == b"1\n"


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
@pytest.mark.parametrize("move", [Path.unlink, renamed])
def test_what_is_written_while_the_file_loses_its_name_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, move: Move
) -> None:
    sink = open_sink(path, fsync=fsync)
    real_write = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        monkeypatch.undo()
        move(path)
        return real_write(fd, data, at)

    monkeypatch.setattr(sink_file.os, "pwrite", pwrite)
    deliver(sink, b"1", b"2")
    assert path.read_bytes() == b"1\n2\n"
    sink.close(10)


def test_a_file_that_loses_its_name_before_its_sync_ends_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(path)
    real_sync = sink_file.sync_data
    synced: list[int] = []

    def sync_data(fd: int) -> None:
        real_sync(fd)
        synced.append(os.fstat(fd).st_ino)
        if len(synced) == 1:
            path.unlink()

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    deliver(sink, b"1")
    assert path.read_bytes() == b"1\n"
    assert synced[-1] == path.stat().st_ino
    assert len(synced) == 2
    sink.close(10)


def test_the_folder_of_the_new_file_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(path)
    synced: list[str] = []
    monkeypatch.setattr(sink_file, "sync_folder", synced.append)
    path.unlink()
    deliver(sink, b"1")
    sink.close(10)
    assert synced == [str(path.parent)]


def test_what_the_interval_left_unsynced_is_synced_before_another_file_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_file, "FSYNC_INTERVAL_S", 3600.0)
    sink = open_sink(path, fsync="interval")
    real_sync = sink_file.sync_data
    synced: list[int] = []

    def sync_data(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real_sync(fd)

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    deliver(sink, b"1")
    renamed(path)
    deliver(sink, b"2")
    sink.close(10)
    assert synced == [path.with_suffix(".1").stat().st_ino, path.stat().st_ino]


def test_a_name_that_another_writer_has_taken_is_waited_for(path: Path) -> None:
    sink = open_sink(path)
    renamed(path)
    other = open_locked(str(path))
    sink.publish(framed(b"1"), 1, 0)
    while (trouble := sink.trouble()) is None:
        assert sink.deliveries(0.01) == []
    assert trouble == f"{path} is being written by another sink or run: give each its own file; trying again"
    os.close(other)
    wait_delivered(sink, 1)
    assert sink.trouble() is None
    sink.close(10)
    assert path.read_bytes() == b"1\n"


def test_a_relative_path_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    sink = open_sink(Path("rows"))
    monkeypatch.chdir(elsewhere)
    deliver(sink, b"1")
    (tmp_path / "rows").unlink()
    deliver(sink, b"2")
    sink.close(10)
    assert (tmp_path / "rows").read_bytes() == b"2\n"
    assert list(elsewhere.iterdir()) == []


def test_a_file_that_is_cut_while_it_is_written_is_written_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(path)
    deliver(sink, b"1")
    real_sync = sink_file.sync_data

    def sync_data(fd: int) -> None:
        monkeypatch.undo()
        os.truncate(path, 0)
        real_sync(fd)

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    deliver(sink, b"2")
    sink.close(10)
    assert path.read_bytes() == b"2\n"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
@pytest.mark.parametrize(("foreign", "end"), [(b"theirs\n", b""), (b"the\nirs", b"\n")])
def test_lines_that_somebody_else_appends_stay(path: Path, fsync: str, foreign: bytes, end: bytes) -> None:
    lines: list[str] = []
    sink = open_sink(path, lines.append, fsync=fsync)
    deliver(sink, b"1")
    for number in (b"2", b"3"):
        append(path, foreign)
        deliver(sink, number)
    sink.close(10)
    assert path.read_bytes() == b"1\n" + foreign + end + b"2\n" + foreign + end + b"3\n"
    (line,) = lines
    assert line.startswith(f"{path} grew from 2 to {2 + len(foreign)} bytes by somebody else while it was written")


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


def test_frames_that_somebody_else_appends_stay_and_half_a_one_is_set_aside(path: Path) -> None:
    lines: list[str] = []
    sink = open_sink(path, lines.append, format="msgpack-frames")
    deliver(sink, b"1")
    append(path, frame(b"ab"))
    deliver(sink, b"2")
    append(path, frame(b"cd") + frame(b"halved")[:-3])
    deliver(sink, b"3")
    sink.close(10)
    assert path.read_bytes() == b"".join(map(frame, [b"1", b"ab", b"2", b"cd", b"3"]))
    assert Path(f"{path}.partial").read_bytes() == frame(b"halved")[:-3]
    assert any(f"7 bytes were moved to {path}.partial" in line for line in lines)


def test_what_somebody_else_appends_behind_a_write_that_fails_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    sink = open_sink(path, lines.append)
    deliver(sink, b"1")

    def sync_data(fd: int) -> None:
        monkeypatch.undo()
        append(path, b"theirs\n")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    deliver(sink, b"2")
    sink.close(10)
    assert path.read_bytes() == b"1\n2\n"
    assert Path(f"{path}.partial").read_bytes() == b"theirs\n"
    (line,) = lines
    assert f"7 bytes were moved to {path}.partial" in line


def test_a_sync_that_failed_writes_again_only_what_is_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_file, "FSYNC_INTERVAL_S", 3600.0)
    sink = open_sink(path, fsync="interval")
    real_sync = sink_file.sync_data
    failures = [OSError(5, "Input/output error")]

    def sync_data(fd: int) -> None:
        if failures:
            raise failures.pop()
        real_sync(fd)

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    deliver(sink, b"1")
    append(path, b"theirs\n")
    deliver(sink, b"2")
    sink.close(10)
    assert failures == []
    assert path.read_bytes() == b"1\ntheirs\n2\n"


ROTATING = (
    HEAD
    + """
import os

@app.batch_handler(
    source=FileConsumer(path="orders.ndjson"), sink=FileProducer(path="scored.ndjson"), schema=Order, batch_size=500
)
def score(batch: Batch[Order]):
    first = int(batch["qty"][0])
    if first % 5000 == 0 and os.path.exists("scored.ndjson"):
        os.rename("scored.ndjson", f"scored.{first}")
    return {"qty": batch["qty"]}
"""
)


def test_a_run_whose_output_is_rotated_loses_no_row(tmp_path: Path) -> None:
    (tmp_path / "orders.ndjson").write_bytes(b"".join(b'{"price":1,"qty":%d}\n' % row for row in range(20_000)))
    (tmp_path / "orders.py").write_text(ROTATING)
    done = run(tmp_path, "run", "orders:app", "--workers", "1", "--until-end")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("scored.*"))
    assert files[0].name == "scored.0"
    written = {line for file in files for line in file.read_bytes().splitlines()}
    assert written == {b'{"qty":%d}' % row for row in range(20_000)}
    assert "scored.ndjson was removed, renamed or replaced while it was written: " in done.stderr

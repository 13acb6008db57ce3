"""FileConsumer(follow=True): growth, partial lines, every way of rotating, files that appear."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pythia_fast._ext.collecting_sink import CALL, FAILED, IDLE, MORE, CollectingSink, poll, wake
from pythia_fast.brokers import tail
from pythia_fast.brokers.base import Reader
from pythia_fast.brokers.checkpoint import Checkpoint, identity_of
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.errors import SourceError
from pythia_fast.testing.readers import RememberingListener, collect, reader_context
from tests.support.left_behind import nothing_left_behind


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tail, "ROTATION_GRACE_S", 0.2)
    with nothing_left_behind():
        yield


class Following:
    """A run that follows, driven step by step."""

    def __init__(self, path: str | Path | list[str], state_dir: Path, **options: Any) -> None:
        self.lines: list[str] = []
        self.listener = RememberingListener()
        self.sink = CollectingSink()
        self.looks = 0  #: at the names
        context = reader_context(state_dir, until="forever", listener=self.listener, log=self.lines.append)
        self.reader: Reader = FileConsumer(path, follow=True, consumer_group="g", **options).open(context)

    def until(self, count: int) -> list[bytes | None]:
        collect(self.reader, count, self.sink)
        return self.sink.payloads

    def until_true(self, condition: Callable[[], bool]) -> None:
        while not condition():
            result = poll(self.reader.native, self.sink, timeout_us=10_000)
            assert result in (MORE, IDLE, CALL)
            if result == CALL:
                self.reader.serve()
                self.looks += 1

    def commit(self) -> None:
        self.reader.commit({m.partition: m.next_offset for m in self.sink.messages}, wait=True)

    def stop(self) -> None:
        self.commit()
        self.reader.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "app.log"
    path.write_bytes(b"1\n2\n")
    return path


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_what_is_appended_comes_and_a_half_line_waits(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    assert run.until(2) == [b"1", b"2"]
    append(log, b"3\n4-half")
    assert run.until(3)[-1] == b"3"
    for _ in range(3):
        assert poll(run.reader.native, run.sink, timeout_us=1000) in (IDLE, CALL)
    append(log, b"-done\n5\n")
    assert run.until(5)[3:] == [b"4-half-done", b"5"]
    assert run.sink.messages[3].offset == 6
    run.stop()


def test_wake_cuts_the_wait(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.reader.serve()
    results: list[int] = []
    waiter = threading.Thread(target=lambda: results.append(poll(run.reader.native, run.sink, timeout_us=60_000_000)))
    waiter.start()
    wake(run.reader.native)
    waiter.join(30)
    assert len(results) == 1
    assert results[0] in (IDLE, CALL)
    run.stop()


def test_rename_and_create_loses_nothing(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    with log.open("ab", buffering=0) as writer:
        log.rename(log.with_name("app.log.1"))
        writer.write(b"3-late\n")
        log.write_bytes(b"5\n")
        run.until(3)
        writer.write(b"4-unended")
    assert run.until(5) == [b"1", b"2", b"3-late", b"4-unended", b"5"]
    assert [m.partition for m in run.sink.messages] == [0, 0, 0, 0, 1]
    append(log, b"6\n")
    assert run.until(6)[-1] == b"6"
    run.stop()


def test_rotated_again_before_the_first_is_read_loses_nothing(log: Path, tmp_path: Path) -> None:
    """Each new file is opened as it is seen, so it is read however often the name goes on to another one."""
    run = Following(log, tmp_path)
    assert run.until(2) == [b"1", b"2"]
    for turn in range(3, 6):
        os.rename(log, log.parent / f"rotated.{turn}")
        log.write_bytes(b"%d\n" % turn)
        seen = run.looks + 1  # however busy the machine is
        run.until_true(lambda seen=seen: run.looks >= seen)
    assert run.until(5) == [b"1", b"2", b"3", b"4", b"5"]
    append(log, b"6\n")
    assert run.until(6)[5] == b"6"
    run.stop()
    again = Following(log, tmp_path)
    append(log, b"7\n")
    assert again.until(1) == [b"7"]
    again.stop()


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("rotated_while_stopped", [True, False])
def test_a_run_that_ends_before_their_turn_leaves_the_files_that_it_saw_to_the_next(
    log: Path, tmp_path: Path, committed: bool, rotated_while_stopped: bool
) -> None:
    run = Following(log, tmp_path)
    assert run.until(2) == [b"1", b"2"]
    for turn in range(3, 6):
        os.rename(log, log.parent / f"rotated.{turn}")
        log.write_bytes(b"%d\n" % turn)
        run.until_true(lambda: any(f.identity == identity_of(log.stat()) for f in run.reader._behind.get(str(log), ())))
    if committed:
        run.stop()
    else:
        run.reader.close()  # as a kill
    if rotated_while_stopped:
        os.rename(log, log.parent / "rotated.6")
        log.write_bytes(b"6\n")
    again = Following(log, tmp_path)
    rows = [b"%d" % row for row in range(1, 7 if rotated_while_stopped else 6)]
    wanted = [row for row in rows if not committed or row not in run.sink.payloads]
    assert again.until(len(wanted)) == wanted
    assert not any("rotated more than once" in line for line in again.lines)
    append(log, b"7\n")
    assert again.until(len(wanted) + 1)[-1] == b"7"
    again.stop()


def test_a_stop_closes_the_files_whose_turn_has_not_come(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    os.rename(log, log.parent / "rotated")
    log.write_bytes(b"3\n")
    run.until_true(lambda: bool(run.reader._behind))
    run.stop()


def test_rotation_within_the_glob_reads_nothing_twice(log: Path, tmp_path: Path) -> None:
    run = Following(str(log) + "*", tmp_path)
    run.until(2)
    log.rename(log.with_name("app.log.1"))
    log.write_bytes(b"new\n")
    assert run.until(3)[-1] == b"new"
    append(log.with_name("app.log.1"), b"late\n")
    assert run.until(4)[-1] == b"late"
    append(log, b"newer\n")
    assert run.until(5)[-1] == b"newer"
    run.stop()
    again = Following(str(log) + "*", tmp_path)
    append(log, b"newest\n")
    assert again.until(1) == [b"newest"]
    again.stop()


def test_copy_and_truncate_begins_again(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    shutil.copy(log, log.with_name("app.log.1"))
    os.truncate(log, 0)
    run.until_true(lambda: len(run.listener.table) == 2)
    append(log, b"n\n")
    assert run.until(3)[-1] == b"n"
    assert (run.sink.messages[-1].partition, run.sink.messages[-1].offset) == (1, 0)
    assert "was truncated after byte 4" in run.lines[0]
    run.stop()


def test_truncated_and_grown_beyond_before_anybody_looked(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.until_true(lambda: True)
    log.write_bytes(b"other one\nother two\n")
    run.until_true(lambda: b"other one" in run.sink.payloads and run.sink.payloads[-1] == b"other two")
    assert "was truncated" in run.lines[0]
    run.stop()


def test_new_files_of_a_glob_are_picked_up(log: Path, tmp_path: Path) -> None:
    run = Following(str(log.parent / "*.log"), tmp_path)
    run.until(2)
    (log.parent / "b.log").write_bytes(b"b1\n")
    assert run.until(3)[-1] == b"b1"
    append(log, b"3\n")
    append(log.parent / "b.log", b"b2\n")
    assert sorted(run.until(5)[3:], key=str) == [b"3", b"b2"]
    run.stop()


def test_the_checkpoint_is_saved_once_for_all_files_that_are_found_or_rotated_together(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, files: saved.append(len(files)) or save(self, files))
    paths = [log.parent / f"{number:02}.log" for number in range(20)]
    for path in paths:
        path.write_bytes(b"1\n")
    run = Following(str(log.parent / "*.log"), tmp_path)
    run.until(22)
    assert saved == [21]
    for path in paths:
        path.rename(path.with_suffix(".old"))
        path.write_bytes(b"2\n")
    run.reader.serve()
    assert saved == [21, 41]
    assert run.until(42)[22:] == [b"2"] * 20
    run.stop()


def test_a_file_with_several_names_is_followed_once(log: Path, tmp_path: Path) -> None:
    run = Following(str(log.parent / "*.log"), tmp_path)
    run.until(2)
    (log.parent / "link.log").symlink_to(log)
    os.link(log, log.parent / "0.log")
    run.until_true(lambda: len(run.lines) == 2)
    append(log, b"3\n")
    assert run.until(3) == [b"1", b"2", b"3"]
    (log.parent / "link.log").unlink()
    log.unlink()
    append(log.parent / "0.log", b"4\n")
    assert run.until(4)[-1] == b"4"
    assert len(run.listener.table) == 1
    assert run.lines == [
        f"{path} is left out: it is another name of {log.parent / '0.log'}, and is read once"
        for path in (log, log.parent / "link.log")
    ]
    run.stop()


def test_a_link_to_nothing_is_told_once_and_followed_once_it_leads_somewhere(log: Path, tmp_path: Path) -> None:
    link = log.parent / "b.log"
    link.symlink_to(tmp_path / "later")
    run = Following(str(log.parent / "*.log"), tmp_path)
    assert run.until(2) == [b"1", b"2"]
    append(log, b"3\n")
    run.until(3)
    assert [line for line in run.lines if str(link) in line] == [
        f"{link} is left out: it is a link to a file that is not there"
    ]
    (tmp_path / "later").write_bytes(b"4\n")
    assert run.until(4) == [b"1", b"2", b"3", b"4"]
    run.stop()


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later.log"
    run = Following(path, tmp_path)
    assert run.lines == [f"waiting for {path}"]
    path.write_bytes(b"came\n")
    assert run.until(1) == [b"came"]
    run.stop()


def test_a_deleted_file_is_read_to_its_end_and_let_go(log: Path, tmp_path: Path) -> None:
    run = Following(str(log.parent / "*"), tmp_path)
    run.until(2)
    append(log, b"last")
    log.unlink()
    assert run.until(3)[-1] == b"last"
    run.until_true(lambda: not run.reader.native.states())  # type: ignore[attr-defined]
    (log.parent / "new.log").write_bytes(b"new\n")
    assert run.until(4)[-1] == b"new"
    run.stop()


def test_a_compressed_file_in_the_glob_is_named_and_passed_over(log: Path, tmp_path: Path) -> None:
    (log.parent / "app.log.2.gz").write_bytes(b"\x1f\x8b\x08\x00")
    run = Following(str(log) + "*", tmp_path)
    run.until(2)
    run.reader.serve()
    assert [line.split("app.")[1] for line in run.lines if "compressed" in line] == [
        line.split("app.")[1] for line in run.lines
    ]
    assert len(run.lines) == 1
    run.stop()


def test_rotated_while_stopped_goes_on_in_the_old_file(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.stop()
    append(log, b"3\n4-unended")
    log.rename(log.with_name("app.log.1"))
    log.write_bytes(b"5\n")
    again = Following(log, tmp_path)
    assert again.until(3) == [b"3", b"4-unended", b"5"]
    again.stop()
    third = Following(log, tmp_path)
    append(log, b"6\n")
    assert third.until(1) == [b"6"]
    third.stop()


def test_killed_before_its_first_commit_and_rotated_loses_nothing(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    assert run.until(2) == [b"1", b"2"]
    run.reader.close()  # as a kill: nothing was committed
    log.rename(log.with_suffix(".log.1"))
    log.write_bytes(b"3\n")
    again = Following(log, tmp_path)
    assert again.until(3) == [b"1", b"2", b"3"]
    again.stop()


def test_files_between_two_rotations_while_stopped_are_named(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.stop()
    append(log, b"3\n")
    log.rename(log.with_suffix(".log.1"))
    log.write_bytes(b"4\n")
    between = log.with_suffix(".log.2")
    log.rename(between)
    log.write_bytes(b"5\n")
    again = Following(log, tmp_path)
    assert again.until(2) == [b"3", b"5"]
    assert any(str(between) in line and "rotated more than once" in line for line in again.lines)
    again.stop()


def test_stopped_within_the_old_file_of_a_rotation_loses_nothing(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.stop()
    append(log, b"3\n4\n")
    log.rename(log.with_name("app.log.1"))
    log.write_bytes(b"5\n")
    second = Following(log, tmp_path)
    assert second.until(3) == [b"3", b"4", b"5"]
    second.reader.commit({0: 6, 1: 0}, wait=True)
    second.reader.close()
    third = Following(log, tmp_path)
    assert third.until(2) == [b"4", b"5"]
    third.stop()


def test_rotated_away_while_stopped_is_refused(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    run.stop()
    other = tmp_path / "elsewhere"
    other.write_bytes(b"another file\n")
    os.replace(other, log)
    with pytest.raises(SourceError, match=r'not the file that this group read.*start="beginning"'):
        Following(log, tmp_path)


def test_uncommitted_rows_of_a_rotated_file_are_read_again(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    log.rename(log.with_name("app.log.1"))
    log.write_bytes(b"3\n")
    run.until(3)
    run.reader.commit({0: 2, 1: 2}, wait=True)
    run.reader.close()
    again = Following(log, tmp_path)
    append(log, b"4\n")
    assert again.until(2) == [b"2", b"4"]
    again.stop()


@pytest.mark.parametrize(("start", "expected"), [("end", [b"3"]), ("beginning", [b"1", b"2", b"3"])])
def test_start_applies_to_the_files_there_are(log: Path, tmp_path: Path, start: str, expected: list[bytes]) -> None:
    run = Following(str(log.parent / "*.log"), tmp_path, start=start)
    run.until_true(lambda: len(run.listener.table) == 1)
    append(log, b"3\n")
    assert run.until(len(expected)) == expected
    (log.parent / "b.log").write_bytes(b"b1\n")
    assert run.until(len(expected) + 1)[-1] == b"b1"
    run.stop()


def test_until_end_reads_to_the_end_of_a_followed_file(log: Path, tmp_path: Path) -> None:
    reader = FileConsumer(log, follow=True).open(reader_context(tmp_path, until="end"))
    assert collect(reader, 2).payloads == [b"1", b"2"]
    reader.close()


def test_a_read_error_stops_the_run_with_its_place(log: Path, tmp_path: Path) -> None:
    run = Following(log, tmp_path)
    run.until(2)
    fd = run.reader.native.fd(0)  # type: ignore[attr-defined]
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, fd)
    os.close(folder)
    assert poll(run.reader.native, run.sink) == FAILED
    assert run.reader.failure() == f"cannot read {log} at byte 4: Is a directory"
    run.reader.close()

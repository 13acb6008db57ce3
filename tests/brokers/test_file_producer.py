"""FileProducer: what stands in the file, when it counts as delivered, full disks, half records of killed runs."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.brokers import file_sink, locked_file, sink_file
from pythia_fast.brokers.base import Delivery, FailedRecord
from pythia_fast.brokers.file import FileProducer
from pythia_fast.errors import ConfigError, SinkError, UnknownOptionError
from pythia_fast.private import PRIVATE_MODE
from tests.support.file_sink import framed, open_sink, wait_delivered
from tests.support.left_behind import nothing_left_behind


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
def test_batches_are_appended_in_order(tmp_path: Path, fsync: str) -> None:
    path = tmp_path / "deep" / "out.ndjson"
    sink = open_sink(path, fsync=fsync)
    for ticket in range(100):
        sink.publish(framed(b"%d" % ticket, b"{}"), 2, ticket)
    assert [d.ticket for d in wait_delivered(sink, 100)] == list(range(100))
    assert path.read_bytes() == b"".join(b"%d\n{}\n" % i for i in range(100))
    assert sink.trouble() is None
    sink.close(10)
    again = open_sink(path, fsync=fsync)
    again.publish(framed(b"more"), 1, 0)
    wait_delivered(again, 1)
    again.close(10)
    assert path.read_bytes().endswith(b"99\n{}\nmore\n")


def test_frames(tmp_path: Path) -> None:
    path = tmp_path / "out.frames"
    sink = open_sink(path, format="msgpack-frames")
    sink.publish(framed(b"\x80", b"with\nbreak", b""), 3, 1)
    assert wait_delivered(sink, 1) == [Delivery(1)]
    sink.close(10)
    assert path.read_bytes() == b"\x01\0\0\0\x80\x0a\0\0\0with\nbreak\0\0\0\0"


def test_what_cannot_be_a_line_is_refused_for_good(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = open_sink(path)
    sink.publish(framed(b"a", b"b\nc", None, b"d"), 4, 5)
    (delivery,) = wait_delivered(sink, 1)
    assert delivery == Delivery(
        5,
        (
            FailedRecord(1, "a payload with a line break cannot be one line of a file"),
            FailedRecord(2, "a null payload has no place in a file"),
        ),
    )
    sink.close(10)
    assert path.read_bytes() == b"a\nd\n"


def test_batch_fsync_comes_before_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    allowed = threading.Event()
    real = sink_file.sync_data

    def sync_data(fd: int) -> None:
        assert allowed.wait(30)
        calls.append("sync")
        real(fd)

    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    sink = open_sink(tmp_path / "out")
    sink.publish(framed(b"a"), 1, 1)
    assert sink.deliveries(0.05) == []
    allowed.set()
    wait_delivered(sink, 1)
    assert calls == ["sync"]
    sink.close(10)


def test_interval_fsync_follows_within_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr(sink_file, "sync_data", lambda fd: synced.set())
    monkeypatch.setattr(sink_file, "FSYNC_INTERVAL_S", 0.05)
    sink = open_sink(tmp_path / "out", fsync="interval")
    sink.publish(framed(b"a"), 1, 1)
    wait_delivered(sink, 1)
    assert synced.wait(30)
    sink.close(10)


def test_a_sync_that_fails_is_not_believed_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    sink = open_sink(path)
    writes: list[int] = []
    failures = [OSError(5, "Input/output error")] * 2
    real_write, real_sync = os.pwrite, sink_file.sync_data

    def pwrite(fd: int, data: bytes, at: int) -> int:
        writes.append(at)
        return real_write(fd, data, at)

    def sync_data(fd: int) -> None:
        if failures:
            raise failures.pop()
        real_sync(fd)

    monkeypatch.setattr(sink_file.os, "pwrite", pwrite)
    monkeypatch.setattr(sink_file, "sync_data", sync_data)
    sink.publish(framed(b"kept"), 1, 1)
    wait_delivered(sink, 1)
    sink.close(10)
    assert writes == [0, 0, 0]
    assert path.read_bytes() == b"kept\n"


class LosingDisk:
    """Syncs that can be made to fail as Linux's do: once, and what was not on the disk yet is gone."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.fail = 0  #: so many of the next syncs
        self.kept = b""  #: what is on the disk
        self.synced = threading.Event()
        monkeypatch.setattr(sink_file, "sync_data", self.sync)
        monkeypatch.setattr(sink_file, "FSYNC_INTERVAL_S", 3600.0)

    def sync(self, fd: int) -> None:
        if self.fail:
            self.fail -= 1
            os.pwrite(fd, bytes(self.path.stat().st_size - len(self.kept)), len(self.kept))
            raise OSError(5, "Input/output error")
        self.kept = self.path.read_bytes()
        self.synced.set()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LosingDisk:
    return LosingDisk(tmp_path / "out", monkeypatch)


def test_what_a_failed_interval_sync_lost_is_written_again(disk: LosingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_file, "FSYNC_INTERVAL_S", 0.02)
    sink = open_sink(disk.path, fsync="interval")
    sink.publish(framed(b"synced"), 1, 0)
    wait_delivered(sink, 1)
    assert disk.synced.wait(30)
    disk.synced.clear()
    disk.fail = 2
    sink.publish(framed(b"delivered"), 1, 1)
    sink.publish(framed(b"before", b"it"), 2, 2)
    wait_delivered(sink, 2)
    while b"it" not in disk.kept:
        assert disk.synced.wait(30)
    sink.close(10)
    assert disk.kept == b"synced\ndelivered\nbefore\nit\n"
    assert disk.fail == 0


def test_an_interval_sync_comes_while_later_records_wait_for_room(
    disk: LosingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(disk.path, fsync="interval")
    assert isinstance(sink, file_sink.FilePublisher)
    sink.publish(framed(b"first"), 1, 0)
    wait_delivered(sink, 1)
    real_write = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if not disk.synced.is_set():
            raise OSError(28, "No space left on device")
        return real_write(fd, data, at)

    monkeypatch.setattr(sink_file.os, "pwrite", pwrite)
    sink.publish(framed(b"second"), 1, 1)
    while sink.trouble() is None:
        assert sink.deliveries(0.01) == []
    sink._file._next_sync = 0.0
    wait_delivered(sink, 1)
    sink.close(10)
    assert disk.kept == b"first\nsecond\n"


def test_an_interval_sync_comes_early_when_much_is_unsynced(disk: LosingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_file, "UNSYNCED_MOST_BYTES", 10)
    sink = open_sink(disk.path, fsync="interval")
    sink.publish(framed(b"0123456789"), 1, 0)
    assert disk.synced.wait(30)
    sink.close(10)


def test_closing_syncs_what_the_interval_left_until_it_works(disk: LosingDisk) -> None:
    sink = open_sink(disk.path, fsync="interval")
    sink.publish(framed(b"a"), 1, 0)
    wait_delivered(sink, 1)
    disk.fail = 2
    sink.close(10)
    assert disk.kept == b"a\n"


def test_closing_tells_what_could_not_be_synced(disk: LosingDisk) -> None:
    lines: list[str] = []
    sink = open_sink(disk.path, lines.append, fsync="interval")
    sink.publish(framed(b"a"), 1, 0)
    wait_delivered(sink, 1)
    disk.fail = 1000
    sink.close(0.01)
    (line,) = lines
    assert line.startswith(f"the last 2 bytes of {disk.path}, which count as delivered, could not be synced")
    assert line.endswith("so they can be lost: Input/output error")


def test_a_sink_that_stops_syncs_what_it_delivered(disk: LosingDisk) -> None:
    sink = open_sink(disk.path, fsync="interval")
    sink.publish(framed(b"a"), 1, 0)
    wait_delivered(sink, 1)
    sink.publish(memoryview(b"garbage"), 1, 1)
    assert disk.synced.wait(30)
    sink.close(10)
    assert disk.kept == b"a\n"


def test_opening_syncs_what_a_killed_run_delivered_and_did_not_sync(disk: LosingDisk) -> None:
    disk.path.write_bytes(b"a\n")
    open_sink(disk.path, fsync="interval").close(10)
    assert disk.kept == b"a\n"
    disk.fail = 1
    with pytest.raises(SinkError, match=r"cannot sync .*out: Input/output error"):
        open_sink(disk.path, fsync="interval")


@pytest.mark.parametrize(("fsync", "expected"), [("batch", ["a/b", "a", ""]), ("never", [])])
def test_the_folders_of_a_new_file_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, expected: list[str]
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(sink_file, "sync_folder", synced.append)
    for _ in range(2):  # the second time all the names are there
        open_sink(tmp_path / "a" / "b" / "out", fsync=fsync).close(10)
    assert synced == [str(tmp_path / folder) for folder in expected]


def test_a_folder_that_cannot_be_synced_is_told_and_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync_folder(folder: str) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(sink_file, "sync_folder", sync_folder)
    lines: list[str] = []
    sink = open_sink(tmp_path / "out", lines.append)
    sink.publish(framed(b"a"), 1, 0)
    wait_delivered(sink, 1)
    sink.close(10)
    (line,) = lines
    assert line.startswith(f"cannot sync the folder {tmp_path}: Invalid argument")


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
@pytest.mark.parametrize(("left", "kept"), [(b"", b""), (b"0\nhal", b"0\n")])
def test_a_file_that_somebody_truncates_is_written_on_at_its_new_end(
    tmp_path: Path, fsync: str, left: bytes, kept: bytes
) -> None:
    path, lines = tmp_path / "out.ndjson", []
    sink = open_sink(path, lines.append, fsync=fsync)
    sink.publish(framed(b"0", b"half", b"2"), 3, 0)
    wait_delivered(sink, 1)
    os.truncate(path, len(left))
    sink.publish(framed(b"3"), 1, 1)
    wait_delivered(sink, 1)
    sink.close(10)
    assert path.read_bytes() == kept + b"3\n"
    assert any(f"was cut from 9 to {len(left)} bytes by somebody else" in line for line in lines)


@contextmanager
def limited_files(folder: Path) -> Iterator[Callable[[], None]]:
    """A folder, while no file of this process can hold more than 1 MiB; the yielded call lifts the limit."""
    folder.mkdir(exist_ok=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system of 1 MiB; the yielded call makes it larger. Where mounting is not allowed, limited_files."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        with limited_files(folder) as make_room:
            yield make_room
        return

    def enlarge() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)

    try:
        yield enlarge
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("disk", [small_disk, limited_files])
def test_a_full_disk_is_waited_out_and_nothing_is_lost_or_halved(tmp_path: Path, disk: Callable[[Path], Any]) -> None:
    payload = b"x" * 999
    with disk(tmp_path / "disk") as make_room:
        path = tmp_path / "disk" / "out.ndjson"
        sink = open_sink(path)
        batch = framed(*[payload] * 300)
        for ticket in range(6):
            sink.publish(batch, 300, ticket)
        done = []
        while sink.trouble() is None:
            done += sink.deliveries(0.01)
        trouble = sink.trouble() or ""
        assert str(path) in trouble
        assert "trying again" in trouble
        done += sink.deliveries()
        assert len(done) < 6
        make_room()
        done += wait_delivered(sink, 6 - len(done))
        assert sink.trouble() is None
        assert [d.ticket for d in done] == list(range(6))
        sink.close(10)
        assert path.read_bytes() == (payload + b"\n") * 1800


def test_closing_while_the_disk_is_full_leaves_whole_records(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        path = tmp_path / "disk" / "out.ndjson"
        sink = open_sink(path)
        sink.publish(framed(b"first"), 1, 0)
        wait_delivered(sink, 1)
        sink.publish(framed(*[b"y" * 9999] * 300), 300, 1)
        while sink.trouble() is None:
            assert sink.deliveries(0.01) == []
        sink.close(0.05)
        assert sink.deliveries() == []
        assert path.read_bytes() == b"first\n"


def test_the_sentence_of_a_full_disk() -> None:
    """The text people see, from a device that is always full."""
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as failure:
        full.write(b"x")
    sink = object.__new__(file_sink.FilePublisher)
    sink._path = "out.ndjson"
    assert sink._sentence(failure.value) == "disk full: out.ndjson cannot grow; trying again until there is room"


@pytest.mark.parametrize(
    ("form", "whole", "half"),
    [("ndjson", b'{"a":1}\n', b'{"a":'), ("msgpack-frames", b"\x02\0\0\0ab", b"\x03\0\0\0xy")],
)
def test_half_a_record_of_a_killed_run_is_moved_aside(tmp_path: Path, form: str, whole: bytes, half: bytes) -> None:
    path = tmp_path / "out"
    path.write_bytes(whole + half)
    lines: list[str] = []
    sink = open_sink(path, lines.append, format=form)
    sink.publish(framed(b"next"), 1, 0)
    wait_delivered(sink, 1)
    sink.close(10)
    assert path.read_bytes() == whole + (b"next\n" if form == "ndjson" else b"\x04\0\0\0next")
    assert (tmp_path / "out.partial").read_bytes() == half
    assert "ended with half a record" in lines[0]


def test_half_a_record_that_cannot_be_moved_refuses_the_file_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b'{"a":1}\n{"a":')
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(SinkError, match=r"half a record.*cannot be moved to .*out\.partial: Is a directory"):
        open_sink(path, print)
    assert path.read_bytes() == b'{"a":1}\n{"a":'


def test_half_a_record_is_moved_whole_or_not_at_all(tmp_path: Path) -> None:
    path, partial = tmp_path / "out", tmp_path / "out.partial"
    half = b"x" * 3_000_000
    path.write_bytes(b"whole\n" + half)
    partial.write_bytes(b"earlier\n")
    with limited_files(tmp_path), pytest.raises(SinkError, match=r"out\.partial: File too large"):
        open_sink(path, print)
    assert (path.read_bytes(), partial.read_bytes()) == (b"whole\n" + half, b"earlier\n")
    open_sink(path, print).close(10)
    assert (path.read_bytes(), partial.read_bytes()) == (b"whole\n", b"earlier\n" + half)


_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.file import FileProducer
from pythia_fast.brokers.framing import frame_record
path = Path(sys.argv[1])
sink = FileProducer(path).open(PublisherContext("app", "handler", path.parent, print))
batch = memoryview(frame_record(b"z" * 9999) * 500)
for ticket in range(1000000):
    sink.publish(batch, 500, ticket)
    while not sink.deliveries(10):
        pass
    print(ticket + 1, flush=True)
"""


def test_delivered_records_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", _WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdout.readline()
        time.sleep(0.003)  # anywhere inside the next write
        writer.send_signal(signal.SIGKILL)
        delivered = [5, *(int(line) for line in writer.stdout)][-1]
    sink = open_sink(path)
    sink.close(10)
    assert set(path.read_bytes().split(b"\n")) == {b"z" * 9999, b""}
    assert path.stat().st_size >= delivered * 500 * 10_000


def test_two_sinks_of_one_file_are_refused(tmp_path: Path) -> None:
    first = open_sink(tmp_path / "out")
    with pytest.raises(SinkError, match=r"out is being written by another sink or run"):
        open_sink(tmp_path / "out")
    first.close(10)


def test_a_file_that_was_replaced_between_open_and_lock_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old\n")
    lock = locked_file.fcntl.flock

    def replaced_first(fd: int, how: int) -> None:
        monkeypatch.undo()
        (tmp_path / "new").write_bytes(b"new\n")
        os.replace(tmp_path / "new", path)
        lock(fd, how)

    monkeypatch.setattr(locked_file.fcntl, "flock", replaced_first)
    sink = open_sink(path)
    sink.publish(framed(b"mine"), 1, 0)
    wait_delivered(sink, 1)
    sink.close(10)
    assert path.read_bytes() == b"new\nmine\n"


def test_a_file_and_what_is_moved_aside_have_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    for mode in (PRIVATE_MODE, locked_file.SHARED_MODE):
        path = tmp_path / f"out-{mode:o}"
        for _ in range(2):
            file_sink.FilePublisher(FileProducer(path), lambda line: None, mode).close(10)
            with path.open("ab") as file:
                file.write(b"half")
        for made in (path, Path(f"{path}.partial")):
            assert made.stat().st_mode & 0o777 == mode


def test_folders_on_the_way_are_private_where_the_file_is(tmp_path: Path) -> None:
    for mode, private in ((PRIVATE_MODE, True), (locked_file.SHARED_MODE, False)):
        path = tmp_path / f"{mode:o}" / "inner" / "out"
        file_sink.FilePublisher(FileProducer(path), lambda line: None, mode).close(10)
        for folder in (path.parent, path.parent.parent):
            assert (folder.stat().st_mode & 0o777 == 0o700) is private


def test_paths_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"cannot write .*/file/out: "):
        open_sink(tmp_path / "file" / "out")
    with pytest.raises(SinkError, match="Is a directory"):
        open_sink(tmp_path)
    with pytest.raises(SinkError, match="not a plain file"):
        open_sink(Path("/dev/full"))


def test_records_that_are_none_stop_the_sink_with_a_reason(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out")
    sink.publish(memoryview(b"garbage"), 1, 0)
    with pytest.raises(SinkError, match="7 bytes are not the 1 framed records"):
        sink.deliveries(30)
    sink.close(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path='': a path"),
        ({"path": None}, "path=None: a path"),
        ({"path": ["a"]}, "path=.*: a path"),
        ({"path": "a", "format": "csv"}, "format='csv'; there are: msgpack-frames, ndjson"),
        ({"path": "a", "fsync": "always"}, "fsync='always'; there are: batch, interval, never"),
        ({"path": "a", "fsync": True}, "fsync=True; there are"),
        ({}, "missing a required argument: 'path'"),
        ({"path": "-"}, 'path="-" means standard input where files are read.*"./-" is a file called "-"'),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileProducer(**options)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="no option 'fsnc'; did you mean 'fsync'"):
        FileProducer("a", fsnc="batch")


def test_encoding_follows_the_format() -> None:
    assert FileProducer("a").encoding() == "json"
    assert FileProducer("a", format="msgpack-frames").encoding() == "msgpack"

"""What files are asked before a run: nothing is made, locked or changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_fast import FileConsumer, FileProducer
from pythia_fast.brokers.checkpoint import Checkpoint, identify
from pythia_fast.brokers.file_checkup import check_folder, holder_of
from tests.support.checkup import bad, context, found, told

ONE_LINE = b'{"qty":1}\n'


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.ndjson"
    path.write_bytes(ONE_LINE * 10)
    return path


def test_files_that_are_there(orders: Path, tmp_path: Path) -> None:
    findings = found(FileConsumer(orders), context(tmp_path / "state"))
    told(findings, "ok", "1 file, 100 bytes, of which 100 are not read yet")
    assert bad(findings) == []
    assert not (tmp_path / "state").exists()


def test_what_was_read_is_known(orders: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    checkpoint = Checkpoint(state, "shop.score")
    with orders.open("rb") as file:
        checkpoint.save([identify(str(orders), file.fileno(), 70)])
    taken = found(FileConsumer(orders), context(state))
    told(taken, "problem", f"consumer group 'shop.score' is being read by process {os.getpid()} already")
    checkpoint.close()
    findings = found(FileConsumer(orders), context(state))
    told(findings, "ok", "1 file, 100 bytes, of which 30 are not read yet")
    assert bad(findings) == []
    told(found(FileConsumer(orders, start="end"), context(state)), "note", "start='end' forgets the checkpoint")
    os.truncate(orders, 20)
    told(found(FileConsumer(orders), context(state)), "problem", "shrank: it was read up to byte 70")


def test_a_checkpoint_that_cannot_be_read(orders: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "shop.score.json").write_text("{")
    told(found(FileConsumer(orders), context(tmp_path)), "problem", "shop.score.json cannot be read")


def test_a_group_that_is_too_long_to_name_a_file(orders: Path, tmp_path: Path) -> None:
    """The default one, of names that are each short enough."""
    findings = found(FileConsumer(orders), context(tmp_path, app="é" * 40, handler="é" * 40))
    told(findings, "problem", "it names the file of positions, where it takes 481 bytes of at most 240")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none-*.ndjson", None, "no file matches"),
        ("none.ndjson", None, "cannot read"),
        ("folder", None, "it is not a file"),
        ("orders.gz", b"\x1f\x8b\x08\x00\x00\x00", "is compressed"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    told(found(FileConsumer(tmp_path / name), context(tmp_path)), "problem", words)


def test_a_pipe_cannot_go_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told(found(FileConsumer(tmp_path / "pipe"), context(tmp_path)), "note", "is read once and cannot go back")
    told(found(FileConsumer("-"), context(tmp_path)), "note", "standard input is read once")


def test_a_sink(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scored.ndjson"
    findings = found(FileProducer(path, fsync="never"), context(tmp_path, role="sink"))
    assert bad(findings) == []
    told(findings, "ok", f"MB are free for {path}")
    told(findings, "note", 'fsync="never"')
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(ONE_LINE)
    told(found(FileProducer(path), context(tmp_path)), "ok", f"{path} is there, with 10 bytes, and can be written")
    told(found(FileProducer(path.parent), context(tmp_path)), "problem", "is not a plain file")
    told(found(FileProducer(path / "below"), context(tmp_path)), "problem", f"{path} is not a folder")


def test_a_sink_that_another_run_writes(tmp_path: Path) -> None:
    path = tmp_path / "scored.ndjson"
    script = (
        f"import fcntl, sys; f = open({str(path)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        told(found(FileProducer(path), context(tmp_path)), "problem", f"is being written by process {other.pid}")
        other.stdin.close()
    assert bad(found(FileProducer(path), context(tmp_path))) == []


def test_locks_are_told_by_device_and_inode(tmp_path: Path) -> None:
    path, locks = tmp_path / "file", tmp_path / "locks"
    path.touch()
    facts = path.stat()
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    locks.write_text(
        f"1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF\n"
        f"1: -> FLOCK  ADVISORY  WRITE 12 {place} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 13 00:00:{facts.st_ino} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 14 {place} 0 EOF\n"
    )
    assert holder_of(path, locks) == 14
    assert holder_of(tmp_path / "other", locks) is None
    assert holder_of(path, tmp_path / "no-such-list") is None


@pytest.mark.parametrize(
    ("free", "grade", "words"),
    [(0, "problem", "is full"), (500_000_000, "warning", "500 MB are free"), (50 << 30, "ok", "MB are free")],
)
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, grade: str, words: str) -> None:
    # A disk of that size is not to be had everywhere.
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(100 << 30, free))
    told(list(check_folder(tmp_path, "the sink")), grade, words)


class _Usage:
    def __init__(self, total: int, free: int) -> None:
        self.total, self.free = total, free


def test_no_permission(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders.chmod(0o400)
    orders.parent.chmod(0o500)
    if os.geteuid() == 0:  # who may do everything
        monkeypatch.setattr("os.access", lambda *_: False)
    try:
        told(list(check_folder(orders.parent, "the sink")), "problem", "this user may not make files")
        told(found(FileProducer(orders)), "problem", "may not be read and written by this user")
    finally:
        orders.parent.chmod(0o700)

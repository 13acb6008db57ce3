"""Dead letters in a file: read while a run writes, taken out only while none does, and never lost in between."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pythia_fast.brokers.framing import encode_headers, frame_record
from pythia_fast.brokers.locked_file import open_locked
from pythia_fast.dlq import file_store
from pythia_fast.dlq.file_store import FileStore
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.runtime.dead_letter import Form, form_of, read_dead_letters
from pythia_fast.runtime.dead_letter_form import DeadLetter
from tests.support.letters import letter, write_letters

LETTERS = [letter(offset=offset, payload=b"%d" % offset) for offset in range(6)]


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    files = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == files


@pytest.fixture(params=["lines", "frames", "records"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_letters(tmp_path / "dead", *LETTERS, form=request.param)


def letters_in(path: Path) -> list[DeadLetter]:
    return [stored.letter() for stored in read_dead_letters(path)]


def take_out(path: Path, *offsets: int, archive: bool = True) -> list[str]:
    store = FileStore(path)
    with store.claim():
        places = [entry.place for entry in store.entries() if entry.stored.offset in offsets]
        return store.settle(places, archive=archive)


def test_letters_that_were_dealt_with_go_to_the_archive_and_the_others_stay(path: Path) -> None:
    path.chmod(0o644)
    os.utime(path)
    assert take_out(path, 0, 2, 3) == [f"kept in {path}.done"]
    assert letters_in(path) == [LETTERS[1], LETTERS[4], LETTERS[5]]
    take_out(path, 5)
    assert letters_in(path) == [LETTERS[1], LETTERS[4]]
    done = Path(f"{path}.done")
    assert letters_in(done) == [LETTERS[0], LETTERS[2], LETTERS[3], LETTERS[5]]
    assert [each.stat().st_mode & 0o777 for each in (path, done)] == [0o600, 0o600]
    assert sorted(each.name for each in path.parent.iterdir()) == ["dead", "dead.done"]


def test_an_archive_that_has_no_room_is_as_it_was_and_half_a_letter_in_it_makes_way(path: Path) -> None:
    take_out(path, 0)
    done = Path(f"{path}.done")
    before = done.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(SinkError, match=r"cannot take letters out of .*dead: File too large"):
            take_out(path, 1, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.read_bytes() == before
    assert letters_in(path) == LETTERS[1:]
    large = write_letters(path.parent / "large", letter(offset=9, payload=bytes(9000)), form=form_of(path))
    done.write_bytes(before + large.read_bytes()[:6000])  # as a command that was killed leaves it
    take_out(path, 1, 2)
    assert letters_in(done) == LETTERS[:3]
    assert letters_in(path) == LETTERS[3:]


def test_all_of_them_leave_an_empty_file_and_no_archive_where_none_is_wanted(path: Path) -> None:
    assert take_out(path, *range(6), archive=False) == []
    assert path.read_bytes() == b""
    assert os.listdir(path.parent) == ["dead"]
    assert list(FileStore(path).entries()) == []


def test_nothing_dealt_with_leaves_the_file_alone(path: Path) -> None:
    before = path.stat()
    assert take_out(path) == []
    assert path.stat().st_ino == before.st_ino


def test_half_a_record_at_the_end_is_left_for_the_run(path: Path) -> None:
    whole = path.read_bytes()
    half = whole[: len(whole) // 6 - 5]
    path.write_bytes(whole + half)
    assert [entry.stored.offset for entry in FileStore(path).entries()] == list(range(6))
    take_out(path, *range(5))
    assert path.read_bytes().endswith(half)
    assert [entry.stored.offset for entry in FileStore(path).entries()] == [5]


def test_a_file_that_a_run_writes_is_read_but_not_claimed(path: Path) -> None:
    fd = open_locked(str(path))
    try:
        assert len(list(FileStore(path).entries())) == 6
        with pytest.raises(SinkError, match="dead is being written by a run or another dlq command: stop that first"):
            take_out(path, 0)
    finally:
        os.close(fd)
    assert letters_in(path) == LETTERS


def test_a_claimed_file_stays_locked_when_it_was_replaced(path: Path) -> None:
    store = FileStore(path)
    with store.claim():
        store.settle([next(store.entries()).place], archive=False)
        with pytest.raises(SinkError, match="is being written"):
            open_locked(str(path))
    os.close(open_locked(str(path)))


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    take_out(link, *range(5), archive=False)
    assert link.is_symlink()
    assert letters_in(path) == LETTERS[5:]
    assert take_out(link, 5) == [f"kept in {path}.done"]
    assert letters_in(Path(f"{path}.done")) == LETTERS[5:]


def test_a_file_that_cannot_be_replaced_is_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_store.os, "fsync", full)
    with pytest.raises(SinkError, match=r"cannot take letters out of .*dead: No space left on device"):
        take_out(path, 0, archive=False)
    assert letters_in(path) == LETTERS
    assert os.listdir(path.parent) == ["dead"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to somebody else")
def test_the_owner_keeps_the_file(path: Path) -> None:
    os.chown(path, 12345, 12345)
    take_out(path, 0)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)


def test_files_of_others_beside_it_stay_and_what_a_killed_command_left_goes(path: Path) -> None:
    others = Path(f"{path}.new")
    others.write_text("precious")
    left = path.parent / f".dlq-{path.stat().st_ino}-abc.new"
    left.touch()
    take_out(path, 0, archive=False)
    assert others.read_text() == "precious"
    assert sorted(os.listdir(path.parent)) == ["dead", "dead.new"]


FOREIGN = [b'{"price":1}', b"# 5 \xe2\x82\xac a piece, \xff", b"", b"[" * 100_000]


def as_frame(record: bytes) -> bytes:
    return len(record).to_bytes(4, "little") + record


@pytest.mark.parametrize(
    "damage",
    [{"payload_base64": "%%"}, {"key_base64": "a"}, {"headers_base64": "AAAA"}],
    ids=lambda damage: str(*damage),
)
def test_a_letter_whose_bytes_cannot_be_told_is_none(tmp_path: Path, damage: dict[str, str]) -> None:
    path = tmp_path / "dead"
    write_letters(path, *LETTERS)
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(first), **damage}) + b"\n" + b"".join(others))
    store = FileStore(path)
    assert [entry.stored.offset for entry in store.entries()] == [1, 2, 3, 4, 5]
    assert store.describe_foreign().startswith(f"line 1 of file {path} is no dead letter, and left alone: ")


@pytest.mark.parametrize("form", ["lines", "frames", "records"])
def test_what_is_no_dead_letter_is_left_alone_byte_for_byte_and_counted(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "dead"
    with path.open("wb") as file:
        for number, each in enumerate(FOREIGN):
            write_letters(path, LETTERS[number], form=form)
            file.seek(0, os.SEEK_END)
            file.write(each + b"\n" if form == "lines" else as_frame(each))
            file.flush()
    store = FileStore(path)
    assert store.describe_foreign() == ""
    for _ in range(2):  # counted anew each time
        assert [entry.stored.offset for entry in store.entries()] == [0, 1, 2, 3]
        assert store.foreign == 4
        assert store.describe_foreign().startswith(
            f"{'line' if form == 'lines' else 'record'} 2 of file {path} is no dead letter, and left alone, as 3 more: "
        )
    take_out(path, 0, 1, 2, 3)
    kept = path.read_bytes()
    assert kept == b"".join(each + b"\n" if form == "lines" else as_frame(each) for each in FOREIGN)
    assert letters_in(Path(f"{path}.done")) == LETTERS[:4]


@pytest.mark.parametrize("first", FOREIGN[:3])
def test_lines_stay_lines_whatever_the_first_of_them_is(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "dead"
    path.write_bytes(first + b"\n")
    write_letters(path, *LETTERS)
    store = FileStore(path)
    assert len(list(store.entries())) == 6
    assert store.describe_foreign().startswith(f"line 1 of file {path} is no dead letter, and left alone: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*none: No such file"):
        list(FileStore(tmp_path / "none").entries())


def test_progress_and_places_are_told(path: Path) -> None:
    store = FileStore(path)
    first, *_, last = store.entries()
    assert store.progress() == (path.stat().st_size, path.stat().st_size)
    assert (first.place.start, last.place.end) == (0, path.stat().st_size)
    assert store.locate(last.place) == f"byte {last.place.start:,} of {path}"


def test_a_message_whose_headers_do_not_say_why_is_no_dead_letter(tmp_path: Path) -> None:
    path = write_letters(tmp_path / "dead", LETTERS[0], form="records")
    with path.open("ab") as file:
        file.write(as_frame(frame_record(b"payload", b"key", encode_headers([("trace", b"1")]))))
    store = FileStore(path)
    assert [entry.stored.letter() for entry in store.entries()] == [LETTERS[0]]
    assert store.describe_foreign() == (
        f"record 2 of file {path} is no dead letter, and left alone: its headers do not say why it is one (pf-*)"
    )

"""Positions of files: resuming, refusing to guess, one run a group, no torn file at any kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pythia_fast._ext.collecting_sink import STALLED, CollectingSink
from pythia_fast.brokers.checkpoint import HEAD_BYTES, Checkpoint, FilePosition, identify
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.errors import SourceError
from pythia_fast.testing.readers import drain, reader_context


def read(path: Path, state_dir: Path, *, commit: int | None = None, **options: Any) -> list[bytes | None]:
    """One run over ``path``; commits after ``commit`` messages (None: all)."""
    reader = FileConsumer(path, consumer_group="g", **options).open(reader_context(state_dir))
    sink = CollectingSink(stall_after=commit)
    drain(reader, sink)
    positions = {message.partition: message.next_offset for message in sink.messages}
    reader.commit(positions, wait=True)
    reader.close()
    return sink.payloads


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.ndjson"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(1000)))
    return path


def payloads(first: int, last: int) -> list[bytes]:
    return [b"%d" % i for i in range(first, last)]


def test_a_stopped_run_goes_on_where_it_was(numbers: Path, tmp_path: Path) -> None:
    assert read(numbers, tmp_path, commit=10) == payloads(0, 10)
    assert read(numbers, tmp_path) == payloads(10, 1000)
    assert read(numbers, tmp_path) == []
    with numbers.open("ab") as file:
        file.write(b"1000\n")
    assert read(numbers, tmp_path) == [b"1000"]


def test_what_was_not_committed_is_read_again(numbers: Path, tmp_path: Path) -> None:
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path))
    sink = CollectingSink(stall_after=100)
    assert drain(reader, sink) == STALLED
    reader.commit({0: sink.messages[39].next_offset})
    reader.commit({0: sink.messages[19].next_offset})
    reader.close()
    assert read(numbers, tmp_path) == payloads(40, 1000)


def test_groups_do_not_share_positions(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path)
    other = FileConsumer(numbers, consumer_group="a/b ü").open(reader_context(tmp_path))
    default = FileConsumer(numbers).open(reader_context(tmp_path))
    for reader in (other, default):
        sink = CollectingSink()
        drain(reader, sink)
        assert sink.count == 1000
        reader.close()


def test_positions_of_several_files(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.log").write_bytes(b"".join(b"%s%d\n" % (name.encode(), i) for i in range(4)))
    reader = FileConsumer(str(tmp_path / "*.log"), consumer_group="g").open(reader_context(tmp_path))
    sink = CollectingSink(stall_after=6)
    drain(reader, sink)
    reader.commit({0: 12, 1: 3}, wait=True)
    reader.close()
    (tmp_path / "0.log").write_bytes(b"first\n")
    again = FileConsumer(str(tmp_path / "*.log"), consumer_group="g").open(reader_context(tmp_path))
    sink = CollectingSink()
    drain(again, sink)
    again.close()
    assert sink.payloads == [b"first", b"b1", b"b2", b"b3", b"c0", b"c1", b"c2", b"c3"]


@pytest.mark.parametrize(("start", "first"), [("beginning", 0), ("end", 1000)])
def test_start_forgets_the_checkpoint(numbers: Path, tmp_path: Path, start: str, first: int) -> None:
    read(numbers, tmp_path, commit=10)
    assert read(numbers, tmp_path, start=start) == payloads(first, 1000)


def test_end_begins_after_the_last_whole_line(numbers: Path, tmp_path: Path) -> None:
    with numbers.open("ab") as file:
        file.write(b"half" * 50_000)
    reader = FileConsumer(numbers, start="end").open(reader_context(tmp_path))
    sink = CollectingSink()
    drain(reader, sink)
    reader.close()
    assert sink.payloads == [b"half" * 50_000]


def test_a_file_that_shrank_is_refused_with_the_way_out(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path)
    os.truncate(numbers, 1000)
    with pytest.raises(SourceError, match=r'shrank: it was read up to byte 3,890 and has 1,000 now.*start="beginning"'):
        read(numbers, tmp_path)
    assert len(read(numbers, tmp_path, start="beginning")) > 100
    assert read(numbers, tmp_path) == []


def test_another_file_under_the_name_is_refused(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    other = tmp_path / "other"
    other.write_bytes(b"x" * 5000)
    os.replace(other, numbers)
    with pytest.raises(
        SourceError,
        match=r"not the file that this group read, and that file could not be found in .*: it was read up to byte 20 "
        r'of 3,890; 3,870 bytes were not read\. Move it back into that folder.*give it up with start="beginning"',
    ):
        read(numbers, tmp_path)


def rotate(path: Path, text: bytes, number: int = 1) -> Path:
    old = path.with_name(f"{path.name}.{number}")
    path.rename(old)
    path.write_bytes(text)
    return old


def test_the_rest_of_a_rotated_file_is_read_before_the_new_one(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    rotate(numbers, b"new\n")
    assert read(numbers, tmp_path, commit=5) == payloads(10, 15)
    assert read(numbers, tmp_path) == [*payloads(15, 1000), b"new"]  # the run between stopped within the old file
    assert read(numbers, tmp_path) == []
    stored = json.loads((tmp_path / "checkpoints" / "g.json").read_text())
    assert [(entry["path"], entry["position"], entry["end"]) for entry in stored["files"]] == [(str(numbers), 4, 4)]


def test_what_was_appended_to_a_file_read_to_its_end_is_read_after_its_rotation(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path)
    with numbers.open("ab") as file:
        file.write(b"1000\n")
    rotate(numbers, b"new\n")
    assert read(numbers, tmp_path) == [b"1000", b"new"]


def test_a_file_moved_back_into_its_folder_is_read_on(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    away = tmp_path / "away"
    away.mkdir()
    numbers.rename(away / "numbers")
    numbers.write_bytes(b"new\n")
    with pytest.raises(SourceError, match="could not be found"):
        read(numbers, tmp_path)
    (away / "numbers").rename(tmp_path / "back")
    assert read(numbers, tmp_path) == [*payloads(10, 1000), b"new"]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_replaces_one_read_to_its_end_is_read_from_its_beginning(
    numbers: Path, tmp_path: Path, in_place: bool
) -> None:
    read(numbers, tmp_path)
    if not in_place:
        (tmp_path / "away").mkdir()
        numbers.rename(tmp_path / "away" / "numbers")
    numbers.write_bytes(b"x" * 5000)
    lines: list[str] = []
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path, log=lines.append))
    sink = CollectingSink()
    drain(reader, sink)
    reader.close()
    assert sink.payloads == [b"x" * 5000]
    (line,) = lines
    assert "the one before was read to its end, byte 3,890" in line


def test_bytes_of_a_file_that_grew_while_it_was_read_are_no_end(numbers: Path, tmp_path: Path) -> None:
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path))
    with numbers.open("ab") as file:
        file.write(b"1000\n")
    sink = CollectingSink()
    drain(reader, sink)
    assert sink.count == 1000
    reader.commit({0: 3890}, wait=True)
    reader.close()
    numbers.unlink()
    numbers.write_bytes(b"x" * 5000)
    with pytest.raises(SourceError, match="read up to byte 3,890 of 3,895; 5 bytes were not read"):
        read(numbers, tmp_path)


def test_files_between_two_rotations_are_named(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    rotate(numbers, b"between\n", 2)
    between = rotate(numbers, b"new\n", 1)
    lines: list[str] = []
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path, log=lines.append))
    reader.close()
    (line,) = lines
    assert f"does not read {between};" in line


def test_a_renamed_file_and_a_copied_back_file_are_known(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    renamed = tmp_path / "renamed.ndjson"
    numbers.rename(renamed)
    assert read(renamed, tmp_path, commit=10) == payloads(10, 20)
    copy = tmp_path / "copy"
    shutil.copy(renamed, copy)
    renamed.unlink()
    copy.rename(renamed)
    assert read(renamed, tmp_path) == payloads(20, 1000)


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_written_anew_in_place_is_refused(numbers: Path, tmp_path: Path, follow: bool) -> None:
    read(numbers, tmp_path, commit=10)
    numbers.write_bytes(b"x" * 5000)
    consumer = FileConsumer(numbers, consumer_group="g", follow=follow)
    with pytest.raises(
        SourceError, match=r'written anew.*up to byte 20 of 3,890; 3,870 bytes were not read.*start="beginning"'
    ):
        consumer.open(reader_context(tmp_path, until="forever"))


def anew(numbers: Path) -> list[bytes]:
    """Write the file anew in its place: longer, with the same head; returns its lines."""
    lines = [*payloads(0, 600), *(b"changed %d" % number for number in range(600, 1100))]
    numbers.write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


def test_a_file_written_anew_with_the_same_head_is_read_from_its_beginning(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path)
    lines = anew(numbers)
    told: list[str] = []
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path, log=told.append))
    sink = CollectingSink()
    drain(reader, sink)
    reader.commit({0: sink.messages[-1].next_offset}, wait=True)
    reader.close()
    assert sink.payloads == lines
    (line,) = told
    assert "was written anew; the one before was read to its end, byte 3,890" in line
    assert read(numbers, tmp_path) == []


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_written_anew_with_the_same_head_before_it_was_read_is_refused(
    numbers: Path, tmp_path: Path, follow: bool
) -> None:
    read(numbers, tmp_path, commit=900)
    lines = anew(numbers)
    consumer = FileConsumer(numbers, consumer_group="g", follow=follow)
    with pytest.raises(SourceError, match=r"written anew, bytes that were read have changed.*byte 3,490 of 3,890"):
        consumer.open(reader_context(tmp_path, until="forever"))
    assert read(numbers, tmp_path, start="beginning") == lines


@pytest.mark.parametrize(
    ("format", "record"), [("fixed", b"%08d"), ("msgpack-frames", b"\x08\x00\x00\x00%08d"), ("ndjson", b"%08d\n")]
)
def test_every_format_is_known_by_the_bytes_before_the_position(tmp_path: Path, format: str, record: bytes) -> None:  # noqa: A002
    path = tmp_path / "records"
    path.write_bytes(b"".join(record % number for number in range(1000)))
    options: dict[str, Any] = {"format": format} | ({"record_size": 8} if format == "fixed" else {})
    assert len(read(path, tmp_path, **options)) == 1000
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(record % 1000)
    assert read(path, tmp_path, **options) == [b"00001000"]
    with path.open("r+b") as file:
        file.seek(990 * len(record % 0))
        file.write(record % 7)
        file.seek(0, os.SEEK_END)
        file.write(record % 1001)
    assert len(read(path, tmp_path, **options)) == 1002


def test_a_rotated_file_that_was_written_anew_is_not_read_on(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=900)
    anew(rotate(numbers, b"new\n"))
    with pytest.raises(SourceError, match="could not be found"):
        read(numbers, tmp_path)


def test_a_checkpoint_without_the_bytes_before_the_position_is_good(numbers: Path, tmp_path: Path) -> None:
    read(numbers, tmp_path, commit=10)
    stored = json.loads((tmp_path / "checkpoints" / "g.json").read_text())
    for entry in stored["files"]:
        assert entry.pop("tail")["end"] == entry["position"]
    (tmp_path / "checkpoints" / "g.json").write_text(json.dumps(stored))
    assert read(numbers, tmp_path, commit=10) == payloads(10, 20)
    (entry,) = json.loads((tmp_path / "checkpoints" / "g.json").read_text())["files"]
    assert entry["tail"]["end"] == entry["position"]


def test_the_bytes_before_the_position_are_kept_of_a_file_that_is_closed_before_its_rows_are_done(
    numbers: Path, tmp_path: Path
) -> None:
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path))
    sink = CollectingSink()
    drain(reader, sink)
    assert sink.count == 1000
    for position, known_by in ((20, 0), (40, 0), (3890, 3890)):
        reader.commit({0: position}, wait=True)
        (entry,) = json.loads((tmp_path / "checkpoints" / "g.json").read_text())["files"]
        assert (entry["position"], entry["tail"]["end"]) == (position, known_by)
    reader.close()
    assert read(numbers, tmp_path) == []


def test_rotation_within_a_glob_is_no_replacement(numbers: Path, tmp_path: Path) -> None:
    pattern = Path(str(numbers) + "*")
    read(pattern, tmp_path, commit=990)
    numbers.rename(tmp_path / "numbers.ndjson.1")
    numbers.write_bytes(b"new\n")
    assert read(pattern, tmp_path) == [b"new", *payloads(990, 1000)]


def test_a_file_that_was_short_is_known_after_it_grew(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"1\n")
    assert read(path, tmp_path) == [b"1"]
    path.write_bytes(b"1\n" + b"2\n" * HEAD_BYTES)
    assert len(read(path, tmp_path)) == HEAD_BYTES


@pytest.mark.parametrize("until", ["end", "forever"])
def test_a_restart_does_not_look_at_every_position_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    files = 300
    for number in range(files):
        (tmp_path / f"{number:03}.log").write_bytes(b"%d\n" % number)
    read(tmp_path / "*.log", tmp_path)
    looked = []
    identity = FilePosition.identity.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(FilePosition, "identity", property(lambda entry: looked.append(entry) or identity(entry)))
    consumer = FileConsumer(tmp_path / "*.log", consumer_group="g", follow=until == "forever")
    reader = consumer.open(reader_context(tmp_path, until=until))
    sink = CollectingSink()
    drain(reader, sink)
    reader.commit({}, wait=True)
    reader.close()
    assert sink.count == 0
    assert files <= len(looked) < 20 * files


def test_two_runs_of_one_group_are_refused(numbers: Path, tmp_path: Path) -> None:
    first = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path))
    with pytest.raises(SourceError, match=rf"group 'g' is being read by process {os.getpid()} already"):
        FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path))
    first.close()
    assert len(read(numbers, tmp_path)) == 1000


def test_a_checkpoint_that_is_not_one_is_refused(numbers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for damaged in (b"{torn", b'{"version":1,"files":[{"path":"\xff"}]}', b'{"version":' + b"[" * 5000):
        (folder / "g.json").write_bytes(damaged)
        with pytest.raises(SourceError, match=r'g\.json cannot be read .*start="beginning"'):
            read(numbers, tmp_path)
    assert read(numbers, tmp_path, start="beginning", commit=1) == [b"0"]
    stored = json.loads((folder / "g.json").read_text())
    (folder / "g.json").write_text(json.dumps(stored | {"version": 2}))
    with pytest.raises(SourceError, match="version 2, this program knows version 1"):
        read(numbers, tmp_path)


def test_a_state_folder_that_cannot_be_made_is_named(numbers: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot keep positions in .*numbers.*--state-dir"):
        FileConsumer(numbers).open(reader_context(numbers))


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_tried_again(numbers: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    reader = FileConsumer(numbers, consumer_group="g").open(reader_context(tmp_path, log=lines.append))
    drain(reader, CollectingSink(stall_after=5))
    blocker = tmp_path / "checkpoints" / "g.json.new"
    blocker.mkdir()
    reader.commit({0: 8})
    reader.commit({0: 10})
    assert [line.startswith("cannot write the checkpoint") for line in lines] == [True]
    with pytest.raises(SourceError, match=r"cannot write the checkpoint .*g\.json"):
        reader.commit({}, wait=True)
    blocker.rmdir()
    reader.commit({})
    reader.close()
    assert read(numbers, tmp_path) == payloads(5, 1000)


_COMMIT_FOR_EVER = """
import sys
from pathlib import Path
from pythia_fast.brokers.checkpoint import Checkpoint, FilePosition
checkpoint = Checkpoint(Path(sys.argv[1]), "g")
position = 0
while True:
    checkpoint.save([FilePosition(f"{i}", 0, 0, 0, "", position) for i in range(50)])
    if position == 20:
        print("going", flush=True)
    position += 1
"""


def test_a_kill_at_any_time_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", _COMMIT_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"going\n"
            writer.send_signal(signal.SIGKILL)
        checkpoint = Checkpoint(tmp_path, "g")
        assert len(checkpoint.files) == 50
        assert len({entry.position for entry in checkpoint.files}) == 1
        assert checkpoint.files[0].position >= 20
        checkpoint.close()


def test_an_identity_learns_more_of_the_head_as_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"ab")
    with path.open("r+b", buffering=0) as file:
        entry = identify(str(path), file.fileno(), 0)
        assert entry.head_bytes == 2
        file.seek(0, os.SEEK_END)
        file.write(b"c" * 5000)
        assert entry.has_same_head(file.fileno())
        entry.learn_head(file.fileno())
        assert entry.head_bytes == HEAD_BYTES
        file.seek(100)
        file.write(b"X")
        assert not entry.has_same_head(file.fileno())


def test_finished_means_done_to_a_known_end() -> None:
    entry = FilePosition("p", 1, 2, 0, "", 10)
    assert not entry.finished
    entry.end = 11
    assert not entry.finished
    entry.position = 11
    assert entry.finished


def test_checkpoints_are_for_their_owner_only(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "group")
    checkpoint.save([])
    checkpoint.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "checkpoints").iterdir()}
    assert modes == {"group.json": 0o600, "group.lock": 0o600}


def test_a_group_names_a_file_or_is_refused_with_what_helps(tmp_path: Path) -> None:
    longest = "é" * 40
    with closing(Checkpoint(tmp_path, longest)) as checkpoint:
        checkpoint.save([])
    assert checkpoint.path.exists()
    with pytest.raises(SourceError, match=r"takes 246 bytes of at most 240 .*: give a shorter consumer_group$"):
        Checkpoint(tmp_path, longest + "é")


def test_names_that_are_not_utf8_keep_their_positions(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [b"\xff.ndjson", b"\\xff.ndjson", "\N{SNOWMAN}.ndjson".encode()]
    for number, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(b"%d\n" % number)
    pattern = folder / "*.ndjson"
    assert sorted(value or b"" for value in read(pattern, tmp_path)) == [b"0", b"1", b"2"]
    assert read(pattern, tmp_path) == []
    with closing(Checkpoint(tmp_path, "g")) as checkpoint:
        assert sorted(os.path.basename(os.fsencode(entry.path)) for entry in checkpoint.files) == sorted(names)


def test_a_checkpoint_that_cannot_be_opened_is_refused_by_name(numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "g.json").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"g\.json cannot be read: Is a directory; .*--state-dir"):
        read(numbers, tmp_path)


@pytest.mark.parametrize(
    ("field", "number"),
    [("position", -1), ("position", 99999999999999999999999), ("head_bytes", -5), ("head_bytes", 2**40), ("size", -1)],
)
def test_a_checkpoint_of_odd_numbers_is_refused(numbers: Path, tmp_path: Path, field: str, number: int) -> None:
    read(numbers, tmp_path, commit=10)
    path = tmp_path / "checkpoints" / "g.json"
    stored = json.loads(path.read_bytes())
    stored["files"][0][field] = number
    path.write_text(json.dumps(stored))
    with pytest.raises(SourceError, match=rf"g\.json cannot be read .*{field}"):
        read(numbers, tmp_path)


def test_a_folder_that_was_removed_is_made_again_with_its_lock(tmp_path: Path) -> None:
    position = FilePosition("orders.ndjson", 1, 2, 0, "", 10)
    first = Checkpoint(tmp_path, "group")
    folder = first.path.parent
    shutil.rmtree(folder)
    first.save([position])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(SourceError, match="is being read by process"):
        Checkpoint(tmp_path, "group")
    shutil.rmtree(folder)
    with closing(Checkpoint(tmp_path, "group")):  # nobody held the name
        shutil.move(folder, tmp_path / "aside")
        first.save([position])
    with closing(first), pytest.raises(SourceError, match="is being read by process"):
        Checkpoint(tmp_path, "group")
    with closing(Checkpoint(tmp_path, "group")) as third:
        assert third.files == [position]

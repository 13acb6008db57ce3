"""Files whose last record is not whole: what waits, what is refused, and what is read again."""

from __future__ import annotations

import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pythia_fast._ext.collecting_sink import END, IDLE, CollectingSink, Incoming
from pythia_fast.brokers import tail
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.testing.readers import collect, drain, reader_context


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


RECORDS = [b"%07d" % number for number in range(4)]
#: format -> options, its records as they stand in a file
FORMS: dict[str, tuple[dict[str, Any], list[bytes]]] = {
    "fixed": ({"format": "fixed", "record_size": 7}, RECORDS),
    "frames": ({"format": "msgpack-frames"}, [frame(record) for record in RECORDS]),
}


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


class Run:
    """One run to the end over ``path``, all committed."""

    def __init__(self, path: Path, *, max_payload_bytes: int = 1 << 20, **options: Any) -> None:
        self.lines: list[str] = []
        context = reader_context(path.parent / "state", log=self.lines.append, max_payload_bytes=max_payload_bytes)
        reader = FileConsumer(path, consumer_group="g", **options).open(context)
        sink = CollectingSink()
        assert drain(reader, sink) == END
        self.progress = reader.progress()
        self.unread = reader.unread()
        reader.commit({m.partition: m.next_offset for m in sink.messages}, wait=True)
        reader.close()
        self.messages: list[Incoming] = sink.messages
        self.payloads = sink.payloads


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("half", [1, 3, 5])
def test_half_a_record_waits_for_the_rest_and_is_told(tmp_path: Path, form: str, half: int) -> None:
    options, stored = FORMS[form]
    path = tmp_path / "records"
    path.write_bytes(stored[0] + stored[1] + stored[2][:half])
    position = len(stored[0] + stored[1])
    told = (
        f"{path} ends within a record: {half} bytes from byte {position} on wait for the rest of it, and are read by "
        "the next run that finds it whole"
    )
    run = Run(path, **options)
    assert (run.payloads, run.lines, run.unread) == (RECORDS[:2], [told], ())
    assert run.progress == (position + half, position + half)
    run = Run(path, **options)
    assert (run.payloads, run.lines) == ([], [told])
    append(path, stored[2][half:] + stored[3])
    run = Run(path, **options)
    assert (run.payloads, run.lines) == (RECORDS[2:], [])
    assert not any(message.cut for message in run.messages)


@pytest.mark.parametrize("mend", ["size", "cut", "copy"])
def test_what_stands_behind_a_damaged_size_is_told_until_it_is_mended(tmp_path: Path, mend: str) -> None:
    rows = [frame(msgspec.msgpack.encode({"id": number})) for number in range(6)]
    damaged = struct.pack("<I", 5000) + rows[2][4:]
    (tmp_path / "1.bin").write_bytes(rows[0] + rows[1] + damaged + rows[3])
    (tmp_path / "2.bin").write_bytes(rows[4] + rows[5])
    position, left = len(rows[0] + rows[1]), len(rows[2] + rows[3])

    def run() -> list[int]:
        once = Run(tmp_path / "*.bin", format="msgpack-frames")
        assert once.lines == [part.line for part in once.unread]
        begins = f"{tmp_path / '1.bin'} is damaged: the size at byte {position} says that 5,000 bytes follow"
        told[:] = [(part.bytes, part.line.startswith(begins)) for part in once.unread]
        return [msgspec.msgpack.decode(payload)["id"] for payload in once.payloads]

    told: list[tuple[int, bool]] = []
    assert run() == [0, 1, 4, 5]
    assert told == [(left, True)]
    assert run() == []
    assert told == [(left, True)]
    if mend == "size":
        with (tmp_path / "1.bin").open("r+b") as file:
            file.seek(position)
            file.write(rows[2])
    elif mend == "cut":
        os.truncate(tmp_path / "1.bin", position)
    else:
        (tmp_path / "copy").write_bytes(b"".join(rows[:4]))
        (tmp_path / "copy").rename(tmp_path / "1.bin")
    assert run() == ([] if mend == "cut" else [2, 3])
    assert told == []


@pytest.mark.parametrize("form", ["fixed", "frames"])
def test_half_a_record_longer_than_a_batch_waits_too(tmp_path: Path, form: str) -> None:
    large = os.urandom(700_000)
    stored = large if form == "fixed" else frame(large)
    options = {"format": "msgpack-frames"} if form == "frames" else {"format": "fixed", "record_size": len(large)}
    most = 1000 if form == "frames" else 1 << 20  # a fixed record that fits no batch is refused from the start
    path = tmp_path / "records"
    path.write_bytes(stored + stored[:500_000])
    run = Run(path, max_payload_bytes=most, **options)
    assert run.payloads == [large]
    assert "500,000 bytes from byte" in run.lines[0]
    append(path, stored[500_000:])
    assert Run(path, max_payload_bytes=most, **options).payloads == [large]


@pytest.mark.parametrize("form", FORMS)
def test_half_a_record_at_the_end_of_a_rotated_file_is_refused(tmp_path: Path, form: str) -> None:
    options, stored = FORMS[form]
    path = tmp_path / "records"
    path.write_bytes(stored[0] + stored[1][:5])
    assert Run(path, **options).payloads == RECORDS[:1]
    path.rename(tmp_path / "records.1")
    path.write_bytes(stored[2])
    run = Run(path, **options)
    half = RECORDS[1][:5] if form == "fixed" else RECORDS[1][:1]
    assert [(m.payload, m.cut, m.offset) for m in run.messages] == [
        (half, True, len(stored[0])),
        (RECORDS[2], False, 0),
    ]
    assert run.lines == []
    assert Run(path, **options).payloads == []


def test_half_a_frame_at_the_end_of_a_file_that_rotates_under_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "ROTATION_GRACE_S", 0.2)
    path = tmp_path / "records"
    path.write_bytes(frame(b"one") + frame(b"two")[:5])
    source = FileConsumer(path, follow=True, consumer_group="g", format="msgpack-frames")
    reader = source.open(reader_context(tmp_path / "state", until="forever"))
    sink = collect(reader, 1)
    path.rename(tmp_path / "records.1")
    path.write_bytes(frame(b"three"))
    collect(reader, 3, sink)
    reader.close()
    assert [(m.payload, m.cut) for m in sink.messages] == [(b"one", False), (b"t", True), (b"three", False)]


@pytest.mark.parametrize("most", [3, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
def test_half_a_record_at_the_end_of_a_pipe_is_refused(tmp_path: Path, form: str, most: int) -> None:
    options, stored = FORMS[form]
    if form == "fixed" and most == 3:
        most = 7  # a fixed record that fits no batch is refused from the start
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(stored[0] + stored[1][:-1],))
    writer.start()
    reader = FileConsumer(tmp_path / "pipe", **options).open(reader_context(tmp_path, max_payload_bytes=most))
    sink = CollectingSink()
    while drain(reader, sink, timeout_us=1_000_000) == IDLE:
        pass
    writer.join()
    reader.close()
    assert [(m.payload, m.cut) for m in sink.messages] == [(RECORDS[0], False), (RECORDS[1][:-1], True)]


@pytest.mark.parametrize("form", FORMS)
def test_end_begins_before_half_a_record(tmp_path: Path, form: str) -> None:
    options, stored = FORMS[form]
    path = tmp_path / "records"
    path.write_bytes(stored[0] + stored[1] + stored[2][:3])
    assert Run(path, start="end", **options).payloads == []
    append(path, stored[2][3:])
    assert Run(path, start="end", **options).payloads == []
    append(path, stored[3])
    reader = FileConsumer(path, start="end", **options).open(reader_context(tmp_path / "other"))
    reader.close()
    path.write_bytes(stored[0] + stored[1][:3])
    reader = FileConsumer(path, start="end", **options).open(reader_context(tmp_path / "other"))
    append(path, stored[1][3:])
    sink = CollectingSink()
    assert drain(reader, sink) == END
    reader.close()
    assert sink.payloads == [RECORDS[1]]


def test_a_position_within_a_fixed_record_goes_back_to_its_beginning(tmp_path: Path) -> None:
    """Earlier versions stored one behind half a record."""
    path = tmp_path / "records"
    path.write_bytes(RECORDS[0] + RECORDS[1])
    options = FORMS["fixed"][0]
    assert Run(path, **options).payloads == RECORDS[:2]
    stored = tmp_path / "state" / "checkpoints" / "g.json"
    checkpoint = json.loads(stored.read_text())
    checkpoint["files"][0] |= {"position": 10, "end": 10, "tail": None}
    stored.write_text(json.dumps(checkpoint))
    assert Run(path, **options).payloads == [RECORDS[1]]
    assert Run(path, **options).payloads == []


HALF_LINE = b'{"id":1}\n{"id":2'


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        (b"", []),
        (b"\n", []),
        (b"\r\n", []),
        (b"\n\n", []),
        (b'\n{"id":3}', [b'{"id":3}']),
        (b"3}", [b'{"id":23}']),
        (b"3}\n", [b'{"id":23}']),
        (b'3}\n{"id":3}\n', [b'{"id":23}', b'{"id":3}']),
    ],
)
@pytest.mark.parametrize("most", [3, 1 << 20])
def test_a_line_that_was_cut_is_read_whole_once_it_has_grown(
    tmp_path: Path, rest: bytes, wanted: list[bytes], most: int
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(HALF_LINE)
    assert Run(path, max_payload_bytes=most).payloads == [b'{"id":1}', b'{"id":2']
    append(path, rest)
    run = Run(path, max_payload_bytes=most)
    assert run.payloads == wanted
    if wanted and wanted[0] == b'{"id":23}':
        assert run.messages[0].offset == 9
    assert Run(path, max_payload_bytes=most).payloads == []


def test_a_line_that_was_cut_is_found_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    half = b"x" * 300_000
    path.write_bytes(b"first\n" + half)
    assert Run(path).payloads == [b"first", half]
    append(path, b"-end\n")
    assert Run(path).payloads == [half + b"-end"]


@pytest.mark.parametrize(("rest", "wanted"), [(b"3}\n", b'{"id":23}'), (b'\n{"id":3}\n', b'{"id":3}')])
@pytest.mark.parametrize("grown_before", [False, True])
def test_a_run_that_follows_reads_a_line_that_was_cut_whole(
    tmp_path: Path, rest: bytes, wanted: bytes, grown_before: bool
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(HALF_LINE)
    Run(path)
    if grown_before:
        append(path, rest)
    source = FileConsumer(path, follow=True, consumer_group="g")
    reader = source.open(reader_context(tmp_path / "state", until="forever"))
    if not grown_before:
        sink = CollectingSink()
        reader.serve()
        assert drain(reader, sink) == IDLE
        assert sink.payloads == []
        append(path, rest)
    assert collect(reader, 1).payloads == [wanted]
    reader.close()


def test_a_line_cut_by_rotation_is_read_whole_when_it_grew_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(HALF_LINE)
    Run(path)
    path.rename(tmp_path / "lines.1")
    append(tmp_path / "lines.1", b"3}\n")
    path.write_bytes(b"new\n")
    assert Run(path).payloads == [b'{"id":23}', b"new"]

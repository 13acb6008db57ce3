"""Dead letters: byte for byte through a file, with headers through a broker, and never nowhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers.base import PublisherContext, Sink
from pythia_fast.brokers.file import FileConsumer, FileProducer
from pythia_fast.brokers.framing import decode_headers, encode_headers
from pythia_fast.brokers.memory import MemoryProducer
from pythia_fast.brokers.trouble_log import QUIET_S
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.runtime.dead_letter import DeadLetterWriter, default_files, holds_dead_letters, read_dead_letters
from pythia_fast.runtime.dead_letter_form import (
    MAX_HEADER_TEXT,
    DeadLetter,
    StoredLetter,
    broker_headers,
    letter_of_record,
    stored_letter,
)
from pythia_fast.testing.readers import drain, reader_context

LETTER = DeadLetter(
    payload=b'{"price":"x"}',
    key=b"k",
    headers=encode_headers([("trace", b"1")]),
    topic="orders",
    partition=3,
    offset=42,
    timestamp_ms=1_700_000_000_000,
    reason="price: expected float, found str, at byte 9",
    error="DecodeError",
    traceback="",
    attempts=1,
)

optional = st.none() | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
headers = st.lists(st.tuples(st.text(max_size=10), optional), max_size=4).map(encode_headers)
letters = st.builds(
    DeadLetter,
    payload=optional,
    key=optional,
    headers=headers | st.binary(min_size=1, max_size=20),
    topic=st.text(max_size=10),
    partition=st.integers(-1, 2**31),
    offset=st.integers(-1, 2**62),
    timestamp_ms=st.integers(-1, 2**45),
    reason=st.text(max_size=30),
    error=st.text(max_size=10),
    traceback=st.text(max_size=50),
    attempts=st.integers(0, 10),
)


def context(state_dir: Path, log: list[str] | None = None) -> PublisherContext:
    return PublisherContext("shop", "score", state_dir, (log if log is not None else []).append)


def write(writer: DeadLetterWriter, *given: Sequence[DeadLetter]) -> None:
    """Publish each, wait until all are delivered, close."""
    deliver(writer, *given)
    writer.close(10)


def deliver(writer: DeadLetterWriter, *given: Sequence[DeadLetter]) -> None:
    """Publish each, wait until all are delivered."""
    for ticket, each in enumerate(given):
        writer.publish(each, ticket)
    delivered: list[int] = []
    while len(delivered) < len(given):
        for delivery in writer.deliveries(30):
            assert delivery.failed == ()
            delivered.append(delivery.ticket)
    assert sorted(delivered) == list(range(len(given)))


@given(letters)
def test_a_letter_comes_back_byte_for_byte(letter: DeadLetter) -> None:
    stored = stored_letter(letter, "a", "h", "t")
    for codec in (msgspec.json, msgspec.msgpack):
        line = codec.encode(stored)
        assert codec.decode(line, type=StoredLetter).letter() == letter
    assert b"\n" not in msgspec.json.encode(stored)


def test_the_default_file_reads_by_eye(tmp_path: Path) -> None:
    writer = DeadLetterWriter(None, context(tmp_path))
    path = tmp_path / "dead-letters" / "score.ndjson"
    assert not path.exists()
    binary = LETTER._replace(payload=b"\xff\x00", key=None, headers=b"", traceback="Traceback ...")
    write(writer, [LETTER, LETTER._replace(payload=None)], [binary])
    first, null, raw = (json.loads(line) for line in path.read_text().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "app": "shop",
        "handler": "score",
        "reason": "price: expected float, found str, at byte 9",
        "topic": "orders",
        "partition": 3,
        "offset": 42,
        "attempts": 1,
        "error": "DecodeError",
        "timestamp_ms": 1_700_000_000_000,
        "key": "k",
        "headers": [{"name": "trace", "value": "1"}],
        "payload": '{"price":"x"}',
    }
    assert "payload" not in null
    assert raw["payload_base64"] == "/wA="
    assert [stored.letter() for stored in read_dead_letters(path)] == [LETTER, LETTER._replace(payload=None), binary]


def test_letters_after_their_file_was_removed_are_in_a_new_one(tmp_path: Path) -> None:
    lines: list[str] = []
    writer = DeadLetterWriter(None, context(tmp_path, lines))
    (path, *_) = default_files(tmp_path, "score")
    writer.publish([LETTER], 0)
    while not writer.deliveries(30):
        pass
    path.unlink()
    write(writer, [LETTER])
    assert [stored.letter() for stored in read_dead_letters(path)] == [LETTER]
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = lines
    assert line.startswith(f"{path} was removed, renamed or replaced while it was written")


def test_a_topic_that_is_a_file_with_a_name_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    odd = LETTER._replace(topic="a\udcff.ndjson", reason="output refused by file b\udcfe: full")
    write(DeadLetterWriter(None, context(tmp_path)), [odd])
    (stored,) = read_dead_letters(default_files(tmp_path, "score")[0])
    assert (stored.topic, stored.reason) == ("a\\udcff.ndjson", "output refused by file b\\udcfe: full")


def test_files_of_dead_letters_are_for_their_owner_only(tmp_path: Path) -> None:
    write(DeadLetterWriter(None, context(tmp_path)), [LETTER])
    write(DeadLetterWriter(FileProducer(tmp_path / "dead"), context(tmp_path)), [LETTER])
    for path in (tmp_path / "dead", *default_files(tmp_path, "score")[:1]):
        assert path.stat().st_mode & 0o777 == 0o600


@given(letters, headers)
def test_a_record_of_a_broker_becomes_the_letter_again(letter: DeadLetter, original: bytes) -> None:
    letter = letter._replace(headers=original)
    headers = decode_headers(broker_headers(letter, "shop", "score", "2026-01-01T00:00:00Z"))
    assert letter_of_record(letter.payload, letter.key, headers) == stored_letter(
        letter, "shop", "score", "2026-01-01T00:00:00Z"
    )
    # Dead-lettered once more: its headers are those of the first time, ours among them.
    again = letter._replace(headers=encode_headers(headers), reason="")
    twice = decode_headers(broker_headers(again, "audit", "check", "2026-01-02T00:00:00Z"))
    assert letter_of_record(letter.payload, letter.key, twice) == stored_letter(
        again, "audit", "check", "2026-01-02T00:00:00Z"
    )
    assert letter_of_record(letter.payload, letter.key, decode_headers(original)) is None


def test_a_second_run_with_the_same_state_folder_has_a_file_of_its_own(tmp_path: Path) -> None:
    first, second = (DeadLetterWriter(None, context(tmp_path)) for _ in range(2))
    first.publish([LETTER], 0)
    write(second, [LETTER])
    assert first.deliveries(30)
    first.close(10)
    assert sorted(path.name for path in (tmp_path / "dead-letters").iterdir()) == ["score-1.ndjson", "score.ndjson"]
    write(DeadLetterWriter(None, context(tmp_path)), [LETTER])
    assert len((tmp_path / "dead-letters" / "score.ndjson").read_bytes().splitlines()) == 2


def test_a_file_sink_gets_the_whole_story(tmp_path: Path) -> None:
    write(DeadLetterWriter(FileProducer(tmp_path / "dead"), context(tmp_path)), [LETTER] * 3)
    assert [stored.letter() for stored in read_dead_letters(tmp_path / "dead")] == [LETTER] * 3


def test_a_frames_sink_gets_it_as_messagepack(tmp_path: Path) -> None:
    sink = FileProducer(tmp_path / "dead", format="msgpack-frames")
    write(DeadLetterWriter(sink, context(tmp_path)), [LETTER])
    content = (tmp_path / "dead").read_bytes()
    assert msgspec.msgpack.decode(content[4:], type=StoredLetter).letter() == LETTER


def test_another_sink_gets_the_original_with_headers(tmp_path: Path) -> None:
    producer = MemoryProducer()
    odd = LETTER._replace(traceback="x" * 10_000 + "the end", payload=None, key=None)
    write(DeadLetterWriter(producer, context(tmp_path)), [LETTER, odd])
    first, second = producer.records
    assert (first.key, first.payload) == (b"k", b'{"price":"x"}')
    assert first.headers[0] == ("trace", b"1")
    ours = dict(first.headers[1:])
    assert (ours.pop("pf-time") or b"").endswith(b"Z")
    assert ours == {
        "pf-reason": b"price: expected float, found str, at byte 9",
        "pf-error": b"DecodeError",
        "pf-topic": b"orders",
        "pf-partition": b"3",
        "pf-offset": b"42",
        "pf-timestamp-ms": b"1700000000000",
        "pf-attempts": b"1",
        "pf-app": b"shop",
        "pf-handler": b"score",
    }
    assert (second.key, second.payload) == (None, None)
    traceback = dict(second.headers)["pf-traceback"] or b""
    assert traceback.endswith(b"the end")
    assert len(traceback) < 4100


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\udcff"])
def test_long_texts_in_headers_are_cut_to_so_many_bytes_at_a_character(character: str) -> None:
    for after in ("", "a", "ab", "abc"):
        long = character * MAX_HEADER_TEXT + after
        made = dict(decode_headers(broker_headers(LETTER._replace(reason=long, traceback=long), "a", "h", "t")))
        for name in ("pf-reason", "pf-traceback"):
            value = made[name] or b""
            assert MAX_HEADER_TEXT - 4 < len(value) <= MAX_HEADER_TEXT
            text = value.decode("utf-8", "surrogateescape")
            assert text == long or (text.startswith("...") and long.endswith(text[3:]))


def test_what_the_sink_refuses_is_kept_in_the_file(tmp_path: Path) -> None:
    producer = MemoryProducer()
    producer.refuse(lambda record: "too large" if record.payload == b"big" else None)
    lines: list[str] = []
    big = LETTER._replace(payload=b"big")
    write(DeadLetterWriter(producer, context(tmp_path, lines)), [LETTER, big, LETTER], [LETTER])
    assert len(producer.records) == 3
    (stored,) = read_dead_letters(tmp_path / "dead-letters" / "score.ndjson")
    assert stored.payload == "big"
    assert stored.reason == f"{LETTER.reason} (and its dead-letter sink refused it: too large)"
    assert "the dead-letter sink refused 1 record (too large)" in lines[0]


def test_a_sink_that_goes_on_refusing_is_told_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = MemoryProducer()
    producer.refuse(lambda record: "too large")
    lines: list[str] = []
    writer = DeadLetterWriter(producer, context(tmp_path, lines))
    for _ in range(3):
        deliver(writer, [LETTER, LETTER])
    assert len(lines) == 1
    later = time.monotonic() + QUIET_S
    monkeypatch.setattr(writer._troubles, "_clock", lambda: later)
    write(writer, [LETTER])
    assert [line.partition(" (")[0] for line in lines] == [
        "score: the dead-letter sink refused 2 records in all",
        "score: the dead-letter sink refused 7 records in all",
    ]


def test_trouble_of_the_sink_is_told_and_holds_the_ticket(tmp_path: Path) -> None:
    producer = MemoryProducer()
    producer.fail_with("no broker at 127.0.0.1:1")
    writer = DeadLetterWriter(producer, context(tmp_path))
    writer.publish([LETTER], 7)
    assert writer.deliveries() == []
    assert writer.trouble() == "dead letters: no broker at 127.0.0.1:1"
    producer.fail_with(None)
    assert [delivery.ticket for delivery in writer.deliveries(30)] == [7]
    assert writer.trouble() is None
    writer.close(10)


def test_a_folder_that_cannot_be_made_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"cannot keep dead letters in .*file/dead-letters"):
        DeadLetterWriter(None, context(tmp_path / "file"))


def test_a_line_that_is_no_dead_letter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    path.write_bytes(msgspec.json.encode(stored_letter(LETTER, "a", "h", "t")) + b"\n{}\n")
    stored = read_dead_letters(path)
    assert next(stored).letter() == LETTER
    with pytest.raises(SourceError, match=r"line 2 of .*dead is not a dead letter: .*missing required field"):
        next(stored)


def test_a_dead_letter_file_is_an_ndjson_source(tmp_path: Path) -> None:
    from pythia_fast._ext.collecting_sink import END, CollectingSink

    sink: Sink = FileProducer(tmp_path / "dead")
    write(DeadLetterWriter(sink, context(tmp_path)), [LETTER] * 2)
    reader = FileConsumer(tmp_path / "dead").open(reader_context(tmp_path))
    collected = CollectingSink()
    assert drain(reader, collected) == END
    reader.close()
    assert collected.count == 2


@pytest.mark.parametrize("framed", [False, True])
def test_a_file_of_dead_letters_is_told_by_its_first_record(tmp_path: Path, framed: bool) -> None:
    stored = stored_letter(LETTER, "orders", "score", "2026-01-01T00:00:00Z")
    whole = msgspec.to_builtins(stored)
    without = {name: value for name, value in whole.items() if name != "reason"}
    path = tmp_path / "letters"
    for record, holds in ((whole, True), (without, False), (whole | {"price": 1}, False), ({"price": 1}, False)):
        encoded = msgspec.msgpack.encode(record) if framed else msgspec.json.encode(record)
        path.write_bytes(len(encoded).to_bytes(4, "little") + encoded if framed else encoded + b"\n")
        assert holds_dead_letters(path) is holds
    for content in (b"", b"\n", b"{", b"[1]\n", b"\x01\x00\x00\x00", b"\xff" * 100, b"\x7b\x00\x00\x00\x80"):
        path.write_bytes(content)
        assert not holds_dead_letters(path)


def test_letters_appended_while_a_file_is_read_are_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    line = msgspec.json.encode(stored_letter(LETTER, "orders", "score", "2026-01-01T00:00:00Z")) + b"\n"
    path.write_bytes(line * 2)
    read = 0
    for _ in read_dead_letters(path):
        with path.open("ab") as file:
            file.write(line)
        read += 1
    assert read == 2

"""What no RabbitMQ sends: damaged chunks, other frames, silence. Nothing is lost, and nothing wrong is handed on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pythia_fast import RabbitMQStreamConsumer
from pythia_fast._ext.collecting_sink import FAILED
from pythia_fast.brokers.rabbitmq_stream_wire import RESPONSE, Key, frame, string
from tests.support.rabbitmq_stream import entry
from tests.support.redis_reading import Reading
from tests.support.stream_peer import CLOSE_NOW, StreamPeer, chunk, raw_chunk

GOOD = [b"a", b"b", b"c"]


@contextmanager
def reading(
    folder: Path, script: Callable[[int], Sequence[bytes]], *, heartbeat_s: int = 60, **options: Any
) -> Iterator[tuple[Reading, StreamPeer]]:
    with StreamPeer(script, heartbeat_s) as peer:
        source = RabbitMQStreamConsumer("s", url=peer.url, message_format="raw", offset=0, **options)
        made = Reading(source, folder)
        try:
            yield made, peer
        finally:
            made.reader.close()


def first_then(*first: bytes) -> Callable[[int], Sequence[bytes]]:
    """These to the first connection, and the rest of what is good to the others."""
    return lambda number: first if number == 0 else [chunk(GOOD)]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ([chunk(GOOD[:2]), CLOSE_NOW], "closed the connection"),
        ([chunk(GOOD[:2]), chunk([b"x"], 2, crc=1)], "the chunk of messages from offset 2 has another checksum"),
        ([raw_chunk(entry(b"a") + b"\0\0\0\x09short", 2)], "cannot be taken apart at offset 1"),
        ([raw_chunk(entry(b"a"), 2)], "cannot be taken apart at offset 1"),
        ([chunk([b"a"]), frame(Key.DELIVER, b"\0short")], "is no frame of RabbitMQ's stream protocol"),
        ([struct.pack(">I", 3) + b"abc"], "is no frame of RabbitMQ's stream protocol"),
        ([chunk(GOOD[:1])[:-1], CLOSE_NOW], "closed the connection"),
        (
            [chunk(GOOD[:1]), frame(Key.CLOSE, struct.pack(">H", 1) + string("maintenance"), 7)],
            "it closed the connection: maintenance",
        ),
        ([frame(Key.METADATA_UPDATE, struct.pack(">H", 6) + string("s"))], "stream 's' was deleted"),
        ([frame(RESPONSE | Key.CREDIT, struct.pack(">HB", 4, 0))], "has ended a subscription (NO_SUBSCRIPTION (4))"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_is_told_and_reading_goes_on_where_it_was(tmp_path: Path, sent: list[bytes], told: str) -> None:
    with reading(tmp_path, first_then(*sent)) as (running, peer):
        running.poll_until(lambda: running.payloads == GOOD)
        assert running.has_told(told), running.log
        assert [message.offset for message in running.messages] == [0, 1, 2]
        assert len(peer.offsets) == 2  # the second one asked for what the first one had not brought
        assert peer.offsets[0] == 0
        assert 0 <= peer.offsets[1] <= 2


def test_what_the_server_keeps_for_itself_is_passed_over(tmp_path: Path) -> None:
    with reading(tmp_path, lambda _: [chunk([b"offsets"], 0, kind=1), chunk(GOOD, 1), chunk([b"d"], 9)]) as (
        running,
        _,
    ):
        running.poll_until(lambda: running.payloads == [*GOOD, b"d"])
        assert [message.next_offset for message in running.messages] == [2, 3, 4, 10]


def test_answers_that_nobody_waits_for_and_heartbeats_do_no_harm(tmp_path: Path) -> None:
    sent = [frame(Key.HEARTBEAT, b""), frame(RESPONSE | Key.SUBSCRIBE, struct.pack(">H", 1), 99), chunk(GOOD)]
    with reading(tmp_path, lambda _: sent) as (running, _):
        running.poll_until(lambda: running.payloads == GOOD)


def test_a_chunk_that_stays_damaged_ends_the_run(tmp_path: Path) -> None:
    with reading(tmp_path, lambda _: [chunk(GOOD, crc=1)]) as (running, _):
        running.poll_to(FAILED)
        assert "from offset 0 has another checksum" in running.reader.failure()
        assert running.payloads == []


def test_a_stream_that_is_made_anew_while_it_is_read_ends_the_run(tmp_path: Path) -> None:
    """Its messages have the offsets of others, so none of them may be taken for one that was handled."""
    script = first_then(chunk(GOOD), CLOSE_NOW)
    with reading(tmp_path, lambda number: script(number) if number == 0 else [chunk([b"new"])]) as (running, _):
        running.poll_to(FAILED)
        assert "was the stream deleted and declared again?" in running.reader.failure()
        assert running.payloads == GOOD


def test_chunks_of_another_format_end_the_run(tmp_path: Path) -> None:
    with reading(tmp_path, lambda _: [chunk(GOOD, magic=0x51)]) as (running, _):
        running.poll_to(FAILED)
        assert "a format that is not known here" in running.reader.failure()


def test_a_frame_that_claims_to_be_huge_ends_the_run(tmp_path: Path) -> None:
    with reading(tmp_path, lambda _: [struct.pack(">I", 0xFFFFFFF0)]) as (running, _):
        running.poll_to(FAILED)
        assert "a chunk of messages has 4,294,967,284 bytes, max_chunk_bytes is" in running.reader.failure()


def test_a_server_that_falls_silent(tmp_path: Path) -> None:
    with reading(tmp_path, first_then(chunk(GOOD[:1])), heartbeat=1) as (running, _):
        running.poll_until(lambda: running.payloads == GOOD)
        assert running.has_told("not given a sign of life for 2 s") or running.has_told("does not answer")

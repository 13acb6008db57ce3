"""payload_bytes and whole_frames: what stands in a file, what cannot, and buffers that are not what was announced."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast._ext.file_writer import payload_bytes, whole_frames
from pythia_fast.brokers.framing import Place, encode_headers, frame_record


def framed(payloads: list[bytes]) -> bytes:
    return b"".join(frame_record(payload) for payload in payloads)


optional = st.none() | st.binary(max_size=30)


@given(st.lists(st.tuples(st.none() | st.binary(max_size=5), optional)))
def test_lines_and_frames_hold_the_payloads(records: list[tuple[bytes | None, bytes | None]]) -> None:
    headers = encode_headers([("h", b"v")])
    buffer = b"".join(frame_record(payload, key, headers) for key, payload in records)
    lines, refused_lines = payload_bytes(buffer, len(records), "ndjson")
    frames, refused_frames = payload_bytes(buffer, len(records), "msgpack-frames")
    payloads = [payload for _, payload in records]
    nulls = [i for i, payload in enumerate(payloads) if payload is None]
    broken = [i for i, payload in enumerate(payloads) if payload is not None and b"\n" in payload]
    empty = [i for i, payload in enumerate(payloads) if payload in (b"", b"\r")]
    assert [i for i, _ in refused_lines] == sorted(nulls + broken + empty)
    assert [i for i, _ in refused_frames] == nulls
    assert lines == b"".join(p + b"\n" for p in payloads if p not in (None, b"", b"\r") and b"\n" not in p)
    assert frames == b"".join(struct.pack("<I", len(p)) + p for p in payloads if p is not None)


@given(st.lists(st.binary(max_size=20), min_size=1), st.data())
def test_records_that_do_not_fit_their_buffer_are_refused(payloads: list[bytes], data: st.DataObject) -> None:
    buffer = bytes(framed(payloads))
    ends = {0, *(len(framed(payloads[: i + 1])) for i in range(len(payloads)))}
    cut = data.draw(st.integers(0, len(buffer)).filter(lambda at: at not in ends))
    with pytest.raises(ValueError, match="framed records"):
        payload_bytes(buffer[:cut], len(payloads), "ndjson")
    for count in (len(payloads) - 1, len(payloads) + 1):
        with pytest.raises(ValueError, match=f"{count} "):
            payload_bytes(buffer, count, "ndjson")


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=3))
def test_whole_frames_end_before_a_half_one(payloads: list[bytes], half: bytes) -> None:
    content = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)
    assert whole_frames(content + half) == len(content)
    assert whole_frames(content + struct.pack("<I", 9) + b"8 bytes.") == len(content)


@given(st.lists(st.tuples(st.none() | st.binary(max_size=5), optional, st.none() | st.just(Place(5, 6, 7, b"t")))))
def test_records_are_written_whole(records: list[tuple[bytes | None, bytes | None, Place | None]]) -> None:
    framed = [frame_record(payload, key, encode_headers([("h", None)]), place) for key, payload, place in records]
    written, refused = payload_bytes(b"".join(framed), len(records), "records")
    assert refused == []
    assert written == b"".join(struct.pack("<I", len(each)) + each for each in framed)
    assert whole_frames(written + b"\x05\0\0\0abc") == len(written)


def test_an_empty_line_is_refused_with_its_reason() -> None:
    written, refused = payload_bytes(framed([b"1", b"", b"\r", b" "]), 4, "ndjson")
    assert written == b"1\n \n"
    assert refused == [(i, "an empty payload would be an empty line, which is no record") for i in (1, 2)]

"""Records and headers as bytes: what publishers are given (brokers/base.py) and what messages carry (arena_layout.h).

For the rare paths and for tests; whole batches are framed and read by the compiled modules.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pythia_fast.brokers.base import NO_BYTES, PLACE_BYTES, PLACED, RECORD_HEADER_BYTES

#: Header names may repeat, and their order means something, as in Kafka.
Headers = list[tuple[str, bytes | None]]

_NAME_SIZE = struct.Struct("<H")
_VALUE_SIZE = struct.Struct("<i")
_RECORD = struct.Struct("<III")
_PLACE = struct.Struct("<qqiI")


class Place(NamedTuple):
    """Where the message of a placed record came from."""

    timestamp_ms: int = -1  #: -1: none
    offset: int = -1  #: -1: none
    partition: int = -1  #: -1: any
    topic: bytes = b""


class FramedRecord(NamedTuple):
    """One record of a published buffer."""

    key: bytes | None
    headers: bytes  #: encoded
    payload: bytes | None
    place: Place | None = None


def encode_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """``(name, value)`` pairs as (name size u16, name, value size i32 or -1, value)*, little endian.

    Raises ValueError for a name longer than 65,535 bytes in UTF-8.
    """
    encoded = bytearray()
    for name, value in headers or ():
        name_bytes = name.encode("utf-8", "surrogateescape")
        if len(name_bytes) > 0xFFFF:
            raise ValueError(f"header name {name[:40]!r}... is {len(name_bytes)} bytes long; at most 65,535 fit")
        encoded += _NAME_SIZE.pack(len(name_bytes)) + name_bytes
        encoded += _VALUE_SIZE.pack(-1 if value is None else len(value)) + (value or b"")
    return bytes(encoded)


def decode_headers(encoded: bytes | memoryview) -> Headers:
    """The pairs again. Raises ValueError where the bytes end inside a header."""
    view = memoryview(encoded)
    headers: Headers = []
    at = 0
    try:
        while at < len(view):
            (name_size,) = _NAME_SIZE.unpack_from(view, at)
            at += _NAME_SIZE.size
            name = bytes(view[at : at + name_size]).decode("utf-8", "surrogateescape")
            at += name_size
            (value_size,) = _VALUE_SIZE.unpack_from(view, at)
            at += _VALUE_SIZE.size
            if value_size < 0:
                headers.append((name, None))
                continue
            if at + value_size > len(view):
                raise ValueError(f"header {name!r} ends after {len(view) - at} of {value_size} bytes")
            headers.append((name, bytes(view[at : at + value_size])))
            at += value_size
    except struct.error:
        raise ValueError(f"{len(view)} bytes of headers end inside a header") from None
    return headers


def frame_record(
    payload: bytes | None, key: bytes | None = None, headers: bytes = b"", place: Place | None = None
) -> bytes:
    """One record as a publisher reads it; ``headers`` are encoded already."""
    sizes = _RECORD.pack(
        NO_BYTES if key is None else len(key),
        len(headers) | (0 if place is None else PLACED),
        NO_BYTES if payload is None else len(payload),
    )
    placed = b"" if place is None else _PLACE.pack(*place[:3], len(place.topic)) + place.topic
    return b"".join((sizes, placed, key or b"", headers, payload or b""))


def iterate_records(records: bytes | memoryview) -> Iterator[FramedRecord]:
    """Every record of a published buffer. Raises ValueError where the buffer ends inside a record."""
    view = memoryview(records)
    at = 0
    while at < len(view):
        if at + RECORD_HEADER_BYTES > len(view):
            raise ValueError(f"a record header at byte {at} ends outside the buffer of {len(view)} bytes")
        key_size, headers_size, payload_size = _RECORD.unpack_from(view, at)
        place, key_at = None, at + RECORD_HEADER_BYTES
        if headers_size & PLACED:
            headers_size &= ~PLACED
            if key_at + PLACE_BYTES > len(view):
                raise ValueError(f"the record at byte {at} ends outside the buffer of {len(view)} bytes")
            timestamp_ms, offset, partition, topic_size = _PLACE.unpack_from(view, key_at)
            key_at += PLACE_BYTES + topic_size
            place = Place(timestamp_ms, offset, partition, bytes(view[key_at - topic_size : key_at]))
        headers_at = key_at + (0 if key_size == NO_BYTES else key_size)
        payload_at = headers_at + headers_size
        end = payload_at + (0 if payload_size == NO_BYTES else payload_size)
        if end > len(view):
            raise ValueError(f"the record at byte {at} ends outside the buffer of {len(view)} bytes")
        yield FramedRecord(
            None if key_size == NO_BYTES else bytes(view[key_at:headers_at]),
            bytes(view[headers_at:payload_at]),
            None if payload_size == NO_BYTES else bytes(view[payload_at:end]),
            place,
        )
        at = end

"""Dead letters: rows that are given up, with what is needed to understand them and to send them again.

In a file each is one JSON object (MessagePack in ``format="msgpack-frames"``), StoredLetter below. In any other sink
it is the original key, headers and payload with ``pf-*`` headers added, so that it can be read like the original.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import msgspec

from pythia_fast.brokers.framing import Headers, decode_headers, encode_headers

MAX_HEADER_TEXT = 4000  #: bytes of a reason or traceback in a header: brokers limit the size of a message
CUT = "..."  #: stands for what was cut off a text
#: What a dead letter has beside the original headers in a sink that is no file, in this order.
OUR_HEADERS = (
    "pf-reason",
    "pf-error",
    "pf-traceback",
    "pf-topic",
    "pf-partition",
    "pf-offset",
    "pf-timestamp-ms",
    "pf-attempts",
    "pf-app",
    "pf-handler",
    "pf-time",
)


class DeadLetter(NamedTuple):
    """One row given up."""

    payload: bytes | None
    key: bytes | None
    headers: bytes  #: encoded (brokers/framing.py)
    topic: str  #: where it came from: topic, file, ...
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    error: str  #: exception type, or empty
    traceback: str
    attempts: int


class StoredHeader(msgspec.Struct, omit_defaults=True):
    name: str
    value: str | None = None
    value_base64: str | None = None  #: instead of ``value`` when it is not UTF-8


class StoredLetter(msgspec.Struct, omit_defaults=True):
    """One dead letter in a file. Bytes that are UTF-8 stand as text, others as base64; neither: null."""

    time: str  #: when it was given up, RFC 3339
    app: str
    handler: str
    reason: str
    topic: str
    partition: int
    offset: int
    attempts: int
    error: str = ""
    traceback: str = ""
    timestamp_ms: int = -1
    key: str | None = None
    key_base64: str | None = None
    headers: list[StoredHeader] = []
    headers_base64: str | None = None  #: encoded, instead of ``headers`` when a name is not UTF-8
    payload: str | None = None
    payload_base64: str | None = None

    def letter(self) -> DeadLetter:
        """The row again, byte for byte."""
        return DeadLetter(
            payload=_bytes(self.payload, self.payload_base64),
            key=_bytes(self.key, self.key_base64),
            headers=_bytes(None, self.headers_base64)
            or encode_headers((header.name, _bytes(header.value, header.value_base64)) for header in self.headers),
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            timestamp_ms=self.timestamp_ms,
            reason=self.reason,
            error=self.error,
            traceback=self.traceback,
            attempts=self.attempts,
        )


def check_stored(stored: StoredLetter) -> None:
    """Raise ValueError for a letter whose base64, or whose headers, say nothing."""
    if stored.payload_base64 is not None or stored.key_base64 is not None or stored.headers or stored.headers_base64:
        decode_headers(stored.letter().headers)


def _spelled(text: str) -> str:
    """The text with lone surrogates spelled out: a file's name may hold any bytes, JSON and MessagePack do not."""
    return text.encode(errors="backslashreplace").decode()


def _text(value: bytes | None) -> tuple[str | None, str | None]:
    """(text, base64): one of them, or neither for null."""
    if value is None:
        return None, None
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(value).decode()


def _bytes(text: str | None, encoded: str | None) -> bytes | None:
    if encoded is not None:
        return base64.b64decode(encoded, validate=True)
    return None if text is None else text.encode()


def stored_letter(letter: DeadLetter, app: str, handler: str, time: str) -> StoredLetter:
    """What a file holds of a dead letter."""
    payload, payload_base64 = _text(letter.payload)
    key, key_base64 = _text(letter.key)
    headers: list[StoredHeader] = []
    headers_base64 = None
    if letter.headers:
        try:
            for name, value in decode_headers(letter.headers):
                name.encode()
                headers.append(StoredHeader(name, *_text(value)))
        except ValueError:  # a name that is not UTF-8, or bytes that are no headers at all
            headers, headers_base64 = [], base64.b64encode(letter.headers).decode()
    return StoredLetter(
        time=time,
        app=app,
        handler=handler,
        reason=_spelled(letter.reason),
        topic=_spelled(letter.topic),
        partition=letter.partition,
        offset=letter.offset,
        attempts=letter.attempts,
        error=letter.error,
        traceback=letter.traceback,
        timestamp_ms=letter.timestamp_ms,
        key=key,
        key_base64=key_base64,
        headers=headers,
        headers_base64=headers_base64,
        payload=payload,
        payload_base64=payload_base64,
    )


def broker_headers(letter: DeadLetter, app: str, handler: str, time: str) -> bytes:
    """The original headers and ours, encoded."""
    values = (
        _cut(letter.reason),
        letter.error,
        _cut(letter.traceback),
        letter.topic,
        str(letter.partition),
        str(letter.offset),
        str(letter.timestamp_ms),
        str(letter.attempts),
        app,
        handler,
        time,
    )
    return letter.headers + encode_headers(
        (name, value.encode("utf-8", "surrogateescape"))
        for name, value in zip(OUR_HEADERS, values, strict=True)
        if value
    )


def letter_of_record(payload: bytes | None, key: bytes | None, headers: Headers) -> StoredLetter | None:
    """What ``broker_headers`` made of a dead letter, as a file would hold it; None: the record is none."""
    facts: dict[str, str] = {}
    end = len(headers)
    # Ours come last, each once: a dead letter of a message that was a dead letter itself has the older ones before.
    while end and (name := headers[end - 1][0]) in OUR_HEADERS and name not in facts:
        end -= 1
        facts[name] = (headers[end][1] or b"").decode("utf-8", "replace")
    try:
        letter = DeadLetter(
            payload=payload,
            key=key,
            headers=encode_headers(headers[:end]),
            topic=facts.get("pf-topic", ""),
            partition=int(facts["pf-partition"]),
            offset=int(facts["pf-offset"]),
            timestamp_ms=int(facts["pf-timestamp-ms"]),
            reason=facts.get("pf-reason", ""),
            error=facts.get("pf-error", ""),
            traceback=facts.get("pf-traceback", ""),
            attempts=int(facts["pf-attempts"]),
        )
        return stored_letter(letter, facts["pf-app"], facts["pf-handler"], facts["pf-time"])
    except (KeyError, ValueError):
        return None


def _cut(text: str) -> str:
    """The end of a long text, from a whole character on: a traceback tells the error last."""
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) <= MAX_HEADER_TEXT:
        return text
    begin = len(encoded) - (MAX_HEADER_TEXT - len(CUT))
    for _ in range(3):  # a character has at most so many bytes behind its first
        begin += encoded[begin] & 0xC0 == 0x80
    return CUT + encoded[begin:].decode("utf-8", "surrogateescape")

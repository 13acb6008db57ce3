"""The message in a dead letter, as it is sent again."""

from __future__ import annotations

from typing import NamedTuple

from pythia_fast.brokers.framing import Headers, decode_headers
from pythia_fast.errors import SourceError
from pythia_fast.runtime.dead_letter_form import OUR_HEADERS, StoredLetter

#: Header of a message that was sent again: how many times.
REQUEUED = "pf-requeued"
#: Header that a Redis source gives every row: the entry's id.
REDIS_ID = "redis-id"
_OURS = frozenset({*OUR_HEADERS, REQUEUED})


class Message(NamedTuple):
    """What goes back to a source."""

    topic: str
    partition: int
    key: bytes | None
    headers: Headers
    payload: bytes | None
    handler: str = ""  #: that had given it up


def times_requeued(headers: Headers) -> int:
    """How often the message was sent again already, by its header."""
    for name, value in reversed(headers):
        if name == REQUEUED and value is not None and value.isdigit() and len(value) < 10:
            return int(value)
    return 0


def headers_of(stored: StoredLetter) -> Headers:
    """The original headers. Raises SourceError where the letter holds bytes that are none."""
    try:
        return decode_headers(stored.letter().headers)
    except ValueError as error:
        raise SourceError(
            f"the dead letter of {stored.topic}, partition {stored.partition}, offset {stored.offset} cannot be "
            f"unpacked: {error}"
        ) from None


def message_of(stored: StoredLetter) -> Message:
    """The message with one more in its count, and without what the runtime added. Raises SourceError."""
    headers = headers_of(stored)
    letter = stored.letter()
    count = (REQUEUED, b"%d" % (times_requeued(headers) + 1))
    kept = [(name, value) for name, value in headers if name not in _OURS]
    return Message(letter.topic, letter.partition, letter.key, [*kept, count], letter.payload, stored.handler)

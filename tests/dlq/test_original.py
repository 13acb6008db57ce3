"""The message in a dead letter: byte for byte, without our headers, with its count."""

from __future__ import annotations

import pytest

from pythia_fast.brokers.framing import decode_headers, encode_headers
from pythia_fast.dlq.original import headers_of, message_of, times_requeued
from pythia_fast.errors import SourceError
from pythia_fast.runtime.dead_letter_form import StoredLetter, broker_headers, stored_letter
from tests.support.letters import LETTER, TIME, letter

OWN = [("trace", b"1"), ("raw", b"\x00\xff"), ("empty", None)]


def stored(**fields: object) -> StoredLetter:
    return stored_letter(letter(**fields), "shop", "score", TIME)


def test_a_message_has_what_it_came_with_and_a_count() -> None:
    message = message_of(stored(key=b"\xff"))
    assert message == ("orders", 3, b"\xff", [*OWN, ("pf-requeued", b"1")], LETTER.payload, "score")
    assert message_of(stored(payload=None, key=None))[2:5:2] == (None, None)


def test_the_count_goes_up_and_our_other_headers_go() -> None:
    headers = LETTER.headers
    for count in range(1, 4):
        message = message_of(stored(headers=headers))
        assert message.headers == [*OWN, ("pf-requeued", b"%d" % count)]
        # Dead-lettered again, and read from a topic of dead letters by some handler that failed, too.
        headers = broker_headers(letter(headers=encode_headers(message.headers)), "shop", "score", TIME)
        assert times_requeued(decode_headers(headers)) == count


@pytest.mark.parametrize("value", [None, b"", b"many", b"-1", b"9" * 50, b"\xff"])
def test_a_count_that_is_none_counts_as_none(value: bytes | None) -> None:
    assert times_requeued([("pf-requeued", value)]) == 0


def test_a_letter_whose_headers_cannot_be_unpacked_is_named() -> None:
    with pytest.raises(SourceError, match="dead letter of orders, partition 3, offset 42 cannot be unpacked"):
        headers_of(stored(headers=b"\xff\xff\xff"))

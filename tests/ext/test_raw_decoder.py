"""raw_decoder.pyx: every payload is a value, whatever it holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.batch import Batch

from .guard import guarded_pages


@given(st.lists(st.binary(max_size=100)))
def test_payloads_are_the_values(payloads: list[bytes]) -> None:
    batch = Batch.decode(payloads, decoder="raw")
    assert batch["payload"].tolist() == payloads
    assert batch.bad == ()


def test_an_empty_payload_is_an_empty_value_and_a_null_one_is_refused() -> None:
    batch = Batch.decode([b"a", b"", None, b"b"], decoder="raw")
    assert batch["payload"].tolist() == [b"a", b"", b"b"]
    assert [(bad.index, bad.reason) for bad in batch.bad] == [(2, "the payload is null")]


def test_no_byte_outside_the_payload_is_read() -> None:
    with guarded_pages() as guarded:
        for size in range(40):
            assert Batch.decode([guarded.place(b"x" * size)], decoder="raw")["payload"].tolist() == [b"x" * size]

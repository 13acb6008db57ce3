"""avro_decoder.pyx against fastavro: the same payloads accepted, with the same values."""

from __future__ import annotations

import datetime
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from fastavro.schema import parse_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast._ext.avro_decoder import AvroDecoder
from pythia_fast._ext.batch_memory import decode_private, decode_rows
from pythia_fast._ext.decoder_probe import DECODED, FULL, REFUSED, DecoderProbe
from pythia_fast._ext.part_memory import PartMemory
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.avro.writer import Writer
from pythia_fast.errors import SchemaError
from pythia_fast.refusal import Reason
from pythia_fast.schema import DTYPES, Kind

from .avro_maker import ValueMaker, WriterMaker, damaged, make_readable_struct
from .column_reader import expected, rows, same
from .guard import guarded_pages

SEEDS = st.integers(min_value=0, max_value=2**64 - 1)


def oracle(row: Any, payload: bytes, schema: Any) -> tuple[bool, Any]:
    try:
        return True, expected(row(payload), schema)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS)
def test_random_schemas_and_payloads(seed: int) -> None:
    rng = random.Random(seed)
    made = make_readable_struct(rng)
    plan = Plan(made)
    given_schema = WriterMaker(rng, plan.schema, rng.choice([0.0, 0.1])).record(0)
    try:
        writer = Writer(given_schema, plan)
    except SchemaError:
        return
    named: dict[str, Any] = {}
    parsed = parse_schema(given_schema, named)
    values = ValueMaker(rng, named)
    probe = DecoderProbe(Layout(plan, 64, 1 << 14), AvroDecoder(plan, writer.program()))
    row = writer.row_of()
    wanted = []
    for turn in range(30):
        payload = values.of(parsed)
        broken = turn >= 20
        if broken:
            payload = damaged(rng, payload)
        accepted, value = oracle(row, payload, plan.schema)
        outcome, reason, _, column, at = probe.decode(payload)
        if outcome == DECODED:
            skipped_text = broken and not accepted and value.startswith("UnicodeDecodeError")  # is not looked at
            assert accepted or skipped_text, (payload, value)
            wanted.append(value)
            continue
        assert outcome == REFUSED
        assert 0 <= at <= len(payload)
        assert not accepted or broken or excused(Reason(reason), plan.schema, column), (payload, Reason(reason), value)
    decoded = rows(probe)
    assert len(decoded) == len(wanted)
    for left, right in zip(decoded, wanted, strict=True):
        assert same(left, right) or str(right).startswith("UnicodeDecodeError"), (left, right)


def excused(reason: Reason, schema: Any, column: int) -> bool:
    """Whether this refusal of what fastavro takes is on purpose: a number outside of its column's type."""
    return (
        reason is Reason.RANGE
        and schema.columns[column].kind in DTYPES
        and schema.columns[column].kind is not Kind.INT64
    )


class Order(msgspec.Struct):
    order_id: int
    paid: bool = False
    name: str | None = None
    blob: bytes = b""
    at: datetime.datetime | None = None
    tags: list[str] = []


WRITER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
        {"name": "order_id", "type": "long"},
        {"name": "paid", "type": "boolean"},
        {"name": "name", "type": ["null", "string"]},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "self", "type": ["null", "Order"]},
    ],
}
#: No nothing, order 1, not paid, no name, no time, no tags, and none inside.
PLAIN = b"\x00\x02\x00\x00\x00\x00\x00"


def decoded(payload: bytes) -> tuple[int, Reason, int]:
    """(outcome, reason, byte)"""
    plan = Plan(Order)
    probe = DecoderProbe(Layout(plan, 4, 64), AvroDecoder(plan, Writer(WRITER, plan).program()))
    with guarded_pages(4) as pages:
        outcome, reason, _, _, at = probe.decode(pages.place(payload))
    return outcome, Reason(reason), at


@pytest.mark.parametrize(
    ("payload", "reason", "at"),
    [
        (b"", Reason.TRUNCATED, 0),
        (PLAIN[:-1], Reason.TRUNCATED, 6),
        (PLAIN + b"\x00", Reason.TRAILING, 7),
        (b"\x00\x02\x02" + PLAIN[3:], Reason.SYNTAX, 2),
        (b"\x00" + b"\xff" * 9 + b"\x02" + PLAIN[2:], Reason.RANGE, 1),
        (b"\x00" + b"\xff" * 10 + PLAIN[2:], Reason.RANGE, 1),
        (b"\x00\x02\x00\x04" + PLAIN[4:], Reason.SYNTAX, 3),
        (b"\x00\x02\x00\x01" + PLAIN[4:], Reason.SYNTAX, 3),
        (b"\x00\x02\x00\x02\x01x" + PLAIN[4:], Reason.SYNTAX, 4),
        (b"\x00\x02\x00\x02\x08abc", Reason.TRUNCATED, 8),
        (b"\x00\x02\x00\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", Reason.TRUNCATED, 17),
        (b"\x00\x02\x00\x02\x02\xff" + PLAIN[4:], Reason.UTF8, 5),
        (b"\x00\x02\x00\x00\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00", Reason.DATETIME, 5),
        (b"\x00\x02\x00\x00\x00" + b"\xff" * 9 + b"\x01", Reason.SYNTAX, 5),
        (b"\x00\x02\x00\x00\x00\x02\x01x", Reason.SYNTAX, 6),
    ],
)
def test_what_is_malformed_is_refused_at_its_byte(payload: bytes, reason: Reason, at: int) -> None:
    assert decoded(payload) == (REFUSED, reason, at)


@pytest.mark.parametrize(
    "payload",
    [
        PLAIN,
        # 2**62 nulls in an array that is stepped over take no time, in blocks with or without their bytes.
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00" + PLAIN[1:],
        b"\x03\x00\x00" + PLAIN[1:],
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + PLAIN[2:],  # the lowest number there is
        b"\x00\x02\x00\x00\x00\x01\x04\x02a\x02\x02b\x00\x00",  # a block with its bytes, and one without
        PLAIN[:-1] + b"\x02" + PLAIN,
    ],
)
def test_what_is_well_formed_is_a_row(payload: bytes) -> None:
    assert decoded(payload)[0] == DECODED


def test_values_inside_one_another_have_a_limit_where_they_are_stepped_over() -> None:
    assert decoded((PLAIN[:-1] + b"\x02") * 100 + PLAIN)[0] == DECODED
    assert decoded((PLAIN[:-1] + b"\x02") * 1000 + PLAIN)[:2] == (REFUSED, Reason.DEPTH)


def test_a_list_without_end_that_takes_no_bytes_fills_its_column_and_no_more() -> None:
    class Nulls(msgspec.Struct):
        kept: list[bytes]

    plan = Plan(Nulls)
    nothing = {"type": "array", "items": {"type": "fixed", "name": "Nothing", "size": 0}}
    writer = Writer({"type": "record", "name": "N", "fields": [{"name": "kept", "type": nothing}]}, plan)
    probe = DecoderProbe(Layout(plan, 4, 64), AvroDecoder(plan, writer.program()))
    assert probe.decode(b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00")[0] == FULL
    assert probe.decode(b"\x06\x00")[0] == DECODED


def test_rows_of_another_process_are_decoded_though_this_one_was_refused_their_schema_before() -> None:
    """A registry may have answered too early for this process, and in time for the one that died with the batch."""
    plan = Plan(Order)
    program = Writer(WRITER, plan).program()
    payloads = [b"\x00\x00\x00\x00\x07" + PLAIN] * 3
    batch, refusals = decode_private(plan, AvroDecoder(plan, ask=lambda number: program), payloads, None, None, None)
    assert (batch.rows, refusals) == (3, [])
    late = AvroDecoder(plan, ask=lambda number: program)
    late.know(7, None)
    assert decode_private(plan, late, payloads, None, None, None)[0].rows == 0
    assert decode_rows(batch, late, np.array([0, 2], np.uint32), 1).rows == 2
    late.know(7, None)
    parts = PartMemory(plan, 4, 64)
    part = parts.decode(batch, late, np.array([1], np.uint32), 1)
    assert part is not None
    assert part.rows == 1

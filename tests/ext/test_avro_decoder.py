"""avro_decoder.pyx against fastavro: the same payloads accepted, with the same values."""

from __future__ import annotations

import random
from typing import Any

from fastavro.schema import parse_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast._ext.avro_decoder import AvroDecoder
from pythia_fast._ext.decoder_probe import DECODED, REFUSED, DecoderProbe
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.avro.writer import Writer
from pythia_fast.errors import SchemaError
from pythia_fast.refusal import Reason
from pythia_fast.schema import DTYPES, Kind

from .avro_maker import ValueMaker, WriterMaker, damaged, make_readable_struct
from .column_reader import expected, rows, same

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
        outcome, reason, found, column, at = probe.decode(payload)
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
    return reason is Reason.RANGE and schema.columns[column].kind in DTYPES and schema.columns[column].kind is not Kind.INT64

"""Random schemas and payloads: both kernels do what msgspec does, or all three refuse.

JsonDecoder differs from msgspec on purpose where ``excused`` says so, and nowhere else.
"""

from __future__ import annotations

import random
import re
from datetime import datetime

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast._ext.decoder_probe import DECODED, REFUSED, DecoderProbe
from pythia_fast._ext.json_decoder import JsonDecoder, available_simd
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.refusal import Reason
from pythia_fast.schema import DTYPES, ColumnSpec, Kind

from .column_reader import decode_oracle, rows, same
from .json_maker import make_payload, make_struct

INTEGER = re.compile(rb"-?\d+")
SEEDS = st.integers(min_value=0, max_value=2**64 - 1)


def excused(payload: bytes, reason: Reason, column: ColumnSpec | None, at: int) -> bool:
    """Whether this refusal of a payload that msgspec takes is one of the differences on purpose."""
    if reason is Reason.UTF8:  # msgspec does not look at the UTF-8 of what it skips
        try:
            payload.decode()
        except UnicodeDecodeError:
            return True
    if reason is Reason.RANGE and column is not None:
        if column.kind is Kind.FLOAT32:
            value = msgspec.json.decode(re.match(rb"[-+.eE0-9]+", payload[at:])[0], type=float)  # type: ignore[index]
            return abs(value) > float(np.finfo(np.float32).max)
        info = np.iinfo(DTYPES[column.kind])
        found = INTEGER.match(payload, at)
        return found is not None and not info.min <= int(found[0]) <= info.max
    if reason is Reason.DATETIME:  # an instant that no UTC datetime can hold
        text = msgspec.json.decode(re.match(rb'"(?:[^"\\]|\\.)*"', payload[at:])[0])  # type: ignore[index]
        try:
            msgspec.convert(text, datetime).astimezone(tz=None)
        except OverflowError:
            return True
    return False


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS)
def test_random_schemas_and_payloads(seed: int) -> None:
    rng = random.Random(seed)
    made = make_struct(rng)
    plan = Plan(made)
    probes = [DecoderProbe(Layout(plan, 64, 1 << 14), JsonDecoder(plan, simd)) for simd in available_simd()]
    wanted = []
    for _ in range(30):
        payload = make_payload(rng, made)
        accepted, value = decode_oracle(payload, plan.schema)
        answers = [probe.decode(payload) for probe in probes]
        assert len(set(answers)) == 1, (payload, answers)
        outcome, reason, _, column, at = answers[0]
        if outcome == DECODED:
            assert accepted, (payload, value)
            wanted.append(value)
        else:
            assert outcome == REFUSED
            assert 0 <= at <= len(payload)
            spec = plan.schema.columns[column] if column >= 0 else None
            assert not accepted or excused(payload, Reason(reason), spec, at), (payload, Reason(reason), at, value)
    for probe in probes:
        decoded = rows(probe)
        assert len(decoded) == len(wanted)
        for left, right in zip(decoded, wanted, strict=True):
            assert same(left, right), (left, right)


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_floats_read_as_python_reads_them(value: float, digits: int) -> None:
    One = msgspec.defstruct("One", [("a", float)])  # noqa: N806
    plan = Plan(One)
    for simd in available_simd():
        probe = DecoderProbe(Layout(plan, 4, 64), JsonDecoder(plan, simd))
        spelled = (repr(value), f"{value:.{digits}e}", f"{value:.{digits}f}")
        for text in spelled:
            probe.reset()
            outcome, reason, *_ = probe.decode(b'{"a":%s, "and":"a tail of some length"}' % text.encode())
            if abs(float(text)) == float("inf"):
                assert (outcome, Reason(reason)) == (REFUSED, Reason.RANGE)
                continue
            assert outcome == DECODED
            right = json_float(text)
            assert same(rows(probe), [{"a": right}])


def json_float(text: str) -> float:
    """What Python has for it: an integer becomes a float (so -0 is 0.0)."""
    return float(int(text)) if text.lstrip("-").isdigit() else float(text)

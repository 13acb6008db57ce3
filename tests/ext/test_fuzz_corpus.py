"""What the fuzzer found worth keeping, against msgspec: the same answer, or both refuse.

fuzz/run.sh explores the decoders by coverage, in C and with no oracle at hand; every payload that reached something
new is kept in fuzz/out, and those of fuzz/corpus are in the repository. Here each is decoded once more, into the Struct
that the plan of fuzz/batch.h stands for, and by msgspec.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from pythia_fast._ext.decoder_probe import DECODED, REFUSED, DecoderProbe
from pythia_fast._ext.json_decoder import JsonDecoder, available_simd
from pythia_fast._ext.msgpack_decoder import MsgpackDecoder
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.refusal import Reason

from .column_reader import expected, rows, same
from .test_json_decoder_oracle import excused

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: Annotated[str, msgspec.Meta(max_length=5)] | None = msgspec.field(
        default=None, name="a name that is longer than one block is"
    )


class Item(msgspec.Struct, tag=-3, tag_field="k"):
    sku: str
    counts: list[Annotated[int, np.int32] | None] = []


class Order(msgspec.Struct, tag="order", tag_field="type"):
    """fuzz_plan of fuzz/batch.h."""

    id: int
    price: float = 1.0
    name: str = "none"
    ok: bool = True
    small: Annotated[int, np.int8, msgspec.Meta(ge=-5, lt=100)] = 7
    big: Annotated[int, np.uint64] | None = None
    ratio: Annotated[float, np.float32, msgspec.Meta(le=1e30)] = 0.0
    when: datetime.datetime | None = None
    data: bytes = b""
    raw: msgspec.Raw = msgspec.Raw(b"1")
    tags: Annotated[list[str], msgspec.Meta(max_length=6)] = []
    inner: Inner | None = None
    items: list[Item] | None = None


#: What the decoders refuse on purpose though msgspec does not: text in what is skipped that is no UTF-8, integers and
#: float32 that their column cannot hold, instants that no UTC datetime can hold.
ON_PURPOSE = {Reason.UTF8, Reason.RANGE, Reason.DATETIME}


def payloads(target: str) -> list[bytes]:
    folders = [FUZZ / "corpus" / target, FUZZ / "out" / target]
    return [path.read_bytes() for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def test_the_plan_is_the_one_that_is_fuzzed():
    names = [spec.name for spec in Plan(Order).schema.columns]
    assert len(names) == 20  # N_COLUMNS
    assert names[:3] == ["id", "price", "name"]
    assert names[12] == "inner"


def answers(payload: bytes, decode: Any) -> tuple[bool, Any]:
    try:
        return True, expected(decode(payload, type=Order), Plan(Order).schema)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False, None
    except (OverflowError, ValueError):  # an instant before the year 1 or after 9999, in UTC
        return True, None


@pytest.mark.parametrize(
    ("target", "simd"), [("json", simd) for simd in available_simd()] + [("msgpack", None)], ids=str
)
def test_every_kept_payload_is_decoded_as_msgspec_does(target: str, simd: str | None) -> None:
    plan = Plan(Order)
    decoder = MsgpackDecoder(plan) if simd is None else JsonDecoder(plan, simd)
    decode = msgspec.msgpack.decode if simd is None else msgspec.json.decode
    probe = DecoderProbe(Layout(plan, 1, 1 << 14), decoder)
    kept = payloads(target)
    accepted_by_both = 0
    assert len(kept) >= 5
    for payload in kept:
        if len(payload) > 4096:
            continue
        probe.reset()
        outcome, reason, _found, column, at = probe.decode(payload)
        accepted, wanted = answers(payload, decode)
        if outcome == DECODED:
            assert accepted, payload
            assert same(rows(probe), [wanted]), (payload, rows(probe), wanted)
            accepted_by_both += 1
        else:
            assert outcome == REFUSED, payload
            if accepted:
                assert Reason(reason) in ON_PURPOSE, (payload, Reason(reason), at)
                if simd is not None and wanted is not None:
                    spec = plan.schema.columns[column] if column >= 0 else None
                    assert excused(payload, Reason(reason), spec, at), (payload, Reason(reason), at)
    assert accepted_by_both >= 3

"""outputs.py, raw_values.py: what is written of a msgspec.Raw that a record holds, as an object of the handler's."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from types import SimpleNamespace
from typing import Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import pytest
from msgspec import Raw

from pythia_fast.batch import Batch
from pythia_fast.brokers.framing import iterate_records
from pythia_fast.errors import OutputValueError
from pythia_fast.results.outputs import OutputEncoder
from pythia_fast.results.raw_values import MOST_TYPES

Encoding = Literal["json", "msgpack"]
ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")
MODULES: dict[str, Any] = {"json": msgspec.json, "msgpack": msgspec.msgpack}


class Order(msgspec.Struct):
    id: int
    raw: Raw = Raw()
    many: list[Raw] = []


def payloads(result: Any, sink: Encoding, decoder: str) -> list[bytes]:
    """The payloads of a result that a handler with this decoder returns to this sink."""
    region = memoryview(bytearray(1 << 16))
    encoded = OutputEncoder(sink, decoder).open(result).write(region)
    if encoded.fault is not None:
        raise encoded.fault
    assert encoded.done
    return [record.payload or b"" for record in iterate_records(region[: encoded.bytes])]


def objects(result: Any, sink: Encoding, decoder: str) -> list[Any]:
    written = payloads(result, sink, decoder)
    assert sink == "msgpack" or not any(b"\n" in payload for payload in written)
    return [MODULES[sink].decode(payload) for payload in written]


@pytest.mark.parametrize("sink", ENCODINGS)
@pytest.mark.parametrize("decoder", ENCODINGS)
def test_rows_are_written_as_the_batch_is(decoder: Encoding, sink: Encoding) -> None:
    values: list[Any] = [{"id": 1, "raw": {"a": [1, None]}, "many": [2, "x\n"]}, {"id": 2}, {"id": 3, "raw": None}]
    given = [MODULES[decoder].encode(value) for value in values]
    if decoder == "json":
        given[0] = msgspec.json.format(given[0], indent=2)
    batch = Batch.decode(given, Order, decoder)
    expected = [{"many": [], **value} for value in values]
    assert objects(batch, sink, decoder) == expected
    assert objects(batch.rows(), sink, decoder) == expected
    assert objects(list(batch.rows()), sink, decoder) == expected


class Base(msgspec.Struct):
    id: int = 0


class Below(Base):
    raw: Raw = Raw()


class Frozen(msgspec.Struct, frozen=True, rename="camel", tag="t"):
    the_raw: Raw
    part: Base | None = None


class Node(msgspec.Struct):
    next: Node | None = None
    raws: dict[str, Raw] = {}


class InPlace(msgspec.Struct, array_like=True):
    raw: Raw
    id: int


T = TypeVar("T")


class Boxed(msgspec.Struct, Generic[T]):
    it: T


class Unknown(msgspec.Struct):
    raw: Nowhere  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    raw: Raw
    others: tuple[Raw, ...] = ()


class Attributes:
    __attrs_attrs__ = (SimpleNamespace(name="raw"), SimpleNamespace(name="id"))

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.id = 1


class Counted(msgspec.Struct):
    raw: Raw
    made: int = 0

    def __post_init__(self) -> None:
        self.made += 1


ONE = Raw(b'{"x":\n[1, 2]}')
IT = {"x": [1, 2]}


@pytest.mark.parametrize("sink", ENCODINGS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ONE, IT),
        ({"a": ONE, "b": Raw(), "c": 1}, {"a": IT, "c": 1}),
        ([1, ONE, Raw(), "x"], [1, IT, None, "x"]),
        ((1, ONE), [1, IT]),
        ({"deep": [{"a": (ONE,)}]}, {"deep": [{"a": [IT]}]}),
        (Below(1, ONE), {"id": 1, "raw": IT}),
        (Below(1), {"id": 1}),
        (Frozen(ONE, Below(2, ONE)), {"type": "t", "theRaw": IT, "part": {"id": 2, "raw": IT}}),
        (Frozen(Raw(), Base(2)), {"type": "t", "part": {"id": 2}}),
        (Node(Node(raws={"a": ONE, "b": Raw()})), {"next": {"next": None, "raws": {"a": IT}}, "raws": {}}),
        (InPlace(Raw(), 1), [None, 1]),
        (InPlace(ONE, 1), [IT, 1]),
        (Boxed(ONE), {"it": IT}),
        (Boxed([Base(1), Below(2, ONE)]), {"it": [{"id": 1}, {"id": 2, "raw": IT}]}),
        (Unknown(ONE), {"raw": IT}),
        (Data(ONE, (ONE, Raw())), {"raw": IT, "others": [IT, None]}),
        (Data(Raw()), {"others": []}),
        (Attributes(ONE), {"raw": IT, "id": 1}),
        (np.array([ONE, None], object), [IT, None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_raw_is_found_wherever_it_stands(value: Any, expected: Any, sink: Encoding) -> None:
    assert objects([value], sink, "json") == [expected]
    assert objects({"v": [value, 1]}, sink, "json") == [{"v": expected}, {"v": 1}]


@pytest.mark.parametrize("decoder", ["raw", "fixed"])
def test_a_raw_is_of_the_sinks_encoding_where_the_decoder_has_none(decoder: str) -> None:
    assert objects([{"v": Raw(b"[1,\n2]")}], "json", decoder) == [{"v": [1, 2]}]
    assert objects([{"v": Raw(b"\x92\x01\x0a")}], "msgpack", decoder) == [{"v": [1, 10]}]


def test_what_the_handler_returned_stays_as_it_was() -> None:
    row = Below(1)
    result: list[Any] = [row, {"a": row, "b": Raw()}]
    assert objects(result, "json", "json") == [{"id": 1}, {"a": {"id": 1}}]
    assert row == Below(1, Raw())
    assert result == [row, {"a": row, "b": Raw()}]


def test_a_copy_is_made_without_post_init() -> None:
    assert payloads([Counted(Raw())], "json", "json") == [b'{"made":1}']


def test_an_absent_raw_is_left_out_of_its_row_and_is_no_record() -> None:
    assert objects({"id": [1, 2], "raw": [Raw(), ONE]}, "msgpack", "json") == [{"id": 1}, {"id": 2, "raw": IT}]
    with pytest.raises(OutputValueError, match=r"row 1: .*a msgspec\.Raw without bytes is no record"):
        payloads([ONE, Raw()], "json", "json")
    with pytest.raises(OutputValueError, match="UnsetType"):
        payloads({"v": [msgspec.UNSET]}, "json", "json")


def test_classes_that_a_handler_makes_for_each_call_are_not_kept() -> None:
    encoder = OutputEncoder("json", "json")
    made = []
    for number in range(MOST_TYPES + 100):
        kind = msgspec.defstruct("Out", [("id", int), ("raw", Raw if number % 2 else int)])
        encoder.open([kind(1, Raw(b"2") if number % 2 else 2)])
        made.append(weakref.ref(kind))
    del kind
    gc.collect()
    assert sum(each() is not None for each in made) < MOST_TYPES


def test_a_raw_without_a_form_in_the_other_encoding_costs_its_row() -> None:
    with pytest.raises(OutputValueError, match="row 1"):
        payloads([Order(1, ONE), Order(2, Raw(b"%d" % 10**30))], "msgpack", "json")

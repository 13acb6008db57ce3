"""batch.py: what a handler sees of its rows, and what it may do to them."""

from __future__ import annotations

import datetime
import math
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import pytest

from pythia_fast._ext.batch_memory import ROW_REJECTED, ROW_RETRY
from pythia_fast.batch import Batch
from pythia_fast.columns import BytesColumn, StringColumn
from pythia_fast.decoders import choose_decoder
from pythia_fast.errors import ConfigError, HandlerError, MarkError, SchemaError, UnknownColumnError, UnknownOptionError
from pythia_fast.nested_columns import ListColumn, StructColumn
from tests.support.batch_status import settled

from .slot_writer import SlotWriter

UTC = datetime.UTC


class Customer(msgspec.Struct):
    name: str
    age: Annotated[int, np.uint8] | None = None


class Item(msgspec.Struct):
    sku: str
    qty: int


class Order(msgspec.Struct):
    order_id: int
    price: float
    paid: bool
    note: str | None
    at: datetime.datetime
    blob: bytes
    customer: Customer | None
    tags: list[str]
    items: list[Item] | None = None
    extra: msgspec.Raw = msgspec.Raw(b"null")


ORDERS = [
    Order(1, 2.5, True, "é", datetime.datetime(2026, 1, 2, tzinfo=UTC), b"\0\1", Customer("ann", 30), ["a", "bb"]),
    Order(-2, -0.0, False, None, datetime.datetime(1969, 1, 1, tzinfo=UTC), b"", None, [], [Item("x", 1), Item("", 2)]),
    Order(3, 1e300, True, "", datetime.datetime(2000, 1, 1, tzinfo=UTC), b"z", Customer("bob"), [""], []),
]


@pytest.fixture
def batch() -> Batch[Any]:
    return SlotWriter(Order, ORDERS).batch()


def test_numbers_are_read_only_views_of_the_memory(batch: Batch[Any]) -> None:
    prices = batch["price"]
    assert prices.tolist() == [2.5, -0.0, 1e300]
    assert batch["order_id"].dtype == np.int64
    assert batch["paid"].tolist() == [True, False, True]
    assert batch["at"].dtype == np.dtype("datetime64[us]")
    assert batch["at"].astype(str)[1] == "1969-01-01T00:00:00.000000"
    assert not prices.flags.writeable
    assert batch["price"] is prices
    with pytest.raises(ValueError, match="read-only"):
        prices[0] = 1.0


def test_a_view_reads_the_slot_itself() -> None:
    writer = SlotWriter(Order, ORDERS)
    prices = writer.batch()["price"]
    assert writer.memory.ctypes.data < prices.ctypes.data < writer.memory.ctypes.data + len(writer.memory)


def test_columns_by_name(batch: Batch[Any]) -> None:
    assert batch.columns == (
        "order_id", "price", "paid", "note", "at", "blob", "customer.name", "customer.age", "tags", "items", "extra",
    )  # fmt: skip
    assert len(batch) == 3
    assert "price" in batch
    assert "customer" not in batch
    assert "items[].sku" in batch
    assert 5 not in batch
    assert repr(batch).startswith("<Batch of 3 rows: order_id, price")
    with pytest.raises(TypeError):
        iter(cast(Any, batch))


def test_nulls_read_as_zero_beside_a_mask(batch: Batch[Any]) -> None:
    assert batch["customer.age"].tolist() == [30, 0, 0]
    assert batch.valid("customer.age").tolist() == [True, False, False]
    assert batch.valid("customer.name").tolist() == [True, False, True]
    assert batch.valid("customer").tolist() == [True, False, True]
    assert batch.valid("price").tolist() == [True] * 3
    assert batch["note"].tolist() == ["é", None, ""]
    assert batch.valid("note").tolist() == [True, False, True]


def test_strings_bytes_and_raw(batch: Batch[Any]) -> None:
    assert isinstance(batch["note"], StringColumn)
    assert isinstance(batch["blob"], BytesColumn)
    assert batch["blob"].tolist() == [b"\0\1", b"", b"z"]
    assert batch["extra"].tolist() == [b"null"] * 3
    assert batch["customer.name"][2] == "bob"
    assert batch["customer.name"][1] is None


def test_lists_and_the_structs_in_them(batch: Batch[Any]) -> None:
    tags = batch["tags"]
    assert isinstance(tags, ListColumn)
    assert tags.offsets.tolist() == [0, 2, 2, 3]
    assert tags.tolist() == [["a", "bb"], [], [""]]
    assert tags[0] == ["a", "bb"]
    items = batch["items"]
    assert isinstance(items.values, StructColumn)
    assert items.values["qty"].tolist() == [1, 2]
    assert items.tolist() == [None, [{"sku": "x", "qty": 1}, {"sku": "", "qty": 2}], []]
    assert items[0] is None
    assert batch["items[].qty"].tolist() == [1, 2]
    assert batch["items[].sku"].tolist() == ["x", ""]
    assert batch["items[]"].tolist() == [{"sku": "x", "qty": 1}, {"sku": "", "qty": 2}]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("prise", "did you mean 'price'"), ("zzz", "columns are order_id"), ("customer", "customer.name")],
)
def test_unknown_columns_name_the_nearest(batch: Batch[Any], name: str, hint: str) -> None:
    with pytest.raises(UnknownColumnError, match=hint):
        batch[name]
    assert issubclass(UnknownColumnError, KeyError)


def test_what_came_with_the_rows(batch: Batch[Any]) -> None:
    assert batch.positions.tolist() == [(7, 100), (7, 101), (7, 102)]
    assert batch.positions["offset"].tolist() == [100, 101, 102]
    assert batch.timestamps.astype(str).tolist() == ["NaT", "1970-01-01T00:00:00.999", "1970-01-01T00:00:01.999"]
    assert batch.attempts.tolist() == [0, 1, 2]
    assert list(batch.keys) == [b"{", None, b"{"]
    assert batch.keys[2] == b"{"
    assert batch.headers[0] == {}
    assert bytes(batch.raw[1]) == msgspec.json.encode(ORDERS[1])
    assert [bytes(raw) for raw in batch.raw[:2]] == [msgspec.json.encode(order) for order in ORDERS[:2]]
    assert batch.raw[0].readonly
    with pytest.raises(IndexError):
        batch.raw[3]


def test_rows_are_structs_made_when_asked_for(batch: Batch[Any]) -> None:
    rows = batch.rows()
    assert len(rows) == 3
    assert rows[-1].customer.name == "bob"
    assert [row.order_id for row in rows] == [1, -2, 3]
    assert rows[0] is not rows[0]


def test_an_empty_batch() -> None:
    batch = SlotWriter(Order, []).batch()
    assert len(batch) == 0
    assert batch["price"].shape == (0,)
    assert batch["note"].tolist() == []
    assert batch["items"].tolist() == []
    assert batch["items[].sku"].tolist() == []
    assert batch.valid("note").shape == (0,)
    assert batch.positions.shape == (0,)
    assert batch.timestamps.shape == (0,)
    assert list(batch.rows()) == []
    batch.reject(np.zeros(0, bool), reason="none")
    assert batch.rejected == []


# -- reject and retry


def test_reject_by_mask_then_by_index_keeps_the_first_reason(batch: Batch[Any]) -> None:
    batch.reject(batch["price"] > 1e6, reason="implausible")
    batch.reject([-1, 0, 0], reason="late")
    assert [(rows.tolist(), reason) for rows, reason in batch.rejected] == [([2], "implausible"), ([0], "late")]
    assert settled(batch._memory) == (1, 2, 0)


@pytest.mark.parametrize("reason", ["", None])
def test_rows_that_are_rejected_without_a_reason_say_so(batch: Batch[Any], reason: Any) -> None:
    batch.reject([0], reason=reason)
    assert [text for _, text in batch.rejected] == ["rejected without a reason"]


@pytest.mark.parametrize("reason", [["a", "b", "c"], np.array(["a", "b", "c"]), ValueError("a"), 0])
def test_a_reason_that_is_no_text_is_refused(batch: Batch[Any], reason: Any) -> None:
    with pytest.raises(MarkError, match=f"reason must be one str for all these rows, not {type(reason).__name__}"):
        batch.reject([0], reason=reason)
    assert not batch.marked


@pytest.mark.parametrize("names", [["price", "qty"], 0, slice(1), np.array([True]), None], ids=str)
def test_columns_are_read_by_one_name(batch: Batch[Any], names: Any) -> None:
    with pytest.raises(UnknownColumnError, match=f"by its name, a str, and not by {type(names).__name__}; the columns"):
        batch[names]


def test_what_is_no_mask_is_named(batch: Batch[Any]) -> None:
    with pytest.raises(MarkError, match=r"batch.retry: rows must be bool\[.*, not NoneType"):
        batch.retry(None)  # type: ignore[arg-type]


def test_a_row_both_rejected_and_retried_is_rejected(batch: Batch[Any]) -> None:
    batch.retry(np.array([True, True, False]))
    batch.reject([1], reason="bad")
    batch.retry([1, 2])
    assert batch.retried.tolist() == [0, 2]
    assert list(bytes(batch._memory.status())) == [ROW_RETRY, ROW_REJECTED, ROW_RETRY]
    assert settled(batch._memory) == (0, 1, 2)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([True, False], IndexError), (np.zeros((3, 1), bool), IndexError), (True, IndexError), ([3], IndexError),
        ([-4], IndexError), ([0.5], TypeError), (["a"], TypeError), (np.zeros((1, 1), int), TypeError),
        (np.array([2**63], np.uint64), IndexError),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused(batch: Batch[Any], rows: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        batch.reject(rows, reason="x")
    with pytest.raises(error):
        batch.retry(rows)
    assert settled(batch._memory) == (3, 0, 0)


def test_a_single_index_and_no_index(batch: Batch[Any]) -> None:
    batch.reject([], reason="nobody")
    batch.reject(2, reason="one")
    assert [rows.tolist() for rows, _ in batch.rejected] == [[2]]
    assert batch.retried.tolist() == []


# -- views that outlive the batch


def test_no_view_is_kept_by_a_handler_that_keeps_none(batch: Batch[Any]) -> None:
    total = (batch["price"] * 2).sum() + batch["items[].qty"].sum()
    copies = [batch["note"].tolist(), batch.valid("note"), batch.positions, batch.timestamps, batch.attempts]
    names = [row.customer.name for row in batch.rows() if row.customer] + [len(raw) for raw in batch.raw]
    assert batch.kept_views() == []
    assert total
    assert len(copies) + len(names) == 10


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (lambda b: b["price"], ["price"]),
        (lambda b: b["price"][1:], ["price"]),
        (lambda b: b["price"].reshape(3, 1).T, ["price"]),
        (lambda b: memoryview(b["at"].view(np.int64)), ["at"]),
        (lambda b: b["note"], ["note"]),
        (lambda b: b["note"].data, ["note"]),
        (lambda b: b["tags"].values, ["tags[]"]),
        (lambda b: b["items"], ["items", "items[].qty", "items[].sku"]),
        (lambda b: b.raw[0], ["raw"]),
        (lambda b: b.raw, ["raw"]),
        (lambda b: b.rows(), ["rows"]),
        (lambda b: b.keys, ["keys"]),
        (lambda b: [b["price"], b["order_id"][::2]], ["order_id", "price"]),
    ],
)
def test_kept_views_are_named(batch: Batch[Any], keep: Any, names: list[str]) -> None:
    kept = keep(batch)
    assert batch.kept_views() == names
    del kept
    assert batch.kept_views() == []


def test_a_raw_field_of_a_kept_row_counts_as_kept(batch: Batch[Any]) -> None:
    row = batch.rows()[0]
    assert batch.kept_views() == ["rows"]  # msgspec.Raw looks at the payload
    row.extra = row.extra.copy()
    assert batch.kept_views() == []


def test_a_closed_batch_says_so(batch: Batch[Any]) -> None:
    batch.close()
    for use in (
        lambda: batch["price"], lambda: batch.valid("note"), lambda: batch.raw, lambda: batch.rows(),
        lambda: batch.positions, lambda: batch.reject([0], reason="x"), lambda: batch.retry([0]),
    ):  # fmt: skip
        with pytest.raises(HandlerError, match="this batch is over"):
            use()
    assert repr(batch) == "<Batch, over>"


# -- Batch.decode


def test_decode_raw_payloads_with_their_extras() -> None:
    batch: Batch[Any] = Batch.decode(
        [b"abc", None, b"", memoryview(b"xyz"), bytearray(b"q")],
        decoder="raw",
        keys=[b"k", None, None, b"", b"kk"],
        headers=[{"a": b"1", "b": None}, None, {}, None, {"ü": b""}],
        timestamps=[5, 6, -1, 8, 9],
    )
    assert batch["payload"].tolist() == [b"abc", b"", b"xyz", b"q"]
    assert [bytes(raw) for raw in batch.raw] == [b"abc", b"", b"xyz", b"q"]
    assert list(batch.keys) == [b"k", None, b"", b"kk"]
    assert list(batch.headers) == [{"a": b"1", "b": None}, {}, {}, {"ü": b""}]
    assert batch.positions["offset"].tolist() == [0, 2, 3, 4]
    assert batch.timestamps.astype(str).tolist()[1:2] == ["NaT"]
    assert list(batch.rows()) == [b"abc", b"", b"xyz", b"q"]
    (bad,) = batch.bad
    assert (bad.index, bad.at, bad.reason, bad.payload) == (1, 0, "the payload is null", None)


def test_decode_nothing() -> None:
    assert len(Batch.decode([], decoder="raw")) == 0
    assert len(Batch.decode(iter([None]), decoder="raw").bad) == 1


def test_decoded_columns_outlive_the_batch() -> None:
    column = Batch.decode([b"abc", b"def"], decoder="raw")["payload"]
    assert column.tolist() == [b"abc", b"def"]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("abc", "payload 1 is str, not bytes; encode it first"),
        (5, "payload 1 is int"),
        (memoryview(b"abcd")[::2], r"payload 1 cannot be read as bytes: .*; give bytes\(payload\)"),
    ],
)
def test_payloads_must_be_bytes(payload: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Batch.decode([b"", payload], decoder="raw")


def test_extras_must_have_one_value_a_payload() -> None:
    with pytest.raises(ValueError, match="2 keys for 1 payloads"):
        Batch.decode([b"x"], decoder="raw", keys=[b"a", b"b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payloads": b"x"}, r"payloads=b'x': a sequence of payloads: \[payload\] for one"),
        ({"payloads": 3}, "payloads=3: a sequence"),
        ({"payloads": [b"x"], "keys": b"k"}, "keys=b'k': a sequence with one of them for each of 1 payloads"),
        ({"payloads": [b"x"], "headers": 3}, "headers=3: a sequence"),
        ({"payloads": [b"x"], "timestamps": iter([1])}, "timestamps=.*: a sequence"),
        ({"payloads": [b"x"], "decodr": "raw"}, "Batch.decode has no option 'decodr'; did you mean 'decoder'"),
        ({}, "Batch.decode: missing a required argument: 'payloads'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Batch.decode(**{"decoder": "raw", **options})


# -- choosing a decoder


def test_an_unknown_decoder_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'msgpack'"):
        choose_decoder(Order, "msgpak")
    with pytest.raises(UnknownOptionError, match="known options: json, msgpack, raw"):
        choose_decoder(Order, "avro")


@pytest.mark.parametrize(
    ("schema", "decoder", "error", "message"),
    [
        (None, "json", ConfigError, "needs schema="),
        (Order, "raw", ConfigError, "takes no schema"),
        (Order, np.dtype([("a", "i4")]), ConfigError, "leave schema= out"),
        (np.dtype([("a", "i4")]), "msgpack", ConfigError, "pass it as decoder="),
        (None, np.dtype("i4"), SchemaError, "structured dtype"),
        (Order, np.dtype("i4"), SchemaError, "is neither a decoder's name nor a structured dtype with field names"),
        (Order, msgspec.json.Decoder, SchemaError, "is neither a decoder's name .*: give one of 'json', 'msgpack'"),
        (None, object(), SchemaError, "neither a decoder's name nor a NumPy dtype"),
        (None, Order, SchemaError, "is a msgspec.Struct type.*: give it as schema=; decoder= is one of 'json'"),
        (Order, Order, SchemaError, "is a msgspec.Struct type.*: give it as schema=; decoder= is one of 'json'"),
        (Item, Order, SchemaError, "is a msgspec.Struct type.*: give it as schema=, and only one of the two"),
        (Order, None, SchemaError, "decoder=None is neither .*give one of 'json', 'msgpack', 'raw'"),
        (Order, True, SchemaError, "decoder=True is neither"),
        (Order, math.nan, SchemaError, "decoder=nan is neither"),
        (None, [("a", "i4"), ("a", "i4")], SchemaError, "is neither"),
        (math.nan, "json", SchemaError, "must be a msgspec.Struct type, not nan"),
        ("Order", "json", SchemaError, "must be a msgspec.Struct type"),
        (np.zeros(2), np.dtype([("a", "i4")]), ConfigError, "leave schema= out"),
    ],
)
def test_schema_and_decoder_must_fit(schema: Any, decoder: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        choose_decoder(schema, decoder)


def test_a_structured_dtype_is_its_own_schema() -> None:
    dtype = np.dtype([("a", "i4"), ("b", "f8")])
    for decoding in (
        choose_decoder(None, dtype),
        choose_decoder(dtype),
        choose_decoder(None, [("a", "i4"), ("b", "f8")]),
    ):
        assert decoding.name == "fixed"
        assert [column.name for column in decoding.schema.columns] == ["a", "b"]
        assert decoding.row(np.array([(1, 2.0)], dtype).tobytes()).tolist() == (1, 2.0)

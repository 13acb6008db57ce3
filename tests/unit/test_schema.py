"""schema.py: which columns a Struct becomes, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import enum
import pickle
import uuid
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar, cast

import msgspec
import numpy as np
import pytest

from pythia_fast.errors import SchemaError
from pythia_fast.schema import MAX_FIELDS, Fallback, Kind, describe

UTC = datetime.UTC


class Customer(msgspec.Struct, frozen=True):
    name: str = "nobody"
    age: int = 0


class Address(msgspec.Struct):
    city: str
    zip_code: str | None = None


class Item(msgspec.Struct):
    sku: str
    prices: list[float]


class Order(msgspec.Struct, rename="camel"):
    order_id: int
    price: float
    paid: bool
    note: Optional[str]  # noqa: UP045 - both spellings must work
    address: Address | None
    items: list[Item]
    extra: msgspec.Raw = msgspec.Raw()
    blob: bytes = b""
    at: datetime.datetime | None = None


def columns_of(source: Any) -> dict[str, tuple[Kind, bool]]:
    return {c.name: (c.kind, c.nullable) for c in describe(source).columns}


def test_a_struct_becomes_a_depth_first_tree() -> None:
    schema = describe(Order)
    assert columns_of(Order) == {
        "order_id": (Kind.INT64, False),
        "price": (Kind.FLOAT64, False),
        "paid": (Kind.BOOL, False),
        "note": (Kind.STRING, True),
        "address": (Kind.STRUCT, True),
        "address.city": (Kind.STRING, True),  # below an Optional Struct
        "address.zip_code": (Kind.STRING, True),
        "items": (Kind.LIST, False),
        "items[]": (Kind.STRUCT, False),
        "items[].sku": (Kind.STRING, False),
        "items[].prices": (Kind.LIST, False),
        "items[].prices[]": (Kind.FLOAT64, False),
        "extra": (Kind.RAW, False),
        "blob": (Kind.BYTES, False),
        "at": (Kind.DATETIME, True),
    }
    by = schema.by_name
    assert [by[n].end for n in ("note", "address", "items", "items[]", "at")] == [4, 7, 12, 12, 15]
    assert [by[n].list for n in ("items", "items[]", "items[].sku", "items[].prices[]")] == [-1, 7, 7, 10]
    assert [c.name for c in schema.children()] == [
        "order_id", "price", "paid", "note", "address", "items", "extra", "blob", "at",
    ]  # fmt: skip
    assert [c.name for c in schema.children(by["items[]"])] == ["items[].sku", "items[].prices"]
    assert [f.name for f in schema.structs[0].fields][:1] == ["orderId"]
    assert [f.name for f in schema.structs[by["address"].struct].fields] == ["city", "zip_code"]
    assert "items[].sku" not in [c.name for c in schema.row_columns()]
    assert pickle.loads(pickle.dumps(schema)) == schema


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_annotated_narrows_an_int(dtype: Any) -> None:
    struct = msgspec.defstruct("S", [("x", Annotated[int, dtype]), ("xs", list[Annotated[int, np.dtype(dtype)]])])
    schema = describe(struct)
    assert schema.by_name["x"].dtype == np.dtype(dtype)
    assert schema.by_name["xs[]"].width == np.dtype(dtype).itemsize


def test_annotated_narrows_a_float_around_optional_and_meta() -> None:
    inner = Annotated[float, np.float32, msgspec.Meta(ge=0.0), msgspec.Meta(lt=9.5)]
    struct = msgspec.defstruct("S", [("x", Annotated[inner | None, "a mark of another tool"])])
    (column,) = describe(struct).columns
    assert (column.kind, column.nullable) == (Kind.FLOAT32, True)
    assert (column.bounds.ge, column.bounds.lt, column.bounds.gt) == (0.0, 9.5, None)


UserId = NewType("UserId", int)
T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    value: T


def test_newtypes_and_generics_are_seen_through() -> None:
    struct = msgspec.defstruct("S", [("user", UserId), ("box", Box[str])])
    assert columns_of(struct)["user"] == (Kind.INT64, False)
    assert columns_of(struct)["box.value"] == (Kind.STRING, False)
    assert columns_of(Box[bool])["value"] == (Kind.BOOL, False)


def fallback_of(annotation: Any, default: Any) -> tuple[Fallback, int, bytes]:
    field = describe(msgspec.defstruct("S", [("x", annotation, default)])).structs[0].fields[0]
    return field.fallback, field.bits, field.data


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (int, 7, (Fallback.BITS, 7, b"")),
        (int, -1, (Fallback.BITS, 2**64 - 1, b"")),
        (Annotated[int, np.int16], -2, (Fallback.BITS, 0xFFFE, b"")),
        (Annotated[int, np.uint64], 2**64 - 1, (Fallback.BITS, 2**64 - 1, b"")),
        (float, 1.0, (Fallback.BITS, 0x3FF0000000000000, b"")),
        (float, 1, (Fallback.BITS, 0x3FF0000000000000, b"")),
        (Annotated[float, np.float32], 1.0, (Fallback.BITS, 0x3F800000, b"")),
        (bool, True, (Fallback.BITS, 1, b"")),
        (str, "é", (Fallback.BYTES, 0, b"\xc3\xa9")),
        (bytes, b"\0x", (Fallback.BYTES, 0, b"\0x")),
        (msgspec.Raw, msgspec.Raw(b"[1]"), (Fallback.BYTES, 0, b"[1]")),
        (int | None, None, (Fallback.NULL, 0, b"")),
        (int | None, 3, (Fallback.BITS, 3, b"")),
        (list[int], [], (Fallback.EMPTY, 0, b"")),
        (Customer, Customer(), (Fallback.STRUCT, 0, b"")),
        (Customer, msgspec.field(default_factory=Customer), (Fallback.STRUCT, 0, b"")),
        (datetime.datetime, datetime.datetime(1970, 1, 1, 0, 0, 1, 5, UTC), (Fallback.BITS, 1000005, b"")),
        (datetime.datetime, datetime.datetime(1969, 12, 31, 23, 59, 59), (Fallback.BITS, 2**64 - 1000000, b"")),
    ],
)
def test_defaults_are_kept_as_stored(annotation: Any, default: Any, expected: tuple[Fallback, int, bytes]) -> None:
    assert fallback_of(annotation, default) == expected


class Colour(enum.Enum):
    RED = "red"


class Tree(msgspec.Struct):
    left: Tree | None = None


class Forest(msgspec.Struct):
    trees: list[Tree]


class Pair(msgspec.Struct, array_like=True):
    a: int


class Needs(msgspec.Struct, frozen=True):
    a: int


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (dict[str, int], "nested Struct, or msgspec.Raw"),
        (set[int], "use list"),
        (frozenset[int], "use list"),
        (tuple[int, ...], "use list"),
        (Any, "the type that it has, or msgspec.Raw"),
        (int | str, "msgspec.Raw, or one field for each type"),
        (int | float, "use float"),
        (int | msgspec.UnsetType, "Optional with the default None"),
        (Customer | Address | None, None),
        (Colour, "use str, or msgspec.Raw"),
        (Literal["a", "b"], "use str"),
        (Literal[1, 2], "use int"),
        (datetime.date, "datetime.datetime, or str"),
        (datetime.time, "use str"),
        (datetime.timedelta, "float seconds"),
        (uuid.UUID, "use str"),
        (decimal.Decimal, "use str"),
        (None, "leave the field out"),
        (list, "list[int]"),
        (msgspec.Raw | None, "bytes null"),
        (Pair, "array_like=True"),
        (Tree, "contains itself; keep the inner one as msgspec.Raw"),
        (Annotated[str, msgspec.Meta(pattern="^a")], "batch.reject()"),
        (Annotated[int, np.float64], "integer type"),
        (Annotated[int, np.datetime64], "integer type"),
        (Annotated[float, np.float16], "numpy.float32 or numpy.float64"),
        (Annotated[int, np.integer], "numpy.integer is a family of types"),
        (Annotated[bool, np.int8], "no NumPy type"),
        (Annotated[int, np.dtype(">i4")], "integer type"),
    ],
)
def test_what_cannot_be_a_column_is_refused_with_its_name(annotation: Any, advice: str | None) -> None:
    struct = msgspec.defstruct("Bad", [("good", int), ("field", annotation)])
    with pytest.raises(SchemaError) as caught:
        describe(struct)
    assert "Bad" in str(caught.value) or annotation is Tree
    if advice is not None:
        assert advice in str(caught.value)
        assert "field" in str(caught.value) or "left" in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "default", "message"),
    [
        (int, None, r"Optional\[int\]"),
        (int, 2**63, "does not fit"),
        (Annotated[int, np.uint8], 256, "does not fit"),
        (Annotated[int, np.uint8], -1, "does not fit"),
        (int, 1.5, "does not fit"),
        (int, True, "does not fit"),
        (str, b"x", "does not fit"),
        (str, "\ud800", "does not fit"),
        (float, "x", "does not fit"),
        (bool, 1, "does not fit"),
        (bytes, "x", "does not fit"),
        (msgspec.Raw, b"x", "does not fit"),
        (datetime.datetime, 5, "does not fit"),
        (Customer, Customer("x"), r"must equal Customer\(\)"),
        (Needs, Needs(1), "'a' has no default"),
        (Needs, msgspec.field(default_factory=cast(Any, Needs)), "'a' has no default"),
        (float, msgspec.field(default_factory=lambda: 1.0), "would run once a row"),
        (dict[str, int], {}, "nested Struct"),
    ],
)
def test_defaults_that_cannot_be_stored_are_refused(annotation: Any, default: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        describe(msgspec.defstruct("Bad", [("field", annotation, default)]))
    assert "Bad.field" in str(caught.value)


def test_recursion_through_a_list_is_refused() -> None:
    with pytest.raises(SchemaError, match="contains itself"):
        describe(Forest)


def test_a_nested_refusal_names_the_inner_struct() -> None:
    inner: Any = msgspec.defstruct("Inner", [("x", dict[str, int])])
    with pytest.raises(SchemaError, match=r"Inner\.x"):
        describe(msgspec.defstruct("Outer", [("inner", list[inner])]))


def test_1024_fields_fit_and_one_more_does_not() -> None:
    fields = [(f"f{i}", int) for i in range(MAX_FIELDS + 1)]
    assert len(describe(msgspec.defstruct("Wide", fields[:MAX_FIELDS])).columns) == 1024
    with pytest.raises(SchemaError, match="1025 fields"):
        describe(msgspec.defstruct("Wider", fields))


def test_tags_and_forbidden_unknown_fields_are_kept() -> None:
    (struct,) = describe(msgspec.defstruct("S", [("x", int)], tag="s", forbid_unknown_fields=True)).structs
    assert (struct.tag_field, struct.tag, struct.forbid_unknown) == ("type", "s", True)
    (struct,) = describe(msgspec.defstruct("S", [("x", int)], tag=3, tag_field="k")).structs
    assert (struct.tag_field, struct.tag, struct.forbid_unknown) == ("k", 3, False)


@pytest.mark.parametrize("wrong", [int, "Order", {"x": int}, Order(1, 1.0, True, None, None, []), list[Order]])
def test_a_schema_that_is_no_struct_is_refused(wrong: Any) -> None:
    with pytest.raises(SchemaError, match="must be a msgspec"):
        describe(wrong)


class Checked(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise ValueError("never")


def test_a_post_init_is_refused_because_no_decoder_would_run_it() -> None:
    with pytest.raises(SchemaError, match=r"Outer\.inner: Checked has a __post_init__"):
        describe(msgspec.defstruct("Outer", [("inner", Checked)]))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"two fields make a column named 'a\.b'"):
        describe(np.dtype([("a.b", "i4"), ("a", [("b", "i4")])]))


def test_raw_payloads_are_one_column_of_bytes() -> None:
    assert columns_of(None) == {"payload": (Kind.BYTES, False)}
    assert describe(None).name == "payload"


def test_a_structured_dtype_becomes_columns() -> None:
    dtype = np.dtype(
        [
            ("id", ">u4"), ("at", "M8[ms]"), ("name", "U5"), ("tag", "S3"), ("blob", "V4"), ("ok", "?"),
            ("pos", [("x", "f4"), ("y", "f8")]), ("grid", "i2", (2, 3)),
        ]
    )  # fmt: skip
    assert columns_of(dtype) == {
        "id": (Kind.UINT32, False),
        "at": (Kind.DATETIME, False),
        "name": (Kind.STRING, False),
        "tag": (Kind.BYTES, False),
        "blob": (Kind.BYTES, False),
        "ok": (Kind.BOOL, False),
        "pos": (Kind.STRUCT, False),
        "pos.x": (Kind.FLOAT32, False),
        "pos.y": (Kind.FLOAT64, False),
        "grid": (Kind.LIST, False),
        "grid[]": (Kind.LIST, False),
        "grid[][]": (Kind.INT16, False),
    }


@pytest.mark.parametrize(
    "wrong", ["f8", [("x", "c16")], [("x", "g")], [("x", "O")], [("x", "m8[s]")], [("x", "M8[D]")]]
)
def test_dtypes_that_cannot_become_columns_are_refused(wrong: Any) -> None:
    with pytest.raises(SchemaError):
        describe(np.dtype(wrong))

"""refusal.py: the sentence of each reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pytest

from pythia_fast.batch import Batch
from pythia_fast.refusal import Reason, large_row_text, oversize_text, refusal_text
from pythia_fast.schema import describe

EXT = Path(__file__).parents[2] / "ext"


class Line(msgspec.Struct, rename={"count": "n"}):
    count: Annotated[int, np.uint8, msgspec.Meta(ge=1, le=9, multiple_of=2)]


class Row(msgspec.Struct):
    price: float
    lines: list[Line]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] = "x"


class Priced(msgspec.Struct):
    price: int


SCHEMA = describe(Row)
COUNT = SCHEMA.by_name["lines[].count"].index


@pytest.mark.parametrize(
    ("reason", "found", "column", "at", "text"),
    [
        (Reason.TYPE, 5, 0, 42, "expected float, found str, field price, byte 42"),
        (Reason.TYPE, 1, COUNT, 3, "expected int, found null, field lines[].count (key 'n'), byte 3"),
        (Reason.TYPE, 6, -1, 0, "expected object, found array, byte 0"),
        (Reason.TYPE, 99, 1, 0, "expected array, found something else, field lines, byte 0"),
        (Reason.RANGE, 0, COUNT, 9, "number out of range of uint8, field lines[].count (key 'n'), byte 9"),
        (Reason.RANGE, 0, -1, 9, "number out of range, byte 9"),
        (
            Reason.CONSTRAINT, 0, COUNT, 9,
            "value outside its bounds (>= 1, <= 9, a multiple of 2), field lines[].count (key 'n'), byte 9",
        ),
        (
            Reason.CONSTRAINT, 0, SCHEMA.by_name["name"].index, 1,
            "value outside its bounds (length >= 1, length <= 3), field name, byte 1",
        ),
        (Reason.MISSING, 0, 0, 7, "missing required field price, byte 7"),
        (Reason.EMPTY, 0, -1, 0, "the payload is empty"),
        (Reason.NULL, 0, -1, 0, "the payload is null"),
        (Reason.TOO_LARGE, 0, -1, 7, "the message is larger than a batch may be"),
        (Reason.ROW_TOO_LARGE, 0, -1, 7, "the decoded row is larger than a batch may be"),
        (Reason.CUT, 0, -1, 0, "the file or pipe ends within this record"),
        (Reason.BAD_BATCH, 0, -1, 0, "a sub-batch of messages that cannot be taken apart"),
        (Reason.UTF8, 0, -1, 5, "invalid UTF-8, byte 5"),
        (
            Reason.CODE_POINT, 0, 0, 4,
            "a code point that is no character (above U+10FFFF, or U+D800 to U+DFFF), field price, byte 4",
        ),
        (250, 0, 999, 5, "refused, byte 5"),
    ],
)  # fmt: skip
def test_sentences(reason: int, found: int, column: int, at: int, text: str) -> None:
    assert refusal_text(SCHEMA, reason, found, column, at) == text


def test_a_byte_order_mark_is_named() -> None:
    good, *marked = b'{"price":1}', b'\xef\xbb\xbf{"price":1}', bytearray(b"\xef\xbb\xbf"), b'\xef{"price":1}', None
    batch = Batch.decode([good, *marked], Priced)
    said = [bad.reason.startswith("malformed payload (it begins with a byte order mark, ") for bad in batch.bad]
    assert (len(batch), said) == (1, [True, True, False, False])
    assert batch.bad[0].reason.endswith("without a BOM), byte 0")


def test_every_reason_of_the_c_header_has_its_sentence() -> None:
    header = (EXT / "decoder.h").read_text()
    reasons = {name: int(number) for name, number in re.findall(r"PF_REASON_(\w+) = (\d+)", header)}
    assert reasons == {reason.name: reason.value for reason in Reason}
    for number in set(reasons.values()) - {0}:
        assert not refusal_text(SCHEMA, number, 0, -1, 0).startswith("refused")
    found = {name.lower(): int(number) for name, number in re.findall(r"PF_FOUND_(\w+) = (\d+)", header)}
    for name, number in found.items():
        if number:
            assert f"found {name}," in refusal_text(SCHEMA, Reason.TYPE, number, 0, 0)


def test_what_is_too_large_is_named_with_its_size_the_limit_and_the_option() -> None:
    assert oversize_text(2000, 9, 1000) == (
        "the payload is larger than a batch may be (2,000 bytes); raise max_batch_bytes, which is 1,000"
    )
    assert oversize_text(9, 2000, 1000) == (
        "key and headers are larger than a batch may be (2,000 bytes, with 9 of payload); "
        "raise max_batch_bytes, which is 1,000"
    )
    assert large_row_text(1000) == (
        "the decoded row is larger than a batch may be: a column of it has more than 1,000 bytes of text, or values "
        "in its list; raise max_batch_bytes, which is that number"
    )

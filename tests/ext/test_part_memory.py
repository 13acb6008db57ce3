"""ext/part_memory: some rows of a batch once more, in memory that is used again."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from pythia_fast import Batch
from pythia_fast._ext.part_memory import PartMemory
from pythia_fast.decoders import choose_decoder


class Row(msgspec.Struct):
    n: int
    text: str
    tags: list[str] = []
    maybe: float | None = None


DECODING = choose_decoder(Row, "json")
ROWS = [Row(i, "t" * (i % 7), [f"{i}", "x"][: i % 3], None if i % 2 else i / 3) for i in range(50)]
PAYLOADS = [msgspec.json.encode(row) for row in ROWS]


@pytest.fixture
def whole():
    keys = [b"k%d" % i if i % 3 else None for i in range(50)]
    headers = [{"h": b"%d" % i} for i in range(50)]
    return Batch.decode(PAYLOADS, Row, keys=keys, headers=headers, timestamps=list(range(50)))


def part_of(parts: PartMemory, whole: Batch, rows: list[int], attempts: int = 1) -> Batch:
    memory = parts.decode(whole._memory, DECODING.native(), np.array(rows, np.uint32), attempts)
    assert memory is not None
    return Batch(memory, DECODING)


@pytest.mark.parametrize("rows", [[0], [49], [3, 4, 5], [48, 2, 2, 17], list(range(50)), []])
def test_a_part_has_the_rows_with_all_that_came_with_them(whole, rows):
    batch = part_of(PartMemory(DECODING.plan, 50, 4096), whole, rows, attempts=3)
    assert list(batch.rows()) == [ROWS[i] for i in rows]
    assert batch["n"].tolist() == rows
    assert batch["text"].tolist() == [ROWS[i].text for i in rows]
    assert [list(tags) for tags in batch["tags"]] == [ROWS[i].tags for i in rows]
    assert batch.valid("maybe").tolist() == [ROWS[i].maybe is not None for i in rows]
    assert [bytes(payload) for payload in batch.raw] == [PAYLOADS[i] for i in rows]
    assert list(batch.keys) == [b"k%d" % i if i % 3 else None for i in rows]
    assert [headers["h"] for headers in batch.headers] == [b"%d" % i for i in rows]
    assert batch.timestamps.astype(int).tolist() == rows
    assert batch.attempts.tolist() == [3] * len(rows)


def test_the_next_part_takes_the_place_of_the_last_and_sees_nothing_of_its_marks(whole):
    parts = PartMemory(DECODING.plan, 50, 4096)
    first = part_of(parts, whole, [1, 2, 3])
    where = first["n"].ctypes.data
    first.reject([0, 2], reason="no")
    first.close()
    second = part_of(parts, whole, [7, 8])
    assert second["n"].ctypes.data == where
    assert not second.marked
    assert len(second.given_back) == 0


def test_a_view_that_is_kept_keeps_its_bytes(whole):
    parts = PartMemory(DECODING.plan, 50, 4096)
    first = part_of(parts, whole, [1, 2, 3])
    kept = first["n"]
    first.close()
    assert part_of(parts, whole, [7, 8, 9])["n"].tolist() == [7, 8, 9]
    assert kept.tolist() == [1, 2, 3]


def test_what_looks_at_payloads_looks_at_the_whole_batch(whole):
    batch = part_of(PartMemory(DECODING.plan, 50, 4096), whole, [4])
    kept = batch.raw[0]
    batch.close()
    assert whole.kept_views() == ["raw"]
    assert bytes(kept) == PAYLOADS[4]


def test_texts_that_find_no_room_are_told(whole):
    parts = PartMemory(DECODING.plan, 50, 8)
    assert parts.decode(whole._memory, DECODING.native(), np.arange(50, dtype=np.uint32), 1) is None
    assert part_of(parts, whole, [1])["text"].tolist() == ["t"]


def test_rows_that_are_not_there_are_refused(whole):
    parts = PartMemory(DECODING.plan, 2, 4096)
    for rows, told in (([50], "row 50 of 50"), ([0, 1, 2], "3 rows in memory for 2")):
        with pytest.raises(IndexError, match=told):
            parts.decode(whole._memory, DECODING.native(), np.array(rows, np.uint32), 1)

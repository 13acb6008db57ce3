"""batch_memory.pyx: regions of a batch, what is refused before memory is touched, and private decoding."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import numpy as np
import pytest

from pythia_fast._ext.batch_memory import BatchMemory, decode_private, decode_rows
from pythia_fast.batch import MESSAGE, Batch
from pythia_fast.decoders import choose_decoder
from pythia_fast.errors import HandlerError

from ..unit.slot_writer import SlotWriter


class Row(msgspec.Struct):
    n: int
    text: str | None = None
    tags: list[str] = []


ROWS = [Row(i, None if i % 2 else "t" * i, ["a"] * i) for i in range(5)]
N, TEXT, TAGS, TAG = range(4)


@pytest.fixture
def memory() -> BatchMemory:
    return SlotWriter(Row, ROWS).batch_memory


def test_counts_follow_the_lists(memory: BatchMemory) -> None:
    assert [memory.count(index) for index in (N, TEXT, TAGS, TAG)] == [5, 5, 5, 10]
    assert memory.text_bytes(TEXT) == 6
    assert memory.text_bytes(TAG) == 10


def test_what_the_layout_does_not_hold_is_refused(memory: BatchMemory) -> None:
    with pytest.raises(IndexError, match="column 4 of 4"):
        memory.count(4)
    with pytest.raises(ValueError, match="48 bytes asked of a column of 40"):
        memory.values(N, 6)
    with pytest.raises(ValueError, match="no such offsets"):
        memory.offsets(N, 1)
    with pytest.raises(ValueError, match="no such offsets"):
        memory.offsets(TEXT, 6)
    with pytest.raises(ValueError, match="no such values"):
        memory.validity(TEXT, 6)
    for index in (N, TAGS):
        with pytest.raises(ValueError, match="no text"):
            memory.text_bytes(index)
    assert memory.validity(N, 5) is None
    with pytest.raises(ValueError, match="6 rows in a layout for 5"):
        BatchMemory(memory.layout, 4096, 6, 0, 0, 0, 1)


def test_only_the_status_is_writable(memory: BatchMemory) -> None:
    for region in (memory.values(N, 5), memory.messages(), memory.raw("raw")):
        assert memoryview(region).readonly
        with pytest.raises(ValueError, match="WRITEABLE"):
            np.frombuffer(region, np.uint8).setflags(write=True)  # type: ignore[call-overload]
    status = np.frombuffer(memory.status(), np.uint8)  # type: ignore[call-overload]
    assert status.flags.writeable


def test_exports_are_counted_by_name(memory: BatchMemory) -> None:
    region = memory.values(N, 5)
    assert (region.name, region.exports, memory.kept()) == ("n", 0, [])
    views = [memoryview(region), memoryview(region)[1:]]
    assert (region.exports, memory.kept()) == (2, ["n"])
    del views
    assert (region.exports, memory.kept()) == (0, [])


def test_memory_that_is_closed_hands_out_nothing_but_to_those_who_look_at_it(memory: BatchMemory) -> None:
    seen, unseen = memory.values(N, 5), memory.raw("raw")
    view = memoryview(seen)
    memory.close()
    for late in (lambda: memory.values(N, 5), lambda: memory.count(TAG), memory.messages, lambda: memoryview(unseen)):
        with pytest.raises(HandlerError, match="this batch is over"):
            late()
    again = memoryview(seen)
    assert memory.kept() == ["n"]
    del view, again
    with pytest.raises(HandlerError, match="this batch is over"):
        memoryview(seen)


def test_the_message_table_is_laid_out_as_the_c_struct_is(memory: BatchMemory) -> None:
    assert MESSAGE.itemsize == 48
    assert len(memory.messages()) == 5 * 48
    table = np.frombuffer(memory.messages(), MESSAGE)  # type: ignore[call-overload]
    assert table["offset"].tolist() == [100, 101, 102, 103, 104]


def decode(payloads: list[Any], **extras: Any) -> tuple[BatchMemory, list[tuple[int, ...]]]:
    decoding = choose_decoder(Row, "json")
    memory, refusals = decode_private(decoding.plan, decoding.native(), payloads, **extras)
    return memory, list(refusals)


def test_memory_lives_as_long_as_anything_looks_at_it() -> None:
    memory, _ = decode([b'{"n":1}', b'{"n":2}'])
    numbers = np.frombuffer(memory.values(N, 2), np.int64)  # type: ignore[call-overload]
    del memory
    gc.collect()
    assert numbers.tolist() == [1, 2]


def test_released_buffers_of_payloads_are_not_locked_afterwards() -> None:
    payload = bytearray(b'{"n":1}')
    memory, refusals = decode([payload, memoryview(payload)[:3]])
    payload.clear()  # raises BufferError while something still exports it
    assert memory.rows == 1
    assert refusals[0][0] == 1


def test_a_payload_that_is_no_buffer_leaves_no_buffer_locked() -> None:
    payload = bytearray(b"{}")
    with pytest.raises(TypeError, match="payload 1 is str"):
        decode([payload, "x"])
    payload.clear()


@pytest.mark.parametrize(
    "extras", [{"keys": ["text"]}, {"headers": [5]}, {"timestamps": ["now"]}, {"timestamps": [2**63]}]
)
def test_extras_of_another_type_are_refused(extras: dict[str, Any]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        decode([b'{"n":1}'], **extras)


@pytest.mark.parametrize("name", ["keys", "headers", "timestamps"])
def test_extras_of_another_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="0 keys, headers or timestamps for 1 payloads"):
        decode([b'{"n":1}'], **{name: []})


def test_some_rows_once_more() -> None:
    whole: Batch[Row] = Batch.decode(
        [b'{"n":0}', b"bad", b'{"n":2,"text":"two"}', b'{"n":3,"tags":["x"]}'],
        Row,
        keys=[b"k0", b"k1", None, b""],
        headers=[None, None, {"a": b"b"}, None],
        timestamps=[1, 2, 3, 4],
    )
    decoding = choose_decoder(Row, "json")
    part = Batch[Row](decode_rows(whole._memory, decoding.native(), np.array([2, 1], np.uint32), 4), decoding)
    assert part.rows()[:] == [Row(3, None, ["x"]), Row(2, "two")]
    assert part["n"].tolist() == [3, 2]
    assert list(part.keys) == [b"", None]
    assert list(part.headers) == [{}, {"a": b"b"}]
    assert part.positions["offset"].tolist() == [3, 2]
    assert part.timestamps.astype(np.int64).tolist() == [4, 3]
    assert part.attempts.tolist() == [4, 4]
    with pytest.raises(IndexError, match="row 3 of 3"):
        decode_rows(whole._memory, decoding.native(), np.array([3], np.uint32), 0)

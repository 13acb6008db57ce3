"""A batch's messages into its columns: by the pool process, or by the intake while every process is busy."""

from __future__ import annotations

import threading

import msgspec
import pytest

from pythia_fast._ext.batch_memory import BatchMemory
from pythia_fast._ext.intake import END, Intake
from pythia_fast._ext.ring import Arena
from pythia_fast.batch import Batch
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage
from pythia_fast.decoders import choose_decoder
from pythia_fast.refusal import Reason


class Item(msgspec.Struct):
    label: str = "x" * 1000


class Order(msgspec.Struct):
    number: int
    name: str = "?"
    items: list[Item] = []


class Kept(msgspec.Struct):
    number: int | None
    name: str = "?" * 100


class Bench:
    """An intake over messages in memory, and the pool process' side of its arena."""

    def __init__(self, tmp_path, messages, *, capacity=8, credit=2, workers=1, slots=8, raw_bytes=4096, nulls_of=None):
        tombstones = "dead_letter" if nulls_of is None else "rows"
        self.decoding = choose_decoder(nulls_of or Order, "json", tombstones)
        self.decoder = self.decoding.native()
        self.arena = Arena(
            self.decoding.plan,
            capacity=capacity,
            raw_bytes=raw_bytes,
            n_workers=workers,
            credit=credit,
            n_slots=slots,
            output_bytes=64,
        )
        self.consumer = MemoryConsumer(messages)
        self.consumer.log.open()
        self.consumer.log.announced()
        self.intake = Intake(
            self.arena,
            self.decoding.native(),
            self.consumer.log,
            ordering="unordered",
            linger_ns=0,
            spool_dir=tmp_path,
            max_payload_bytes=raw_bytes,
        )

    def batch(self, slot: int) -> Batch:
        at = self.arena.offsets
        memory = BatchMemory(
            self.arena.layout,
            self.arena.slot_address(slot),
            self.arena.rows(slot),
            self.arena.rows_at(slot),
            at["status"],
            at["raw"],
            self.arena.raw_bytes,
        )
        return Batch(memory, self.decoding, self.arena.partition_name)

    def publish(self) -> None:
        assert self.intake.run() == END
        assert self.intake.flush(1.0)


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(messages, **options):
        made.append(Bench(tmp_path, messages, **options))
        return made[-1]

    yield make
    for one in made:
        one.consumer.log.close()


def order(number: int) -> bytes:
    return b'{"number":%d,"name":"n%d"}' % (number, number)


REFUSED = {
    "none": [],
    "the first": [0],
    "the last": [7],
    "some between": [2, 3, 5],
    "all": list(range(8)),
}


@pytest.mark.parametrize("which", REFUSED)
def test_rows_and_refusals_are_told_apart_in_order(bench, which):
    bad = REFUSED[which]
    messages = [MemoryMessage(b"{" if i in bad else order(i), key=b"k%d" % i, timestamp_ms=i) for i in range(8)]
    one = bench(messages)
    one.publish()
    slot = one.arena.take(0, 0.0)
    good = [i for i in range(8) if i not in bad]
    for _ in range(2):  # a second time, as after a death
        assert one.arena.decode(slot, one.decoder)
        assert one.arena.rows(slot) == len(good)
        assert [refusal[0] for refusal in one.arena.refusals(slot)] == bad
        if good:
            batch = one.batch(slot)
            assert batch["number"].tolist() == good
            assert batch["name"].tolist() == [f"n{i}" for i in good]
            assert list(batch.keys) == [b"k%d" % i for i in good]
            assert batch.positions["offset"].tolist() == good
            assert [bytes(raw) for raw in batch.raw] == [order(i) for i in good]
            batch.close()
        one.arena.return_taken(0)
        slot = one.arena.take(0, 0.0)


def test_the_intake_decodes_what_waits_for_credit_and_nothing_else(bench):
    one = bench([order(i) for i in range(200)], capacity=40, credit=1, slots=4)
    thread = threading.Thread(target=one.publish)
    thread.start()
    numbers, handled = [], 0
    while handled < 200:
        while one.intake.stalls == 0:
            thread.join(0.001)
        slot = one.arena.take(0, 5.0)
        assert one.arena.decode(slot, one.decoder)
        numbers += one.batch(slot)["number"].tolist()
        handled += one.arena.rows(slot)
        one.arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
        for done in one.arena.collect():
            one.arena.release(done)
    thread.join(10)
    assert numbers == list(range(200))
    assert 1 <= one.intake.decoded < one.intake.published


def test_a_few_messages_are_decoded_before_they_wake_a_process(bench):
    one = bench([order(1), b"{", order(2)])
    one.publish()
    assert one.intake.decoded == 1
    slot = one.arena.take(0, 0.0)
    assert one.arena.rows(slot) == 2
    assert one.arena.decode(slot, one.decoder)
    assert one.batch(slot)["number"].tolist() == [1, 2]


def test_a_few_long_messages_are_left_to_the_pool(bench):
    one = bench([b'{"number":1,"name":"%s"}' % (b"x" * 3000)] * 3, raw_bytes=65536)
    one.publish()
    assert one.intake.decoded == 0


def test_rows_that_fit_only_one_by_one_are_sifted(bench):
    """Three default labels of 1,000 bytes a row, 4,096 bytes of column: one row fits, two do not, five never."""
    three, five = b'{"number":1,"items":[{},{},{}]}', b'{"number":2,"items":[{},{},{},{},{}]}'
    one = bench([three, b"nonsense", three, five, order(3)])
    one.publish()
    slot = one.arena.take(0, 0.0)
    assert not one.arena.decode(slot, one.decoder)
    assert one.arena.rows(slot) == 3
    refusals = one.arena.refusals(slot)
    assert [refusal[0] for refusal in refusals] == [1, 3]
    assert refusals[1][1] == Reason.ROW_TOO_LARGE
    assert [bytes(raw) for raw in one.batch(slot).raw] == [three, three, order(3)]


def test_a_message_whose_place_lies_outside_the_slot_is_refused(bench):
    one = bench([order(i) for i in range(20)], capacity=20)
    one.publish()
    slot = one.arena.take(0, 0.0)
    table = memoryview(one.arena.view(slot, one.arena.offsets["messages"], 96)).cast("I")
    table[5] = one.arena.raw_bytes - 3  # payload_at of the first: what a wild write could leave there
    assert one.arena.decode(slot, one.decoder)
    assert one.batch(slot)["number"].tolist() == list(range(1, 20))
    assert [refusal[:2] for refusal in one.arena.refusals(slot)] == [(0, 19)]


def test_decoding_needs_nothing_of_an_earlier_batch(bench):
    one = bench([order(i) for i in range(8)] + [b"{"] * 8 + [order(i) for i in range(8, 12)], slots=2, credit=1)
    thread = threading.Thread(target=one.publish)
    thread.start()
    rows, refused = [], []
    for _ in range(3):
        slot = one.arena.take(0, 5.0)
        assert one.arena.decode(slot, one.decoder)
        rows.append(one.arena.rows(slot))
        refused.append(len(one.arena.refusals(slot)))
        one.arena.complete(0, slot, 0, 0, 0, 0, 0, 0, 0)
        for done in one.arena.collect():
            one.arena.release(done)
    thread.join(10)
    assert (rows, refused) == ([8, 0, 4], [0, 8, 0])


@pytest.mark.parametrize("count", [2, 100], ids=["decoded by the intake", "decoded by the pool"])
def test_null_payloads_are_rows_among_others(bench, count):
    messages = [MemoryMessage(None if i % 2 == 0 else order(i), key=b"k%d" % i) for i in range(count)]
    one = bench(messages, capacity=100, raw_bytes=1 << 14, nulls_of=Kept)
    one.publish()
    slot = one.arena.take(0, 0.0)
    assert one.intake.decoded == (count == 2)
    assert one.arena.decode(slot, one.decoder)
    batch = one.batch(slot)
    assert batch.tombstones.tolist() == [i % 2 == 0 for i in range(count)]
    assert batch["number"].tolist() == [0 if i % 2 == 0 else i for i in range(count)]
    assert batch.valid("number").tolist() == [i % 2 == 1 for i in range(count)]
    assert batch["name"].tolist() == ["?" * 100 if i % 2 == 0 else f"n{i}" for i in range(count)]
    assert list(batch.keys) == [b"k%d" % i for i in range(count)]
    assert one.arena.refusals(slot) == []


def test_null_payloads_whose_defaults_find_no_room_together_are_rows_all_the_same(bench):
    one = bench([None] * 8, raw_bytes=300, nulls_of=Kept)
    one.publish()
    slot = one.arena.take(0, 0.0)
    assert not one.arena.decode(slot, one.decoder)
    assert (one.arena.rows(slot), one.arena.refusals(slot)) == (8, [])


def test_a_null_payload_whose_defaults_find_no_room_alone_is_refused(bench):
    one = bench([None, order(1)], raw_bytes=60, nulls_of=Kept)
    one.publish()
    slot = one.arena.take(0, 0.0)
    one.arena.decode(slot, one.decoder)
    assert [refusal[:2] for refusal in one.arena.refusals(slot)] == [(0, Reason.ROW_TOO_LARGE)]

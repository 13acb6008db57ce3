"""PF_PARTITION_STALLED: one partition's process has its hands full, the others flow on, and what waits is bounded.

Intake and Kafka source as they run, against the broker that librdkafka has built in; pool processes are played here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from pythia_fast._ext.intake import BLOCKED, CALL, ROOM, STOPPED, Intake
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.raw_decoder import RawDecoder
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.testing.readers import RememberingListener, reader_context
from tests.support.ring_feed import make_arena

ROWS = 10_000  #: of each partition, more than may be kept
CAPACITY, CREDIT = 100, 3
KEPT, RESERVE = 8192, 64  #: PF_KAFKA_KEPT, PF_KAFKA_RESERVE
PARTITIONS = 4  #: as many as a topic of that broker has


@pytest.fixture
def servers() -> Iterator[str]:
    """A broker with ``ROWS`` numbered messages in each partition of topic t."""
    producer = Producer({"test.mock.num.brokers": 1, "queue.buffering.max.messages": 1_000_000})
    broker = producer.list_topics(timeout=30).brokers[1]
    for partition in range(PARTITIONS):
        for i in range(ROWS):
            producer.produce("t", b"%d" % i, key=b"%d" % i, partition=partition)
    assert producer.flush(60) == 0
    yield f"{broker.host}:{broker.port}"
    producer.purge()  # the broker lives as long as the producer


class Played:
    """An intake over a Kafka consumer on a thread of its own, and the processes that take what it publishes."""

    def __init__(self, servers: str, tmp_path, ordering: str) -> None:
        self.plan = Plan(None)
        self.decoder = RawDecoder(self.plan)
        slots = PARTITIONS * (CREDIT + 1) + 4
        self.arena = make_arena(
            self.plan, capacity=CAPACITY, workers=PARTITIONS, credit=CREDIT, slots=slots, raw_bytes=CAPACITY * 64
        )
        consumer = KafkaConsumer("t", bootstrap_servers=servers, consumer_group="g")
        self.listener = RememberingListener()
        self.reader = consumer.open(reader_context(tmp_path, until="forever", listener=self.listener))
        self.intake = Intake(
            self.arena,
            RawDecoder(self.plan),
            self.reader.native,
            ordering=ordering,
            linger_ns=10_000_000,
            spool_dir=tmp_path,
            max_payload_bytes=64,
        )
        self.seen: dict[int, list[int]] = {part: [] for part in range(PARTITIONS)}  #: offsets, in the order of taking
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        calls = {CALL: self.reader.serve, BLOCKED: self.reader.pause, ROOM: self.reader.resume}
        while (outcome := self.intake.run()) != STOPPED:
            calls[outcome]()

    def work(self, workers: list[int], done: Callable[[], bool], seconds: float = 60) -> None:
        """Have these processes take and complete batches until ``done``."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (self.standing, {p: len(rows) for p, rows in self.seen.items()})
            for worker in workers:
                slot = self.arena.take(worker, 0.005)
                if slot is None:
                    continue
                for partition, _messages, first, after in self.arena.partitions(slot):
                    self.seen[self.listener.table[partition].partition] += range(first, after)
                self.arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
            for slot in self.arena.collect():
                self.arena.release(slot)

    @property
    def standing(self) -> dict[int, tuple[int, int, bool]]:
        """partition -> (next offset to append, offset that waits or -1, whether it is not fetched)."""
        return {part: (at, held, paused) for _, part, at, _, held, _, paused in self.reader.native.standing()}

    def close(self) -> None:
        self.intake.stop()
        self.thread.join()
        self.reader.close()


@pytest.fixture
def play(servers, tmp_path) -> Iterator[Callable[[str], Played]]:
    made: list[Played] = []

    def start(ordering: str) -> Played:
        made.append(Played(servers, tmp_path, ordering))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.timeout(120)
def test_one_partition_waits_while_the_others_flow_and_goes_on_in_order(play):
    one = play("partition")
    lanes: dict[int, int] = {}  #: partition -> its process

    def assigned() -> bool:
        lanes.update((part.partition, part.index % PARTITIONS) for part in one.listener.table.values())
        return len(lanes) == PARTITIONS

    everything = list(range(ROWS))
    one.work([], assigned)
    one.work([lanes[1], lanes[2], lanes[3]], lambda: all(len(one.seen[part]) == ROWS for part in (1, 2, 3)))
    assert one.seen == {0: [], 1: everything, 2: everything, 3: everything}

    # In the arena: what its process may have queued, and one open batch. Outside: what the source may keep.
    in_arena = (CREDIT + 1) * CAPACITY
    at, held, paused = one.standing[0]
    assert (at, held) == (in_arena, in_arena)
    assert paused  # for itself alone, so that librdkafka fetches no more of it
    messages, payload_bytes = one.reader.native.kept
    assert messages <= KEPT + RESERVE
    assert payload_bytes <= messages * len(str(ROWS))
    (kept,) = one.reader.kept()
    assert (kept.partition, kept.offset) == (0, in_arena)
    assert kept.age_s > 0

    one.work([lanes[0]], lambda: len(one.seen[0]) == ROWS)
    assert one.seen[0] == everything
    assert one.standing[0] == (ROWS, -1, False)
    assert one.reader.kept() == []


@pytest.mark.timeout(120)
def test_by_key_a_lane_without_room_stalls_all(play):
    """One partition's rows are in many lanes, so none may be passed by its partition's position."""
    one = play("key")
    one.work([0], lambda: one.intake.stalls >= 3)
    assert one.intake.messages < PARTITIONS * ROWS
    assert one.reader.kept() == []
    one.work(list(range(PARTITIONS)), lambda: one.intake.messages == PARTITIONS * ROWS and not one.arena.live())
    assert {part: at for part, (at, *_) in one.standing.items()} == dict.fromkeys(range(PARTITIONS), ROWS)

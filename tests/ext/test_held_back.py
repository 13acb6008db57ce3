"""PF_PARTITION_STALLED: one partition's process has its hands full, the others flow on, and what waits is bounded.

Intake and Kafka source as they run, against the broker that librdkafka has built in; pool processes are played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from tests.support.played_pool import PlayedPool

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


@pytest.fixture
def play(servers, tmp_path) -> Iterator[Callable[[str], PlayedPool]]:
    made: list[PlayedPool] = []

    def start(ordering: str) -> PlayedPool:
        made.append(PlayedPool(servers, "t", tmp_path, ordering, workers=PARTITIONS, capacity=CAPACITY, credit=CREDIT))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_one_partition_waits_while_the_others_flow_and_goes_on_in_order(play):
    one = play("partition")
    lanes: dict[int, int] = {}  #: partition -> its process

    def assigned() -> bool:
        lanes.update((part.partition, part.index % PARTITIONS) for part in list(one.listener.table.values()))
        return len(lanes) == PARTITIONS

    everything = list(range(ROWS))
    one.work([], assigned)
    # How much of partition 0 has come by the time that the others are through is librdkafka's affair: the rest comes
    # now, until no more of it may be kept. Then it is paused for itself alone: librdkafka fetches no more of it.
    one.work(
        [lanes[1], lanes[2], lanes[3]],
        lambda: all(len(one.seen[part]) == ROWS for part in (1, 2, 3)) and one.standing[0][2],
    )
    assert one.seen == {1: everything, 2: everything, 3: everything}

    # In the arena: what its process may have queued, and one open batch. Outside: what the source may keep.
    in_arena = (CREDIT + 1) * CAPACITY
    at, held, _paused = one.standing[0]
    assert 0 < at == held <= in_arena  # less where a batch was published before it was full
    assert [part for part, (*_, paused) in one.standing.items() if paused] == [0]
    messages, payload_bytes = one.reader.native.kept
    assert messages <= KEPT + RESERVE
    assert payload_bytes <= messages * len(str(ROWS))
    (kept,) = one.reader.kept()
    assert (kept.partition, kept.offset) == (0, held)
    assert kept.age_s > 0

    # The last row may have been handled before the source has noted that it was taken.
    one.work([lanes[0]], lambda: len(one.seen[0]) == ROWS and one.standing[0] == (ROWS, -1, False))
    assert one.seen[0] == everything
    assert one.reader.kept() == []


def test_by_key_a_lane_without_room_stalls_all(play):
    """One partition's rows are in many lanes, so none may be passed by its partition's position."""
    one = play("key")
    one.work([0], lambda: one.intake.stalls >= 3)
    assert one.intake.messages < PARTITIONS * ROWS
    assert one.reader.kept() == []
    one.work(list(range(PARTITIONS)), lambda: one.intake.messages == PARTITIONS * ROWS and not one.arena.live())
    assert {part: at for part, (at, *_) in one.standing.items()} == dict.fromkeys(range(PARTITIONS), ROWS)

"""A partition without room whose messages are large: what the source keeps of it is bounded in bytes, too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from confluent_kafka import Producer

from tests.support.kafka_broker import KafkaBroker
from tests.support.played_pool import PlayedPool

PAYLOAD = 64 << 10
ROWS = 3000  #: of each partition
HELD_BYTES = 32 << 20  #: PF_KAFKA_HELD_BYTES
QUEUED_BYTES = 32 << 20  #: queued.max.messages.kbytes: what one last fetch may take from librdkafka
FETCH_BYTES = 4 << 20


def test_large_messages_of_a_partition_that_waits_are_bounded(
    kafka: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
    for i in range(ROWS):
        producer.produce(topic, bytes(PAYLOAD), partition=0)
        producer.produce(topic, b"%d" % i, partition=1)
        while len(producer) > 500:
            producer.poll(0.1)
    assert producer.flush(60) == 0
    servers = kafka.bootstrap_servers
    sizes = {"workers": 2, "capacity": 50, "credit": 3, "payload_bytes": PAYLOAD}
    with closing(PlayedPool(servers, topic, tmp_path, "partition", **sizes)) as one:
        one.work([], lambda: len(one.listener.table) == 2)
        stuck, other = (
            next(part.index % 2 for part in one.listener.table.values() if part.partition == number)
            for number in (0, 1)
        )
        most = 0

        def done() -> bool:
            nonlocal most
            most = max(most, one.reader.native.kept[1])
            at, held, paused = one.standing[0]
            return len(one.seen[1]) == ROWS and 0 < at == held <= 200 and paused

        one.work([other], done)
        assert HELD_BYTES <= most <= HELD_BYTES + QUEUED_BYTES + FETCH_BYTES
        one.work([stuck], lambda: len(one.seen[0]) == ROWS)
        assert one.seen[0] == list(range(ROWS))

"""Topics full of orders, for the Kafka benchmarks: filled from C, so that millions take seconds."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.data import payloads
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.framing import frame_record
from pythia_fast.brokers.kafka import KafkaProducer
from tests.support.kafka_broker import KafkaBroker

DISTINCT = 100_000
RECORDS_A_TICKET = 10_000
TICKETS_AT_ONCE = 20


def fill(broker: KafkaBroker, topic: str, rows: int, partitions: int, compression: str = "none") -> float:
    """Create a topic with ``rows`` orders spread over its partitions; returns the seconds of the filling.

    Batches are as large as a busy producer makes them (about 1,000 orders). Not compressed by default: the
    benchmark is about what happens to messages, and orders repeated from a seed would compress too well.
    """
    broker.create_topic(topic, partitions)
    whole = [frame_record(payload) for payload in payloads(DISTINCT)]
    buffers = [b"".join(whole[at : at + RECORDS_A_TICKET]) for at in range(0, DISTINCT, RECORDS_A_TICKET)]
    producer = KafkaProducer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        compression_type=compression,
        linger_ms=20,
        batch_size=200_000,
        sticky_partitioning_linger_ms=5,
        queue_buffering_max_messages=400_000,
    )
    publisher = producer.open(PublisherContext("bench", "fill", Path(), print))
    begin = time.perf_counter()
    sent = delivered = 0
    while delivered < rows:
        while sent < rows and (sent - delivered) < RECORDS_A_TICKET * TICKETS_AT_ONCE:
            ticket = sent // RECORDS_A_TICKET
            publisher.publish(memoryview(buffers[ticket % len(buffers)]), RECORDS_A_TICKET, ticket)
            sent += RECORDS_A_TICKET
        delivered += RECORDS_A_TICKET * len(publisher.deliveries(0.1))
    seconds = time.perf_counter() - begin
    publisher.close(30)
    return seconds

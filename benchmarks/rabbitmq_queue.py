"""Queues full of orders, for the RabbitMQ benchmarks."""

from __future__ import annotations

from pathlib import Path

import pika

from benchmarks.data import payloads
from pythia_fast import RabbitMQProducer
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.framing import frame_record
from tests.support.rabbitmq_server import RabbitMqServer

RECORDS_A_TICKET = 5_000


def fill(server: RabbitMqServer, queue: str, rows: int) -> None:
    """Declare a classic queue, durable as they are, with ``rows`` orders in it, each of them confirmed."""
    connection = pika.BlockingConnection(pika.URLParameters(server.url))
    connection.channel().queue_declare(queue, durable=True)
    connection.close()
    buffer = memoryview(b"".join(frame_record(payload) for payload in payloads(RECORDS_A_TICKET)))
    publisher = RabbitMQProducer(queue, url=server.url).open(PublisherContext("bench", "fill", Path(), print))
    tickets = rows // RECORDS_A_TICKET
    for ticket in range(tickets):
        publisher.publish(buffer, RECORDS_A_TICKET, ticket)
    done = 0
    while done < tickets:
        done += len(publisher.deliveries(0.1))
    publisher.close(10)

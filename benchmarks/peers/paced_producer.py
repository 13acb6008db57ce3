"""Produces orders at a steady pace, each stamped with the monotonic nanoseconds of its produce call.

python -m benchmarks.peers.paced_producer SERVERS ROWS_A_SECOND SECONDS
"""

from __future__ import annotations

import sys
import time

import msgspec
from confluent_kafka import Producer

from benchmarks.data import orders

TICK_S = 0.0005


def main(servers: str, rows_per_second: int, seconds: float) -> None:
    """Produce a few rows every half millisecond, on time on the average."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "acks": 1})
    encode = msgspec.json.Encoder().encode
    rows = orders(1000)
    total = int(rows_per_second * seconds)
    sent = 0
    began = time.monotonic()
    while sent < total:
        due = min(total, int((time.monotonic() - began) * rows_per_second) + 1)
        while sent < due:
            order = rows[sent % len(rows)]
            order.ts = time.monotonic_ns()
            producer.produce("orders", encode(order), partition=sent % 4)
            sent += 1
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush(30)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

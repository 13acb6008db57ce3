"""The best loop there is in Python: confluent-kafka's consume(1000), msgspec over one joined array, NumPy.

    python -m benchmarks.peers.confluent_loop SERVERS PROCESSES ROWS

With several processes the partitions are dealt out to them evenly, as a group would, without the time of joining.
Prints {"rows", "seconds", "cpu_seconds"}: from the first message of any process to the last of all.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.data import Order
from benchmarks.scoring import score

PARTITIONS = 4
#: What makes this loop quick: large fetches at hand, and no second's pause when the queue is full.
TUNED = {"queued.min.messages": 20_000, "fetch.queue.backoff.ms": 2, "fetch.wait.max.ms": 100}


def read(servers: str, partitions: list[int], ends: dict[int, int]) -> tuple[int, float, float, float]:
    """(rows, time of the first batch, time of the last, CPU seconds between them)."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "peer", "enable.auto.commit": False, **TUNED})
    consumer.assign([TopicPartition("orders", partition, 0) for partition in partitions])
    decode = msgspec.json.Decoder(list[Order]).decode
    wanted = sum(ends[partition] for partition in partitions)
    rows, first, cpu = 0, 0.0, 0.0
    while rows < wanted:
        messages = consumer.consume(1000, timeout=1.0)
        if not messages:
            continue
        if not rows:
            first, cpu = time.monotonic(), cpu_seconds()
        orders = decode(b"[" + b",".join([message.value() for message in messages]) + b"]")
        n = len(orders)
        price = np.fromiter((order.price for order in orders), np.float64, n)
        qty = np.fromiter((order.qty for order in orders), np.int64, n)
        score(price, qty)
        rows += n
    last, cpu = time.monotonic(), cpu_seconds() - cpu
    consumer.close()
    return rows, first, last, cpu


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(servers: str, processes: int, rows: int) -> None:
    """Read the whole topic with so many processes."""
    asking = Consumer({"bootstrap.servers": servers, "group.id": "peer"})
    ends = {p: asking.get_watermark_offsets(TopicPartition("orders", p), timeout=30)[1] for p in range(PARTITIONS)}
    asking.close()
    assert sum(ends.values()) == rows
    shares = [(servers, list(range(place, PARTITIONS, processes)), ends) for place in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.starmap(read, shares, chunksize=1)
    seconds = max(last for _, _, last, _ in results) - min(first for _, first, _, _ in results)
    cpu = sum(cpu for _, _, _, cpu in results)
    print(json.dumps({"rows": sum(result[0] for result in results), "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

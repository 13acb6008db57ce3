"""Produces orders at a steady pace, each stamped with the monotonic nanoseconds of its produce call.

    python -m benchmarks.peers.paced_producer SERVERS TOPIC ROWS_A_SECOND WARMING_SECONDS MEASURED_SECONDS

One producer for the warm-up and the measured window, without a break between them: its connections, its metadata and
the broker's code paths are warm when the window begins. The loop is open: ticks are due on a fixed grid, and one that
comes late makes none of the next ones late. The rows of a tick go to one partition, as the sticky partitioners of
Kafka's clients would have it: spread over all, they cost the broker a request each. Prints
{"began_ns", "rows", "late_ms_p99", "late_ms_max"}: the first moment of the window, its rows, and how far behind the
grid its produce calls were.
"""

from __future__ import annotations

import gc
import json
import sys
import time

import msgspec
from confluent_kafka import Producer

from benchmarks.data import orders

TICK_NS = 500_000
PARTITIONS = 4


def main(servers: str, topic: str, rows_per_second: int, warming_s: float, measured_s: float) -> None:
    """Produce a few rows every half millisecond."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "acks": 1})
    encode = msgspec.json.Encoder().encode
    rows = orders(1000)
    warming_ticks = int(warming_s * 1e9) // TICK_NS
    ticks = warming_ticks + int(measured_s * 1e9) // TICK_NS
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be this producer's lateness
    sent = warm = 0
    late_ns: list[int] = []
    began_ns = measured_ns = time.monotonic_ns()
    for tick in range(ticks):
        due_ns = began_ns + tick * TICK_NS
        now_ns = time.monotonic_ns()
        if now_ns < due_ns:
            time.sleep((due_ns - now_ns) / 1e9)
            now_ns = time.monotonic_ns()
        if tick == warming_ticks:
            measured_ns, warm = now_ns, sent
        due_rows = (tick + 1) * rows_per_second * TICK_NS // 1_000_000_000
        while sent < due_rows:
            if tick >= warming_ticks:
                late_ns.append(now_ns - due_ns)
            order = rows[sent % len(rows)]
            order.ts = time.monotonic_ns()
            producer.produce(topic, encode(order), partition=tick % PARTITIONS)
            sent += 1
        producer.poll(0)
    if producer.flush(30):
        raise SystemExit("the broker did not take every row within 30 s")
    late_ns.sort()
    facts = {"began_ns": measured_ns, "rows": sent - warm}
    late = {"late_ms_p99": late_ns[len(late_ns) * 99 // 100] / 1e6, "late_ms_max": late_ns[-1] / 1e6}
    print(json.dumps(facts | late))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))

"""The yardstick: a C loop over rd_kafka_consume_batch_queue that only counts bytes, with our consumer's settings.

    python -m benchmarks.peers.kafka_count SERVERS GROUP ROWS

Prints {"rows", "seconds", "cpu_seconds"}, from the first message to the last.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from pythia_fast._ext.collecting_sink import CALL, CountingSink, poll
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.brokers.kafka_reader import KafkaReader
from pythia_fast.testing.readers import reader_context


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(servers: str, group: str, rows: int) -> None:
    """Count ``rows`` messages."""
    consumer = KafkaConsumer("orders", bootstrap_servers=servers, consumer_group=group)
    reader = consumer.open(reader_context(Path(), until="forever"))
    assert isinstance(reader, KafkaReader)
    first = CountingSink()
    while not first.count:
        if poll(reader.native, first, 1, 100_000) == CALL:
            reader.serve()
    began, cpu = time.perf_counter(), cpu_seconds()
    seen = 1
    while seen < rows:
        counted, _ = reader.native.count(rows - seen, 1.0)
        seen += counted
        reader.serve()
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - cpu}))
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

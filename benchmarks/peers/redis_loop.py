"""The best loop there is in Python: redis-py with hiredis' parser, msgspec over one joined array, NumPy.

    python -m benchmarks.peers.redis_loop PORT STREAM GROUP ROWS

Prints {"rows", "seconds", "cpu_seconds"}, from the first reply to the last.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import hiredis
import msgspec
import numpy as np
import redis

from benchmarks.data import Order
from benchmarks.scoring import score


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(port: str, stream: str, group: str, wanted: str) -> None:
    """Read the whole stream once."""
    assert hiredis.__version__
    client = redis.Redis(port=int(port), protocol=2)
    client.xgroup_create(stream, group, id="0")
    decode = msgspec.json.Decoder(list[Order]).decode
    rows, first, cpu = 0, 0.0, 0.0
    while reply := client.xreadgroup(group, "peer", {stream: ">"}, count=1000):
        if not rows:
            first, cpu = time.monotonic(), cpu_seconds()
        entries = reply[0][1]
        orders = decode(b"[" + b",".join([fields[b"data"] for _, fields in entries]) + b"]")
        n = len(orders)
        price = np.fromiter((order.price for order in orders), np.float64, n)
        qty = np.fromiter((order.qty for order in orders), np.int64, n)
        score(price, qty)
        client.xack(stream, group, *[id_ for id_, _ in entries])
        rows += n
    seconds, cpu = time.monotonic() - first, cpu_seconds() - cpu
    assert rows == int(wanted), rows
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])

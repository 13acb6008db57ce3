"""The usual loop in Python: pika's BlockingConnection, msgspec over a joined array of 1,000, NumPy, multiple acks.

    python -m benchmarks.peers.pika_loop URL QUEUE ROWS

Prints {"rows", "seconds", "cpu_seconds"} from the first message to the last.
"""

from __future__ import annotations

import json
import sys
import time

import msgspec
import numpy as np
import pika

from benchmarks.data import Order
from benchmarks.scoring import score

PREFETCH, BATCH = 30_000, 1_000


def main(url: str, queue: str, rows: int) -> None:
    """Read so many messages."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    decode = msgspec.json.Decoder(list[Order]).decode
    bodies: list[bytes] = []
    seen, began, cpu = 0, 0.0, 0.0
    for method, _, body in channel.consume(queue):
        if not seen and not bodies:
            began, cpu = time.monotonic(), time.process_time()
        bodies.append(body)
        if len(bodies) < BATCH and seen + len(bodies) < rows:
            continue
        orders = decode(b"[" + b",".join(bodies) + b"]")
        n = len(orders)
        price = np.fromiter((order.price for order in orders), np.float64, n)
        score(price, np.fromiter((order.qty for order in orders), np.int64, n))
        channel.basic_ack(method.delivery_tag, multiple=True)
        seen += n
        bodies.clear()
        if seen == rows:
            break
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    channel.connection.close()
    print(json.dumps({"rows": seen, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""How late a row is seen by the two loops that confluent-kafka offers, with the settings of our own consumer.

    python -m benchmarks.peers.confluent_latency SERVERS TOPIC GROUP poll|consume RESULT.npy

``poll``: a message at a time, decoded and scored as it comes. ``consume``: up to 1,000 messages or 2 ms, decoded at
once, scored with NumPy. Runs until SIGTERM, then leaves (produced, done) of every row in monotonic nanoseconds.
"""

from __future__ import annotations

import signal
import sys
import time
from array import array

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message

from benchmarks.data import Order
from benchmarks.scoring import score, score_one
from pythia_fast.brokers.kafka import CONSUMER_DEFAULTS

BATCH = 1000
BATCH_TIMEOUT_S = 0.002
POLL_TIMEOUT_S = 0.1  # how soon SIGTERM is seen; a message ends the wait at once


class Stopped:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def value(message: Message) -> bytes:
    """The payload; an error instead of a message ends the program."""
    if message.error() is not None:
        raise SystemExit(str(message.error()))
    return message.value() or b""


def poll_loop(consumer: Consumer, stopped: Stopped, seen: array[int]) -> None:
    """A message at a time."""
    decode = msgspec.json.Decoder(Order).decode
    while not stopped.asked:
        message = consumer.poll(POLL_TIMEOUT_S)
        if message is not None:
            order = decode(value(message))
            score_one(order.price, order.qty)
            seen.extend((order.ts, time.monotonic_ns()))


def consume_loop(consumer: Consumer, stopped: Stopped, seen: array[int]) -> None:
    """A list of messages at a time."""
    decode = msgspec.json.Decoder(list[Order]).decode
    while not stopped.asked:
        messages = consumer.consume(BATCH, timeout=BATCH_TIMEOUT_S)
        if messages:
            orders = decode(b"[" + b",".join([value(message) for message in messages]) + b"]")
            n = len(orders)
            price = np.fromiter((order.price for order in orders), np.float64, n)
            qty = np.fromiter((order.qty for order in orders), np.int64, n)
            score(price, qty)
            done_ns = time.monotonic_ns()
            for order in orders:
                seen.extend((order.ts, done_ns))


def main(servers: str, topic: str, group: str, how: str, result: str) -> None:
    """Read until SIGTERM."""
    stopped = Stopped()
    consumer = Consumer({**CONSUMER_DEFAULTS, "bootstrap.servers": servers, "group.id": group})
    consumer.subscribe([topic])
    seen: array[int] = array("q")
    {"poll": poll_loop, "consume": consume_loop}[how](consumer, stopped, seen)
    consumer.close()
    np.save(result, np.array(seen, np.int64).reshape(-1, 2))


if __name__ == "__main__":
    main(*sys.argv[1:])

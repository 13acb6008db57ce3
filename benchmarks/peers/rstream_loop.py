"""The best loop there is in Python over a stream of RabbitMQ: rstream, msgspec over one joined array, NumPy.

    python -m benchmarks.peers.rstream_loop PORT USER PASSWORD STREAM ROWS

rstream calls back for each message; its decoder of AMQP 1.0 in Python would take most of the time, so the data section
is cut out here, which is good for messages that have nothing else. Prints {"rows", "seconds", "cpu_seconds"}, from the
first message to the last.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

import msgspec
import numpy as np
from rstream import AMQPMessage, Consumer, ConsumerOffsetSpecification, MessageContext, OffsetType

from benchmarks.data import Order
from benchmarks.scoring import score

BATCH = 4096
SHORT_DATA, LONG_DATA = 5, 8  #: bytes before the payload: the section's number, the type, its size in one byte or four


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Loop:
    def __init__(self, wanted: int) -> None:
        self._decode = msgspec.json.Decoder(list[Order]).decode
        self._wanted = wanted
        self._held: list[bytes] = []
        self.rows = 0
        self.first = self.cpu = 0.0
        self.over = asyncio.Event()

    def __call__(self, message: AMQPMessage | bytes, context: MessageContext) -> None:
        assert isinstance(message, bytes)
        if not self.first:
            self.first, self.cpu = time.monotonic(), cpu_seconds()
        self._held.append(message[SHORT_DATA if message[3] == 0xA0 else LONG_DATA :])
        if len(self._held) == BATCH or self.rows + len(self._held) == self._wanted:
            self._score()

    def _score(self) -> None:
        orders = self._decode(b"[" + b",".join(self._held) + b"]")
        n = len(orders)
        price = np.fromiter((order.price for order in orders), np.float64, n)
        qty = np.fromiter((order.qty for order in orders), np.int64, n)
        score(price, qty)
        self._held.clear()
        self.rows += n
        if self.rows == self._wanted:
            self.over.set()


async def main(port: str, user: str, password: str, stream: str, wanted: str) -> None:
    """Read the whole stream once."""
    loop = Loop(int(wanted))
    consumer = Consumer("127.0.0.1", int(port), username=user, password=password)
    await consumer.start()
    first = ConsumerOffsetSpecification(OffsetType.FIRST)
    await consumer.subscribe(stream, loop, offset_specification=first, initial_credit=50)
    await loop.over.wait()
    seconds, cpu = time.monotonic() - loop.first, cpu_seconds() - loop.cpu
    await consumer.close()
    print(json.dumps({"rows": loop.rows, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

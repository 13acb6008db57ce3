"""The same work as benchmarks/apps/orders.py with what Python brings: a multiprocessing.Pool fed pickled batches.

The parent reads lines and sends lists of 4,096 of them; a pool process decodes them with msgspec to Structs with all
nine fields and scores them with NumPy. Prints {"rows": ..., "seconds": ...}: from the first line to the last result.

usage: multiprocessing_pool.py FILE PROCESSES ROWS message|lines
    message    Decoder(Order).decode for each line
    lines      Decoder(Order).decode_lines for the lines of a batch joined
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
import numpy as np

from benchmarks.data import Order
from benchmarks.scoring import score

BATCH = 4096
DECODER = msgspec.json.Decoder(Order)


def score_orders(orders: list[Order]) -> int:
    """Score decoded orders."""
    price = np.array([order.price for order in orders], np.float64)
    qty = np.array([order.qty for order in orders], np.int64)
    score(price, qty)
    return len(orders)


def by_message(lines: list[bytes]) -> int:
    """Decode a message at a time."""
    decode = DECODER.decode
    return score_orders([decode(line) for line in lines])


def by_lines(lines: list[bytes]) -> int:
    """Decode the lines of a batch in one call."""
    return score_orders(DECODER.decode_lines(b"".join(lines)))


def batches(path: str, rows: int) -> Iterator[list[bytes]]:
    """Lists of lines, ``rows`` lines in all."""
    with open(path, "rb") as file:
        lines = islice(file, rows)
        while batch := list(islice(lines, BATCH)):
            yield batch


def main(path: str, processes: int, rows: int, how: str) -> None:
    """Run the pool once."""
    work = {"message": by_message, "lines": by_lines}[how]
    with multiprocessing.Pool(processes) as pool:
        pool.map(len, [[]] * processes)
        started = time.perf_counter()
        done = sum(pool.imap_unordered(work, batches(path, rows)))
        seconds = time.perf_counter() - started
    print(json.dumps({"rows": done, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

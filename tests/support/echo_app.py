"""An app whose handlers write what they read to another topic, for tests that run it as a user would.

``ECHO_TOPICS``: topics, comma separated, one handler each (``TOPIC`` is read by the handler ``echo-TOPIC``).
``ECHO_TO``, ``ECHO_DEAD``: the topics that results and dead letters go to. ``ECHO_SINK_SERVERS``: their broker.
``ECHO_SECONDS``: how long a batch takes; with ``ECHO_SLOW``, only one that begins with a row of that partition.
``ECHO_LARGE``: ``17:3000`` gives the results of every 17th id about 3,000 bytes that no compression makes smaller.
``ECHO_HANGS``: a call that has this id does not come back.
``ECHO_KILLS``: one that has this id kills its process.
``ECHO_AGAIN``: every so many ids, a row asks for another attempt when it comes first; ``ECHO_RETRY``: arguments of the
RetryPolicy, as JSON.
``ECHO_CALLS``: a file to which every call appends a line: when it began, how many rows it has, and its first id.
``ECHO_ROWS``: of how many rows it is at most.
``ECHO_OPTIONS``: librdkafka options of the consumers, as JSON; ``ECHO_SINK_OPTIONS``: of the producers.
``ECHO_AWAY``: while a file of this name exists, calls of the handler raise ConnectionError: all of them, or with
``ECHO_AWAY_EVERY`` every second, third, ... of a process.
``ECHO_BREAKER``: arguments of a CircuitBreaker, as JSON.
``ECHO_HANDLER``: further options of the handlers, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time

import msgspec
import numpy as np

from pythia_fast import App, Batch, CircuitBreaker, KafkaConsumer, KafkaProducer, RetryPolicy

SINK_SERVERS = os.environ.get("ECHO_SINK_SERVERS") or os.environ["KAFKA_BOOTSTRAP_SERVERS"]
SECONDS = float(os.environ.get("ECHO_SECONDS", "0"))
SLOW = os.environ.get("ECHO_SLOW", "")
LARGE_EVERY, LARGE_BYTES = (int(part) for part in os.environ.get("ECHO_LARGE", "0:0").split(":"))
OPTIONS = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500} | json.loads(os.environ.get("ECHO_OPTIONS", "{}"))
SINK_OPTIONS = json.loads(os.environ.get("ECHO_SINK_OPTIONS", "{}"))
HANGS = int(os.environ.get("ECHO_HANGS") or -1)
KILLS = int(os.environ.get("ECHO_KILLS") or -1)
AGAIN = int(os.environ.get("ECHO_AGAIN") or 0)
CALLS = os.environ.get("ECHO_CALLS", "")
AWAY = os.environ.get("ECHO_AWAY", "")
AWAY_EVERY = int(os.environ.get("ECHO_AWAY_EVERY", "1"))
HANDLER = json.loads(os.environ.get("ECHO_HANDLER", "{}"))
if breaker := os.environ.get("ECHO_BREAKER"):
    HANDLER["breaker"] = CircuitBreaker(**json.loads(breaker))
if retry := os.environ.get("ECHO_RETRY"):
    HANDLER["retry"] = RetryPolicy(**json.loads(retry))


class Row(msgspec.Struct):
    id: int


app = App("echo")
calls = itertools.count(1)


def echo(batch: Batch[Row]) -> dict[str, object]:
    """Every id, with the session of the runtime that handled it."""
    if CALLS:
        with open(CALLS, "a") as told:
            told.write(f"{time.monotonic()} {len(batch)} {batch['id'][0]}\n")
    if KILLS in batch["id"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if HANGS in batch["id"]:
        time.sleep(3600)
    if SECONDS and (not SLOW or batch.positions["partition"][0] == int(SLOW)):
        time.sleep(SECONDS)
    if next(calls) % AWAY_EVERY == 0 and AWAY and os.path.exists(AWAY):
        raise ConnectionError("the service is away")
    ids = batch["id"]
    if AGAIN:
        batch.retry((ids % AGAIN == 0) & (batch.attempts == 0))
    result = {"id": ids, "runtime": np.full(len(ids), os.getsid(0), dtype=np.int64)}
    return result | {"padding": [padding(i) for i in ids.tolist()]} if LARGE_EVERY else result


def padding(i: int) -> str:
    return random.Random(i).randbytes(LARGE_BYTES * 3 // 4).hex() if i % LARGE_EVERY == 0 else ""


for topic in os.environ["ECHO_TOPICS"].split(","):
    app.batch_handler(
        name=f"echo-{topic.strip('^$')}",
        source=KafkaConsumer(topic, options=OPTIONS),
        sink=KafkaProducer(os.environ["ECHO_TO"], bootstrap_servers=SINK_SERVERS, options=SINK_OPTIONS),
        dead_letter=KafkaProducer(os.environ["ECHO_DEAD"], bootstrap_servers=SINK_SERVERS),
        schema=Row,
        batch_size=int(os.environ.get("ECHO_ROWS", "512")),
        **({"ordering": "partition"} | HANDLER),
    )(echo)

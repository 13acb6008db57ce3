"""An app between streams of Redis, for tests that run it as a user would.

``APP_STREAM``, ``APP_TO``: source and sink; ``APP_SECONDS``: how long a batch takes; ``APP_CONSUMER``: its name.
"""

from __future__ import annotations

import os
import time

import msgspec
import numpy as np

from pythia_fast import App, Batch, RedisStreamsConsumer, RedisStreamsProducer

SECONDS = float(os.environ.get("APP_SECONDS", "0"))


class Row(msgspec.Struct):
    id: int


app = App("copy")


@app.batch_handler(
    source=RedisStreamsConsumer(
        os.environ["APP_STREAM"], consumer_name=os.environ.get("APP_CONSUMER") or None, min_idle=1
    ),
    sink=RedisStreamsProducer(os.environ["APP_TO"]),
    dead_letter=RedisStreamsProducer(os.environ["APP_TO"] + "-dead"),
    schema=Row,
    batch_size=512,
    ordering="partition",
)
def copy(batch: Batch[Row]) -> dict[str, object]:
    time.sleep(SECONDS)
    return {"id": batch["id"], "deliveries": batch.delivery_counts.astype(np.int64)}

"""The app of the conformance suite: one handler, whatever its source is.

``CONFORMANCE``: a JSON object:
    source    [class name, positional arguments, options] of a source of pythia_fast
    messages  instead: a file of JSON lines {payload, key, headers, partition}, for a MemoryConsumer
    folder    where results (``NAME.out``) and dead letters (``NAME.dead``) go, and where files are looked for
    name      of this runtime
    handler   further options of the handler
    seconds   how long a batch takes
While ``folder/stall`` exists, the handler waits.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import pythia_fast
from pythia_fast import App, Batch, FileProducer, RetryPolicy
from pythia_fast.brokers.base import Source
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage

SETTINGS = json.loads(os.environ["CONFORMANCE"])
FOLDER = Path(SETTINGS["folder"])
FLAKY_CALLS = 2  #: a flaky row fails that often


class Row(msgspec.Struct):
    id: int
    do: str = ""  #: what happens to the handler that gets it: "raise", "kill", "flaky"
    padding: str = ""


def source() -> Source:
    if messages := SETTINGS.get("messages"):
        lines = [json.loads(line) for line in Path(messages).read_text().splitlines()]
        return MemoryConsumer(
            [
                MemoryMessage(
                    line["payload"].encode(),
                    line["key"].encode(),
                    [(name, value.encode()) for name, value in line["headers"].items()],
                    line["partition"],
                )
                for line in lines
            ],
            partitions=max((line["partition"] for line in lines), default=0) + 1,
            keep_open=SETTINGS["keep_open"],
        )
    name, positional, options = SETTINGS["source"]
    made: Source = getattr(pythia_fast, name)(*positional, **options)
    return made


app = App("conformance")


@app.batch_handler(
    source=source(),
    sink=FileProducer(FOLDER / f"{SETTINGS['name']}.out"),
    dead_letter=FileProducer(FOLDER / f"{SETTINGS['name']}.dead"),
    schema=Row,
    retry=RetryPolicy(max_attempts=4, backoff=0.05, retry_on=(ConnectionError,)),
    **{"batch_size": 64, "ordering": "partition", **SETTINGS.get("handler", {})},
)
def handle(batch: Batch[Row]) -> dict[str, Any]:
    """Every id, with its key, its header and the runtime that handled it."""
    while (FOLDER / "stall").exists():
        time.sleep(0.01)
    time.sleep(SETTINGS.get("seconds", 0))
    ids, orders = batch["id"].tolist(), batch["do"].tolist()
    for number, order in zip(ids, orders, strict=True):
        if order:
            obey(number, order)
    return {
        "id": batch["id"],
        "key": [(key or b"").decode() for key in batch.keys],
        "trace": [(headers.get("trace") or b"").decode() for headers in batch.headers],
        "runtime": np.full(len(batch), os.getsid(0), dtype=np.int64),
    }


def obey(number: int, order: str) -> None:
    if order == "raise":
        raise ValueError(f"row {number} is wrong")
    if order == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # a signal to oneself may come a moment later
    for call in range(FLAKY_CALLS):
        try:
            (FOLDER / f"flaky-{number}-{call}").touch(exist_ok=False)
        except FileExistsError:
            continue
        raise ConnectionError(f"not yet for row {number}")

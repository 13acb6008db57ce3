"""Pool processes killed at random moments, again and again: the output set is the input set."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter

import psutil
import pytest

from pythia_fast import App, MemoryConsumer, MemoryMessage, MemoryProducer

ROWS = 99_999
KILLS = 20


class Killer:
    """Kills one pool process at a time, at random moments, until it has killed enough."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._done = threading.Event()
        self.kills = 0
        self._thread = threading.Thread(target=self._run)

    def started(self, info):
        self._thread.start()

    def sample(self, snapshot):
        pass

    def event(self, text):
        pass

    def finished(self, report):
        self.stop()

    def stop(self):
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self):
        parent = psutil.Process()
        while self.kills < KILLS and not self._done.wait(self._random.uniform(0.02, 0.2)):
            # Whatever is looked at may end meanwhile: processes killed before, and all of them with the run.
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                workers = [child for nursery in parent.children() for child in nursery.children()]
                if workers:
                    os.kill(self._random.choice(workers).pid, signal.SIGKILL)
                    self.kills += 1


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_nothing_is_lost_whoever_is_killed(tmp_path, ordering):
    messages = [MemoryMessage(b"%d" % i, key=b"k%d" % (i % 13), partition=i % 3) for i in range(ROWS)]
    source, sink, dead = MemoryConsumer(messages, partitions=3), MemoryProducer(), MemoryProducer()
    app = App("kills")

    @app.batch_handler(
        source=source,
        sink=sink,
        dead_letter=dead,
        decoder="raw",
        batch_size=50,
        ordering=ordering,
        max_batch_bytes=1000,  # small, so that results are sent in parts and processes die in the middle of that too
        name="slow",
    )
    def slow(batch):
        rows = batch["payload"].tolist()
        sum(i * i for i in range(3000))  # long enough to be killed in
        return [row * 3 for row in rows]

    killer = Killer(seed=7)
    try:
        report = app.run(workers=2, until="end", state_dir=tmp_path, observer=killer)
    finally:
        killer.stop()
    # Chance may kill the holders of one batch twice and then hit the row in hand; it is a dead letter then.
    came = Counter(sink.payloads) + Counter(payload * 3 for payload in dead.payloads)
    assert set(came) == {b"%d" % i * 3 for i in range(ROWS)}
    assert killer.kills > 0
    assert report.crashes >= killer.kills // 2  # a zombie may have been shot again, or a process that was leaving
    assert source.committed == dict.fromkeys(range(3), ROWS // 3)

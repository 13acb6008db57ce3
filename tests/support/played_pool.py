"""For tests of a Kafka source under an intake: the two as they run, and pool processes that the test plays."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from pythia_fast._ext.intake import BLOCKED, CALL, ROOM, STOPPED, Intake
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.raw_decoder import RawDecoder
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.testing.readers import RememberingListener, reader_context
from tests.support.ring_feed import make_arena


class PlayedPool:
    """An intake over a Kafka consumer on a thread of its own, and the processes that take what it publishes."""

    def __init__(
        self,
        servers: str,
        topic: str,
        folder: Path,
        ordering: str,
        *,
        workers: int,
        capacity: int,
        credit: int,
        payload_bytes: int = 64,
    ) -> None:
        self.plan = Plan(None)
        self.decoder = RawDecoder(self.plan)
        self.arena = make_arena(
            self.plan,
            capacity=capacity,
            workers=workers,
            credit=credit,
            slots=workers * (credit + 1) + 4,
            raw_bytes=capacity * payload_bytes,
        )
        consumer = KafkaConsumer(topic, bootstrap_servers=servers, consumer_group="g")
        self.listener = RememberingListener()
        self.reader = consumer.open(reader_context(folder, until="forever", listener=self.listener))
        self.intake = Intake(
            self.arena,
            RawDecoder(self.plan),
            self.reader.native,
            ordering=ordering,
            linger_ns=10_000_000,
            spool_dir=folder,
            max_payload_bytes=payload_bytes,
        )
        self.seen: dict[int, list[int]] = defaultdict(list)  #: offsets, in the order of taking
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        calls = {CALL: self.reader.serve, BLOCKED: self.reader.pause, ROOM: self.reader.resume}
        while (outcome := self.intake.run()) != STOPPED:
            calls[outcome]()

    def work(self, workers: list[int], done: Callable[[], bool], seconds: float = 60) -> None:
        """Have these processes take and complete batches until ``done``."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (self.standing, {p: len(rows) for p, rows in self.seen.items()})
            for worker in workers:
                slot = self.arena.take(worker, 0.005)
                if slot is None:
                    continue
                for partition, _messages, first, after in self.arena.partitions(slot):
                    self.seen[self.listener.table[partition].partition] += range(first, after)
                self.arena.complete(worker, slot, 0, 0, 0, 0, 0, 0, 0)
            for slot in self.arena.collect():
                self.arena.release(slot)

    @property
    def standing(self) -> dict[int, tuple[int, int, bool]]:
        """partition -> (next offset to append, offset that waits or -1, whether it is not fetched)."""
        return {part: (at, held, paused) for _, part, at, _, held, _, paused in self.reader.native.standing()}

    def close(self) -> None:
        self.intake.stop()
        self.thread.join()
        self.reader.close()

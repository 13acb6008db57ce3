"""For tests of the arena: one with an intake over memory, run step by step."""

from __future__ import annotations

from pythia_fast._ext.intake import Intake
from pythia_fast._ext.plan import Plan
from pythia_fast._ext.raw_decoder import RawDecoder
from pythia_fast._ext.ring import Arena
from pythia_fast.brokers.memory import MemoryConsumer


def make_arena(plan: Plan, *, capacity=4, workers=1, credit=2, slots=4, raw_bytes=4096, output_bytes=256) -> Arena:
    return Arena(
        plan,
        capacity=capacity,
        raw_bytes=raw_bytes,
        n_workers=workers,
        credit=credit,
        n_slots=slots,
        output_bytes=output_bytes,
    )


class Feed:
    """An intake over a MemoryConsumer, run step by step."""

    def __init__(
        self,
        tmp_path,
        messages,
        *,
        ordering="unordered",
        linger_ns=0,
        partitions=1,
        max_payload=4096,
        patience_ns=1_000_000_000,
        rows_per_s=0,
        keep_open=False,
        **sizes,
    ):
        self.plan = Plan(None)
        self.decoder = RawDecoder(self.plan)
        self.arena = make_arena(self.plan, **sizes)
        self.consumer = MemoryConsumer(messages, partitions=partitions, keep_open=keep_open)
        self.consumer.log.open()
        self.consumer.log.announced()
        self.intake = Intake(
            self.arena,
            RawDecoder(self.plan),
            self.consumer.log,
            ordering=ordering,
            linger_ns=linger_ns,
            spool_dir=tmp_path,
            max_payload_bytes=max_payload,
            patience_ns=patience_ns,
            rows_per_s=rows_per_s,
        )

    def run(self):
        return self.intake.run()

    def take(self, worker=0, timeout=0.0):
        slot = self.arena.take(worker, timeout)
        assert slot is not None
        assert self.arena.decode(slot, self.decoder)
        return slot

    def close(self):
        self.consumer.log.close()

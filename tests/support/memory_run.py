"""For tests of whole runs between memory sources and sinks."""

from __future__ import annotations

from pythia_fast import App
from pythia_fast.brokers.memory import MemoryConsumer, MemoryProducer


class Events:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.snapshots = []
        self.info = None
        self.report = None

    def started(self, info):
        self.info = info

    def sample(self, snapshot):
        self.snapshots.append(snapshot)

    def event(self, text):
        self.lines.append(text)

    def finished(self, report):
        self.report = report


def run(tmp_path, handler, messages, *, workers=2, partitions=1, observer=None, **options):
    """Run ``handler`` over messages; (report, sink, dead letters, source)."""
    app = App("test")
    source = MemoryConsumer(messages, partitions=partitions)
    sink, dead = MemoryProducer(), MemoryProducer()
    options.setdefault("decoder", "raw")
    app.batch_handler(source=source, sink=sink, dead_letter=dead, name="handler", **options)(handler)
    report = app.run(workers=workers, until="end", state_dir=tmp_path, observer=observer)
    return report, sink, dead, source


def numbers(n: int) -> list[bytes]:
    return [b"%d" % i for i in range(n)]


def echo(batch):
    return batch["payload"].tolist()


def sorted_ints(records) -> list[int]:
    return sorted(int(payload) for payload in records.payloads)

"""A user's script that runs an app, as a process; the parts that it may be put together from."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

PRELUDE = """
    import os, sys, threading, time
    from pythia_fast import App, MemoryConsumer, MemoryProducer
    app = App("tree")
    source = MemoryConsumer([b"%d" % i for i in range(1000)], keep_open="OPEN" in os.environ)
    sink = MemoryProducer()
"""
HANDLER = """
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def echo(batch):
        return batch["payload"].tolist()
"""
MAIN = """
    if __name__ == "__main__":
        class Observer:
            def started(self, info): print("started", os.getpid(), flush=True)
            def sample(self, snapshot): pass
            def event(self, text): print("event", text, flush=True)
            def finished(self, report): print("finished", report.ending, report.rows, report.unfinished, flush=True)
        app.run(workers=2, until="end", observer=Observer(), state_dir=sys.argv[1], drain_timeout=float(sys.argv[2]),
                start_method=sys.argv[3])
        print("rows", len(sink.records), len(set(sink.payloads)), flush=True)
"""


class Script:
    """A user's script, started as a user would, in a session of its own."""

    def __init__(self, folder: Path, *parts: str, method="auto", drain=10.0, **environment: str) -> None:
        self._seen: set[psutil.Process] = set()
        path = folder / "orders.py"
        path.write_text("".join(textwrap.dedent(part) for part in parts))
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(folder / "state"), str(drain), method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def read_until(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if word in line:
                return line
        raise AssertionError(f"no {word!r}: {self.process.stderr.read()}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def tree(self) -> list[psutil.Process]:
        """The processes that it has made, and those that these have made."""
        tree = psutil.Process(self.process.pid).children(recursive=True)
        self._seen.update(tree)
        return tree

    def close(self) -> None:
        """End what a test that failed left of it. Orphans are nobody's children any more: it is known who they were."""
        if self.process.poll() is None:
            self.tree()
            self.process.kill()
        for one in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.communicate()

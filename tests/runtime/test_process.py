"""pool/process.py in whole runs: setup and teardown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_fast.errors import PoolError
from tests.support.memory_run import Events, echo, numbers, run, sorted_ints


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(4), KeyboardInterrupt()], ids=repr)
def test_a_teardown_that_raises_is_told_and_costs_nothing(tmp_path, error):
    class Handler:
        def __call__(self, batch):
            return echo(batch)

        def teardown(self):
            raise error

    events = Events()
    report, sink, dead, source = run(tmp_path, Handler, numbers(100), batch_size=20, observer=events)
    assert sorted_ints(sink) == list(range(100))
    assert dead.records == []
    assert source.committed == {0: 100}
    assert (report.ending, report.rows, report.crashes) == ("done", 100, 0)
    assert events.report == report
    told = sorted(line for line in events.lines if line.startswith("handler: "))
    assert len(told) == 2
    for worker, line in enumerate(told):
        assert line.startswith(f"handler: teardown() raised in process {worker} (pid ")
        assert "raise error" in line
        assert line.splitlines()[-1].startswith(type(error).__name__)


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_an_exit_in_setup_ends_the_run_with_its_traceback(tmp_path, error):
    class Handler:
        def setup(self):
            raise error

        def __call__(self, batch):
            pass

        def teardown(self):
            raise RuntimeError("torn down though it was never set up")

    with pytest.raises(PoolError, match=rf"(?s)in setup.*{type(error).__name__}") as caught:
        run(tmp_path, Handler, numbers(3))
    assert "torn down" not in str(caught.value)


def test_a_process_imports_nothing_for_its_first_batches(tmp_path):
    """Each process that replaces one would, before the rows that wait for it (np.unique imports numpy.ma: 14 ms)."""
    script = tmp_path / "app.py"
    script.write_text(IMPORTS_WATCHED)
    finished = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(finished.stdout) == [["0", ""], ["2", ""], ["3", ""]]


IMPORTS_WATCHED = """
import json
import sys
from pathlib import Path
from pythia_fast import App, MemoryConsumer, MemoryProducer

app = App("imports")
sink, dead = MemoryProducer(), MemoryProducer()
source = MemoryConsumer([b"0", b"1", b"2", b"3"])


@app.batch_handler(source=source, sink=sink, dead_letter=dead, decoder="raw", batch_size=2, batch_timeout=60)
class Watched:
    def setup(self):
        self.loaded = set(sys.modules)

    def __call__(self, batch):
        batch.reject([payload == b"1" for payload in batch["payload"].tolist()], reason="it is one")
        new = set(sys.modules) - self.loaded
        return [f"{payload.decode()} {new or ''}".encode() for payload in batch["payload"].tolist()]


if __name__ == "__main__":
    app.run(workers=1, until="end", state_dir=Path(sys.argv[1]))
    print(json.dumps(sorted(payload.decode().split(" ", 1) for payload in sink.payloads)))
"""

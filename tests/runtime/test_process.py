"""pool/process.py in whole runs: setup and teardown."""

from __future__ import annotations

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

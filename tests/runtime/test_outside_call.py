"""What is raised in a pool process outside the handler's call costs that process, and nobody else."""

from __future__ import annotations

import _thread
import signal

import pytest

from pythia_fast import App, DeadLetterLimit, MemoryConsumer, MemoryProducer
from pythia_fast.errors import HandlerError
from pythia_fast.pool import process, rows
from pythia_fast.pool.restart_budget import DEATHS_IN_VAIN
from tests.support.memory_run import Events, echo, numbers, run, sorted_ints

DEATH = "met an exception outside the handler's call"


class Late(Exception):
    """Raised by a signal handler."""


def raise_late(*_):
    raise Late("the call took too long")


def headers_of(record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def traced(lines) -> list[str]:
    """The traceback of the first death that was told."""
    return next(line for line in lines if DEATH in line).splitlines()[1:]


class Loader:
    @staticmethod
    def get_source(name: str) -> str:
        raise SystemExit(4)


def test_a_loader_that_raises_while_a_traceback_is_made_costs_the_row_alone(tmp_path):
    code = compile("raise ValueError('bad row')", "nowhere.py", "exec")

    def handler(batch):
        rows = [int(payload) for payload in batch["payload"].tolist()]
        if 7 in rows:
            exec(code, {"__loader__": Loader(), "__name__": "nowhere"})  # the frame it is to have
        return [b"%d" % row for row in rows]

    report, sink, dead, _ = run(tmp_path, handler, numbers(20), batch_size=10, workers=1)
    assert sorted_ints(sink) == [row for row in range(20) if row != 7]
    headers = headers_of(dead.records[0])
    assert headers["pf-reason"] == "ValueError: bad row"
    assert 'File "nowhere.py", line 1, in <module>\nValueError: bad row\n' in headers["pf-traceback"]
    assert report.crashes == 0


def test_an_alarm_that_rings_when_the_handler_is_back_ends_its_process_and_other_handlers_go_on(tmp_path):
    app = App("test")
    source, sink = MemoryConsumer([b"1"], keep_open=True), MemoryProducer()
    other_source, other_sink = MemoryConsumer(numbers(100), keep_open=True), MemoryProducer()

    @app.batch_handler(source=source, sink=sink, decoder="raw", name="alarmed")
    def alarmed(batch):
        if b"1" in batch["payload"].tolist():
            signal.signal(signal.SIGALRM, raise_late)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        return echo(batch)

    app.batch_handler(source=other_source, sink=other_sink, decoder="raw", name="other")(echo)

    class GoesOn(Events):
        def event(self, text):
            super().event(text)
            if DEATH in text:  # nothing is sent before the process is dead
                source.send(b"2")
                source.end()
                other_source.send(b"100")
                other_source.end()

    events = GoesOn()
    report = app.run(workers=2, until="end", state_dir=tmp_path, observer=events)
    assert sorted_ints(sink) == [1, 2]
    assert sorted_ints(other_sink) == list(range(101))
    assert {part.name: part.crashes for part in report.handlers} == {"alarmed": 1, "other": 0}
    assert traced(events.lines)[-1].endswith("Late: the call took too long")
    assert any("in raise_late" in line for line in traced(events.lines))


class InterruptedFirst(rows.RowKeeper):
    """Interrupted where the second batch would be decoded, in the first process: its handler asked for that before."""

    def handle(self, slot):
        if self._arena.crashes(slot) == 0 and self._arena.facts(slot).batch == 2:
            _thread.interrupt_main()
        return super().handle(slot)


def interruptible(batch):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return echo(batch)


def test_an_interrupt_while_a_batch_is_decoded_has_it_handled_again(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RowKeeper", InterruptedFirst)
    events = Events()
    report, sink, dead, source = run(
        tmp_path, interruptible, numbers(40), batch_size=10, batch_timeout=60, workers=1, observer=events
    )
    assert sorted_ints(sink) == list(range(40))
    assert (dead.records, report.crashes, source.committed) == ([], 1, {0: 40})
    (line,) = (line for line in events.lines if DEATH in line)
    assert "(KeyboardInterrupt; exit code 4); its batches are handled again:\n" in line
    assert "in handle\n" in line


class InterruptedAlways(rows.RowKeeper):
    """Interrupted before each batch."""

    def handle(self, slot):
        _thread.interrupt_main()
        return super().handle(slot)


class Interruptible:
    def setup(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self, batch):
        return echo(batch)


def test_an_exception_that_comes_with_every_batch_pauses_the_handler_and_ends_a_bounded_run(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RowKeeper", InterruptedAlways)
    events = Events()
    app = App("test")
    source = MemoryConsumer(numbers(100))
    limit = DeadLetterLimit(pause=0.01, max_pause=0.02, probes=1)
    app.batch_handler(source=source, sink=MemoryProducer(), decoder="raw", name="handler", dead_letter_limit=limit)(
        Interruptible
    )
    with pytest.raises(HandlerError, match=rf"'handler' got nowhere: .* \(the last {DEATH} \(KeyboardInterrupt; "):
        app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    told = [line for line in events.lines if DEATH in line and "reading is paused" not in line]
    assert traced(told)[-1] == "KeyboardInterrupt"
    assert "in handle\n" in told[0]
    assert all("by now at the same place; its batches are handled again" in line for line in told[1:])
    assert len(told) > DEATHS_IN_VAIN
    assert source.committed == {0: 0}


class Untouchable(Exception):
    def __getattribute__(self, name):
        raise SystemExit("hands off")


def test_a_row_whose_exception_cannot_be_looked_at_is_found_as_one_that_kills(tmp_path):
    def handler(batch):
        if b"7" in batch["payload"].tolist():
            raise Untouchable
        return echo(batch)

    report, sink, dead, _ = run(tmp_path, handler, numbers(20), batch_size=10, workers=1)
    assert sorted_ints(sink) == [row for row in range(20) if row != 7]
    assert (dead.payloads, report.dead_lettered) == ([b"7"], 1)
    headers = headers_of(dead.records[0])
    assert f"({DEATH} (SystemExit: hands off; exit code 4))" in headers["pf-reason"]
    assert "in __getattribute__\n" in headers["pf-traceback"]
    assert headers["pf-traceback"].endswith("SystemExit: hands off\n")

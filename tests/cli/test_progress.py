"""pythia_fast.cli.progress: what is shown of a run, on a terminal and off it."""

import io

import pytest
from rich.console import Console

from pythia_fast.cli.progress import Display, LineDisplay, LiveDisplay, Observers, Recorder, make_display
from pythia_fast.observer import FlowState, HandlerInfo, ProcessSample, RunInfo, Snapshot
from pythia_fast.report import RunReport

INFO = RunInfo(
    app="orders",
    workers=2,
    handlers=(HandlerInfo(name="score", source="file a.ndjson", sink="file out", workers=2),),
)


def snapshot(seconds: float, rows: int, **more: object) -> Snapshot:
    processes = [ProcessSample("runtime", 11, 72.4, 80.0), ProcessSample("worker 0", 12, 98.0, 64.0)]
    return Snapshot(
        seconds=seconds,
        rows=rows,
        bytes=rows * 177,
        batches_in_flight=3,
        processes=processes,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_live_display_shows_every_promised_figure(terminal: Console) -> None:
    display = LiveDisplay(terminal)
    display.started(INFO)
    try:
        display.sample(snapshot(2.0, 4_000_000, progress=(400, 1000)))
        seen = shown(terminal)
    finally:
        display.close()
    for text in (
        "score: file a.ndjson → file out, 2 workers",
        "40%",
        "4,000,000 rows",
        "2.00 M rows/s",
        "354 MB/s",
        "3 batches in flight",
        "runtime",
        "pid 12",
        "98 % CPU",
        "64 MB",
    ):
        assert text in seen
    assert "refused" not in seen


def test_live_display_shows_losses_and_trouble(terminal: Console) -> None:
    display = LiveDisplay(terminal)
    trouble = ["sink orders: no broker at 127.0.0.1:9 yet"]
    terminal.print(display.render(snapshot(1.0, 10, refused=2, crashes=1, transactions_aborted=3, trouble=trouble)))
    seen = shown(terminal)
    assert "refused 2  crashes 1  aborted transactions 3" in seen
    assert "waiting: sink orders: no broker" in seen
    assert "rejected" not in seen


def test_live_display_shows_what_holds_a_source_back(terminal: Console) -> None:
    flow = [FlowState("score", "rate limited", ""), FlowState("other", "open", "closed")]
    terminal.print(LiveDisplay(terminal).render(snapshot(1.0, 10, flow=flow)))
    assert "score rate limited" in shown(terminal)
    assert "other" not in shown(terminal)


def test_brackets_in_names_are_not_markup(terminal: Console) -> None:
    display = LiveDisplay(terminal)
    display.event("file [bold]x[/bold] rotated")
    terminal.print(display.render(snapshot(1.0, 10, trouble=["[red]x"])))
    assert "[bold]x[/bold]" in shown(terminal)
    assert "[red]x" in shown(terminal)


def test_live_display_gives_the_terminal_back(terminal: Console) -> None:
    display = LiveDisplay(terminal)
    display.started(INFO)
    display.sample(snapshot(1.0, 10))
    assert "\x1b[?25l" in shown(terminal)  # cursor hidden
    display.finished(RunReport())
    display.close()
    assert shown(terminal).rstrip().endswith(("\x1b[?25h", "\x1b[1A\x1b[2K", "\x1b[2K"))
    assert shown(terminal).count("\x1b[?25h") == 1


def test_lines_come_every_few_seconds_only() -> None:
    stream = io.StringIO()
    display = LineDisplay(stream, every_s=5.0)
    display.started(INFO)
    for tick in range(1, 61):  # twelve seconds
        display.sample(snapshot(tick / 5, tick * 200_000))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1] == (
        "0:05  5,000,000 rows  1.00 M rows/s  177 MB/s  3 batches in flight  CPU runtime 72 % worker 0 98 %"
    )
    assert lines[2].startswith("0:10  10,000,000 rows")


def test_trouble_is_told_once_until_it_changes() -> None:
    stream = io.StringIO()
    display = LineDisplay(stream)
    for trouble in ([], ["no broker"], ["no broker"], [], ["no broker"]):
        display.sample(snapshot(1.0, 1, trouble=trouble))
    assert stream.getvalue() == "waiting: no broker\n" * 2


def test_events_are_lines() -> None:
    stream = io.StringIO()
    LineDisplay(stream).event("worker 1 was killed by signal 9 and is replaced")
    assert stream.getvalue() == "worker 1 was killed by signal 9 and is replaced\n"


def test_display_is_chosen_by_the_stream() -> None:
    assert isinstance(make_display(stream=io.StringIO()), LineDisplay)
    quiet = make_display(quiet=True, stream=io.StringIO())
    assert type(quiet) is Display


def test_a_quiet_display_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    quiet = make_display(quiet=True)
    quiet.started(INFO)
    quiet.sample(snapshot(60.0, 1))
    quiet.event("x")
    quiet.finished(RunReport())
    assert capfd.readouterr() == ("", "")


def test_observers_are_told_in_turn() -> None:
    first, second = Recorder(), Recorder()
    stream = io.StringIO()
    all_of_them = Observers([first, second, LineDisplay(stream)])
    all_of_them.started(INFO)
    one = snapshot(0.2, 5)
    all_of_them.sample(one)
    all_of_them.event("hello")
    all_of_them.finished(RunReport())
    assert first.samples == second.samples == [one]
    assert stream.getvalue().splitlines()[-1] == "hello"


def test_observers_are_sampled_as_often_as_one_of_them_asks() -> None:
    assert Observers([LineDisplay(io.StringIO()), Recorder(0.05)]).sample_interval_s == 0.05
    assert Observers([LineDisplay(io.StringIO())]).sample_interval_s == 0.2

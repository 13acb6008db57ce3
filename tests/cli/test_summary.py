"""pythia_fast.cli.summary: the table after a run."""

import io

from rich.console import Console

from pythia_fast.cli.summary import dead_letter_lines, summary_tables
from pythia_fast.report import HandlerReport, RunReport


def text_of(report: RunReport) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    for table in summary_tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_every_figure_has_a_row() -> None:
    report = RunReport(
        app="orders",
        rows=5_000_000,
        batches=1_221,
        seconds=0.5,
        bytes=885_000_000,
        rejected=31,
        dead_lettered=33,
        refused=2,
        retried=4,
        crashes=1,
        cpu_seconds=1.5,
        peak_rss_mb=210.4,
        workers=2,
        handlers=(HandlerReport(name="score", rows=5_000_000),),
    )
    lines = text_of(report)
    assert lines[0] == "orders: done: the sources ended"
    for line in (
        "rows 5,000,000",
        "batches 1,221",
        "seconds 0.50",
        "rows/s 10.0 M",
        "MB/s 1,770",
        "CPU-seconds per million rows 0.30",
        "peak memory of all processes, MB 210",
        "refused by the decoder 2",
        "rejected by the handler 31",
        "retried 4",
        "dead-lettered 33",
        "crashed processes 1",
    ):
        assert line in lines
    assert not any("unfinished" in line for line in lines)


def test_pauses_are_told_where_there_were_some() -> None:
    assert "pauses of the source 2" in text_of(RunReport(pauses=2))
    assert not [line for line in text_of(RunReport()) if "pauses" in line]


def test_damaged_files_are_told_where_there_were_some() -> None:
    assert "bytes of damaged files, not read 1,234" in text_of(RunReport(unread_bytes=1234))
    assert not [line for line in text_of(RunReport()) if "damaged" in line]


def test_aborted_transactions_are_told_where_there_were_some() -> None:
    assert "transactions aborted, their rows read again 2" in text_of(RunReport(transactions=9, transactions_aborted=2))
    lines = text_of(RunReport(transactions=9))
    assert "transactions committed 9" in lines
    assert not [line for line in lines if "aborted" in line]


def test_several_handlers_have_a_row_each_with_the_counts_that_there_are() -> None:
    handlers = (
        HandlerReport(name="score", rows=7, batches=2, workers=1, rejected=3),
        HandlerReport(name="archive", rows=5, batches=1, workers=2),
    )
    lines = text_of(RunReport(app="orders", rows=12, batches=3, workers=3, rejected=3, handlers=handlers))
    assert "rows 12" in lines
    assert "worker processes 3" in lines
    assert "handler rows batches workers rejected" in lines
    assert "score 7 2 1 3" in lines
    assert "archive 5 1 2 0" in lines


def test_twenty_handlers_fit() -> None:
    handlers = tuple(HandlerReport(name=f"handler_{number}", rows=1_000_000 + number) for number in range(20))
    lines = text_of(RunReport(rows=20_000_190, handlers=handlers))
    for handler in handlers:
        assert f"{handler.name} {handler.rows:,} 0 0" in lines


def test_work_left_is_told() -> None:
    lines = text_of(RunReport(app="orders", ending="deadline", unfinished=4096))
    assert lines[0] == "orders: stopped with work left"
    assert "unfinished, read again next time 4,096" in lines


def test_where_the_dead_letters_are_is_told_of_each_handler_that_has_some() -> None:
    file = HandlerReport(name="score", dead_letters=("file .pythia/orders/dead-letters/score.ndjson",))
    none = HandlerReport(name="archive")
    assert dead_letter_lines(RunReport(handlers=(file,))) == [
        "dead letters: file .pythia/orders/dead-letters/score.ndjson"
    ]
    assert dead_letter_lines(RunReport(handlers=(file, none))) == [
        "dead letters of score: file .pythia/orders/dead-letters/score.ndjson"
    ]

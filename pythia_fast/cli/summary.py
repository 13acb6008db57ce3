"""The table after a run, and what it leaves to look at."""

from __future__ import annotations

from rich import box
from rich.table import Table

from pythia_fast.cli.figures import short
from pythia_fast.report import RunReport

#: From this age on the row that was in hand for longest is told of.
SHOWN_AGE_S = 5.0

_ENDINGS = {
    "done": "done: the sources ended",
    "drained": "drained: everything that was read is finished",
    "deadline": "stopped with work left",
    "killed": "stopped at once by a second signal",
    "failed": "failed",
}


def summary_table(report: RunReport) -> Table:
    """What the run did, one figure a row; a column for each handler where there are several."""
    several = len(report.handlers) > 1
    title = f"{report.app or 'run'}: {_ENDINGS[report.ending]}"
    look = box.SIMPLE_HEAD if several else box.SIMPLE
    table = Table(title=title, title_justify="left", title_style="bold", box=look, show_header=several)
    table.add_column("")
    table.add_column("in all" if several else "", justify="right")
    for handler in report.handlers if several else ():
        table.add_column(handler.name, justify="right")

    def counts(label: str, field: str) -> None:
        parts = [f"{getattr(handler, field):,}" for handler in report.handlers] if several else []
        table.add_row(label, f"{getattr(report, field):,}", *parts)

    counts("rows", "rows")
    counts("batches", "batches")
    table.add_row("seconds", f"{report.seconds:.2f}")
    table.add_row("rows/s", short(report.rows_per_second))
    table.add_row("MB/s", f"{report.mb_per_second:,.0f}")
    table.add_row("CPU-seconds", f"{report.cpu_seconds:.2f}")
    table.add_row("CPU-seconds per million rows", f"{report.cpu_seconds_per_million:.2f}")
    table.add_row("peak memory of all processes, MB", f"{report.peak_rss_mb:,.0f}")
    counts("worker processes", "workers")
    for label, field in (
        ("refused by the decoder", "refused"),
        ("rejected by the handler", "rejected"),
        ("retried", "retried"),
        ("dead-lettered", "dead_lettered"),
        ("crashed processes", "crashes"),
        ("recycled processes", "recycled"),
    ):
        counts(label, field)
    if report.unread_bytes:
        counts("bytes of damaged files, not read", "unread_bytes")
    if report.pauses:
        counts("pauses of the source", "pauses")
    if report.transactions or report.transactions_aborted:
        counts("transactions committed", "transactions")
    if report.transactions_aborted:
        counts("transactions aborted, their rows read again", "transactions_aborted")
    if report.longest_incomplete_s >= SHOWN_AGE_S:
        table.add_row("longest that a row was in hand, seconds", f"{report.longest_incomplete_s:,.1f}")
    if report.unfinished:
        table.add_row("unfinished, read again next time", f"{report.unfinished:,}")
        table.add_row("oldest of them, seconds", f"{report.oldest_incomplete_s:,.1f}")
    return table


def dead_letter_lines(report: RunReport) -> list[str]:
    """Where the dead letters of the run are, a line for each handler that has some."""
    several = len(report.handlers) > 1
    return [
        f"dead letters{f' of {handler.name}' if several else ''}: {', '.join(handler.dead_letters)}"
        for handler in report.handlers
        if handler.dead_letters
    ]

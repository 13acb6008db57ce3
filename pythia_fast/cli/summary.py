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


#: (label in the run's table, heading in that of its handlers, field of both reports), where there is always a row.
_COUNTS = (
    ("refused by the decoder", "refused", "refused"),
    ("rejected by the handler", "rejected", "rejected"),
    ("retried", "retried", "retried"),
    ("dead-lettered", "dead-lettered", "dead_lettered"),
    ("crashed processes", "crashed", "crashes"),
    ("recycled processes", "recycled", "recycled"),
)
#: The same where there is a row only for a count above 0.
_SELDOM = (
    ("tombstones skipped", "tombstones", "tombstones_skipped"),
    ("bytes of damaged files, not read", "bytes not read", "unread_bytes"),
    ("pauses of the source", "pauses", "pauses"),
    ("transactions committed", "transactions", "transactions"),
    ("transactions aborted, their rows read again", "aborted", "transactions_aborted"),
)


def summary_tables(report: RunReport) -> list[Table]:
    """What the run did, one figure a row, and where it had several handlers a table of them, with a row for each."""
    table = Table(
        title=f"{report.app or 'run'}: {_ENDINGS[report.ending]}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        show_header=False,
    )
    table.add_column("")
    table.add_column("", justify="right")

    def count(label: str, field: str) -> None:
        table.add_row(label, f"{getattr(report, field):,}")

    count("rows", "rows")
    count("batches", "batches")
    table.add_row("seconds", f"{report.seconds:.2f}")
    table.add_row("rows/s", short(report.rows_per_second))
    table.add_row("MB/s", f"{report.mb_per_second:,.0f}")
    table.add_row("CPU-seconds", f"{report.cpu_seconds:.2f}")
    table.add_row("CPU-seconds per million rows", f"{report.cpu_seconds_per_million:.2f}")
    table.add_row("peak memory of all processes, MB", f"{report.peak_rss_mb:,.0f}")
    count("worker processes", "workers")
    for label, _, field in _COUNTS:
        count(label, field)
    for label, _, field in _SELDOM:
        if getattr(report, field):
            count(label, field)
    if report.longest_incomplete_s >= SHOWN_AGE_S:
        table.add_row("longest that a row was in hand, seconds", f"{report.longest_incomplete_s:,.1f}")
    if report.unfinished:
        table.add_row("unfinished, read again next time", f"{report.unfinished:,}")
        table.add_row("oldest of them, seconds", f"{report.oldest_incomplete_s:,.1f}")
    return [table] if len(report.handlers) < 2 else [table, _handlers_table(report)]


def _handlers_table(report: RunReport) -> Table:
    """A row for each handler; a count that none of them has is left out, so that the names find room."""
    found = [
        (heading, field)
        for _, heading, field in (*_COUNTS, *_SELDOM)
        if any(getattr(handler, field) for handler in report.handlers)
    ]
    columns = [("rows", "rows"), ("batches", "batches"), ("workers", "workers"), *found]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("handler", overflow="fold")
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    for handler in report.handlers:
        table.add_row(handler.name, *(f"{getattr(handler, field):,}" for _, field in columns))
    return table


def dead_letter_lines(report: RunReport) -> list[str]:
    """Where the dead letters of the run are, a line for each handler that has some."""
    several = len(report.handlers) > 1
    return [
        f"dead letters{f' of {handler.name}' if several else ''}: {', '.join(handler.dead_letters)}"
        for handler in report.handlers
        if handler.dead_letters
    ]

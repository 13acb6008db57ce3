"""``demo``: millions of JSON orders through a handler, on this machine."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.run import Quiet, ReportPath, Workers
from pythia_fast.cli.running import path_value, rows_value, run_app, workers_of
from pythia_fast.cli.telling import shown_on
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from pythia_fast.cli.progress import Recorder
    from pythia_fast.report import RunReport

Rows = Annotated[int, typer.Option("--rows", metavar="N", parser=rows_value, help="orders to generate")]
Output = Annotated[
    Path, typer.Option("--output", metavar="DIR", parser=path_value, help="where orders, report and plot are kept")
]


def demo(
    rows: Rows = 5_000_000,
    workers: Workers = "auto",
    output: Output = Path("demo-output"),
    report: ReportPath = None,
    quiet: Quiet = False,
) -> int:
    """Generate JSON orders once, score them in a pool of processes, draw the throughput.

    \b
    Examples:
      python -m pythia_fast demo
      python -m pythia_fast demo --rows 20000000 --workers 4 --output /tmp/demo
    """
    from pythia_fast import FileConsumer
    from pythia_fast.cli.progress import Recorder
    from pythia_fast.demo.orders import app
    from pythia_fast.runtime.state_dir import prepare_folder

    console = shown_on(sys.stderr, quiet=quiet)
    prepare_folder(output, "orders, report and plot", "--output")
    path = order_file(output, rows, console)
    source = FileConsumer(path=path, consumer_group="demo")
    app.handlers["score"] = replace(app.handlers["score"], source=source)
    recorder = Recorder(sample_interval_s=0.05)  # the demo is over in a second; the plot wants points
    # A state folder of its own: with the checkpoint of an earlier demo there would be nothing left to read.
    with tempfile.TemporaryDirectory(prefix="state-", dir=output) as state_dir:
        code, result = run_app(
            app,
            workers=workers_of(workers),
            until="end",
            state_dir=Path(state_dir),
            report_path=report or output / "report.json",
            quiet=quiet,
            observers=[recorder],
        )
    if code == ExitCode.DONE:
        plot(output / "throughput.png", recorder, result, console)
    return code


def order_file(output: Path, rows: int, console: Console) -> Path:
    """The file of orders, generated behind a progress bar unless it is there."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from pythia_fast.demo.order_file import is_whole, order_file_name, write_order_file

    found = output / order_file_name(rows, seed=1)
    if found.exists() and is_whole(found, rows):
        console.print(
            f"orders: {found}, {found.stat().st_size / 1e6:,.0f} MB, generated before", highlight=False, markup=False
        )
        return found
    bar = Progress(
        TextColumn("generating {task.completed:,} of {task.total:,} orders"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet,
    )
    with bar:
        task = bar.add_task("", total=rows)
        try:
            path = write_order_file(output, rows, tell=lambda done: bar.update(task, completed=done))
        except OSError as error:
            raise ConfigError(
                f"cannot write the orders to {output}: {error.strerror}; choose another folder with --output"
            ) from None
    console.print(f"orders: {path}, {path.stat().st_size / 1e6:,.0f} MB", highlight=False, markup=False)
    return path


def plot(path: Path, recorder: Recorder, report: RunReport, console: Console) -> None:
    """Draw the throughput; where that cannot be done, say why and go on."""
    from pythia_fast.cli.plot import write_plot

    title = f"{report.rows:,} JSON orders, {report.workers} worker processes"
    try:
        write_plot(path, recorder.samples, report, title)
    except ConfigError as error:
        console.print(f"no plot: {error}", highlight=False, markup=False)
    else:
        console.print(f"plot: {path}", highlight=False, markup=False)

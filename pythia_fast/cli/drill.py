"""``drill``: a fault on purpose while the app runs, and an account of every row."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.run import Workers
from pythia_fast.cli.running import path_value, rows_value, some_seconds_value, workers_of
from pythia_fast.cli.telling import shown_on, tell
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from pythia_fast.drill.faults import Fault
    from pythia_fast.drill.result import DrillResult
    from pythia_fast.drill.runner import Plan
    from pythia_fast.registration import Handler

DEMO = "pythia_fast.demo.orders:app"

FaultName = Annotated[
    str,
    typer.Argument(
        metavar="FAULT",
        help="sigsegv, kill, hang, oom, raise, disk-full, parent-kill, broker-cut, slow-broker, rebalance, or all",
    ),
]
Target = Annotated[
    str | None, typer.Option("--app", metavar="MODULE:APP", help="whose handler is drilled; else the demo's")
]
HandlerName = Annotated[
    str | None, typer.Option("--handler", metavar="NAME", help="which handler, if the app has several")
]
Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", parser=path_value, help="messages for the handler, one a line"),
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows", metavar="N", parser=rows_value, help="messages to send; those of FILE are repeated as often as needed"
    ),
]
Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        help="brokers for broker-cut, slow-broker and rebalance; else KAFKA_BOOTSTRAP_SERVERS",
    ),
]
Deadline = Annotated[
    float,
    typer.Option(
        "--deadline",
        metavar="S",
        parser=some_seconds_value,
        help="batch_deadline in drill hang, where the handler has none",
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience", metavar="S", parser=some_seconds_value, help="give up a run that settles no row for S seconds"
    ),
]
Output = Annotated[
    Path, typer.Option("--output", metavar="DIR", parser=path_value, help="where a drill keeps what it works with")
]


def drill(
    fault: FaultName,
    app: Target = None,
    handler: HandlerName = None,
    input_file: Input = None,
    input_format: Annotated[
        Literal["ndjson", "msgpack-frames"], typer.Option("--input-format", help="of --input")
    ] = "ndjson",
    rows: Rows = None,
    workers: Workers = "auto",
    bootstrap_servers: Servers = None,
    deadline: Deadline = 2.0,
    patience: Patience = 60.0,
    output: Output = Path("drill-output"),
    keep: Annotated[bool, typer.Option("--keep", help="keep the folder of a drill that passed, too")] = False,
    json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> int:
    """Do a fault on purpose to a handler that runs, and count every row. Exit code 1 when a promise is broken, 6
    when the fault did not come or was not felt (too few rows, say), 2 to 4 when a drill could not begin.

    The handler is the user's own, its source and its sinks are the drill's: nothing of the app's is read but messages
    in files, and nothing is written but to DIR and, for the drills that need Kafka, topics pythia-fast-drill-*, which
    are removed again. docs/drills.md says what each drill does, and how rows are counted.

    \b
    Examples:
      python -m pythia_fast drill sigsegv
      python -m pythia_fast drill all --json
      python -m pythia_fast drill kill --app orders:app --input orders.ndjson
      python -m pythia_fast drill broker-cut --bootstrap-servers localhost:9092
    """
    from pythia_fast.drill.faults import chosen_faults
    from pythia_fast.drill.result import result_lines, results_json
    from pythia_fast.drill.rows import LEAST_ROWS

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)  # topics are removed and runs ended, as at Ctrl-C
    faults = chosen_faults(fault)
    console = shown_on(sys.stderr, quiet=quiet)
    loaded = chosen(app, handler)
    options = kafka_options(loaded, bootstrap_servers)
    faults, sentences = possible(faults, loaded, options is not None, all_of_them=fault == "all")
    if bootstrap_servers is None and options is not None and any(each.kafka for each in faults):
        sentences.append(f"drill: topics of its own at {options['bootstrap.servers']}, of KAFKA_BOOTSTRAP_SERVERS")
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
    plan = make_plan(
        app or DEMO, loaded, input_file, input_format, rows, output,
        workers=workers_of(workers), batch_deadline=deadline, patience_s=patience, kafka_options=options,
    )  # fmt: skip
    if rows is None and plan.rows < LEAST_ROWS:
        sentence = f"drill: {plan.rows:,} rows, because the samples are repeated to 64 MB at most; --rows asks for more"
        console.print(sentence, highlight=False, markup=False)
    results = []
    for each in faults:
        result = play(plan, each, output, console, keep=keep)
        results.append(result)
        if not json:
            print("\n".join(result_lines(result)), flush=True)
    if json:
        print(results_json(results))
    elif len(results) > 1:
        print(f"{sum(result.passed for result in results)} of {len(results)} drills passed")
    return code_of(results)


def code_of(results: list[DrillResult]) -> ExitCode:
    """What the command ends with: the worst of them, which are numbered from the worst on."""
    return min((result.exit_code for result in results if result.exit_code), default=ExitCode.DONE)


def chosen(app: str | None, handler: str | None) -> Handler:
    """The handler to drill."""
    from pythia_fast.cli.replay import chosen_handler
    from pythia_fast.cli.target import load_app

    loaded = load_app(app or DEMO)
    return loaded.handlers[chosen_handler(loaded, handler)]


def kafka_options(handler: Handler, servers: str | None) -> dict[str, str] | None:
    """How to reach the brokers: as the handler's source does, if that is Kafka; None: no broker was given.

    Those of the environment are given, unless the source has others: these nobody named for a drill.
    """
    from pythia_fast.drill.brokers import options_at, source_options

    if servers is None:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not servers or source_options(handler).get("bootstrap.servers", servers) != servers:
            return None
    return options_at(handler, servers)


def possible(
    faults: list[Fault], handler: Handler, brokers: bool, *, all_of_them: bool
) -> tuple[list[Fault], list[str]]:
    """The drills that can be done, and a sentence for each that ``all`` leaves out. Raises ConfigError for one."""
    kept, sentences = [], []
    for fault in faults:
        why = ""
        if fault.kafka and not brokers:
            why = (
                "it needs brokers, on which it makes topics of its own: give --bootstrap-servers HOST:PORT, or set "
                "KAFKA_BOOTSTRAP_SERVERS where the handler's source does not name others"
            )
        elif fault.name == "raise" and handler.on_error == "stop":
            why = f"handler {handler.name!r} has on_error='stop': an exception ends the run, as it was asked to"
        if not why:
            kept.append(fault)
        elif all_of_them:
            sentences.append(f"drill {fault.name} is left out: {why}")
        else:
            raise ConfigError(f"drill {fault.name}: {why}")
    return kept, sentences


def make_plan(
    target: str,
    handler: Handler,
    input_file: Path | None,
    input_format: Literal["ndjson", "msgpack-frames"],
    rows: int | None,
    output: Path,
    **others: object,
) -> Plan:
    """What all drills have in common; the messages are read here."""
    from pythia_fast.brokers.file import FileConsumer
    from pythia_fast.drill.rows import DEMO_ROWS, demo_payloads, rows_of_samples, sample_payloads
    from pythia_fast.drill.runner import Plan
    from pythia_fast.runtime.state_dir import prepare_folder

    prepare_folder(output, "what a drill works with", "--output")
    if target == DEMO and input_file is None:
        rows = rows or DEMO_ROWS
        payloads = demo_payloads(output, rows)
    else:
        payloads = sample_payloads(handler, input_file, input_format)
        rows = rows or rows_of_samples(payloads)
        if input_file is None and isinstance(handler.source, FileConsumer) and handler.source.format != "ndjson":
            input_format = "msgpack-frames"
    return Plan(target, handler, payloads, rows, input_format, **others)  # type: ignore[arg-type]  # they are Plan's own


def play(plan: Plan, fault: Fault, output: Path, console: Console, *, keep: bool) -> DrillResult:
    """One drill, behind a progress bar."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pythia_fast.drill.runner import run_drill
    from pythia_fast.drill.scenarios import SCENARIOS

    bar = Progress(
        TextColumn(f"drill {fault.name}: {fault.does}"),
        BarColumn(),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet or not console.is_terminal,
        transient=True,
    )
    folder = output / f"{fault.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    with bar:
        task = bar.add_task("", total=plan.rows)
        return run_drill(
            plan,
            fault,
            folder,
            lambda rows: bar.update(task, completed=rows),
            SCENARIOS[fault.name],
            keep=keep,
            tell=tell,
        )

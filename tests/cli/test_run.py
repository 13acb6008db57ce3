"""``python -m pythia_fast run`` as a user types it: in a process of its own, with real pool processes."""

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.report import RunReport
from tests.support.command_line import ENVIRONMENT, HEAD, TWO_HANDLERS, command, processes_in, run, running

#: A handler that says that it runs and then waits for a file that never comes, unless told to go on.
WAITING = (
    HEAD
    + """
import os, time
source = MemoryConsumer([b'{"price":1,"qty":1}'] * 10, keep_open=True)

@app.batch_handler(source=source, schema=Order, batch_size=10)
def wait(batch: Batch[Order]) -> None:
    print("in the handler", flush=True)
    while WAIT:
        time.sleep(0.01)
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with ten orders, where commands run; whatever they leave running is a failure."""
    lines = [json.dumps({"price": 1.5, "qty": qty}) for qty in range(10)]
    (tmp_path / "orders.ndjson").write_text("\n".join(lines) + "\n")
    yield tmp_path
    assert processes_in(tmp_path) == []


@pytest.fixture
def mounted(project: Path) -> Iterator[Callable[[str, str], None]]:
    """Mounts a small file system of memory in the project: as root, permissions forbid nothing."""
    folders = []

    def mount(name: str, options: str) -> None:
        folder = project / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("file systems cannot be mounted here")
        folders.append(folder)

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


def test_more_processes_than_the_channel_of_the_nursery_holds_packets(project: Path) -> None:
    (project / "shop.py").write_text(
        HEAD
        + """
source = MemoryConsumer([b"%d" % i for i in range(1000)])

@app.batch_handler(source=source, decoder="raw", batch_size=1, max_batch_bytes=4096)
def look(batch: Batch) -> None:
    pass
"""
    )
    finished = run(project, "run", "shop:app", "--until-end", "--workers", "300", "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.rows, report.workers, report.crashes) == (1000, 300, 0)


def test_a_run_ends_with_a_summary_and_a_report(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop.py:app", "--until-end", "--report", "run.json", "--handler", "score")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.app, report.rows, report.rejected, report.dead_lettered) == ("orders", 10, 1, 1)
    assert [handler.name for handler in report.handlers] == ["score"]
    assert "orders: done: the sources ended" in finished.stdout
    assert "rejected by the handler" in finished.stdout
    assert "score: file orders.ndjson" in finished.stderr
    revenues = sorted(json.loads(line)["revenue"] for line in (project / "scored.ndjson").read_text().splitlines())
    assert revenues == [1.5 * qty for qty in range(10) if qty != 3]
    assert sorted(path.name for path in project.iterdir() if path.suffix == ".new") == []


def test_all_handlers_run_unless_named(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop:app", "--until-end", "--report", "run.json", "--workers", "2")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert {handler.name: handler.rows for handler in report.handlers} == {"score": 10, "count": 10}


def test_quiet_prints_nothing_but_where_dead_letters_went(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop:app", "--until-end", "--quiet", "--state-dir", "elsewhere")
    assert (finished.returncode, finished.stdout) == (ExitCode.DONE, "")
    first, second = finished.stderr.splitlines()
    assert first == "1 row went to the dead letters"
    assert second.endswith("elsewhere/dead-letters/score.ndjson")
    assert (project / "elsewhere").is_dir()
    assert not (project / ".pythia").exists()


def test_a_handler_that_is_not_there_is_refused_with_the_nearest(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop:app", "--until-end", "--handler", "scor")
    assert finished.returncode == ExitCode.USAGE
    assert "has no handler 'scor'; did you mean 'score'?" in finished.stderr


def test_a_handler_named_twice_is_refused(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop:app", "--handler", "score", "--handler", "count", "--handler", "score")
    assert finished.returncode == ExitCode.USAGE
    assert "--handler: 'score' is given more than once" in finished.stderr


@pytest.mark.parametrize("options", [(), ("--quiet",)], ids=["told", "quiet"])
def test_a_damaged_file_is_told_and_has_an_exit_code(project: Path, options: tuple[str, ...]) -> None:
    rows = [msgspec.msgpack.encode({"price": 1.5, "qty": qty}) for qty in range(10)]
    frames = [struct.pack("<I", len(row)) + row for row in rows]
    path = project / "orders.bin"
    path.write_bytes(b"".join(frames[:5]) + struct.pack("<I", 1 << 31) + b"".join(frames[5:]))
    (project / "shop.py").write_text(
        HEAD
        + """
@app.batch_handler(source=FileConsumer(path="orders.bin", format="msgpack-frames"), schema=Order, decoder="msgpack")
def look(batch: Batch[Order]) -> None:
    pass
"""
    )
    at = 5 * len(frames[0])
    finished = run(project, "run", "shop:app", "--until-end", "--report", "run.json", *options)
    assert finished.returncode == ExitCode.UNREACHABLE
    told = finished.stderr.splitlines()
    lines = [line for line in told if line.startswith(f"{path} is damaged: the size at byte {at}")]
    assert len(lines) == 1
    assert told == lines or not options
    assert f"truncate -s {at} {path}" in lines[0]
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows, report.unread_bytes) == ("done", 5, at + 4)
    assert report.handlers[0].unread == (lines[0],)
    assert ("bytes of damaged files, not read" in finished.stdout) is not bool(options)
    path.write_bytes(b"".join(frames))
    finished = run(project, "run", "shop:app", "--until-end", "--report", "run.json", *options)
    assert finished.returncode == ExitCode.DONE, finished.stderr
    assert RunReport.from_json((project / "run.json").read_bytes()).rows == 5


def test_a_signal_after_the_end_of_a_run_does_not_change_the_exit_code(project: Path) -> None:
    at_exit = "\nimport atexit, sys\natexit.register(lambda: (print('leaving', flush=True), sys.stdin.read()))\n"
    (project / "shop.py").write_text(TWO_HANDLERS + at_exit)
    with running(project, "run", "shop:app", "--until-end", "--handler", "count") as process:
        assert process.stdout is not None
        assert any(line == "leaving\n" for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == ExitCode.DONE


def test_too_few_workers_are_refused(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    finished = run(project, "run", "shop:app", "--until-end", "--workers", "1")
    assert finished.returncode == ExitCode.USAGE
    assert "workers=1 is too few" in finished.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(project: Path, number: signal.Signals) -> None:
    (project / "shop.py").write_text(WAITING.replace("WAIT:", "False:"))
    with running(project, "run", "shop:app", "--workers", "1", "--report", "run.json") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the handler\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.DONE, err
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows, report.unfinished) == ("drained", 10, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_app_is_imported_ends_as_a_drained_run_does(project: Path, number: signal.Signals) -> None:
    (project / "shop.py").write_text('import time\nprint("imported", flush=True)\ntime.sleep(60)\n')
    with running(project, "run", "shop:app") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.DONE, f"{number.name}: stopped before anything was read\n")


#: Found by Python as it starts: the process signals itself when it begins to import the command line's library.
SIGNALS_ITSELF = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            for number in map(int, os.environ["SIGNALS"].split()):
                os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
"""


def signalling(project: Path, *numbers: signal.Signals) -> dict[str, str]:
    """The environment of a command that signals itself while it is imported."""
    (project / "sitecustomize.py").write_text(SIGNALS_ITSELF)
    path = os.pathsep.join([str(project), ENVIRONMENT["PYTHONPATH"]])
    return {"PYTHONPATH": path, "SIGNALS": " ".join(str(int(number)) for number in numbers)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["run", "record", "mirror"])
def test_a_signal_while_the_command_line_is_imported_does_so_too(
    project: Path, number: signal.Signals, command: str
) -> None:
    (project / "shop.py").write_text("raise RuntimeError('imported')")
    arguments = {
        "run": ["shop:app"],
        "record": ["topic", "rows"],
        "mirror": ["--from", "a:9", "--to", "b:9", "--topics", "t"],
    }
    finished = run(project, command, *arguments[command], environment=signalling(project, number))
    assert (finished.returncode, finished.stderr) == (
        ExitCode.DONE,
        f"{number.name}: stopped before anything was read\n",
    )


def test_a_second_signal_while_the_command_line_is_imported_ends_it_at_once(project: Path) -> None:
    environment = signalling(project, signal.SIGTERM, signal.SIGTERM)
    assert run(project, "run", "shop:app", environment=environment).returncode == -signal.SIGTERM


def test_a_signal_ends_a_command_that_drains_nothing(project: Path) -> None:
    finished = run(project, "doctor", "shop:app", environment=signalling(project, signal.SIGTERM))
    assert finished.returncode == -signal.SIGTERM


def test_a_signal_that_the_apps_module_swallows_is_obeyed_later(project: Path) -> None:
    late = WAITING.replace("WAIT:", "False:")
    (project / "shop.py").write_text(
        'import time\nprint("imported", flush=True)\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n' + late
    )
    with running(project, "run", "shop:app", "--workers", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.DONE, "SIGTERM: stopped before anything was read\n")


def test_a_drain_deadline_that_passes_has_its_own_exit_code(project: Path) -> None:
    (project / "shop.py").write_text(WAITING.replace("WAIT:", "True:"))
    with running(
        project, "run", "shop:app", "--workers", "1", "--drain-timeout", "0.5", "--report", "run.json"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the handler\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.DEADLINE, err
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows, report.unfinished) == ("deadline", 0, 10)


def test_a_second_signal_stops_at_once(project: Path) -> None:
    (project / "shop.py").write_text(WAITING.replace("WAIT:", "True:"))
    with running(project, "run", "shop:app", "--workers", "1", "--drain-timeout", "3600") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "in the handler\n"
        process.send_signal(signal.SIGTERM)
        told = iter(process.stderr.readline, "")
        assert any("stop" in line or "signal" in line.lower() or "drain" in line for line in told)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == ExitCode.KILLED


def test_a_setup_that_raises_ends_the_run_with_its_traceback(project: Path) -> None:
    (project / "shop.py").write_text(
        HEAD
        + """
@app.batch_handler(source=MemoryConsumer([b'{"price":1,"qty":1}']), schema=Order)
class Score:
    def setup(self) -> None:
        raise RuntimeError("no model on this disk")

    def __call__(self, batch: Batch[Order]) -> None:
        pass
"""
    )
    finished = run(project, "run", "shop:app", "--until-end", "--workers", "1", "--report", "run.json")
    assert finished.returncode == ExitCode.FAILED
    assert "no model on this disk" in finished.stderr
    assert "shop.py" in finished.stderr
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows) == ("failed", 0)
    assert "no model on this disk" in report.error


def test_a_run_that_fails_reports_what_it_did(project: Path) -> None:
    (project / "shop.py").write_text(
        HEAD
        + """
@app.batch_handler(
    source=FileConsumer(path="orders.ndjson"), schema=Order, batch_size=4, on_error="stop", ordering="partition"
)
def score(batch: Batch[Order]) -> None:
    if 9 in batch["qty"]:
        raise ValueError("nine")
"""
    )
    finished = run(project, "run", "shop:app", "--until-end", "--workers", "1", "--report", "run.json")
    assert finished.returncode == ExitCode.FAILED
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows, report.unfinished) == ("failed", 8, 2)
    assert "ValueError: nine" in report.error


@pytest.mark.parametrize("option", ['on_error="stop"', "dead_letter_limit=DeadLetterLimit(0.1, min_rows=1)"])
def test_what_an_exception_quotes_is_not_obeyed_by_the_terminal(project: Path, option: str) -> None:
    (project / "shop.py").write_text(
        HEAD
        + f"""
from pythia_fast import DeadLetterLimit

@app.batch_handler(source=FileConsumer(path="orders.ndjson"), schema=Order, {option})
def score(batch: Batch[Order]) -> None:
    raise ValueError("\\x1b[2Jgone")
"""
    )
    finished = run(project, "run", "shop:app", "--until-end", "--workers", "1")
    assert r"\x1b[2Jgone" in finished.stderr
    assert "\x1b[2J" not in finished.stderr


def test_a_closed_standard_input_is_told(project: Path) -> None:
    (project / "shop.py").write_text(
        HEAD
        + """
@app.batch_handler(source=FileConsumer(path="-"), schema=Order)
def score(batch: Batch[Order]) -> None:
    pass
"""
    )
    line = f"{shlex.join(command('run', 'shop:app', '--until-end'))} <&-"
    finished = subprocess.run(
        ["sh", "-c", line], cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == ExitCode.UNREACHABLE
    assert "cannot read standard input" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_signal_ends_a_pool_that_is_not_up_yet(project: Path) -> None:
    (project / "shop.py").write_text(
        HEAD
        + """
import time

@app.batch_handler(source=MemoryConsumer([b'{"price":1,"qty":1}']), schema=Order)
class Score:
    def setup(self) -> None:
        print("in setup", flush=True)
        time.sleep(3600)

    def __call__(self, batch: Batch[Order]) -> None:
        pass
"""
    )
    with running(project, "run", "shop:app", "--workers", "1", "--report", "run.json") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in setup\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.DONE, err
    report = RunReport.from_json((project / "run.json").read_bytes())
    assert (report.ending, report.rows) == ("drained", 0)


def test_a_broker_that_is_not_there_has_its_own_exit_code(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (project / "shop.py").write_text(
        HEAD
        + f"""
source = KafkaConsumer(topic="orders", consumer_group="g", bootstrap_servers="127.0.0.1:{port}")

@app.batch_handler(source=source, schema=Order)
def score(batch: Batch[Order]) -> None:
    pass
"""
    )
    finished = run(project, "run", "shop:app", "--workers", "1", "--connect-timeout", "1")
    assert finished.returncode == ExitCode.UNREACHABLE, finished.stderr
    assert f"127.0.0.1:{port}" in finished.stderr


@pytest.mark.parametrize(
    ("state_dir", "reason"),
    [
        ("file", "it is not a folder"),
        ("file/below", "Not a directory"),
        ("/proc/nothing", ""),
        ("x" * 300, "File name too long"),
        ("read-only", "Read-only file system"),
        ("full", "No space left on device"),
    ],
)
def test_a_state_folder_that_cannot_be_used_is_told(
    project: Path, mounted: Callable[[str, str], None], state_dir: str, reason: str
) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    (project / "file").touch()
    if state_dir == "read-only":
        mounted("read-only", "ro")
    elif state_dir == "full":
        mounted("full", "size=4096")
        with (project / "full" / "filler").open("wb") as filler:
            filler.write(bytes(4096))
    finished = run(project, "run", "shop:app", "--until-end", "--state-dir", state_dir)
    assert finished.returncode == ExitCode.USAGE, finished.stderr
    assert finished.stderr.startswith(f"error: cannot keep checkpoints and dead letters in {state_dir}: {reason}")
    assert "; choose another folder with --state-dir" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["spool", "spool.lock", "dead-letters", "checkpoints"])
def test_something_in_the_way_of_a_folder_inside_is_told(project: Path, name: str) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    (project / "state").mkdir()
    if name.endswith(".lock"):
        (project / "state" / name).mkdir()
    else:
        (project / "state" / name).touch()
    finished = run(project, "run", "shop:app", "--until-end", "--state-dir", "state", "--handler", "count")
    assert finished.returncode in (ExitCode.USAGE, ExitCode.UNREACHABLE), finished.stderr
    assert f"{project}/state/{name}: " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_report_that_cannot_be_written_at_the_end_is_told_after_the_summary(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS + "\nimport shutil\nshutil.rmtree('reports')\n")
    (project / "reports").mkdir()
    finished = run(
        project,
        "run",
        "shop:app",
        "--until-end",
        "--workers",
        "1",
        "--handler",
        "count",
        "--report",
        "reports/run.json",
    )
    assert finished.returncode == ExitCode.FAILED
    assert "orders: done: the sources ended" in finished.stdout
    told = "error: the run is over, but its report cannot be written to reports/run.json: No such file or directory"
    assert finished.stderr.splitlines()[-1] == told
    assert "Traceback" not in finished.stderr


def test_a_file_that_is_not_there_has_its_own_exit_code(project: Path) -> None:
    (project / "shop.py").write_text(TWO_HANDLERS)
    (project / "orders.ndjson").unlink()
    finished = run(project, "run", "shop:app", "--until-end")
    assert finished.returncode == ExitCode.UNREACHABLE
    assert "orders.ndjson" in finished.stderr

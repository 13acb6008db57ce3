"""pythia_fast.cli.main: how usage and failures are told, and with which exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

import pythia_fast
from pythia_fast.cli import main as cli
from pythia_fast.cli.exit_codes import AppImportError, ExitCode, code_of_error, code_of_report
from pythia_fast.errors import ConfigError, ExtensionError, HandlerError, PoolError, PythiaError, SinkError, SourceError
from pythia_fast.report import RunReport
from tests.support.command_line import run

COMMANDS = ("run", "replay", "demo", "bench", "version", "dlq")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in out
    for exit_code in ExitCode:
        assert f" {exit_code.value} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = answer(capsys, command, "--help")
    assert code == 0
    assert f"  python -m pythia_fast {command}" in out


def test_no_garbage_is_looked_for_in_what_the_command_line_imports(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import gc\nprint(gc.isenabled(), gc.get_freeze_count() > 10_000)\n")
    finished = run(tmp_path, "run", "shop:app")
    assert (finished.returncode, finished.stdout) == (ExitCode.IMPORT, "True True\n"), finished.stderr


def test_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--version") == answer(capsys, "version")


@pytest.mark.parametrize("command", [(), ("run",), ("replay",), ("dlq",), ("dlq", "list")])
def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    code, out, err = answer(capsys, *command)
    assert code == ExitCode.USAGE
    assert "Usage: python -m pythia_fast" in out + err
    assert "error:" not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "orders:app", "--worker", "3"], "No such option --worker; did you mean --workers?"),
        (["run", "orders:app", "--until-ends"], "No such option --until-ends; did you mean --until-end?"),
        (["run", "orders:app", "--draintimeout=3"], "No such option --draintimeout; did you mean --drain-timeout?"),
        (["demo", "--row", "3"], "No such option --row; did you mean --rows?"),
        (
            ["demo", "--zzzzzz"],
            "No such option --zzzzzz; known options: --output, --quiet, --report, --rows, --workers",
        ),
        (["rnu", "orders:app"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run", "orders:app", "--workers", "many"], "'many' is neither 'auto' nor a number of processes"),
        (["run", "orders:app", "--workers", "0"], "'0' is neither 'auto' nor a number of processes from 1 to 1,024"),
        (["run", "orders:app", "--workers", "1025"], "'1025' is neither 'auto'"),
        (["run", "orders:app", "--workers", "9" * 5000], "is neither 'auto'"),
        (["run", "orders:app", "--workers", ""], "'' is neither 'auto'"),
        (["run", "orders:app", "--drain-timeout", "inf"], "'inf' is not a number of seconds from 0 to 1,000,000,000"),
        (["run", "orders:app", "--drain-timeout", "soon"], "'--drain-timeout': 'soon' is not a number of seconds"),
        (["run", "orders:app", "--connect-timeout", "-1"], "'-1' is not a number of seconds"),
        (["run", "orders:app", "--connect-timeout", "nan"], "'nan' is not a number of seconds"),
        (["run", "orders:app", "--state-dir", ""], "'--state-dir': it is empty; write a path"),
        (["run", "orders:app", "--report", ""], "'--report': it is empty; write a path"),
        (["run", "orders:app", "--report", "/proc/run.json"], "cannot write /proc/run.json: "),
        (["run", "orders:app", "--report", "/tmp/" + "x" * 300], "cannot write /tmp/xxx"),
        (["demo", "--output", ""], "'--output': it is empty; write a path"),
        (["demo", "--output", "/dev/null"], "cannot keep orders, report and plot in /dev/null: it is not a folder"),
        (["replay", "x" * 5000, "--app", "orders:app"], "there is no file xxx"),
        (["run", "orders:app", "--drain-timeout", "-1"], "'-1' is not a number of seconds from 0"),
        (["run", "orders:app", "--drain-timeout", "nan"], "'nan' is not a number of seconds from 0"),
        (["run", "orders:app", "--report", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["run", "orders:app", "--report", "/"], "/ is a folder"),
        (["demo", "--rows", "0"], "'--rows': '0' is not a number of rows from 1"),
        (["demo", "--rows", "1e6"], "'1e6' is not a number of rows"),
        (["demo", "--rows", "9" * 5000], "is not a number of rows"),
        (["replay", "x.ndjson"], "--app"),
        (["replay", "/dev/null", "--app", "orders:app"], "/dev/null is no plain file; an app of its own reads a pipe"),
        (
            ["replay", "-", "--app", "orders:app"],
            "- is no plain file; an app of its own reads a pipe, with",
        ),
        (["replay", "/", "--app", "orders:app"], "/ is a folder"),
        (["replay", "/no/such/x.ndjson", "--app", "orders:app"], "there is no file /no/such/x.ndjson"),
        (["bench", "--only", "nothing"], "there is no benchmark 'nothing'; there are: "),
    ],
)
def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = answer(capsys, *arguments)
    assert code == ExitCode.USAGE
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (AppImportError("x"), 3),
        (SourceError("x"), 4),
        (SinkError("x"), 4),
        (PoolError("x"), 1),
        (HandlerError("x"), 1),
        (ExtensionError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: PythiaError, code: int) -> None:
    assert code_of_error(error) == code


@pytest.mark.parametrize(("ending", "code"), [("done", 0), ("drained", 0), ("deadline", 5), ("killed", 130)])
def test_every_ending_has_its_exit_code(ending: str, code: int) -> None:
    assert code_of_report(RunReport(ending=ending)) == code  # type: ignore[arg-type]


def test_exit_codes_are_documented() -> None:
    page = (Path(pythia_fast.__file__).parent.parent / "docs" / "cli.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} |" in page


def test_version_tells_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "version")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["pythia_fast"] == pythia_fast.__version__
    assert set(lines) == {"pythia_fast", "librdkafka", "Python", "NumPy", "msgspec", "CPU", "SIMD", "system"}
    assert lines["Python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


def test_bench_lists_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "bench", "--list")
    assert code == 0
    assert "file_to_handler" in out.splitlines()


def test_the_module_runs_and_returns_its_code() -> None:
    command = [sys.executable, "-m", "pythia_fast", "run", "no_such_module:app"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == ExitCode.IMPORT
    assert finished.stderr.startswith("error: cannot find module 'no_such_module'")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pythia_fast.cli.main import main; main(['run', '--help']);"
        "print([m for m in ('numpy', 'confluent_kafka', 'matplotlib', 'polars', 'pyarrow') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [["run"], ["dlq", "list"]])
def test_an_option_without_its_value_names_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, _, err = answer(capsys, *command, "orders:app", "--handler")
    assert code == ExitCode.USAGE
    assert err.endswith(f"try: python -m pythia_fast {' '.join(command)} --help\n")

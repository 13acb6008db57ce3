"""``--report`` and what else is written where the user says: devices, pipes and links stay what they are."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.cli.whole_file import check_writable, write_whole
from pythia_fast.report import RunReport
from tests.support.command_line import ENVIRONMENT, HEAD, TWO_HANDLERS, command, run

APP = HEAD + '\n@app.batch_handler(source=MemoryConsumer([b"1"]), decoder="raw")\ndef look(batch): pass\n'


def write(path: Path) -> None:
    check_writable(path)
    write_whole(path, b"content")


def test_a_new_file_has_the_mode_of_any_and_nothing_is_left_beside(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("new", b"content")]


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"something that is longer")
    path.chmod(0o604)
    with path.open("rb") as before:
        write(path)
        assert before.read() == b"something that is longer"
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_file_beside_it_is_nobodys_but_its_users(tmp_path: Path) -> None:
    (tmp_path / "report.new").write_bytes(b"mine")
    write(tmp_path / "report")
    assert (tmp_path / "report.new").read_bytes() == b"mine"


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    link.symlink_to(target)
    if there:
        target.write_bytes(b"before")
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"content"


def test_a_device_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write(link)
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    node = tmp_path / "node"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        write(node)
    except PermissionError:
        pytest.skip("only root makes devices, and not in every container")
    assert stat.S_ISCHR(node.stat().st_mode)


def test_a_named_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):
        write_whole(pipe, b"nobody reads")
    found: list[bytes] = []
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    os.set_blocking(fd, True)
    writer = threading.Thread(target=write_whole, args=(pipe, b"content" * 100_000))
    writer.start()
    while sum(map(len, found)) < 700_000:
        found.append(os.read(fd, 1 << 16))
    writer.join()
    os.close(fd)
    assert b"".join(found) == b"content" * 100_000
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_cannot_be_written_to_its_end_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "old"
    path.write_bytes(b"before")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"content")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("old", b"before")]


@pytest.mark.parametrize("redirected", ["| cat", "> out.json; cat out.json"], ids=["pipe", "file"])
def test_a_report_on_standard_output_comes_beside_the_summary(tmp_path: Path, redirected: str) -> None:
    (tmp_path / "shop.py").write_text(APP)
    finished = subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", *command("run", "shop:app", "--until-end", "--report", "/dev/stdout")],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
        timeout=100,
    )
    report, _, summary = finished.stdout.partition(b"orders: done")
    assert RunReport.from_json(report.strip()).rows == 1
    assert b"rows/s" in summary


KEPT = ["state/dead-letters/score-1.ndjson", "state/checkpoints/shop.score.json", "state/spool.lock"]


@pytest.mark.parametrize("report", ["orders.ndjson", "link", "scored.ndjson", *KEPT])
def test_a_report_does_not_replace_what_the_run_reads_or_writes(tmp_path: Path, report: str) -> None:
    (tmp_path / "shop.py").write_text(TWO_HANDLERS)
    orders = tmp_path / "orders.ndjson"
    orders.write_bytes(b'{"price":1,"qty":1}\n')
    (tmp_path / "link").hardlink_to(orders)
    (tmp_path / "state" / "dead-letters").mkdir(parents=True)
    (tmp_path / "state" / "checkpoints").mkdir()
    options = ["--until-end", "--state-dir", "state", "--report", report]
    finished = run(tmp_path, "run", "shop:app", *options)
    assert finished.returncode == ExitCode.USAGE
    assert "error: the report would replace " in finished.stderr
    assert orders.read_bytes() == b'{"price":1,"qty":1}\n'
    assert not (tmp_path / "scored.ndjson").exists()


def test_a_report_is_no_file_that_a_source_would_read_next(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TWO_HANDLERS.replace('"orders.ndjson"', '"in/*.json"'))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.json").write_bytes(b'{"price":1,"qty":1}\n')
    refused = run(tmp_path, "run", "shop:app", "--until-end", "--report", "in/run.json")
    assert refused.returncode == ExitCode.USAGE
    assert "error: the report in/run.json would be read as rows by handler " in refused.stderr
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["orders.json"]
    taken = run(tmp_path, "run", "shop:app", "--until-end", "--report", "in/run.txt")
    assert taken.returncode == ExitCode.DONE, taken.stderr


def test_names_that_are_no_utf_8_are_spelled_out_where_they_are_told(tmp_path: Path) -> None:
    """In reports, in the doctor's JSON, and to a pool that imports the app anew."""
    (tmp_path / "shop.py").write_text(
        TWO_HANDLERS.replace('"orders.ndjson"', r'"o\udcff.ndjson"').replace('"scored.ndjson"', r'"s\udcff.ndjson"')
        + "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (tmp_path / os.fsdecode(b"o\xff.ndjson")).write_bytes(b'{"price":1,"qty":1}\n')
    state = os.fsdecode(b"st\xff")
    finished = run(tmp_path, "run", "shop:app", "--until-end", "--state-dir", state, "--report", "run.json")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    report = RunReport.from_json((tmp_path / "run.json").read_bytes())
    assert report.rows >= 1
    told = run(tmp_path, "doctor", "shop:app", "--json", "--state-dir", state)
    assert r"o\\udcff.ndjson" in told.stdout, told.stderr


@pytest.mark.parametrize("speed", ["max", "100/s"])
def test_a_report_does_not_replace_what_is_replayed(tmp_path: Path, speed: str) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "rows").write_bytes(b"1\n")
    finished = run(tmp_path, "replay", "rows", "--app", "shop:app", "--speed", speed, "--report", "./rows")
    assert finished.returncode == ExitCode.USAGE
    assert "error: the report would replace rows" in finished.stderr
    assert (tmp_path / "rows").read_bytes() == b"1\n"

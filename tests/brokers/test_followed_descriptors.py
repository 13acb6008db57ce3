"""FileConsumer(follow=True) of more files than the process may have open."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast import descriptors
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.testing.readers import collect, reader_context
from tests.support.command_line import ENVIRONMENT, HEAD, command

APP = (
    HEAD
    + """
@app.batch_handler(source=FileConsumer("logs/*", follow=True), sink=FileProducer("out.ndjson"), schema=Order)
def score(batch: Batch[Order]):
    return {"qty": batch["qty"]}
"""
)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def write(folder: Path, first: int, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number:04}").write_bytes(b'{"price":1,"qty":%d}\n' % number)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("at_once", [True, False])
def test_the_soft_limit_is_raised_for_them(tmp_path: Path, at_once: bool) -> None:
    logs, told = tmp_path / "logs", list[str]()
    write(logs, 0, 300 if at_once else 2)
    reader = FileConsumer(f"{logs}/*", follow=True, consumer_group="g").open(
        reader_context(tmp_path, until="forever", log=told.append)
    )
    sink = collect(reader, 2)
    write(logs, 2, 298)
    assert len(set(collect(reader, 300, sink).payloads)) == 300
    assert told == []
    reader.close()


def test_new_files_wait_for_descriptors_and_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs, told = tmp_path / "logs", list[str]()
    write(logs, 0, 2)
    reader = FileConsumer(f"{logs}/*", follow=True, consumer_group="g").open(
        reader_context(tmp_path, until="forever", log=told.append)
    )
    sink = collect(reader, 2)
    limit = open_files() + descriptors.SPARE_DESCRIPTORS + 3
    with monkeypatch.context() as patched:
        patched.setattr(resource, "getrlimit", lambda _which: (limit, limit))
        write(logs, 2, 5)
        collect(reader, 5, sink)
        reader.serve()
        reader.serve()
        assert sink.count == 5
        (line,) = told
        assert line == (
            f"new files are not followed until others are gone, for the limit is {limit}: ulimit -n {2 * (7 + 64)}, or "
            "LimitNOFILE= of the service"
        )
    assert len(set(collect(reader, 7, sink).payloads)) == 7
    reader.close()


def test_more_than_the_hard_limit_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    write(tmp_path / "logs", 0, 400)
    finished = subprocess.run(
        ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *command("run", "shop:app", "--workers", "1")],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert finished.returncode == ExitCode.UNREACHABLE, finished.stderr
    assert "400 files are to be kept open while they are followed, and the limit is 256: ulimit -n 928" in (
        finished.stderr.replace("\n", " ")
    )
    assert "Traceback" not in finished.stderr

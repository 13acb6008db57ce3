"""The machine against the handlers of an app."""

from __future__ import annotations

import msgspec
import pytest

from pythia_fast import App, FileConsumer, MemoryConsumer
from pythia_fast.doctor.machine_checkup import Machine, machine_findings, version_findings, versions
from pythia_fast.registration import Handler
from tests.support.checkup import bad, told

ROOMY = Machine(cores=8, memory_bytes=16 << 30, open_files=65_536)


class Order(msgspec.Struct):
    qty: int


def handler(**options: object) -> Handler:
    app = App("shop")
    app.batch_handler(**{"source": MemoryConsumer(), "schema": Order, "name": "score", **options})(lambda batch: None)  # type: ignore[arg-type]
    return app.handlers["score"]


def test_a_machine_that_suffices() -> None:
    findings = list(machine_findings([handler()], [4], ROOMY))
    assert bad(findings) == []
    told(findings, "ok", "4 processes, 8 cores")
    told(findings, "ok", "handler 'score': ")
    told(findings, "ok", "shared memory")


def test_more_processes_than_cores() -> None:
    findings = list(machine_findings([handler()], [16], ROOMY))
    assert told(findings, "note", "16 processes for the 8 cores").change.startswith("--workers 8")


def test_processes_that_do_not_sleep_leave_the_runtime_a_core() -> None:
    machine = Machine(cores=2, memory_bytes=16 << 30, open_files=65_536)
    assert bad(list(machine_findings([handler(busy_poll=0.001)], [1], machine))) == []
    findings = list(machine_findings([handler(busy_poll=0.001)], [2], machine))
    assert told(findings, "warning", "2 processes with busy_poll= hold the 2 cores").change.endswith("--workers 1")


@pytest.mark.parametrize(
    ("memory_bytes", "grade", "words"),
    [
        (200 << 20, "warning", "and 104 MB are meant for it, half of what this machine or container has"),
        (800 << 20, "note", "because memory is short"),
    ],
)
def test_the_arena_against_the_memory(memory_bytes: int, grade: str, words: str) -> None:
    large = handler(batch_size=65_536)
    told(list(machine_findings([large], [2], Machine(8, memory_bytes, 65_536))), grade, words)


def test_descriptors() -> None:
    findings = list(machine_findings([handler()], [4], Machine(8, 16 << 30, 100)))
    told(findings, "problem", "open files, and the limit is 100")


def test_a_followed_glob_keeps_its_files_open(tmp_path: object) -> None:
    for number in range(300):
        (tmp_path / f"{number}.ndjson").touch()  # type: ignore[operator]
    source = FileConsumer(f"{tmp_path}/*.ndjson", follow=True)
    machine = Machine(8, 16 << 30, 256)
    told(list(machine_findings([handler(source=source)], [1], machine)), "problem", "the limit is 256")
    assert bad(list(machine_findings([handler()], [1], machine))) == []
    raised = Machine(8, 16 << 30, 256, most_open_files=500)
    told(list(machine_findings([handler(source=source)], [1], raised)), "ok", "the limit is 500")


def test_versions() -> None:
    found = versions()
    assert {"pythia_fast", "Python", "numpy", "msgspec", "pika", "redis", "confluent-kafka", "librdkafka"} <= set(found)
    assert bad(list(version_findings(found))) == []
    told(list(version_findings({"pika": "not installed"})), "problem", "pika is not installed")

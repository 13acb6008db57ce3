"""Whole runtimes between Kafka topics, run as a user runs them, and what tests ask of those topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from tests.support.kafka_broker import ROOT

PARTITIONS = 4


class Echo(msgspec.Struct):
    id: int
    runtime: int


class Runtime:
    """``python -m pythia_fast run tests.support.echo_app:app`` in a process group of its own."""

    def __init__(self, folder: Path, servers: str, topics: list[str], sink: str, dead: str, **settings: Any) -> None:
        folder.mkdir(parents=True)
        self.report_path = folder / "report.json"
        self.log_path = folder / "log"
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "CONSUMER_GROUP": settings.get("group", f"group-of-{topics[0]}"),
            "ECHO_TOPICS": ",".join(topics),
            "ECHO_TO": sink,
            "ECHO_DEAD": dead,
            "ECHO_SINK_SERVERS": settings.get("sink_servers", ""),
            "ECHO_SECONDS": str(settings.get("seconds", 0)),
            "ECHO_SLOW": str(settings.get("slow", "")),
            "ECHO_LARGE": settings.get("large", "0:0"),
            "ECHO_HANGS": str(settings.get("hangs", "")),
            "ECHO_KILLS": str(settings.get("kills", "")),
            "ECHO_CALLS": str(settings.get("calls", "")),
            "ECHO_AWAY": str(settings.get("away", "")),
            "ECHO_AWAY_EVERY": str(settings.get("away_every", 1)),
            "ECHO_BREAKER": json.dumps(settings["breaker"]) if "breaker" in settings else "",
            "ECHO_ROWS": str(settings.get("rows", 512)),
            "ECHO_OPTIONS": json.dumps(settings.get("options", {})),
            "ECHO_SINK_OPTIONS": json.dumps(settings.get("sink_options", {})),
            "ECHO_HANDLER": json.dumps(settings.get("handler", {})),
        }
        command = [sys.executable, "-m", "pythia_fast", "run", "tests.support.echo_app:app"]
        command += ["--workers", str(settings.get("workers", 2)), "--state-dir", str(folder / "state")]
        command += ["--report", str(self.report_path), *settings.get("arguments", [])]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def group_id(self) -> int:
        """The process group, by which the rows that this runtime handled are known."""
        return self.process.pid

    def wait_for(self, text: str, times: int = 1, seconds: float = 60) -> None:
        """Until its log has told this so many times."""
        deadline = time.monotonic() + seconds
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log}"
            assert time.monotonic() < deadline, f"no {text!r} after {seconds} s: {self.log}"
            time.sleep(0.02)

    def wait(self, seconds: float = 60) -> dict[str, Any]:
        """Until it ends by itself; its report."""
        assert self.process.wait(seconds) == 0, self.log
        self.assert_gone()
        return dict(json.loads(self.report_path.read_text()))

    def stop(self) -> dict[str, Any]:
        """SIGTERM, as an orchestrator stops it; its report."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9 of the runtime process alone; its pool must go with it."""
        self.process.kill()
        self.process.wait()
        self.assert_gone()

    def assert_gone(self) -> None:
        deadline = time.monotonic() + 10
        while left := self.members():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)

    def members(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def close(self) -> None:
        for process in self.members():
            with suppress(psutil.NoSuchProcess):  # it has gone by itself
                process.kill()
        self.process.wait()


Start = Callable[..., Runtime]


@contextmanager
def runtimes(tmp_path: Path, default_servers: str, topics: tuple[str, str, str]) -> Iterator[Start]:
    """A function that starts runtimes between ``topics`` (source, sink, dead letters); each ends with the block."""
    with ExitStack() as stack:

        def start_runtime(*, servers: str = "", source: list[str] | None = None, **settings: Any) -> Runtime:
            folder = tmp_path / f"runtime-{len(list(tmp_path.glob('runtime-*')))}"
            made = Runtime(folder, servers or default_servers, source or [topics[0]], topics[1], topics[2], **settings)
            stack.callback(made.close)
            return made

        yield start_runtime


def produce(servers: str, topic: str, ids: range, partitions: int = PARTITIONS) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for i in ids:
        producer.produce(topic, b'{"id":%d}' % i, partition=i % partitions)
    assert producer.flush(60) == 0


class Sink:
    """Reads a topic from its beginning, as far as it has come."""

    def __init__(self, servers: str, topic: str) -> None:
        self.consumer = Consumer({"bootstrap.servers": servers, "group.id": "check", "enable.auto.commit": False})
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.messages: list[Message] = []

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.close()

    def rows(self) -> list[Echo]:
        return [msgspec.json.decode(message.value(), type=Echo) for message in self.messages]

    def read(self, done: Callable[[], bool], watched: list[Runtime] | None = None, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            logs = [runtime.log for runtime in watched or []]
            assert time.monotonic() < deadline, f"{len(self.messages)} messages after {seconds} s: {logs}"
            self.messages += self.consumer.consume(10_000, timeout=0.2)

    def read_ids(self, count: int, watched: list[Runtime] | None = None) -> list[int]:
        """Until so many different ids have come; all of them, repeated ones too, in order."""
        seen: set[int] = set()
        known = 0

        def done() -> bool:
            nonlocal known
            seen.update(row.id for row in self.rows_from(known))
            known = len(self.messages)
            return len(seen) >= count

        self.read(done, watched)
        return [row.id for row in self.rows()]

    def rows_from(self, at: int) -> list[Echo]:
        return [msgspec.json.decode(message.value(), type=Echo) for message in self.messages[at:]]


def committed(servers: str, group: str, topic: str, partitions: int = PARTITIONS) -> list[int]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    deadline = time.monotonic() + 30
    while True:
        try:
            found = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=30)
            break
        except KafkaException:  # a broker that has just started is not yet the group's coordinator
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
    consumer.close()
    return [max(0, partition.offset) for partition in found]


def ends(servers: str, topic: str, partitions: int = PARTITIONS) -> list[int]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "check"})
    found = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in range(partitions)]
    consumer.close()
    return found

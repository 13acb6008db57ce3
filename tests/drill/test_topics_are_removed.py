"""What a drill made at a real broker is removed however the drill ends, and what cannot be removed is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.drill.topics import DrillTopics
from pythia_fast.errors import SourceError
from tests.support.command_line import ENVIRONMENT, processes_in
from tests.support.kafka_broker import KafkaBroker

#: The command, changed so that something happens at one moment of it.
CHANGED = """
import errno, os, signal, sys
from confluent_kafka.admin import AdminClient
from pythia_fast.cli.main import main
from pythia_fast.drill import process, runner, topics

def stop():
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)

def before(owner, name):
    original = getattr(owner, name)
    def changed(*args, **options):
        stop()
        return original(*args, **options)
    setattr(owner, name, changed)

def behind(owner, name):
    original = getattr(owner, name)
    def changed(*args, **options):
        made = original(*args, **options)
        stop()
        return made
    setattr(owner, name, changed)

"""
MADE = """
def answered(*args, original=AdminClient.create_topics, **options):
    asked = original(*args, **options)
    for made in asked.values():
        made.exception()
    stop()
    return asked

AdminClient.create_topics = answered
"""
SENDING = """
def stopping(*args, rows=runner.repeated):
    for number, payload in enumerate(rows(*args)):
        if number == 1000:
            stop()
        yield payload

runner.repeated = stopping
"""
RUN = "\nsys.exit(main(sys.argv[1:]))\n"

STOPS = {
    "while topics are asked for": 'behind(AdminClient, "create_topics")',
    "when topics are made": MADE,
    "while leaders are waited for": 'before(topics.DrillTopics, "await_leaders")',
    "while rows are sent": SENDING,
    "while a run is started": 'behind(process.subprocess, "Popen")',
    "while runs are ended": 'before(process.RunProcess, "close")',
    "while topics are removed": 'before(topics.DrillTopics, "remove")',
}


def drill_changed(folder: Path, kafka: KafkaBroker, change: str) -> subprocess.CompletedProcess[str]:
    arguments = ["drill", "broker-cut", "--rows", "2000", "--quiet", "--bootstrap-servers", kafka.bootstrap_servers]
    line = [sys.executable, "-c", CHANGED + change + RUN, *arguments]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=100)


def left_behind(kafka: KafkaBroker) -> list[str]:
    """Topics and groups of drills."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    groups = admin.list_consumer_groups().result().valid
    names = [*admin.list_topics(timeout=10).topics, *(group.group_id for group in groups)]
    return [name for name in names if name.startswith("pythia-fast-drill")]


def assert_nothing_left(kafka: KafkaBroker) -> None:
    """A broker may list a topic for a moment after it has said that it is removed."""
    deadline = time.monotonic() + 10
    while left := left_behind(kafka):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("moment", STOPS)
def test_two_signals_at_any_moment_leave_nothing(kafka: KafkaBroker, tmp_path: Path, moment: str) -> None:
    finished = drill_changed(tmp_path, kafka, STOPS[moment])
    assert finished.returncode == ExitCode.KILLED, finished.stderr
    assert "Traceback" not in finished.stderr
    assert processes_in(tmp_path) == []
    assert_nothing_left(kafka)


def test_what_stays_of_a_drill_that_is_stopped_is_told(kafka: KafkaBroker, tmp_path: Path) -> None:
    stays = "topics.DrillTopics.remove = lambda self, removed=topics.DrillTopics.remove: [*removed(self), 'x stays']\n"
    finished = drill_changed(tmp_path, kafka, stays + STOPS["while leaders are waited for"])
    assert finished.returncode == ExitCode.KILLED, finished.stderr
    assert finished.stderr.splitlines()[:2] == [
        "drill broker-cut: it is stopped; its runs are ended, and what it made at brokers is removed",
        "drill broker-cut: x stays",
    ]


def test_a_run_that_cannot_be_started_leaves_no_topic(kafka: KafkaBroker, tmp_path: Path) -> None:
    change = """
def refuse(*_, **__):
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
process.subprocess.Popen = refuse
"""
    finished = drill_changed(tmp_path, kafka, change)
    assert finished.returncode == ExitCode.FAILED, finished.stderr
    assert "run: no process can be started for it: [Errno 11] Resource temporarily unavailable" in finished.stdout
    assert finished.stderr == ""
    assert_nothing_left(kafka)


def test_a_topic_that_is_refused_costs_those_that_were_made(kafka: KafkaBroker) -> None:
    topics = DrillTopics({"bootstrap.servers": kafka.bootstrap_servers}, 1)
    topics.results = ["not/a topic"]
    with pytest.raises(SourceError, match="not/a topic"):
        topics.make()
    assert left_behind(kafka) == [topics.source]
    assert topics.remove() == []
    assert_nothing_left(kafka)


def test_what_a_broker_that_does_not_answer_keeps_is_named(kafka: KafkaBroker) -> None:
    topics = DrillTopics({"bootstrap.servers": kafka.bootstrap_servers}, 1, timeout_s=1.0)
    topics.make()
    topics.ends(0)  # a run may have made the group
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        left = topics.remove()
        assert time.monotonic() - began < 5
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
    at = f"could not be removed from {kafka.bootstrap_servers}: "
    names = [f"topic {topics.source}", f"topic {topics.results[0]}", f"consumer group {topics.name}"]
    assert [sentence.partition(at)[0].rstrip() for sentence in left] == names
    deadline = time.monotonic() + 60
    while topics.remove():  # the broker has the first request, too
        assert time.monotonic() < deadline
    assert_nothing_left(kafka)


def test_a_topic_whose_making_was_not_answered_is_looked_for(kafka: KafkaBroker) -> None:
    assert kafka.pid is not None
    broker = kafka.pid
    topics = DrillTopics({"bootstrap.servers": kafka.bootstrap_servers}, 1, timeout_s=1.0)
    ask = topics._admin.list_topics

    class Stopping:
        """Has the broker stop once it was found to be there."""

        def __getattr__(self, name: str) -> object:
            return getattr(topics_admin, name)

        def list_topics(self, timeout: float) -> object:
            found = ask(timeout=timeout)
            os.kill(broker, signal.SIGSTOP)
            return found

    topics_admin, topics._admin = topics._admin, Stopping()  # type: ignore[assignment]
    try:
        with pytest.raises(SourceError, match=rf"^Kafka at {kafka.bootstrap_servers}: "):
            topics.make()
    finally:
        os.kill(broker, signal.SIGCONT)
    topics._admin = topics_admin
    deadline = time.monotonic() + 60
    while topics.source in left_behind(kafka) or any("could not be" in sentence for sentence in topics.remove()):
        assert time.monotonic() < deadline
    assert [sentence.partition(" may come to be at ")[0] for sentence in topics.remove()] == [
        f"topic {topics.source}",
        f"topic {topics.results[0]}",
    ]

"""pythia_fast.brokers.kafka_coordinator: how a group stands, asked by a process that may die of the question."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from pythia_fast.brokers.kafka_coordinator import SILENT, Coordinator, Group, Owner, ask_coordinator
from tests.support.kafka_broker import KafkaBroker


def test_a_group_with_members_and_one_without(kafka: KafkaBroker, new_topic) -> None:
    topic, servers = new_topic(3), {"bootstrap.servers": kafka.bootstrap_servers}
    nobody = ask_coordinator(servers, f"{topic}-nobody", "ours", None)
    assert (nobody.state, nobody.members) == ("unknown", {})
    consumer = Consumer({**servers, "group.id": topic, "client.id": "theirs"})
    try:
        consumer.subscribe([topic])
        while len(consumer.assignment()) < 3:
            consumer.poll(0.1)
        (name,) = ask_coordinator(servers, topic, "ours", None).members
        assert name.startswith("theirs at ")
        with closing(Coordinator(servers, topic, "ours", None)) as coordinator:
            asked = coordinator.ask()
            assert coordinator.ask() == asked, "by the same process"
        holdings = asked.holdings
        assert asked == Group("stable", {name: 3}, joined=False, holdings=holdings)
        assert sorted((held.topic, held.partition) for held in holdings) == [(topic, 0), (topic, 1), (topic, 2)]
        assert {held.owner for held in holdings} == {Owner(consumer.memberid(), name)}
        assert ask_coordinator(servers, topic, "theirs", None) == Group("stable", {}, joined=True, holdings=holdings)
    finally:
        consumer.close()


def test_nobody_answers() -> None:
    group = ask_coordinator({"bootstrap.servers": "127.0.0.1:1"}, "group", "ours", None)
    assert (group.state, group.members) == ("unknown", {})
    assert group.trouble


@pytest.mark.parametrize("dies", ["kill -ABRT $$", "exit 1", "echo half", "printf '{\"state\":'"])
def test_a_process_that_dies_of_the_question_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nread -r question\n{dies}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    assert ask_coordinator({"sasl.password": "secret"}, "group", "ours", None) == Group("unknown", {}, SILENT)


def test_what_is_secret_is_in_no_argument_and_modules_are_found_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nhead -n 1 > {tmp_path}/question\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.syspath_prepend(os.fsdecode(b"/folder-\xff"))
    ask_coordinator({"sasl.password": "secret"}, "group", "ours", None)
    assert (tmp_path / "arguments").read_text() == "-m pythia_fast.brokers.kafka_coordinator\n"
    assert b'"sasl.password":"secret"' in (tmp_path / "question").read_bytes()


def test_a_process_that_has_died_is_made_anew_for_the_next_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"state":"stable","members":{}}'
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/begun\nwhile read -r question; do\n"
        f"  if test -e {tmp_path}/dies; then echo '{answer}'; exit 1; fi\n  echo '{answer}'\ndone\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))

    def begun() -> int:
        return (tmp_path / "begun").read_text().count("\n")

    with closing(Coordinator({}, "group", "ours", None)) as coordinator:
        assert [coordinator.ask() for _ in range(3)] == [Group("stable", {})] * 3
        assert begun() == 1
        (tmp_path / "dies").touch()
        assert coordinator.ask() == Group("stable", {})
        assert coordinator.ask() == Group("unknown", {}, SILENT)
        assert coordinator.ask() == Group("stable", {})
        assert begun() == 2

"""Partitions that a stable group has given to nobody: a member joins the group again, and they are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from pythia_fast._ext import collecting_sink
from pythia_fast._ext.collecting_sink import CALL
from pythia_fast.brokers import kafka_group_watch, kafka_rejoining
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.brokers.kafka_reader import GIVE_BACK_SECONDS
from tests.brokers.test_kafka_reader import Member, NewTopic, numbers, produce
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Sink, Start, committed, ends
from tests.support.kafka_run import produce as produce_rows

PARTITIONS = 4


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come after a second instead of fifteen."""
    monkeypatch.setattr(kafka_group_watch, "ASK_AFTER_S", 1.0)
    monkeypatch.setattr(kafka_rejoining, "LOOK_AGAIN_S", 1.0)


class Group:
    """A group of static members of one topic of four partitions."""

    def __init__(self, kafka: KafkaBroker, topic: str, folder: Path) -> None:
        self.topic = topic
        self.options: dict[str, object] = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "consumer_group": f"group-of-{topic}",
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300,
            "max_poll_interval_ms": 60_000,
        }
        self._folder = folder
        self._stack = ExitStack()

    def member(self, instance: str) -> Member:
        made = Member(KafkaConsumer(self.topic, group_instance_id=instance, **self.options), self._folder)
        self._stack.callback(made.reader.native.close, 0, 1)
        return made

    def foreign(self) -> Consumer:
        """A member that does not look at its group."""
        options = {name.replace("_", "."): value for name, value in self.options.items()}
        options["group.id"] = options.pop("consumer.group")
        made = Consumer(
            options | {"partition.assignment.strategy": "cooperative-sticky", "auto.offset.reset": "earliest"}
        )
        made.subscribe([self.topic])
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def group(kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path) -> Iterator[Group]:
    made = Group(kafka, new_topic(partitions=PARTITIONS), tmp_path)
    yield made
    made.close()


def kill_while_it_gives_back(killed: Member, poll_others: Callable[[], object]) -> None:
    """The group hears that it is to keep two partitions, and never that it gave the others back."""
    deadline = time.monotonic() + 60
    told: set[str] = set()
    killed.reader.native.check_after(None)  # type: ignore[attr-defined]  # nothing but news ends a poll
    while "revoke" not in told:
        assert time.monotonic() < deadline, killed.log
        poll_others()
        if collecting_sink.poll(killed.reader.native, killed.sink, timeout_us=20_000) == CALL:
            told = {kind for kind, *_ in killed.reader.native.take_notes()}
    killed.reader.native.close(0, 1)  # the group is not told


def wait_until(done: Callable[[], bool], meanwhile: Callable[[], object] = lambda: time.sleep(0.02)) -> None:
    deadline = time.monotonic() + 90
    while not done():
        assert time.monotonic() < deadline
        meanwhile()


def ordered(values: Iterable[bytes | None]) -> list[bytes | None]:
    return sorted(values, key=lambda value: int(value or b""))


def test_a_member_without_partitions_gets_those_of_one_that_was_killed_while_it_gave_them_back(
    kafka: KafkaBroker, group: Group
) -> None:
    produce(kafka, group.topic, numbers(40), partitions=PARTITIONS)
    first = group.member("first")
    first.poll_until(lambda: first.sink.count == 40)
    first.commit_all()
    second = group.member("second")
    kill_while_it_gives_back(first, second.poll)
    first = group.member("first")
    second.poll_until(lambda: len(first.listener.held) == 2 and second.log.has(", and nobody reads "), [first])
    produce(kafka, group.topic, numbers(40, start=40), partitions=PARTITIONS)
    second.poll_until(lambda: len(second.listener.held) == 2 and first.sink.count + second.sink.count >= 40, [first])
    assert ordered([*first.values(), *second.values()]) == numbers(40, start=40)
    assert second.log.has("This member leaves the group and joins it again")
    assert not first.log.has("joins it again")


def test_a_member_with_partitions_joins_again_where_nobody_else_does(kafka: KafkaBroker, group: Group) -> None:
    group.options["max_poll_interval_ms"] = 6000
    produce(kafka, group.topic, numbers(40), partitions=PARTITIONS)
    first = group.member("first")
    first.poll_until(lambda: first.sink.count == 40)
    first.commit_all()
    foreign = group.foreign()
    kill_while_it_gives_back(first, lambda: foreign.poll(0))
    first = group.member("first")
    read: list[bytes | None] = []

    def all_read() -> bool:
        if (message := foreign.poll(0)) is not None and message.error() is None:
            read.append(message.value())
        return len({*first.values(), *read}) == 40

    first.poll_until(lambda: all_read() or len(first.listener.held) == 2)
    produce(kafka, group.topic, numbers(40, start=40), partitions=PARTITIONS)
    first.poll_until(all_read)
    assert set(first.values()) | set(read) == set(numbers(40, start=40))
    assert first.log.has("This member gives back what it has, leaves the group and joins it again")
    ((given_back, lost),) = first.listener.revocations
    assert (len(given_back), lost) == (2, False)
    assert len(first.values()) == len(set(first.values())), "what it has read is committed before"


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range", "consumer"])
def test_joining_again_loses_and_repeats_nothing(kafka: KafkaBroker, group: Group, strategy: str) -> None:
    if strategy == "consumer":
        group.options |= {"group_protocol": "consumer", "session_timeout_ms": None, "heartbeat_interval_ms": None}
    else:
        group.options["partition_assignment_strategy"] = strategy
    produce(kafka, group.topic, numbers(400), partitions=PARTITIONS)
    first, second = group.member("first"), group.member("second")
    both = [first.listener.held, second.listener.held]
    first.poll_until(
        lambda: [len(held) for held in both] == [2, 2] and first.sink.count + second.sink.count == 400, [second]
    )
    given_back = set(first.listener.held)
    again_s = 0.0

    def is_given_back() -> bool:
        """Both have theirs, and a member may still be in the rebalance's last step: then it is asked again."""
        nonlocal again_s
        if time.monotonic() >= again_s and first.reader.native.rejoin([group.topic]):  # type: ignore[attr-defined]
            again_s = time.monotonic() + GIVE_BACK_SECONDS
        return not given_back & first.listener.held

    first.poll_until(is_given_back, [second])
    first.poll_until(lambda: [len(held) for held in both] == [2, 2], [second])
    produce(kafka, group.topic, numbers(400, start=400), partitions=PARTITIONS)
    first.poll_until(lambda: first.sink.count + second.sink.count >= 800, [second])
    assert ordered([*first.values(), *second.values()]) == numbers(800)


def test_rows_in_hand_may_take_longer_than_the_session_of_a_member_that_joins_again(
    kafka: KafkaBroker, group: Group
) -> None:
    """librdkafka sends no heartbeat from the leave on, so they are done before."""
    produce(kafka, group.topic, numbers(400), partitions=PARTITIONS)
    member = group.member("first")
    member.poll_until(lambda: member.sink.count > 0)
    member.listener.seconds = 8.0
    assert member.reader._rejoin()  # type: ignore[attr-defined]
    member.poll_until(lambda: len(member.listener.revocations) == 1 and member.sink.count >= 400)
    assert member.listener.troubles == []
    assert [lost for _, lost in member.listener.revocations] == [False]
    assert ordered(member.values()) == numbers(400)


def test_rows_in_hand_of_a_member_that_joins_again_are_handled_once(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    """Its companion is no runtime, reads what it is given, and commits nothing."""
    source, sink, _ = topics
    servers, name = kafka.bootstrap_servers, f"group-of-{source}"
    times = {"session.timeout.ms": 15_000, "max.poll.interval.ms": 15_000}
    options = {"group.instance.id": "first", **times}
    produce_rows(servers, source, range(40))
    calls = tmp_path / "calls"
    first = start(options=options, seconds=10, rows=10, calls=calls)
    first.wait_for(f"assigned {source}[0, 1, 2, 3]")
    wait_until(lambda: calls.exists() and calls.read_text().count("\n") == 2)  # both processes have rows in hand
    companion = Consumer(
        {"bootstrap.servers": servers, "group.id": name, "partition.assignment.strategy": "cooperative-sticky"}
        | {"enable.auto.commit": False, "heartbeat.interval.ms": 500, **times}
    )
    with closing(companion):
        assigned: list[int] = []
        poll = partial(companion.poll, 0.1)
        companion.subscribe([source], on_assign=lambda _, partitions: assigned.append(len(partitions)))
        wait_until(lambda: assigned == [0], poll)  # what it is to have is being given back now
        first.kill()
        assert "gave back" not in first.log
        first = start(options=options, seconds=0.5)
        wait_until(lambda: "kafka: assigned " in first.log, poll)
        given = 40

        def joined_again() -> bool:
            nonlocal given
            produce_rows(servers, source, range(given, given + 1))
            given += 1
            return "joins it again" in first.log

        wait_until(joined_again, poll)
        wait_until(lambda: "kafka: gave back " in first.log, poll)
    with Sink(servers, sink) as written:
        rows = written.read_ids(given, [first])
    assert sorted(row for row in rows if row >= 40) == list(range(40, given))
    assert first.stop()["ending"] == "drained"
    assert committed(servers, name, source) == ends(servers, source)

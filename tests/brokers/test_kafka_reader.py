"""KafkaConsumer's reader against a real broker, driven as the intake thread drives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from pythia_fast._ext import collecting_sink
from pythia_fast._ext.collecting_sink import CALL, END, FAILED, IDLE, STALLED, CollectingSink, Incoming, wake
from pythia_fast.brokers.base import Partition, Reader
from pythia_fast.brokers.framing import decode_headers
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.brokers.kafka_commits import COMMIT_SECONDS
from pythia_fast.brokers.kafka_reader import KafkaReader
from pythia_fast.testing.readers import RememberingListener, collect, drain, reader_context
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.kafka_run import committed
from tests.support.tcp_proxy import TcpProxy

NewTopic = Callable[..., str]


class Log(list[str]):
    def has(self, text: str) -> bool:
        return any(text in line for line in self)


class CommittingListener(RememberingListener):
    """What the runtime does at a revocation: commit what was done. Everything appended counts as done, after
    ``seconds`` when it is first asked for."""

    def __init__(self, sink: CollectingSink) -> None:
        super().__init__()
        self.sink = sink
        self.reader: Reader | None = None
        self.held: set[int] = set()
        self.seconds = 0.0
        self.troubles: list[str | None] = []  #: why commits failed

    def assigned(self, partitions: Sequence[Partition]) -> None:
        super().assigned(partitions)
        self.held.update(p.index for p in partitions)

    def settle(self, partitions: Sequence[Partition]) -> None:
        super().settle(partitions)
        self._commit({p.index for p in partitions})

    def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        super().revoked(partitions, lost=lost)
        gone = {p.index for p in partitions}
        if not lost:
            self._commit(gone)
        self.held -= gone

    def _commit(self, indices: set[int]) -> None:
        time.sleep(self.seconds)
        self.seconds = 0.0
        assert self.reader is not None
        done = {index: at for index, at in positions(self.sink.messages).items() if index in indices}
        if trouble := self.reader.commit(done, wait=True):
            self.troubles.append(trouble)


def positions(messages: Sequence[Incoming]) -> dict[int, int]:
    return {message.partition: message.next_offset for message in messages}


class Member:
    """One reader of a group with its sink, listener and log."""

    def __init__(self, consumer: KafkaConsumer, state_dir: Path, **context: Any) -> None:
        self.sink = CollectingSink()
        self.listener = CommittingListener(self.sink)
        self.log = Log()
        given = {"until": "forever", "listener": self.listener, "log": self.log.append} | context
        self.reader = consumer.open(reader_context(state_dir, **given))
        self.listener.reader = self.reader

    def poll(self, timeout_us: int = 20_000) -> int:
        result = collecting_sink.poll(self.reader.native, self.sink, timeout_us=timeout_us)
        if result == CALL:
            self.reader.serve()
        return result

    def poll_until(self, done: Callable[[], bool], others: Sequence[Member] = (), seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not done after {seconds} s; log: {self.log}"
            for member in (self, *others):
                assert member.poll() != FAILED, member.reader.failure()

    def drain(self) -> int:
        """Until something other than IDLE ends it."""
        result = IDLE
        while result == IDLE:
            result = drain(self.reader, self.sink, timeout_us=100_000)
        return result

    def values(self) -> list[bytes | None]:
        return self.sink.payloads

    def commit_all(self) -> None:
        self.reader.commit(positions(self.sink.messages), wait=True)


OpenMember = Callable[..., Member]


@pytest.fixture
def member(kafka: KafkaBroker, tmp_path: Path) -> Iterator[OpenMember]:
    """Open a reader; every one is closed after the test."""
    with ExitStack() as stack:

        def open_member(topic: str | list[str], context: Mapping[str, Any] | None = None, **options: Any) -> Member:
            named = {"topics": topic} if isinstance(topic, list) else {"topic": topic}
            given = {"bootstrap_servers": kafka.bootstrap_servers, "consumer_group": "g"}
            given |= {"session_timeout_ms": 6000, "heartbeat_interval_ms": 300}
            made = Member(KafkaConsumer(**(named | given | options)), tmp_path, **(context or {}))
            stack.callback(made.reader.close)
            return made

        yield open_member


BOUNDED = {"until": "end"}


class Told:
    """A native reader that has something to tell, and is otherwise another one."""

    def __init__(self, native: object, *notes: tuple[str, int, str, None]) -> None:
        self._native = native
        self._notes = [*notes]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def take_notes(self) -> list[tuple[str, int, str, None]]:
        notes, self._notes = self._notes, []
        return notes


def test_a_commit_that_failed_after_it_was_sent_has_the_positions_handed_over_again(
    new_topic: NewTopic, member: OpenMember
) -> None:
    made = member(new_topic())
    reader = made.reader
    assert isinstance(reader, KafkaReader)
    reader.native = Told(reader.native, ("commit_failed", 16, "", None))  # type: ignore[assignment]
    assert not reader.commit_failed
    reader.serve()
    assert reader.commit_failed
    assert made.log.has("a commit failed, a later one will do")


def test_an_index_never_has_the_name_of_a_partition_that_stayed() -> None:
    """A partition that stays for thousands of rebalances keeps its place in the table of names, which has 4,096."""
    reader = KafkaReader.__new__(KafkaReader)
    stays = Partition(2, "orders", 0)
    reader._by_index, reader._next_index = {2: stays}, 4096
    assert reader._free_indices(4) == [4096, 4097, 4099, 4100]
    reader._next_index = 8190
    assert reader._free_indices(5) == [8190, 8191, 8192, 8193, 8195]


def produce(
    kafka: KafkaBroker, topic: str, values: Sequence[bytes | None], partitions: int = 1, **options: Any
) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers} | options)
    for i, value in enumerate(values):
        producer.produce(topic, value, partition=i % partitions)
    assert producer.flush(30) == 0


def numbers(count: int, start: int = 0) -> list[bytes | None]:
    return [b"%d" % i for i in range(start, start + count)]


def test_keys_headers_nulls_and_timestamps(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    topic = new_topic()
    headers = [("trace", b"\x00\xff"), ("trace", None), ("ünï", b"")]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"value", key=b"key", headers=headers, timestamp=1_700_000_000_123)
    producer.produce(topic, None, key=b"")
    producer.produce(topic, b"")
    assert producer.flush(30) == 0
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    first, second, third = reader.sink.messages
    assert first[:2] == (b"value", b"key")
    assert decode_headers(first.headers) == headers
    assert first[3:] == (0, 0, 1, 1_700_000_000_123, 0, False)
    assert (second.payload, second.key, second.headers, second.offset) == (None, b"", b"", 1)
    assert (third.payload, third.key, third.next_offset) == (b"", None, 3)
    assert reader.reader.progress() == (3, 3)


@pytest.mark.parametrize("size", [20, 40_000])
def test_spent_messages_are_freed_and_never_many_wait(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember, size: int
) -> None:
    """16 MiB of them wait at most, and one group of 512 KiB and a message, whatever their size."""
    topic = new_topic(partitions=2)
    values: list[bytes | None] = [b"%0*d" % (size, i) for i in range(40_000_000 // (size * 100) + 2000)]
    produce(kafka, topic, values, partitions=2, **{"linger.ms": 50})
    reader = member(topic, BOUNDED)
    most = 0
    while (result := reader.poll()) != END:
        assert result != FAILED
        most = max(most, reader.reader.native.spent_bytes)
    assert most <= 16_777_216 + 524_288 + 400 + size
    assert most > 0 or size > 20
    assert sorted(value or b"" for value in reader.values()) == sorted(value or b"" for value in values)
    forever = member(topic, {"until": "forever"}, consumer_group="again")
    forever.poll_until(lambda: len(forever.sink.messages) == len(values))
    while (outcome := forever.poll()) != IDLE:
        assert outcome == CALL  # librdkafka's statistics, say
    assert forever.reader.native.spent_bytes == 0


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "snappy", "gzip"])
def test_headers_are_found_whatever_the_value(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember, codec: str
) -> None:
    """The reader looks for headers beside the value, so its size and absence matter, and the buffer that it lies in."""
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 50, "compression.type": codec})
    sizes = [None, 0, 1, 63, 64, 127, 128, 8191, 8192, 100_000]
    variants: list[list[tuple[str, bytes | None]]] = [[], [("a", b"1")], [(f"h{i}", None) for i in range(130)]]
    sent = []
    for size in sizes:
        for headers in variants:
            for key in (None, b"", b"key"):
                value = None if size is None else b"\x00" * size
                producer.produce(topic, value, key=key, headers=headers or None)
                sent.append((value, key, headers))
    assert producer.flush(30) == 0
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    assert [(m.payload, m.key, decode_headers(m.headers)) for m in reader.sink.messages] == sent


def test_a_message_larger_than_a_fetch_is_read(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    topic = new_topic(max_message_bytes="20000000")
    values = [b"small", bytes(12_000_000), b"after"]
    produce(kafka, topic, values, **{"message.max.bytes": 20_000_000})
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    assert reader.values() == values


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "snappy", "gzip"])
def test_compressed_batches(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember, codec: str) -> None:
    topic = new_topic()
    values = [b'{"id":%d,"text":"%s"}' % (i, b"x" * (i % 300)) for i in range(5000)]
    produce(kafka, topic, values, **{"compression.type": codec, "linger.ms": 50})
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    assert reader.values() == values


def test_messages_of_aborted_transactions_are_never_seen(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30)
    for round_number in range(6):
        producer.begin_transaction()
        for i in range(50):
            producer.produce(topic, b"%d-%d" % (round_number, i))
        if round_number % 2:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    reader = member(topic, BOUNDED)
    assert reader.drain() == END  # though the last offsets are an aborted batch and its control marker
    assert reader.values() == [b"%d-%d" % (r, i) for r in (0, 2, 4) for i in range(50)]


def test_until_end_leaves_what_comes_after_the_beginning(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(partitions=3)
    produce(kafka, topic, numbers(300), partitions=3)
    reader = member(topic, BOUNDED)
    while not reader.listener.held:
        reader.poll()
    produce(kafka, topic, numbers(300, start=300), partitions=3)
    assert reader.drain() == END
    assert sorted(reader.values(), key=lambda v: int(v or b"")) == numbers(300)
    reader.commit_all()
    again = member(topic, BOUNDED)
    reader.reader.close()
    assert again.drain() == END
    assert sorted(again.values(), key=lambda v: int(v or b"")) == numbers(300, start=300)


def test_until_end_of_empty_partitions_and_of_what_is_committed_already(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(partitions=3)
    produce(kafka, topic, numbers(5), partitions=1)
    reader = member(topic, BOUNDED)
    assert reader.drain() == END
    assert reader.values() == numbers(5)
    reader.commit_all()
    reader.reader.close()
    again = member(topic, BOUNDED)
    assert again.drain() == END
    assert again.values() == []
    assert again.reader.progress() == (0, 0)


def test_a_group_goes_on_from_what_was_committed(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    topic = new_topic()
    produce(kafka, topic, numbers(100))
    first = member(topic)
    collect(first.reader, 100, first.sink)
    assert first.reader.lag() == {(topic, 0): 100}
    first.reader.commit({first.sink.messages[0].partition: 60}, wait=True)
    assert first.reader.lag() == {(topic, 0): 40}
    first.reader.close()
    second = member(topic, BOUNDED)
    assert second.drain() == END
    assert second.values() == numbers(40, start=60)


def test_commits_without_waiting_arrive(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    topic = new_topic()
    produce(kafka, topic, numbers(10))
    first = member(topic)
    collect(first.reader, 10, first.sink)
    for position in range(1, 9):
        first.reader.commit({0: position})
    first.reader.commit({0: 9}, wait=True)
    first.reader.close()
    second = member(topic, BOUNDED)
    assert second.drain() == END
    assert second.values() == [b"9"]


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky", "consumer"])
def test_two_members_share_and_take_over(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember, strategy: str
) -> None:
    topic = new_topic(partitions=4)
    options = (
        {"group_protocol": "consumer", "session_timeout_ms": None, "heartbeat_interval_ms": None}
        if strategy == "consumer"
        else {"partition_assignment_strategy": strategy}
    )
    options["consumer_group"] = f"group-of-{topic}"
    produce(kafka, topic, numbers(400), partitions=4)
    first = member(topic, **options)
    first.poll_until(lambda: first.sink.count == 400)
    assert len(first.listener.held) == 4
    second = member(topic, **options)
    second.poll_until(lambda: len(second.listener.held) == len(first.listener.held) == 2, [first])
    if first.reader.native.cooperative:  # type: ignore[attr-defined]
        assert len(first.listener.table) == 4, "partitions that stay must keep their assignment"
    produce(kafka, topic, numbers(400, start=400), partitions=4)
    second.poll_until(lambda: first.sink.count + second.sink.count >= 800, [first])
    both = [*first.values(), *second.values()]
    assert sorted(both, key=lambda v: int(v or b"")) == numbers(800)
    assert len(second.values()) == 200

    first.reader.commit(positions([m for m in first.sink.messages if m.partition in first.listener.held]), wait=True)
    first.reader.close()
    second.poll_until(lambda: len(second.listener.held) == 4)
    produce(kafka, topic, numbers(40, start=800), partitions=4)
    second.poll_until(lambda: second.sink.count >= 240)
    assert sorted(second.values()[200:], key=lambda v: int(v or b"")) == numbers(40, start=800)


def test_a_partition_assigned_again_has_a_new_index_and_old_commits_are_dropped(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(partitions=2)
    produce(kafka, topic, numbers(20), partitions=2)
    first = member(topic, partition_assignment_strategy="range")
    first.poll_until(lambda: first.sink.count == 20)
    second = member(topic, partition_assignment_strategy="range")
    second.poll_until(lambda: len(second.listener.held) == len(first.listener.held) == 1, [first])
    (kept,) = (first.listener.table[index] for index in first.listener.held)
    assert kept.index == 2
    earlier = next(p for p in first.listener.table.values() if p.partition == kept.partition)
    assert earlier.index < 2
    first.reader.commit({earlier.index: 3}, wait=True)
    assert first.reader.native.committed([(topic, kept.partition)], 5000) == [10]  # type: ignore[attr-defined]


def test_messages_kept_while_stalled_are_not_appended_after_a_revocation(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(partitions=2)
    produce(kafka, topic, numbers(2000), partitions=2)
    first = member(topic)
    first.sink.stall_after(10)
    first.poll_until(lambda: first.poll() == STALLED)
    second = member(topic)
    second.poll_until(lambda: len(second.listener.held) == 1 and len(first.listener.held) == 1, [first])
    first.sink.stall_after(None)
    first.poll_until(lambda: first.sink.count + second.sink.count >= 2000, [second])
    everything = [*first.values(), *second.values()]
    assert sorted(everything, key=lambda v: int(v or b"")) == numbers(2000)


def test_pause_keeps_the_membership_and_resume_loses_nothing(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic()
    produce(kafka, topic, numbers(50_000))
    reader = member(topic, max_poll_interval_ms=6000, session_timeout_ms=6000)
    reader.sink.stall_after(100)
    reader.poll_until(lambda: reader.poll() == STALLED)
    reader.reader.pause()
    deadline = time.monotonic() + 8  # longer than max.poll.interval.ms
    while time.monotonic() < deadline:
        assert reader.poll() in (STALLED, CALL)  # once after the assignment the group is looked at
        time.sleep(0.01)
    assert reader.sink.count == 100
    assert reader.listener.revocations == []
    reader.sink.stall_after(None)
    reader.poll_until(lambda: 100 < reader.sink.count < 3000 and reader.poll() == IDLE)
    paused_at = reader.sink.count
    assert reader.poll(200_000) == IDLE
    assert reader.sink.count == paused_at
    reader.reader.resume()
    reader.poll_until(lambda: reader.sink.count == 50_000)
    assert reader.values() == numbers(50_000)


def test_a_source_that_is_kept_alive_gives_partitions_back_and_appends_nothing(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    topic = new_topic(partitions=2)
    produce(kafka, topic, numbers(2000), partitions=2)
    first = member(topic)
    first.sink.stall_after(10)
    first.poll_until(lambda: first.poll() == STALLED)
    first.sink.stall_after(None)
    second = member(topic)
    deadline = time.monotonic() + 60
    while len(second.listener.held) != 1 or second.sink.count < 990:  # 10 fewer if it got what the first had begun
        assert time.monotonic() < deadline, (first.log, second.log)
        first.reader.keep_alive()
        second.poll()
    assert first.sink.count == 10
    assert len(first.listener.held) == 1
    assert len(first.listener.revocations) == 1
    first.reader.close()
    second.poll_until(lambda: len(second.listener.held) == 2 and second.sink.count >= 1990)
    assert set(first.values()) | set(second.values()) == set(numbers(2000))


def test_several_topics_at_once(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    topics = [new_topic(partitions=p) for p in (1, 2, 3)]
    for i, topic in enumerate(topics):
        produce(kafka, topic, numbers(60, start=100 * i), partitions=i + 1)
    reader = member(topics, BOUNDED)
    assert reader.drain() == END
    by_topic: dict[str, list[bytes | None]] = {topic: [] for topic in topics}
    for message in reader.sink.messages:
        by_topic[reader.listener.table[message.partition].topic].append(message.payload)
    for i, topic in enumerate(topics):
        assert sorted(by_topic[topic], key=lambda v: int(v or b"")) == numbers(60, start=100 * i)


def test_wake_ends_a_wait(new_topic: NewTopic, member: OpenMember) -> None:
    reader = member(new_topic())
    reader.poll_until(lambda: len(reader.listener.held) == 1)
    begin = time.monotonic()
    wake(reader.reader.native)
    assert reader.poll(30_000_000) == IDLE
    assert time.monotonic() - begin < 10


def test_a_topic_that_does_not_exist_is_said_and_read_once_it_does(kafka: KafkaBroker, member: OpenMember) -> None:
    reader = member("created-later", topic_metadata_refresh_interval_ms=1000)
    reader.poll_until(lambda: reader.log.has("topic created-later does not exist"))
    kafka.create_topic("created-later")
    produce(kafka, "created-later", numbers(3))
    reader.poll_until(lambda: reader.sink.count == 3)
    assert reader.log.has("topic created-later exists now")


def test_to_the_end_is_to_that_of_every_topic(kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember) -> None:
    there, to_come = new_topic(), "created-after-the-other-was-read"
    produce(kafka, there, numbers(5))
    reader = member([there, to_come], BOUNDED, topic_metadata_refresh_interval_ms=1000)
    reader.poll_until(lambda: reader.sink.count == 5 and reader.log.has(f"topic {to_come} does not exist"))
    assert reader.poll(1_000_000) != END
    kafka.create_topic(to_come)
    produce(kafka, to_come, numbers(3))
    assert reader.drain() == END
    assert reader.sink.count == 8


def test_a_topic_that_is_missing_beside_another_fails_a_run_to_the_end(
    kafka: KafkaBroker, new_topic: NewTopic, member: OpenMember
) -> None:
    there = new_topic()
    produce(kafka, there, numbers(5))
    reader = member([there, "never-created-either"], {**BOUNDED, "connect_timeout": 2.0})
    assert reader.drain() == FAILED
    assert "topic never-created-either does not exist" in reader.reader.failure()
    assert reader.sink.count == 5


def test_a_topic_that_does_not_exist_ends_the_run_at_the_connect_timeout(member: OpenMember) -> None:
    reader = member("never-created", {"connect_timeout": 2.0})
    assert reader.drain() == FAILED
    assert "topic never-created does not exist" in reader.reader.failure()


def test_a_session_timeout_that_the_broker_does_not_take_ends_the_run(new_topic: NewTopic, member: OpenMember) -> None:
    reader = member(new_topic(), BOUNDED, session_timeout_ms=100, heartbeat_interval_ms=30)
    assert reader.drain() == FAILED
    assert "does not take session_timeout_ms=100: it lies between" in reader.reader.failure()


def test_no_broker_fails_at_the_connect_timeout(member: OpenMember) -> None:
    (port,) = free_ports(1)
    reader = member("orders", {"connect_timeout": 2.0}, bootstrap_servers=f"127.0.0.1:{port}")
    assert reader.drain() == FAILED
    assert f"no Kafka broker answered at 127.0.0.1:{port} within 2 s" in reader.reader.failure()
    assert "bootstrap.servers" in reader.reader.failure()


def test_no_broker_without_a_timeout_is_waited_for_and_said(member: OpenMember) -> None:
    (port,) = free_ports(1)
    reader = member("orders", bootstrap_servers=f"127.0.0.1:{port}")
    reader.poll_until(lambda: reader.log.has(f"no broker answers at 127.0.0.1:{port}"))


def test_a_commit_that_is_sent_again_does_not_overtake_a_later_one(
    kafka: KafkaBroker, proxy: TcpProxy, new_topic: NewTopic, member: OpenMember
) -> None:
    """librdkafka sends one again whose connection was lost before its answer came, a moment after it has a new one."""
    topic = new_topic()
    produce(kafka, topic, numbers(100))
    reader = member(topic, bootstrap_servers=proxy.address, consumer_group=topic, session_timeout_ms=30_000)
    reader.poll_until(lambda: len(reader.values()) == 100)
    ((index, _),) = positions(reader.sink.messages).items()
    proxy.freeze()
    assert reader.reader.commit({index: 10}) == ""
    assert reader.reader.commit({index: 20}) is None  # the one before is not answered
    time.sleep(0.3)  # it is on its way
    proxy.cut()
    proxy.resume()
    assert reader.reader.commit({index: 100}, wait=True) == ""
    answered = time.monotonic() + 2  # longer than librdkafka waits before it sends a request again
    reader.poll_until(lambda: time.monotonic() > answered)
    assert committed(kafka.bootstrap_servers, topic, topic, 1) == [100]


def test_a_commit_waits_no_longer_because_one_before_it_is_not_answered(
    proxy: TcpProxy, new_topic: NewTopic, kafka: KafkaBroker, member: OpenMember
) -> None:
    topic = new_topic()
    produce(kafka, topic, numbers(100))
    reader = member(topic, bootstrap_servers=proxy.address, consumer_group=topic, session_timeout_ms=30_000)
    reader.poll_until(lambda: len(reader.values()) == 100)
    ((index, _),) = positions(reader.sink.messages).items()
    proxy.freeze()
    assert reader.reader.commit({index: 10}) == ""
    began = time.monotonic()
    assert "could not commit" in (reader.reader.commit({index: 100}, wait=True) or "")
    assert COMMIT_SECONDS <= time.monotonic() - began < 2 * COMMIT_SECONDS
    proxy.resume()


@pytest.mark.timeout(400)  # three starts of a JVM, on a machine that may be busy
def test_reading_goes_on_after_a_broker_restart(own_kafka: KafkaBroker, member: OpenMember) -> None:
    topic = own_kafka.create_topic("restarted", 2)
    produce(own_kafka, topic, numbers(100), partitions=2)
    reader = member(topic, bootstrap_servers=own_kafka.bootstrap_servers)
    reader.poll_until(lambda: reader.sink.count == 100)
    own_kafka.stop()
    reader.poll_until(lambda: reader.log.has("no broker answers"))
    own_kafka.start()
    produce(own_kafka, topic, numbers(100, start=100), partitions=2)
    reader.poll_until(lambda: set(reader.values()) == set(numbers(200)))
    assert reader.log.has(f"{own_kafka.bootstrap_servers} answers")

    # The membership outlives the broker's absence or it does not, as quickly as the broker came back. If not, the
    # partitions are lost at any time from here on, and read again from the beginning.
    def committed() -> bool:
        held = [m for m in reader.sink.messages if m.partition in reader.listener.held]
        reader.reader.commit(positions(held), wait=True)
        return reader.reader.native.committed([(topic, 0), (topic, 1)], 5000) == [100, 100]  # type: ignore[attr-defined]

    reader.poll_until(committed)
    assert sum(reader.reader.lag().values()) == 0

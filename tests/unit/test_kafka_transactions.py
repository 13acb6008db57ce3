"""pythia_fast.brokers.kafka_transactions against a producer that does what a real one does only now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pythia_fast.brokers import kafka_transactions, kafka_waiting_calls, kafka_withheld
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.kafka import KafkaProducer
from pythia_fast.brokers.kafka_transactions import INVALID_TXN_STATE, KafkaTransactions
from pythia_fast.errors import SinkError

OUT_OF_ORDER = 45
FENCED = 90
TIMED_OUT = -185
POSITIONS = [("rows", 0, 5)]


class Producer:
    """Stands for KafkaPublisherNative: every call succeeds at once, but for what a test puts in its way."""

    made: ClassVar[list[Producer]] = []
    on_init: ClassVar[Callable[[Producer], Any]] = lambda _: None
    before_send: ClassVar[Callable[[Producer], Any]] = lambda _: None
    on_commit: ClassVar[Callable[[Producer], Any]] = lambda _: None
    on_abort: ClassVar[Callable[[Producer], Any]] = lambda _: None

    def __init__(self, options: dict[str, str], *topics: str) -> None:
        self.lost_to = self.tickets = self.fatal_code = 0
        self.closed = False
        self.calls: list[str] = []
        self.records: list[memoryview] = []
        self.reports: list[tuple[int, list[tuple[int, int]]]] = []
        self.added: list[tuple[int, int, int]] = []
        Producer.made.append(self)

    def init_transactions(self, timeout_ms: int) -> object:
        self.calls.append("init")
        return Producer.on_init(self)

    def begin_transaction(self) -> None:
        self.calls.append("begin")

    def send_offsets(self, offsets: object, group: bytes, timeout_ms: int) -> object:
        self.calls.append("positions")
        return Producer.before_send(self)

    def commit_transaction(self, timeout_ms: int) -> object:
        self.calls.append("commit")
        return Producer.on_commit(self)

    def abort_transaction(self, timeout_ms: int) -> object:
        self.calls.append("abort")
        return Producer.on_abort(self)

    def add(self, records: memoryview, count: int, ticket: int, topic: int) -> None:
        self.added.append((count, ticket, topic))
        self.records.append(records)

    def poll(self, timeout_ms: int) -> list[tuple[int, list[tuple[int, int]]]]:
        reports, self.reports = self.reports, []
        return reports

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str]) -> Iterator[KafkaTransactions]:
    monkeypatch.setattr(kafka_transactions, "KafkaPublisherNative", Producer)
    for module in (kafka_transactions, kafka_waiting_calls):
        monkeypatch.setattr(module, "CALL_MS", 20)
    monkeypatch.setattr(Producer, "made", [])
    for name in ("on_init", "before_send", "on_commit", "on_abort"):
        monkeypatch.setattr(Producer, name, lambda _: None)
    sink = KafkaProducer("out", options={"transaction.timeout.ms": 1000})
    context = PublisherContext("app", "handler", tmp_path, lines.append, None)
    made = KafkaTransactions(sink, None, context, "the-id", lambda: None)
    yield made
    made.close(5)


def outcome(transactions: KafkaTransactions) -> str:
    deadline = time.monotonic() + 20
    while (found := transactions.outcome()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def test_a_transaction_is_committed_with_its_positions(transactions: KafkaTransactions) -> None:
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "committed"
    (producer,) = Producer.made
    assert producer.calls == ["init", "begin", "positions", "commit"]


def test_an_outcome_is_told_though_a_request_without_one_was_served_since(transactions: KafkaTransactions) -> None:
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    served = threading.Event()
    transactions._requests.put(lambda: None)  # as records that are tried out
    transactions._requests.put(served.set)
    assert served.wait(20)
    assert outcome(transactions) == "committed"
    assert transactions.outcome() is None


def test_a_call_that_does_not_end_is_left_behind_with_its_producer(
    transactions: KafkaTransactions, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()
    monkeypatch.setattr(Producer, "before_send", lambda self: ends.wait(60) and None)
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "aborted"
    first, second = Producer.made
    assert not first.closed  # the call that does not end has it
    assert second.calls == ["init"]
    assert "a new producer takes the id over: the group's coordinator did not answer for 1 s" in lines[-1]
    ends.set()
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "committed"


@pytest.mark.parametrize(
    "failure",
    [(INVALID_TXN_STATE, "no such transaction", "fatal"), (OUT_OF_ORDER, "out of order sequence number", "fatal")],
)
def test_a_producer_that_ends_within_a_transaction_is_replaced(
    transactions: KafkaTransactions, lines: list[str], monkeypatch: pytest.MonkeyPatch, failure: object
) -> None:
    monkeypatch.setattr(Producer, "on_commit", lambda self: failure if self is Producer.made[0] else None)
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "aborted"
    assert Producer.made[0].closed
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "committed"


def test_a_producer_that_cannot_abort_is_replaced(
    transactions: KafkaTransactions, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_abort(producer: Producer) -> object:
        return (TIMED_OUT, "Timed out waiting for operation to finish", "retry")

    monkeypatch.setattr(Producer, "on_abort", on_abort)
    assert outcome(transactions) == "ready"
    transactions.begin()
    began = time.monotonic()
    transactions.abort()
    assert outcome(transactions) == "aborted"
    assert time.monotonic() - began >= transactions.timeout_s
    first, second = Producer.made
    assert first.closed
    assert second.calls == ["init"]
    assert "it cannot be aborted yet, after 1 s: Timed out waiting for operation" in lines[-1]
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "committed"


def test_one_whose_id_was_taken_ends_the_run(transactions: KafkaTransactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Producer, "on_commit", lambda self: (FENCED, "fenced", "fatal"))
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    with pytest.raises(SinkError, match=r"another producer has taken over transactional id 'the-id'"):
        outcome(transactions)


def test_one_that_is_refused_while_it_takes_the_id_over_ends_the_run(
    transactions: KafkaTransactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = (53, "Transactional Id authorization failed", "fatal")
    assert outcome(transactions) == "ready"
    monkeypatch.setattr(Producer, "on_commit", lambda self: (OUT_OF_ORDER, "broker died", "fatal"))
    monkeypatch.setattr(Producer, "on_init", lambda self: refused)
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    with pytest.raises(SinkError, match=r"of 'the-id': Transactional Id authorization failed; the open one is read"):
        outcome(transactions)
    assert len(Producer.made) == 2


def test_an_error_that_nobody_foresaw_ends_the_run(
    transactions: KafkaTransactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Producer, "on_commit", lambda self: {}["away"])
    assert outcome(transactions) == "ready"
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    with pytest.raises(SinkError, match=r"of 'the-id': KeyError: 'away'; the open one is read again"):
        outcome(transactions)


def test_a_transaction_is_aborted_where_no_thread_can_be_started_and_the_next_one_is_committed(
    transactions: KafkaTransactions, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert outcome(transactions) == "ready"
    transactions.begin()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        transactions.commit(POSITIONS, b"member")
        assert outcome(transactions) == "aborted"
    assert lines[-1].endswith("it cannot be committed: can't start new thread")
    (producer,) = Producer.made
    assert producer.calls == ["init", "begin", "abort"]
    transactions.begin()
    transactions.commit(POSITIONS, b"member")
    assert outcome(transactions) == "committed"


def test_a_late_transaction_is_not_known_to_the_broker_before_it_is_written(transactions: KafkaTransactions) -> None:
    assert outcome(transactions) == "ready"
    (producer,) = Producer.made
    transactions.begin(late=True)
    assert transactions.writes_late
    transactions.sink.publish(memoryview(b"first"), 3, 1)
    transactions.sink.publish(memoryview(b"second"), 2, 2)
    assert (producer.added, transactions.open_s) == ([], 0.0)
    transactions.write()
    transactions.write()
    assert producer.added == [(3, 1, 0), (2, 2, 0)]
    assert transactions.open_s > 0


def test_an_abort_gives_back_what_was_withheld(transactions: KafkaTransactions) -> None:
    assert outcome(transactions) == "ready"
    (producer,) = Producer.made
    transactions.begin(late=True)
    transactions.sink.publish(memoryview(b"first"), 3, 1)
    transactions.abort()
    assert outcome(transactions) == "aborted"
    assert transactions.sink._poll(0) == [(1, [])]
    transactions.begin()
    transactions.write()
    assert producer.added == []
    assert not transactions.writes_late


def test_records_of_a_batch_that_goes_on_are_set_aside(transactions: KafkaTransactions) -> None:
    assert outcome(transactions) == "ready"
    (producer,) = Producer.made
    transactions.begin(late=True)
    region = bytearray(b"first")
    transactions.goes_on(1)
    transactions.sink.publish(memoryview(region), 3, 1)
    transactions.sink.publish(memoryview(b"last"), 1, 2)
    assert transactions.sink._poll(0) == [(1, [])]  # so the batch goes on
    region[:] = b"other"
    assert transactions.unwritten
    transactions.write()
    (count, aside, topic), last = producer.added
    assert (count, topic, last) == (3, 0, (1, 2, 0))
    assert bytes(producer.records[0]) == b"first"
    producer.reports = [(2, []), (aside, [])]
    assert transactions.sink._poll(0) == [(2, [])]
    assert not transactions.unwritten
    assert transactions.lost() == ""


def test_no_more_is_set_aside_than_memory_is_meant_for_it(
    transactions: KafkaTransactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_withheld, "ASIDE_BYTES", 8)
    assert outcome(transactions) == "ready"
    transactions.begin(late=True)
    for ticket in (1, 2):
        transactions.goes_on(ticket)
        transactions.sink.publish(memoryview(b"first"), 3, ticket)
    assert transactions.sink._poll(0) == [(1, [])]


def test_a_record_that_was_set_aside_and_is_refused_aborts_and_is_the_last(transactions: KafkaTransactions) -> None:
    """Nobody has its row any more, to make a dead letter of it."""
    assert outcome(transactions) == "ready"
    (producer,) = Producer.made
    transactions.begin(late=True)
    transactions.goes_on(1)
    transactions.sink.publish(memoryview(b"first"), 3, 1)
    transactions.write()
    producer.reports = [(producer.added[0][1], [(0, 10)])]
    assert transactions.sink._poll(0) == [(1, [])]
    assert "a record of a batch that went on was refused" in transactions.lost()
    transactions.abort()
    assert outcome(transactions) == "aborted"
    assert transactions.lost() == ""
    transactions.begin(late=True)
    transactions.goes_on(2)
    transactions.sink.publish(memoryview(b"first"), 3, 2)
    assert transactions.sink._poll(0) == []

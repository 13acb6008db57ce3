"""pythia_fast.brokers.kafka_rehearsal against a broker that refuses by rule, and does what a real one does seldom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers import kafka_rehearsal
from pythia_fast.brokers.framing import frame_record, iterate_records
from pythia_fast.brokers.kafka_rehearsal import ATTEMPTS, Rehearsal, Ticket, record_starts

TOO_LARGE = 10
PURGED = -152
OPTIONS = {"transactional.id": "the-id", "batch.size": "1000"}


class Broker:
    """Stands for KafkaPublisherNative: one batch a group, refused by ``refuses``."""

    made: ClassVar[list[Broker]] = []
    refuses: ClassVar[Callable[[list[bytes]], int]] = lambda _: 0
    init_failure: ClassVar[tuple[int, str, str] | None] = None

    def __init__(self, options: dict[str, str], *topics: str) -> None:
        self.id = options["transactional.id"]
        self.lost_to = 0
        self.tickets = 0
        self.open = self.closed = False
        self.numbers_are_missing = False
        self.accepted: list[list[bytes]] = []
        self.committed = 0
        Broker.made.append(self)

    def init_transactions(self, timeout_ms: int) -> tuple[int, str, str] | None:
        return Broker.init_failure

    def begin_transaction(self) -> None:
        assert not self.open
        self.open = True
        self.lost_to = 0

    def add(self, records: memoryview, count: int, ticket: int, topic: int) -> None:
        assert self.open
        assert self.lost_to == 0
        payloads = [record.payload or b"" for record in iterate_records(records)]
        assert len(payloads) == count
        self.tickets = 1
        self.lost_to = Broker.refuses(payloads)
        if self.lost_to:
            self.numbers_are_missing = True
        elif self.numbers_are_missing:  # as Kafka 4.3 does
            self.numbers_are_missing = False
            self.lost_to = PURGED
        else:
            self.accepted.append(payloads)

    def poll(self, timeout_ms: int) -> list[object]:
        self.tickets = 0
        return []

    def abort_transaction(self, timeout_ms: int) -> None:
        assert self.open
        self.open = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Broker]]:
    monkeypatch.setattr(kafka_rehearsal, "KafkaPublisherNative", Broker)
    monkeypatch.setattr(Broker, "made", [])
    yield Broker
    Broker.refuses = lambda _: 0
    Broker.init_failure = None


def tried(payloads: list[bytes], *, over: bool = False) -> tuple[Ticket, Rehearsal, list[str]]:
    lines: list[str] = []
    rehearsal = Rehearsal(OPTIONS, ["out", "dead"], lambda: over, lines.append)
    rehearsal.begin()
    ticket = rehearsal.add(memoryview(b"".join(frame_record(payload) for payload in payloads)), 1, 0)
    rehearsal.find(ticket)
    return ticket, rehearsal, lines


@given(sizes=st.lists(st.integers(0, 120), min_size=1, max_size=60), limit=st.integers(20, 300))
def test_exactly_the_records_that_are_refused_alone_are_found(sizes: list[int], limit: int) -> None:
    """And the others are in groups that were accepted, each once, in their order."""
    Broker.refuses = lambda payloads: TOO_LARGE if sum(map(len, payloads)) > limit else 0
    Broker.made.clear()
    payloads = [bytes([i]) * size for i, size in enumerate(sizes)]
    ticket, rehearsal, _ = tried(payloads)
    assert ticket.verdict is not None
    assert ticket.verdict.refused == [(i, TOO_LARGE) for i, size in enumerate(sizes) if size > limit]
    written = []
    for group in ticket.verdict.groups:
        records = [record.payload or b"" for record in iterate_records(ticket.records[group.start : group.end])]
        assert records == payloads[group.first : group.first + group.count]
        assert records in Broker.made[0].accepted
        written += records
    assert written == [payload for payload in payloads if len(payload) <= limit]
    assert not Broker.made[0].open  # what was tried is undone
    rehearsal.close()
    assert Broker.made[0].closed


@given(st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9)), max_size=9))
def test_records_begin_where_their_framing_says(parts: list[tuple[bytes | None, bytes | None]]) -> None:
    framed = [frame_record(payload, key, b"\1\0a\0\0\0\0") for payload, key in parts]
    assert record_starts(memoryview(b"".join(framed))) == [len(b"".join(framed[:i])) for i in range(len(framed) + 1)]


def test_a_topic_that_takes_small_batches_only_is_told_and_remembered() -> None:
    Broker.refuses = lambda payloads: TOO_LARGE if len(payloads) > 4 else 0
    ticket, rehearsal, lines = tried([b"12345678"] * 32)
    assert ticket.verdict is not None
    assert not ticket.verdict.refused
    (line,) = lines
    assert "topic out does not take batches as large as the producer makes them" in line
    asked = len(Broker.made[0].accepted)
    again = rehearsal.add(ticket.records, 2, 0)
    rehearsal.find(again)
    assert again.verdict is not None
    assert len(Broker.made[0].accepted) - asked == len(again.verdict.groups)  # none was refused this time
    assert len(lines) == 1


def test_another_producer_tries() -> None:
    tried([b"a"])
    assert [broker.id for broker in Broker.made] == ["the-id.trial"]


def test_what_cannot_be_tried_is_said_and_its_ticket_gets_no_verdict() -> None:
    Broker.refuses = lambda _: PURGED
    ticket, rehearsal, _ = tried([b"a"])
    assert ticket.verdict is None
    assert rehearsal.failed.startswith("records could not be tried out: ")
    assert ATTEMPTS > 1
    rehearsal.drop()
    Broker.refuses = lambda _: 0
    again = rehearsal.add(ticket.records, 2, 0)
    rehearsal.find(again)
    assert again.verdict is not None


def test_an_id_that_may_not_be_used_is_named() -> None:
    Broker.init_failure = (53, "not authorized", "fatal")
    _, rehearsal, _ = tried([b"a"])
    assert rehearsal.failed == "records cannot be tried out as transactional id 'the-id.trial': not authorized"
    assert Broker.made[0].closed


def test_nothing_is_tried_on_when_the_transaction_is_aborted_or_the_run_ends() -> None:
    ticket, _, _ = tried([b"a"], over=True)
    assert ticket.verdict is None
    assert Broker.made[0].closed
    rehearsal = Rehearsal(OPTIONS, ["out"], lambda: False, print)
    rehearsal.begin()
    ticket = rehearsal.add(ticket.records, 1, 0)
    rehearsal.cancel()
    rehearsal.find(ticket)
    assert ticket.verdict is None
    rehearsal.drop()
    assert rehearsal.all_tried()


def test_it_ends_once_nothing_was_refused_for_long_and_something_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    now: dict[str, Any] = {"s": 100.0}
    monkeypatch.setattr(kafka_rehearsal.time, "monotonic", lambda: now["s"])
    rehearsal = Rehearsal(OPTIONS, ["out"], lambda: False, print)
    assert not rehearsal.on
    rehearsal.begin()
    now["s"] += kafka_rehearsal.TRIAL_S + 1
    rehearsal.end_in_time()
    assert rehearsal.on  # whatever takes so long: the rows that were read again are not committed yet
    rehearsal.committed()
    rehearsal.end_in_time()
    assert not rehearsal.on

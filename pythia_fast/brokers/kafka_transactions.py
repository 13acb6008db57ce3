"""A transactional Kafka producer: the sink and the dead letters of one handler, and its source's positions, as one.

Calls that wait for the broker (taking the transactional id over, commit, abort) are made on a thread of their own, one
at a time. While one is under way nobody else touches the producer: the completion thread publishes, and asks for
deliveries, only while a transaction is open.

After a record was refused for good, records are tried out on that same thread before they are written
(kafka_rehearsal.py), so that the transaction is written without those that the broker does not take. A transaction may
also be begun ``late``: its records are withheld until they are all there (kafka_withheld.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.kafka_awaited_topics import AwaitedTopics
from pythia_fast.brokers.kafka_publisher import POLL_MS, UNKNOWN_TOPIC, KafkaPublisher
from pythia_fast.brokers.kafka_rehearsal import REFUSED, Rehearsal
from pythia_fast.brokers.kafka_waiting_calls import CALL_MS, ClosedError, Failure, OverError, WaitingCalls
from pythia_fast.brokers.kafka_withheld import Records, Withheld
from pythia_fast.error_text import reason_of
from pythia_fast.errors import SinkError

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka import KafkaProducer

#: What became of the last request. "ready": the transactional id is ours.
Outcome = Literal["ready", "committed", "aborted"]
Position = tuple[str, int, int]  #: topic, partition, offset to go on from

ABORT_AT_END_S = 2.0  #: longest time that the end of a run waits for an abort
#: Somebody else has the transactional id: _FENCED, INVALID_PRODUCER_EPOCH, PRODUCER_FENCED.
FENCED = frozenset({-144, 47, 90})
#: The broker knows of no open transaction: it has aborted it by itself, or was restarted.
INVALID_TXN_STATE = 48
DEAD_LETTERS = 1  #: their topic's index among the producer's


class KafkaTransactions:
    """One transactional producer.

    Parameters:
        sink: where outputs go.
        dead_letters: where dead letters go, if that is Kafka as well.
        context: what an open sink is given.
        transactional_id: as the brokers know this copy of the handler.
        wake: called, on any thread, when ``outcome`` has something to tell.
    """

    def __init__(
        self,
        sink: KafkaProducer,
        dead_letters: KafkaProducer | None,
        context: PublisherContext,
        transactional_id: str,
        wake: Callable[[], None],
    ) -> None:
        self.transactional_id = transactional_id
        options = sink.transactional_options(context, transactional_id)
        self.timeout_s = int(options["transaction.timeout.ms"]) / 1000  #: after which the broker aborts by itself
        producers = [sink] if dead_letters is None else [sink, dead_letters]
        self._context = context
        self._wake = wake
        self._options = options
        self._topics = [producer.topic for producer in producers]
        self._native = KafkaPublisherNative(options, *self._topics)
        self._parts = [_Part(self, producer, context, self._native, at) for at, producer in enumerate(producers)]
        self.sink: KafkaPublisher = self._parts[0]
        self.dead_letters: KafkaPublisher | None = self._parts[1] if dead_letters is not None else None
        self._owners: dict[int, _Part] = {}  #: by ticket
        self._since: float | None = None  #: when the open transaction got its first record
        self._withheld = Withheld()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._failure: SinkError | None = None
        self._open = False
        self._over = ""  #: what librdkafka told that ended the producer within a transaction
        self._closing = threading.Event()
        places = [(producer.topic, producer.bootstrap_servers) for producer in producers]
        self._awaited = AwaitedTopics(places, context.connect_timeout, self._closing, self._tell)
        self._calls = WaitingCalls(self._closing, self._judge, self._tell)
        self._rehearsal = Rehearsal(options, self._topics, self._closing.is_set, self._tell)
        self._requests: SimpleQueue[Callable[[], Outcome | None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"transactions {context.handler}", daemon=True)
        self._requests.put(self._take_over)
        self._thread.start()

    # -- the completion thread -------------------------------------------------------------------

    def outcome(self) -> Outcome | None:
        """What the last request has come to, told once; None: it is under way, or there was none.

        Raises SinkError where this producer is at its end.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._outcomes.get_nowait()
        except Empty:
            return None

    def begin(self, *, late: bool = False) -> None:
        """Open a transaction. ``late``: its records wait for ``write``. Raises SinkError."""
        self._rehearsal.end_in_time()
        self._withheld.late = late
        self._check(self._native.begin_transaction())
        self._since = None
        self._open = True

    def commit(self, positions: Sequence[Position], group: bytes) -> None:
        """Begin to commit: all deliveries have come. ``group``: the membership that the positions are of."""
        self._requests.put(lambda: self._commit(positions, group))

    def abort(self) -> None:
        """Begin to abort. All tickets that are on their way then come back as delivered, which they are not."""
        self._rehearsal.cancel()
        self._requests.put(self._abort)

    @property
    def missing(self) -> tuple[str, ...]:
        """Topics that do not exist, while they are waited for."""
        return self._awaited.missing

    @property
    def open_s(self) -> float:
        """Seconds for which the broker has known the open transaction."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def lost(self) -> str:
        """Why the open transaction cannot be committed; empty: it can."""
        if reason := self._over or self._withheld.refused or self._rehearsal.failed:
            return reason
        code = self._native.lost_to
        if code in REFUSED:
            return (
                f"Kafka topic {' or '.join(self._topics)} refused records for good ({librdkafka.error_text(code)}); "
                "those are found out, one by one, before anything is written again"
            )
        if code in UNKNOWN_TOPIC:
            return f"Kafka topic {' or '.join(self._topics)} does not exist"
        return f"a record could not be written: {librdkafka.error_text(code)}" if code else ""

    @property
    def writes_late(self) -> bool:
        """Whether records wait for ``write``, perhaps after they were tried out."""
        return self._withheld.late or self._rehearsal.on

    @property
    def unwritten(self) -> bool:
        """Whether records that were reported as delivered are not."""
        return self._withheld.unwritten

    def goes_on(self, ticket: int) -> None:
        """The batch of these records, which are to be published now, goes on when they are delivered."""
        self._withheld.goes_on(ticket)

    def write(self) -> None:
        """Begin to write what waits: nothing more comes into this transaction before that is written.

        So what takes long, finding the rows that hang or the records that are refused, is over before the broker knows
        of the transaction. Raises SinkError for a dead letter that is refused.
        """
        for withheld in self._withheld.take():
            self._add(*withheld)
        rehearsal = self._rehearsal
        if not rehearsal.all_tried():
            return
        while rehearsal.tickets and not self._native.tickets:
            ticket = rehearsal.tickets[0]
            assert ticket.verdict is not None
            if ticket.topic == DEAD_LETTERS and ticket.verdict.refused:
                raise self._refusal(ticket.verdict.refused[0][1])
            if ticket.verdict.groups:
                ticket.written = group = ticket.verdict.groups.popleft()
                self._add(ticket.records[group.start : group.end], group.count, ticket.number, ticket.topic)
            else:
                rehearsal.tickets.popleft()
                failed = sorted(ticket.verdict.refused + ticket.failed)
                self._owners.pop(ticket.number).done.append((ticket.number, failed))

    def _refusal(self, code: int) -> SinkError:
        return SinkError(
            f"Kafka topic {self._topics[DEAD_LETTERS]} refused a dead letter for good: {librdkafka.error_text(code)}. "
            "Nothing can be left out of a transaction, so it is aborted: let the topic take larger batches "
            "(max.message.bytes), or have the producer make dead letters of larger records before they are sent "
            "(message_max_bytes=)"
        )

    def look_around(self) -> None:
        """Hear what librdkafka has to tell. Raises SinkError for what ends the run."""
        self.sink.look_around()

    def hear_fatal(self, code: int, text: str) -> None:
        """librdkafka's producer is at its end. Raises SinkError where another one would not help."""
        if not self._is_over(code, fatal=True):
            raise self.ended(code, text)
        self._over = text

    def close(self, timeout: float) -> None:
        """Abort what is open, so that readers need not wait for it, and close."""
        self._closing.set()
        self._withheld.drop()
        self._requests.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():  # a call of librdkafka hangs; the broker aborts in its own time
            return
        if self._calls.left_behind:
            return
        self._rehearsal.close()
        if self._open and self._failure is None:
            self._native.abort_transaction(round(min(timeout, ABORT_AT_END_S) * 1000))
        self._native.close()

    # -- parts -----------------------------------------------------------------------------------

    def publish(self, part: _Part, records: memoryview, count: int, ticket: int) -> None:
        """Begin to write records into the open transaction."""
        self._owners[ticket] = part
        if self._rehearsal.on:
            tried = self._rehearsal.add(records, ticket, part.index)
            self._requests.put(lambda: self._rehearsal.find(tried))
        elif not self._withheld.late:
            self._add(records, count, ticket, part.index)
        elif self._withheld.keep(Records(records, count, ticket, part.index)):
            self._owners.pop(ticket).done.append((ticket, []))

    def _add(self, records: memoryview, count: int, ticket: int, topic: int) -> None:
        if self._since is None:
            self._since = time.monotonic()
        self._native.add(records, count, ticket, topic)

    def collect(self, timeout_ms: int) -> None:
        """Hand every ticket that is done to its part."""
        for ticket, failed in self._native.poll(timeout_ms):
            tried = self._rehearsal.writing(ticket)
            if self._withheld.delivered(ticket, failed):
                continue
            if tried is None:
                self._owners.pop(ticket).done.append((ticket, failed))
            elif tried.written is not None:  # a group of it: ``write`` goes on with the next one
                tried.failed += [(tried.written.first + index, code) for index, code in failed]

    # -- the thread of its own -------------------------------------------------------------------

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                outcome = self._attempt(request)
                if outcome is not None:
                    self._outcomes.put(outcome)
            except ClosedError:
                return
            except BaseException as error:  # a run whose thread is gone would wait for it for ever
                self._failure = error if isinstance(error, SinkError) else self.ended(0, reason_of(error))
            self._wake()

    def _attempt(self, request: Callable[[], Outcome | None]) -> Outcome | None:
        try:
            return request()
        except OverError as over:
            self._tell(f"it is given up, and a new producer takes the id over: {over}")
            return self._renew()

    def _renew(self) -> Outcome:
        """Another producer with the same id. Whether the last transaction was committed, the group's positions tell."""
        if not self._calls.left_behind:
            self._native.close()
        self._calls.left_behind = False
        self._drop_tickets()
        self._native = KafkaPublisherNative(self._options, *self._topics)
        for each in self._parts:
            each.use(self._native)
        self._since = None
        self._over = ""
        self._open = False  # the new producer has none: what is fatal while it takes over ends the run
        self._take_over()
        return "aborted"

    def _take_over(self) -> Outcome:
        self._calls.insist(
            lambda: self._native.init_transactions(CALL_MS),
            "is not ours yet",
            between=lambda: self._native.poll(0),  # else nobody hears of a broker that is away
        )
        return "ready"

    def _commit(self, positions: Sequence[Position], group: bytes) -> Outcome:
        for call in (
            lambda: self._send_offsets(positions, group),
            lambda: self._native.commit_transaction(CALL_MS),
        ):
            reason = self._calls.insist(call, "cannot be committed yet")
            if reason:
                self._tell(f"it cannot be committed: {reason}")
                return self._abort()
        self._open = False
        self._rehearsal.committed()
        return "committed"

    def _send_offsets(self, positions: Sequence[Position], group: bytes) -> Failure | None:
        """Where the group's coordinator went away and came back, this may never end (librdkafka issues 5456, 5511)."""
        native = self._native
        return self._calls.answered_within(
            self.timeout_s,
            lambda: native.send_offsets(positions, group, CALL_MS),
            f"positions {self._context.handler}",
            "the group's coordinator",
        )

    def _abort(self) -> Outcome:
        # librdkafka may wait for ever for reports of records whose partition lost its leader before the broker knew it
        # to be in the transaction. A new producer with the id has the broker abort what the old one left open.
        self._calls.insist(
            lambda: self._native.abort_transaction(CALL_MS), "cannot be aborted yet", give_up_after_s=self.timeout_s
        )
        while self._native.tickets:
            self.collect(POLL_MS)
            if self._closing.is_set():
                raise ClosedError
        self._drop_tickets()
        self._open = False
        code = self._native.lost_to
        if code in REFUSED:
            self._rehearsal.begin()
            # To the broker, numbers are missing among this producer's records: its next transaction would be lost, too.
            raise OverError(librdkafka.error_text(code))
        if code in UNKNOWN_TOPIC:
            self._awaited.wait(self._native.topic_error)
        return "aborted"

    def _drop_tickets(self) -> None:
        """All tickets come back."""
        for ticket, part in self._owners.items():
            part.done.append((ticket, []))
        self._owners.clear()
        self._withheld.drop()
        self._rehearsal.drop()

    def _judge(self, failure: Failure) -> None:
        code, text, kind = failure
        if self._is_over(code, fatal=kind == "fatal"):
            raise OverError(text)
        if kind != "retry":
            self._check(failure)

    def _is_over(self, code: int, *, fatal: bool) -> bool:
        """Whether the open transaction ends with this producer, though nobody else has taken the id.

        So it is where the broker aborted it because of its age, and where librdkafka cannot tell any more which of its
        records the broker has: it died while they were on their way.
        """
        if not self._open:
            return False
        return code == INVALID_TXN_STATE or (self.open_s >= self.timeout_s if code in FENCED else fatal)

    def _check(self, failure: Failure | None) -> None:
        if failure is None:
            return
        code, text, _ = failure
        raise self.ended(code, text)

    def ended(self, code: int, text: str) -> SinkError:
        """What ends this producer, as a sentence that says what to do."""
        if code in FENCED:
            return SinkError(
                f"another producer has taken over transactional id {self.transactional_id!r}, so this run ends "
                f"({text}); nothing of its open transaction is seen. Give every copy of the handler a transactional_id "
                "of its own, or leave it out"
            )
        return SinkError(f"Kafka transactions of {self.transactional_id!r}: {text}; the open one is read again")

    def _tell(self, sentence: str) -> None:
        self._context.log(f"{self._context.handler}: transaction of {self.transactional_id}: {sentence}")


class _Part(KafkaPublisher):
    """One topic of a transactional producer."""

    def __init__(
        self,
        transactions: KafkaTransactions,
        producer: KafkaProducer,
        context: PublisherContext,
        native: KafkaPublisherNative,
        index: int,
    ) -> None:
        super().__init__(producer, context, native)
        self.index = index
        self.done: list[tuple[int, list[tuple[int, int]]]] = []
        self._transactions = transactions

    def use(self, native: KafkaPublisherNative) -> None:
        """Go on with another producer."""
        self._native = native

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        self._note_progress()
        self._transactions.publish(self, records, count, ticket)

    def _poll(self, timeout_ms: int) -> Sequence[tuple[int, list[tuple[int, int]]]]:
        self._transactions.collect(timeout_ms)
        done, self.done = self.done, []
        return done

    def _hear_fatal(self, reason: str) -> None:
        self._transactions.hear_fatal(self._native.fatal_code, reason)

    def trouble(self) -> str | None:
        """Told by the first part for the whole producer, but for a topic that does not exist."""
        if self._transactions.missing:
            return self._missing() if self._topic in self._transactions.missing else None
        return super().trouble() if self.index == 0 else None

    def close(self, timeout: float) -> None:
        """Nothing: the producer is closed as a whole."""

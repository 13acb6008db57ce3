"""Finding the records that a broker refuses, before they are in a transaction that counts.

A record that the broker refuses takes its whole transaction with it, and nobody says which one it was: the batch that
it was in comes back. So once that has happened, what is to be written is tried out first: another producer writes it
into transactions that are always aborted, which no reader of committed records sees. A group of records that is refused
is halved until a record is alone.

    ticket ─▶ tried in groups ─┬─ accepted ─▶ written in the same groups, one after the other
                               └─ alone and refused ─▶ a failed record of its ticket, so a dead letter

Writing in the same groups, each after the one before is reported, keeps librdkafka from making larger batches of them
than were accepted.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import NO_BYTES, RECORD_HEADER_BYTES
from pythia_fast.brokers.kafka_publisher import POLL_MS

#: The broker will never take the record: INVALID_MSG, INVALID_MSG_SIZE, MSG_SIZE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
#: INVALID_TIMESTAMP, INVALID_RECORD.
REFUSED = frozenset({2, 4, 10, 18, 32, 87})
TRIAL_S = 10.0  #: records are tried out for so long after the last that was refused
#: Of a group whose transaction is lost for another reason. The first one after a refusal always is: the broker misses
#: the sequence numbers of what it refused.
ATTEMPTS = 5
CALL_MS = 1000

_SIZES = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Group:
    """Records of a ticket that go together."""

    start: int  #: first byte
    end: int  #: byte after the last
    first: int  #: index of the first record
    count: int


class Verdict(NamedTuple):
    """What became of a ticket's records when they were tried."""

    groups: deque[Group]  #: accepted
    refused: list[tuple[int, int]]  #: (record index, error code), by index


@dataclass(slots=True)
class Ticket:
    """Records that are tried, then written."""

    number: int
    topic: int  #: its index among the producer's
    records: memoryview
    verdict: Verdict | None = None  #: set by the thread that tries; None: it was not their turn yet
    written: Group | None = None  #: the group on its way, or the last one that was
    failed: list[tuple[int, int]] = field(default_factory=list)  #: as Verdict.refused: what librdkafka refused at once


class CannotTryError(Exception):
    """Why records could not be tried out; the transaction that waits for them has to be aborted."""


class GivenUpError(Exception):
    """Nobody waits for the verdict any more."""


class Rehearsal:
    """Whether records are tried out, the tickets that are, and the producer that tries.

    ``find`` and ``close`` are called by the thread that makes the blocking calls of transactions, the rest by the one
    that publishes.

    Parameters:
        options: of the producer that writes; ours is the same but for its transactional id.
        topics: that it writes to.
        over: whether the run ends, so that no call may be made again.
        tell: logs a sentence.
    """

    def __init__(
        self,
        options: Mapping[str, str],
        topics: Sequence[str],
        over: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.on = False  #: records are tried out before they are written
        self.tickets: deque[Ticket] = deque()  #: in the order of their publication, until they are written
        self.failed = ""  #: why a ticket could not be tried; the transaction has to be aborted
        self._options = {**options, "transactional.id": options["transactional.id"] + ".trial"}
        self._topics = tuple(topics)
        self._over = over
        self._tell = tell
        self._cancelled = False
        self._native: KafkaPublisherNative | None = None
        self._begun = False
        self._number = 0
        self._group_bytes = int(options.get("batch.size", 1_000_000))
        self._refused_at = 0.0
        self._committed = False

    # -- whether --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The broker has refused something: try out what is written from now on."""
        if self.on:  # the groups that were accepted have made larger batches than when they were tried
            self._group_bytes //= 2
        self.on = True
        self._note_refusal()

    def committed(self) -> None:
        """A transaction was committed."""
        self._committed = True

    def end_in_time(self) -> None:
        """A transaction begins: try nothing out any more, if nothing was refused for long."""
        if self._committed and time.monotonic() - self._refused_at > TRIAL_S:
            self.on = False

    def _note_refusal(self) -> None:
        self._refused_at = time.monotonic()
        self._committed = False  # at least one transaction is tried out and committed, so that the rows go on

    # -- tickets --------------------------------------------------------------------------------------

    def add(self, records: memoryview, number: int, topic: int) -> Ticket:
        """A ticket to be tried."""
        self.tickets.append(Ticket(number, topic, records))
        return self.tickets[-1]

    def writing(self, number: int) -> Ticket | None:
        """The ticket, if it is one that was tried."""
        return self.tickets[0] if self.tickets and self.tickets[0].number == number else None

    def all_tried(self) -> bool:
        return all(ticket.verdict is not None for ticket in self.tickets)

    def cancel(self) -> None:
        """The transaction is going to be aborted: tickets come to nothing."""
        self._cancelled = True

    def drop(self) -> None:
        """Forget all tickets; nobody tries any."""
        self.tickets.clear()
        self.failed = ""
        self._cancelled = False

    # -- trying ---------------------------------------------------------------------------------------

    def find(self, ticket: Ticket) -> None:
        """Give the ticket its verdict."""
        if self._cancelled or self.failed:
            return
        group_bytes = self._group_bytes
        try:
            verdict = Verdict(deque(), [])
            trial = _Trial(self, ticket, record_starts(ticket.records), verdict)
            trial.run(group_bytes)
            self._abort()
        except CannotTryError as error:
            self.failed = str(error)
        except GivenUpError:
            self._close_native()
        else:
            if verdict.refused:
                self._note_refusal()
            if self._group_bytes < group_bytes:
                self._tell(
                    f"topic {self._topics[ticket.topic]} does not take batches as large as the producer makes them, "
                    "and every one that is refused costs a transaction: give the KafkaProducer "
                    f"batch_size={self._group_bytes} or less, or the topic a larger max.message.bytes"
                )
            ticket.verdict = verdict

    def accepts(self, records: memoryview, count: int, topic: int) -> int:
        """Write records into a transaction that is aborted: 0, or the code with which the broker refuses them.

        What librdkafka refuses by itself counts as accepted: it will be told when the records are written.
        Raises CannotTryError, GivenUpError.
        """
        code = 0
        for _ in range(ATTEMPTS):
            native = self._open()
            if not self._begun:
                self._insist(native.begin_transaction)
                self._begun = True
            self._number += 1
            native.add(records, count, self._number, topic)
            self._wait(native)
            code = native.lost_to
            if code == 0:
                return 0
            self._abort()
            if code in REFUSED:
                return code
        raise CannotTryError(f"records could not be tried out: {librdkafka.error_text(code)}")

    def too_large_together(self, size: int) -> None:
        """Records of so many bytes were refused, though none of them is alone."""
        self._group_bytes = min(self._group_bytes, max(size // 2, 1))

    def close(self) -> None:
        self._close_native()

    def _open(self) -> KafkaPublisherNative:
        if self._native is None:
            native = self._native = KafkaPublisherNative(self._options, *self._topics)
            self._insist(lambda: native.init_transactions(CALL_MS))
        return self._native

    def _wait(self, native: KafkaPublisherNative) -> None:
        while native.tickets:
            native.poll(POLL_MS)
            if self._cancelled or self._over():
                raise GivenUpError

    def _abort(self) -> None:
        native = self._native
        if native is None or not self._begun:
            return
        self._insist(lambda: native.abort_transaction(CALL_MS))
        self._begun = False
        self._wait(native)

    def _insist(self, call: Callable[[], tuple[int, str, str] | None]) -> None:
        """Make a call until it succeeds. Raises CannotTryError, after which another producer is made."""
        while (failure := call()) is not None:
            _code, text, kind = failure
            if kind != "retry":
                self._close_native()
                name = self._options["transactional.id"]
                raise CannotTryError(f"records cannot be tried out as transactional id {name!r}: {text}")
            if self._cancelled or self._over():
                raise GivenUpError

    def _close_native(self) -> None:
        native, self._native = self._native, None
        if native is not None:
            if self._begun:
                native.abort_transaction(CALL_MS)
            native.close()
        self._begun = False


@dataclass(frozen=True, slots=True)
class _Trial:
    """Sorting out the records of one ticket."""

    rehearsal: Rehearsal
    ticket: Ticket
    starts: Sequence[int]
    verdict: Verdict

    def run(self, group_bytes: int) -> None:
        """Groups of at most so many bytes each, or of one record."""
        first = 0
        for index in range(1, len(self.starts)):
            last = index == len(self.starts) - 1
            if last or self.starts[index + 1] - self.starts[first] > group_bytes:
                self._sort_out(first, index, suspect=False)
                first = index

    def _sort_out(self, first: int, end: int, *, suspect: bool) -> bool:
        """Whether any of these records is refused alone. ``suspect``: as a group they need not be tried."""
        start, stop = self.starts[first], self.starts[end]
        alone = end - first == 1
        code = 0
        if alone or not suspect:
            records = self.ticket.records[start:stop]
            code = self.rehearsal.accepts(records, end - first, self.ticket.topic)
            if code == 0:
                self.verdict.groups.append(Group(start, stop, first, end - first))
                return False
        if alone:
            self.verdict.refused.append((first, code))
            return True
        middle = (first + end) // 2
        left = self._sort_out(first, middle, suspect=False)
        right = self._sort_out(middle, end, suspect=not left)
        if code and not (left or right):
            self.rehearsal.too_large_together(stop - start)
        return left or right


def record_starts(records: memoryview) -> list[int]:
    """The byte at which each record begins, and the one after the last."""
    starts = [0]
    while starts[-1] < len(records):
        key_size, headers_size, payload_size = _SIZES.unpack_from(records, starts[-1])
        sizes = (key_size, headers_size, payload_size)
        starts.append(starts[-1] + RECORD_HEADER_BYTES + sum(size for size in sizes if size != NO_BYTES))
    return starts

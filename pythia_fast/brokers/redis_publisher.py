"""An open producer of a Redis stream: a thread that sends XADD commands in pipelines and counts the answers.

Two pipelines are on their way, so that the server works while the next one is built. What was not answered when a
connection broke is sent again, so an entry may be there twice; an entry that the server will never take is a
``FailedRecord``; everything else is tried again for ever.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext.redis_publisher import RedisPublisherNative
from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher, PublisherContext
from pythia_fast.brokers.redis_client import Client, Connection, encode_string, socket_of
from pythia_fast.brokers.redis_trouble import Trouble, of_answer, of_error
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import SinkError

if TYPE_CHECKING:
    from pythia_fast.brokers.redis import RedisStreamsProducer

PIPELINE_RECORDS, PIPELINE_BYTES = 1000, 1 << 20
PIPELINES = 2
MOST_BYTES = 512 << 20  #: of one string, where the server does not say (its own default)
NULL = "Redis has no null, so a null payload cannot be an entry"
TOO_LARGE = "it is larger than Redis at {} takes (proto-max-bulk-len)"
RETRY_S = 0.2  #: before what the server did not take for now is sent again
BACKOFF_CAP_S, BACKOFF_BASE_S = 2.0, 0.05


class _Ticket:
    """Records on their way. ``again``: (first byte, index) of records to be sent once more, by themselves."""

    def __init__(self, ticket: int, records: memoryview, count: int) -> None:
        self.id = ticket
        self.records = records
        self.count = count
        self.at = 0
        self.index = 0
        self.open = count
        self.failed: list[FailedRecord] = []
        self.again: deque[tuple[int, int]] = deque()


class _Pipeline:
    """Commands that were sent together."""

    def __init__(self, ticket: _Ticket, at: int, first: int, count: int, missing: Sequence[int]) -> None:
        self.ticket = ticket
        self.at = at
        self.first = first
        self.count = count
        self.sent = [number for number in range(count) if number not in set(missing)] if missing else range(count)
        self.answered = 0


class RedisPublisher(Publisher):
    def __init__(self, producer: RedisStreamsProducer, context: PublisherContext) -> None:
        from redis.backoff import ExponentialWithJitterBackoff

        self._context = context
        self._server = producer.server
        self._stream = producer.stream
        self._what = f"stream {producer.stream}"
        parts = ["XADD", producer.stream]
        if producer.maxlen is not None:
            parts += ["MAXLEN", "~", str(producer.maxlen)]
        parts.append("*")
        self._native = RedisPublisherNative(
            b"".join(encode_string(part.encode()) for part in parts),
            len(parts),
            encode_string(producer.payload_field.encode()),
            encode_string(producer.key_field.encode()),
        )
        self._backoff = ExponentialWithJitterBackoff(BACKOFF_CAP_S, BACKOFF_BASE_S)
        self._client: Client | None = None
        self._connection: Connection | None = None
        self._flight: deque[_Pipeline] = deque()
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[_Ticket] = deque()
        self._undone = 0
        self._done: list[Delivery] = []
        self._trouble: Trouble | None = None
        self._failure: BaseException | None = None
        self._away_since: float | None = time.monotonic()
        self._troubles = TroubleLog(context.log)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="redis publisher", daemon=True)
        self._thread.start()

    # -- the completion thread ------------------------------------------------------------------------------------

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        with self._changed:
            self._waiting.append(_Ticket(ticket, records, count))
            self._undone += 1
            self._changed.notify_all()

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        with self._changed:
            if not self._done and timeout > 0 and self._undone:
                self._changed.wait_for(lambda: self._done or self._failure, timeout)
            done, self._done = self._done, []
            if self._failure is not None:
                raise self._failure
            limit = self._context.connect_timeout
            if limit is not None and self._away_since is not None and time.monotonic() - self._away_since >= limit:
                why = (
                    self._trouble.sentence if self._trouble is not None else f"no Redis answers at {self._server.name}"
                )
                raise SinkError(f"{why}; nothing came of it within {limit:g} s")
        return done

    def trouble(self) -> str | None:
        trouble = self._trouble
        return trouble.sentence if trouble is not None and self._undone else None

    def close(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._undone == 0 or self._failure is not None, timeout)
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    # -- its own thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        import redis

        failures = 0
        try:
            while not self._closed:
                try:
                    if self._connection is None:
                        self._connect()
                    self._send_and_hear()
                    failures = 0
                except (redis.RedisError, OSError, EOFError) as error:
                    failures = min(failures + 1, 16)
                    self._broke(of_error(error, self._server.name, self._what))
                    self._pause(self._backoff.compute(failures))
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            self._disconnect()

    def _connect(self) -> None:
        self._client = self._server.client([self._stream])
        self._connection = self._server.connection(self._client, "pythia_fast:producer")
        self._native.forget_answers()
        self._native.limit(self._most_bytes(self._client))
        with self._changed:
            self._away_since = None
            self._trouble = None

    @staticmethod
    def _most_bytes(client: Client) -> int:
        """The largest string that the server takes: beyond it, it ends the connection without a word that arrives."""
        import redis

        try:
            return int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])
        except (redis.ResponseError, KeyError):  # not allowed to ask
            return MOST_BYTES

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        if self._client is not None:
            self._client.close()
        self._connection = self._client = None

    def _broke(self, trouble: Trouble) -> None:
        """What was not answered is sent again, by the next connection."""
        self._disconnect()
        for pipeline in reversed(self._flight):
            ticket = pipeline.ticket
            numbers = list(pipeline.sent)[pipeline.answered :]
            self._send_again(pipeline, numbers)
            if ticket not in self._waiting:
                self._waiting.appendleft(ticket)
        self._flight.clear()
        with self._changed:
            if self._away_since is None:
                self._away_since = time.monotonic()
        self._tell(trouble)

    def _tell(self, trouble: Trouble) -> None:
        with self._changed:
            self._trouble = trouble
        self._troubles.tell(f"redis: {trouble.sentence}; trying on")

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _send_and_hear(self) -> None:
        """Have two pipelines on their way; hear what becomes of the older one."""
        while len(self._flight) < PIPELINES and (pipeline := self._next_pipeline()) is not None:
            self._flight.append(pipeline)
        if not self._flight:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, 1.0)
            return
        refused = self._hear()
        if refused is not None:
            self._tell(refused)
            self._pause(RETRY_S)
        elif self._trouble is not None:
            with self._changed:
                self._trouble = None

    def _next_pipeline(self) -> _Pipeline | None:
        """Send the next commands; None: there are none."""
        assert self._connection is not None
        while self._waiting:
            ticket = self._waiting[0]
            if ticket.again:
                at, first = ticket.again.popleft()
                commands, count, _, refused = self._native.build(ticket.records, at, 1, PIPELINE_BYTES)
            elif ticket.index < ticket.count:
                at, first = ticket.at, ticket.index
                commands, count, ticket.at, refused = self._native.build(
                    ticket.records, at, PIPELINE_RECORDS, PIPELINE_BYTES
                )
                if count == 0:
                    raise ValueError(f"{ticket.index} records in the buffer of ticket {ticket.id}, not {ticket.count}")
                ticket.index += count
            else:
                self._waiting.popleft()
                if ticket.count == 0:
                    self._close_if_done(ticket)
                continue
            pipeline = _Pipeline(ticket, at, first, count, [number for number, _ in refused])
            for number, is_large in refused:
                self._refuse(ticket, first + number, TOO_LARGE.format(self._server.name) if is_large else NULL)
            self._close_if_done(ticket)
            if not commands:
                continue
            try:
                socket_of(self._connection).sendall(commands)
            except OSError:
                self._flight.append(pipeline)  # so that it is sent again
                raise
            return pipeline
        return None

    def _hear(self) -> Trouble | None:
        """Take answers in; what the server did not take for now, if there was any."""
        assert self._connection is not None
        count, errors = self._native.receive(socket_of(self._connection))
        refused: Trouble | None = None
        wrong = dict(errors)
        heard = 0
        while heard < count:
            if not self._flight:
                raise OSError("more answers than commands")
            pipeline = self._flight[0]
            part = min(count - heard, len(pipeline.sent) - pipeline.answered)
            mine = [number - heard for number in wrong if heard <= number < heard + part]
            for number in mine:
                trouble = self._refused(pipeline, pipeline.sent[pipeline.answered + number], wrong[heard + number])
                refused = trouble or refused
            pipeline.ticket.open -= part - len(mine)
            pipeline.answered += part
            heard += part
            if pipeline.answered == len(pipeline.sent):
                self._flight.popleft()
            self._close_if_done(pipeline.ticket)
        return refused

    def _refused(self, pipeline: _Pipeline, number: int, text: str) -> Trouble | None:
        """One record came back: for good, or (then its trouble is told) for now."""
        trouble = of_answer(text, self._server.name, self._what)
        self._send_again(pipeline, [number])
        if pipeline.ticket not in self._waiting:
            self._waiting.appendleft(pipeline.ticket)
        return trouble

    def _send_again(self, pipeline: _Pipeline, numbers: Sequence[int]) -> None:
        """Note records of a pipeline, by their numbers in it, to be sent once more."""
        at, wanted = pipeline.at, set(numbers)
        found = []
        for number in range(pipeline.count):
            if number in wanted:
                found.append((at, pipeline.first + number))
            _, _, at, _ = self._native.build(pipeline.ticket.records, at, 1, PIPELINE_BYTES)
        pipeline.ticket.again.extend(found)

    def _refuse(self, ticket: _Ticket, index: int, reason: str) -> None:
        ticket.failed.append(FailedRecord(index, reason))
        ticket.open -= 1

    def _close_if_done(self, ticket: _Ticket) -> None:
        if ticket.open > 0:
            return
        with self._changed:
            self._undone -= 1
            self._done.append(Delivery(ticket.id, tuple(sorted(ticket.failed, key=lambda failed: failed.index))))
            self._changed.notify_all()

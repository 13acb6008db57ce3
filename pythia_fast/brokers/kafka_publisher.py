"""An open Kafka producer: what became of the records, and what a person is told when Kafka has trouble.

Records are read by librdkafka out of the memory they were written in; a ticket is done when every one of its
records is reported. Trouble that can pass is waited out; a record that the broker will never take is a
``FailedRecord``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_publisher import KafkaPublisherNative
from pythia_fast.brokers.base import Delivery, FailedRecord, Publisher, PublisherContext
from pythia_fast.brokers.kafka_topic_limits import TopicLimits
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import SinkError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka import KafkaProducer

ALL_BROKERS_DOWN = -187
QUEUE_FULL = -184
INVALID_RECORD = 87
FATAL = -150
UNKNOWN_TOPIC = frozenset({-188, -190, 3})
CONNECTION_ERRORS = frozenset({-195, -193, -187, -185, -181})
WARNING = 4  #: syslog level
SILENCE_SECONDS = 1.0  #: without a report, before records that wait count as trouble
POLL_MS = 100
#: What two lines about the same thing may differ in.
NUMBER = re.compile(r"\d+")


class KafkaPublisher(Publisher):
    def __init__(
        self, producer: KafkaProducer, context: PublisherContext, native: KafkaPublisherNative | None = None
    ) -> None:
        """``native``: a producer that is open already and shared with others; by default one is made."""
        self._context = context
        self._topic = producer.topic
        self._servers = producer.bootstrap_servers
        self._limits: TopicLimits | None = None
        if native is None:
            options = producer.librdkafka_options(context)
            native = KafkaPublisherNative(options, producer.topic)
            self._limits = TopicLimits(native, options)
        self._native = native
        self._troubles = TroubleLog(context.log)
        self._away_since: float | None = time.monotonic()
        self._away_reason = ""
        self._seen = False
        self._delivered = 0
        self._regrouped = 0
        self._progressed_at = time.monotonic()

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        self._note_progress()
        self._native.add(records, count, ticket)

    def _note_progress(self) -> None:
        if self._native.tickets == 0:
            self._progressed_at = time.monotonic()

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        done = self._poll(round(timeout * 1000))
        self.look_around()
        return [
            Delivery(ticket, tuple(FailedRecord(index, self._reason(code)) for index, code in failed))
            for ticket, failed in done
        ]

    def _poll(self, timeout_ms: int) -> Sequence[tuple[int, list[tuple[int, int]]]]:
        if self._limits is not None:
            self._limits.wait(timeout_ms)
            timeout_ms = 0
            if self._limits.known:
                self._limits = None
        return self._native.poll(timeout_ms)

    def _reason(self, code: int) -> str:
        if code == QUEUE_FULL:
            return (
                f"Kafka topic {self._topic} does not get it: it is larger than all that the producer may hold: give "
                "KafkaProducer a larger queue_buffering_max_kbytes (queue.buffering.max.kbytes)"
            )
        hint = "; a compacted topic takes no record without a key" if code == INVALID_RECORD else ""
        return f"Kafka topic {self._topic} does not take it: {librdkafka.error_text(code)}{hint}"

    def look_around(self) -> None:
        """Hear what librdkafka has to tell. Raises SinkError for what ends the run."""
        for kind, code, text, _ in self._native.take_notes():
            if kind == "error":
                self._hear_error(code, text)
            elif kind == "statistics":
                self._context.log(Routine(f"kafka: statistics {text}"))
            elif code <= WARNING:
                self._troubles.tell(f"kafka: {text}", NUMBER.sub("#", text))
        self._tell_of_groups()
        now = time.monotonic()
        if self._native.delivered != self._delivered or self._native.tickets == 0:
            self._progressed_at = now
        if self._native.delivered != self._delivered or (not self._seen and self._native.broker_seen):
            self._reached()
        self._delivered = self._native.delivered
        limit = self._context.connect_timeout
        missing = self._native.tickets > 0 and self._native.passing_error in UNKNOWN_TOPIC
        if missing and limit is not None and now - self._progressed_at >= limit:
            raise SinkError(f"{self._missing()}: create it, or correct topic=")
        if self._away_since is None or limit is None or now - self._away_since < limit:
            return
        if self._native.broker_answers(POLL_MS):
            self._reached()
            return
        raise SinkError(
            f"no Kafka broker answered at {self._servers} within {limit:g} s{self._why_away()}: is it running, and is "
            "bootstrap.servers right (bootstrap_servers= or KAFKA_BOOTSTRAP_SERVERS)?"
        )

    def _tell_of_groups(self) -> None:
        records, group_bytes = self._native.regrouped
        if records > self._regrouped:
            more = records - self._regrouped
            self._troubles.tell(
                f"kafka: {more:,} record{'' if more == 1 else 's'} came back from topic {self._topic}: in batches "
                "larger than its max.message.bytes. They are sent again in smaller ones, behind what was on its way; "
                "from now on records are sent so, one batch after the other, which keeps their order and takes "
                f"longer: give KafkaProducer batch_size={group_bytes // 2} or less, or let its user describe the "
                "topic's settings",
                "groups",
            )
            self._regrouped = records

    def _hear_error(self, code: int, text: str) -> None:
        if code == FATAL:
            self._hear_fatal(self._native.fatal_error or text)
        elif code in CONNECTION_ERRORS:
            self._away_reason = text if code != ALL_BROKERS_DOWN or not self._away_reason else self._away_reason
            if code == ALL_BROKERS_DOWN and self._away_since is None:
                self._away_since = time.monotonic()
        else:
            self._troubles.tell(f"kafka: {text}", code)

    def _hear_fatal(self, reason: str) -> None:
        raise SinkError(
            f"Kafka producer of topic {self._topic}: {reason}; what is not delivered is sent after a restart"
        )

    def _missing(self) -> str:
        return f"Kafka topic {self._topic} does not exist at {self._servers}"

    def _reached(self) -> None:
        self._seen = True
        self._away_since = None
        self._away_reason = ""

    def _why_away(self) -> str:
        return f" ({self._away_reason})" if self._away_reason else ""

    def trouble(self) -> str | None:
        if self._native.tickets == 0 or time.monotonic() - self._progressed_at < SILENCE_SECONDS:
            return None
        if self._away_since is not None:
            return f"no Kafka broker answers at {self._servers}{self._why_away()}"
        error = self._native.passing_error
        if error in UNKNOWN_TOPIC:
            return self._missing()
        if error:
            return f"Kafka topic {self._topic}: {librdkafka.error_text(error)}"
        return f"Kafka at {self._servers} has not confirmed records of topic {self._topic} yet"

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._native.tickets and time.monotonic() < deadline:
            self._poll(POLL_MS)
        self._native.close()

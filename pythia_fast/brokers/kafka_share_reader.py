"""An open member of a Kafka share group: partitions, the group's settings, and what a person is told.

Messages never pass through here; the intake thread takes them from the native reader (ext/kafka_share.h), which
acknowledges each as well. ``serve`` runs on that same thread, between two polls.

A partition has one index for as long as the run lasts, whichever of our members its rows come by: a row whose lock is
over comes again, and is known by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_share_reader import KafkaShareReaderNative
from pythia_fast.brokers.base import MAX_PARTITIONS, Partition, Reader, ReaderContext
from pythia_fast.brokers.kafka_away import CONNECTION_ERRORS, BrokersAway
from pythia_fast.brokers.kafka_missing_topics import ANSWER_MS, MissingTopics
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import SourceError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.brokers.kafka_share import KafkaShareConsumer

UNSUPPORTED_VERSION = 35
UNSUPPORTED_FEATURE = -165
GROUP_ID_NOT_FOUND = 69
GROUP_AUTHORIZATION_FAILED = 30
TOPIC_AUTHORIZATION_FAILED = 29
UNKNOWN_TOPIC = frozenset({3, -188})
FATAL = -150
WARNING = 4  #: syslog level

CHECK_SECONDS = 1.0  #: between looks at a broker, a topic, or the group
SOON_SECONDS = 0.1  #: while the group gives no partitions yet, or the end is looked for
ASK_SECONDS = 5.0  #: for the group's settings
LOCK_MARGIN_SECONDS = 1.0  #: after which a lock is over at the broker, too
#: until="end": for so long nothing is in hand, and nothing comes by members that have partitions.
END_QUIET_SECONDS = 3.0
RECONNECT_SECONDS = 5.0  #: for a connection that broke to be made again, before quiet is a sign of the end
CONFIRM_SECONDS = 10.0  #: for the broker to have taken the last acknowledgements
CLOSE_SECONDS = 5.0


class KafkaShareReader(Reader):
    acknowledges_rows = True

    def __init__(self, consumer: KafkaShareConsumer, context: ReaderContext) -> None:
        self._consumer = consumer
        self._context = context
        self._topics = consumer.topics
        self._servers = consumer.bootstrap_servers
        self._group = consumer.group(context.app, context.handler)
        self._bounded = context.until == "end"
        self._joined = False
        self._assigned = 0  #: members of ours to which the group has given partitions
        self._quiet_since = 0.0
        self._next_index = 0
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._expired = self._last = 0  #: rows told of so far
        self._deliveries = 0
        self._lock_s = 0.0
        self._failure: str | None = None
        self._closed = False
        self._troubles = TroubleLog(context.log)
        options = consumer.librdkafka_options(context)
        self.native: KafkaShareReaderNative = KafkaShareReaderNative(options, consumer.members)
        self._away = BrokersAway(
            self._servers, lambda _: self.native.broker_answers(ANSWER_MS), self._troubles, context.log
        )
        self._missing = MissingTopics(self.native, self._topics, self._servers, self._troubles, context.log)
        context.log(
            Routine(
                f"kafka: reading {', '.join(self._topics)} at {self._servers} as share group {self._group}, with "
                f"{consumer.members} members that take about {options['max.poll.records']} rows each"
            )
        )

    # -- what the runtime calls ----------------------------------------------------------------------------------

    def serve(self) -> None:
        self.native.call(False)
        self._name_partitions()
        self._act_on_notes()
        self._look_around()
        self._tell_of_locks()
        if self._joined:
            self._look_at_assignment()
            if self._bounded and self._is_end():
                self.native.end()
        hurries = self._joined and (self._bounded or not self._assigned)
        self.native.call_after(SOON_SECONDS if hurries else CHECK_SECONDS)

    def settled(self, arena: Arena, slot: int, first: int, messages: int) -> None:
        self.native.settled(arena, slot, first, messages)

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str:
        """What is done was told by ``settled`` and is acknowledged by the intake thread. ``wait``: the last of it.

        An acknowledgement is of its lock, so nothing comes of asking again.
        """
        if wait and not self._confirm():
            self._context.log(
                f"kafka: {self._servers} did not confirm {self.native.unconfirmed:,} acknowledgements of share group "
                f"{self._group}; what it did not get, it delivers again"
            )
        return ""

    def _confirm(self) -> bool:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while True:
            if self.native.turn(0.005):
                self._serve_the_rest()
            if self.native.unconfirmed == 0:
                return True
            hurried = self._context.hurried is not None and self._context.hurried()
            if time.monotonic() >= deadline or hurried:
                return False

    def keep_alive(self) -> None:
        if self.native.turn(0.0):
            self._serve_the_rest()

    def _serve_the_rest(self) -> None:
        """What is to be heard after the last poll."""
        self.native.call(False)
        self._act_on_notes()
        self._tell_of_locks()
        self.native.call_after(CHECK_SECONDS)

    def failure(self) -> str:
        if self._failure is None and self.native.headers_wanted:
            return (
                f"there is no memory for the {self.native.headers_wanted:,} bytes of a message's headers; the message "
                "was not taken in, and comes again: give the process more memory"
            )
        return self._failure or super().failure()

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.native.fail()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            hurried = self._context.hurried is not None and self._context.hurried()
            self.native.close(0.0 if hurried else CLOSE_SECONDS)

    # -- partitions ------------------------------------------------------------------------------------------------

    def _name_partitions(self) -> None:
        """Give each partition whose first row waits an index; another one where its topic was made anew."""
        while (key := self.native.unnamed()) is not None:
            old = self._partitions.pop(key, None)
            if old is not None:
                self._context.listener.revoked([old], lost=True)
                self.native.forget(old.index)
                self._context.log(f"kafka: topic {key[0]} was made anew; it is read on as another one")
            if len(self._partitions) == MAX_PARTITIONS:
                self._fail(
                    f"this member of share group {self._group} can hold {MAX_PARTITIONS:,} partitions: start more"
                )
                return
            taken = {partition.index % MAX_PARTITIONS for partition in self._partitions.values()}
            while self._next_index % MAX_PARTITIONS in taken:
                self._next_index += 1
            partition = self._partitions[key] = Partition(self._next_index, *key)
            self._next_index += 1
            self._context.listener.assigned([partition])
            self.native.name(*key, partition.index)

    # -- the group -------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Ask for the group's settings, have it begin where it is to, and take part."""
        # Here, because confluent-kafka is needed for these questions alone.
        from pythia_fast.brokers.kafka_client import KafkaAccess
        from pythia_fast.brokers.kafka_share_group import ShareGroupSettings, set_reset, settings

        access = KafkaAccess(self._consumer.connection_options(), ASK_SECONDS)
        wanted = self._consumer.auto_offset_reset
        found = ShareGroupSettings()
        try:
            found = settings(access, self._group)
            if not found.reset_is_own and found.reset != wanted:
                set_reset(access, self._group, wanted)
                self._context.log(
                    Routine(
                        f"kafka: share group {self._group} begins at the {wanted} message now, where it has no "
                        "position (share.auto.offset.reset)"
                    )
                )
            elif found.reset != wanted:
                self._context.log(
                    f"kafka: share group {self._group} has share.auto.offset.reset={found.reset}, which stays; "
                    f"auto_offset_reset={wanted!r} would be set with kafka-configs.sh --entity-type groups"
                )
        except SourceError as error:
            self._context.log(
                f"kafka: where share group {self._group} begins could not be set to {wanted}: {error}; without a "
                f"position it begins at the {found.reset} message. Set share.auto.offset.reset={wanted} "
                f"(kafka-configs.sh --alter --entity-type groups --entity-name {self._group}), or allow "
                "DescribeConfigs and AlterConfigs of the group"
            )
        self._lock_s, self._deliveries = found.lock_s, found.deliveries
        self.native.limits(found.lock_s + LOCK_MARGIN_SECONDS, found.deliveries)
        try:
            self.native.subscribe(self._topics)
        except SourceError as error:
            self._fail(str(error))
        self._joined = True

    def _look_at_assignment(self) -> None:
        """No callback tells of it."""
        assigned = self.native.assigned
        if assigned == self._assigned:
            return
        if not self._assigned:
            self._context.log(Routine(f"kafka: share group {self._group} has given this runtime partitions"))
        self._assigned, self._quiet_since = assigned, time.monotonic()

    def _is_end(self) -> bool:
        """As far as can be told: no broker says how many rows of a share group are left."""
        now = time.monotonic()
        if self._away or self._missing or not self._assigned or self.native.in_hand or self.native.unconfirmed:
            self._quiet_since = max(self._quiet_since, now)
        return min(self.native.quiet_s, now - self._quiet_since) >= END_QUIET_SECONDS

    # -- what is told ----------------------------------------------------------------------------------------------

    def _act_on_notes(self) -> None:
        for kind, code, text, _ in self.native.take_notes():
            if kind == "error":
                if code == FATAL:
                    continue  # the poll says what it is
                if code in CONNECTION_ERRORS:
                    self._quiet_since = time.monotonic() + RECONNECT_SECONDS
                self._away.hear(code, text)
            elif kind == "consumer_error":
                self._hear(code, text)
            elif kind == "log" and code <= WARNING:
                self._troubles.tell(f"kafka: {text}")
            elif kind == "statistics":
                self._context.log(Routine(f"kafka: statistics {text}"))
            elif kind == "commit_failed":
                self._troubles.tell(
                    f"kafka: acknowledgements of share group {self._group} were not taken: "
                    f"{librdkafka.error_text(code)}; rows that come again are not handled again here",
                    ("refused", code),
                )

    def _hear(self, code: int, text: str) -> None:
        if code in UNKNOWN_TOPIC:
            self._missing.look()
        elif code in (UNSUPPORTED_VERSION, UNSUPPORTED_FEATURE):
            self._fail(
                f"Kafka at {self._servers} has no share groups ({text}): they need Kafka 4.2 or later, and "
                "share.version=1 (kafka-features.sh upgrade --feature share.version=1)"
            )
        elif code == GROUP_ID_NOT_FOUND:
            self._fail(
                f"group {self._group} at {self._servers} is an ordinary consumer group, which cannot be read as a "
                f"share group ({text}): give another consumer_group="
            )
        elif code == GROUP_AUTHORIZATION_FAILED:
            self._fail(
                f"this user may not read as share group {self._group} at {self._servers} ({text}): kafka-acls --add "
                f"--operation Read --group {self._group}"
            )
        elif code == TOPIC_AUTHORIZATION_FAILED:
            line = (
                f"this user may not read all of {', '.join(self._topics)} at {self._servers} ({text}): kafka-acls "
                "--add --operation Read --topic ..."
            )
            if self.native.counters[0] == 0:
                self._fail(line)
            self._troubles.tell(f"kafka: {line}", code)
        elif fatal := self.native.fatal_error:
            self._fail(f"share group {self._group} at {self._servers}: {fatal}")
        else:
            self._away.hear(code, text)

    def _look_around(self) -> None:
        if self._away.answers():
            self._away.reached()
        limit = self._context.connect_timeout
        if reason := self._away.failure(limit):
            self._fail(reason)
        if self._away:
            return
        if not self._joined:
            self._missing.look()
            self._join()
        elif self._missing:
            self._missing.look()
        if reason := self._missing.failure(limit):
            self._fail(reason)

    def _tell_of_locks(self) -> None:
        _, last, expired, _, _ = self.native.counters
        if expired > self._expired:
            self._expired = expired
            self._troubles.tell(
                f"kafka: {expired:,} rows of share group {self._group} so far were not done within {self._lock_s:g} s, "
                "for which the brokers keep them (share.record.lock.duration.ms): they are delivered again, "
                f"{self._deliveries} times at most (share.delivery.count.limit), to whoever asks. Lower "
                "max_poll_records= or members=, or raise the group's setting",
                "expired",
            )
        if last > self._last:
            self._last = last
            self._troubles.tell(
                f"kafka: {last:,} rows of share group {self._group} so far came for the last of {self._deliveries} "
                "times (share.delivery.count.limit): one that is not done while in hand here is not delivered again",
                "last",
            )

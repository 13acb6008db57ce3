"""An open Kafka consumer: rebalances, commits, and what a person is told when Kafka has trouble.

Messages never pass through here; the intake thread takes them from the native reader. ``serve`` runs on
that same thread, between two polls, so nothing is appended while a rebalance is acted on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pythia_fast._ext import librdkafka
from pythia_fast._ext.kafka_reader import KafkaReaderNative
from pythia_fast.brokers.base import MAX_PARTITIONS, Kept, Partition, Quiet, Reader, ReaderContext, Rest
from pythia_fast.brokers.kafka_away import BrokersAway
from pythia_fast.brokers.kafka_beginning import Beginning
from pythia_fast.brokers.kafka_bounds import Bounds
from pythia_fast.brokers.kafka_commits import FATAL, FENCED, Commits
from pythia_fast.brokers.kafka_coordinator import Coordinator, ask_coordinator
from pythia_fast.brokers.kafka_foreign_look import Looking
from pythia_fast.brokers.kafka_foreign_partitions import ForeignPartitions
from pythia_fast.brokers.kafka_group_watch import GroupWatch
from pythia_fast.brokers.kafka_missing_topics import ANSWER_MS, UNKNOWN_TOPIC_OR_PART, MissingTopics
from pythia_fast.brokers.kafka_partition_names import partition_names
from pythia_fast.brokers.kafka_quiet import QuietPartitions
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import SourceError
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka import KafkaConsumer

Key = tuple[str, int]

MAX_POLL_EXCEEDED = -147
AUTO_OFFSET_RESET = -140
INVALID_SESSION_TIMEOUT = 26
WARNING = 4  #: syslog level

CHECK_SECONDS = 1.0  #: between looks at a broker or topic that is not there
GIVE_BACK_SECONDS = 5.0  #: librdkafka asks for the partitions at once when its member leaves
#: Until a group is left without its coordinator having said so; less where the last commit was not answered either.
LEAVE_SECONDS = 3.0
SILENT_LEAVE_SECONDS = 0.5
#: Until a client that waits for answers is left to itself.
END_SECONDS = 1.5
#: until="end": a member without partitions is done once it has been so for this long; a cooperative group
#: gives a new member its partitions only with the second rebalance.
EMPTY_SECONDS = 10.0
SESSION_TIMEOUT_MS = 45_000  #: librdkafka's default
MAX_POLL_INTERVAL_MS = 300_000  #: the same


class KafkaReader(Reader):
    def __init__(self, consumer: KafkaConsumer, context: ReaderContext) -> None:
        self._context = context
        self._topics = consumer.topics
        self._servers = consumer.bootstrap_servers
        self._group = consumer.group(context.app, context.handler)
        self._static = consumer.instance_id is not None
        self._bounded = context.until == "end"
        self._next_index = 0
        self._current: dict[Key, Partition] = {}
        self._by_index: dict[int, Partition] = {}  #: the same
        self._lost: set[Key] = set()
        self._last_positions: dict[Key, int] = {}
        self._failure: str | None = None
        self._troubles = TroubleLog(context.log)
        self._closed = False
        options = consumer.librdkafka_options(context)
        self.native: KafkaReaderNative = KafkaReaderNative(options, self._bounded, context.hurried)
        self._away = BrokersAway(
            self._servers,
            lambda ever: self.native.broker_answers(ANSWER_MS) if ever else self.native.broker_seen,
            self._troubles,
            context.log,
        )
        self._quiet = QuietPartitions(self.native, self._topics)
        self._missing = MissingTopics(self.native, self._topics, self._servers, self._troubles, context.log)
        self._bounds = Bounds(self.native, self._topics, self._servers, self._missing, self._fail)
        self._commits = Commits(self.native, context.hurried, self._ended)
        access = consumer.connection_options()
        member = access, self._group, options["client.id"], consumer.instance_id
        start_at = consumer.start_at(datetime.now(UTC))
        self._beginning = None if start_at is None else Beginning(start_at, self._group, access)
        self._session_ms = int(options.get("session.timeout.ms", SESSION_TIMEOUT_MS))
        patterns_only = all(topic.startswith("^") for topic in self._topics)
        self._group_watch = GroupWatch(
            self._group,
            self._session_ms / 1000,
            int(options.get("max.poll.interval.ms", MAX_POLL_INTERVAL_MS)) / 1000,
            patterns=f"{', '.join(self._topics)} at {self._servers}" if patterns_only else "",
            static=self._static,
            ask=lambda: ask_coordinator(*member),
            rejoin=self._rejoin,
        )
        reset = options["auto.offset.reset"]
        self._foreign = ForeignPartitions(
            self._group,
            self._topics,
            self._session_ms / 1000,
            looking=lambda bounds: Looking(
                access,
                Coordinator(*member),
                self._group,
                bounds,
                isolation_level=consumer.isolation_level,
                from_earliest=reset in ("earliest", "smallest", "beginning"),
            ),
            log=context.log,
        )
        context.log(
            Routine(
                f"kafka: reading {', '.join(self._topics)} at {self._servers} as group {self._group}; "
                f"where the group has no position, from {self._beginning or f'the {reset} message'}"
            )
        )
        self.native.check_after(CHECK_SECONDS)
        self.native.subscribe(self._topics)  # the last step: a member that is not closed holds librdkafka up

    def serve(self) -> None:
        self._act_on_notes()
        self._look_around()
        self._look_at_group()

    def _act_on_notes(self) -> None:
        notes = self.native.take_notes()
        fatal = self._fatal_error(notes)
        for kind, code, text, partitions in notes:
            if fatal and kind not in ("assign", "revoke"):
                continue  # it says the same
            if kind == "assign":
                self._assign(partitions or [])
                self._group_watch.changed()
            elif kind == "revoke":
                self._revoke(partitions or [], lost=bool(fatal) or self.native.assignment_lost)
                self._group_watch.changed()
            elif kind == "went_back":
                self._begin_anew(partitions or [])
            elif kind == "error":
                self._away.hear(code, text)
            elif kind == "consumer_error":
                self._hear_consumer_error(code, text)
            elif kind == "commit_failed":
                self.commit_failed = True
                self._troubles.tell(f"kafka: a commit failed, a later one will do: {librdkafka.error_text(code)}", code)
            elif kind == "statistics":
                self._context.log(Routine(f"kafka: statistics {text}"))
            elif code <= WARNING:
                self._troubles.tell(f"kafka: {text}")
        if fatal:
            raise self._ended(fatal)

    def _fatal_error(self, notes: Sequence[tuple[str, int, str, object]]) -> str:
        """After which librdkafka's consumer does no more; empty: there is none.

        It logs a line at once. The error comes behind the messages that it has fetched, which may be long after.
        """
        if not notes:
            return ""
        kinds = {"commit_failed": FENCED, "consumer_error": {FATAL}}
        told = (text or librdkafka.error_text(code) for kind, code, text, _ in notes if code in kinds.get(kind, ()))
        return self.native.fatal_error or next(told, "")

    def _ended(self, why: str) -> SourceError:
        """What ends the run: nothing can be committed any more, so whatever is handled is handled again."""
        advice = ""
        if self._static:
            advice = "; every copy of the handler needs a group_instance_id of its own, and only one may have it"
        return SourceError(f"Kafka consumer of group {self._group}: {why}{advice}")

    # --- rebalances ---------------------------------------------------------------------------------------------

    def _assign(self, keys: Sequence[Key]) -> None:
        self._reached()
        if self._beginning is not None and not self._begin(keys, self._beginning):
            return
        if self._bounded:
            self._bounds.measure(keys)
        if len(self._current) + len(keys) > MAX_PARTITIONS:
            self._fail(
                f"Kafka gives this member {len(self._current) + len(keys):,} partitions; it can hold "
                f"{MAX_PARTITIONS:,}: start more members of the group"
            )
            return
        gained = [Partition(index, *key) for index, key in zip(self._free_indices(len(keys)), keys, strict=True)]
        self._current.update(zip(keys, gained, strict=True))
        self._by_index.update((partition.index, partition) for partition in gained)
        self._context.listener.assigned(gained)
        ends = [self._bounds.known[key][1] if self._bounded else None for key in keys]
        try:
            self.native.assign([(p.topic, p.partition, p.index, end) for p, end in zip(gained, ends, strict=True)])
        except SourceError as error:
            self._fail(str(error))
            return
        self.native.end_when_empty(None if self._current else EMPTY_SECONDS)
        if self._await_topics():
            self.native.check_after(CHECK_SECONDS)
        if keys:
            self._context.log(Routine(f"kafka: assigned {partition_names(keys)}"))

    def _free_indices(self, count: int) -> list[int]:
        """New indices whose places in the arena's table of names (index % MAX_PARTITIONS) no partition of ours has."""
        taken = {index % MAX_PARTITIONS for index in self._by_index}
        found: list[int] = []
        while len(found) < count:
            if self._next_index % MAX_PARTITIONS not in taken:
                found.append(self._next_index)
            self._next_index += 1
        return found

    def _revoke(self, keys: Sequence[Key], *, lost: bool) -> None:
        gone = [self._current[key] for key in keys if key in self._current]
        if lost:
            self._lost.update(keys)
            self._context.log(
                f"kafka: lost {partition_names(keys)}: the group went on without this member, or the topic was deleted"
            )
        self._last_positions.update(self.native.positions())
        self._context.listener.revoked(gone, lost=lost)
        for partition in gone:
            del self._by_index[partition.index]
        for key in keys:
            self._current.pop(key, None)
            self._commits.forget(key)
            self._lost.discard(key)
        try:
            self.native.unassign(keys)
        except SourceError as error:
            self._fail(str(error))
            return
        if not self._current:
            self.native.end_when_empty(None)  # the assignment that follows decides
        if keys and not lost:
            self._context.log(Routine(f"kafka: gave back {partition_names(keys)}"))

    def _begin_anew(self, keys: Sequence[Key]) -> None:
        """Their logs begin again: what is in hand of the old ones commits nothing, and positions may be lower now."""
        for key in keys:
            if (old := self._current.get(key)) is None:
                continue
            self._context.listener.revoked([old], lost=True)
            del self._by_index[old.index]
            self._commits.forget(key)
            new = self._current[key] = Partition(self._free_indices(1)[0], *key)
            self._by_index[new.index] = new
            self._context.listener.assigned([new])
            if self._bounded:
                self._bounds.measure_anew(key)
            self.native.renumber(*key, new.index, self._bounds.known[key][1] if self._bounded else None)
            self._context.log(
                f"kafka: {partition_names([key])} begins anew before the position that was read to: the topic was made "
                "anew, or its log was cut; it is read on from there"
            )

    def _rejoin(self) -> bool:
        """Leave the group and join it again; False: not now.

        librdkafka sends no heartbeats from the leave to the answer to the revocation, so what is in hand is committed
        before, and nothing more is taken in between: a session that is shorter than a batch would end meanwhile.
        """
        if self._current:
            self._context.listener.settle(list(self._current.values()))
        try:
            if not self.native.rejoin(self._topics):
                return False
        except SourceError as error:
            self._fail(str(error))
            return False
        self.native.check_after(None)  # a look around that is due would come before what librdkafka has to tell
        deadline = time.monotonic() + GIVE_BACK_SECONDS
        while self._current and time.monotonic() < deadline:
            if self.native.keep_alive():
                self._act_on_notes()
            else:
                time.sleep(0.01)
        self.native.check_after(CHECK_SECONDS)
        if self._current:
            self.rewind()  # what was dropped is read again
        return True

    def rewind(self) -> None:
        keys = list(self._current)
        self._context.listener.revoked(list(self._current.values()), lost=True)
        self._current.clear()
        self._by_index.clear()
        try:
            self.native.unassign(keys)
        except SourceError as error:
            self._fail(str(error))
            return
        if keys:
            self._assign(keys)

    def read_again(self) -> bool:
        # What keep_alive() took from librdkafka is gone, so that every partition goes back, not only those lost.
        self.rewind()
        return True

    def group_metadata(self) -> bytes:
        return self.native.group_metadata()

    def _begin(self, keys: Sequence[Key], beginning: Beginning) -> bool:
        """Set the positions that the group does not have. False: failed."""
        try:
            positions = beginning.positions(self.native, keys)
        except SourceError as error:
            self._fail(str(error))
            return False
        if positions and (trouble := self._commits.commit([(*key, at) for key, at in positions.items()], wait=True)):
            self._fail(trouble)
            return False
        if positions:
            self._context.log(Routine(beginning.told(positions)))
        return True

    # --- commits ------------------------------------------------------------------------------------------------

    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str | None:
        offsets = []
        for index, position in positions.items():
            partition = self._by_index.get(index)
            if partition is not None and (key := (partition.topic, partition.partition)) not in self._lost:
                offsets.append((*key, position))
        if wait:
            offsets = self._within(offsets)
        return self._commits.commit(offsets, wait=wait) if offsets else ""

    def _within(self, offsets: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        """Those that the logs reach to. A topic that was deleted and made anew begins at 0, and whoever went on at a
        position of the old one would pass messages of the new one over."""
        ends = {offset[:2]: self.native.watermarks(*offset[:2], 0) for offset in offsets}
        gone = [offset for offset in offsets if (marks := ends[offset[:2]]) is not None and marks[1] < offset[2]]
        for topic, partition, position in gone:
            self._context.log(
                f"kafka: {topic}[{partition}] ends before {position:,}, up to where it was read: the topic was made "
                "anew, or its log was cut; that position is not committed"
            )
        return [offset for offset in offsets if offset not in gone]

    def lag(self) -> Mapping[Key, int]:
        return {} if self._closed else self._commits.lag(list(self._current))

    def ended(self) -> None:
        self._foreign.ended(self._by_index)

    def rest(self) -> Rest:
        if self._failure is not None:
            raise SourceError(self._failure)
        rest = self._foreign.rest(
            {key: partition.index for key, partition in self._current.items()}, self._bounds.known
        )
        if rest == "awaited":
            self._look_at_group()  # one that nobody has is given out when this member joins again
        return rest

    def left_to_others(self) -> Sequence[str]:
        return self._foreign.left

    def progress(self) -> tuple[int, int] | None:
        if not self._bounded:
            return None
        positions = self._last_positions if self._closed else {**self._last_positions, **self.native.positions()}
        return self._bounds.progress(positions, self._current)

    def kept(self) -> Sequence[Kept]:
        return self._quiet.kept()

    def quiet(self) -> Sequence[Quiet]:
        return self._quiet.look()

    # --- trouble ------------------------------------------------------------------------------------------------

    def failure(self) -> str:
        if self._failure is None and self.native.headers_wanted:
            return (
                f"there is no memory for the {self.native.headers_wanted:,} bytes of a message's headers; the message "
                "was not taken in, and the next run begins with it: give the process more memory"
            )
        return self._failure or super().failure()

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self.native.fail()

    def _hear_consumer_error(self, code: int, text: str) -> None:
        if code == UNKNOWN_TOPIC_OR_PART:
            self._missing.look()
            self._await_topics()
        elif code == INVALID_SESSION_TIMEOUT:
            self._fail(
                f"Kafka at {self._servers} does not take session_timeout_ms={self._session_ms}: it lies between the "
                "brokers' group.min.session.timeout.ms and group.max.session.timeout.ms, which are 6000 and 1800000 "
                "unless somebody changed them"
            )
        elif code == AUTO_OFFSET_RESET:
            self._fail(f"Kafka has no position to start from ({text}); set auto_offset_reset='earliest' or 'latest'")
        elif code == MAX_POLL_EXCEEDED:
            self._troubles.tell("kafka: no poll for max.poll.interval.ms, so the group goes on without this member")
        else:
            if text.startswith("JoinGroup failed"):
                self._group_watch.refused(text)
            self._troubles.tell(f"kafka: {text or librdkafka.error_text(code)}", code)

    def _look_around(self) -> None:
        """Is a broker there, and every topic? Says so once in a while, and gives up at ``connect_timeout``."""
        if self._away.answers():
            self._reached()
        if self._missing:
            self._missing.look()
        awaits_topic = self._await_topics()
        limit = self._context.connect_timeout
        if given_up := self._away.failure(limit) or self._missing.failure(limit) or self._group_watch.failure(limit):
            self._fail(given_up)
        waiting = bool(self._away) or bool(self._missing) or awaits_topic or self._group_watch.waits
        self.native.check_after(CHECK_SECONDS if waiting else None)

    def _await_topics(self) -> bool:
        """Until the end: that of what there is would be no end while a topic does not exist."""
        awaits = self._bounded and self._missing.to_come(self._bounds.topics)
        self.native.await_topic(awaits)
        return awaits

    def _look_at_group(self) -> None:
        if not self._away and not self._missing and (line := self._group_watch.look(len(self._current))):
            self._context.log(line)

    def _reached(self) -> None:
        if self._away:
            self._group_watch.changed()
        self._away.reached()

    # --- flow and life --------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self.native.pause(True)

    def resume(self) -> None:
        self.native.pause(False)

    def keep_alive(self) -> None:
        if self.native.keep_alive():
            self._act_on_notes()
            self._look_around()  # but not at the group: who reads no more takes nothing over

    def close(self) -> None:
        if not self._closed:
            self._last_positions.update(self.native.positions())  # what progress() tells from now on
            self._closed = True
            self._quiet.close()
            self._foreign.close()
            self.native.close(SILENT_LEAVE_SECONDS if self._commits.silent else LEAVE_SECONDS, END_SECONDS)

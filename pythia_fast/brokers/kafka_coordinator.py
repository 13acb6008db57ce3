"""How a consumer group stands, asked of its coordinator by a process of its own.

Where the connection to a coordinator breaks while librdkafka's admin client waits for its answer, an assertion takes
the process down (librdkafka 2.16; see its pull request 5397). That must not be the process that reads: the question
goes to one that is made for it, ``python -m pythia_fast.brokers.kafka_coordinator``, as a line of JSON on its standard
input, and the answer comes back as one by its standard output. One that died of a question is made anew for the next.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from pythia_fast._ext.arena_memory import die_with_parent
from pythia_fast.interpreters import module_environment
from pythia_fast.unreadable import UNREADABLE

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, MemberDescription

    from pythia_fast.brokers.kafka_client import KafkaAccess

ANSWER_S = 5.0
PROCESS_S = 30.0  #: for its start, and all that it asks
SILENT = "it does not answer"


class Owner(msgspec.Struct, frozen=True):
    """A member of a group that holds a partition."""

    member_id: str  #: another one each time that it joins anew; empty: the coordinator does not tell of it
    name: str  #: "client id at host"


class Holding(msgspec.Struct, frozen=True):
    """A partition, and who holds it."""

    topic: str
    partition: int
    owner: Owner


class Group(msgspec.Struct, frozen=True):
    """How a consumer group stands, by its coordinator."""

    state: Literal["stable", "rebalance", "unknown"]
    members: dict[str, int]  #: "client id at host" -> partitions that it holds; without ourselves
    trouble: str = ""  #: why the coordinator did not say
    unread: str = ""  #: partitions of the group's topics that no member holds
    joined: bool = True  #: whether we are a member
    holdings: tuple[Holding, ...] = ()  #: ours among them; of a stable group

    @property
    def is_without_us(self) -> bool:
        """It goes on, or is empty, and we are not in it. A rebalance may be the one that takes us in."""
        return not self.joined and not self.trouble and self.state != "rebalance"


class _Question(msgspec.Struct):
    path: list[bytes]  #: where modules are found
    options: dict[str, str]
    group: str
    client_id: str
    instance_id: str | None


class Coordinator:
    """The process that asks about one group: begun with the first question, and ended by ``close``. Of one thread.

    ``options``: to reach the brokers; ``client_id``, ``instance_id``: ours in the group.
    """

    def __init__(self, options: Mapping[str, str], group: str, client_id: str, instance_id: str | None) -> None:
        path = [os.fsencode(entry) for entry in sys.path]
        question = _Question(path, dict(options), group, client_id, instance_id)
        self._question = msgspec.json.encode(question) + b"\n"
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self) -> Group:
        """Waits for the answer."""
        try:
            return msgspec.json.decode(self._answer(), type=Group)
        except (OSError, *UNREADABLE):  # it is stuck, or an assertion has taken it down
            self.close()
            return Group("unknown", {}, SILENT)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it keeps nothing, and librdkafka's end may take as long as a broker that is away
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # what was not written to one that died
                        pipe.close()

    def _answer(self) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=module_environment(),
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._question)
        return _line_of(self._process.stdout.fileno(), time.monotonic() + PROCESS_S)


def ask_coordinator(options: Mapping[str, str], group: str, client_id: str, instance_id: str | None) -> Group:
    """Ask once."""
    with contextlib.closing(Coordinator(options, group, client_id, instance_id)) as coordinator:
        return coordinator.ask()


def _line_of(pipe: int, deadline_s: float) -> bytes:
    """What comes before the next newline; what has come when the pipe ends, or at the deadline."""
    come = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not come.endswith(b"\n") and selector.select(max(0.0, deadline_s - time.monotonic())):
            part = os.read(pipe, 65_536)
            if not part:
                break
            come += part
    return bytes(come)


# -- in that process -----------------------------------------------------------------------------


def _answer(question: _Question, access: KafkaAccess, admin: AdminClient) -> Group:
    from confluent_kafka import ConsumerGroupState, KafkaException

    from pythia_fast.brokers.kafka_client import text_of
    from pythia_fast.errors import SourceError

    def is_ours(member: MemberDescription) -> bool:
        # One that was started again within its session has the client id of the one before it, by the coordinator.
        ours = question.instance_id
        return bool(member.group_instance_id == ours if ours else member.client_id == question.client_id)

    try:
        with access.failures(SourceError):
            asked = admin.describe_consumer_groups([question.group], request_timeout=ANSWER_S)
            found = asked[question.group].result(ANSWER_S)
            unread = _unread(admin, found) if found.state == ConsumerGroupState.STABLE else ""
    except (SourceError, TimeoutError) as error:
        return Group("unknown", {}, str(error) or SILENT)
    except KafkaException as error:
        return Group("unknown", {}, text_of(error.args[0]))
    others = {
        _name_of(member): len(member.assignment.topic_partitions) for member in found.members if not is_ours(member)
    }
    joined = any(is_ours(member) for member in found.members)
    if found.state == ConsumerGroupState.STABLE:
        holdings = tuple(
            Holding(part.topic, part.partition, Owner(member.member_id, _name_of(member)))
            for member in found.members
            for part in member.assignment.topic_partitions
        )
        return Group("stable", others, unread=unread, joined=joined, holdings=holdings)
    empty = found.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD, ConsumerGroupState.UNKNOWN)
    return Group("unknown" if empty else "rebalance", others, joined=joined)


def _name_of(member: MemberDescription) -> str:
    return f"{member.client_id} at {member.host.lstrip('/')}"


def _unread(admin: AdminClient, group: ConsumerGroupDescription) -> str:
    """Partitions that nobody holds, of the topics of which somebody holds any."""
    from pythia_fast.brokers.kafka_partition_names import partition_names

    held = {(part.topic, part.partition) for member in group.members for part in member.assignment.topic_partitions}
    there = {
        (topic, partition)
        for topic in {topic for topic, _ in held}
        for partition in admin.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
    }
    return partition_names(there - held)


def _answers(questions: Iterable[bytes], answers: BinaryIO) -> None:
    """One to each question. All are about the same brokers."""
    from pythia_fast.brokers.kafka_client import KafkaAccess
    from pythia_fast.errors import SourceError

    admin: AdminClient | None = None  # lives until the last is answered
    for line in questions:
        question = msgspec.json.decode(line, type=_Question)
        access = KafkaAccess(question.options, ANSWER_S)
        try:
            admin = admin or access.admin()
            group = _answer(question, access, admin)
        except SourceError as error:
            group = Group("unknown", {}, str(error))
        answers.write(msgspec.json.encode(group) + b"\n")
        answers.flush()


def main() -> None:
    """Answer the questions on standard input, until it ends."""
    die_with_parent()
    first = sys.stdin.buffer.readline()
    question = msgspec.json.decode(first, type=_Question)
    sys.path[:] = map(os.fsdecode, question.path)
    _answers(itertools.chain([first], sys.stdin.buffer), sys.stdout.buffer)


if __name__ == "__main__":
    main()

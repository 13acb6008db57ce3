"""How a consumer group stands, asked of its coordinator by a process of its own.

Where the connection to a coordinator breaks while librdkafka's admin client waits for its answer, an assertion takes
the process down (librdkafka 2.16; see its pull request 5397). That must not be the process that reads: the question
goes to one that is made for it, ``python -m pythia_fast.brokers.kafka_coordinator``, as JSON on its standard input, and
the answer comes back by its standard output. It is asked seldom.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from pythia_fast._ext.arena_memory import die_with_parent
from pythia_fast.interpreters import module_environment
from pythia_fast.unreadable import UNREADABLE

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, MemberDescription

ANSWER_S = 5.0
PROCESS_S = 30.0  #: for its start, and all that it asks
SILENT = "it does not answer"


class Group(msgspec.Struct, frozen=True):
    """How a consumer group stands, by its coordinator."""

    state: Literal["stable", "rebalance", "unknown"]
    members: dict[str, int]  #: "client id at host" -> partitions that it holds; without ourselves
    trouble: str = ""  #: why the coordinator did not say
    unread: str = ""  #: partitions of the group's topics that no member holds
    joined: bool = True  #: whether we are a member

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


def ask_coordinator(options: Mapping[str, str], group: str, client_id: str, instance_id: str | None) -> Group:
    """``options``: to reach the brokers; ``client_id``, ``instance_id``: ours in the group. Waits."""
    path = [os.fsencode(entry) for entry in sys.path]
    question = _Question(path, dict(options), group, client_id, instance_id)
    try:
        asked = subprocess.run(
            [sys.executable, "-m", __name__],
            input=msgspec.json.encode(question),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=module_environment(),
            timeout=PROCESS_S,
            check=False,
        )
        return msgspec.json.decode(asked.stdout, type=Group)
    except (subprocess.TimeoutExpired, *UNREADABLE):  # it is stuck, or an assertion has taken it down
        return Group("unknown", {}, SILENT)


def _answer(question: _Question) -> Group:
    from confluent_kafka import ConsumerGroupState, KafkaException

    from pythia_fast.brokers.kafka_client import KafkaAccess, text_of
    from pythia_fast.errors import SourceError

    def is_ours(member: MemberDescription) -> bool:
        # One that was started again within its session has the client id of the one before it, by the coordinator.
        ours = question.instance_id
        return bool(member.group_instance_id == ours if ours else member.client_id == question.client_id)

    access = KafkaAccess(question.options, ANSWER_S)
    try:
        admin = access.admin()  # lives until it has answered
        with access.failures(SourceError):
            asked = admin.describe_consumer_groups([question.group], request_timeout=ANSWER_S)
            found = asked[question.group].result(ANSWER_S)
            unread = _unread(admin, found) if found.state == ConsumerGroupState.STABLE else ""
    except (SourceError, TimeoutError) as error:
        return Group("unknown", {}, str(error) or SILENT)
    except KafkaException as error:
        return Group("unknown", {}, text_of(error.args[0]))
    others = {
        f"{member.client_id} at {member.host.lstrip('/')}": len(member.assignment.topic_partitions)
        for member in found.members
        if not is_ours(member)
    }
    joined = any(is_ours(member) for member in found.members)
    if found.state == ConsumerGroupState.STABLE:
        return Group("stable", others, unread=unread, joined=joined)
    empty = found.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD, ConsumerGroupState.UNKNOWN)
    return Group("unknown" if empty else "rebalance", others, joined=joined)


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


def main() -> None:
    """Answer the question on standard input."""
    die_with_parent()
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    sys.path[:] = map(os.fsdecode, question.path)
    sys.stdout.buffer.write(msgspec.json.encode(_answer(question)))


if __name__ == "__main__":
    main()

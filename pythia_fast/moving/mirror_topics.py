"""The topics of a mirror: which there are in the source, and what they are in the target."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.brokers.kafka_cluster import CLUSTER_DEFAULT, KafkaCluster, TopicDescription
from pythia_fast.errors import ConfigError, SourceError

#: A topic's own name, as opposed to a pattern of names.
_NAME = re.compile(r"[A-Za-z0-9._-]+")
#: What a topic that is made in the target has from the one in the source: what is kept there, and for how long, and how
#: large a message may be. Where it is a default in the source, the target's may differ.
COPIED = ("cleanup.policy", "max.message.bytes", "retention.ms", "retention.bytes")
TIMESTAMP_TYPE = "message.timestamp.type"


def patterns_of(given: Sequence[str]) -> tuple[str, ...]:
    """As KafkaConsumer takes them: names, and regular expressions for whole names. Raises ConfigError."""
    patterns = []
    for text in given:
        if _NAME.fullmatch(text):
            if text.startswith("__"):
                raise ConfigError(f"--topics {text}: Kafka's own topics are not mirrored")
            patterns.append(text)
            continue
        try:
            re.compile(text)
        except re.error as error:
            raise ConfigError(f"--topics {text!r} is neither a name nor a regular expression: {error}") from None
        patterns.append(f"^({text.removeprefix('^').removesuffix('$')})$")
    return tuple(dict.fromkeys(patterns))


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of the names that one of the patterns means; none of Kafka's own."""
    exact = {pattern for pattern in patterns if not pattern.startswith("^")}
    expressions = [re.compile(pattern) for pattern in patterns if pattern.startswith("^")]
    return sorted(
        name
        for name in names
        if name in exact or (not name.startswith("__") and any(each.search(name) for each in expressions))
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Largest messages, in bytes, as far as topics say."""

    source: int  #: of any topic of the source
    target: int  #: that every topic of the target takes


class MirrorTopics:
    """Looks at both clusters. Raises SourceError where one does not answer, ConfigError for what cannot be mirrored."""

    def __init__(self, source: KafkaAccess, target: KafkaAccess, patterns: Sequence[str], prefix: str) -> None:
        self._source_access, self._target_access = source, target
        self._source, self._target = KafkaCluster(source), KafkaCluster(target)
        self.patterns = tuple(patterns)
        self.prefix = prefix
        self._checked: dict[str, int] = {}  #: topic of the source -> partitions that the target has of it
        #: Whether a topic was mirrored before, so that the target's is to grow as the source's does.
        self.was_mirrored: Callable[[str], bool] = lambda topic: False

    def check_clusters(self) -> None:
        """Refuse to mirror topics into themselves."""
        source, target = cluster_id(self._source_access), cluster_id(self._target_access)
        if source is None or target is None:
            same = self._source_access.servers == self._target_access.servers
        else:
            same = source == target
        if not same:
            return
        if not self.prefix:
            raise ConfigError(
                f"--from {self._source_access.servers} and --to {self._target_access.servers} are the same cluster"
                f"{f' ({source})' if source else ''}, and topics keep their names, so each would be mirrored into "
                "itself: correct one of them, or give --to-prefix"
            )
        for name in self.names():
            if matching(self.patterns, [self.prefix + name]):
                raise ConfigError(
                    f"source and target are the same cluster, and topic {self.prefix}{name}, the mirror of {name}, "
                    "would be mirrored again, for ever: narrow --topics so that it leaves out the mirrors"
                )

    def names(self) -> list[str]:
        """The topics of the source that are meant, as they are now."""
        return matching(self.patterns, self._source.topics())

    def partitions(self, topic: str) -> int:
        """So many of the topic's are known to be in the target."""
        return self._checked.get(topic, 0)

    def ensure(self, topics: Iterable[str]) -> list[str]:
        """Have each of these in the target, with all its partitions; what was made."""
        topics = set(topics)
        if not topics:
            return []
        wanted = self._source.topics()
        found = self._target.topics()
        made = []
        for topic in sorted(topics):
            partitions = len(wanted.get(topic, ()))
            if self._checked.get(topic, 0) >= partitions:
                continue
            name = self.prefix + topic
            described = self._source.describe_topic(topic)
            if name not in found:
                config = {key: described.config[key] for key in COPIED if key in described.config}
                if self._target.create_topic(name, partitions, CLUSTER_DEFAULT, config, exist_ok=True):
                    made.append(
                        f"topic {name} with {partitions} partitions, cleanup.policy={config.get('cleanup.policy')}"
                    )
            there = self._target.describe_topic(name)
            if len(there.partitions) < partitions and (topic in self._checked or self.was_mirrored(topic)):
                self._target.add_partitions(name, partitions)
                made.append(f"partitions of {name}: {partitions} now, as in the source")
                there = self._target.describe_topic(name)
            self._check(topic, there, partitions)
            self._checked[topic] = partitions
        return made

    def sizes(self, topics: Iterable[str]) -> Sizes:
        """What the topics of both sides say about the sizes of messages."""
        source, target = [1 << 20], [1 << 20]
        for topic in topics:
            source.append(_message_bytes(self._source.describe_topic(topic)))
            target.append(_message_bytes(self._target.describe_topic(self.prefix + topic)))
        return Sizes(max(source), min(target[1:] or target))

    def _check(self, topic: str, target: TopicDescription, partitions: int) -> None:
        if len(target.partitions) < partitions:
            raise ConfigError(
                f"topic {topic} has {partitions} partitions, and {target.name} in the target has "
                f"{len(target.partitions)}: partitions are kept, so give it {partitions} "
                f"(kafka-topics.sh --alter --partitions {partitions})"
            )
        if target.config.get(TIMESTAMP_TYPE) == "LogAppendTime":
            raise ConfigError(
                f"topic {target.name} in the target has {TIMESTAMP_TYPE}=LogAppendTime, so messages would lose their "
                "times: set it to CreateTime"
            )


def _message_bytes(topic: TopicDescription) -> int:
    text = topic.config.get("max.message.bytes", "")
    return int(text) if text.isdigit() else 1 << 20


def cluster_id(access: KafkaAccess) -> str | None:
    """The name that a cluster gives itself; None: its brokers tell none."""
    admin = access.admin()
    with access.failures(SourceError):
        found = admin.list_topics(timeout=access.timeout_s).cluster_id
    return str(found) if found else None

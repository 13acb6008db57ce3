"""Kafka before a run: login, topics, rights, settings, the group and its lag; no member joins, no message is read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem, warning
from pythia_fast.brokers.kafka_client import KafkaAccess, missing, text_of
from pythia_fast.brokers.kafka_cluster import GroupMember, KafkaCluster, PartitionLag, TopicDescription
from pythia_fast.errors import SourceError, UnknownGroupError

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer

#: What a message takes of max.message.bytes besides its payload, at least: the head of a record batch (61 bytes) and of
#: a record. Kafka's documentation, "Message Format".
OVERHEAD_BYTES = 70
MOST_TOLD = 20  #: topics, each looked into
ASK_EVERY_S = 0.5
CREATE = "create it (KafkaAdmin.create_topic), or allow this user to describe it"
#: Of librdkafka, which no amount of waiting mends.
LASTING = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED)
SHARE_OF_RETENTION = 0.5  #: an unread message older than this share of it is told
MAX_POLL_INTERVAL_S, SESSION_TIMEOUT_MS, MESSAGE_MAX_BYTES, BATCH_SIZE_BYTES = 300.0, 45_000, 1_000_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was answered at first."""

    access: KafkaAccess
    questions: KafkaCluster
    topics: Mapping[str, Sequence[int]]
    brokers: int
    servers: str


def check_consumer(consumer: KafkaConsumer, context: CheckupContext) -> Findings:
    """The topics that are read, and the group."""
    cluster = yield from connect(consumer.connection_options(), context)
    if cluster is None:
        return
    topics: list[str] = []
    for name in consumer.topics:
        if name.startswith("^"):
            found = sorted(topic for topic in cluster.topics if re.match(name, topic))
            yield (
                ok(f"{len(found):,} topics match {name}")
                if found
                else problem(f"no topic matches {name} at {cluster.servers}", "create one, or mend the pattern")
            )
            topics += found
        elif name in cluster.topics:
            topics.append(name)
        else:
            yield problem(missing(name, cluster.topics, cluster.servers), CREATE)
    group = consumer.group(context.app, context.handler)
    for topic in topics[:MOST_TOLD]:
        yield from guarded(f"topic {topic}", _source_topic(cluster, topic, group, context))
    settings = yield from _broker_settings(cluster)
    yield from _timeouts(consumer.given_options, settings, context)
    yield from guarded(f"group {group}", _group(cluster, consumer, group, topics, context))


def check_producer(producer: KafkaProducer, context: CheckupContext) -> Findings:
    """The topic that is written to, and transactions."""
    cluster = yield from connect(producer.connection_options(), context)
    if cluster is None:
        return
    if producer.topic not in cluster.topics:
        yield problem(missing(producer.topic, cluster.topics, cluster.servers), CREATE)
    else:
        yield from guarded(f"topic {producer.topic}", _sink_topic(cluster, producer, context))
    if context.transactional:
        settings = yield from _broker_settings(cluster)
        yield from _transactions(producer, settings, cluster.brokers, context)


# -- the brokers ---------------------------------------------------------------------------------


def connect(options: Mapping[str, str], context: CheckupContext) -> Any:
    """Yields findings; returns a Cluster, or None where no broker let us in."""
    told: list[KafkaError] = []
    patience_s, begun = context.left_s(), time.monotonic()
    access = KafkaAccess(options, patience_s)
    metadata = None
    try:
        admin = access.admin(told.append)
    except SourceError as error:
        yield problem(str(error), "mend the options")
        return None
    reason = ""
    while metadata is None and (left_s := patience_s - (time.monotonic() - begun)) > 0:
        try:
            metadata = admin.list_topics(timeout=max(0.01, min(ASK_EVERY_S, left_s)))
        except KafkaException as error:
            reason = text_of(error.args[0])
        admin.poll(0)
        lasting = [error for error in told if error.code() in LASTING]
        if metadata is None and lasting:
            yield problem(
                f"Kafka at {access.servers} does not let us in: {text_of(lasting[-1])}",
                "see security_protocol=, sasl_mechanism=, sasl_username=, sasl_password=, ssl_ca_location=",
            )
            return None
    if metadata is None:
        causes = [error for error in told if error.code() != KafkaError._ALL_BROKERS_DOWN]
        why = text_of(causes[-1]) if causes else reason
        yield problem(
            f"no Kafka broker answered at {access.servers} within {patience_s:.1f} s ({why})",
            "see that it is up, and the address (bootstrap_servers= or KAFKA_BOOTSTRAP_SERVERS) and security_protocol= "
            "are right",
        )
        return None
    brokers = "1 broker" if len(metadata.brokers) == 1 else f"{len(metadata.brokers)} brokers"
    yield ok(f"Kafka at {access.servers} answered after {(time.monotonic() - begun) * 1000:.0f} ms: {brokers}")
    topics = {name: sorted(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}
    access = KafkaAccess(options, context.left_s())
    return Cluster(access, KafkaCluster(access, admin), topics, len(metadata.brokers), access.servers)


def guarded(what: str, findings: Findings) -> Findings:
    """A question that the brokers refuse is a finding, and the others are asked all the same."""
    try:
        yield from findings
    except SourceError as error:
        yield problem(f"{what}: {error}", "allow this user to describe it (kafka-acls --operation Describe)")


def _broker_settings(cluster: Cluster) -> Any:
    """Yields findings; returns a broker's settings, nothing where they may not be asked."""
    try:
        return cluster.questions.broker_config()
    except SourceError as error:
        yield note(f"the brokers' own settings cannot be asked: {error}")
        return {}


# -- topics --------------------------------------------------------------------------------------


def _source_topic(cluster: Cluster, topic: str, group: str, context: CheckupContext) -> Findings:
    found = cluster.questions.describe_topic(topic)
    yield from topic_to_read(cluster, found, context)
    yield from _lag(cluster, found, group)


def topic_to_read(cluster: Cluster, found: TopicDescription, context: CheckupContext) -> Findings:
    """Its copies, the right to read it, and how large its messages may be."""
    topic = found.name
    yield from _copies(cluster, found, writes=False)
    rights = cluster.questions.topic_rights(topic)
    if rights is not None and "READ" not in rights:
        yield problem(f"this user may not read topic {topic}", f"kafka-acls --add --operation Read --topic {topic}")
    largest = int(found.config.get("max.message.bytes", "0")) - OVERHEAD_BYTES
    if largest > context.max_batch_bytes:
        yield warning(
            f"topic {topic} takes messages of {largest:,} bytes, and a batch holds {context.max_batch_bytes:,}: larger "
            "ones are refused and dead-lettered",
            f"raise max_batch_bytes of the handler to {largest:,}, or lower max.message.bytes of the topic",
        )


def _lag(cluster: Cluster, topic: TopicDescription, group: str) -> Findings:
    try:
        parts = cluster.questions.partition_lags(group, topic.name)
    except UnknownGroupError:
        return
    lag = sum(part.lag for part in parts.values())
    yield ok(f"group {group} has {lag:,} messages of topic {topic.name} to read")
    removed = sum(map(_removed, parts.values()))
    if removed:
        yield warning(
            f"{removed:,} offsets of topic {topic.name} were removed before group {group} read them",
            "raise retention.ms or retention.bytes, or read faster",
        )
    retention_ms = int(topic.config.get("retention.ms", "-1"))
    behind = [number for number, part in parts.items() if part.lag and not _removed(part)]
    if retention_ms <= 0 or "delete" not in topic.config.get("cleanup.policy", "delete") or not behind:
        return
    age_ms = int(retention_ms * SHARE_OF_RETENTION)
    young = cluster.questions.offsets_at(topic.name, behind, int(time.time() * 1000) - age_ms)
    old = [
        number
        for number in behind
        if young[number] < 0 or young[number] > (parts[number].committed or parts[number].start)
    ]
    if old:
        yield warning(
            f"unread messages in {_count(len(old), 'partition')} of topic {topic.name} are older than "
            f"{age_ms / 3.6e6:.3g} h, and "
            f"it keeps them for {retention_ms / 3.6e6:.3g} h",
            "raise retention.ms, or read faster",
        )


def _removed(part: PartitionLag) -> int:
    """Offsets that the partition has lost at its old end before the group read them."""
    return 0 if part.committed is None else max(0, part.start - part.committed)


def _sink_topic(cluster: Cluster, producer: KafkaProducer, context: CheckupContext) -> Findings:
    topic = producer.topic
    found = cluster.questions.describe_topic(topic)
    yield from _copies(cluster, found, writes=True)
    rights = cluster.questions.topic_rights(topic)
    if rights is not None and "WRITE" not in rights:
        yield problem(
            f"this user may not write to topic {topic}", f"kafka-acls --add --operation Write --topic {topic}"
        )
    options = producer.given_options
    limit = int(found.config.get("max.message.bytes", "0"))
    batch = int(options.get("batch.size", BATCH_SIZE_BYTES))
    largest = int(options.get("message.max.bytes", MESSAGE_MAX_BYTES))
    if 0 < limit < min(batch, largest):
        takes = f"topic {topic} takes {limit:,} bytes at once (max.message.bytes), and the producer sends up to "
        if context.transactional:
            yield warning(
                f"{takes}{min(batch, largest):,}: a larger batch is refused, which costs a transaction",
                f"give batch_size={limit} and message_max_bytes={limit}, or raise max.message.bytes of the topic",
            )
        else:
            yield note(f"{takes}{min(batch, largest):,}: a run makes batches no larger than the topic takes")
    if "compact" in found.config.get("cleanup.policy", ""):
        yield note(f"topic {topic} is compacted: a record without a key is refused, and becomes a dead letter")
    if context.role == "dead_letter" and 0 < limit - OVERHEAD_BYTES < context.max_batch_bytes and largest > limit:
        yield note(
            f"a dead letter of more than {limit:,} bytes is refused by topic {topic} and kept in the state folder",
        )


def _copies(cluster: Cluster, topic: TopicDescription, *, writes: bool) -> Findings:
    parts = topic.partitions
    replicas = min((len(part.replicas) for part in parts.values()), default=0)
    least = int(topic.config.get("min.insync.replicas", "1"))
    yield ok(
        f"topic {topic.name} has {_count(len(parts), 'partition')}, replication factor {replicas}, "
        f"min.insync.replicas {least}"
    )
    headless = [number for number, part in parts.items() if part.leader is None]
    if headless:
        yield problem(
            f"{_count(len(headless), 'partition')} of topic {topic.name} have no leader, so nobody can read "
            "or write them",
            "bring the brokers back that have them",
        )
    if replicas == 1 and cluster.brokers > 1:
        yield warning(
            f"topic {topic.name} has one replica: a broker that is lost takes its messages with it",
            "give it three (kafka-reassign-partitions)",
        )
    elif replicas == 1:
        yield note(f"topic {topic.name} has one replica, as the cluster has one broker: its disk is all there is")
    few = [number for number, part in parts.items() if len(part.in_sync_replicas) < len(part.replicas)]
    if few:
        yield warning(
            f"{_count(len(few), 'partition')} of topic {topic.name} have replicas that are not in sync",
            "see the brokers",
        )
    if not writes:
        return
    short = [number for number, part in parts.items() if len(part.in_sync_replicas) < least]
    if short:
        yield problem(
            f"{_count(len(short), 'partition')} of topic {topic.name} have fewer in-sync replicas than "
            f"min.insync.replicas={least}: writes are refused, and wait",
            "bring brokers back, or lower min.insync.replicas",
        )
    elif replicas > 1 and least >= replicas:
        yield warning(
            f"min.insync.replicas={least} of topic {topic.name} is its replication factor: one broker away "
            "stops writes",
            f"set it to {replicas - 1}",
        )
    elif replicas > 2 and least == 1:
        yield note(
            f"min.insync.replicas=1 of topic {topic.name}: a record can count as written with one copy",
            "set it to 2",
        )


# -- the group -----------------------------------------------------------------------------------


def _group(
    cluster: Cluster, consumer: KafkaConsumer, group: str, topics: Iterable[str], context: CheckupContext
) -> Findings:
    partitions = sum(len(cluster.topics[topic]) for topic in topics)
    found = cluster.questions.group(group)
    members = () if found is None else found.members
    if found is None or found.state == "DEAD":
        begin = consumer.given_options.get("auto.offset.reset", "earliest")
        yield note(f"group {group} does not exist yet: it begins at the {begin} message")
    else:
        yield ok(f"group {group} is {found.state.lower()}, with {_count(len(members), 'member')}")
        if found.rights is not None and "READ" not in found.rights:
            yield problem(
                f"this user may not read as group {group}", f"kafka-acls --add --operation Read --group {group}"
            )
        ours = consumer.given_options.get("partition.assignment.strategy", "cooperative-sticky")
        classic = consumer.given_options.get("group.protocol", "classic") == "classic"
        if members and classic and found.assignor and found.assignor not in ours.split(","):
            yield problem(
                f"the members of group {group} share partitions by {found.assignor}, this one by {ours}: it "
                "cannot join",
                f"give partition_assignment_strategy={found.assignor!r}, or another consumer_group",
            )
        twins = [member for member in members if member.instance_id and member.instance_id == consumer.instance_id]
        if twins:
            yield warning(
                f"group.instance.id {consumer.instance_id} is a member already, at {_host(twins[0])}: it is fenced",
                "give each copy an id of its own, if that one lives",
            )
        if members:
            yield note(f"members of group {group} are at {', '.join(sorted(set(map(_host, members)))[:5])}")
    if context.ordering == "partition" and 0 < partitions < context.workers:
        yield warning(
            f'ordering="partition" with {context.workers} processes and {_count(partitions, "partition")}: '
            f"{context.workers - partitions} processes have nothing to do",
            f'--workers {partitions}, more partitions, or ordering="key"',
        )
    elif members and 0 < partitions <= len(members):
        yield warning(
            f"{_count(partitions, 'partition')} for {_count(len(members), 'member')} and this one: one gets none",
            "more partitions, or fewer members",
        )


def _timeouts(options: Mapping[str, str], settings: Mapping[str, str], context: CheckupContext) -> Findings:
    """No handler's call is on the thread that polls, so only giving partitions back waits for one."""
    poll_s = int(options.get("max.poll.interval.ms", MAX_POLL_INTERVAL_S * 1000)) / 1000
    if context.batch_deadline_s is not None and context.batch_deadline_s >= poll_s:
        yield warning(
            f"batch_deadline={context.batch_deadline_s:g} s is not below max.poll.interval.ms, {poll_s:g} s: "
            "a partition "
            "that is given back waits for its batch, and the group would drop this member meanwhile",
            f"lower batch_deadline, or give max_poll_interval_ms={int(context.batch_deadline_s * 2000)}",
        )
    if options.get("group.protocol", "classic") != "classic":
        return
    session_ms = int(options.get("session.timeout.ms", SESSION_TIMEOUT_MS))
    low = int(settings.get("group.min.session.timeout.ms", "0"))
    high = int(settings.get("group.max.session.timeout.ms", str(1 << 31)))
    if not low <= session_ms <= high:
        yield problem(
            f"session.timeout.ms={session_ms:,} is refused by the brokers, which take {low:,} to {high:,}",
            "give session_timeout_ms= between them, or change group.min/max.session.timeout.ms",
        )


def _transactions(
    producer: KafkaProducer, settings: Mapping[str, str], brokers: int, context: CheckupContext
) -> Findings:
    timeout_s = producer.transaction_timeout_s
    most_ms = int(settings.get("transaction.max.timeout.ms", str(1 << 31)))
    if timeout_s * 1000 > most_ms:
        yield problem(
            f"transaction.timeout.ms={timeout_s * 1000:,.0f} is refused by the brokers, which take up to {most_ms:,}",
            f"give transaction_timeout_ms={most_ms}, or raise transaction.max.timeout.ms",
        )
    if context.batch_deadline_s is not None and context.batch_deadline_s >= timeout_s:
        yield warning(
            f"batch_deadline={context.batch_deadline_s:g} s does not fit into a transaction, which is aborted after "
            f"{timeout_s:g} s at most",
            f"lower batch_deadline, or give transaction_timeout_ms={int(context.batch_deadline_s * 2000)}",
        )
    copies = int(settings.get("transaction.state.log.replication.factor", "0"))
    if copies == 1:
        yield (warning if brokers > 1 else note)(
            "transaction.state.log.replication.factor is 1: a broker that is killed can forget the end of a "
            "transaction "
            "that it confirmed",
            "have three brokers, and make __transaction_state with three replicas",
        )


def _host(member: GroupMember) -> str:
    return member.host.lstrip("/")  # as Java writes addresses


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"

"""A Kafka share group before a run: login, topics, rights, the group's settings; no member joins, no row is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem, warning
from pythia_fast.brokers.kafka_checkup import CREATE, MOST_TOLD, Cluster, connect, guarded, topic_to_read
from pythia_fast.brokers.kafka_client import missing
from pythia_fast.brokers.kafka_share import SHARE_DEFAULTS
from pythia_fast.brokers.kafka_share_group import settings

if TYPE_CHECKING:
    from pythia_fast.brokers.kafka_share import KafkaShareConsumer


def check_share_consumer(consumer: KafkaShareConsumer, context: CheckupContext) -> Findings:
    """The topics that are read, and the group."""
    from pythia_fast._ext.kafka_share_reader import check_library
    from pythia_fast.errors import ExtensionError

    try:
        check_library()
    except ExtensionError as error:
        yield problem(str(error), "install it")
    cluster = yield from connect(consumer.connection_options(), context)
    if cluster is None:
        return
    for topic in consumer.topics[:MOST_TOLD]:
        if topic in cluster.topics:
            yield from guarded(f"topic {topic}", _topic(cluster, topic, context))
        else:
            yield problem(missing(topic, cluster.topics, cluster.servers), CREATE)
    group = consumer.group(context.app, context.handler)
    yield from guarded(f"group {group}", _kind(cluster, group))
    yield from guarded(f"share group {group}", _settings(cluster, consumer, group, context))


def _topic(cluster: Cluster, topic: str, context: CheckupContext) -> Findings:
    yield from topic_to_read(cluster, cluster.questions.describe_topic(topic), context)


def _kind(cluster: Cluster, group: str) -> Findings:
    found = cluster.questions.group(group)
    if found is not None and found.state != "DEAD":
        yield problem(
            f"group {group} is an ordinary consumer group ({found.state.lower()}): it cannot be read as a share group",
            "give another consumer_group=",
        )


def _settings(cluster: Cluster, consumer: KafkaShareConsumer, group: str, context: CheckupContext) -> Findings:
    found = settings(cluster.access, group)
    yield ok(
        f"share group {group}: rows are kept for {found.lock_s:g} s (share.record.lock.duration.ms), delivered "
        f"{found.deliveries} times at most (share.delivery.count.limit), {found.locks:,} of a partition at once"
    )
    if found.reset_is_own and found.reset != consumer.auto_offset_reset:
        yield note(
            f"share group {group} begins at the {found.reset} message where it has no position "
            f"(share.auto.offset.reset), not at the {consumer.auto_offset_reset} one",
            f"kafka-configs.sh --alter --entity-type groups --entity-name {group}, or auto_offset_reset=",
        )
    if context.batch_deadline_s is not None and context.batch_deadline_s >= found.lock_s:
        yield warning(
            f"batch_deadline={context.batch_deadline_s:g} s is not below the {found.lock_s:g} s for which rows are "
            "kept: those of a slow call are delivered again before it is over",
            "lower batch_deadline, or raise share.record.lock.duration.ms of the group",
        )
    given = consumer.given_options.get("max.poll.records", SHARE_DEFAULTS["max.poll.records"])
    if (in_hand := int(given) * consumer.members) > found.locks:
        yield note(
            f"{consumer.members} members of {int(given):,} rows each ask for {in_hand:,}, and the brokers give "
            f"{found.locks:,} of a partition at once (share.partition.max.record.locks)",
            "lower max_poll_records= or members=, if there are few partitions",
        )

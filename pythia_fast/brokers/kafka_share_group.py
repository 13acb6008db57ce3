"""The settings that a share group has at its brokers: asked by the reader and by the checkup; one of them is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, ResourceType

from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.errors import SourceError

RESET = "share.auto.offset.reset"
LOCK_MS = "share.record.lock.duration.ms"
DELIVERIES = "share.delivery.count.limit"
LOCKS = "share.partition.max.record.locks"


@dataclass(frozen=True, slots=True)
class ShareGroupSettings:
    """As the brokers have them; Kafka's defaults where they do not tell."""

    reset: str = "latest"  #: where the group begins in a partition that it has no position in
    reset_is_own: bool = False  #: set for this group, and not the cluster's default
    lock_s: float = 30.0  #: for which a row is kept for the member that took it
    deliveries: int = 5  #: of a row, after which it is archived: nobody gets it any more
    locks: int = 2000  #: rows of a partition that members may have at once


def settings(access: KafkaAccess, group: str) -> ShareGroupSettings:
    """Ask for them; the group need not exist. Raises SourceError."""
    resource = ConfigResource(ResourceType.GROUP, group)
    admin = access.admin()
    with access.failures(SourceError):
        asked = admin.describe_configs([resource], request_timeout=access.timeout_s)[resource]
        found = asked.result(access.timeout_s)
    told = {name: entry.value for name, entry in found.items() if entry.value is not None}
    usual = ShareGroupSettings()
    return ShareGroupSettings(
        told.get(RESET, usual.reset),
        RESET in found and found[RESET].source == ConfigSource.GROUP_CONFIG.value,
        _number(told, LOCK_MS, usual.lock_s * 1000) / 1000,
        int(_number(told, DELIVERIES, usual.deliveries)),
        int(_number(told, LOCKS, usual.locks)),
    )


def set_reset(access: KafkaAccess, group: str, reset: str) -> None:
    """Have the group begin there in partitions that it has no position in. Raises SourceError."""
    entry = ConfigEntry(RESET, reset, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    admin = access.admin()
    with access.failures(SourceError):
        asked = admin.incremental_alter_configs([resource], request_timeout=access.timeout_s)[resource]
        asked.result(access.timeout_s)


def _number(told: Mapping[str, str], name: str, usual: float) -> float:
    return float(told.get(name, usual))

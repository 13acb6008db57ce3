"""Share groups for a test: where they begin, how long their locks last, and whole runtimes that read as one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from pythia_fast import App, KafkaShareConsumer
from pythia_fast.brokers.memory import MemoryProducer
from tests.support.memory_run import echo

_numbers = itertools.count()


def new_group() -> str:
    return f"share-{next(_numbers)}"


def configure(servers: str, group: str, **settings: str) -> None:
    """Settings of a share group, with ``_`` for ``.``, before anybody is a member of it."""
    entries = [
        ConfigEntry(f"share.{name.replace('_', '.')}", value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": servers})  # lives until it has answered
    admin.incremental_alter_configs([resource])[resource].result(30)


def reset_of(servers: str, group: str) -> str:
    """Where the group begins."""
    resource = ConfigResource(ResourceType.GROUP, group)
    admin = AdminClient({"bootstrap.servers": servers})
    found = admin.describe_configs([resource])[resource].result(30)
    return str(found["share.auto.offset.reset"].value)


def send(servers: str, topic: str, payloads: Iterable[bytes | None], **message: Any) -> None:
    """Messages, in batches of at most a few hundred."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "batch.num.messages": 200})
    for payload in payloads:
        producer.produce(topic, payload, **message)
    assert producer.flush(60) == 0


def echo_app(source: KafkaShareConsumer, handler: Any = echo, **options: Any) -> tuple[App, MemoryProducer]:
    """An app that sends every payload on, and where to."""
    app, sink = App("share"), MemoryProducer()
    app.batch_handler(**{"source": source, "sink": sink, "decoder": "raw", "name": "echo", **options})(handler)
    return app, sink

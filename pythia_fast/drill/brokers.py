"""How a drill reaches brokers: as the handler's source does, where that is Kafka.

The drill and the process that runs the app each ask the app for it. So credentials go from one to the other nowhere.
"""

from __future__ import annotations

from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.brokers.kafka_share import KafkaShareConsumer
from pythia_fast.registration import Handler


def source_options(handler: Handler) -> dict[str, str]:
    """librdkafka's: addresses and credentials of the handler's source."""
    source = handler.source
    return source.connection_options() if isinstance(source, KafkaConsumer | KafkaShareConsumer) else {}


def options_at(handler: Handler, servers: str) -> dict[str, str]:
    """The same with other addresses."""
    return {**source_options(handler), "bootstrap.servers": servers}

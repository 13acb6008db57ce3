"""pythia_fast: batches of messages as NumPy and Arrow columns, handled by a pool of processes.

The public names are imported when they are first asked for: ``python -m pythia_fast --help`` needs none of
them, and no broker client is imported before a broker is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.batch import Batch
    from pythia_fast.brokers.file import FileConsumer, FileProducer
    from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
    from pythia_fast.brokers.kafka_admin import KafkaAdmin
    from pythia_fast.brokers.kafka_share import KafkaShareConsumer
    from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage, MemoryProducer
    from pythia_fast.brokers.rabbitmq import RabbitMQConsumer, RabbitMQProducer
    from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
    from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer
    from pythia_fast.circuit_breaker import CircuitBreaker
    from pythia_fast.dead_letter_limit import DeadLetterLimit
    from pythia_fast.errors import (
        ConfigError,
        HandlerError,
        PoolError,
        PythiaError,
        ResultError,
        SchemaError,
        SinkError,
        SourceError,
        UnknownColumnError,
        UnknownGroupError,
        UnknownOptionError,
        UnknownTopicError,
    )
    from pythia_fast.registry_formats import JsonSchema, Protobuf
    from pythia_fast.report import RunReport
    from pythia_fast.retry import RetryPolicy

__version__ = "0.1.0.dev0"

__all__ = [
    "App",
    "Avro",
    "Batch",
    "CircuitBreaker",
    "ConfigError",
    "DeadLetterLimit",
    "FileConsumer",
    "FileProducer",
    "HandlerError",
    "JsonSchema",
    "KafkaAdmin",
    "KafkaConsumer",
    "KafkaProducer",
    "KafkaShareConsumer",
    "MemoryConsumer",
    "MemoryMessage",
    "MemoryProducer",
    "PoolError",
    "Protobuf",
    "PythiaError",
    "RabbitMQConsumer",
    "RabbitMQProducer",
    "RabbitMQStreamConsumer",
    "RedisStreamsConsumer",
    "RedisStreamsProducer",
    "RegistryError",
    "ResultError",
    "RetryPolicy",
    "RunReport",
    "SchemaError",
    "SinkError",
    "SourceError",
    "UnknownColumnError",
    "UnknownGroupError",
    "UnknownOptionError",
    "UnknownTopicError",
    "__version__",
]

_HOMES = {
    "App": "app",
    "Avro": "avro",
    "Batch": "batch",
    "CircuitBreaker": "circuit_breaker",
    "ConfigError": "errors",
    "DeadLetterLimit": "dead_letter_limit",
    "FileConsumer": "brokers.file",
    "FileProducer": "brokers.file",
    "HandlerError": "errors",
    "JsonSchema": "registry_formats",
    "KafkaAdmin": "brokers.kafka_admin",
    "KafkaConsumer": "brokers.kafka",
    "KafkaProducer": "brokers.kafka",
    "KafkaShareConsumer": "brokers.kafka_share",
    "MemoryConsumer": "brokers.memory",
    "MemoryMessage": "brokers.memory",
    "MemoryProducer": "brokers.memory",
    "PoolError": "errors",
    "Protobuf": "registry_formats",
    "PythiaError": "errors",
    "RedisStreamsConsumer": "brokers.redis",
    "RedisStreamsProducer": "brokers.redis",
    "RegistryError": "errors",
    "ResultError": "errors",
    "RabbitMQConsumer": "brokers.rabbitmq",
    "RabbitMQProducer": "brokers.rabbitmq",
    "RabbitMQStreamConsumer": "brokers.rabbitmq_stream",
    "RetryPolicy": "retry",
    "RunReport": "report",
    "SchemaError": "errors",
    "SinkError": "errors",
    "SourceError": "errors",
    "UnknownColumnError": "errors",
    "UnknownGroupError": "errors",
    "UnknownOptionError": "errors",
    "UnknownTopicError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pythia_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pythia_fast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""Messages back to where they came from: a Kafka topic, a Redis stream, a RabbitMQ queue, or no place that takes any.

A letter names its topic, stream or queue, and not of what kind it is. That is told, in this order, by ``--origin``, by
the source of the handler that gave it up, by the topic of a file, by the header that every row from Redis has; else it
is what the letters themselves lie in, where that is RabbitMQ, and Kafka.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pythia_fast.brokers.base import Source
from pythia_fast.brokers.kafka import KafkaConsumer
from pythia_fast.brokers.kafka_share import KafkaShareConsumer
from pythia_fast.brokers.named_files import STDIN
from pythia_fast.brokers.rabbitmq import RabbitMQConsumer
from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
from pythia_fast.brokers.redis import RedisStreamsConsumer
from pythia_fast.dlq.original import REDIS_ID, Message
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget

KAFKA, REDIS, RABBITMQ = "kafka", "redis", "rabbitmq"
_NAMED = {REDIS: "Redis stream", RABBITMQ: "RabbitMQ queue"}
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class OriginTarget(RequeueTarget):
    """Parameters:
    openers: by kind, what gives that which sends each message to its own place; called when the first is met that
        came from one of the kind.
    sources: of handlers, by their names, where an app tells.
    lie_in: the kind of what the letters lie in.
    origin: the kind of all, where it was said.
    """

    def __init__(
        self,
        openers: Mapping[str, Callable[[], RequeueTarget]],
        *,
        sources: Mapping[str, Source] | None = None,
        lie_in: str = KAFKA,
        origin: str | None = None,
    ) -> None:
        self._openers = openers
        self._sources = sources or {}
        self._otherwise = RABBITMQ if lie_in == RABBITMQ else KAFKA
        self._origin = origin
        self._opened: dict[str, RequeueTarget] = {}

    def _target(self, kind: str) -> RequeueTarget:
        if kind not in self._opened:
            self._opened[kind] = self._openers[kind]()
        return self._opened[kind]

    def _kind(self, message: Message) -> str:
        """One of the kinds, or else what it came from, as a phrase."""
        if self._origin is not None:
            return self._origin
        topic, source = message.topic, self._sources.get(message.handler)
        if isinstance(source, RedisStreamsConsumer) and topic in source.streams:
            return REDIS
        if isinstance(source, RabbitMQConsumer) and topic == source.queue:
            return RABBITMQ
        if isinstance(source, RabbitMQStreamConsumer):
            return f"rabbitmq stream {topic}"
        if topic == STDIN:
            return "standard input"
        if topic.startswith("/"):
            return f"file {topic}"
        if isinstance(source, KafkaConsumer | KafkaShareConsumer):
            return KAFKA
        return REDIS if any(name == REDIS_ID for name, _ in message.headers) else self._otherwise

    def destination(self, message: Message) -> str:
        return self._target(self._kind(message)).destination(message)

    def obstacle(self, message: Message) -> str:
        kind = self._kind(message)
        if kind == KAFKA and not _TOPIC_NAME.fullmatch(message.topic):
            kind = message.topic
        if kind in self._openers:
            why = self._target(kind).obstacle(message)
            if why and kind != KAFKA:
                hint = f"where it was no {_NAMED[kind]} that they came from, say what with --origin, or where to"
                return f"{why} ({hint})"
            return why
        where = "--to-file, --to-topic, --to-redis or --to-rabbitmq"
        return f"they came from {kind}, which takes no messages back: say where to with {where}"

    def send(self, message: Message, place: Place) -> None:
        self._target(self._kind(message)).send(message, place)

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        answers: list[Answer] = []
        for target in self._opened.values():
            answers += target.answers(timeout_s / len(self._opened))
        return answers

    def close(self) -> list[Answer]:
        return [answer for target in self._opened.values() for answer in target.close()]

"""What a message goes back to, where its letter names a place and not its kind."""

from __future__ import annotations

import msgspec
import pytest

from pythia_fast import FileConsumer, KafkaConsumer, RabbitMQConsumer, RedisStreamsConsumer
from pythia_fast.brokers.base import Source
from pythia_fast.brokers.kafka_share import KafkaShareConsumer
from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
from pythia_fast.cli.dlq_reach import Reach
from pythia_fast.dlq.fields import Fields
from pythia_fast.dlq.origin_target import KAFKA, RABBITMQ, REDIS, OriginTarget
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.redis_target import RedisTarget, fields_of
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget
from pythia_fast.errors import ConfigError

OF_REDIS = [("redis-id", b"1-1")]
SOURCES: dict[str, Source] = {
    "kafka": KafkaConsumer("orders"),
    "share": KafkaShareConsumer("orders"),
    "redis": RedisStreamsConsumer(streams=["orders", "/slashed"]),
    "rabbitmq": RabbitMQConsumer("orders"),
    "stream": RabbitMQStreamConsumer("orders"),
    "file": FileConsumer(path="/orders"),
}


class Order(msgspec.Struct):
    price: float


class Named(RequeueTarget):
    """Says its name and takes everything."""

    def __init__(self, name: str, lacking: str = "") -> None:
        self._name = name
        self._lacking = lacking
        self._answers: list[Answer] = []

    def destination(self, message: Message) -> str:
        return f"{self._name} {message.topic}"

    def obstacle(self, message: Message) -> str:
        return self._lacking

    def send(self, message: Message, place: Place) -> None:
        self._answers.append(Answer(place, self._name))

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> list[Answer]:
        return self.answers()


def message(topic: str, handler: str = "", headers: list[tuple[str, bytes | None]] | None = None) -> Message:
    return Message(topic, 0, None, headers or [], b"", handler)


def target(lacking: str = "", **options: object) -> OriginTarget:
    openers = {kind: lambda kind=kind: Named(kind, lacking) for kind in (KAFKA, REDIS, RABBITMQ)}
    return OriginTarget(openers, **{"sources": SOURCES, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sent", "options", "kind"),
    [
        (message("orders"), {}, KAFKA),
        (message("orders", "kafka", OF_REDIS), {"lie_in": RABBITMQ}, KAFKA),  # mirrored, the source says
        (message("orders", "share", OF_REDIS), {"lie_in": RABBITMQ}, KAFKA),
        (message("orders", "redis"), {"lie_in": RABBITMQ}, REDIS),
        (message("/slashed", "redis"), {}, REDIS),
        (message("orders", "rabbitmq", OF_REDIS), {}, RABBITMQ),
        (message("others", "rabbitmq"), {}, KAFKA),  # the handler read another queue then
        (message("orders", headers=OF_REDIS), {"lie_in": RABBITMQ}, REDIS),
        (message("orders"), {"lie_in": RABBITMQ}, RABBITMQ),
        (message("orders"), {"lie_in": REDIS}, KAFKA),
        (message("orders", "kafka"), {"origin": REDIS}, REDIS),
        (message("/orders"), {"origin": RABBITMQ}, RABBITMQ),
    ],
)
def test_a_message_goes_back_to_what_it_came_from(sent: Message, options: dict[str, object], kind: str) -> None:
    to = target(**options)
    assert to.obstacle(sent) == ""
    assert to.destination(sent) == f"{kind} {sent.topic}"
    to.send(sent, Place(0, 1, 2))
    assert to.answers(0.1) == [Answer(Place(0, 1, 2), kind)]
    assert to.close() == []


@pytest.mark.parametrize(
    ("sent", "origin"),
    [
        (message("/orders", "file"), "file /orders"),
        (message("/orders", headers=OF_REDIS), "file /orders"),
        (message("-"), "standard input"),
        (message("orders", "stream"), "rabbitmq stream orders"),
        (message("no topic's name"), "no topic's name"),
    ],
)
def test_what_takes_nothing_back_is_named(sent: Message, origin: str) -> None:
    assert target().obstacle(sent).startswith(f"they came from {origin}, which takes no messages back: say where to")


def test_a_guess_that_leads_nowhere_says_how_to_correct_it() -> None:
    why = target("there is none").obstacle(message("orders", headers=OF_REDIS))
    assert why.startswith("there is none (where it was no Redis stream that they came from, say what with --origin")


def test_fields_are_those_of_the_handlers_source() -> None:
    own = RedisStreamsConsumer("own", payload_field="body", key_field="id")
    columns = RedisStreamsConsumer("columns", fields=Order)
    fields = fields_of([own, RedisStreamsConsumer("plain"), columns], Fields("typed", "too"))
    assert fields("own") == Fields("body", "id")
    assert fields("plain") == Fields("data", "key")
    assert fields("unknown") == Fields("typed", "too")
    to = RedisTarget(columns.server, None, fields=fields, timeout_s=1.0)
    assert "reads the fields of an entry (fields=)" in to.obstacle(message("columns"))


def test_several_servers_of_one_kind_are_asked_about() -> None:
    reach = Reach(None, {}, None, None, 1.0)
    redis = [RedisStreamsConsumer(name, url=f"redis://{name}") for name in ("a", "b")]
    rabbitmq = [RabbitMQConsumer(name, url=f"amqp://{name}") for name in ("a", "b")]
    with pytest.raises(ConfigError, match="read from several Redis servers: choose one with --handler"):
        reach.redis_of(redis)
    with pytest.raises(ConfigError, match="read from several RabbitMQ servers"):
        reach.rabbitmq_of(rabbitmq)
    assert reach.redis_of([redis[0], RedisStreamsConsumer("c", url="redis://a")]).name == "a:6379"
    typed = Reach(None, {}, "redis://typed:1", "amqp://typed:2", 1.0)
    assert (typed.redis_of(redis).name, str(typed.rabbitmq_of(rabbitmq))) == ("typed:1", "typed:2")

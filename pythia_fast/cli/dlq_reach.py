"""How the brokers of ``dlq`` are reached: what was typed, else what an app says, else the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.brokers.base import Source
    from pythia_fast.brokers.kafka_client import KafkaAccess
    from pythia_fast.brokers.rabbitmq_address import Address
    from pythia_fast.brokers.redis_client import RedisServer

Server = TypeVar("Server")


@dataclass(frozen=True, slots=True)
class Reach:
    """What was typed of the brokers."""

    servers: str | None
    kafka_options: dict[str, str]
    redis_url: str | None
    rabbitmq_url: str | None
    timeout_s: float

    def kafka(self, connection: Mapping[str, str]) -> KafkaAccess:
        """``connection``: what an app says."""
        from pythia_fast.brokers.kafka import KafkaConsumer
        from pythia_fast.brokers.kafka_client import KafkaAccess

        typed = {"bootstrap.servers": self.servers} if self.servers is not None else {}
        plain = KafkaConsumer("any").connection_options()
        return KafkaAccess({**plain, **connection, **self.kafka_options, **typed}, self.timeout_s)

    def redis(self, told: RedisServer | None = None) -> RedisServer:
        """``told``: what an app says. Raises ConfigError."""
        from pythia_fast.brokers.redis import RedisStreamsConsumer

        if told is not None and self.redis_url is None:
            return told
        return RedisStreamsConsumer("any", url=self.redis_url, timeout=self.timeout_s).server

    def rabbitmq(self, told: Address | None = None) -> Address:
        """The same of RabbitMQ."""
        from pythia_fast.brokers.rabbitmq import RabbitMQConsumer

        if told is not None and self.rabbitmq_url is None:
            return told
        return RabbitMQConsumer("any", url=self.rabbitmq_url).address

    # -- what messages go back to: the servers of the handlers' sources, as far as an app tells ----------------

    def kafka_of(self, sources: Iterable[Source]) -> KafkaAccess:
        """Raises ConfigError where they are several."""
        from pythia_fast.brokers.kafka import KafkaConsumer
        from pythia_fast.brokers.kafka_share import KafkaShareConsumer

        kinds = KafkaConsumer | KafkaShareConsumer
        found = [each.connection_options() for each in sources if isinstance(each, kinds)]
        one = _the_one(found, self.servers, "Kafka clusters", "--bootstrap-servers")
        return self.kafka(one or {})

    def redis_of(self, sources: Iterable[Source]) -> RedisServer:
        """Raises ConfigError where they are several."""
        from pythia_fast.brokers.redis import RedisStreamsConsumer

        found = [each.server for each in sources if isinstance(each, RedisStreamsConsumer)]
        return self.redis(_the_one(found, self.redis_url, "Redis servers", "--redis-url", vars))

    def rabbitmq_of(self, sources: Iterable[Source]) -> Address:
        """Raises ConfigError where they are several."""
        from pythia_fast.brokers.rabbitmq import RabbitMQConsumer

        found = [each.address for each in sources if isinstance(each, RabbitMQConsumer)]
        return self.rabbitmq(_the_one(found, self.rabbitmq_url, "RabbitMQ servers", "--rabbitmq-url"))


def _the_one(
    found: list[Server],
    typed: str | None,
    what: str,
    option: str,
    facts: Callable[[Server], object] = lambda server: server,
) -> Server | None:
    """The one server that all of them are; None: nobody told. Several do not matter where one was typed."""
    if any(facts(each) != facts(found[0]) for each in found[1:]):
        if typed is None:
            raise ConfigError(f"the handlers read from several {what}: choose one with --handler, or give {option}")
        return None
    return found[0] if found else None

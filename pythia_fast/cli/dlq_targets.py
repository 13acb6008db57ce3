"""Where ``dlq requeue`` sends: where messages came from, or the one place that its options name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.cli.dlq_selection import Selection
    from pythia_fast.dlq.store import DeadLetterStore
    from pythia_fast.dlq.target import RequeueTarget


@dataclass(frozen=True, slots=True)
class Destination:
    """What was typed."""

    topic: str | None
    stream: str | None
    queue: str | None
    file: Path | None
    form: Literal["ndjson", "msgpack-frames"]
    same_partition: bool
    origin: str | None

    @property
    def is_named(self) -> bool:
        """Whether all go to one place. Raises ConfigError where several were named."""
        options = ("--to-topic", "--to-redis", "--to-rabbitmq", "--to-file")
        values = (self.topic, self.stream, self.queue, self.file)
        given = [option for option, value in zip(options, values, strict=True) if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)}: give one of them")
        if given and self.origin is not None:
            raise ConfigError(f"--origin says what messages go back to, and {given[0]} sends them elsewhere")
        return bool(given)

    def _refuse_archives(self, selection: Selection) -> None:
        from pythia_fast.dlq.file_store import FileStore

        if self.file is not None and self.file.resolve() in [
            store.archive for store in selection.stores if isinstance(store, FileStore)
        ]:
            raise ConfigError(
                f"--to-file {self.file}: letters that are taken out are kept there, and messages are no letters; "
                "name another file"
            )

    def open(self, selection: Selection, store: DeadLetterStore) -> RequeueTarget:
        """The target for the letters of this store. Raises ConfigError, SinkError."""
        if self.file is not None:
            from pythia_fast.dlq.file_target import FileTarget

            self._refuse_archives(selection)
            return FileTarget(self.file, self.form)
        reach, sources = selection.reach, selection.sources()

        def open_kafka() -> RequeueTarget:
            from pythia_fast.dlq.kafka_store import KafkaStore
            from pythia_fast.dlq.kafka_target import KafkaTarget

            access = reach.kafka_of(sources.values())
            kafka = [each for each in selection.stores if isinstance(each, KafkaStore)]
            if self.topic is not None and any(each.lies_at(self.topic, access) for each in kafka):
                raise _holds_letters("--to-topic", self.topic)
            return KafkaTarget(access, topic=self.topic, same_partition=self.same_partition)

        def open_redis() -> RequeueTarget:
            from pythia_fast.dlq.redis_store import RedisStore
            from pythia_fast.dlq.redis_target import RedisTarget, fields_of

            server = reach.redis_of(sources.values())
            redis = [each for each in selection.stores if isinstance(each, RedisStore)]
            if self.stream is not None and any(each.lies_at(self.stream, server) for each in redis):
                raise _holds_letters("--to-redis", self.stream)
            fields = fields_of(sources.values(), selection.fields)
            return RedisTarget(server, self.stream, fields=fields, timeout_s=reach.timeout_s)

        def open_rabbitmq() -> RequeueTarget:
            from pythia_fast.dlq.rabbitmq_store import RabbitMqStore
            from pythia_fast.dlq.rabbitmq_target import RabbitMqTarget

            address = reach.rabbitmq_of(sources.values())
            rabbitmq = [each for each in selection.stores if isinstance(each, RabbitMqStore)]
            if self.queue is not None and any(each.lies_at(self.queue, address) for each in rabbitmq):
                raise _holds_letters("--to-rabbitmq", self.queue)
            return RabbitMqTarget(address, self.queue, timeout_s=reach.timeout_s)

        if self.topic is not None:
            return open_kafka()
        if self.stream is not None:
            return open_redis()
        if self.queue is not None:
            return open_rabbitmq()
        from pythia_fast.dlq.origin_target import KAFKA, RABBITMQ, REDIS, OriginTarget

        openers = {KAFKA: open_kafka, REDIS: open_redis, RABBITMQ: open_rabbitmq}
        return OriginTarget(openers, sources=sources, lie_in=store.kind, origin=self.origin)


def _holds_letters(option: str, name: str) -> ConfigError:
    return ConfigError(
        f"{option} {name}: the dead letters themselves are there, and messages are no letters: no dlq command would "
        "see them again; name another one"
    )

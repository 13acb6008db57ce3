"""The options that all ``dlq`` commands share: where letters are, and which are meant."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, cast

import typer

from pythia_fast.cli.dlq_reach import Reach
from pythia_fast.cli.run import StateDir
from pythia_fast.cli.running import seconds_value
from pythia_fast.cli.target import load_app
from pythia_fast.cli.telling import no_plain_file
from pythia_fast.errors import ConfigError

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.brokers.base import Source
    from pythia_fast.brokers.rabbitmq_address import Address
    from pythia_fast.brokers.redis_client import RedisServer
    from pythia_fast.dlq.fields import Fields
    from pythia_fast.dlq.filters import Filter
    from pythia_fast.dlq.store import DeadLetterStore

Own = ParamSpec("Own")

File = Annotated[Path | None, typer.Argument(metavar="PATH", help="a file of dead letters")]
Topic = Annotated[str | None, typer.Option("--kafka", metavar="TOPIC", help="a Kafka topic of dead letters")]
Stream = Annotated[str | None, typer.Option("--redis", metavar="STREAM", help="a Redis stream of dead letters")]
Queue = Annotated[str | None, typer.Option("--rabbitmq", metavar="QUEUE", help="a RabbitMQ queue of dead letters")]
AppName = Annotated[
    str | None, typer.Option("--app", metavar="MODULE:APP", help="wherever this app's handlers send their dead letters")
]
Handler = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="letters of this handler")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="whose reason has this text in it")]
Error = Annotated[str | None, typer.Option("--error", metavar="NAME", help="whose exception has this name")]
FromTopic = Annotated[str | None, typer.Option("--topic", metavar="NAME", help="that came from this topic or file")]
FromPartition = Annotated[
    int | None, typer.Option("--partition", metavar="N", min=0, help="that came from this partition")
]
FromOffset = Annotated[
    str | None, typer.Option("--offset", metavar="A..B", help="that came from these offsets, both included")
]
Key = Annotated[str | None, typer.Option("--key", metavar="TEXT", help="with this key; base64 where it is not UTF-8")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="given up since: ISO 8601, or 2h, 30m, 7d")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="given up until: ISO 8601, or 2h, 30m, 7d")]
Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", metavar="HOST:PORT,...", help="of Kafka; else the app's or KAFKA_BOOTSTRAP_SERVERS"
    ),
]
KafkaOptions = Annotated[
    list[str] | None,
    typer.Option("--kafka-option", metavar="NAME=VALUE", help="an option of librdkafka; may be given again"),
]
EntryId = Annotated[str | None, typer.Option("--entry", metavar="ID", help="the one with this id, in --redis STREAM")]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", metavar="URL", help="of Redis: redis://...; else the app's or REDIS_URL")
]
RabbitMqUrl = Annotated[
    str | None,
    typer.Option("--rabbitmq-url", metavar="URL", help="of RabbitMQ: amqp://...; else the app's or RABBITMQ_URL"),
]
PayloadField = Annotated[
    str, typer.Option("--payload-field", metavar="NAME", help="field of a Redis entry that is the payload")
]
KeyField = Annotated[str, typer.Option("--key-field", metavar="NAME", help="field of a Redis entry that is the key")]
Group = Annotated[
    str, typer.Option("--group", metavar="NAME", help="consumer group whose position says what was dealt with")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", parser=seconds_value, help="give up a broker after S seconds")
]


@dataclass(frozen=True, slots=True)
class Selection:
    """What the options say."""

    stores: list[DeadLetterStore]
    where: str  #: for a person
    chosen: Filter
    app: App | None
    reach: Reach
    fields: Fields  #: of Redis entries

    def sources(self) -> dict[str, Source]:
        """Of the handlers that are meant, as far as an app tells."""
        handlers = self.app.handlers.values() if self.app is not None else ()
        return {each.name: each.source for each in handlers if self.chosen.handler in (None, each.name)}


def selection(
    path: File = None,
    kafka: Topic = None,
    redis: Stream = None,
    rabbitmq: Queue = None,
    app: AppName = None,
    handler: Handler = None,
    reason: Reason = None,
    error: Error = None,
    topic: FromTopic = None,
    partition: FromPartition = None,
    offset: FromOffset = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    entry: EntryId = None,
    bootstrap_servers: Servers = None,
    kafka_option: KafkaOptions = None,
    redis_url: RedisUrl = None,
    rabbitmq_url: RabbitMqUrl = None,
    payload_field: PayloadField = "data",
    key_field: KeyField = "key",
    group: Group = "pythia-dlq",
    timeout: Timeout = 10.0,
    state_dir: StateDir = None,
) -> Selection:
    """Read the options. Raises ConfigError, AppImportError."""
    from pythia_fast.brokers.client_logs import quieten_clients
    from pythia_fast.dlq.fields import Fields
    from pythia_fast.dlq.filters import Filter, parse_offsets
    from pythia_fast.moments import parse_moment

    if sum(place is not None for place in (path, kafka, redis, rabbitmq, app)) != 1:
        raise ConfigError(
            "say where the dead letters are: PATH, --kafka TOPIC, --redis STREAM, --rabbitmq QUEUE "
            "or --app MODULE:APP, one of the five"
        )
    if entry is not None and redis is None:
        raise ConfigError("--entry is the id of an entry of a Redis stream: give --redis STREAM with it")
    now = datetime.now(UTC)
    chosen = Filter(
        reason=reason,
        error=error,
        handler=handler,
        topic=topic,
        partition=partition,
        offsets=parse_offsets(offset) if offset is not None else None,
        since=parse_moment("--since", since, now) if since is not None else None,
        until=parse_moment("--until", until, now) if until is not None else None,
        key=key,
    )
    loaded = load_app(app) if app is not None else None
    folder = state_dir or Path(".pythia")
    reach = Reach(bootstrap_servers, parse_options(kafka_option or []), redis_url, rabbitmq_url, timeout)
    fields = Fields(payload_field, key_field)
    quieten_clients()

    def open_topic(name: str, connection: dict[str, str]) -> DeadLetterStore:
        from pythia_fast.dlq.kafka_store import KafkaStore

        return KafkaStore(name, reach.kafka(connection), group=group, state_dir=folder)

    def open_stream(name: str, server: RedisServer | None, fields: Fields, *, may_lack: bool) -> DeadLetterStore:
        from pythia_fast.dlq.redis_store import RedisStore

        at = reach.redis(server)
        return RedisStore(name, at, fields=fields, entry=entry, may_lack=may_lack, state_dir=folder)

    def open_queue(name: str, address: Address | None) -> DeadLetterStore:
        from pythia_fast.dlq.rabbitmq_store import RabbitMqStore

        return RabbitMqStore(name, reach.rabbitmq(address), timeout_s=timeout)

    stores: list[DeadLetterStore]
    if path is not None:
        from pythia_fast.dlq.file_store import FileStore

        if not os.path.isfile(path):
            raise ConfigError(no_plain_file(path))
        stores, where = [FileStore(path)], f"file {path}"
    elif kafka is not None:
        stores, where = [open_topic(kafka, {})], f"kafka topic {kafka}"
    elif redis is not None:
        stores, where = [open_stream(redis, None, fields, may_lack=False)], f"redis stream {redis}"
    elif rabbitmq is not None:
        stores, where = [open_queue(rabbitmq, None)], f"rabbitmq queue {rabbitmq}"
    else:
        from pythia_fast.dlq.places import Openers, stores_of

        assert loaded is not None
        openers = Openers(
            topic=lambda sink: open_topic(sink.topic, sink.connection_options()),
            stream=lambda sink: open_stream(
                sink.stream, sink.server, Fields(sink.payload_field, sink.key_field), may_lack=True
            ),
            queue=lambda sink: open_queue(sink.routing_key or "", sink.address),
        )
        stores = stores_of(loaded, handler, state_dir or Path(".pythia") / loaded.name, openers)
        where = f"handler {handler} of app {loaded.name}" if handler is not None else f"app {loaded.name}"
    return Selection(stores, where, chosen, loaded, reach, fields)


def selecting(command: Callable[Concatenate[Selection, Own], int]) -> Callable[..., int]:
    """Give a command the options of ``selection`` besides its own; it is called with what they say."""
    shared = inspect.signature(selection, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def merged(**values: Any) -> int:
        chosen = selection(**{name: values.pop(name) for name in shared})
        return cast(Callable[..., int], command)(chosen, **values)

    parameters = [*shared.values(), *own]
    del merged.__wrapped__  # typer shall see the options, not the command behind
    merged.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    merged.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return merged


def parse_options(given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` each. Raises ConfigError, UnknownOptionError for a name that librdkafka does not have."""
    options = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--kafka-option {text!r}: write NAME=VALUE, for example security.protocol=SASL_SSL")
        options[name] = value
    if options:
        from pythia_fast.brokers.kafka import KafkaConsumer

        KafkaConsumer("any", options=options)  # checks names and values
    return options

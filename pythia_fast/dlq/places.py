"""Where the dead letters of an app's handlers are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.kafka import KafkaProducer
from pythia_fast.brokers.rabbitmq import RabbitMQProducer
from pythia_fast.brokers.redis import RedisStreamsProducer
from pythia_fast.dlq.file_store import FileStore
from pythia_fast.dlq.store import DeadLetterStore
from pythia_fast.errors import ConfigError
from pythia_fast.runtime.dead_letter import default_files

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler


class Openers(NamedTuple):
    """What gives the store of a sink."""

    topic: Callable[[KafkaProducer], DeadLetterStore]
    stream: Callable[[RedisStreamsProducer], DeadLetterStore]
    queue: Callable[[RabbitMQProducer], DeadLetterStore]


def stores_of(app: App, handler: str | None, state_dir: Path, openers: Openers) -> list[DeadLetterStore]:
    """The sinks of dead letters, and the files in the state folder that there are, each once.

    Raises ConfigError for a handler that does not exist, and for a sink that nothing can be read from.
    """
    handlers = list(app.handlers.values()) if handler is None else [app.handler(handler)]
    files: dict[Path, None] = {}
    brokers: dict[tuple[object, ...], Callable[[], DeadLetterStore]] = {}
    for each in handlers:
        for path in default_files(state_dir, each.name):
            if path.is_file():
                files[path] = None
        match each.dead_letter:
            case FileProducer() as sink:
                if Path(sink.path).is_file():
                    files[Path(sink.path)] = None
            case KafkaProducer() as sink:
                brokers["kafka", sink.topic, sink.bootstrap_servers] = partial(openers.topic, sink)
            case RedisStreamsProducer() as sink:
                brokers["redis", sink.stream, sink.server.name] = partial(openers.stream, sink)
            case RabbitMQProducer() as sink if sink.exchange:
                raise ConfigError(
                    f"handler {each.name!r} sends its dead letters to {sink.describe()}, and dlq reads queues: name "
                    "the one that they end in with --rabbitmq QUEUE, or choose another handler with --handler"
                )
            case RabbitMQProducer() as sink:
                brokers["rabbitmq", sink.routing_key, sink.address] = partial(openers.queue, sink)
            case None:
                pass
            case _:
                raise ConfigError(_unreadable(each))
    return [*(open_store() for open_store in brokers.values()), *(FileStore(path) for path in files)]


def _unreadable(handler: Handler) -> str:
    sink = handler.dead_letter.describe() if handler.dead_letter is not None else "nowhere"
    return (
        f"handler {handler.name!r} sends its dead letters to {sink}, which dlq cannot read: it reads files, Kafka "
        "topics, Redis streams and RabbitMQ queues; choose another handler with --handler, or name a file"
    )

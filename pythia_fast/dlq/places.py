"""Where the dead letters of an app's handlers are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.kafka import KafkaProducer
from pythia_fast.dlq.file_store import FileStore
from pythia_fast.dlq.store import DeadLetterStore
from pythia_fast.errors import ConfigError
from pythia_fast.runtime.dead_letter import default_files

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler

OpenTopic = Callable[[KafkaProducer], DeadLetterStore]


def stores_of(app: App, handler: str | None, state_dir: Path, open_topic: OpenTopic) -> list[DeadLetterStore]:
    """The sinks of dead letters, and the files in the state folder that there are, each once.

    Raises ConfigError for a handler that does not exist, and for a sink that nothing can be read from.
    """
    handlers = list(app.handlers.values()) if handler is None else [app.handler(handler)]
    files: dict[Path, None] = {}
    topics: dict[tuple[str, str], KafkaProducer] = {}
    for each in handlers:
        for path in default_files(state_dir, each.name):
            if path.is_file():
                files[path] = None
        match each.dead_letter:
            case FileProducer() as sink if sink.format == "records":
                raise ConfigError(
                    f"handler {each.name!r} sends its dead letters to {sink.path} as messages, with why in their pf-* "
                    "headers, which dlq does not read: send them again with replay, or choose another handler"
                )
            case FileProducer() as sink:
                if Path(sink.path).is_file():
                    files[Path(sink.path)] = None
            case KafkaProducer() as sink:
                topics[sink.topic, sink.bootstrap_servers] = sink
            case None:
                pass
            case _:
                raise ConfigError(_unreadable(each))
    return [*(open_topic(sink) for sink in topics.values()), *(FileStore(path) for path in files)]


def _unreadable(handler: Handler) -> str:
    sink = handler.dead_letter.describe() if handler.dead_letter is not None else "nowhere"
    return (
        f"handler {handler.name!r} sends its dead letters to {sink}, which dlq cannot read: it reads files and Kafka "
        "topics; choose another handler with --handler, or name a file"
    )

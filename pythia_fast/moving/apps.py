"""The apps of the commands that move messages: ordinary runs, each of one handler that hands its batches on.

They stand in a module, so that a new interpreter finds them as it finds a user's. Where messages come from and go to is
put in by the command, in its own process; pool processes never open either.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pythia_fast.app import App
from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.memory import MemoryConsumer
from pythia_fast.errors import ConfigError
from pythia_fast.registration import MAX_BATCH_BYTES
from pythia_fast.results.forwarding import WITH_OFFSET, WITH_PLACE, WITH_TIME, HandOn, verbatim

if TYPE_CHECKING:
    from pythia_fast.brokers.base import Sink, Source

#: Bytes of a batch, unless messages are larger: a copy of it fits a processor's cache of the third level.
BATCH_BYTES = 4 << 20
#: Largest message that is moved unless --max-message-bytes says otherwise.
MESSAGE_BYTES = 16 << 20


def _moving(name: str, what: int) -> App:
    app = App(name)
    app.batch_handler(
        source=MemoryConsumer(keep_open=True),
        sink=FileProducer("never-opened"),
        decoder="raw",
        ordering="partition",
        dead_letter_limit=None,
        name=name,
    )(HandOn(what))
    app.handlers[name] = dataclasses.replace(app.handlers[name], decoding=verbatim())
    return app


record = _moving("record", WITH_PLACE + WITH_TIME + WITH_OFFSET)
mirror = _moving("mirror", WITH_PLACE + WITH_TIME + WITH_OFFSET)
#: To a sink that takes the time of a message, and to one that takes none.
replay = _moving("replay", WITH_TIME)
replay_plain = _moving("replay-plain", 0)


def prepared(
    app: App,
    source: Source,
    sink: Sink,
    *,
    max_message_bytes: int = MESSAGE_BYTES,
    rows_per_second: float | None = None,
) -> App:
    """The app with this source and sink. Raises ConfigError for messages larger than any batch."""
    if max_message_bytes > MAX_BATCH_BYTES:
        raise ConfigError(f"a message has at most {MAX_BATCH_BYTES:,} bytes here, not {max_message_bytes:,}")
    (name,) = app.handlers
    app.handlers[name] = dataclasses.replace(
        app.handlers[name],
        source=source,
        sink=sink,
        max_batch_bytes=max(BATCH_BYTES, max_message_bytes),
        rate_limit=rows_per_second,
    )
    return app

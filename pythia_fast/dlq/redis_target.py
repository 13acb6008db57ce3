"""Messages back to Redis streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pythia_fast.brokers.base import Source
from pythia_fast.brokers.framing import Headers
from pythia_fast.brokers.redis import RedisStreamsConsumer, RedisStreamsProducer
from pythia_fast.brokers.redis_client import RedisServer
from pythia_fast.dlq.fields import KEY, PAYLOAD, Fields
from pythia_fast.dlq.original import REDIS_ID, Message
from pythia_fast.dlq.redis_asking import RedisAsking
from pythia_fast.dlq.sink_target import PlacesTarget, SinkTarget, publisher_context
from pythia_fast.dlq.target import Answer
from pythia_fast.errors import SinkError


def fields_of(sources: Iterable[Source], otherwise: Fields) -> Callable[[str], Fields]:
    """Of a stream, by the source that reads it; where none is known, ``otherwise``."""
    known = {
        stream: Fields(source.payload_field or PAYLOAD, source.key_field or KEY, source.columns is not None)
        for source in sources
        if isinstance(source, RedisStreamsConsumer)
        for stream in source.streams
    }
    return lambda stream: known.get(stream, otherwise)


class RedisTarget(PlacesTarget):
    """``stream``: for all of them; None: each goes back to its own. ``fields``: of a stream."""

    def __init__(
        self, server: RedisServer, stream: str | None, *, fields: Callable[[str], Fields], timeout_s: float
    ) -> None:
        super().__init__(stream, kind="redis stream", timeout_s=timeout_s)
        self._server = server
        self._fields = fields
        self._asking: RedisAsking | None = None

    def _lacking(self, name: str) -> str:
        if self._fields(name).as_columns:
            return (
                f"the handler of redis stream {name} reads the fields of an entry (fields=), and a dead letter holds "
                "them as one JSON: write the entries anew, from what show --json gives"
            )
        if self._asking is None:
            self._asking = RedisAsking(self._server, name, SinkError)
        return "" if self._asking.is_there(name) else self._asking.missing(name)

    def _open(self, name: str) -> SinkTarget:
        fields = self._fields(name)
        producer = RedisStreamsProducer(name, payload_field=fields.payload, key_field=fields.key)
        producer.server = self._server
        context = publisher_context(self._timeout_s)
        return SinkTarget(f"redis stream {name}", lambda: producer.open(context), self._timeout_s)

    def _own_headers(self, message: Message) -> Headers:
        return [(name, value) for name, value in message.headers if name != REDIS_ID]  # the new entry has its own

    def close(self) -> list[Answer]:
        if self._asking is not None:
            self._asking.close()
        return super().close()

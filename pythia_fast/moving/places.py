"""Where messages come from and go to, as typed: an address with a scheme, or MODULE:APP.

| typed                                          | means                                                |
|------------------------------------------------|------------------------------------------------------|
| ``kafka://HOST:PORT/TOPIC``                    | topics, several separated by commas                  |
| ``redis://USER:PASSWORD@HOST:PORT/DB/STREAM``  | a stream; ``rediss:`` with TLS                       |
| ``amqp://USER:PASSWORD@HOST:PORT/VHOST/QUEUE`` | a queue; ``amqps:`` with TLS                         |
| ``rabbitmq-stream://HOST:PORT/VHOST/STREAM``   | a stream to read; ``rabbitmq-stream+tls:`` with TLS  |
| ``file:PATH``                                  | files, as FileConsumer reads them                    |
| ``MODULE:APP``                                 | the source of a handler                              |

What follows a ``?`` are options of the consumer or producer, as in a URL's query. Parts that are left out are those of
the consumer's or producer's own defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pythia_fast.brokers.base import Sink, Source
from pythia_fast.errors import ConfigError, UnknownOptionError
from pythia_fast.options import nearest

_STREAMS = ("rabbitmq-stream", "rabbitmq-stream+tls")
SCHEMES = ("kafka", "redis", "rediss", "amqp", "amqps", *_STREAMS, "file")
#: Options that are text whatever they look like.
_TEXTS = frozenset({"consumer_group", "group_id", "start", "payload_field", "key_field", "routing_key", "exchange"})
#: As much as may be one: whoever forgot to encode its characters is told of it with them.
_PASSWORD = re.compile(r"(?<=://)([^:@/]*):.*@", re.DOTALL)
FORM = {
    "kafka": "kafka://HOST:PORT/TOPIC",
    "redis": "redis://HOST:PORT/DB/STREAM",
    "rediss": "rediss://HOST:PORT/DB/STREAM",
    "amqp": "amqp://HOST:PORT/VHOST/QUEUE",
    "amqps": "amqps://HOST:PORT/VHOST/QUEUE",
    "rabbitmq-stream": "rabbitmq-stream://HOST:PORT/VHOST/STREAM",
    "rabbitmq-stream+tls": "rabbitmq-stream+tls://HOST:PORT/VHOST/STREAM",
    "file": "file:PATH",
}


def is_address(text: str) -> bool:
    """Whether it has a scheme, so that it is not MODULE:APP."""
    return "://" in text or text.startswith("file:")


def source_at(text: str) -> Source:
    """The source at an address. Raises ConfigError, UnknownOptionError."""
    address, scheme, given = _split(text, "a source")
    if scheme == "kafka":
        from pythia_fast.brokers.kafka import KafkaConsumer

        topics = _last_part(address, scheme, text).split(",")
        return KafkaConsumer(topics=topics, bootstrap_servers=address.netloc or None, **_kafka(given))
    if scheme in ("redis", "rediss"):
        from pythia_fast.brokers.redis import RedisStreamsConsumer

        server, stream = _server_and_name(address, scheme, text, redis=True)
        return RedisStreamsConsumer(streams=stream.split(","), url=server, **_values(given))
    if scheme in ("amqp", "amqps"):
        from pythia_fast.brokers.rabbitmq import RabbitMQConsumer

        server, queue = _server_and_name(address, scheme, text)
        return RabbitMQConsumer(queue, url=server, **_values(given))
    if scheme in _STREAMS:
        from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer

        server, stream = _server_and_name(address, scheme, text)
        return RabbitMQStreamConsumer(stream, url=server, **_values(given))
    from pythia_fast.brokers.file import FileConsumer

    return FileConsumer(path=_path(address, text), **_values(given))


def sink_at(text: str) -> Sink:
    """The sink at an address. Raises ConfigError, UnknownOptionError."""
    address, scheme, given = _split(text, "a target")
    if scheme == "kafka":
        from pythia_fast.brokers.kafka import KafkaProducer

        topic = _last_part(address, scheme, text)
        return KafkaProducer(topic, bootstrap_servers=address.netloc or None, **_kafka(given))
    if scheme in ("redis", "rediss"):
        from pythia_fast.brokers.redis import RedisStreamsProducer

        server, stream = _server_and_name(address, scheme, text, redis=True)
        return RedisStreamsProducer(stream, url=server, **_values(given))
    if scheme in ("amqp", "amqps"):
        from pythia_fast.brokers.rabbitmq import RabbitMQProducer

        server, queue = _server_and_name(address, scheme, text)
        return RabbitMQProducer(queue, url=server, **_values(given))
    if scheme in _STREAMS:
        raise ConfigError(f"{_hidden(text)}: a stream is written to as a queue is: {FORM['amqp']}")
    from pythia_fast.brokers.file_sink import FileProducer

    return FileProducer(_path(address, text), **_values(given))


def _split(text: str, what: str) -> tuple[SplitResult, str, dict[str, str]]:
    try:
        address = urlsplit(text)
    except ValueError as error:
        raise ConfigError(f"{_hidden(text)} is no address of {what}: {error}") from None
    scheme = address.scheme
    if scheme not in SCHEMES:
        forms = ", ".join(FORM[each] for each in ("kafka", "redis", "amqp", "rabbitmq-stream", "file"))
        near = nearest(scheme, SCHEMES)
        raise ConfigError(f"{_hidden(text)}: there is no scheme {scheme!r}{near}; {what} is {forms}")
    given: dict[str, str] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True):
        if name in given:
            raise ConfigError(f"{_hidden(text)}: {name} is given twice")
        given[name] = value
    if address.fragment:
        raise ConfigError(f"{_hidden(text)}: write %23 for a # that is part of a name")
    return address, scheme, given


def _last_part(address: SplitResult, scheme: str, text: str) -> str:
    name = unquote(address.path.removeprefix("/"))
    if not name or "/" in name:
        raise ConfigError(f"{_hidden(text)} names no topic: write {FORM[scheme]}")
    return name


def _server_and_name(address: SplitResult, scheme: str, text: str, *, redis: bool = False) -> tuple[str | None, str]:
    """The address of the server alone, None for the default one, and the last part of the path."""
    place, _, last = address.path.removeprefix("/").rpartition("/")
    if not last:
        raise ConfigError(
            f"{_hidden(text)} names no {'queue' if scheme in ('amqp', 'amqps') else 'stream'}: write {FORM[scheme]}"
        )
    if not address.netloc:
        return None, unquote(last)
    place = place or ("0" if redis else "%2F")
    return f"{scheme}://{address.netloc}/{place}", unquote(last)


def _path(address: SplitResult, text: str) -> str:
    path = unquote(address.netloc + address.path)
    if not path:
        raise ConfigError(f"{_hidden(text)} names no file: write file:PATH")
    return path


def _hidden(text: str) -> str:
    """The address without its password and its options, of which some may be one, however wrong it is."""
    address, asks, _ = _PASSWORD.sub(r"\1:...@", text).partition("?")
    return repr(address + (asks and "?..."))


def _kafka(given: dict[str, str]) -> dict[str, Any]:
    own: dict[str, Any] = {
        name: given.pop(name) for name in ("consumer_group", "group_id", "start_at") if name in given
    }
    return {**own, "options": given} if given else own


def _values(given: dict[str, str]) -> dict[str, Any]:
    return {name: value if name in _TEXTS else _value(value) for name, value in given.items()}


def _value(text: str) -> Any:
    """A number or a flag where it looks like one; else the text."""
    if text in ("true", "false"):
        return text == "true"
    convert: Callable[[str], Any]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


__all__ = ["FORM", "SCHEMES", "UnknownOptionError", "is_address", "sink_at", "source_at"]

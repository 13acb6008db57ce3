"""What Kafka's consumers and producers are given: topics and options of librdkafka, checked."""

from __future__ import annotations

import inspect
import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, get_args

from pythia_fast import options as options_  # the word is taken here by librdkafka's
from pythia_fast.errors import ConfigError, UnknownOptionError

Strategy = Literal["range", "roundrobin", "cooperative-sticky"]

_CONNECTION = ("security.", "sasl.", "ssl.", "enable.ssl.", "enable.sasl.", "https.", "client.dns.", "broker.address.")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def topic_names(
    where: str, topic: str | None, topics: Iterable[str] | None, *, patterns: bool = True
) -> tuple[str, ...]:
    if (topic is None) == (topics is None):
        raise ConfigError(f"{where}: give topic='name' or topics=['name', ...], one of the two")
    if isinstance(topics, str):
        raise ConfigError(f"{where}: topics={topics!r} is one name; write topic={topics!r} or topics=[{topics!r}]")
    names = tuple(options_.items(where, "topics", [topic] if topics is None else topics, "a list of topics' names"))
    if not names:
        raise ConfigError(f"{where}: topics=[] names no topic")
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: a topic is named by a string, not {options_.spell(name)}")
        if not name.startswith("^") and (not _TOPIC.fullmatch(name) or name in (".", "..")):
            pattern = ", or a regular expression that begins with ^" if patterns else ""
            raise ConfigError(
                f"{where}: {name!r} cannot be a topic: 1 to 249 of the characters A-Z a-z 0-9 . _ -{pattern}"
            )
        if name.startswith("^") and (trouble := _pattern_trouble(name)):
            raise ConfigError(f"{where}: {name!r} is a broken regular expression: {trouble}")
    return tuple(dict.fromkeys(names))


def _pattern_trouble(pattern: str) -> str:
    """Why librdkafka takes a topic's name that begins with ^ for no regular expression; empty where it does."""
    if "\0" in pattern:
        return "it holds a NUL"
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        return f"it is no text: {error.reason}"
    from pythia_fast._ext import librdkafka

    return librdkafka.pattern_trouble(pattern)


def option_values(
    where: str,
    options: Mapping[str, object] | None,
    keywords: Mapping[str, object],
    reserved: Mapping[str, str],
    declared: type | None = None,
) -> dict[str, str]:
    """librdkafka's names and texts of what the user gave, unknown names refused.

    ``declared``: the class that takes them beside options of its own, which may be the ones that were meant.
    """
    values: dict[str, str] = {}
    first_names: dict[str, str] = {}  #: of what was given -> the name by which it was
    if options is not None and not isinstance(options, Mapping):
        # Not repeated: there may be a password in it.
        raise ConfigError(f"{where}: options= takes a mapping of librdkafka's options to their values")
    for given, value in [*(options or {}).items(), *keywords.items()]:
        name = _option_name(where, given, declared, as_keyword=given in keywords)
        if name in reserved:
            raise ConfigError(f"{where}: {given} is set by the runtime: {reserved[name]}")
        if value is None:
            continue
        first_name = _first_name(name)
        if first_name in first_names:
            both = f"{first_names[first_name]} and {given} are the same option, which"
            raise ConfigError(f"{where}: {name if name in values else both} is given twice")
        first_names[first_name] = given
        if not isinstance(value, str | int | float):
            raise options_.refusal(where, given, value, "it must be a string, a number or a bool")
        if "\0" in str(value):
            raise options_.refusal(where, given, value, "no option of librdkafka holds a NUL")
        if first_name in _FRACTIONS and _is_endless(value):
            raise options_.refusal(
                where, given, value, "it must be a number"
            )  # librdkafka takes them, and is at a loss
        values[name] = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            values[name].encode()
        except UnicodeEncodeError as error:
            told = f"{given}={options_.spell_of(given, value)}"
            raise ConfigError(f"{where}: {told} is no text: {error.reason}") from None
    return values


#: Options that may have a fraction: the text is read by strtod(), which knows "nan" and "inf" as well.
_FRACTIONS = ("queue.buffering.max.ms",)


def _is_endless(value: str | float) -> bool:
    """Whether it is a number that is none, or infinite."""
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False


@cache
def _aliases() -> dict[str, str]:
    from pythia_fast._ext import librdkafka

    return librdkafka.option_aliases()


def _first_name(name: str) -> str:
    """The one by which librdkafka knows an option that has two."""
    return _aliases().get(name, name)


def _option_name(where: str, given: str, declared: type | None, *, as_keyword: bool) -> str:
    from pythia_fast._ext import librdkafka

    known = librdkafka.option_names()
    if not isinstance(given, str):
        raise ConfigError(f"{where}: options={{{options_.spell(given)}: ...}}: options are named by strings")
    for name in (given, given.replace("_", ".")):
        if name in known:
            return name
    usable = [name for name in known if "." in name]
    if not as_keyword:
        raise UnknownOptionError(where, given, usable)
    own = [] if declared is None else list(inspect.signature(declared).parameters)
    raise UnknownOptionError(where, given, own + [name.replace(".", "_") for name in usable])


def with_strategy(strategy: str | None, options: dict[str, str]) -> dict[str, str]:
    if strategy is not None:
        options_.choice("KafkaConsumer", "partition_assignment_strategy", strategy, get_args(Strategy))
    if options.get("group.protocol") == "consumer":
        if strategy is not None:
            raise ConfigError(
                "KafkaConsumer: with group.protocol=consumer the broker assigns partitions: "
                "leave partition_assignment_strategy out and set group.remote.assignor if needed"
            )
        return options
    return {"partition.assignment.strategy": strategy or "cooperative-sticky", **options}


def is_idempotent(options: Mapping[str, str]) -> bool:
    """Whether a producer with these options is; librdkafka takes 1, t and others for true."""
    from pythia_fast._ext import librdkafka

    return librdkafka.option_value(options, "enable.idempotence") == "true"


def check_options(options: Mapping[str, str]) -> None:
    if options:
        from pythia_fast._ext import librdkafka

        librdkafka.check_options(options)


def connecting(options: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in options.items() if name.startswith(_CONNECTION)}


def client_id(app: str, handler: str) -> str:
    """Another name for every process: brokers' logs and metrics can tell members of a group apart."""
    return f"{app}-{handler}-{socket.gethostname()}-{os.getpid()}"


def topic_phrase(topics: tuple[str, ...]) -> str:
    return f"topic {topics[0]}" if len(topics) == 1 else f"topics {', '.join(topics)}"

"""The pace of a replay: when each message is due, and a thread that sends it then."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.observer import Observer, RunInfo, Snapshot
from pythia_fast.report import RunReport
from pythia_fast.unreadable import UNREADABLE

#: Fields in which the messages' own time is looked for, in this order.
TIME_FIELDS = ("ts", "timestamp", "time", "event_time", "created_at")

#: A number is taken as a time in the first unit that puts it after 1970 and before about the year 5000.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))

#: Messages due within this time are sent together: a sleep is not more exact than that.
TOGETHER_S = 0.001

#: How long one try to send waits for room; a stop is noticed as soon.
SEND_WAIT_S = 0.5

Replayed = bytes | MemoryMessage  #: a line of a file, or all that a dead letter kept of a message


class Pace(NamedTuple):
    """How fast to replay: as fast as possible when neither is set."""

    factor: float | None = None  #: times the speed at which the messages came
    rows_per_second: float | None = None

    @property
    def unbounded(self) -> bool:
        """As fast as possible."""
        return self.factor is None and self.rows_per_second is None


def parse_speed(text: str) -> Pace:
    """``max``, ``2x`` (times the messages' own speed) or ``500/s`` (rows a second).

    Raises:
        ConfigError: none of these.
    """
    wrong = ConfigError(f"speed {text!r}: write max, 2x for twice the messages' own speed, or 500/s for rows a second")
    if text == "max":
        return Pace()
    number, unit = (text[:-2], "/s") if text.endswith("/s") else (text[:-1], text[-1:])
    try:
        value = float(number)
    except ValueError:
        raise wrong from None
    if unit not in ("x", "/s") or not 0 < value < float("inf"):
        raise wrong
    return Pace(factor=value) if unit == "x" else Pace(rows_per_second=value)


def find_time_field(payload: bytes, given: str | None) -> str:
    """The field that holds the time of a message like this one: the given one, or a usual name.

    Raises:
        ConfigError: the message has no such field, or it holds no time.
    """
    try:
        message = msgspec.json.decode(payload)
    except UNREADABLE as error:
        raise ConfigError(f"the first message is not JSON, so it has no time of its own: {error}") from None
    fields = message if isinstance(message, dict) else {}
    for name in (given,) if given is not None else TIME_FIELDS:
        if name in fields:
            if seconds_of(fields[name]) is None:
                raise ConfigError(f"field {name!r} of the first message holds no time: {fields[name]!r}")
            return name
    looked = repr(given) if given is not None else ", ".join(TIME_FIELDS)
    raise ConfigError(
        f"the first message has no field {looked}; it has {', '.join(fields) or 'none'}: "
        "name the one with its time by --time-field, or give the speed in rows, as in --speed 500/s"
    )


def seconds_of(value: object) -> float | None:
    """Seconds since 1970 of a number (s, ms, us or ns, told by its size) or an ISO 8601 text; None of others."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float) and 0 <= value < 1e20:
        return next(value / scale for limit, scale in _UNITS if value >= limit)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    return None


def schedule(messages: Iterable[Replayed], pace: Pace, time_field: str) -> Iterator[tuple[float, Replayed]]:
    """(seconds after the start, message) of each message.

    A message without a readable time, or with one before its predecessor's, is due together with that one.
    """
    due = 0.0
    first: float | None = None
    for number, message in enumerate(messages):
        if pace.rows_per_second is not None:
            due = number / pace.rows_per_second
        elif pace.factor is not None:
            seconds = _time_in(payload_of(message), time_field)
            if seconds is not None:
                first = seconds if first is None else first
                due = max(due, (seconds - first) / pace.factor)
        yield due, message


def payload_of(message: Replayed) -> bytes:
    """The message's payload; of a null value no bytes, which are no message with a time either."""
    return message if isinstance(message, bytes) else message.payload or b""


def _time_in(payload: bytes, field: str) -> float | None:
    try:
        message = msgspec.json.decode(payload)
    except UNREADABLE:
        return None
    return seconds_of(message.get(field)) if isinstance(message, dict) else None


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines that a file has now, without their ends; empty ones are no messages, appended ones are not read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for line in file:
            size -= len(line)
            payload = line.removesuffix(b"\n").removesuffix(b"\r")
            if payload:
                yield payload
            if size <= 0:
                break


class Feeder:
    """Sends scheduled messages to a MemoryConsumer from a thread of its own, each when it is due."""

    def __init__(self, consumer: MemoryConsumer, scheduled: Iterable[tuple[float, Replayed]]) -> None:
        self._consumer = consumer
        self._scheduled = scheduled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="replay", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin; the first message is due now."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and return when the thread has ended. One that was never started stays so."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _feed(self) -> None:
        started = time.monotonic()
        try:
            for due, message in self._scheduled:
                wait = started + due - time.monotonic()
                if wait > TOGETHER_S:
                    self._stop.wait(min(wait, threading.TIMEOUT_MAX))
                if self._stop.is_set() or not self._send(message):
                    break
        except Exception as error:  # the file; whatever it is, the messages behind it were not sent
            self.failure = error
        finally:
            self._consumer.end()

    def _send(self, message: Replayed) -> bool:
        sent = MemoryMessage(message) if isinstance(message, bytes) else message
        while not self._stop.is_set():
            try:
                self._consumer.send(
                    sent.payload, sent.key, sent.headers, timestamp_ms=sent.timestamp_ms, timeout=SEND_WAIT_S
                )
            except SourceError:  # no room yet: the handler is slower than the pace
                continue
            return True
        return False


class FeederStart(Observer):
    """Starts a feeder once the pool is up: the time that takes is not the messages' own."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder

    def started(self, info: RunInfo) -> None:
        """Everybody is ready."""
        self._feeder.start()

    def sample(self, snapshot: Snapshot) -> None:
        """Nothing to do."""

    def event(self, text: str) -> None:
        """Nothing to do."""

    def finished(self, report: RunReport) -> None:
        """Nothing to do."""

"""Options of librdkafka that contradict each other, told when they are declared.

librdkafka compares them only when a client is made, which the process that forks the pool must not do. So what
``rd_kafka_new`` refuses is said here again (librdkafka's CONFIGURATION.md has most of it), and what it takes though
it cannot work. Values and defaults are asked of librdkafka.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from pythia_fast._ext import librdkafka
from pythia_fast.errors import ConfigError

FRAMING_BYTES = 512  #: what an answer to a fetch has beside messages
MOST_IN_FLIGHT = 5  #: requests whose order and number an idempotent producer can keep
SOCKET_SLACK_MS = 100  #: by which the timeout of a request may exceed that of a transaction
#: Other names of options that are looked at.
_ALIASES = {
    "queue.buffering.max.ms": "linger.ms",
    "delivery.timeout.ms": "message.timeout.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "message.send.max.retries": "retries",
    "sasl.mechanisms": "sasl.mechanism",
}
#: Not with group.protocol=consumer: what to do instead.
_CLASSIC = {
    "session.timeout.ms": "leave it out, and set group.consumer.session.timeout.ms of the brokers",
    "heartbeat.interval.ms": "leave it out, and set group.consumer.heartbeat.interval.ms of the brokers",
    "group.protocol.type": "leave it out",
}
_WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
Finding = tuple[str, str]  #: what is wrong, what to do


class _Values:
    """What librdkafka makes of options: by name, and of those that were not given its defaults."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)
        self._given = {_ALIASES.get(name, name) for name in options}

    def given(self, name: str) -> bool:
        """Whether the user gave it, or we do; librdkafka adapts many an option that was not."""
        return name in self._given

    def text(self, name: str) -> str:
        return librdkafka.option_value(self._options, name) or ""

    def number(self, name: str) -> float:
        return float(self.text(name))

    def spell(self, name: str) -> str:
        return f"{name}={self.text(name)}" + ("" if self.given(name) else " (the default)")


def check_consumer_options(where: str, options: Mapping[str, str]) -> None:
    """Raise ConfigError for options of a consumer, our defaults among them, with which none could be made or read."""
    _refuse(where, options, _of_any, _of_membership, _of_fetches)


def check_ignored_topics(where: str, topics: Iterable[str], options: Mapping[str, str]) -> None:
    """Raise ConfigError for a topic to read that ``topic.blacklist`` makes librdkafka ignore: it would not exist."""
    for pattern in options.get("topic.blacklist", "").split(","):
        for topic in topics:
            if pattern and not topic.startswith("^") and librdkafka.pattern_matches(pattern, topic):
                raise ConfigError(
                    f"{where}: topic {topic!r} is to be read, and topic.blacklist={options['topic.blacklist']} has "
                    "librdkafka ignore it: leave one of them out"
                )


def check_producer_options(where: str, options: Mapping[str, str]) -> None:
    """The same for a producer."""
    _refuse(where, options, _of_any, _of_idempotence, _of_delivery)


def check_transactional_options(where: str, options: Mapping[str, str]) -> None:
    """The same for a producer of transactions."""
    _refuse(where, options, _of_any, _of_transactions, _of_idempotence, _of_delivery)


def check_client_options(where: str, options: Mapping[str, str]) -> None:
    """The same for a client that only asks."""
    _refuse(where, options, _of_any)


def _refuse(where: str, options: Mapping[str, str], *rules: Callable[[_Values], Iterator[Finding]]) -> None:
    values = _Values(options)
    for rule in rules:
        for wrong, advice in rule(values):
            raise ConfigError(f"{where}: {wrong}: {advice}")


def _of_any(values: _Values) -> Iterator[Finding]:
    first, longest = "reconnect.backoff.ms", "reconnect.backoff.max.ms"
    if values.number(first) > values.number(longest):
        yield f"{values.spell(first)} is above {values.spell(longest)}", f"give {longest} as well, or lower {first}"
    mechanism = values.text("sasl.mechanism")
    if values.text("security.protocol").startswith("sasl_") and mechanism in _WITH_PASSWORD:
        lacking = [name for name in ("sasl.username", "sasl.password") if not values.given(name)]
        if lacking:
            wrong = f"sasl.mechanism={mechanism} with security.protocol={values.text('security.protocol')}"
            yield f"{wrong} logs in by name and password, and there is no {' and no '.join(lacking)}", "give both"
    if values.given("ssl.keystore.location") and not values.given("ssl.keystore.password"):
        yield "ssl.keystore.location is given without ssl.keystore.password", "give both"
    if values.given("https.ca.location") and values.given("https.ca.pem"):
        yield "https.ca.location and https.ca.pem are both given", "give one"


def _of_membership(values: _Values) -> Iterator[Finding]:
    session, heartbeat, poll = "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms"
    if values.text("group.protocol") == "consumer":
        for name, advice in _CLASSIC.items():
            if values.given(name):
                yield f"{values.spell(name)} cannot be had with group.protocol=consumer", advice
        return
    if values.number(session) > values.number(poll):
        wrong = f"{values.spell(session)} is above {values.spell(poll)}"
        yield wrong, f"lower {session}, or give a {poll} that is no less"
    if values.number(heartbeat) >= values.number(session):
        wrong = f"{values.spell(heartbeat)} is not below {values.spell(session)}"
        yield f"{wrong}, so the group would drop this member between two heartbeats", f"give {heartbeat} a third of it"


def _of_fetches(values: _Values) -> Iterator[Finding]:
    least, most, answer = "fetch.min.bytes", "fetch.max.bytes", "receive.message.max.bytes"
    message, queued = "message.max.bytes", "queued.max.messages.kbytes"
    fetched, told = values.number(most), values.spell(most)
    if values.given(most):
        if fetched < values.number(message):
            yield f"{told} is below {values.spell(message)}", f"raise {most}, or lower {message}"
    else:  # as librdkafka adapts it
        fetched = max(min(fetched, values.number(queued) * 1024), values.number(message))
        told = f"{most}={fetched:.0f}, which follows from {values.spell(queued)} and {values.spell(message)}"
    if values.given(answer) and values.number(answer) < fetched + FRAMING_BYTES:
        wrong = f"{values.spell(answer)} is not {FRAMING_BYTES} above {told}"
        yield wrong, f"give {most} {values.number(answer) - FRAMING_BYTES:.0f} or less, or raise {answer}"
    if values.number(least) > fetched:
        wrong = f"{values.spell(least)} is above {told}"
        yield f"{wrong}, so no answer could have as much", f"lower {least}, or raise {most}"


def _of_transactions(values: _Values) -> Iterator[Finding]:
    idempotence, transaction = "enable.idempotence", "transaction.timeout.ms"
    socket, message = "socket.timeout.ms", "message.timeout.ms"
    if values.text(idempotence) == "false":
        yield f"{values.spell(idempotence)} cannot be had with transactional=True", "leave it out"
    limit = values.number(transaction)
    if values.given(socket) and values.number(socket) > limit + SOCKET_SLACK_MS:
        wrong = f"{values.spell(socket)} is more than {SOCKET_SLACK_MS} above {values.spell(transaction)}"
        yield wrong, f"lower {socket}, leave it out, or raise {transaction}"
    if values.given(message) and values.number(message) > limit:
        wrong = f"{values.spell(message)} is above {values.spell(transaction)}"
        yield wrong, f"lower {message}, leave it out, or raise {transaction}"


def _of_idempotence(values: _Values) -> Iterator[Finding]:
    idempotence, gapless = "enable.idempotence", "enable.gapless.guarantee"
    if values.text(idempotence) == "false":
        if values.text(gapless) == "true":
            yield f"{values.spell(gapless)} cannot be had with {values.spell(idempotence)}", "leave one of them out"
        return
    in_flight = "max.in.flight.requests.per.connection"
    fits: Callable[[str], bool]
    for name, takes, fits in (
        (in_flight, f"at most {MOST_IN_FLIGHT}", lambda text: float(text) <= MOST_IN_FLIGHT),
        ("retries", "at least 1", lambda text: float(text) >= 1),
        ("queue.buffering.backpressure.threshold", "1", lambda text: float(text) <= 1),
        ("queuing.strategy", "fifo", lambda text: text == "fifo"),
    ):
        if values.given(name) and not fits(values.text(name)):
            wrong = f"{values.spell(name)} cannot be had with {values.spell(idempotence)}, which takes {takes}"
            yield wrong, f"leave {name} out, or give {idempotence}=false with it, which may repeat and reorder records"


def _of_delivery(values: _Values) -> Iterator[Finding]:
    linger, timeout = "linger.ms", "message.timeout.ms"
    if values.given(timeout) and 0 < values.number(timeout) <= values.number(linger):
        wrong = f"{values.spell(timeout)} is not above {values.spell(linger)}"
        yield f"{wrong}, so records would be given up while they wait", f"raise {timeout}, or lower {linger}"

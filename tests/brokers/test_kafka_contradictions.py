"""Options that contradict each other are refused when they are declared, as librdkafka refuses them; no broker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from pythia_fast import App, KafkaConsumer, KafkaProducer
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.brokers.kafka_admin import KafkaAdmin
from pythia_fast.errors import ConfigError
from pythia_fast.testing.readers import reader_context

NOBODY = "127.0.0.1:1"
PASSWORD = "correct-horse-battery-staple"
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}

#: Options of a consumer, what is said, and whether librdkafka refuses them too.
CONSUMERS: list[tuple[dict[str, object], str, bool]] = [
    (
        {"session.timeout.ms": 400_000},
        (
            "session.timeout.ms=400000 is above max.poll.interval.ms=300000 (the default): lower session.timeout.ms, "
            "or give a max.poll.interval.ms that is no less"
        ),
        True,
    ),
    (
        {"session.timeout.ms": 6001, "max.poll.interval.ms": 6000},
        "session.timeout.ms=6001 is above max.poll.interval.ms=6000: ",
        True,
    ),
    ({"max.poll.interval.ms": 44_999}, "session.timeout.ms=45000 (the default) is above max.poll.interval.ms=", True),
    (
        {"session.timeout.ms": 3000},
        (
            "heartbeat.interval.ms=3000 (the default) is not below session.timeout.ms=3000, so the group would drop "
            "this member between two heartbeats: give heartbeat.interval.ms a third of it"
        ),
        False,
    ),
    (
        {"fetch.max.bytes": 2000, "message.max.bytes": 3000},
        "fetch.max.bytes=2000 is below message.max.bytes=3000: raise fetch.max.bytes, or lower message.max.bytes",
        True,
    ),
    (
        {"receive.message.max.bytes": 2_000_511, "fetch.max.bytes": 2_000_000},
        "receive.message.max.bytes=2000511 is not 512 above fetch.max.bytes=2000000: give fetch.max.bytes 1999999 or",
        True,
    ),
    (
        {"receive.message.max.bytes": 20_000_000},
        (
            "receive.message.max.bytes=20000000 is not 512 above fetch.max.bytes=33554432, which follows from "
            "queued.max.messages.kbytes=32768 and message.max.bytes=1000000 (the default)"
        ),
        True,
    ),
    (
        {"message.max.bytes": 200_000_000, "receive.message.max.bytes": 100_000_000},
        "receive.message.max.bytes=100000000 is not 512 above fetch.max.bytes=200000000, which follows from ",
        True,
    ),
    (
        {"fetch.min.bytes": 2_000_001, "fetch.max.bytes": 2_000_000},
        "fetch.min.bytes=2000001 is above fetch.max.bytes=2000000, so no answer could have as much: ",
        False,
    ),
    (
        {"reconnect.backoff.ms": 5000},
        "reconnect.backoff.ms=5000 is above reconnect.backoff.max.ms=2000: give reconnect.backoff.max.ms as well",
        True,
    ),
    (
        {"group.protocol": "consumer", "session.timeout.ms": 45_000},
        (
            "session.timeout.ms=45000 cannot be had with group.protocol=consumer: leave it out, and set "
            "group.consumer.session.timeout.ms of the brokers"
        ),
        True,
    ),
    ({"group.protocol": "consumer", "heartbeat.interval.ms": 3000}, "heartbeat.interval.ms=3000 cannot be had", True),
    ({"group.protocol": "consumer", "group.protocol.type": "x"}, "group.protocol.type=x cannot be had with", True),
    (
        {**SASL, "sasl.password": PASSWORD},
        (
            "sasl.mechanism=PLAIN with security.protocol=sasl_plaintext logs in by name and password, and there is no "
            "sasl.username: give both"
        ),
        True,
    ),
    ({**SASL, "sasl.mechanism": "SCRAM-SHA-512"}, "there is no sasl.username and no sasl.password: give both", True),
    ({"ssl.keystore.location": "store"}, "ssl.keystore.location is given without ssl.keystore.password", True),
    ({"https.ca.location": "/", "https.ca.pem": "x"}, "https.ca.location and https.ca.pem are both given", True),
]
#: The same of a producer.
PRODUCERS: list[tuple[dict[str, object], str, bool]] = [
    (
        {"max.in.flight": 6},
        "max.in.flight.requests.per.connection=6 cannot be had with enable.idempotence=true, which takes at most 5: ",
        True,
    ),
    ({"message.send.max.retries": 0}, "retries=0 cannot be had with enable.idempotence=true, which takes at", True),
    ({"queue.buffering.backpressure.threshold": 2}, "threshold=2 cannot be had with enable.idempotence=true", True),
    ({"queuing.strategy": "lifo"}, "queuing.strategy=lifo cannot be had with enable.idempotence=true, which", True),
    (
        {"enable.gapless.guarantee": True, "enable.idempotence": False},
        "enable.gapless.guarantee=true cannot be had with enable.idempotence=false: leave one of them out",
        True,
    ),
    (
        {"message.timeout.ms": 300, "linger.ms": 300},
        "message.timeout.ms=300 is not above linger.ms=300, so records would be given up while they wait: ",
        True,
    ),
    ({"delivery.timeout.ms": 5}, "message.timeout.ms=5 is not above linger.ms=5", True),
    ({"reconnect.backoff.ms": 2001}, "reconnect.backoff.ms=2001 is above reconnect.backoff.max.ms=2000", True),
]
#: The same of a producer of transactions.
TRANSACTIONAL: list[tuple[dict[str, object], str, bool]] = [
    (
        {"enable.idempotence": False},
        "enable.idempotence=false cannot be had with transactional=True: leave",
        True,
    ),
    (
        {"socket.timeout.ms": 10_101},
        "socket.timeout.ms=10101 is more than 100 above transaction.timeout.ms=10000: lower socket.timeout.ms, leave ",
        True,
    ),
    ({"message.timeout.ms": 10_001}, "message.timeout.ms=10001 is above transaction.timeout.ms=10000: lower", True),
]
#: What looks alike and works.
WORKING_CONSUMERS: list[dict[str, object]] = [
    {"session.timeout.ms": 6000, "max.poll.interval.ms": 6000},
    {"message.max.bytes": 200_000_000},
    {"receive.message.max.bytes": 2_000_512, "fetch.max.bytes": 2_000_000},
    {"fetch.min.bytes": 2_000_000, "fetch.max.bytes": 2_000_000},
    {"reconnect.backoff.ms": 2000},
    {"group.protocol": "consumer"},
    {"group.protocol": "consumer", "max.poll.interval.ms": 50_000},
    {"sasl.mechanism": "PLAIN"},
    {**SASL, "sasl.username": "alice", "sasl.password": PASSWORD},
]
WORKING_PRODUCERS: list[dict[str, object]] = [
    {"max.in.flight": 5, "retries": 1},
    {"enable.idempotence": False, "max.in.flight": 1000, "retries": 0, "queuing.strategy": "lifo", "acks": 1},
    {"message.timeout.ms": 6},
    {"linger.ms": 2000},
]
WORKING_TRANSACTIONAL: list[dict[str, object]] = [
    {"socket.timeout.ms": 10_100},
    {"message.timeout.ms": 10_000},
    {"message.timeout.ms": 0, "linger.ms": 2000},
]


def refused_by_librdkafka(kind: type[Consumer | Producer], options: dict[str, str]) -> bool:
    quiet = {name: value for name, value in options.items() if name != "log.queue"} | {"log_level": "0"}
    try:
        client = kind(quiet | {"bootstrap.servers": NOBODY})
    except KafkaException:
        return True
    if isinstance(client, Consumer):
        client.close()
    return False


def declare_transactional(options: dict[str, object]) -> KafkaProducer:
    producer = KafkaProducer("scored", bootstrap_servers=NOBODY, options=options)
    source = KafkaConsumer("orders", bootstrap_servers=NOBODY)
    made = App("shop").batch_handler(name="score", source=source, sink=producer, decoder="raw", transactional=True)
    made(lambda batch: None)
    return producer


def consumer_options(tmp_path: Path, consumer: KafkaConsumer) -> dict[str, str]:
    return consumer.librdkafka_options(reader_context(tmp_path))


def producer_context(tmp_path: Path) -> PublisherContext:
    return PublisherContext("shop", "score", tmp_path, print)


def made_anyhow(made: Any, given: dict[str, object]) -> dict[str, str]:
    """The options that a source or sink would have that was not refused."""
    spelled = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    return {**made, **spelled}


@pytest.mark.parametrize(("given", "told", "refused"), CONSUMERS)
def test_of_a_consumer(tmp_path: Path, given: dict[str, object], told: str, refused: bool) -> None:
    with pytest.raises(ConfigError, match="KafkaConsumer: .*" + re.escape(told)) as error:
        KafkaConsumer("orders", options=given)
    assert PASSWORD not in str(error.value)
    options = made_anyhow(consumer_options(tmp_path, KafkaConsumer("orders")), given)
    if "group.protocol" in given:
        del options["partition.assignment.strategy"]
    assert refused_by_librdkafka(Consumer, options) == refused


@pytest.mark.parametrize(("given", "told", "refused"), PRODUCERS)
def test_of_a_producer(tmp_path: Path, given: dict[str, object], told: str, refused: bool) -> None:
    with pytest.raises(ConfigError, match="KafkaProducer: .*" + re.escape(told)):
        KafkaProducer("scored", options=given)
    options = KafkaProducer("scored").librdkafka_options(producer_context(tmp_path))
    assert refused_by_librdkafka(Producer, made_anyhow(options, given)) == refused


@pytest.mark.parametrize(("given", "told", "refused"), TRANSACTIONAL)
def test_of_a_producer_of_transactions(tmp_path: Path, given: dict[str, object], told: str, refused: bool) -> None:
    producer = KafkaProducer("scored", bootstrap_servers=NOBODY, options=given)  # without transactions it works
    with pytest.raises(ConfigError, match=re.escape(f"KafkaProducer: {told}")):
        declare_transactional(given)
    options = producer.transactional_options(producer_context(tmp_path), "id")
    assert refused_by_librdkafka(Producer, options) == refused


@pytest.mark.parametrize("given", WORKING_CONSUMERS)
def test_a_consumer_that_works_is_taken(tmp_path: Path, given: dict[str, object]) -> None:
    consumer = KafkaConsumer("orders", options=given)
    assert not refused_by_librdkafka(Consumer, consumer_options(tmp_path, consumer))


@pytest.mark.parametrize("given", WORKING_PRODUCERS)
def test_a_producer_that_works_is_taken(tmp_path: Path, given: dict[str, object]) -> None:
    producer = KafkaProducer("scored", options=given)
    assert not refused_by_librdkafka(Producer, producer.librdkafka_options(producer_context(tmp_path)))


@pytest.mark.parametrize("given", WORKING_TRANSACTIONAL)
def test_a_producer_of_transactions_that_works_is_taken(tmp_path: Path, given: dict[str, object]) -> None:
    options = declare_transactional(given).transactional_options(producer_context(tmp_path), "id")
    assert not refused_by_librdkafka(Producer, options)


def test_a_client_that_only_asks_is_looked_at_too() -> None:
    with pytest.raises(ConfigError, match=r"KafkaAdmin: reconnect.backoff.ms=20000 is above reconnect.backoff.max.ms="):
        KafkaAdmin(bootstrap_servers=NOBODY, reconnect_backoff_ms=20_000)


def test_what_follows_from_other_options_is_told_without_a_stray_comma() -> None:
    with pytest.raises(ConfigError, match=r"message\.max\.bytes=\d+ \(the default\): give fetch\.max\.bytes "):
        KafkaConsumer("t", receive_message_max_bytes=20_000_000)


@pytest.mark.parametrize(
    ("topics", "ignored", "refused"),
    [
        (["orders"], "orders", True),
        (["orders"], "^ord,other", True),
        (["orders"], "der", True),  # librdkafka looks for it anywhere in the name
        (["orders", "bills"], "bill.$", True),
        (["orders"], "^other,bills", False),
        (["^ord.*"], "^orders-dead", False),
    ],
)
def test_a_topic_to_read_that_is_to_be_ignored_is_told(topics: list[str], ignored: str, refused: bool) -> None:
    if not refused:
        KafkaConsumer(topics=topics, topic_blacklist=ignored)
        return
    with pytest.raises(ConfigError, match=r"is to be read, and topic\.blacklist=.* has librdkafka ignore it"):
        KafkaConsumer(topics=topics, topic_blacklist=ignored)


@pytest.mark.parametrize("option", ["delivery_report_only_error", "enabled_events", "transactional_id", "log_queue"])
def test_options_of_a_producer_that_the_runtime_answers_for_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is set by the runtime: "):
        KafkaProducer("orders", **{option: "1"})

"""What KafkaConsumer and KafkaProducer accept, refuse and pass on; no broker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException

from pythia_fast._ext import librdkafka
from pythia_fast.brokers.kafka import CONSUMER_DEFAULTS, KafkaConsumer, KafkaProducer
from pythia_fast.errors import ConfigError, UnknownOptionError
from pythia_fast.testing.readers import reader_context


def options_of(tmp_path: Path, consumer: KafkaConsumer, **context: object) -> dict[str, str]:
    return consumer.librdkafka_options(reader_context(tmp_path, **context))


def test_options_go_by_their_own_names(tmp_path: Path) -> None:
    consumer = KafkaConsumer(
        "orders", session_timeout_ms=7000, options={"fetch.min.bytes": 10}, check_crcs=True, log_level=5
    )
    made = options_of(tmp_path, consumer)
    assert made["session.timeout.ms"] == "7000"
    assert made["fetch.min.bytes"] == "10"
    assert made["check.crcs"] == "true"
    assert made["log_level"] == "5"
    assert made["enable.auto.commit"] == made["enable.auto.offset.store"] == "false"
    assert CONSUMER_DEFAULTS.items() <= made.items()


def test_defaults_are_accepted_by_librdkafka(tmp_path: Path) -> None:
    librdkafka.check_options(options_of(tmp_path, KafkaConsumer("orders")))


def test_numbers_that_librdkafka_takes_whole_are_accepted() -> None:
    KafkaConsumer("orders", fetch_min_bytes=2.0, client_id="10s")
    KafkaProducer("orders", linger_ms=0.5, acks="all", compression_type="lz4")


@pytest.mark.parametrize("pattern", ["^a{1,3}", "^a**", "^a)", "^a|", "^()", "^[[:alpha:]]+", "^("])
def test_a_regular_expression_is_refused_when_librdkafka_refuses_it(pattern: str) -> None:
    client = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
    try:
        client.subscribe([pattern])
        refused = False
    except KafkaException:
        refused = True
    finally:
        client.close()
    assert bool(librdkafka.pattern_trouble(pattern)) == refused


def test_numbers_that_fit_are_not_taken_for_too_large(tmp_path: Path) -> None:
    consumer = KafkaConsumer("orders", client_id="20261127000000000001", fetch_max_bytes=2**31 - 1 - 512)
    made = options_of(tmp_path, consumer)
    assert (made["client.id"], made["fetch.max.bytes"]) == ("20261127000000000001", str(2**31 - 1 - 512))


def test_a_user_option_wins_over_our_default(tmp_path: Path) -> None:
    assert options_of(tmp_path, KafkaConsumer("orders", fetch_wait_max_ms=3))["fetch.wait.max.ms"] == "3"


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"sesion_timeout_ms": 1}, "'session_timeout_ms'"),
        ({"options": {"fetch.max.wait.ms": 1}}, "'fetch.wait.max.ms'"),
        ({"bootstrap_server": "x"}, "'bootstrap_servers'"),
        ({"client_rak": "a"}, "'client_rack'"),
        ({"group_protocoll": "consumer"}, "'group_protocol'"),
        ({"group_instance": "a"}, "'group_instance_id'"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest_name(given: dict[str, object], near: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"did you mean {near}"):
        KafkaConsumer("orders", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give topic='name' or topics"),
        ({"topic": "a", "topics": ["b"]}, "one of the two"),
        ({"topics": "orders"}, "write topic='orders'"),
        ({"topics": []}, "names no topic"),
        ({"topic": "no spaces"}, "cannot be a topic"),
        ({"topic": ".."}, "cannot be a topic"),
        ({"topic": "a" * 250}, "cannot be a topic"),
        ({"topics": [1]}, "named by a string"),
        ({"topic": "a", "consumer_group": "x", "group_id": "y"}, "mean the same"),
        (
            {"topic": "a", "partition_assignment_strategy": "sticky"},
            "strategy='sticky'; there are: cooperative-sticky, range, roundrobin",
        ),
        ({"topic": 3}, "named by a string, not 3"),
        ({"topic": ""}, "'' cannot be a topic"),
        ({"topics": 3}, "topics=3: a list of topics' names"),
        ({"topic": "a", "consumer_group": ""}, "consumer_group='': the name of a group"),
        ({"topic": "a", "group_id": 7}, "group_id=7: the name of a group"),
        ({"topic": "a", "bootstrap_servers": ""}, "bootstrap_servers='': host:port"),
        ({"topic": "a", "bootstrap_servers": 9092}, "bootstrap_servers=9092: host:port"),
        ({"topic": "a", "bootstrap_servers": ["a:1", 2]}, "bootstrap_servers=['a:1', 2]: host:port"),
        ({"topic": "a", "fetch_min_bytes": 1.5}, "fetch.min.bytes='1.5': not a whole number, librdkafka takes it as 1"),
        ({"topic": "a", "session_timeout_ms": "7000s"}, "not a whole number, librdkafka takes it as 7000"),
        ({"topic": "a", "session_timeout_ms": "7e3"}, "not a whole number, librdkafka takes it as 7"),
        ({"topics": ["a", "^("]}, "'^(' is a broken regular expression: "),
        ({"topic": "^a{2,1}"}, "'^a{2,1}' is a broken regular expression: "),
        ({"topic": "^a\0"}, "'^a\\x00' is a broken regular expression: it holds a NUL"),
        ({"topic": "^\ud800"}, "is a broken regular expression: it is no text"),
        ({"topic": "a", "partition_assignment_strategy": []}, "there are: cooperative-sticky, range, roundrobin"),
        ({"topic": "a", "options": ["a"]}, "options= takes a mapping of librdkafka's options"),
        ({"topic": "a", "options": {1: 2}}, "options={1: ...}: options are named by strings"),
        ({"topic": "a", "client_rack": "a\0b"}, "no option of librdkafka holds a NUL"),
        ({"topic": "a", "session_timeout_ms": float("nan")}, "session.timeout.ms='nan'"),
        ({"topic": "a", "enable_auto_commit": True}, "set by the runtime"),
        ({"topic": "a", "consumer_grup": "g"}, "has no option 'consumer_grup'; did you mean 'consumer_group'"),
        ({"topic": "a", "start_a": "2h"}, "did you mean 'start_at'"),
        ({"topic": "a", "session_timeout_ms": "soon"}, "session.timeout.ms='soon'"),
        ({"topic": "a", "session_timeout_ms": 2**32 + 7000}, "the number is too large, librdkafka takes it as 7000"),
        ({"topic": "a", "options": {"fetch.wait.max.ms": str(2**32)}}, "librdkafka takes it as 0"),
        ({"topic": "a", "session_timeout_ms": [1]}, "must be a string, a number or a bool"),
        ({"topic": "a", "session_timeout_ms": 1, "options": {"session.timeout.ms": 2}}, "given twice"),
        ({"topic": "a", "session_timeout_ms": 1, "options": {"session_timeout_ms": 2}}, "given twice"),
        (
            {"topic": "a", "max_partition_fetch_bytes": 1, "fetch_message_max_bytes": 2},
            "max_partition_fetch_bytes and fetch_message_max_bytes are the same option, which is given twice",
        ),
        (
            {"topic": "a", "bootstrap_servers": "y:1", "metadata_broker_list": "x:1"},
            "bootstrap_servers= is given, and in",
        ),
        ({"topic": "a", "bootstrap_servers": "y:1", "options": {"bootstrap.servers": "x:1"}}, "bootstrap_servers= is"),
        (
            {"topic": "a", "consumer_group": "y", "options": {"group.id": "x"}},
            "consumer_group= is given, and group.id in",
        ),
        ({"topic": "a", "options": {"group.id": "x" * 250}}, "the name of a group, 1 to 249 characters"),
        (
            {
                "topic": "a",
                "partition_assignment_strategy": "range",
                "options": {"partition.assignment.strategy": "roundrobin"},
            },
            "partition_assignment_strategy= is given, and in options= as well",
        ),
        (
            {"topic": "a", "group_protocol": "consumer", "partition_assignment_strategy": "range"},
            "group.remote.assignor",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_declared(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        KafkaConsumer(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"acks": 1, "enable_idempotence": 1}, "acks=1 would count records as written that a broker may still lose"),
        ({"acks": 1, "enable_idempotence": "t"}, "acks=1 would count records"),
        ({"acks": "all", "request_required_acks": 1}, "acks and request_required_acks are the same option"),
        ({"compression_codec": "gzip", "compression_type": "lz4"}, "are the same option, which is given twice"),
        ({"linger_ms": 1, "queue_buffering_max_ms": 2000}, "linger_ms and queue_buffering_max_ms are the same option"),
        ({"linger_ms": "nan"}, "linger_ms='nan': it must be a number"),
        ({"queue_buffering_max_ms": float("inf")}, "queue_buffering_max_ms=inf: it must be a number"),
    ],
)
def test_what_a_producer_cannot_do_is_refused_when_declared(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        KafkaProducer("orders", **given)  # type: ignore[arg-type]


def test_argument_then_environment_then_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("CONSUMER_GROUP", raising=False)
    plain, told = KafkaConsumer("orders"), KafkaConsumer("orders", group_id="g", bootstrap_servers=["a:1", "b:2"])
    made = options_of(tmp_path, plain, app="shop", handler="score")
    assert (made["bootstrap.servers"], made["group.id"]) == ("localhost:9092", "shop-score")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:9092")
    monkeypatch.setenv("CONSUMER_GROUP", "env-group")
    made = options_of(tmp_path, plain)
    assert (made["bootstrap.servers"], made["group.id"]) == ("env:9092", "env-group")
    made = options_of(tmp_path, told)
    assert (made["bootstrap.servers"], made["group.id"]) == ("a:1,b:2", "g")
    assert told.describe() == "kafka topic orders as group g"


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_strategies(tmp_path: Path, strategy: str) -> None:
    consumer = KafkaConsumer("orders", partition_assignment_strategy=strategy)  # type: ignore[arg-type]
    assert options_of(tmp_path, consumer)["partition.assignment.strategy"] == strategy


def test_the_new_group_protocol_carries_no_strategy(tmp_path: Path) -> None:
    assert "partition.assignment.strategy" not in options_of(tmp_path, KafkaConsumer("a", group_protocol="consumer"))


def test_declaring_opens_neither_confluent_kafka_nor_librdkafka() -> None:
    program = """
import sys
from pythia_fast.brokers.kafka import KafkaConsumer
KafkaConsumer("orders", consumer_group="g")
assert not [name for name in sys.modules if name.startswith("confluent_kafka")]
assert "librdkafka" not in open("/proc/self/maps").read() if sys.platform == "linux" else True
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_a_value_that_is_no_text_is_refused_and_a_certificate_is_not() -> None:
    with pytest.raises(ConfigError, match=r"session_timeout_ms='\\ud800' is no text"):
        KafkaConsumer("orders", session_timeout_ms="\ud800")
    KafkaConsumer("orders", ssl_key_password="two\nlines")

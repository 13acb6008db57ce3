"""What a share consumer takes and refuses when it is declared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pythia_fast import App, Batch, KafkaProducer, KafkaShareConsumer, RabbitMQConsumer
from pythia_fast._ext import kafka_share_reader
from pythia_fast.errors import ConfigError, ExtensionError, UnknownOptionError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topic": "^orders-.*"}, "'^orders-.*' is a pattern, which share groups do not know"),
        ({"topic": "t", "members": 0}, "members=0"),
        ({"topic": "t", "members": 17}, "members=17"),
        ({"topic": "t", "auto_offset_reset": "none"}, "auto_offset_reset='none'"),
        ({"topic": "t", "consumer_group": "a", "group_id": "b"}, "mean the same; give one"),
        ({"topic": "t", "options": {"group.id": "g"}}, "give it as consumer_group="),
        ({"topic": "t", "options": {"auto.offset.reset": "earliest"}}, "give it as auto_offset_reset="),
        ({"topic": "t", "share_acknowledgement_mode": "implicit"}, "rows are acknowledged once they are handled"),
        ({"topic": "t", "isolation_level": "read_committed"}, "share.isolation.level"),
        ({"topic": "t", "enable_auto_commit": True}, "enable_auto_commit is set by the runtime"),
        ({"topic": "t", "max_poll_records": "many"}, "max.poll.records"),
        ({"topic": "t", "bootstrap_servers": "localhost:notaport"}, "port"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        KafkaShareConsumer(**options)


def test_an_option_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="max_poll_records"):
        KafkaShareConsumer("t", max_pol_records=5)


def test_a_librdkafka_without_share_groups_is_told_before_its_lack_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> None:
        raise ExtensionError("KafkaShareConsumer needs librdkafka 2.16")

    monkeypatch.setattr(kafka_share_reader, "check_library", lacking)
    KafkaShareConsumer("t")  # nothing is opened before there is something to check
    with pytest.raises(ExtensionError, match=r"librdkafka 2\.16"):
        KafkaShareConsumer("t", max_poll_records=5)


def handle(batch: Batch[Any]) -> None: ...


@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_an_order_is_refused(ordering: Any) -> None:
    with pytest.raises(ConfigError, match=f'ordering="{ordering}" cannot be kept: a share group gives the rows'):
        App("a").batch_handler(source=KafkaShareConsumer("t"), decoder="raw", ordering=ordering)(handle)


def test_other_sources_keep_their_order() -> None:
    App("a").batch_handler(source=RabbitMQConsumer("q"), decoder="raw", ordering="partition")(handle)


def test_transactions_are_refused() -> None:
    with pytest.raises(ConfigError, match="transactional=True cannot be had with this source"):
        App("a").batch_handler(
            source=KafkaShareConsumer("t"), sink=KafkaProducer("s"), decoder="raw", transactional=True
        )(handle)


def test_a_sink_that_its_own_source_reads_is_known() -> None:
    source = KafkaShareConsumer("t", bootstrap_servers="one:9092")
    assert source.reads_what(KafkaProducer("t", bootstrap_servers="one:9092")) == "Kafka topic t"
    assert source.reads_what(KafkaProducer("u", bootstrap_servers="one:9092")) is None
    assert source.reads_what(KafkaProducer("t", bootstrap_servers="two:9092")) is None


def test_two_handlers_of_one_group_would_take_each_others_rows() -> None:
    one = KafkaShareConsumer("t", consumer_group="g").share("app", "one")
    assert one.in_common(KafkaShareConsumer(topics=["t", "u"], consumer_group="g").share("app", "two")) == "t"
    assert one.in_common(KafkaShareConsumer("t", consumer_group="h").share("app", "two")) is None


def test_it_is_described_by_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUMER_GROUP", raising=False)
    source = KafkaShareConsumer("t")
    assert (source.describe(), source.group("app", "handler")) == ("kafka topic t as a share group", "app-handler")
    assert source.as_group("g").describe() == "kafka topic t as share group g"

"""The table of what brokers guarantee: whole, the same in docs/brokers.md, and true where the code can say so."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from pythia_fast.brokers import guarantees
from pythia_fast.brokers.guarantees import TABLE, Guarantees
from pythia_fast.brokers.kafka import CONSUMER_DEFAULTS
from pythia_fast.brokers.rabbitmq_reader import MOST_PREFETCH
from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer
from pythia_fast.brokers.redis import RedisStreamsConsumer

MODULES = ("kafka", "kafka_share", "rabbitmq", "rabbitmq_stream", "redis", "file", "memory")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_documentation_has_the_same_table() -> None:
    page = (DOCS / "brokers.md").read_text()
    assert guarantees.as_markdown() in page, (
        "docs/brokers.md is behind: put what `python -m pythia_fast doctor --markdown` prints in place of its table"
    )


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.broker)
def test_every_cell_says_something(row: Guarantees) -> None:
    for subject, cell in row.cells().items():
        assert cell, subject
        assert "|" not in cell, "it would end the cell of the Markdown table"
    for name in (row.source, row.sink):
        assert any(hasattr(importlib.import_module(f"pythia_fast.brokers.{module}"), name) for module in MODULES), name


def test_figures_are_those_of_the_code() -> None:
    told = {row.broker: " ".join(row.cells().values()) for row in TABLE}
    stream = RabbitMQStreamConsumer("orders")
    assert f"`read_ahead_bytes` ({stream.read_ahead_bytes >> 20} MiB)" in told["RabbitMQ stream"]
    assert f"`max_chunk_bytes` ({stream.max_chunk_bytes >> 20} MiB)" in told["RabbitMQ stream"]
    source = RedisStreamsConsumer("orders")
    assert f"`read_count` ({source.read_count:,})" in told["Redis Streams"]
    assert f"`read_ahead_bytes` ({source.read_ahead_bytes >> 20} MiB)" in told["Redis Streams"]
    assert f"`max_entry_bytes` ({source.max_entry_bytes >> 20} MiB)" in told["Redis Streams"]
    assert f"`min_idle` ({source.min_idle:g} s)" in told["Redis Streams"]
    assert f"{MOST_PREFETCH:,}" in told["RabbitMQ queue"]
    kilobytes = int(CONSUMER_DEFAULTS["queued.max.messages.kbytes"])
    assert f"{kilobytes >> 10} MiB in librdkafka" in told["Kafka"]


def test_the_forms_have_every_broker() -> None:
    text, markdown = guarantees.as_text(100), guarantees.as_markdown()
    assert max(map(len, text.splitlines())) <= 100
    for row in TABLE:
        assert f"\n\n{row.broker}\n" in f"\n\n{text}"
        assert f"| {row.broker} |" in markdown
    assert len({line.count("|") for line in markdown.splitlines()}) == 1, "a line has more cells than others"
    assert [row["broker"] for row in guarantees.as_data()] == [row.broker for row in TABLE]

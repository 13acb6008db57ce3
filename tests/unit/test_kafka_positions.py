"""pythia_fast.brokers.kafka_positions, pythia_fast.cli.seek: what is aimed at, and where that is."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from pythia_fast import KafkaConsumer
from pythia_fast.brokers.kafka_cluster import PartitionLag
from pythia_fast.brokers.kafka_positions import Aim, Move, offset_for
from pythia_fast.cli.seek import aim_of, lines, partitions_of
from pythia_fast.errors import ConfigError

LAG = PartitionLag(start=100, end=200, committed=150)
NEW = PartitionLag(start=100, end=200, committed=None)


@pytest.mark.parametrize(
    ("lag", "aim", "at_time", "offset"),
    [
        (LAG, Aim("earliest"), -1, 100),
        (LAG, Aim("latest"), -1, 200),
        (LAG, Aim("time", 5), 120, 120),
        (LAG, Aim("time", 5), -1, 200),
        (LAG, Aim("offset", 177), -1, 177),
        (LAG, Aim("offset", 7), -1, 100),
        (LAG, Aim("offset", 777), -1, 200),
        (LAG, Aim("shift", -20), -1, 130),
        (LAG, Aim("shift", 20), -1, 170),
        (LAG, Aim("shift", -2000), -1, 100),
        (NEW, Aim("shift", 20), -1, 120),
    ],
)
def test_an_aim_is_an_offset_within_what_there_is(lag: PartitionLag, aim: Aim, at_time: int, offset: int) -> None:
    assert offset_for(aim, lag, at_time) == offset


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("earliest", Aim("earliest")),
        ("LATEST", Aim("latest")),
        ("0", Aim("offset", 0)),
        ("1205", Aim("offset", 1205)),
        ("+100", Aim("shift", 100)),
        ("-100", Aim("shift", -100)),
        ("1970-01-01T00:00:02.5Z", Aim("time", 2500)),
        ("1969-01-01T00:00Z", Aim("time", 0)),
    ],
)
def test_what_is_typed_is_an_aim(text: str, aim: Aim) -> None:
    assert aim_of(text) == aim


def test_an_age_is_a_time() -> None:
    aim = aim_of("2h")
    assert aim.kind == "time"
    assert abs(aim.value / 1000 + 7200 - datetime.now(UTC).timestamp()) < 60


@pytest.mark.parametrize("text", ["", "soon", "1e3", "9" * 19, "--1", "²"])
def test_what_is_no_aim_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--to {text!r}: write a time") + ".* or earliest, latest"):
        aim_of(text)


def test_partitions_are_named_with_their_topic_where_there_are_several() -> None:
    assert partitions_of(["3", "1", "3"], ("orders",)) == {"orders": [1, 3]}
    assert partitions_of(["a:3", "b:0"], ("a", "^b.*")) == {"a": [3], "b": [0]}
    for text, topics, message in [
        ("x", ("orders",), "write a partition's number"),
        ("-1", ("orders",), "write a partition's number"),
        ("3", ("a", "b"), r"of which topic\? Write TOPIC:3"),
        ("3", ("^a.*",), r"of which topic\?"),
        ("c:3", ("a", "b"), "the handler reads a, b"),
    ]:
        with pytest.raises(ConfigError, match=message):
            partitions_of([text], topics)


def test_lines_say_what_each_move_means() -> None:
    moves = [
        Move("t", 0, 150, 100, 200),
        Move("t", 1, 150, 200, 200),
        Move("t", 2, None, 50, 200),
        Move("t", 3, 7, 7, 7),
    ]
    assert lines("h", "g", moves, dry_run=True) == [
        "h: group g would go on at",
        "  t[0]  150 -> 100  (50 read again)",
        "  t[1]  150 -> 200  (50 left out)",
        "  t[2]  no position -> 50  (150 ahead)",
        "  t[3]  7 -> 7  (as it was)",
        "  50 messages are read again, 50 are left out, 250 are ahead",
    ]
    assert lines("h", "g", moves, dry_run=False)[0] == "h: group g goes on at"


def test_start_at_is_a_moment_or_refused() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert KafkaConsumer("t").start_at(now) is None
    assert KafkaConsumer("t", start_at=now).start_at(now) == now
    assert KafkaConsumer("t", start_at="2h").start_at(now) == datetime(2026, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(ConfigError, match=r"KafkaConsumer: start_at 'soon': write a time"):
        KafkaConsumer("t", start_at="soon")
    with pytest.raises(ConfigError, match=r"KafkaConsumer: start_at=7"):
        KafkaConsumer("t", start_at=7)  # type: ignore[arg-type]

"""pythia_fast.cli.pace: when each message of a replay is due."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers.memory import MemoryConsumer
from pythia_fast.cli.pace import (
    Feeder,
    FeederStart,
    Pace,
    Replayed,
    find_time_field,
    lines_of,
    parse_speed,
    schedule,
    seconds_of,
)
from pythia_fast.errors import ConfigError
from pythia_fast.observer import RunInfo


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("max", Pace()),
        ("2x", Pace(factor=2.0)),
        ("0.5x", Pace(factor=0.5)),
        ("500/s", Pace(rows_per_second=500.0)),
        ("1e6/s", Pace(rows_per_second=1e6)),
    ],
)
def test_speeds(text: str, pace: Pace) -> None:
    assert parse_speed(text) == pace
    assert parse_speed(text).unbounded == (text == "max")


@pytest.mark.parametrize("text", ["", "2", "x", "0x", "-1x", "infx", "nanx", "fast", "0/s", "/s", "2 y"])
def test_other_speeds_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write max, 2x"):
        parse_speed(text)


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_the_unit_of_a_number_is_told_by_its_size(scale: float) -> None:
    assert seconds_of(1_767_225_600 * scale) == pytest.approx(1_767_225_600)


def test_texts_are_times() -> None:
    assert seconds_of("2026-01-01T00:00:00Z") == 1_767_225_600
    assert seconds_of("2026-01-01T01:00:00+01:00") == 1_767_225_600
    assert seconds_of("2026-01-01 00:00:00") == 1_767_225_600


@pytest.mark.parametrize("value", [None, True, -5, "yesterday", [1], {}, float("nan"), 1e30])
def test_others_are_no_times(value: object) -> None:
    assert seconds_of(value) is None


def test_the_time_field_is_found_or_taken() -> None:
    assert find_time_field(b'{"time":5,"ts":1}', None) == "ts"
    assert find_time_field(b'{"when":5,"ts":1}', "when") == "when"


@pytest.mark.parametrize(
    ("payload", "given", "message"),
    [
        (b'{"a":1}', None, "no field ts, timestamp, time, event_time, created_at; it has a"),
        (b'{"a":1}', "when", "no field 'when'; it has a"),
        (b'{"ts":"soon"}', None, "'ts' of the first message holds no time: 'soon'"),
        (b'{"ts":', None, "not JSON"),
        (b'{"ts":1,"s":"caf\xe9"}', None, "not JSON"),
        (b"[" * 5000, None, "not JSON"),
        (b"[1]", None, "it has none"),
    ],
)
def test_a_message_without_a_time_is_refused(payload: bytes, given: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_time_field(payload, given)


def test_own_times_are_scaled() -> None:
    payloads = [b'{"ts":%d}' % (1_767_225_600_000 + ms) for ms in (0, 500, 1500)]
    assert list(schedule(payloads, Pace(factor=2.0), "ts")) == [
        (0.0, payloads[0]),
        (pytest.approx(0.25), payloads[1]),
        (pytest.approx(0.75), payloads[2]),
    ]


def test_a_message_without_a_readable_time_follows_its_predecessor() -> None:
    payloads = [b'{"ts":1767225600}', b"broken", b'{"ts":1767225604}', b'{"ts":null}', b'{"ts":1767225601}', b"[]"]
    payloads += [b'{"s":"caf\xe9","ts":1767225609}', b'{"ts":' + b"[" * 5000, b'{"ts":"0001-01-01T00:00:00+14:00"}']
    payloads += [b'{"ts":1767225605}']
    assert [due for due, _ in schedule(payloads, Pace(factor=1.0), "ts")] == [0, 0, 4, 4, 4, 4, 4, 4, 4, 5]


@given(
    times=st.lists(st.integers(1_600_000_000_000, 1_800_000_000_000), min_size=1, max_size=50),
    factor=st.floats(0.01, 1000),
)
def test_nothing_is_due_before_its_predecessor(times: list[int], factor: float) -> None:
    payloads = [b'{"ts":%d}' % ms for ms in times]
    scheduled = list(schedule(payloads, Pace(factor=factor), "ts"))
    assert [payload for _, payload in scheduled] == payloads
    dues = [due for due, _ in scheduled]
    assert dues == sorted(dues)
    assert dues[0] == 0
    highest = max(times) - times[0]
    assert dues[-1] == pytest.approx(highest / 1000 / factor, abs=1e-3 / factor)


def test_rows_a_second() -> None:
    dues = [due for due, _ in schedule([b""] * 4, Pace(rows_per_second=2.0), "")]
    assert dues == [0.0, 0.5, 1.0, 1.5]


def test_lines_lose_their_ends_only(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a\nb\r\n\nlast")
    assert list(lines_of(path)) == [b"a", b"b", b"last"]


def test_lines_appended_while_they_are_read_are_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a\nb\n")
    found = []
    for line in lines_of(path):
        found.append(line)
        with path.open("ab") as file:
            file.write(b"more\n")
    assert found == [b"a", b"b"]


def test_feeder_sends_all_and_ends() -> None:
    consumer = MemoryConsumer(keep_open=True)
    feeder = Feeder(consumer, [(0.0, b"a"), (0.01, b"b"), (0.01, b"c")])
    feeder.start()
    feeder._thread.join(30)
    assert not feeder._thread.is_alive()
    assert feeder.failure is None
    assert consumer.log.live_bytes() > 0
    with pytest.raises(Exception, match=r"after end"):
        consumer.send(b"d")


def test_a_feeder_starts_with_the_run() -> None:
    consumer = MemoryConsumer(keep_open=True)
    feeder = Feeder(consumer, [(0.0, b"a")])
    feeder.stop()
    assert consumer.log.live_bytes() == 0
    feeder = Feeder(consumer, [(0.0, b"a")])
    FeederStart(feeder).started(RunInfo(app="orders"))
    feeder._thread.join(30)
    assert consumer.log.live_bytes() > 0


def test_feeder_stops_while_it_waits() -> None:
    consumer = MemoryConsumer(keep_open=True)
    feeder = Feeder(consumer, [(0.0, b"a"), (3600.0, b"b")])
    feeder.start()
    feeder.stop()
    assert not feeder._thread.is_alive()


def test_feeder_stops_where_there_is_no_room() -> None:
    consumer = MemoryConsumer(keep_open=True, room_bytes=1000)
    feeder = Feeder(consumer, ((0.0, b"x" * 100) for _ in range(1000)))
    feeder.start()
    feeder.stop()
    assert not feeder._thread.is_alive()


def test_feeder_keeps_any_failure() -> None:
    def scheduled() -> Iterator[tuple[float, Replayed]]:
        yield 0.0, b"a"
        raise ZeroDivisionError

    feeder = Feeder(MemoryConsumer(keep_open=True), scheduled())
    feeder.start()
    feeder._thread.join(30)
    assert isinstance(feeder.failure, ZeroDivisionError)


def test_feeder_keeps_the_failure_of_its_file(tmp_path: Path) -> None:
    consumer = MemoryConsumer(keep_open=True)
    feeder = Feeder(consumer, schedule(lines_of(tmp_path / "gone"), Pace(rows_per_second=1.0), ""))
    feeder.start()
    feeder._thread.join(30)
    assert isinstance(feeder.failure, FileNotFoundError)

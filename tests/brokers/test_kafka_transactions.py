"""Exactly once between Kafka topics: what a reader with isolation.level=read_committed finds, whatever happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pythia_fast.pool.parts import DEATHS_IN_ALL
from tests.support.exactly_once import kill_again_and_again, read_committed
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Runtime, Start, committed, ends, produce, runtimes

NewTopic = Callable[..., str]
TRANSACTIONAL = {"transactional": True}


def assert_once(servers: str, topics: tuple[str, str, str], rows: int) -> None:
    """Every row's output is seen once, and all positions are committed."""
    assert sorted(read_committed(servers, topics[1])) == list(range(rows))
    # One more offset is taken by the marker of the transaction where the source has any.
    assert committed(servers, f"group-of-{topics[0]}", topics[0]) == ends(servers, topics[0])


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_every_output_is_committed_once(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, ordering: str
) -> None:
    produce(kafka.bootstrap_servers, topics[0], range(30_000))
    report = start(arguments=["--until-end"], handler={**TRANSACTIONAL, "ordering": ordering}).wait()
    assert (report["rows"], report["unfinished"], report["transactions_aborted"]) == (30_000, 0, 0)
    assert report["transactions"] >= 1
    assert_once(kafka.bootstrap_servers, topics, 30_000)


def test_dead_letters_are_in_the_same_transaction(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, dead = topics
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for i in range(200):
        producer.produce(source, b'{"id":%d}' % i, partition=0)
        producer.produce(source, b"not JSON", partition=0)
    assert producer.flush(30) == 0
    report = start(arguments=["--until-end"], handler=TRANSACTIONAL).wait()
    assert (report["rows"], report["dead_lettered"]) == (400, 200), report
    assert sorted(read_committed(kafka.bootstrap_servers, sink)) == list(range(200))
    # 200 records and the marker of each transaction that had some
    assert 200 < ends(kafka.bootstrap_servers, dead, 1)[0] <= 200 + report["transactions"]


def test_a_stopped_run_commits_what_it_has_read(kafka: KafkaBroker, topics: tuple[str, str, str], start: Start) -> None:
    produce(kafka.bootstrap_servers, topics[0], range(20_000))
    runtime = start(handler=TRANSACTIONAL, seconds=0.01)
    runtime.wait_for("assigned")
    time.sleep(0.5)
    report = runtime.stop()
    assert (report["ending"], report["unfinished"]) == ("drained", 0)
    seen = read_committed(kafka.bootstrap_servers, topics[1])
    assert len(seen) == len(set(seen)) == report["rows"]
    assert sum(committed(kafka.bootstrap_servers, f"group-of-{topics[0]}", topics[0])) == report["rows"]


def test_killed_children_repeat_and_lose_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """Each in the middle of a transaction, with batches whose records do not fit into one output region."""
    produce(kafka.bootstrap_servers, topics[0], range(30_000))
    runtime = start(arguments=["--until-end"], handler=TRANSACTIONAL, seconds=0.02)
    runtime.wait_for("assigned")
    killed = 0
    while runtime.process.poll() is None and killed < 10:
        children = [p for p in runtime.members() if p.pid != runtime.process.pid and p.num_threads() == 1]
        busy = [p for p in children if p.ppid() != runtime.process.pid]
        if busy:
            os.kill(busy[killed % len(busy)].pid, signal.SIGKILL)
            killed += 1
        time.sleep(0.1)
    report = runtime.wait()
    assert killed > 0
    assert report["rows"] == 30_000, (report, runtime.log)
    # Kills that meet one row again and again convict it, as they should: it is a dead letter then, once.
    sent, dead = (read_committed(kafka.bootstrap_servers, topic) for topic in topics[1:])
    assert sorted(sent + dead) == list(range(30_000))
    assert len(dead) == report["dead_lettered"] <= killed // DEATHS_IN_ALL
    assert committed(kafka.bootstrap_servers, f"group-of-{topics[0]}", topics[0]) == ends(
        kafka.bootstrap_servers, topics[0]
    )


def test_members_that_come_and_go_repeat_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    rows = 60_000
    produce(kafka.bootstrap_servers, topics[0], range(rows))
    runtimes: list[Runtime] = []
    for _ in range(3):
        runtimes.append(start(handler=TRANSACTIONAL, seconds=0.02))
        runtimes[-1].wait_for(f"assigned {topics[0]}[")
    reports = [runtimes[0].stop()]
    deadline = time.monotonic() + 60
    while sum(committed(kafka.bootstrap_servers, f"group-of-{topics[0]}", topics[0])) < rows:
        assert time.monotonic() < deadline, [runtime.log for runtime in runtimes]
        time.sleep(0.2)
    reports += [runtime.stop() for runtime in runtimes[1:]]
    assert sum(report["rows"] for report in reports) == rows
    assert_once(kafka.bootstrap_servers, topics, rows)


def test_a_transaction_that_takes_too_long_is_aborted_and_read_again(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """One partition's batches take longer than a transaction may be open, until the runtime is started anew."""
    produce(kafka.bootstrap_servers, topics[0], range(2_000))
    slow = start(
        handler=TRANSACTIONAL, seconds=1.5, slow="0", rows=64, sink_options={"transaction.timeout.ms": 2000}, workers=2
    )
    slow.wait_for("is aborted: it has been open for")
    slow.wait_for("kafka: assigned", times=2)
    slow.kill()
    report = start(arguments=["--until-end"], handler=TRANSACTIONAL).wait()
    assert report["unfinished"] == 0
    assert_once(kafka.bootstrap_servers, topics, 2_000)


@pytest.mark.parametrize(("ordering", "large"), [("partition", "0:0"), ("unordered", "0:0"), ("partition", "1:3000")])
def test_a_row_that_hangs_is_a_dead_letter_though_finding_it_takes_longer_than_a_transaction_may_be_open(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, ordering: str, large: str
) -> None:
    """Four calls that are ended after 1.5 s each, where a transaction may be open for 2.4 s.

    With large results those of the other batches are more than an output region holds, and wait for it meanwhile.
    """
    rows, hangs = 4_000, 1_001
    produce(kafka.bootstrap_servers, topics[0], range(rows))
    handler = {**TRANSACTIONAL, "ordering": ordering, "batch_deadline": 1.5, "max_batch_bytes": 65_536}
    runtime = start(
        arguments=["--until-end"],
        handler=handler,
        hangs=hangs,
        large=large,
        rows=64,
        sink_options={"transaction.timeout.ms": 3000},
    )
    report = runtime.wait(120)
    assert (report["rows"], report["unfinished"], report["dead_lettered"]) == (rows, 0, 1), runtime.log
    assert report["transactions_aborted"] >= 1, runtime.log
    assert_refused_are_dead(kafka.bootstrap_servers, topics, rows, {hangs})


def test_a_row_that_kills_among_results_larger_than_their_region_is_a_dead_letter(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """The rows before it are written when it kills; the next holder of the batch goes on behind them."""
    rows, kills = 4_000, 2_401
    produce(kafka.bootstrap_servers, topics[0], range(rows))
    runtime = start(
        arguments=["--until-end"],
        handler={**TRANSACTIONAL, "max_batch_bytes": 65_536},
        kills=kills,
        large="1:3000",
        rows=1024,
    )
    report = runtime.wait(120)
    assert (report["rows"], report["unfinished"], report["dead_lettered"]) == (rows, 0, 1), runtime.log
    assert_refused_are_dead(kafka.bootstrap_servers, topics, rows, {kills})


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_rows_that_are_tried_again_later_among_results_larger_than_their_region(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, ordering: str
) -> None:
    """They come back to processes of which each has a later transaction's batch in hand, too large for its region.

    In an ordered lane all that follows waits with them, so there are few.
    """
    rows = 4_000
    produce(kafka.bootstrap_servers, topics[0], range(rows))
    runtime = start(
        arguments=["--until-end"],
        handler={**TRANSACTIONAL, "ordering": ordering, "max_batch_bytes": 65_536},
        again=64 if ordering == "unordered" else 1000,
        retry={"max_attempts": 3, "backoff": 0.5},
        large="1:3000",
        rows=64,
        sink_options={"transaction.timeout.ms": 6000},
    )
    report = runtime.wait(120)
    assert (report["rows"], report["unfinished"], report["dead_lettered"]) == (rows, 0, 0), runtime.log
    assert report["transactions_aborted"] == 0, runtime.log
    assert_once(kafka.bootstrap_servers, topics, rows)


def test_a_second_producer_with_the_same_id_ends_the_first(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    servers = kafka.bootstrap_servers
    name = f"id-of-{topics[0]}"
    produce(servers, topics[0], range(20_000))
    runtime = start(handler={**TRANSACTIONAL, "transactional_id": name}, seconds=0.05)
    runtime.wait_for("assigned")
    time.sleep(1)
    thief = Producer({"bootstrap.servers": servers, "transactional.id": name})
    thief.init_transactions(30)
    produce(servers, topics[0], range(20_000, 21_000))  # it may be done with the others, and ask the broker for nothing
    assert runtime.process.wait(60) == 4, runtime.log
    assert f"another producer has taken over transactional id '{name}'" in runtime.log
    assert "a transactional_id of its own" in " ".join(runtime.log.split())
    report = start(arguments=["--until-end"], handler=TRANSACTIONAL).wait()
    assert report["unfinished"] == 0
    assert_once(servers, topics, 21_000)


def assert_refused_are_dead(servers: str, topics: tuple[str, str, str], rows: int, refused: set[int]) -> None:
    """Every row is seen once: its output in the sink, or where the sink refused that, in the dead letters."""
    assert sorted(read_committed(servers, topics[1])) == sorted(set(range(rows)) - refused)
    assert sorted(read_committed(servers, topics[2])) == sorted(refused)
    assert committed(servers, f"group-of-{topics[0]}", topics[0]) == ends(servers, topics[0])


@pytest.mark.parametrize("ordering", ["unordered", "partition"])
def test_records_that_the_broker_refuses_become_dead_letters_in_the_transaction(
    kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path, new_topic: NewTopic, ordering: str
) -> None:
    rows, every = 20_000, 4_999
    topics = topics[0], new_topic(1, **{"max.message.bytes": "200000"}), topics[2]
    produce(kafka.bootstrap_servers, topics[0], range(rows))
    with runtimes(tmp_path, kafka.bootstrap_servers, topics) as start:
        handler = {**TRANSACTIONAL, "ordering": ordering}
        runtime = start(arguments=["--until-end"], handler=handler, large=f"{every}:300000")
        report = runtime.wait(120)
    refused = set(range(0, rows, every))
    assert (report["rows"], report["dead_lettered"], report["unfinished"]) == (rows, len(refused), 0), runtime.log
    assert report["transactions_aborted"] >= 1
    assert f"Kafka topic {topics[1]} or {topics[2]} refused records for good" in " ".join(runtime.log.split())
    assert_refused_are_dead(kafka.bootstrap_servers, topics, rows, refused)


def test_a_topic_that_takes_no_record_at_all_is_no_reason_to_stop(
    kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path, new_topic: NewTopic
) -> None:
    """A compacted topic refuses what has no key, for another reason than its size."""
    topics = topics[0], new_topic(1, **{"cleanup.policy": "compact"}), topics[2]
    produce(kafka.bootstrap_servers, topics[0], range(300))
    with runtimes(tmp_path, kafka.bootstrap_servers, topics) as start:
        report = start(arguments=["--until-end"], handler=TRANSACTIONAL).wait(120)
    assert (report["rows"], report["dead_lettered"], report["unfinished"]) == (300, 300, 0)
    assert_refused_are_dead(kafka.bootstrap_servers, topics, 300, set(range(300)))


def test_batches_that_are_too_large_for_the_topic_are_written_in_smaller_ones(
    kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path, new_topic: NewTopic
) -> None:
    topics = topics[0], new_topic(1, **{"max.message.bytes": "20000"}), topics[2]
    produce(kafka.bootstrap_servers, topics[0], range(2_000))
    with runtimes(tmp_path, kafka.bootstrap_servers, topics) as start:
        report = start(arguments=["--until-end"], handler=TRANSACTIONAL, large="7:3000").wait(120)
    assert (report["rows"], report["dead_lettered"], report["unfinished"]) == (2_000, 0, 0)
    assert_once(kafka.bootstrap_servers, topics, 2_000)


def test_a_dead_letter_that_the_broker_refuses_ends_the_run(
    kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path, new_topic: NewTopic
) -> None:
    """For nothing can be left out of a transaction."""
    small = {"max.message.bytes": "2000"}
    topics = topics[0], new_topic(1, **small), new_topic(1, **small)
    produce(kafka.bootstrap_servers, topics[0], range(1_000))
    with runtimes(tmp_path, kafka.bootstrap_servers, topics) as start:
        runtime = start(handler=TRANSACTIONAL, large="900:4000", rows=64)
        assert runtime.process.wait(60) == 4, runtime.log
    assert f"Kafka topic {topics[2]} refused a dead letter for good" in " ".join(runtime.log.split())
    found = read_committed(kafka.bootstrap_servers, topics[1])
    assert len(found) == len(set(found)) == sum(committed(kafka.bootstrap_servers, f"group-of-{topics[0]}", topics[0]))


@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_a_service_that_is_away_for_longer_than_a_transaction_may_be_open_repeats_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path, ordering: str
) -> None:
    """It answers every second call, so mostly something is written already when the circuit opens."""
    away = tmp_path / "away"
    away.touch()
    produce(kafka.bootstrap_servers, topics[0], range(20_000))
    runtime = start(
        arguments=["--until-end"],
        handler={**TRANSACTIONAL, "ordering": ordering, "transaction_interval_s": 1},
        breaker={"failure_threshold": 1, "recovery_timeout": 2, "probes": 1000},
        sink_options={"transaction.timeout.ms": 2000},
        away=away,
        away_every=2,
        rows=64,
    )
    runtime.wait_for("is aborted: the circuit stays open for", times=2)
    away.unlink()
    report = runtime.wait()
    assert (report["rows"], report["unfinished"], report["dead_lettered"]) == (20_000, 0, 0)
    assert report["pauses"] >= 1
    assert_once(kafka.bootstrap_servers, topics, 20_000)


def test_rows_that_wait_for_a_service_are_in_no_transaction(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.touch()
    produce(kafka.bootstrap_servers, topics[0], range(5_000))
    runtime = start(
        arguments=["--until-end"],
        handler=TRANSACTIONAL,
        breaker={"failure_threshold": 2, "recovery_timeout": 1, "probes": 1000},
        sink_options={"transaction.timeout.ms": 4000},
        away=away,
    )
    runtime.wait_for("reading is paused: the circuit is open: the batch that was tried failed", times=5)
    away.unlink()
    report = runtime.wait()
    assert (report["rows"], report["unfinished"], report["transactions_aborted"]) == (5_000, 0, 0), runtime.log
    assert_once(kafka.bootstrap_servers, topics, 5_000)


def test_a_run_that_is_stopped_while_the_service_is_away_leaves_its_rows_to_the_next_one(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    produce(kafka.bootstrap_servers, topics[0], range(20_000))
    breaker = {"failure_threshold": 2, "recovery_timeout": 30}
    runtime = start(
        arguments=["--drain-timeout", "1"], handler=TRANSACTIONAL, breaker=breaker, away=away, seconds=0.05, rows=64
    )
    runtime.wait_for("assigned")
    time.sleep(1)
    away.touch()
    runtime.wait_for("the circuit is open")
    runtime.process.send_signal(signal.SIGTERM)
    # 0: the transaction was aborted, so nothing was in hand.
    assert runtime.process.wait(60) in (0, 5), runtime.log
    away.unlink()
    assert start(arguments=["--until-end"], handler=TRANSACTIONAL).wait()["unfinished"] == 0
    assert_once(kafka.bootstrap_servers, topics, 20_000)


def test_a_successor_need_not_wait_for_the_timeout_of_a_killed_run(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    options = {"group.instance.id": "one"}
    sink_options = {"transaction.timeout.ms": 60_000}
    produce(kafka.bootstrap_servers, topics[0], range(10_000))
    runtime = start(handler=TRANSACTIONAL, options=options, sink_options=sink_options, seconds=0.05)
    runtime.wait_for("assigned")
    time.sleep(1)
    runtime.kill()
    began = time.monotonic()
    report = start(arguments=["--until-end"], handler=TRANSACTIONAL, options=options, sink_options=sink_options).wait()
    assert time.monotonic() - began < 30
    assert report["unfinished"] == 0
    assert_once(kafka.bootstrap_servers, topics, 10_000)


def test_the_runtime_killed_again_and_again(kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path) -> None:
    """The short form of ``make exactly-once``."""
    seen = kill_again_and_again(
        tmp_path,
        kafka.bootstrap_servers,
        topics,
        200_000,
        lives_s=(0.3, 1.5),
        seed=1,
        tell=print,
        seconds=0.004,
    )
    assert seen.kills >= 3
    assert (seen.rows, seen.missing, seen.repeated) == (200_000, 0, 0)

"""The runtime between two Kafka topics, run as a user runs it: shared, cut off, killed, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.kafka_run import PARTITIONS, Sink, Start, committed, ends, produce

NewTopic = Callable[..., str]


def test_until_end_handles_every_row_once_and_commits(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    produce(servers, source, range(20_000))
    report = start(arguments=["--until-end"]).wait()
    assert (report["rows"], report["dead_lettered"], report["ending"]) == (20_000, 0, "done")
    with Sink(servers, sink) as written:
        ids = written.read_ids(20_000)
    assert sorted(ids) == list(range(20_000))
    for partition in range(PARTITIONS):  # ordering="partition"
        of_one = [i for i in ids if i % PARTITIONS == partition]
        assert of_one == sorted(of_one)
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)
    report = start(arguments=["--until-end"]).wait()
    assert report["rows"] == 0


def test_a_successor_of_a_killed_runtime_says_what_it_waits_for(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    produce(kafka.bootstrap_servers, topics[0], range(100))
    options = {"session.timeout.ms": 12_000}
    first = start(options=options)
    first.wait_for(f"assigned {topics[0]}[")
    first.kill()
    second = start(options=options)
    second.wait_for(f"kafka: this member of group group-of-{topics[0]} has had no partition for ")
    second.wait_for(f"assigned {topics[0]}[")
    (line,) = (line for line in second.log.splitlines() if "has had no partition" in line)
    assert "the group is in a rebalance, which waits for every member (echo-echo-" in line
    assert "until its session ends, at most 12 s after its last sign of life" in line
    assert "group_instance_id=" in line
    assert second.stop()["ending"] == "drained"


def test_a_static_member_whose_name_another_one_takes_ends(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    options = {"group.instance.id": "me"}
    first = start(options=options)
    first.wait_for(f"assigned {topics[0]}[")
    second = start(options=options)
    assert first.process.wait(60) == 4
    first.assert_gone()
    assert "fenced" in first.log
    assert "needs a group_instance_id of its own" in first.log
    produce(kafka.bootstrap_servers, topics[0], range(100))
    second.wait_for(f"assigned {topics[0]}[")
    with Sink(kafka.bootstrap_servers, topics[1]) as sink:
        assert sorted(sink.read_ids(100, [second])) == list(range(100))
    second.stop()


def test_a_static_member_that_is_replaced_does_not_handle_on_what_the_other_one_handles(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """librdkafka tells a member that it is fenced behind all messages that it has fetched, which take minutes here."""
    servers = kafka.bootstrap_servers
    produce(servers, topics[0], range(4000))
    slow = {"options": {"group.instance.id": "me"}, "seconds": 1, "rows": 10, "workers": 1}
    with Sink(servers, topics[1]) as sink:
        first = start(**slow)
        sink.read_ids(10, [first])
        second = start(**slow)
        second.wait_for(f"assigned {topics[0]}[")
        assert first.process.wait(15) == ExitCode.UNREACHABLE, first.log
    first.assert_gone()
    assert "needs a group_instance_id of its own" in first.log
    assert "trying again" not in first.log
    assert "a later one will do" not in first.log


def test_a_member_too_many_says_who_has_the_partitions(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source = "few-of-" + topics[0]
    kafka.create_topic(source, 1)
    group = {"source": [source], "group": f"group-of-{source}"}
    first = start(**group)
    first.wait_for(f"assigned {source}[0]")
    second = start(**group)
    second.wait_for("others hold them (echo-echo-")
    assert ": 1), and those of one that was killed" in second.log
    second.wait_for("there are more members than partitions")
    second.stop()
    first.stop()


def test_bad_messages_go_to_the_dead_letters_with_key_and_headers(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, dead = topics
    servers = kafka.bootstrap_servers
    bad = [b"", None, b'{"id":', b'{"id":"x"}', b'{"id":1e99}', b"\xff\xff", b'{"other":1}']
    producer = Producer({"bootstrap.servers": servers})
    for i in range(100):
        producer.produce(source, b'{"id":%d}' % i, partition=0)
        if i < len(bad):
            producer.produce(source, bad[i], key=b"key-%d" % i, headers=[("trace", b"%d" % i)], partition=0)
    assert producer.flush(30) == 0
    report = start(arguments=["--until-end"]).wait()
    assert (report["rows"], report["dead_lettered"]) == (100 + len(bad), len(bad))
    with Sink(servers, sink) as written, Sink(servers, dead) as buried:
        assert written.read_ids(100) == list(range(100))
        buried.read(lambda: len(buried.messages) >= len(bad))
        assert sorted(message.key() for message in buried.messages) == [b"key-%d" % i for i in range(len(bad))]
        for message in buried.messages:
            assert ("trace", (message.key() or b"").removeprefix(b"key-")) in (message.headers() or [])
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


def test_two_runtimes_share_the_partitions(kafka: KafkaBroker, topics: tuple[str, str, str], start: Start) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    first = start()
    first.wait_for(f"assigned {source}[0, 1, 2, 3]")
    second = start()
    second.wait_for(f"assigned {source}[")
    produce(servers, source, range(40_000))
    with Sink(servers, sink) as written:
        ids = written.read_ids(40_000, [first, second])
        by_runtime = {row.runtime for row in written.rows()}
    assert sorted(ids) == list(range(40_000))
    assert by_runtime == {first.session_id, second.session_id}
    reports = [first.stop(), second.stop()]
    assert sum(report["rows"] for report in reports) == 40_000
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range", "roundrobin"])
def test_members_come_and_go_under_load(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, strategy: str
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    total = 60_000
    stop = threading.Event()
    sent = 0

    def load() -> None:
        nonlocal sent
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 2})
        while not stop.is_set() or sent < total:
            for i in range(sent, sent + 200):
                producer.produce(source, b'{"id":%d}' % i, partition=i % PARTITIONS)
            sent += 200
            producer.flush(30)

    options = {"partition.assignment.strategy": strategy}
    loader = threading.Thread(target=load)
    try:
        first = start(options=options)
        first.wait_for("assigned")
        loader.start()
        second = start(options=options)
        second.wait_for(f"assigned {source}[")
        third = start(options=options)
        third.wait_for(f"assigned {source}[")
        first.stop()
        third.stop()
        fourth = start(options=options)
        fourth.wait_for(f"assigned {source}[")
    finally:
        stop.set()
        loader.join()
    with Sink(servers, sink) as written:
        ids = written.read_ids(sent, [second, fourth])
    assert set(ids) == set(range(sent))
    second.stop()
    fourth.stop()
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_a_paused_source_goes_on_after_a_rebalance(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, strategy: str
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    total = 240
    produce(servers, source, range(total))
    # A batch takes three times as long as the intake has patience, so the source is paused two thirds of the time.
    slow = {"seconds": 3, "rows": 20, "workers": 1, "options": {"partition.assignment.strategy": strategy}}
    first = start(**slow)
    first.wait_for("assigned")
    with Sink(servers, sink) as written:
        written.read(lambda: len(written.messages) >= 20, [first])
        second = start(**slow)
        second.wait_for(f"assigned {source}[")
        second.stop()
        assert set(written.read_ids(total, [first])) == set(range(total))
    first.stop()
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


#: A member that is not heard of for three seconds, or does not poll for so long, is no member any more.
IMPATIENT = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 3000}
#: What one process can have in hand (three batches of 512 rows), and the open batch: read at once, handled long after.
IN_HAND = 4 * 512


def test_a_drain_longer_than_max_poll_interval_keeps_membership_and_commits(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, _, _ = topics
    servers = kafka.bootstrap_servers
    produce(servers, source, range(IN_HAND))
    runtime = start(seconds=2.5, workers=1, options=IMPATIENT, arguments=["--until-end"])
    report = runtime.wait(90)
    assert report["rows"] == IN_HAND
    assert "max.poll.interval.ms" not in runtime.log
    assert "lost" not in runtime.log
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


def test_a_source_that_is_paused_on_purpose_keeps_membership_and_commits(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    """Every message is bad: reading is paused, for longer than max.poll.interval.ms, and most of the topic stays."""
    source, _, _ = topics
    servers, total = kafka.bootstrap_servers, 40_000
    producer = Producer({"bootstrap.servers": servers, "queue.buffering.max.messages": total})
    for i in range(total):
        producer.produce(source, b"{", partition=i % PARTITIONS)
    assert producer.flush(30) == 0
    runtime = start(options=IMPATIENT)
    runtime.wait_for("a batch of at most 64 rows is tried in 16 s")  # after pauses of 1, 2, 4 and 8 s, not all told
    report = runtime.stop()
    assert (report["ending"], report["handlers"][0]["flow"]) == ("drained", "paused")
    assert "max.poll.interval.ms" not in runtime.log
    assert "revoked" not in runtime.log
    assert "lost" not in runtime.log
    assert report["rows"] == report["dead_lettered"] < total / 2
    assert sum(committed(servers, f"group-of-{source}", source)) == report["rows"]


NO_MEMORY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
void *realloc(void *old, size_t size)
{
    static void *(*real)(void *, size_t);
    if (real == NULL)
        real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    return size == REFUSED ? NULL : real(old, size);
}
"""


def test_headers_that_find_no_memory_end_the_run_and_lose_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    encoded = 2 + 1 + 4 + 100_003  # sizes, name and value, as arena_layout.h says
    producer = Producer({"bootstrap.servers": servers})
    for i in range(20):
        producer.produce(source, b'{"id":%d}' % i, headers=[("h", bytes(100_003))] if i == 10 else None, partition=0)
    assert producer.flush(30) == 0
    library = tmp_path / "no_memory.so"
    compiler = [os.environ.get("CC", "gcc"), "-shared", "-fPIC", f"-DREFUSED={2 * encoded}", "-x", "c", "-"]
    subprocess.run([*compiler, "-o", str(library), "-ldl"], input=NO_MEMORY, text=True, check=True)
    with monkeypatch.context() as patched:
        patched.setenv("LD_PRELOAD", str(library))
        runtime = start(arguments=["--until-end"])
        assert runtime.process.wait(60) == 4, runtime.log
    assert f"no memory for the {encoded:,} bytes of a message's headers" in runtime.log
    runtime.assert_gone()
    report = start(arguments=["--until-end"]).wait()
    assert report["rows"] >= 10
    with Sink(servers, sink) as written:
        assert set(written.read_ids(20)) == set(range(20))
    assert committed(servers, f"group-of-{source}", source)[0] == 20


@pytest.mark.timeout(400)  # three starts of a JVM, on a machine that may be busy
def test_a_broker_restart_is_survived(
    own_kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    servers = own_kafka.bootstrap_servers
    for topic, partitions in zip(topics, (PARTITIONS, 1, 1), strict=True):
        own_kafka.create_topic(topic, partitions)
    source, sink, _ = topics
    runtime = start(servers=servers)
    produce(servers, source, range(5000))
    with Sink(servers, sink) as written:
        written.read_ids(5000, [runtime])
    own_kafka.kill()
    runtime.wait_for("no broker answers")
    own_kafka.start()
    produce(servers, source, range(5000, 10_000))
    with Sink(servers, sink) as written:
        assert set(written.read_ids(10_000, [runtime])) == set(range(10_000))
    runtime.stop()
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


@pytest.mark.timeout(400)
def test_a_sink_that_is_away_holds_the_positions_back(
    kafka: KafkaBroker, own_kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, dead = topics
    for topic in (sink, dead):
        own_kafka.create_topic(topic)
    runtime = start(sink_servers=own_kafka.bootstrap_servers)
    produce(kafka.bootstrap_servers, source, range(1000))
    with Sink(own_kafka.bootstrap_servers, sink) as written:
        written.read_ids(1000, [runtime])
    group = f"group-of-{source}"
    while committed(kafka.bootstrap_servers, group, source) != [250] * PARTITIONS:
        assert runtime.process.poll() is None, runtime.log
    own_kafka.stop()
    produce(kafka.bootstrap_servers, source, range(1000, 2000))
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert committed(kafka.bootstrap_servers, group, source) == [250] * PARTITIONS
    own_kafka.start()
    with Sink(own_kafka.bootstrap_servers, sink) as written:
        assert set(written.read_ids(2000, [runtime])) == set(range(2000))
    runtime.stop()
    assert committed(kafka.bootstrap_servers, group, source) == [500] * PARTITIONS


def test_kill_9_of_the_whole_runtime_loses_nothing(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start
) -> None:
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    produce(servers, source, range(30_000))
    with Sink(servers, sink) as written:
        for wanted in (3000, 9000):
            runtime = start(seconds=0.02)
            written.read_ids(wanted, [runtime])
            runtime.kill()
    report = start(arguments=["--until-end"]).wait()
    assert report["rows"] > 0
    with Sink(servers, sink) as written:
        assert set(written.read_ids(30_000)) == set(range(30_000))
    assert committed(servers, f"group-of-{source}", source) == ends(servers, source)


def test_three_topics_at_once(
    kafka: KafkaBroker, topics: tuple[str, str, str], new_topic: NewTopic, start: Start
) -> None:
    sources = [topics[0], new_topic(2), new_topic(1)]
    servers = kafka.bootstrap_servers
    for i, (source, partitions) in enumerate(zip(sources, (PARTITIONS, 2, 1), strict=True)):
        produce(servers, source, range(i * 5000, (i + 1) * 5000), partitions)
    report = start(source=sources, workers=3, arguments=["--until-end"]).wait()
    assert {handler["name"]: handler["rows"] for handler in report["handlers"]} == {
        f"echo-{source}": 5000 for source in sources
    }
    with Sink(servers, topics[1]) as written:
        assert sorted(written.read_ids(15_000)) == list(range(15_000))


def test_a_topic_that_does_not_exist_ends_the_run_with_a_sentence(start: Start) -> None:
    runtime = start(source=["no-such-topic"], arguments=["--connect-timeout", "2"])
    assert runtime.process.wait(60) == 4
    assert "topic no-such-topic does not exist" in runtime.log
    runtime.assert_gone()


def test_no_broker_ends_the_run_with_a_sentence(start: Start) -> None:
    (port,) = free_ports(1)
    runtime = start(servers=f"127.0.0.1:{port}", arguments=["--connect-timeout", "2"])
    assert runtime.process.wait(60) == 4
    assert f"no Kafka broker answered at 127.0.0.1:{port} within 2 s" in runtime.log
    runtime.assert_gone()

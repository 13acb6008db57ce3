"""What a run tells of a Kafka broker that stops answering, and of a partition that is held back; nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pythia_fast import App, KafkaConsumer, MemoryProducer
from pythia_fast.brokers import kafka_quiet
from pythia_fast.runtime import engine, standing
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import PARTITIONS, produce
from tests.support.memory_run import Events
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STALL_INTERVAL_S", 0.1)
    monkeypatch.setattr(standing, "STALL_S", 1.0)
    monkeypatch.setattr(standing, "LATE_S", 2.0)
    monkeypatch.setattr(kafka_quiet, "TOLD_AFTER_S", 0.5)
    monkeypatch.setattr(kafka_quiet, "ASK_AFTER_S", 1.0)
    monkeypatch.setattr(kafka_quiet, "ASK_EVERY_S", 1.0)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_beside(app: App, events: Events, state_dir: Path, script: Callable[[], None], **options: object) -> None:
    """Run the app until ``script``, in a thread, is through; it fails if the script does."""
    failed: list[BaseException] = []

    def act() -> None:
        try:
            wait_for(lambda: any("assigned" in line for line in events.lines))
            script()
        except BaseException as error:
            failed.append(error)
        stop()

    thread = threading.Thread(target=act)
    thread.start()
    app.run(until="forever", state_dir=state_dir, observer=events, **options)
    thread.join()
    assert not failed, (failed, events.lines)


def stalls(events: Events) -> list[str]:
    return [line for line in events.lines if "nothing was completed" in line and "after" not in line]


@pytest.mark.parametrize("session_s", [45, 3], ids=["stays a member", "is lost"])
def test_a_broker_that_freezes_is_told_and_that_it_is_back(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], tmp_path: Path, session_s: int
) -> None:
    source, _, _ = topics
    servers = kafka.bootstrap_servers
    sink, events, app = MemoryProducer(), Events(), App("stalls")
    session = {"session.timeout.ms": 1000 * session_s, "heartbeat.interval.ms": 1000}
    consumer = KafkaConsumer(source, bootstrap_servers=proxy.address, options=session)

    @app.batch_handler(source=consumer, sink=sink, decoder="raw", name="echo")
    def echo(batch):
        return batch["payload"].tolist()

    def script() -> None:
        produce(servers, source, range(100))
        wait_for(lambda: len(sink.records) == 100)
        time.sleep(2)
        assert not stalls(events)  # an idle topic is no stall
        proxy.freeze()
        produce(servers, source, range(100, 200))
        wait_for(lambda: any("the broker was asked and has not answered for" in line for line in stalls(events)))
        if session_s == 3:
            wait_for(lambda: any("lost" in line for line in events.lines))
            lines = len(stalls(events))
            wait_for(lambda: len(stalls(events)) > lines)
            assert f"nothing has come from {source}; the broker was asked" in stalls(events)[-1]
        proxy.resume()
        wait_for(lambda: len(set(sink.payloads)) == 200)
        wait_for(lambda: any("it goes on after" in line or "waits any more" in line for line in events.lines))

    run_beside(app, events, tmp_path, script, workers=1)
    assert f"{source}[" in stalls(events)[0] or session_s == 3


def test_a_partition_that_is_held_back_is_named_with_what_its_process_does(
    kafka: KafkaBroker, topics: tuple[str, str, str], tmp_path: Path
) -> None:
    source, _, _ = topics
    servers = kafka.bootstrap_servers
    stuck = tmp_path / "stuck"
    stuck.touch()
    sink, events, app = MemoryProducer(), Events(), App("stalls")

    @app.batch_handler(
        source=KafkaConsumer(source, bootstrap_servers=servers),
        sink=sink,
        decoder="raw",
        name="echo",
        ordering="partition",
        batch_size=20,
    )
    def echo(batch):
        while batch.positions["partition"][0] == 0 and stuck.exists():
            time.sleep(0.01)
        return batch["payload"].tolist()

    def script() -> None:
        produce(servers, source, range(4000))
        wait_for(lambda: len(sink.records) >= 3000)  # those of the other three
        wait_for(lambda: any(f"the source keeps {source}[0] back meanwhile" in line for line in stalls(events)))
        stuck.unlink()
        wait_for(lambda: len(sink.records) == 4000)

    run_beside(app, events, tmp_path / "state", script, workers=PARTITIONS)
    assert f"the oldest row, {source}[0] offset 0, came " in stalls(events)[0]
    assert "is in the handler in process " in stalls(events)[0]
    ages = [snapshot.oldest_incomplete_s["echo"] for snapshot in events.snapshots]
    assert max(ages) >= 0.5  # a sample comes every 0.2 s, and the line after 1.0 s ends the wait
    rows = [int(payload[6:-1]) for payload in sink.payloads]
    assert sorted(rows) == list(range(4000))
    assert [row for row in rows if row % PARTITIONS == 0] == list(range(0, 4000, PARTITIONS))

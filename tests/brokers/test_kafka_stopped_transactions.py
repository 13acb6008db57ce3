"""What a transactional run that is stopped says of rows whose transaction came to nothing."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.exactly_once import read_committed
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Runtime, Start, committed, produce
from tests.support.tcp_proxy import TcpProxy

TRANSACTIONAL = {"transactional": True}
#: A member that is not heard of for three seconds is no member any more.
IMPATIENT = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300}


def wait_for_calls(runtime: Runtime, calls: Path, count: int) -> None:
    """Until the handler was called so many times."""
    deadline = time.monotonic() + 60
    while not calls.exists() or len(calls.read_text().splitlines()) < count:
        assert runtime.process.poll() is None, runtime.log
        assert time.monotonic() < deadline, runtime.log
        time.sleep(0.005)


def ended(runtime: Runtime, code: ExitCode) -> dict[str, Any]:
    assert runtime.process.wait(60) == code, runtime.log
    runtime.assert_gone()
    return dict(json.loads(runtime.report_path.read_text()))


@pytest.mark.parametrize("how", ["cut off", "frozen"])
def test_rows_of_partitions_that_are_lost_are_not_left_to_the_next_run(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start, tmp_path: Path, how: str
) -> None:
    """Another member has handled them by then: who is cut off gives them up, who was frozen cannot commit."""
    rows, servers, calls = 40, kafka.bootstrap_servers, tmp_path / "calls"
    produce(servers, topics[0], range(rows))
    first = start(
        servers=proxy.address, handler=TRANSACTIONAL, options=IMPATIENT, seconds=2, rows=20, workers=1, calls=calls
    )
    wait_for_calls(first, calls, 1)
    first.process.send_signal(signal.SIGTERM)
    first.wait_for("draining")
    proxy.freeze() if how == "cut off" else first.process.send_signal(signal.SIGSTOP)
    second = start(arguments=["--until-end"], handler=TRANSACTIONAL, options=IMPATIENT).wait()
    proxy.resume() if how == "cut off" else first.process.send_signal(signal.SIGCONT)
    report = ended(first, ExitCode.DONE)
    assert (report["ending"], report["rows"], report["unfinished"]) == ("drained", 0, 0), first.log
    assert (second["rows"], second["unfinished"]) == (rows, 0)
    assert sorted(read_committed(servers, topics[1])) == list(range(rows))


def test_rows_whose_transaction_became_too_old_are_left_to_the_next_run(
    kafka: KafkaBroker, topics: tuple[str, str, str], start: Start, tmp_path: Path
) -> None:
    """What is read within a second takes longer than that may be open."""
    rows, servers, calls = 400, kafka.bootstrap_servers, tmp_path / "calls"
    produce(servers, topics[0], range(rows))
    first = start(
        handler={**TRANSACTIONAL, "transaction_interval_s": 1},
        seconds=0.8,
        rows=16,
        workers=1,
        sink_options={"transaction.timeout.ms": 2000},
        calls=calls,
    )
    wait_for_calls(first, calls, 1)
    first.process.send_signal(signal.SIGTERM)
    report = ended(first, ExitCode.DEADLINE)
    assert report["ending"] == "deadline", first.log
    assert report["unfinished"] > 0
    assert report["rows"] == sum(committed(servers, f"group-of-{topics[0]}", topics[0])) == 0
    assert start(arguments=["--until-end"], handler=TRANSACTIONAL).wait()["rows"] == rows
    assert sorted(read_committed(servers, topics[1])) == list(range(rows))

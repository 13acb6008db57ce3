"""Runs that end while their broker is silent, with a commit under way that it does not answer."""

from __future__ import annotations

import signal
import time

import pytest

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import Runtime, Sink, Start, produce
from tests.support.tcp_proxy import TcpProxy

DRAIN_S = 1
CLOSING_S = 10  #: as docs/cli.md says
BUSY_S = 10  #: what a busy machine may add
AT_ONCE_S = 4  #: less than closing takes that nobody cuts short


def freeze_what_it_reads(kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start) -> Runtime:
    """A run that has rows in hand whose positions it cannot commit; its sink goes on."""
    source, sink, _ = topics
    servers = kafka.bootstrap_servers
    runtime = start(servers=proxy.address, sink_servers=servers, arguments=["--drain-timeout", str(DRAIN_S)])
    runtime.wait_for("assigned")
    with Sink(servers, sink) as written:
        produce(servers, source, range(100))
        written.read_ids(100, [runtime])
        produce(servers, source, range(100, 200))
        written.read(lambda: len(written.messages) > 100, [runtime])
        proxy.freeze()
    runtime.process.send_signal(signal.SIGTERM)
    return runtime


@pytest.mark.parametrize("signals", [1, 2])
def test_it_ends_in_time_and_at_once_at_the_second_signal(
    kafka: KafkaBroker, proxy: TcpProxy, topics: tuple[str, str, str], start: Start, signals: int
) -> None:
    """librdkafka waits for the answer to the commit for as long as the session, 45 s."""
    runtime = freeze_what_it_reads(kafka, proxy, topics, start)
    began = time.monotonic()
    if signals == 1:
        assert runtime.process.wait(60) == ExitCode.DEADLINE, runtime.log
        assert time.monotonic() - began < DRAIN_S + CLOSING_S + BUSY_S, runtime.log
    else:
        time.sleep(DRAIN_S + 1)  # it is closing by now
        assert runtime.process.poll() is None, runtime.log
        runtime.process.send_signal(signal.SIGTERM)
        again = time.monotonic()
        assert runtime.process.wait(60) == ExitCode.KILLED, runtime.log
        assert time.monotonic() - again < AT_ONCE_S, runtime.log
    runtime.assert_gone()
    assert '"ending": "' in runtime.report_path.read_text()
    assert "Traceback" not in runtime.log

"""Runs that are started with signals blocked, as a supervisor or a wrapper may leave them."""

from __future__ import annotations

import os
import signal

from tests.support import memory_run


def dies_at_77(batch):
    payloads = batch["payload"].tolist()
    if b"77" in payloads:
        os._exit(1)
    return payloads


def test_deaths_are_seen(tmp_path):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1})
    try:
        report, sink, dead, _ = memory_run.run(tmp_path, dies_at_77, memory_run.numbers(1000), batch_size=100)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert report.ending == "done"
    assert memory_run.sorted_ints(sink) == [number for number in range(1000) if number != 77]
    assert dead.payloads == [b"77"]

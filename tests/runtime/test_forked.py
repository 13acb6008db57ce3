"""pool/forked.py in whole runs: handlers that fork, start processes, or are sent the signals of their group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.memory_run import Events, echo, numbers, run, sorted_ints


class Untold(Exception):
    @property
    def __notes__(self):
        raise SystemExit(7)


def fork_and_return():
    """A child that goes on where the pool process is; the pool process waits until it is gone."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    return None


def leave(way):
    if way == "raise":
        raise ValueError("in the child")
    if way == "raise what cannot be told":
        raise Untold
    if way == "exit":
        sys.exit(5)
    if way == "exit with a sentence":
        sys.exit("the child is done")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on forks beside threads
@pytest.mark.parametrize(
    ("way", "status"),
    [("return", 0), ("raise", 1), ("raise what cannot be told", 1), ("exit", 5), ("exit with a sentence", 1)],
    ids=lambda value: value,
)
def test_a_child_that_comes_out_of_the_handler_leaves(tmp_path, way, status):
    statuses = tmp_path / "statuses"

    def handler(batch):
        code = fork_and_return()
        if code is None:
            leave(way)
            return [b"from the child"] * len(batch)
        with statuses.open("a") as file:
            file.write(f"{code}\n")
        return echo(batch)

    events = Events()
    report, sink, dead, source = run(tmp_path, handler, numbers(200), batch_size=20, observer=events)
    assert sorted_ints(sink) == list(range(200))
    assert dead.records == []
    assert (report.crashes, report.batches) == (0, len(statuses.read_text().split()))
    assert not any(line.startswith("handler: ") for line in events.lines)
    assert set(statuses.read_text().split()) == {str(status)}
    assert source.committed == {0: 200}


@pytest.mark.parametrize("method", ["setup", "teardown"])
@pytest.mark.parametrize("way", ["return", "raise", "exit"])
def test_a_child_that_comes_out_of_setup_or_teardown_leaves(tmp_path, method, way):
    log = tmp_path / "log"

    class Handler:
        def _fork(self, where):
            if where == method and fork_and_return() is None:
                leave(way)
                return
            with log.open("a") as file:
                file.write(f"{where}\n")

        def setup(self):
            self._fork("setup")

        def __call__(self, batch):
            return echo(batch)

        def teardown(self):
            self._fork("teardown")

    events = Events()
    report, sink, _, _ = run(tmp_path, Handler, numbers(100), batch_size=20, observer=events)
    assert sorted_ints(sink) == list(range(100))
    assert sorted(log.read_text().split()) == ["setup", "setup", "teardown", "teardown"]
    assert report.crashes == 0
    assert not any(line.startswith("handler: ") for line in events.lines)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_pool_in_a_handler(tmp_path, method):
    def handler(batch):
        with multiprocessing.get_context(method).Pool(2) as pool:  # its end is terminate(), that is SIGTERM
            return pool.map(abs, [-int(payload) for payload in batch["payload"].tolist()])

    report, sink, dead, _ = run(tmp_path, handler, numbers(20), batch_size=20, batch_timeout=60, workers=1)
    assert sorted_ints(sink) == list(range(20))
    assert dead.records == []
    assert report.crashes == 0


def test_a_multiprocessing_process_in_a_handler(tmp_path):
    def handler(batch):
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=lambda: theirs.send(batch["payload"].tolist()))  # it reads the shared memory
        process.start()
        rows = ours.recv()
        process.join()
        assert process.exitcode == 0
        return rows

    report, sink, dead, _ = run(tmp_path, handler, numbers(100), batch_size=20)
    assert sorted_ints(sink) == list(range(100))
    assert dead.records == []
    assert report.crashes == 0


def test_a_subprocess_in_a_handler(tmp_path):
    def handler(batch):
        rows = batch["payload"].tolist()
        done = subprocess.run(["cat"], input=b"\n".join(rows), stdout=subprocess.PIPE, check=True)
        sleeper = subprocess.Popen(["sleep", "1000"])
        sleeper.terminate()
        assert sleeper.wait(timeout=20) == -signal.SIGTERM
        return done.stdout.split(b"\n")

    report, sink, dead, _ = run(tmp_path, handler, numbers(100), batch_size=20)
    assert sorted_ints(sink) == list(range(100))
    assert dead.records == []
    assert report.crashes == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pool_process_outlives_a_signal_to_its_group(tmp_path, number):
    def handler(batch):
        os.kill(os.getpid(), number)
        return echo(batch)

    report, sink, dead, _ = run(tmp_path, handler, numbers(100), batch_size=20)
    assert sorted_ints(sink) == list(range(100))
    assert dead.records == []
    assert report.crashes == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on forks beside threads
def test_a_child_of_a_handler_is_ended_by_sigterm_however_early_it_comes(tmp_path):
    def handler(batch):
        ended = []
        for _ in range(200):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(1)
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.0005)
            if found == (0, 0):  # the signal was lost
                os.kill(child, signal.SIGKILL)
                found = os.waitpid(child, 0)
            ended.append(os.waitstatus_to_exitcode(found[1]))
        return [b"%d" % status for status in set(ended)]

    _, sink, dead, _ = run(tmp_path, handler, numbers(1), workers=1, output_rows="any")
    assert sink.payloads == [b"%d" % -signal.SIGTERM]
    assert dead.records == []

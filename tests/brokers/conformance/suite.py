"""The suite. A broker's test class inherits the classes that name what it promises; docs/brokers.md has the same table.

``Handles``         every broker
``KeepsPositions``  what is done stays done when the runtime ends or dies
``SharesWork``      several runtimes read one source together
``Networked``       there is a connection, which can break
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.brokers.conformance.rig import KEYS, LANES, KeptRig, Message, Rig, ServerRig, row, rows
from tests.support.runtime_process import RuntimeProcess

SECONDS = 90.0
FROZEN_S = 8.0  #: longer than Kafka's session in these tests, and than RabbitMQ's heartbeats and Redis' timeout
READ_AHEAD_BYTES = 130 << 20  #: more than any source reads ahead while nobody takes it


def wait_for(condition: Callable[[], bool], what: str, *running: RuntimeProcess) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        logs = [runtime.log for runtime in running]
        assert all(runtime.process.poll() is None for runtime in running), logs
        assert time.monotonic() < deadline, f"not seen after {SECONDS} s: {what}: {logs}"
        time.sleep(0.02)


def wait_for_rows(rig: Rig, count: int, *running: RuntimeProcess) -> None:
    """Until so many results are there, repeated ones too."""
    wait_for(lambda: rig.count() >= count, f"{count} rows", *running)


def memory_of(runtime: RuntimeProcess) -> int:
    """Bytes that its processes hold, what they share counted once."""
    return sum(member.memory_full_info().pss for member in runtime.members())


class Handles:
    """Every row once, in order, or given up with a reason."""

    def test_every_row_is_handled_once_with_its_key_and_headers(self, rig: Rig) -> None:
        rig.produce(rows(range(2000)))
        report = rig.start("--until-end").wait()
        assert (report["rows"], report["dead_lettered"], report["ending"]) == (2000, 0, "done")
        assert Counter(rig.ids()) == Counter(range(2000))
        if rig.has_keys:
            for result in rig.results():
                number = result["id"]
                assert (result["key"], result["trace"]) == (f"key-{number % KEYS}", f"trace-{number}")

    def test_an_empty_source_is_the_end(self, rig: Rig) -> None:
        assert rig.start("--until-end").wait()["rows"] == 0

    @pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
    def test_order_is_kept_as_asked_for(self, rig: Rig, ordering: str) -> None:
        rig.produce(rows(range(3000)))
        rig.start("--until-end", handler={"ordering": ordering}).wait()
        ids = rig.ids()
        assert Counter(ids) == Counter(range(3000))
        lanes = {"unordered": 0, "partition": LANES, "key": KEYS if rig.has_keys else LANES}[ordering]
        for lane in range(lanes):
            of_one = [number for number in ids if number % lanes == lane]
            assert of_one == sorted(of_one)

    def test_only_guilty_rows_are_given_up(self, rig: Rig) -> None:
        messages = rows(range(500))
        messages[100] = row(100, "raise")
        messages[200] = row(200, "kill")
        messages[300] = Message(b'{"id":"not a number"}', "key-4", "trace-300")
        if rig.has_keys:  # a file has no place for an empty line
            messages[301] = Message(b"", "key-5", "trace-301")
        guilty = {number for number, message in enumerate(messages) if message != row(number)}
        rig.produce(messages)
        report = rig.start("--until-end").wait()
        assert report["dead_lettered"] == len(guilty)
        assert Counter(rig.ids()) == Counter(set(range(500)) - guilty)
        letters = rig.dead()
        assert Counter(letter["payload"].encode() for letter in letters) == Counter(
            messages[number].payload for number in guilty
        )
        reasons = {letter["payload"].encode(): letter["reason"] for letter in letters}
        assert "row 100 is wrong" in reasons[messages[100].payload]
        assert "SIGKILL" in reasons[messages[200].payload] or "died" in reasons[messages[200].payload]
        if rig.has_keys:
            keys = {letter["payload"].encode(): letter["key"] for letter in letters}
            assert keys == {messages[number].payload: messages[number].key for number in guilty}

    def test_a_row_that_fails_twice_is_handled_the_third_time(self, rig: Rig) -> None:
        messages = rows(range(300))
        messages[150] = row(150, "flaky")
        rig.produce(messages)
        report = rig.start("--until-end").wait()
        assert report["dead_lettered"] == 0
        assert report["retried"] > 0
        assert Counter(rig.ids()) == Counter(range(300))

    def test_a_payload_that_no_slot_holds_is_given_up_whole(self, rig: Rig) -> None:
        messages = rows(range(200))
        messages[50] = row(50, padding="x" * 300_000)
        rig.produce(messages)
        report = rig.start("--until-end", handler={"max_batch_bytes": 1 << 17}).wait()
        assert report["dead_lettered"] == 1
        assert Counter(rig.ids()) == Counter(set(range(200)) - {50})
        (letter,) = rig.dead()
        assert letter["payload"].encode() == messages[50].payload

    def test_a_batch_that_does_not_fill_is_handled_all_the_same(self, rig: Rig) -> None:
        rig.produce(rows(range(3)))
        runtime = rig.start(handler={"batch_size": 1000, "batch_timeout": 0.2})
        wait_for_rows(rig, 3, runtime)
        assert runtime.stop()["rows"] == 3

    def test_sigterm_finishes_what_is_in_hand(self, rig: Rig) -> None:
        rig.produce(rows(range(4000)))
        runtime = rig.start(seconds=0.02)
        wait_for_rows(rig, 101, runtime)
        report = runtime.stop()
        assert report["rows"] > 100
        ids = rig.ids()
        assert len(ids) == len(set(ids)) == report["rows"]

    def test_a_handler_that_stalls_holds_the_source_back(self, rig: Rig) -> None:
        """What is read ahead is bounded: 200 MB wait to be read."""
        padding = "x" * 64_000
        rig.produce([row(number, padding=padding) for number in range(3200)])
        (rig.folder / "stall").touch()
        runtime = rig.start("--until-end", handler={"batch_size": 16})
        before = 0
        wait_for(lambda: runtime.log.count("stall") > 0, "the stall is told", runtime)
        before = memory_of(runtime)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert memory_of(runtime) - before < READ_AHEAD_BYTES
            time.sleep(0.2)
        (rig.folder / "stall").unlink()
        runtime.wait(120)
        assert Counter(rig.ids()) == Counter(range(3200))


class KeepsPositions:
    """What is done is not handled again, and what is not done is."""

    def test_a_run_that_was_stopped_is_gone_on_with(self, rig: KeptRig) -> None:
        rig.produce(rows(range(4000)))
        runtime = rig.start(seconds=0.02)
        wait_for_rows(rig, 101, runtime)
        first = runtime.stop()
        second = rig.start("--until-end").wait()
        assert first["rows"] + second["rows"] == 4000
        assert Counter(rig.ids()) == Counter(range(4000))
        assert rig.remaining() == 0
        assert rig.start("--until-end").wait()["rows"] == 0

    def test_nothing_is_lost_when_the_runtime_is_killed_again_and_again(self, rig: KeptRig) -> None:
        """And nothing that was acknowledged is handled again."""
        total, moments = 12_000, random.Random(7)
        rig.produce(rows(range(total)))
        for _ in range(4):
            known = len(rig.ids())
            runtime = rig.start(seconds=0.05)
            wait_for_rows(rig, known + 1, runtime)
            time.sleep(moments.uniform(0, 0.8))
            runtime.process.send_signal(signal.SIGSTOP)  # so that the broker is asked about this very moment
            left, done = rig.remaining(), len(rig.ids())
            runtime.kill()
        rig.start("--until-end").wait(120)
        ids = rig.ids()
        assert set(ids) == set(range(total))
        assert len(ids) - done <= left, "only what the broker still had is handled after the last kill"
        assert rig.remaining() == 0


class SharesWork:
    """Several runtimes, each row handled by one of them."""

    READS = ""  #: what a runtime's log says when it has its share

    def test_two_runtimes_share_the_rows(self, rig: KeptRig) -> None:
        runtimes = [rig.start(state=f"state-{number}", seconds=0.01) for number in range(2)]
        for runtime in runtimes:
            runtime.wait_for(self.READS)
        rig.produce(rows(range(6000)))
        wait_for_rows(rig, 6000, *runtimes)
        handled = [runtime.stop()["rows"] for runtime in runtimes]
        assert Counter(rig.ids()) == Counter(range(6000))
        assert sum(handled) == 6000
        assert all(handled)

    def test_the_rows_of_a_runtime_that_was_killed_are_handled_by_the_others(self, rig: KeptRig) -> None:
        runtimes = [rig.start(state=f"state-{number}", seconds=0.01) for number in range(2)]
        for runtime in runtimes:
            runtime.wait_for(self.READS)
        rig.produce(rows(range(6000)))
        wait_for(
            lambda: runtimes[0].session_id in {result["runtime"] for result in rig.results()}, "its first", *runtimes
        )
        runtimes[0].kill()
        wait_for_rows(rig, 6000, runtimes[1])
        wait_for(lambda: set(rig.ids()) == set(range(6000)), "all rows", runtimes[1])
        # Those that the killed one had written, and told nobody, are handled once more.
        wait_for(lambda: rig.remaining() == 0, "nothing to remain", runtimes[1])
        runtimes[1].stop()


class Networked:
    """The connection breaks, falls silent, is slow: the rows arrive all the same."""

    def test_a_connection_that_is_cut_again_and_again(self, rig: ServerRig) -> None:
        rig.produce(rows(range(6000)))
        runtime = rig.start("--until-end", seconds=0.02)
        for wanted in (200, 1500, 3000):
            wait_for_rows(rig, wanted, runtime)
            rig.proxy.cut()
        runtime.wait(120)
        assert set(rig.ids()) == set(range(6000))
        assert rig.remaining() == 0

    def test_a_server_that_falls_silent_and_comes_back(self, rig: ServerRig) -> None:
        rig.produce(rows(range(6000)))
        runtime = rig.start("--until-end", seconds=0.02)
        wait_for_rows(rig, 200, runtime)
        rig.proxy.freeze()
        time.sleep(FROZEN_S)
        rig.proxy.resume()
        runtime.wait(120)
        assert set(rig.ids()) == set(range(6000))
        assert rig.remaining() == 0

    def test_a_slow_connection(self, rig: ServerRig) -> None:
        rig.produce(rows(range(3000)))
        rig.proxy.slow_down(60_000)
        report = rig.start("--until-end").wait(120)
        assert report["rows"] == 3000
        assert Counter(rig.ids()) == Counter(range(3000))

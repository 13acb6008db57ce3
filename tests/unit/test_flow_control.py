"""pythia_fast.runtime.flow: which batches its probes are, over an arena that the test fills."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pythia_fast import CircuitBreaker, DeadLetterLimit
from pythia_fast._ext.intake import GATE_OPEN
from pythia_fast._ext.ring import CIRCUIT_CLOSED
from pythia_fast.errors import HandlerError
from pythia_fast.runtime import flow
from pythia_fast.runtime.flow import PROBE_ROWS, FlowControl

SECOND_NS = 1_000_000_000


class Arena:
    """What FlowControl looks at."""

    def __init__(self) -> None:
        self.circuit = CIRCUIT_CLOSED
        self.failed_probes = 0
        self.batches: list[tuple[int, int]] = []
        self.waits_long = False  #: all that is in hand

    def live(self):
        return self.batches

    def in_hand(self, seconds):
        return bool(self.batches) and not self.waits_long

    def set_circuit(self, word, failed_probes=0):
        self.circuit, self.failed_probes = word, failed_probes


class Runtime:
    """A handler's FlowControl, what its intake was told, and a clock."""

    def __init__(self, monkeypatch, *, bounded=False, **options) -> None:
        options = {"dead_letter_limit": None, "breaker": None, **options}
        self.arena = Arena()
        self.gates: list[int] = []
        self.now_s = 100.0
        self.lines: list[str] = []
        monkeypatch.setattr(flow, "_now_s", lambda: self.now_s)
        self.flow = FlowControl(
            SimpleNamespace(name="handler", **options),
            self.arena,
            bounded=bounded,
            admit=self.gates.append,
            log=self.lines.append,
        )

    def settle(
        self,
        *,
        rows: int,
        failed: int,
        done: int | None = None,
        opened_s: float | None = None,
        slot: int = 0,
        killed: int = 0,
        output_records: int = 0,
        refused: int = 0,
        skipped: int = 0,
    ):
        """A round of a batch is durable; without ``done`` its last one."""
        facts = SimpleNamespace(
            rows=rows,
            refused=refused,
            failed=failed,
            rejected=0,
            output_records=output_records,
            opened_ns=int((self.now_s if opened_s is None else opened_s) * SECOND_NS),
        )
        parked = done is not None
        done = rows + refused if done is None else done
        self.flow.settled(slot, facts, done=done, parked=parked, killed=killed, skipped=skipped)
        return facts

    def turn(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.flow.turn()


@pytest.fixture
def paused(monkeypatch):
    """Too many rows were given up; a second later one batch is read."""
    runtime = Runtime(monkeypatch, dead_letter_limit=DeadLetterLimit(ratio=0.5, min_rows=10, pause=1))
    runtime.settle(rows=10, failed=10)
    assert runtime.flow.state == "paused"
    runtime.turn(after_s=1.0)
    assert (runtime.flow.state, runtime.gates) == ("probing", [0, PROBE_ROWS])
    runtime.now_s += 0.5
    return runtime


def test_a_pause_tells_the_reason_of_the_row_that_was_given_up_last(monkeypatch):
    runtime = Runtime(monkeypatch, dead_letter_limit=DeadLetterLimit(ratio=0.5, min_rows=10))
    runtime.flow.gave_up("TypeError: an earlier one")
    runtime.flow.gave_up("ValueError: " + "x" * 1000 + "\nand a second line")
    runtime.settle(rows=10, failed=10)
    assert f"; the last one: ValueError: {'x' * 188}...; a batch" in runtime.lines[-1]


def test_tombstones_that_are_skipped_count_for_nothing(monkeypatch):
    runtime = Runtime(monkeypatch, dead_letter_limit=DeadLetterLimit(ratio=0.5, min_rows=10))
    runtime.settle(rows=0, failed=0, refused=1000, skipped=1000)
    runtime.settle(rows=4, failed=4, refused=1000, skipped=1000)
    assert runtime.flow.state == "open"
    runtime.settle(rows=6, failed=0, refused=1002, skipped=1000)  # 6 of 12
    assert runtime.flow.state == "open"
    runtime.settle(rows=0, failed=0, refused=101, skipped=100)
    assert runtime.flow.state == "paused"


def test_a_probe_of_nothing_but_skipped_tombstones_is_followed_by_another(paused):
    paused.settle(rows=0, failed=0, refused=PROBE_ROWS, skipped=PROBE_ROWS)
    assert paused.flow.state == "probing"
    told = len(paused.gates)
    paused.turn()
    assert paused.gates[told:] == [PROBE_ROWS]
    paused.settle(rows=2, failed=0, refused=62, skipped=62)
    assert paused.flow.state == "open"


def test_rows_that_wait_beside_skipped_tombstones_are_waited_for(paused):
    opened_s = paused.now_s
    paused.settle(rows=4, failed=0, refused=60, skipped=60, done=0, opened_s=opened_s)  # it waits whole
    assert paused.flow.state == "probing"
    paused.settle(rows=4, failed=3, refused=60, skipped=60, opened_s=opened_s)
    assert paused.flow.state == "paused"


def test_the_rounds_of_a_probe_count_together(paused):
    opened_s = paused.now_s
    paused.settle(rows=64, failed=0, done=3, opened_s=opened_s)
    assert paused.flow.state == "probing"
    paused.settle(rows=61, failed=61, opened_s=opened_s)
    assert paused.flow.state == "paused"
    assert "61 of 64 rows that were tried" in paused.lines[-1]


def test_rows_given_up_of_a_probe_that_waits_whole_are_kept_in_mind(paused):
    opened_s = paused.now_s
    paused.settle(rows=64, failed=40, done=0, opened_s=opened_s)
    assert paused.flow.state == "probing"
    paused.settle(rows=64, failed=0, opened_s=opened_s)
    assert "40 of 64 rows that were tried" in paused.lines[-1]


def test_a_probe_that_waits_is_kept_apart(paused):
    before = paused.settle(rows=10, failed=0, done=0, opened_s=100.0, slot=1)
    assert not paused.flow.keeps_apart(before)
    probe = paused.settle(rows=64, failed=0, done=0)
    assert paused.flow.keeps_apart(probe)
    assert paused.flow.keeps_apart(before)


def test_another_batch_is_read_where_the_one_that_was_tried_is_gone(paused):
    paused.arena.batches = [(0, 0)]
    paused.turn()
    assert paused.gates == [0, PROBE_ROWS]
    paused.settle(rows=64, failed=0, done=0)
    paused.arena.batches = []
    paused.turn()
    assert paused.gates == [0, PROBE_ROWS, PROBE_ROWS]
    paused.settle(rows=64, failed=0, opened_s=paused.now_s + 0.1)
    assert (paused.flow.state, paused.gates[-1]) == ("open", GATE_OPEN)


def test_another_batch_is_read_where_the_one_that_was_tried_comes_to_nothing(paused):
    paused.arena.batches = [(0, 0)]
    paused.settle(rows=64, failed=0, done=0)
    paused.flow.dropped(0)
    assert paused.gates == [0, PROBE_ROWS, PROBE_ROWS]
    paused.settle(rows=64, failed=64, opened_s=paused.now_s + 0.1)
    assert paused.flow.state == "paused"


def test_a_half_open_circuit_has_another_batch_read_where_the_one_it_waits_for_is_gone(monkeypatch):
    runtime = Runtime(monkeypatch, breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=1))
    runtime.flow.reported("outage", "ConnectionError")
    assert runtime.flow.circuit == "open"
    runtime.turn(after_s=1.0)
    assert (runtime.flow.circuit, runtime.gates) == ("half-open", [0, PROBE_ROWS])
    runtime.arena.batches = [(0, 0)]
    runtime.turn()
    assert runtime.gates == [0, PROBE_ROWS]
    runtime.arena.batches = []
    runtime.turn()
    assert runtime.gates == [0, PROBE_ROWS, PROBE_ROWS]


def test_a_half_open_circuit_has_another_batch_read_where_all_in_hand_waits_for_long(monkeypatch):
    """The probe may be lost to a death while others wait for a backoff of minutes."""
    runtime = Runtime(monkeypatch, breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=1))
    runtime.arena.batches = [(0, 0)]
    runtime.flow.reported("outage", "ConnectionError")
    runtime.turn(after_s=1.0)
    assert (runtime.flow.circuit, runtime.gates[-1]) == ("half-open", 0)  # that batch is the probe
    runtime.arena.waits_long = True
    runtime.turn()
    assert runtime.gates[-1] == PROBE_ROWS


def test_after_a_probe_that_failed_the_next_one_is_a_batch_that_is_read_for_it(monkeypatch):
    runtime = Runtime(monkeypatch, breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=1))
    runtime.arena.batches = [(0, 0)]
    runtime.flow.reported("outage", "ConnectionError")
    admitted = []
    for probe in range(4):
        runtime.turn(after_s=1.0)
        assert (runtime.flow.circuit, runtime.arena.failed_probes) == ("half-open", probe)
        admitted.append(runtime.gates[-1])
        runtime.flow.reported("outage", "ConnectionError")
    assert admitted == [0, PROBE_ROWS, 0, PROBE_ROWS]


def test_a_part_of_several_rows_that_failed_does_not_count_as_in_vain(monkeypatch):
    breaker = CircuitBreaker(failure_threshold=1, recovery_timeout=1, probes=2)
    runtime = Runtime(monkeypatch, bounded=True, breaker=breaker)
    runtime.flow.reported("outage", "ConnectionError")
    for _ in range(5):
        runtime.turn(after_s=1.0)
        runtime.flow.reported("smaller", "ConnectionError")
    runtime.turn(after_s=1.0)
    runtime.flow.reported("outage", "ConnectionError")
    runtime.turn(after_s=1.0)
    runtime.flow.reported("outage", "ConnectionError")
    with pytest.raises(HandlerError):
        runtime.turn(after_s=1.0)


@pytest.fixture
def after_deaths(monkeypatch):
    """Too many processes died; the pause for that is over, and new ones try."""
    runtime = Runtime(monkeypatch)
    runtime.flow.died(0, "21 of its processes died")
    assert (runtime.flow.state, runtime.flow.successors()) == ("paused", [])
    runtime.turn(after_s=1.0)
    assert (runtime.flow.state, runtime.flow.successors()) == ("probing", [0])
    return runtime


@pytest.mark.parametrize(
    "round_", [{"done": 63}, {"done": 0, "output_records": 63}, {}], ids=["parked", "parked whole", "done"]
)
def test_rows_that_were_handled_show_that_processes_live_though_others_of_their_batch_wait(after_deaths, round_):
    after_deaths.settle(rows=64, failed=0, **round_)
    assert (after_deaths.flow.state, after_deaths.gates[-1]) == ("open", GATE_OPEN)


@pytest.mark.parametrize(
    "round_", [{"done": 0}, {"done": 3, "killed": 3}, {"killed": 64}], ids=["all wait", "others killed", "all killed"]
)
def test_rows_that_only_wait_or_kill_do_not_show_that_processes_live_and_more_are_read(after_deaths, round_):
    gates = len(after_deaths.gates)
    after_deaths.settle(rows=64, failed=0, **round_)
    assert (after_deaths.flow.state, after_deaths.gates[gates:]) == ("probing", [PROBE_ROWS])

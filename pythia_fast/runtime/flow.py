"""FlowControl: pauses a handler on purpose, and says so: too many dead letters, a service away, deaths in
vain, somebody's order.

Each cause has a gate (gate.py). While one of them is closed the intake opens no batch, so nothing new is read, and the
source is paused as it is when the arena is full: polls and membership go on. What is in hand is finished, or waits in
its slots for the circuit, or for a process: where processes die and it gets the handler nowhere, no successors are
made until the pause is over. The rate limit needs no gate: the intake counts it by itself (ext/token_bucket.h).

Everything here runs on the completion thread, but for ``state``, ``pause_by_hand`` and what a report reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pythia_fast._ext.intake import GATE_OPEN
from pythia_fast._ext.ring import monotonic_ns
from pythia_fast.dead_letter_limit import DeadLetterLimit
from pythia_fast.errors import HandlerError
from pythia_fast.pool.calls import HEAD_START_S, OUTAGE_WAIT_S
from pythia_fast.routine import Routine
from pythia_fast.runtime.dead_letter_watch import DeadLetterWatch
from pythia_fast.runtime.gate import Gate

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena, SlotFacts
    from pythia_fast.registration import Handler
    from pythia_fast.runtime.circuit import Circuit, CircuitState, Report

#: Rows of a batch that is read to find out whether things go better.
PROBE_ROWS = 64
#: Probes in vain may follow one another quickly: they are told this seldom.
TELL_PROBES_S = 10.0
REASON_CHARACTERS = 200  #: of one, in the line that tells of a pause
BY_HAND = "by hand; `python -m pythia_fast resume` ends it"
WAY_OUT = (
    "See in the lines above, and in the dead letters as far as there are any yet, what kills its processes, and mend "
    "it; where all such rows may go to the dead letters, dead_letter_limit=None lets them"
)


class FlowControl:
    """The gates of one handler.

    ``bounded``: the run ends at the end of its sources, so it must not be paused for ever.
    ``admit``: sets the intake's gate (``Intake.admit``).
    """

    def __init__(
        self,
        handler: Handler,
        arena: Arena,
        *,
        bounded: bool,
        admit: Callable[[int], None],
        log: Callable[[str], None],
    ) -> None:
        self._handler = handler
        self._arena = arena
        self._admit = admit
        self._log = log
        self._limit = handler.dead_letter_limit
        self._watch = DeadLetterWatch(self._limit, bounded=bounded) if self._limit is not None else None
        self._circuit = _circuit(handler, bounded)
        pauses = self._limit if self._limit is not None else DeadLetterLimit()
        self._deaths = Gate(pauses.pause_s, pauses.max_pause_s, pauses.probes if bounded else None)
        self._hand = Gate(math.inf, math.inf, None)  #: of somebody who paused the run
        self._wanted_by_hand = False  #: as last asked for, on any thread
        self._vacant: list[int] = []  #: places whose processes died; successors are to be made, now or after the pause
        self._told_s: dict[int, float] = {}  #: id of a gate -> when a pause of its was told last
        self._held_back = False
        self._given_up: dict[int, int] = {}  #: slot with rows that wait -> its rows given up in earlier rounds

    # -- what the completion thread has seen -----------------------------------------------------

    def reported(self, report: Report, why: str) -> None:
        """A batch came back from the pool. ``report``: what its calls tell of the service behind the handler."""
        if self._circuit is None:
            return
        before = self._circuit.gate.state
        self._circuit.reported(_now_s(), report, why)
        if before == "probing" and self._circuit.gate.state == "probing":
            self._tell_circuit(self._circuit)  # the probe was no call: another batch is one
            return
        self._changed(self._circuit.gate, before, "one batch is tried")
        if self._arena.circuit != self._circuit.word:
            self._tell_circuit(self._circuit)

    def _tell_circuit(self, circuit: Circuit) -> None:
        """Tell the pool processes."""
        self._arena.set_circuit(circuit.word, circuit.failed_probes)

    def settled(
        self,
        slot: int,
        facts: SlotFacts,
        *,
        done: int,
        parked: bool,
        killed: int,
        unsent: int = 0,
        skipped: int = 0,
    ) -> None:
        """A round of a batch is durable; unless it is ``parked``, so is the batch.

        ``done``: messages that are settled; 0 of a parked batch that waits whole. ``killed``: rows that killed.
        ``unsent``: rows whose results the sink refused for good. ``skipped``: of the refused messages those that are
        skipped tombstones, of which nobody learns how rows fare.
        """
        if self._deaths.state == "probing":
            # Of a parked batch most rows may only wait; one that waits whole, with transactions, has written something.
            survived = done - facts.refused > killed or facts.output_records > 0 if parked else facts.rows > killed
            if survived:
                self._deaths.reopen(_now_s())
                self._changed(self._deaths, "probing", "")
            else:
                self._set_gate()  # none of its rows told whether processes live: more are read
        if self._watch is None or self._limit is None:
            return
        given_up = facts.failed + unsent + (facts.rejected if self._limit.count_rejected else 0)
        if done:
            given_up += facts.refused - skipped + self._given_up.pop(slot, 0)
        elif given_up:
            self._given_up[slot] = self._given_up.get(slot, 0) + given_up
            given_up = 0
        tried = max(done - skipped, 0)
        left = facts.rows + facts.refused - skipped - tried
        before = self._watch.gate.state
        self._watch.settled(_now_s(), tried, given_up, _begun_s(facts), left)
        self._changed(self._watch.gate, before, f"a batch of at most {PROBE_ROWS} rows is tried")

    def gave_up(self, reason: str) -> None:
        """A row is given up, for this reason. Whoever finds the source paused for it is told its first line."""
        if self._watch is not None:
            line = reason.partition("\n")[0]
            self._watch.last_reason = line if len(line) <= REASON_CHARACTERS else f"{line[:REASON_CHARACTERS]}..."

    def dropped(self, slot: int) -> None:
        """A batch comes to nothing: its rows are read again."""
        self._given_up.pop(slot, None)
        if self.state == "probing":
            self._probe_again()

    def keeps_apart(self, facts: SlotFacts) -> bool:
        """Whether the rows of a batch that wait must not do so in one slot with those of other batches."""
        return self._watch is not None and self._watch.keeps_apart(_begun_s(facts))

    def hold_back(self, held_back: bool) -> None:
        """Whether what was read is to be finished before more is."""
        if held_back != self._held_back:
            self._held_back = held_back
            self._set_gate()

    def died(self, worker: int, in_vain: str) -> None:
        """The process of this place died, and perhaps a probe with it; ``successors`` says when another one is made.

        ``in_vain``: why another one at once does not help, a sentence; empty where it may.
        """
        self._vacant.append(worker)
        if in_vain and self._deaths.state != "closed":
            before = self._deaths.state
            self._deaths.close(_now_s(), in_vain)
            self._changed(self._deaths, before, "new processes try again")
        if self._circuit is not None and self._circuit.state == "half-open":
            self._circuit.probe_died()
            self._tell_circuit(self._circuit)

    def successors(self) -> list[int]:
        """Places that a process is to be made for now. They are told once."""
        if self._deaths.state == "closed":
            return []
        due, self._vacant = self._vacant, []
        return due

    def turn(self) -> None:
        """Begin the probes that are due.

        Raises HandlerError when so many were in vain that the run is to end.
        """
        now_s = _now_s()
        self._heed_hand(now_s)
        if self._watch is not None and self._watch.gate.exhausted:
            raise self._in_vain(
                self._watch.gate,
                "See in the dead letters what is wrong, and mend it; dead_letter_limit=None lets all of them go there",
            )
        if self._circuit is not None and self._circuit.gate.exhausted:
            raise self._in_vain(self._circuit.gate, "See to the service that the handler calls")
        if self._deaths.exhausted:
            raise self._in_vain(self._deaths, WAY_OUT)
        if self.state == "probing" and not self._arena.live():
            self._probe_again()  # what was tried told nothing, or went back with its partition
        elif self._circuit_lacks_a_probe():
            self._set_gate()
        if self._watch is not None and self._watch.begin_probe(now_s):
            self._set_gate()
        if self._deaths.begin_probe(now_s):
            self._set_gate()
        if self._circuit is not None and self._circuit.begin_probe(now_s):
            self._set_gate()
            self._tell_circuit(self._circuit)

    def _probe_again(self) -> None:
        """Have another batch read to be tried."""
        if self._watch is not None:
            self._watch.forget_probe()
        self._set_gate()

    def _heed_hand(self, now_s: float) -> None:
        if self._wanted_by_hand == (self._hand.state != "open"):
            return
        if self._wanted_by_hand:
            self._hand.close(now_s, BY_HAND)
            self._log(Routine(f"{self._handler.name}: reading is paused {BY_HAND}"))
        else:
            self._hand.reopen(now_s)
            self._log(
                Routine(
                    f"{self._handler.name}: reading goes on{'' if self.state == 'open' else ' when its pauses end'}"
                )
            )
        self._set_gate()

    def _in_vain(self, gate: Gate, advice: str) -> HandlerError:
        return HandlerError(
            f"handler {self._handler.name!r} got nowhere: {gate.why}; {gate.failed_probes} batches were tried, each "
            f"after a pause. {advice}. What is not settled is read again by the next run"
        )

    @property
    def _gates(self) -> list[Gate]:
        conditional = [part.gate for part in (self._watch, self._circuit) if part is not None]
        return [*conditional, self._deaths, self._hand]

    def _changed(self, gate: Gate, before: str, probe: str) -> None:
        if gate.state == before:
            return
        self._set_gate()
        if gate.state == "closed":
            again = f"{probe} in {gate.current_pause_s:g} s" if not gate.exhausted else "nothing more is tried"
            if before == "open" and gate is self._deaths:
                again += f". {WAY_OUT}"
            now_s = _now_s()
            often = gate.failed_probes > 1 and now_s < self._told_s.get(id(gate), 0.0) + TELL_PROBES_S
            if often and not gate.exhausted:
                return
            self._told_s[id(gate)] = now_s
            self._log(f"{self._handler.name}: reading is paused: {gate.why}; {again}")
        elif self.state == "open":
            self._log(Routine(f"{self._handler.name}: reading goes on"))

    def _set_gate(self) -> None:
        state = self.state
        probe = 0 if state == "paused" or self._probe_is_in_hand() else PROBE_ROWS
        self._admit(0 if self._held_back else GATE_OPEN if state == "open" else probe)

    def _probe_is_in_hand(self) -> bool:
        """Whether the half-open circuit is tried with a batch that was read already.

        After one of those that failed, another batch is read for the next one: all that is in hand may be rows that
        make the service fail by themselves.
        """
        if self._circuit is None or self._circuit.state != "half-open" or self._circuit.failed_probes % 2 == 1:
            return False
        return self._is_tried_soon(self._circuit)

    def _circuit_lacks_a_probe(self) -> bool:
        """Whether the circuit is half-open, and nothing is in hand but rows that wait for long."""
        circuit = self._circuit
        return circuit is not None and circuit.state == "half-open" and not self._is_tried_soon(circuit)

    def _is_tried_soon(self, circuit: Circuit) -> bool:
        return self._arena.in_hand(circuit.gate.pause_s + HEAD_START_S + OUTAGE_WAIT_S)

    # -- any thread ----------------------------------------------------------------------------------

    @property
    def makes_none(self) -> bool:
        """Whether places stay without a process until a pause is over."""
        return self._deaths.state == "closed"

    def pause_by_hand(self, paused: bool) -> bool:
        """Somebody asks for a pause, or for its end; whether that is news. It is heeded at the next ``turn``."""
        changed = paused != self._wanted_by_hand
        self._wanted_by_hand = paused
        return changed

    @property
    def state(self) -> Literal["open", "paused", "probing"]:
        """Whether the source is read."""
        states = {gate.state for gate in self._gates}
        return "paused" if "closed" in states else "probing" if "probing" in states else "open"

    @property
    def circuit(self) -> CircuitState:
        """State of the circuit breaker; empty where there is none."""
        return self._circuit.state if self._circuit is not None else ""

    @property
    def circuit_pause_left_s(self) -> float:
        """Seconds until an open circuit lets a batch pass."""
        return max(0.0, self._circuit.gate.next_probe_s - _now_s()) if self.circuit == "open" and self._circuit else 0.0

    @property
    def circuit_why(self) -> str:
        """Why the circuit is open, a sentence; empty while it is closed."""
        return self._circuit.gate.why if self._circuit is not None else ""

    @property
    def pauses(self) -> int:
        """Times that the source was paused on purpose."""
        return sum(gate.times_closed for gate in self._gates)

    @property
    def paused_s(self) -> float:
        """Seconds of that, over all causes."""
        now_s = _now_s()
        return sum(gate.closed_s(now_s) for gate in self._gates)

    @property
    def trouble(self) -> list[str]:
        """Why the source is paused, a sentence for each cause."""
        return [f"reading is paused: {gate.why}" for gate in self._gates if gate.state != "open"]


def _now_s() -> float:
    """The clock of the slots' time stamps."""
    return monotonic_ns() * 1e-9


def _begun_s(facts: SlotFacts) -> float:
    """When the first row of the batch came."""
    return facts.opened_ns * 1e-9


def _circuit(handler: Handler, bounded: bool) -> Circuit | None:
    """The handler's circuit. pybreaker is imported for those alone that have one."""
    if handler.breaker is None:
        return None
    from pythia_fast.runtime.circuit import Circuit

    return Circuit(handler.breaker, bounded=bounded)

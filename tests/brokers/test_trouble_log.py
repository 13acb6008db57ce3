"""Lines about trouble: what is told again, and when."""

from __future__ import annotations

from pythia_fast.brokers.trouble_log import MOST_SUBJECTS, QUIET_S, TroubleLog


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_same_is_told_once_in_a_while() -> None:
    lines: list[str] = []
    clock = Clock()
    troubles = TroubleLog(lines.append, clock)
    for second in range(int(2 * QUIET_S)):
        clock.now = 1000.0 + second
        troubles.tell("away")
        troubles.tell(f"{second} refused", "refused")
    assert lines == ["away", "0 refused", "away", f"{int(QUIET_S)} refused"]


def test_what_was_over_is_told_at_once_when_it_comes_again() -> None:
    lines: list[str] = []
    troubles = TroubleLog(lines.append, Clock())
    troubles.tell("no broker answers", "away")
    troubles.tell("other")
    assert troubles.is_told("away")
    troubles.over("away")
    assert not troubles.is_told("away")
    troubles.tell("no broker answers", "away")
    troubles.tell("other")
    assert lines == ["no broker answers", "other", "no broker answers"]
    assert (troubles.all_over(), troubles.all_over()) == (True, False)
    troubles.over("never told")


def test_texts_that_differ_each_time_are_not_all_remembered() -> None:
    lines: list[str] = []
    troubles = TroubleLog(lines.append, Clock())
    for number in range(3 * MOST_SUBJECTS):
        troubles.tell(f"error {number}")
        troubles.tell("error 0")
    assert len(lines) <= 3 * MOST_SUBJECTS + 3
    assert sum(troubles.is_told(f"error {number}") for number in range(3 * MOST_SUBJECTS)) == MOST_SUBJECTS

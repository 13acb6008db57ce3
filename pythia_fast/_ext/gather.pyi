from collections.abc import Iterable
from typing import NamedTuple

from pythia_fast._ext.ring import Arena

class Waiting(NamedTuple):
    """What waits."""

    rows: int
    slots: int  #: that they take
    free: int  #: slots beside them
    first_due_ns: int  #: CLOCK_MONOTONIC when the first goes on; 0: none waits

def waiting(arena: Arena) -> Waiting:
    """The rows that wait to be handled again, as whoever watches a run sees them."""

def all_wait_past(arena: Arena, seconds: float) -> bool:
    """Whether there are batches, and all of them wait for their next round for longer than that, and had an early one.

    Intake thread, once it reads no more.
    """

def changes(arena: Arena) -> int:
    """Odd while the completion thread changes slots that wait: look at it before and after a look into them."""

def thin(arena: Arena, slot: int) -> tuple[int, int] | None:
    """Have a parked batch hold the rows that wait alone. Completion thread.

    Returns (first, messages): from where in its table the others stand, until it is merged or waits, and how many.
    None: its tables do not agree, and it was left as it is.
    """

def merge(arena: Arena, slot: int, ordered: bool, done: Iterable[int]) -> int | None:
    """Have the rows of a thinned batch wait with those of another one: that one's slot, parked. Completion thread.

    None: there is none that they may wait with. ``ordered``: rows keep the order of their batches. ``done``: slots that
    came back and wait for deliveries only. Raises IndexError for a slot that is none.
    """

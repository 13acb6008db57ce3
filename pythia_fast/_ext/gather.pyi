from collections.abc import Iterable

from pythia_fast._ext.ring import Arena

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

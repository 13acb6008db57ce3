from typing import NamedTuple

from pythia_fast._ext.ring import Arena

FILLING: int
READY: int
HELD: int
DONE: int
OUTPUT_FULL: int
PARKED: int
WAITING: int

class OldestRow(NamedTuple):
    slot: int
    state: int
    worker: int
    partition: int
    offset: int
    age_s: float
    due_ns: int
    rows: int
    round: int

def oldest(arena: Arena) -> OldestRow | None: ...

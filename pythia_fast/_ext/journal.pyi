from typing import NamedTuple

from pythia_fast._ext.ring import Arena

class Progress(NamedTuple):
    rows_done: int
    suspect_end: int
    deaths: int
    deaths_before: int
    output_bytes: int
    output_records: int
    error_half: int
    error_bytes: int
    rejected: int
    retried: int
    failed: int
    killed: int

class Journal:
    def __init__(self, arena: Arena, slot: int) -> None: ...
    def read(self) -> Progress: ...
    @property
    def most_rows(self) -> int: ...
    def begin(self, end: int, deaths_before: int, in_hand: int = 0) -> None: ...
    def commit(
        self,
        rows_done: int,
        output_bytes: int,
        output_records: int,
        error_half: int,
        error_bytes: int,
        rejected: int,
        retried: int,
        failed: int,
        killed: int,
    ) -> None: ...

from typing import Any

from pythia_fast._ext.batch_memory import BatchMemory
from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.plan import Plan

class PartMemory:
    def __init__(self, plan: Plan, capacity: int, raw_bytes: int) -> None: ...
    def decode(self, whole: BatchMemory, decoder: NativeDecoder, rows: Any, attempts: int) -> BatchMemory | None: ...

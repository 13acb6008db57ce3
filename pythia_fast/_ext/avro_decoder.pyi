from collections.abc import Callable, Sequence

from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.plan import Plan
from pythia_fast.avro.resolution import Node

class AvroProgram:
    @property
    def plan(self) -> Plan: ...
    def __init__(self, plan: Plan, nodes: Sequence[Node]) -> None: ...

class AvroDecoder(NativeDecoder):
    def __init__(
        self, plan: Plan, program: AvroProgram | None = None, *, ask: Callable[[int], AvroProgram | None] | None = None
    ) -> None: ...
    def know(self, number: int, program: AvroProgram | None) -> None: ...

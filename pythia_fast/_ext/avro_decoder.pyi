from collections.abc import Callable, Sequence

from pythia_fast._ext.plan import Plan
from pythia_fast._ext.registry_decoder import RegistryDecoder, SchemaReader
from pythia_fast.avro.resolution import Node

class AvroProgram(SchemaReader):
    @property
    def plan(self) -> Plan: ...
    def __init__(self, plan: Plan, nodes: Sequence[Node]) -> None: ...

class AvroDecoder(RegistryDecoder):
    def __init__(
        self, plan: Plan, program: AvroProgram | None = None, *, ask: Callable[[int], AvroProgram | None] | None = None
    ) -> None: ...

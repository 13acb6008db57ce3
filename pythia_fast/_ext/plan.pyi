from typing import Any

from pythia_fast.schema import Schema, SchemaLike

class Plan:
    schema: Schema
    def __init__(self, source: Schema | SchemaLike) -> None: ...
    def describe(self) -> list[dict[str, Any]]: ...
    def describe_structs(self) -> list[dict[str, Any]]: ...

class Layout:
    plan: Plan
    n_columns: int
    capacity: int
    raw_bytes: int
    base: int
    bytes: int
    def __init__(self, plan: Plan, capacity: int, raw_bytes: int, base: int = 0) -> None: ...
    def describe(self) -> list[dict[str, Any]]: ...

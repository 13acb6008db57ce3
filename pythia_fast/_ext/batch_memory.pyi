from collections.abc import Sequence
from typing import Any

from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.plan import Layout, Plan

ROW_UNMARKED: int
ROW_REJECTED: int
ROW_RETRY: int
NO_PAYLOAD: int

class ColumnTooLargeError(ValueError): ...

class Region:
    name: str
    exports: int
    @property
    def address(self) -> int: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class BatchMemory:
    layout: Layout
    rows: int
    messages_at: int
    status_at: int
    raw_at: int
    raw_bytes: int
    owner: object
    def __init__(
        self,
        layout: Layout,
        address: int,
        rows: int,
        messages_at: int,
        status_at: int,
        raw_at: int,
        raw_bytes: int,
        owner: object = None,
    ) -> None: ...
    def count(self, index: int) -> int: ...
    def values(self, index: int, count: int) -> Region: ...
    def text_bytes(self, index: int) -> int: ...
    def offsets(self, index: int, count: int) -> Region: ...
    def validity(self, index: int, count: int) -> Region | None: ...
    def messages(self) -> Region: ...
    def status(self) -> Region: ...
    def raw(self, name: str) -> Region: ...
    def close(self) -> None: ...
    def hand_over(self, owner: object) -> None: ...
    def kept(self) -> list[str]: ...

def decode_private(
    plan: Plan,
    decoder: NativeDecoder,
    payloads: list[Any],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[bytes] | None = None,
    timestamps: Sequence[int] | None = None,
) -> tuple[BatchMemory, list[tuple[int, int, int, int, int]]]: ...
def decode_rows(whole: BatchMemory, decoder: NativeDecoder, rows: Any, attempts: int) -> BatchMemory: ...

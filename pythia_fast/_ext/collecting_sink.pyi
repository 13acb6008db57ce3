"""Sinks and a poll for tests and benchmarks of readers: what the intake thread does, driven from Python."""

from typing import NamedTuple

from pythia_fast._ext.source import NativeSource

IDLE: int
MORE: int
STALLED: int
END: int
FAILED: int
CALL: int
SPOOL: int

class Incoming(NamedTuple):
    """One pf_incoming, copied."""

    payload: bytes | None
    key: bytes | None
    headers: bytes  #: encoded as in arena_layout.h; framing.decode_headers reads them
    partition: int
    offset: int
    next_offset: int
    timestamp_ms: int
    deliveries: int = 0
    cut: bool = False

class CollectingSink:
    """Keeps every message as an Incoming."""

    messages: list[Incoming]
    def __init__(self, *, stall_after: int | None = None) -> None:
        """``stall_after``: refuse (PF_STALLED) once that many messages have been taken; None = never."""
    def stall_after(self, count: int | None = None) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def payloads(self) -> list[bytes | None]: ...
    @property
    def payload_bytes(self) -> int:
        """Sum of the sizes of the payloads taken."""

class CountingSink(CollectingSink):
    """Counts messages and payload bytes without the GIL, keeping nothing."""

def poll(native: NativeSource, sink: CollectingSink, max_messages: int = ..., timeout_us: int = ...) -> int:
    """One poll without the GIL; returns IDLE, MORE, STALLED, END, FAILED, CALL or SPOOL."""

def wake(native: NativeSource) -> None: ...

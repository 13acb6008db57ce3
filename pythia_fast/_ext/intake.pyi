from os import PathLike

from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.ring import Arena
from pythia_fast._ext.source import NativeSource

END: int
FAILED: int
CALL: int
STOPPED: int
BLOCKED: int
ROOM: int
SPOOL: int
SOURCE_SPOOL: int
ATTENTION: int
GATE_OPEN: int
SPOOLED: int
SPOOLED_MOST: int
SPOOLED_HEAD: int
NO_PAYLOAD: int
ORDERINGS: dict[str, int]

class Intake:
    def __init__(
        self,
        arena: Arena,
        decoder: NativeDecoder,
        source: NativeSource,
        *,
        ordering: str,
        linger_ns: int,
        spool_dir: str | PathLike[str],
        max_payload_bytes: int,
        patience_ns: int = 1_000_000_000,
        rows_per_s: float = 0,
        epoch_ns: int = 0,
        batch_rows: int = 0,
    ) -> None: ...
    def run(self) -> int: ...
    def flush(self, timeout: float) -> bool: ...
    def stop(self) -> None: ...
    def attend(self) -> None: ...
    def next_epoch(self) -> int: ...
    def wake(self) -> None: ...
    def hurry(self, hurry: bool) -> None: ...
    def admit(self, gate: int) -> None: ...
    def spool_error(self) -> int: ...
    @property
    def messages(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def decoded(self) -> int: ...
    @property
    def stalls(self) -> int: ...
    @property
    def rate_waits(self) -> int: ...
    @property
    def published(self) -> int: ...

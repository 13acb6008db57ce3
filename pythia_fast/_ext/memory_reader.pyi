from collections.abc import Iterable

from pythia_fast._ext.source import NativeSource

#: payload, key, encoded headers, partition, timestamp in milliseconds (-1: none), earlier deliveries
Entry = tuple[bytes | None, bytes | None, bytes, int, int, int]

class MemoryLog(NativeSource):
    """Messages in memory as a source that is polled without the GIL."""

    def __init__(
        self, entries: Iterable[bytes | Entry | None], partitions: int, keep_open: bool, room_bytes: int
    ) -> None:
        """A plain payload goes to the partitions in turn. ``bytes`` objects are referenced, not copied."""
    def send(
        self,
        payload: bytes | None,
        key: bytes | None,
        headers: bytes,
        partition: int,
        timestamp_ms: int,
        deliveries: int,
        timeout: float,
    ) -> None:
        """Copy one message in. Any thread.

        Raises BufferError when there was no room within ``timeout`` seconds, EOFError after end().
        """
    def end(self) -> None: ...
    def open(self) -> None:
        """Read again from what is committed. Raises RuntimeError while a reader is open."""
    def close(self) -> None: ...
    def announced(self) -> None:
        """The partitions are known to the runtime: messages may flow."""
    def commit(self, partition: int, position: int) -> None: ...
    def committed(self) -> list[int]:
        """Position to go on from, per partition."""
    def live_bytes(self) -> int:
        """Bytes held for messages sent and not yet committed."""

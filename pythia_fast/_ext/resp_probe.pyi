STREAMS: int
ENTRIES: int
VALUE: int

class Replies:
    """Replies of one shape, one after the other, out of a buffer that ``feed`` appends to."""

    def __init__(
        self, shape: int, *, bulk_bytes: int = ..., entry_bytes: int = ..., fields: int = ..., elements: int = ...
    ) -> None: ...
    @property
    def left(self) -> bytes:
        """Bytes that belong to no event yet."""
    def feed(self, more: bytes) -> list[tuple[object, ...]]:
        """The events that are complete now: tuples that begin with their name."""

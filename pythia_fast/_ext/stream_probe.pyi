from typing import Any

def crc32(data: bytes) -> int: ...
def read_chunk(
    frame: bytes,
) -> tuple[int, tuple[dict[str, int], list[tuple[int, int, int, int, bytes]], int] | None]:
    """A Deliver frame without its size: (fault, None), or (0, (header, entries, bytes of the data that those are)).

    An entry: whether it is a sub-batch, its compression, its messages, its size when unpacked, its bytes.
    """

def read_message(data: bytes, key_name: bytes | None = None) -> tuple[Any, ...] | None:
    """(payload, key, headers as the arena has them, creation time in ms), or None for what is no message."""

def payload_bytes(records: memoryview | bytes, count: int, lines: bool) -> tuple[bytearray, list[tuple[int, str]]]:
    """The payloads of framed records as a file's bytes, and (index, reason) of those that cannot stand in one.

    ``lines``: each payload and a newline; otherwise each as u32 little endian size and payload. Raises ValueError
    when ``records`` are not ``count`` whole records.
    """

def whole_frames(content: memoryview | bytes) -> int:
    """Bytes up to the end of the last whole frame."""

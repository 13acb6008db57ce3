FORMS: dict[str, int]

def payload_bytes(records: memoryview | bytes, count: int, form: str) -> tuple[bytearray, list[tuple[int, str]]]:
    """Framed records as a file's bytes, and (index, reason) of those that cannot stand in one.

    ``form``: a key of FORMS. ``ndjson``: each payload and a newline; ``msgpack-frames``: each payload behind its size
    as u32 little endian; ``records``: each record whole behind its size. Raises ValueError when ``records`` are not
    ``count`` whole records.
    """

def whole_frames(content: memoryview | bytes) -> int:
    """Bytes up to the end of the last whole frame."""

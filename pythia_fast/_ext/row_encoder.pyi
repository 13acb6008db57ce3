from typing import Any, TypeAlias

Buffer: TypeAlias = Any  # bytes, memoryview, a 1-D NumPy array; NumPy's stubs name no buffer before Python 3.12

BOOL: int
BOOL_BITS: int
INT8: int
INT16: int
INT32: int
INT64: int
UINT8: int
UINT16: int
UINT32: int
UINT64: int
FLOAT32: int
FLOAT64: int
DATETIME: int
STRING: int
BYTES: int
ENCODED: int

DONE: int
FULL: int
BAD_UTF8: int
BAD_DATETIME: int
TOO_LARGE: int

class RowEncoder:
    rows: int
    def __init__(self, rows: int, msgpack: bool, n_columns: int) -> None: ...
    def add_values(self, prefix: bytes | None, kind: int, values: Buffer, valid: Buffer | None = None) -> None: ...
    def add_bits(self, prefix: bytes | None, kind: int, bits: Buffer, bit_offset: int) -> None: ...
    def set_valid_bits(self, bits: Buffer, bit_offset: int, key: bool = False) -> None: ...
    def add_spans(
        self, prefix: bytes | None, kind: int, offsets: Buffer, data: Buffer, valid: Buffer | None = None
    ) -> None: ...
    def begin_list(self, prefix: bytes, offsets: Buffer, valid: Buffer | None = None) -> None: ...
    def begin_struct(self, prefix: bytes, valid: Buffer | None = None) -> None: ...
    def end(self) -> None: ...
    def add_objects(self, prefix: bytes | None, kind: int, values: tuple[object, ...]) -> None: ...
    def encode(self, region: Buffer, start: int, end: int) -> tuple[int, int, int, int, int]: ...

def encode_payloads(payloads: list[bytes], region: Buffer, start: int, end: int) -> tuple[int, int, int, int]: ...

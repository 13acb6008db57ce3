"""What stands behind the last whole record of a file: the beginning of one more, or damage.

Where frames begin is told by the sizes before them alone. Behind a size that is damaged, whole rows may stand that
nobody can find, and it looks as half a frame does whose writer was killed, or is still writing. What is there of the
frame tells them apart: half a frame holds the beginning of its record, and of nothing but that.
"""

from __future__ import annotations

import os
import shlex
import struct

from pythia_fast.brokers.base import NO_BYTES, PLACE_BYTES, PLACED, RECORD_HEADER_BYTES
from pythia_fast.brokers.named_files import FRAMED

LOOKED_AT_BYTES = 1 << 16
SIZE_BYTES = 4
_SIZES = struct.Struct("<III")
_TOPIC_SIZE_AT = RECORD_HEADER_BYTES + PLACE_BYTES - 4

#: MessagePack: type byte -> (bytes of the length behind it, bytes besides those that it counts, values a unit of it).
_SIZED = {
    0xC4: (1, 0, 0), 0xC5: (2, 0, 0), 0xC6: (4, 0, 0), 0xD9: (1, 0, 0), 0xDA: (2, 0, 0), 0xDB: (4, 0, 0),
    0xC7: (1, 1, 0), 0xC8: (2, 1, 0), 0xC9: (4, 1, 0),
    0xDC: (2, 0, 1), 0xDD: (4, 0, 1), 0xDE: (2, 0, 2), 0xDF: (4, 0, 2),
}  # fmt: skip
#: type byte -> bytes behind it
_PLAIN = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip


def damage(path: str, fd: int, at: int, left: int, format: str, max_payload_bytes: int) -> str:  # noqa: A002
    """Why the ``left`` bytes from ``at`` to the end of a file cannot be half a record, and what to do; "" if they can.

    Parameters:
        max_payload_bytes: the largest payload that is a row; a larger size tells of damage where nothing else does.

    Raises OSError.
    """
    if format not in FRAMED or left < SIZE_BYTES:
        return ""
    head = os.pread(fd, min(left, LOOKED_AT_BYTES), at)
    if len(head) < SIZE_BYTES:
        return ""  # it was truncated just now
    size, rest = int.from_bytes(head[:SIZE_BYTES], "little"), head[SIZE_BYTES:]
    if format == "records":
        half = record_may_begin(rest, size)
    elif is_map(rest):
        half = map_may_begin(rest, size)
    else:
        half = size <= max_payload_bytes
    if half:
        return ""
    if at == 0:
        return (
            f"{path} does not begin with a record of format={format}: the size at byte 0 says that {size:,} bytes "
            f"follow, and what follows is no record of that size. Nothing of it was read. Give FileConsumer the "
            f"format= that the file has, or restore the file, if its beginning is damaged"
        )
    return (
        f"{path} is damaged: the size at byte {at:,} says that {size:,} bytes follow, and what follows is no record of "
        f"that size. The {left:,} bytes from byte {at:,} on were not read, rows among them, most likely: restore the "
        f"file, or give them up with: truncate -s {at} {shlex.quote(path)}"
    )


def is_map(payload: bytes) -> bool:
    """Whether a payload begins as a MessagePack map does, which rows are."""
    return bool(payload) and (payload[0] & 0xF0 == 0x80 or payload[0] in (0xDE, 0xDF))


def map_may_begin(begun: bytes, size: int) -> bool:
    """Whether a MessagePack value of ``size`` bytes may begin with these, of which it is not the whole."""
    at, wanted = 0, 1
    while wanted:
        if at + wanted > size:  # each value has a byte at least
            return False
        if at >= len(begun):
            return True
        op = begun[at]
        at += 1
        wanted -= 1
        if 0x80 <= op <= 0x9F:
            wanted += (op & 0x0F) * (2 if op < 0x90 else 1)
        elif 0xA0 <= op <= 0xBF:
            at += op & 0x1F
        elif op in _SIZED:
            length_bytes, besides, values = _SIZED[op]
            if at + length_bytes > len(begun):
                return True
            length = int.from_bytes(begun[at : at + length_bytes], "big")
            at += length_bytes + besides
            if values:
                wanted += values * length
            else:
                at += length
        elif op in _PLAIN:
            at += _PLAIN[op]
        elif op == 0xC1:  # begins nothing
            return False
    return at == size


def record_may_begin(begun: bytes, size: int) -> bool:
    """Whether a framed record of ``size`` bytes may begin with these: its own sizes say the same."""
    if len(begun) < RECORD_HEADER_BYTES:
        return True
    sizes: tuple[int, int, int] = _SIZES.unpack_from(begun)
    key, headers, payload = sizes
    said = RECORD_HEADER_BYTES + (headers & ~PLACED) + sum(part for part in (key, payload) if part != NO_BYTES)
    if headers & PLACED:
        if len(begun) < RECORD_HEADER_BYTES + PLACE_BYTES:
            return said + PLACE_BYTES <= size
        said += PLACE_BYTES + int.from_bytes(begun[_TOPIC_SIZE_AT : _TOPIC_SIZE_AT + 4], "little")
    return said == size

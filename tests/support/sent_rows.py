"""What would be sent on of a handler's result."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pythia_fast.brokers.framing import FramedRecord, iterate_records
from pythia_fast.errors import OutputValueError
from pythia_fast.results.outputs import OutputEncoder


def records(result: Any, encoding: Literal["json", "msgpack"] = "json") -> list[FramedRecord]:
    region = memoryview(bytearray(1 << 16))
    encoded = OutputEncoder(encoding).open(result).write(region)
    assert encoded.done
    found = list(iterate_records(region[: encoded.bytes]))
    assert len(found) == encoded.records
    return found


def rows(result: Any, encoding: Literal["json", "msgpack"] = "json") -> list[Any]:
    decode = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    return [decode(record.payload or b"") for record in records(result, encoding)]


def column(values: Any, encoding: Literal["json", "msgpack"] = "json") -> list[Any]:
    return [row["v"] for row in rows({"v": values}, encoding)]


def partly(values: Any) -> list[Any]:
    """The values of one column as they are sent on in JSON; for those that cannot be, why."""
    opened = OutputEncoder().open({"v": values})
    found: list[Any] = []
    done = False
    while not done:
        region = memoryview(bytearray(1 << 16))
        used, _, done, resume, fault = opened.write(region, len(found))
        found += [msgspec.json.decode(record.payload or b"")["v"] for record in iterate_records(region[:used])]
        if fault is not None:
            assert (fault.row, fault.column) == (len(found), "v") == (resume, "v")
            found.append(fault)
    return [value.why if isinstance(value, OutputValueError) else value for value in found]

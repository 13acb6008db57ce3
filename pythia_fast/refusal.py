"""Why a payload was refused, as a sentence: ``expected int, found str, field price, byte 42``.

The decoders only note a few numbers (pf_refusal in ext/decoder.h); the sentence is made here when
somebody reads it.
"""

from __future__ import annotations

import codecs
from enum import IntEnum

from pythia_fast.schema import Bounds, ColumnSpec, Kind, Schema


class Reason(IntEnum):
    """The numbers of ext/decoder.h."""

    NONE = 0
    EMPTY = 1
    NULL = 2
    TRUNCATED = 3
    SYNTAX = 4
    TRAILING = 5
    UTF8 = 6
    ESCAPE = 7
    CONTROL = 8
    NUMBER = 9
    RANGE = 10
    TYPE = 11
    MISSING = 12
    UNKNOWN_FIELD = 13
    DEPTH = 14
    CONSTRAINT = 15
    DATETIME = 16
    BASE64 = 17
    LENGTH = 18
    TOO_LARGE = 19
    TAG = 20
    CODE_POINT = 21
    CUT = 22
    NO_RECORD = 23
    NOT_AMQP = 24
    COMPRESSED = 25
    BAD_BATCH = 26
    ROW_TOO_LARGE = 27
    FRAME = 28
    WRITER_SCHEMA = 29


_WHAT = {
    Reason.NONE: "refused",
    Reason.EMPTY: "the payload is empty",
    Reason.NULL: "the payload is null",
    Reason.TRUNCATED: "the payload ends inside a value",
    Reason.SYNTAX: "malformed payload",
    Reason.TRAILING: "bytes after the value",
    Reason.UTF8: "invalid UTF-8",
    Reason.ESCAPE: "invalid escape in a string",
    Reason.CONTROL: "unescaped control character in a string",
    Reason.NUMBER: "malformed number",
    Reason.RANGE: "number out of range",
    Reason.MISSING: "missing required field",
    Reason.UNKNOWN_FIELD: "a field that the schema does not know",
    Reason.DEPTH: "nested too deep",
    Reason.CONSTRAINT: "value outside its bounds",
    Reason.DATETIME: "invalid datetime (RFC 3339, years 1 to 9999 of UTC)",
    Reason.BASE64: "invalid base64",
    Reason.LENGTH: "the payload is not one record long",
    Reason.TOO_LARGE: "the message is larger than a batch may be",
    Reason.TAG: "another tag than the schema's",
    Reason.CODE_POINT: "a code point that is no character (above U+10FFFF, or U+D800 to U+DFFF)",
    Reason.CUT: "the file or pipe ends within this record",
    Reason.NO_RECORD: "this is no record, in a file of records: it is damaged, or of another format",
    Reason.NOT_AMQP: 'this is no AMQP 1.0 message with bytes as its body; for bare bytes give message_format="raw"',
    Reason.COMPRESSED: "a sub-batch of messages that is compressed, and not with gzip; publish with gzip or without",
    Reason.BAD_BATCH: "a sub-batch of messages that cannot be taken apart",
    Reason.ROW_TOO_LARGE: "the decoded row is larger than a batch may be",
    Reason.FRAME: "it does not begin with a zero byte and the number of its schema in a registry (five bytes)",
}

#: pf_refusal.found
_FOUND = ("", "null", "bool", "int", "float", "str", "array", "object", "bytes", "ext", "datetime")

#: Reasons that concern the payload as a whole: a byte offset would say nothing.
_WHOLE = frozenset(
    {
        Reason.EMPTY,
        Reason.NULL,
        Reason.LENGTH,
        Reason.TOO_LARGE,
        Reason.CUT,
        Reason.NO_RECORD,
        Reason.NOT_AMQP,
        Reason.COMPRESSED,
        Reason.BAD_BATCH,
        Reason.ROW_TOO_LARGE,
        Reason.FRAME,
        Reason.WRITER_SCHEMA,
    }
)

_WANTED = {
    Kind.BOOL: "bool",
    Kind.FLOAT32: "float",
    Kind.FLOAT64: "float",
    Kind.DATETIME: "datetime",
    Kind.STRING: "str",
    Kind.BYTES: "bytes",
    Kind.RAW: "any value",
    Kind.LIST: "array",
    Kind.STRUCT: "object",
}


def refusal_text(
    schema: Schema, reason: int, found: int, column: int, at: int, payload: bytes | bytearray | memoryview | None = None
) -> str:
    """One sentence for a pf_refusal.

    ``column`` is an index into ``schema.columns``, -1 for none; ``at`` a byte offset into ``payload``.
    """
    why = Reason(reason) if reason in Reason.__members__.values() else Reason.NONE
    spec = schema.columns[column] if 0 <= column < len(schema.columns) else None
    if why is Reason.WRITER_SCHEMA:
        return f"written with schema {at} of the registry, which is not there or does not fit {schema.name}"
    parts = [_what(why, found, spec)]
    if spec is not None:
        name = spec.name + _key_note(schema, spec)
        if why is Reason.MISSING:
            parts[0] += f" {name}"
        else:
            parts.append(f"field {name}")
    if why is Reason.SYNTAX and at == 0 and payload is not None and bytes(payload[:3]) == codecs.BOM_UTF8:
        parts[0] += " (it begins with a byte order mark, which JSON has none of: write UTF-8 without a BOM)"
    if why not in _WHOLE:
        parts.append(f"byte {at}")
    return ", ".join(parts)


def oversize_text(payload: int, rest: int, limit: int) -> str:
    """One sentence for a message that no batch can hold.

    ``payload``, ``rest``: bytes of the payload, and of key and headers. ``limit``: max_batch_bytes.
    """
    if payload > limit:
        what, size = "the payload is", f"{payload:,} bytes"
    else:
        what, size = "key and headers are", f"{rest:,} bytes, with {payload:,} of payload"
    return f"{what} larger than a batch may be ({size}); raise max_batch_bytes, which is {limit:,}"


def large_row_text(limit: int) -> str:
    """One sentence for a row that no batch has room for, although its payload is small: defaults make it large."""
    return (
        f"{_WHAT[Reason.ROW_TOO_LARGE]}: a column of it has more than {limit:,} bytes of text, or values in its list; "
        "raise max_batch_bytes, which is that number"
    )


def _what(why: Reason, found: int, spec: ColumnSpec | None) -> str:
    if why is Reason.TYPE:
        seen = _FOUND[found] if 0 < found < len(_FOUND) else "something else"
        wanted = "object" if spec is None else _WANTED.get(spec.kind, "int")
        return f"expected {wanted}, found {seen}"
    if why is Reason.RANGE and spec is not None:
        hint = " (Annotated[int, numpy.uint64] holds up to 2**64 - 1)" if spec.type_name == "int64" else ""
        return f"number out of range of {spec.type_name}{hint}"
    if why is Reason.CONSTRAINT and spec is not None:
        return f"value outside its bounds ({_bounds_text(spec.bounds)})"
    return _WHAT[why]


def _bounds_text(bounds: Bounds) -> str:
    texts = {
        "ge": ">= {}",
        "gt": "> {}",
        "le": "<= {}",
        "lt": "< {}",
        "multiple_of": "a multiple of {}",
        "min_length": "length >= {}",
        "max_length": "length <= {}",
    }
    said = [text.format(getattr(bounds, name)) for name, text in texts.items() if getattr(bounds, name) is not None]
    if bounds.tz is not None:
        said.append("with a UTC offset" if bounds.tz else "without a UTC offset")
    return ", ".join(said)


def _key_note(schema: Schema, spec: ColumnSpec) -> str:
    """The key in the payload where a rename made it differ from the field's name."""
    own = spec.name.rpartition(".")[2]
    for struct in schema.structs:
        for field in struct.fields:
            if field.column == spec.index and field.name != own:
                return f" (key {field.name!r})"
    return ""

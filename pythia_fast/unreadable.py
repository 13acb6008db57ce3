"""What msgspec raises for bytes that it cannot read."""

import msgspec

#: They are no JSON or MessagePack, or of another shape; they are not UTF-8; they are nested deeper than Python's stack.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

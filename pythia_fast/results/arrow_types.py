"""What a type of pyarrow is; ``pa`` is the module, which whoever has such a type has imported."""

from __future__ import annotations

from typing import Any


def is_text(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_binary(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def field_named_twice(pa: Any, kind: Any) -> str | None:
    """A name that more than one field of the type's structs has, however deep these are; None where there is none."""
    if pa.types.is_struct(kind):
        fields = list(kind)
        names = [str(field.name) for field in fields]
        if len(set(names)) < len(names):
            return next(name for name in names if names.count(name) > 1)
    elif pa.types.is_map(kind):
        fields = [kind.key_field, kind.item_field]
    else:
        fields = [kind.value_field] if hasattr(kind, "value_field") else []
    return next((name for field in fields if (name := field_named_twice(pa, field.type)) is not None), None)

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
        names = [str(field.name) for field in kind]
        if len(set(names)) < len(names):
            return next(name for name in names if names.count(name) > 1)
    return next((name for inner in types_inside(pa, kind) if (name := field_named_twice(pa, inner)) is not None), None)


def types_inside(pa: Any, kind: Any) -> list[Any]:
    """The types of which a type is made: of a list's values, of a struct's fields."""
    if pa.types.is_struct(kind):
        return [field.type for field in kind]
    if pa.types.is_map(kind):
        return [kind.key_type, kind.item_type]
    if pa.types.is_union(kind):
        return [kind.field(index).type for index in range(kind.num_fields)]
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return [kind.value_type]
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    return [kind.value_field.type] if hasattr(kind, "value_field") else []

"""Values that hold a ``msgspec.Raw`` -> the same values, with a Raw that may stand in a record of the sink.

msgspec pastes the bytes of a Raw into what it writes, whatever they are: nothing where the payload did not have the
field, JSON on several lines, or another encoding. The bytes do not say their encoding; the handler's decoder does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, inspect

MOST_TYPES = 1000  #: kept in mind: a handler may make a class for each of its calls
Walk = Callable[[Any], Any]


def raw_writer(source: str, encoding: str, encode: Callable[[Any], bytes]) -> Callable[[bytes], bytes]:
    """What makes of a value that is encoded as ``source`` says one of ``encoding``, in JSON on one line.

    Parameters:
        source: json or msgpack; anything else: the value is encoded as the record is.
        encoding: of the record.
        encode: writes a Python value in it.
    """
    if source != encoding and source in ("json", "msgpack"):
        decode = msgspec.json.decode if source == "json" else msgspec.msgpack.decode
        return lambda value: encode(decode(value))
    if encoding == "json":
        return lambda value: msgspec.json.format(value, indent=-1) if b"\n" in value else value
    return lambda value: value


class RawValues:
    """Walks values to the Raws in them; those of a type that can hold none are not looked into.

    Parameters:
        write: of ``raw_writer``.
    """

    def __init__(self, write: Callable[[bytes], bytes]) -> None:
        self._write = write
        self._plain: set[type] = set()  # types whose values hold no Raw
        self._walks: dict[type, Walk] = {Raw: self._raw}

    def __call__(self, value: Any) -> Any:
        """``value``, or a copy of it with other Raws; UNSET for a Raw without bytes, to be left out."""
        kind = type(value)
        if kind in self._plain:
            return value
        walk = self._walks.get(kind) or self._walk_of(kind)
        return value if walk is None else walk(value)

    def in_none_of(self, kind: type) -> bool:
        """Whether no value of a type that has been walked holds a Raw."""
        return kind in self._plain

    def _walk_of(self, kind: type) -> Walk | None:
        if len(self._plain) + len(self._walks) > MOST_TYPES:
            self._plain.clear()
            self._walks = {Raw: self._raw}
        walk: Walk | None = None
        if issubclass(kind, dict):
            walk = self._mapping
        elif issubclass(kind, (list, tuple, set, frozenset)):
            walk = self._items
        elif issubclass(kind, np.ndarray):
            walk = self._array
        elif names := _fields_with_raws(kind):
            walk = self._fields(kind, names)
        if walk is None:
            self._plain.add(kind)
        else:
            self._walks[kind] = walk
        return walk

    def _raw(self, value: Raw) -> Any:
        if not value:
            return UNSET
        before = bytes(value)
        after = self._write(before)
        return value if after is before else Raw(after)

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        if self._plain.issuperset(map(type, value.values())):
            return value
        walked = ((key, item, self(item)) for key, item in value.items())
        return {key: new for key, item, new in walked if new is item or new is not UNSET}

    def _items(self, value: Iterable[Any]) -> Iterable[Any]:
        """An absent Raw is null here: the others keep their places."""
        if self._plain.issuperset(map(type, value)):
            return value
        walked = [(item, self(item)) for item in value]
        return [new if new is item or new is not UNSET else None for item, new in walked]

    def _array(self, value: Any) -> Any:
        return self(value.tolist()) if value.dtype == object else value

    def _fields(self, kind: Any, names: list[str]) -> Walk:
        is_struct = issubclass(kind, msgspec.Struct)
        put = msgspec.structs.force_setattr if is_struct else object.__setattr__
        in_place = is_struct and kind.__struct_config__.array_like

        def walk(value: Any) -> Any:
            changed = value
            for name in names:
                old = getattr(value, name, UNSET)
                new = self(old)
                if new is not old:
                    if changed is value:
                        changed = copy.copy(value)
                    put(changed, name, None if new is UNSET and in_place else new)
            return changed

        return walk


def _fields_with_raws(kind: Any) -> list[str]:
    """Names of the fields of a Struct, dataclass or attrs class in which a Raw may be."""
    if not any(hasattr(kind, name) for name in ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__")):
        return []
    try:
        described: Any = inspect.type_info(kind)
    except Exception:  # an annotation that cannot be evaluated says nothing of its field
        described = None
    if isinstance(described, (inspect.StructType, inspect.DataclassType)):
        return [field.name for field in described.fields if _may_hold_raw(field.type, set())]
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    return list(names or (attribute.name for attribute in kind.__attrs_attrs__))


def _may_hold_raw(described: inspect.Type, seen: set[type]) -> bool:
    """``seen``: Structs that have been asked already; where one holds a Raw, that has been found."""
    if isinstance(described, inspect.Metadata):
        return _may_hold_raw(described.type, seen)
    if isinstance(described, inspect.UnionType):
        return any(_may_hold_raw(each, seen) for each in described.types)
    if isinstance(described, inspect.DictType):
        return _may_hold_raw(described.value_type, seen)
    if isinstance(described, inspect.TupleType):
        return any(_may_hold_raw(each, seen) for each in described.item_types)
    if isinstance(described, (inspect.CollectionType, inspect.VarTupleType)):
        return _may_hold_raw(described.item_type, seen)
    if isinstance(described, inspect.StructType):
        if described.cls in seen:
            return False
        seen.add(described.cls)
        # A field may hold any Struct of a class below the one that is written there, with fields of its own.
        below = bool(described.cls.__subclasses__())
        return below or any(_may_hold_raw(field.type, seen) for field in described.fields)
    return isinstance(described, _HOLDERS)


_HOLDERS = (
    inspect.RawType,
    inspect.AnyType,
    inspect.CustomType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)

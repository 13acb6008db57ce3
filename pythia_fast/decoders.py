"""Which decoder turns payloads into the columns of a schema.

| ``decoder=``             | schema                        | payload                                   |
|--------------------------|-------------------------------|-------------------------------------------|
| ``"json"``               | a Struct type                 | one JSON object                           |
| ``"msgpack"``            | a Struct type                 | one MessagePack map                       |
| a structured NumPy dtype | none, or that same dtype      | ``dtype.itemsize`` bytes                  |
| ``"raw"``                | none                          | anything: one column ``payload`` of bytes |
| ``Avro(...)``            | a Struct type                 | one Avro record (pythia_fast/avro)        |
| ``JsonSchema(...)``      | a Struct type, or none        | JSON, or Protobuf, behind the number of a |
| ``Protobuf(...)``        | none                          | schema (pythia_fast/registry_formats.py)  |
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec
import numpy as np

from pythia_fast import options
from pythia_fast._ext.plan import Plan
from pythia_fast.errors import ConfigError, RegistryError, SchemaError, UnknownOptionError
from pythia_fast.schema import Fallback, Schema, SchemaLike, describe

if TYPE_CHECKING:
    from pythia_fast._ext.decoder import NativeDecoder

DecoderLike: TypeAlias = Any  #: a name of DECODERS, or what numpy.dtype takes as a structured dtype

#: What becomes of a null payload; "rows": a row of what columns have where a message lacks their field.
Tombstones = Literal["dead_letter", "skip", "rows"]

#: name -> (module, class) of the compiled decoder
DECODERS = {
    "json": ("pythia_fast._ext.json_decoder", "JsonDecoder"),
    "msgpack": ("pythia_fast._ext.msgpack_decoder", "MsgpackDecoder"),
    "fixed": ("pythia_fast._ext.fixed_decoder", "FixedDecoder"),
    "raw": ("pythia_fast._ext.raw_decoder", "RawDecoder"),
    "verbatim": ("pythia_fast._ext.raw_decoder", "VerbatimDecoder"),
}
_NAMED = ("json", "msgpack", "raw")  # a fixed layout is chosen by its dtype, verbatim by what only hands on
MOST_NAMES = 5  #: of fields, in a message


@dataclass(frozen=True)
class Decoding:
    """A decoder's name, the schema and its compiled plan: all that a batch's makers and readers share."""

    name: str
    schema: Schema
    plan: Plan
    tombstones: Tombstones = dataclasses.field(default="dead_letter", kw_only=True)

    @property
    def reads_lines(self) -> bool:
        """Whether its payloads may stand one a line: no newline is part of them, or whoever wrote the lines says so."""
        return self.name in ("json", "raw", "verbatim")

    def native(self, wait: Callable[[RegistryError], None] | None = None) -> NativeDecoder:
        """A new compiled decoder; it belongs to one thread at a time.

        ``wait`` is called where a schema registry does not answer, which is then asked again; without it, RegistryError
        is raised.
        """
        decoder = self.load()(self.plan)
        if self.tombstones == "rows":
            decoder.make_rows_of_nulls(self.plan)
        return decoder

    def load(self) -> Callable[[Plan], NativeDecoder]:
        """Its class; the first call loads the library that it is in, which takes milliseconds."""
        module, class_name = DECODERS[self.name]
        return cast("Callable[[Plan], NativeDecoder]", getattr(importlib.import_module(module), class_name))

    @cached_property
    def row(self) -> Callable[[Any], Any]:
        """What makes one Python object of one payload: a Struct, a NumPy record, or the bytes."""
        if self.name == "json":
            return msgspec.json.Decoder(self.schema.source).decode
        if self.name == "msgpack":
            return msgspec.msgpack.Decoder(self.schema.source).decode
        if self.name == "fixed":
            dtype = self.schema.source
            return lambda payload: np.frombuffer(bytes(payload), dtype)[0]
        return bytes

    def null_row(self) -> Any:
        """The object of a null payload that is a row: a Struct of defaults, None where rows are no Structs."""
        source: Any = self.schema.source
        return None if source is None else (typing.get_origin(source) or source)(**self._nulls)

    @cached_property
    def _nulls(self) -> dict[str, None]:
        """The fields of such a Struct that have no default."""
        return {field.name: None for field in msgspec.structs.fields(cast("Any", self.schema.source)) if field.required}


class PayloadFormat(ABC):
    """What ``decoder=`` may be besides a name or a dtype: a format that has settings of its own."""

    #: What rows are where no schema is given; None: one has to be.
    row_type: type | None = None

    @abstractmethod
    def decoding(self, schema: Schema) -> Decoding:
        """The decoding of payloads of this format into columns. Raises SchemaError where the two do not fit."""


def choose_decoder(
    schema: SchemaLike = None, decoder: DecoderLike = "json", tombstones: Tombstones = "dead_letter"
) -> Decoding:
    """Check that schema and decoder fit together and compile the plan.

    Raises UnknownOptionError for a decoder that does not exist, SchemaError for a schema that cannot
    become columns, or not those of a row without fields where ``tombstones`` asks for it, ConfigError where schema and
    decoder do not fit.
    """
    decoding = _decoding(schema, decoder)
    if tombstones == "rows":
        _check_null_row(decoding)
    return decoding if tombstones == decoding.tombstones else dataclasses.replace(decoding, tombstones=tombstones)


def _check_null_row(decoding: Decoding) -> None:
    if decoding.name == "fixed":
        raise SchemaError(
            "tombstones='rows': a tombstone has no fields, and those of a fixed layout have no defaults; "
            "tombstones='skip' leaves them out"
        )
    columns = [
        decoding.schema.columns[field.column]
        for field in decoding.schema.structs[0].fields
        if field.fallback is Fallback.REQUIRED
    ]
    lacking = [column.name for column in columns if not column.optional]
    if lacking:
        names = ", ".join(lacking[:MOST_NAMES]) + (
            f" and {len(lacking) - MOST_NAMES} more" * (len(lacking) > MOST_NAMES)
        )
        has = "has neither a default nor is it" if len(lacking) == 1 else "have neither defaults nor are they"
        raise SchemaError(
            f"tombstones='rows': a tombstone has no fields, and {names} of {decoding.schema.name} {has} Optional"
        )


def _decoding(schema: SchemaLike, decoder: DecoderLike) -> Decoding:
    if isinstance(decoder, str) and decoder not in _NAMED:
        raise UnknownOptionError("decoder=", decoder, _NAMED)
    if isinstance(schema, np.dtype) and isinstance(decoder, str) and decoder == "json":
        decoder = schema
    if not isinstance(decoder, str | PayloadFormat):
        return _fixed(schema, decoder)
    if decoder == "raw":
        if schema is not None:
            raise ConfigError("decoder='raw' has one column, payload, and takes no schema")
    elif schema is None and (isinstance(decoder, str) or decoder.row_type is None):
        raise ConfigError(f"decoder={decoder!r} needs schema=, a msgspec.Struct type that names the columns")
    elif isinstance(schema, np.dtype):
        raise ConfigError(f"a structured dtype is a fixed layout; pass it as decoder= instead of {decoder!r}")
    described = describe(schema)
    if isinstance(decoder, PayloadFormat):
        return decoder.decoding(described)
    return Decoding(decoder, described, Plan(described))


def _fixed(schema: SchemaLike, decoder: DecoderLike) -> Decoding:
    if isinstance(decoder, type) and issubclass(decoder, msgspec.Struct):
        beside = "" if schema is None or schema is decoder else ", and only one of the two"
        raise SchemaError(
            f"decoder={options.spell(decoder)} is a msgspec.Struct type, which says what the columns are: give it as "
            f"schema={beside}; decoder= is one of {', '.join(map(repr, _NAMED))}, or a structured dtype"
        )
    try:
        if decoder is None or isinstance(decoder, bool):  # None would be float64
            raise TypeError(f"give one of {', '.join(map(repr, _NAMED))}, or a structured dtype")
        dtype = np.dtype(decoder)
    except Exception as error:  # NumPy looks into what it is given, and raises whatever it finds there
        raise SchemaError(
            f"decoder={options.spell(decoder)} is neither a decoder's name nor a NumPy dtype: {error}"
        ) from error
    if dtype.names is None:  # NumPy makes one of objects of any class that it does not know
        raise SchemaError(
            f"decoder={options.spell(decoder)} is neither a decoder's name nor a structured dtype with field names: "
            f"give one of {', '.join(map(repr, _NAMED))}, or the layout of a record"
        )
    if schema is not None and not (isinstance(schema, np.dtype) and schema == dtype):
        raise ConfigError(
            f"decoder={options.spell(decoder)} is a fixed layout, whose columns its dtype tells: leave schema= out, "
            f"or give one of {', '.join(map(repr, _NAMED))}"
        )
    described = describe(dtype)
    return Decoding("fixed", described, Plan(described))

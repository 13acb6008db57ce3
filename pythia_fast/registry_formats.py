"""``decoder=Protobuf(...)`` and ``decoder=JsonSchema(...)``: payloads behind the number of a schema in a registry.

                                 with a Struct as schema             without
    JsonSchema(registry)         its columns, decoded at C level     rows are dicts
    Protobuf(message, registry)  refused                             rows are messages of this class

Without a Struct a batch has the one column ``payload``, and a handler that is annotated with ``list[...]`` gets the
rows: Confluent's deserialisers make them, one by one.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from pythia_fast import options
from pythia_fast._ext.plan import Plan
from pythia_fast.decoders import Decoding, PayloadFormat
from pythia_fast.errors import ConfigError, RegistryError, SchemaError
from pythia_fast.schema import Schema
from pythia_fast.schema_registry import FRAME_BYTES, KnownSchemas, RegistryClient

if TYPE_CHECKING:
    from pythia_fast._ext.decoder import NativeDecoder
    from pythia_fast._ext.registry_decoder import SchemaReader

#: Makes an object of a payload, with its frame.
Deserializer = Callable[[bytes], Any]


@dataclass(frozen=True)
class FramedDecoding(Decoding):
    """Payloads whose schema is to be there, and of the right kind, before they are read.

    ``name``: of the decoder that then reads them.
    """

    registry: RegistryClient
    kind: str  #: of schemas: "PROTOBUF" or "JSON"
    deserializer: Callable[[RegistryClient], Deserializer] | None  #: None: rows are Structs

    @property
    def reads_lines(self) -> bool:
        return False  # the number of the schema may hold a newline

    def load(self) -> Callable[[Plan], NativeDecoder]:
        from pythia_fast._ext.framed_decoder import FramedDecoder

        inner = super().load()
        skips_frame = self.deserializer is None
        return lambda plan: FramedDecoder(inner(plan), skips_frame=skips_frame, ask=self._readers.get)

    def native(self, wait: Callable[[RegistryError], None] | None = None) -> NativeDecoder:
        self._readers.wait = wait
        return super().native()

    @cached_property
    def _readers(self) -> KnownSchemas[SchemaReader]:
        return KnownSchemas(self._reader)

    def _reader(self, number: int) -> SchemaReader | str:
        from pythia_fast._ext.registry_decoder import SchemaReader

        found = self.registry.schema(number, self.kind)
        return found if isinstance(found, str) else SchemaReader()

    @cached_property
    def row(self) -> Callable[[Any], Any]:
        if self.deserializer is None:
            decode = msgspec.json.Decoder(self.schema.source).decode
            return lambda payload: decode(payload[FRAME_BYTES:])
        make, made = self.deserializer, dict[int, Deserializer]()

        def row(payload: Any) -> Any:
            self._readers.of(payload)  # the deserialiser asks the client for it, which has it from here on
            if os.getpid() not in made:
                made[os.getpid()] = make(self.registry)
            return made[os.getpid()](bytes(payload))

        return row


class RegistryFormat(PayloadFormat):
    """Payloads as Confluent's serialisers write them: a zero byte, the number of the schema, the value."""

    def __init__(self, registry: Any, extra: str) -> None:
        self._registry = RegistryClient(registry, type(self).__name__, extra)
        self._extra = extra

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._registry!r})"

    def _imported(self, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except ImportError as error:
            raise ConfigError(
                f"decoder={type(self).__name__}(...) needs Confluent's deserialiser ({error}): "
                f"pip install 'pythia-fast[{self._extra}]'"
            ) from error

    @abstractmethod
    def _deserializer(self, registry: RegistryClient) -> Deserializer:
        """A new one, for this process."""

    def _of_objects(self, schema: Schema, kind: str) -> Decoding:
        return FramedDecoding("raw", schema, Plan(schema), self._registry, kind, self._deserializer)


class Protobuf(RegistryFormat):
    """Payloads are Protobuf messages behind the number of their schema; each row is one, of the class given here.

    Parameters:
        message: a class that ``protoc`` made.
        registry: its URL, the settings of ``confluent_kafka.schema_registry.SchemaRegistryClient`` as a dict, or such a
            client.

    A handler takes ``list[Order]`` (or reads ``batch.rows()``); ``batch["payload"]`` has the payloads. Needs
    ``pip install 'pythia-fast[protobuf]'``. Raises ConfigError for what is no such class.
    """

    def __init__(self, message: Any, *, registry: Any) -> None:
        super().__init__(registry, "protobuf")
        self._imported(_protobuf_deserializer)
        from google.protobuf.message import Message

        if not (isinstance(message, type) and issubclass(message, Message)):
            raise options.refusal("Protobuf", "message", message, "a class of messages, as protoc makes them")
        self._message = self.row_type = message

    def decoding(self, schema: Schema) -> Decoding:
        if schema.source is not None:
            raise SchemaError(
                f"decoder={self!r} makes rows of {self._message.__name__}, and no columns: leave schema= out, and "
                f"annotate the handler's parameter with list[{self._message.__name__}]"
            )
        return self._of_objects(schema, "PROTOBUF")

    def _deserializer(self, registry: RegistryClient) -> Deserializer:
        # Without the registry's client: the class reads what was written with other versions by the fields' numbers.
        made: Deserializer = _protobuf_deserializer()(self._message, {"use.deprecated.format": False})
        return made


class JsonSchema(RegistryFormat):
    """Payloads are JSON behind the number of their schema.

    Parameters:
        registry: its URL, the settings of ``confluent_kafka.schema_registry.SchemaRegistryClient`` as a dict, or such a
            client.

    With a Struct, as ``schema=`` or in the handler's annotation, payloads are decoded at C level into its columns, and
    checked against it alone. Without, a handler takes ``list[dict]``: Confluent's deserialiser makes the rows, and
    checks each against the schema that it was written with. Needs ``pip install 'pythia-fast[json-schema]'``.
    """

    row_type = dict

    def __init__(self, *, registry: Any) -> None:
        super().__init__(registry, "json-schema")

    def decoding(self, schema: Schema) -> Decoding:
        if schema.source is not None:
            return FramedDecoding("json", schema, Plan(schema), self._registry, "JSON", None)
        self._imported(_json_deserializer)
        return self._of_objects(schema, "JSON")

    def _deserializer(self, registry: RegistryClient) -> Deserializer:
        made: Deserializer = _json_deserializer()(
            None, conf={"subject.name.strategy": _no_subject}, schema_registry_client=registry.own()
        )
        return made


def _protobuf_deserializer() -> Any:
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer

    return ProtobufDeserializer


def _no_subject(context: Any, record_name: Any) -> None:
    """A schema is known by its number; the client is asked for it by that alone, as it was before."""


def _json_deserializer() -> Any:
    from confluent_kafka.schema_registry.json_schema import JSONDeserializer

    return JSONDeserializer

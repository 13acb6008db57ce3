"""A schema registry: the schemas by whose numbers payloads begin, asked for when a number is first met.

Each process asks for itself, once for each number, outside of the handler's calls: while the registry does not answer,
rows wait in their batch (pool/registry_wait.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pythia_fast.errors import ConfigError, RegistryError

NOT_FOUND = 404
FRAME_BYTES = 5  #: a zero byte, and the number of the schema (ext/registry_frame.h)

T = TypeVar("T")


@dataclass(frozen=True)
class RegisteredSchema:
    """A schema, and those that it takes types from, in an order in which they can be read."""

    text: str
    taken_from: list[str]


class RegistryClient:
    """Confluent's client of a registry, one in each process.

    ``given``: the registry's URL, the settings of ``confluent_kafka.schema_registry.SchemaRegistryClient``, or such a
    client, which then must bear being used in forked processes. ``asker``: who asks, ``Avro``. ``extra``: of this
    package, which brings the client.
    """

    def __init__(self, given: Any, asker: str, extra: str) -> None:
        self._config: dict[str, Any] | None = None
        self._client: Any = None
        self._of_process = 0
        self._asker, self._extra = asker, extra
        if isinstance(given, str) and given:
            self._config = {"url": given}
        elif isinstance(given, Mapping) and given.get("url"):
            self._config = dict(given)
        elif callable(getattr(given, "get_schema", None)):
            self._client = given
        else:
            takes = "a URL, settings of SchemaRegistryClient with a url, or such a client"
            raise ConfigError(f"{asker}(registry=): {takes}, and this is {type(given).__name__}")
        if self._config is not None:
            self._new_client()  # so that wrong settings are refused here

    def __repr__(self) -> str:
        """Without what may be a password."""
        return (
            "schema registry" if self._config is None else f"schema registry {self._config['url'].rpartition('@')[2]}"
        )

    def own(self) -> Any:
        """That of this process: connections are not shared with one that was forked."""
        if self._config is not None and self._of_process != os.getpid():
            self._new_client()
        return self._client

    def schema(self, number: int, kind: str) -> RegisteredSchema | str:
        """The schema of this number, if it is of this kind: ``AVRO``; else why not, a sentence.

        The client keeps all of it, for who asks it again. Raises RegistryError where the registry does not answer, or
        not with an answer that lasts.
        """
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            client = self.own()
            found = client.get_schema(number)
            found_kind = found.schema_type or "AVRO"
            if found_kind != kind:
                return f"schema {number} of {self!r} is {found_kind}, and not {kind}"
            return RegisteredSchema(found.schema_str, [each.schema_str for each in _taken_from(client, found)])
        except SchemaRegistryError as error:
            if error.http_status_code == NOT_FOUND:
                return f"{self!r} has no schema {number}: {error.error_message}"
            raise RegistryError(f"{self!r} answers {error} when asked for schema {number}") from error
        except Exception as error:  # of the HTTP library, which the client does not hide
            raise RegistryError(
                f"{self!r} cannot be asked for schema {number}: {type(error).__name__}: {error}"
            ) from error

    def _new_client(self) -> None:
        assert self._config is not None
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigError(
                f"decoder={self._asker}(registry=) needs the registry's client ({error}): "
                f"pip install 'pythia-fast[{self._extra}]'"
            ) from error
        try:
            self._client = SchemaRegistryClient.new_client(self._config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self._asker}(registry=): {error}") from error
        self._of_process = os.getpid()


def _taken_from(client: Any, schema: Any) -> Iterator[Any]:
    """The schemas that a schema takes types from, those that others need first."""
    for reference in schema.references or ():
        found = client.get_version(reference.subject, reference.version, True).schema
        yield from _taken_from(client, found)
        yield found


class KnownSchemas(Generic[T]):
    """What reads the schemas that this process has asked for.

    ``ask``: what reads the schema of a number, or why nothing does, a sentence. It may raise RegistryError.
    """

    def __init__(self, ask: Callable[[int], T | str]) -> None:
        self._ask = ask
        self._found: dict[int, T] = {}
        self._of_process = os.getpid()
        self.wait: Callable[[RegistryError], None] | None = None  #: called before it is asked again

    def get(self, number: int) -> T | None:
        """None where nothing reads it, which is told. Raises RegistryError where nobody waits."""
        if self._of_process != os.getpid():  # its own client has not been asked
            self._found, self._of_process = {}, os.getpid()
        if number in self._found:
            return self._found[number]
        while True:
            try:
                found = self._ask(number)
                break
            except RegistryError as error:
                if self.wait is None:
                    raise
                self.wait(error)
        if isinstance(found, str):
            print(f"{found}; rows written with it are refused", file=sys.stderr, flush=True)
            return None
        self._found[number] = found
        return found

    def of(self, payload: Any) -> T:
        """What reads this payload, of which a row was made. Raises RegistryError where nothing does any more."""
        number = int.from_bytes(payload[1:FRAME_BYTES], "big")
        found = self.get(number)
        if found is None:
            raise RegistryError(f"schema {number} of the registry is not there any more, or does not fit")
        return found

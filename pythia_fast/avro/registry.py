"""Registry: the writers' schemas that a schema registry holds, by their numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pythia_fast.avro.writer import Writer
from pythia_fast.errors import ConfigError, RegistryError, SchemaError

if TYPE_CHECKING:
    from pythia_fast._ext.plan import Plan

NOT_FOUND = 404


class Registry:
    """Asked by each process for itself, once for each number.

    ``given``: the registry's URL, the settings of ``confluent_kafka.schema_registry.SchemaRegistryClient``, or such a
    client, which then must bear being used in forked processes.
    """

    def __init__(self, given: Any) -> None:
        self._config: dict[str, Any] | None = None
        self._client: Any = None
        self._of_process = 0
        if isinstance(given, str) and given:
            self._config = {"url": given}
        elif isinstance(given, Mapping) and given.get("url"):
            self._config = dict(given)
        elif callable(getattr(given, "get_schema", None)):
            self._client = given
        else:
            takes = "a URL, settings of SchemaRegistryClient with a url, or such a client"
            raise ConfigError(f"Avro(registry=): {takes}, and this is {type(given).__name__}")
        if self._config is not None:
            self._new_client()  # so that wrong settings are refused here

    def __repr__(self) -> str:
        """Without what may be a password."""
        return (
            "schema registry" if self._config is None else f"schema registry {self._config['url'].rpartition('@')[2]}"
        )

    def writer(self, number: int, plan: Plan) -> Writer | str:
        """The schema of this number against the columns of a plan; why it reads nothing, where that is final.

        Raises RegistryError where the registry does not answer, or not with an answer that lasts.
        """
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            found = self._own_client().get_schema(number)
            if found.schema_type not in (None, "AVRO"):
                return f"schema {number} of {self!r} is {found.schema_type}, and no Avro"
            named: dict[str, Any] = {}
            self._read_references(found, named)
        except SchemaRegistryError as error:
            if error.http_status_code == NOT_FOUND:
                return f"{self!r} has no schema {number}: {error.error_message}"
            raise RegistryError(f"{self!r} answers {error} when asked for schema {number}") from error
        except Exception as error:  # of the HTTP library, which the client does not hide
            raise RegistryError(
                f"{self!r} cannot be asked for schema {number}: {type(error).__name__}: {error}"
            ) from error
        try:
            return Writer(json.loads(found.schema_str), plan, named)
        except (SchemaError, ValueError) as error:
            return f"schema {number} of {self!r}: {error}"

    def _read_references(self, schema: Any, named: dict[str, Any]) -> None:
        """Fill in the named types that a schema takes from others."""
        from fastavro.schema import parse_schema

        for reference in schema.references or ():
            found = self._own_client().get_version(reference.subject, reference.version).schema
            self._read_references(found, named)
            parse_schema(json.loads(found.schema_str), named)

    def _own_client(self) -> Any:
        """Connections are not shared with a process that was forked."""
        if self._config is not None and self._of_process != os.getpid():
            self._new_client()
        return self._client

    def _new_client(self) -> None:
        assert self._config is not None
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigError(
                f"decoder=Avro(registry=) needs the registry's client ({error}): pip install 'pythia-fast[avro]'"
            ) from error
        try:
            self._client = SchemaRegistryClient.new_client(self._config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"Avro(registry=): {error}") from error
        self._of_process = os.getpid()

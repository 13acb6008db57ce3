"""Rows read back from a batch's columns, to compare with what msgspec made of the same payloads."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import msgspec
import numpy as np

from pythia_fast.batch import Batch
from pythia_fast.schema import ColumnSpec, Kind, Schema, describe

_EPOCH = datetime.datetime(1970, 1, 1)


def rows_from_columns(batch: Batch[Any], source: Any) -> list[dict[str, Any]]:
    """One dict a row, put together from nothing but the columns."""
    schema = describe(source)
    fields = {spec.name: _values(batch, schema, spec) for spec in schema.children()}
    return [{name: values[i] for name, values in fields.items()} for i in range(len(batch))]


def _values(batch: Batch[Any], schema: Schema, spec: ColumnSpec) -> list[Any]:
    valid = batch.valid(spec.name).tolist()
    values: list[Any]
    if spec.kind is Kind.STRUCT:
        prefix = len(spec.name) + 1
        fields = {child.name[prefix:]: _values(batch, schema, child) for child in schema.children(spec)}
        rows = zip(*fields.values(), strict=True) if fields else iter([()] * len(valid))
        values = [dict(zip(fields, row, strict=True)) for row in rows]
    elif spec.kind is Kind.LIST:
        inner = _values(batch, schema, schema.columns[spec.index + 1])
        bounds = batch[spec.name].offsets.tolist()
        values = [inner[begin:end] for begin, end in itertools.pairwise(bounds)]
    elif spec.kind is Kind.DATETIME:
        values = [int(value) for value in batch[spec.name].view(np.int64)]
    else:
        values = batch[spec.name].tolist()
    return [value if good else None for value, good in zip(values, valid, strict=True)]


def plain(value: Any) -> Any:
    """What msgspec decoded, in the form of rows_from_columns.

    Raises OverflowError for a datetime outside the years 1 to 9999 of UTC.
    """
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        return (value - _EPOCH) // datetime.timedelta(microseconds=1)
    return value

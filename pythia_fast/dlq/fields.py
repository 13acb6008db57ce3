"""Which fields of a Redis entry hold what."""

from __future__ import annotations

from typing import NamedTuple

PAYLOAD, KEY = "data", "key"  #: as the producer names them, unless it is told


class Fields(NamedTuple):
    """How entries of a stream hold a message."""

    payload: str = PAYLOAD
    key: str = KEY
    as_columns: bool = False  #: the handler reads the fields themselves (``fields=``)

"""Receipts: how a result says of which row it is, from the handler's process to the drill's file or topic.

A result of columns gets one more, in front; to each payload of a list the position is written in front; a handler that
returns nothing, or as many rows as it likes (``output_rows="any"``), gives a receipt alone for each row of its batch.
So the results are as large as the app's own, pass through the same encoder, and every one that arrives is of a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pythia_fast.drill.growing_file import GrowingFile
from pythia_fast.drill.ledger import Keys, keys_of
from pythia_fast.errors import ResultError
from pythia_fast.results.outputs import OutputEncoder, columns_of, is_list
from pythia_fast.runtime.dead_letter_form import StoredLetter

COLUMN = "pf_drill"
_RECEIPT = re.compile(rb'^(?:\{"pf_drill":|pf_drill )(\d+)', re.MULTILINE)


@cache
def _encoder(decoder: str) -> OutputEncoder:
    return OutputEncoder("json", decoder)


def with_receipts(result: Any, keys: Keys, *, any_rows: bool, decoder: str = "json") -> Any:
    """What the handler (with this ``decoder``) returned for the rows of these keys, with a receipt in each record.

    Raises ResultError for a result that has a column of the receipts' name.
    """
    if result is None or any_rows:
        return {COLUMN: keys}
    if is_list(result):
        if len(result) != len(keys):
            return result  # the runtime refuses it, as it would without the drill
        return [_stamped(item, key, _encoder(decoder)) for item, key in zip(result, keys.tolist(), strict=True)]
    columns = columns_of(result)
    if COLUMN in columns:
        raise ResultError(f"the result has a column {COLUMN!r}, a name that drills need: give it another one")
    return {COLUMN: keys, **columns}


def _stamped(item: Any, key: int, encoder: OutputEncoder) -> Any:
    try:
        payload = encoder.payload(item)
    except Exception:  # of the user's own objects too: let the runtime come to it
        return item
    return b"pf_drill %d %b" % (key, payload.replace(b"\n", b" "))


def receipts_in_file(path: Path) -> Keys:
    """Keys of the results in a file, in the order of the file."""
    content = path.read_bytes() if path.exists() else b""
    return np.array(_RECEIPT.findall(content[: content.rfind(b"\n") + 1]), dtype="S19").astype(np.int64)


def receipt_of(payload: bytes | None) -> int | None:
    """The key in one result; None: there is none."""
    found = _RECEIPT.match(payload or b"")
    return None if found is None else int(found[1])


class LetterFile:
    """Dead letters in a file that grows. Each is read once."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._letters: list[StoredLetter] = []

    def letters(self) -> Sequence[StoredLetter]:
        """Those that there are by now."""
        self._letters += [msgspec.json.decode(line, type=StoredLetter) for line in self._file.new_lines()]
        return self._letters


def keys_of_letters(letters: Iterable[StoredLetter]) -> Keys:
    """Of each dead letter. A result that a sink refused has no position, but the receipt of its row."""
    of_rows: list[StoredLetter] = []
    refused: list[int] = []
    for letter in letters:
        if letter.offset >= 0:
            of_rows.append(letter)
        elif (key := receipt_of(letter.letter().payload)) is not None:
            refused.append(key)
    partitions = np.array([letter.partition for letter in of_rows], np.int64)
    offsets = np.array([letter.offset for letter in of_rows], np.int64)
    return np.concatenate([keys_of(partitions, offsets), np.array(refused, np.int64)])

"""pythia_fast.drill.receipts: a result says of which row it is, whatever its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars
import pyarrow
import pytest

from pythia_fast.brokers.framing import iterate_records
from pythia_fast.drill.ledger import keys_of
from pythia_fast.drill.receipts import LetterFile, keys_of_letters, receipt_of, receipts_in_file, with_receipts
from pythia_fast.errors import ResultError
from pythia_fast.results.outputs import OutputEncoder
from pythia_fast.runtime.dead_letter_form import DeadLetter, StoredLetter, stored_letter

KEYS = keys_of(np.array([0, 2]), np.array([7, 1 << 40]))


def payloads(result: Any) -> list[bytes | None]:
    """As the runtime would send them on."""
    region = memoryview(bytearray(1 << 16))
    written = OutputEncoder().open(result).write(region)
    return [record.payload for record in iterate_records(region[: written.bytes])]


@pytest.mark.parametrize(
    "result",
    [
        None,
        {"revenue": np.array([1.5, 2.5])},
        polars.DataFrame({"revenue": [1.5, 2.5]}),
        pyarrow.table({"revenue": [1.5, 2.5]}),
        [b"a\nb", b"c"],
        ["a", "b"],
        [{"a": 1}, {"a": 2}],
        ({"a": 1}, {"a": 2}),
    ],
    ids=lambda result: type(result).__name__,
)
def test_each_record_has_the_position_of_its_row(tmp_path: Path, result: Any):
    sent = payloads(with_receipts(result, KEYS, any_rows=False))
    assert [receipt_of(payload) for payload in sent] == KEYS.tolist()
    file = tmp_path / "results"
    file.write_bytes(b"".join((payload or b"") + b"\n" for payload in sent))
    assert receipts_in_file(file).tolist() == KEYS.tolist()


def test_columns_of_the_app_stay():
    sent = payloads(with_receipts({"revenue": np.array([1.5, 2.5])}, KEYS, any_rows=False))
    assert msgspec.json.decode(sent[0] or b"") == {"pf_drill": int(KEYS[0]), "revenue": 1.5}


def test_a_column_of_the_receipts_name_is_refused():
    with pytest.raises(ResultError, match="the result has a column 'pf_drill', a name that drills need"):
        with_receipts({"pf_drill": np.array([1, 2])}, KEYS, any_rows=False)


def test_a_raw_is_of_the_encoding_of_the_handlers_decoder():
    row = {"a": msgspec.Raw(msgspec.msgpack.encode([10, "x"]))}
    sent = with_receipts([row, row], KEYS, any_rows=False, decoder="msgpack")
    assert [payload.partition(b" ")[2].partition(b" ")[2] for payload in sent] == [b'{"a":[10,"x"]}'] * 2


def test_a_handler_that_returns_as_many_rows_as_it_likes_gives_a_receipt_for_each_of_its_batch():
    assert len(payloads(with_receipts([b"only one"], KEYS, any_rows=True))) == 2


def test_what_the_runtime_refuses_it_still_gets():
    bad = object()
    assert with_receipts([b"one"], KEYS, any_rows=False) == [b"one"]
    assert with_receipts([b"one", bad], KEYS, any_rows=False)[1] is bad


def test_half_a_line_is_no_result(tmp_path: Path):
    file = tmp_path / "results"
    file.write_bytes(b'{"pf_drill":1,"a":2}\npf_drill 23 x\n{"pf_drill":4')
    assert receipts_in_file(file).tolist() == [1, 23]


def test_files_that_nobody_made_hold_nothing(tmp_path: Path):
    assert receipts_in_file(tmp_path / "none").tolist() == []
    assert LetterFile(tmp_path / "none").letters() == []
    assert receipt_of(None) is None
    assert receipt_of(b"something else") is None


def test_dead_letters_are_read_once_and_whole(tmp_path: Path):
    letters = [StoredLetter("now", "app", "handler", "bad", "t", 0, offset, 1) for offset in range(3)]
    lines = [msgspec.json.encode(letter) + b"\n" for letter in letters]
    path = tmp_path / "letters"
    file = LetterFile(path)
    path.write_bytes(lines[0] + lines[1][:9])
    assert file.letters() == letters[:1]
    path.write_bytes(b"x" * len(lines[0]) + lines[1] + lines[2])  # what was read is not looked at again
    assert file.letters() == letters


def letter_of(partition: int, offset: int, payload: bytes) -> StoredLetter:
    letter = DeadLetter(payload, None, b"", "t", partition, offset, -1, "too large", "", "", 1)
    return stored_letter(letter, "app", "handler", "now")


@pytest.mark.parametrize("result", [{"revenue": np.array([1.5, 2.5])}, [b"a", b"\xff"], None])
def test_a_result_that_the_sink_refused_is_a_dead_letter_of_its_row(result: Any):
    refused = [letter_of(-1, -1, payload or b"") for payload in payloads(with_receipts(result, KEYS, any_rows=False))]
    letters = [*refused, letter_of(3, 9, b"a row"), letter_of(-1, -1, b"of nobody knows which row")]
    assert sorted(keys_of_letters(letters)) == sorted([*KEYS.tolist(), int(keys_of(3, np.array([9]))[0])])

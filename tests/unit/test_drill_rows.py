"""pythia_fast.drill.rows: what a drill sends, and where each row stands."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pythia_fast import App, FileConsumer, KafkaConsumer, MemoryConsumer
from pythia_fast.drill.ledger import position_of
from pythia_fast.drill.rows import batch_size_for, payloads_of, rows_of_samples, sample_payloads, write_input
from pythia_fast.errors import ConfigError
from pythia_fast.registration import Handler


def handler(source: Any, **options: Any) -> Handler:
    app = App("orders")

    @app.batch_handler(source=source, decoder="raw", **options)
    def score(batch: Any) -> None:
        pass

    return app.handler("score")


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def test_samples_are_repeated_and_each_row_stands_where_its_record_begins(tmp_path: Path):
    path = tmp_path / "input"
    keys = write_input(path, [b"a", b"bcd"], 5, "ndjson")
    assert path.read_bytes() == b"a\nbcd\na\nbcd\na\n"
    assert [position_of(key) for key in keys.tolist()] == [(0, 0), (0, 2), (0, 6), (0, 8), (0, 12)]
    keys = write_input(path, [b"a", b"bcd"], 3, "msgpack-frames")
    assert path.read_bytes() == frame(b"a") + frame(b"bcd") + frame(b"a")
    assert [position_of(key)[1] for key in keys.tolist()] == [0, 5, 12]


def test_few_samples_are_repeated_but_large_ones_to_no_more_than_64_mb():
    assert rows_of_samples([b"{}"]) == 2000
    assert rows_of_samples([b"", b""]) == 2000
    assert rows_of_samples([b"{}"] * 3000) == 3000
    assert rows_of_samples([bytes(1_000_000), b""]) == 128
    assert rows_of_samples([bytes(33_000_000)] * 3) == 3


def test_messages_of_a_file(tmp_path: Path):
    assert payloads_of(b"a\n\n  \nb", "ndjson") == [b"a", b"b"]
    assert payloads_of(frame(b"a\n") + frame(b""), "msgpack-frames") == [b"a\n", b""]
    for half in (b"\0", frame(b"abc")[:-1]):
        with pytest.raises(ConfigError, match="ends within the frame at byte 5"):
            payloads_of(frame(b"x") + half, "msgpack-frames")


def test_a_handler_that_reads_files_is_drilled_with_their_messages(tmp_path: Path):
    (tmp_path / "1.ndjson").write_bytes(b"a\n")
    (tmp_path / "2.ndjson").write_bytes(b"b\n")
    source = FileConsumer(tmp_path / "*.ndjson")
    assert sample_payloads(handler(source), None, "ndjson") == [b"a", b"b"]
    assert sample_payloads(handler(source), tmp_path / "2.ndjson", "ndjson") == [b"b"]
    frames = tmp_path / "frames"
    frames.write_bytes(frame(b"c"))
    assert sample_payloads(handler(FileConsumer(frames, format="msgpack-frames")), None, "ndjson") == [b"c"]


def test_where_there_is_no_message_the_user_is_asked_for_some(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"reads kafka topic orders.*--input FILE"):
        sample_payloads(handler(KafkaConsumer(topic="orders")), None, "ndjson")
    with pytest.raises(ConfigError, match=r"no message in .*--input FILE"):
        sample_payloads(handler(FileConsumer(tmp_path / "*.ndjson")), None, "ndjson")
    with pytest.raises(ConfigError, match=r"cannot read .*none: No such file"):
        sample_payloads(handler(KafkaConsumer(topic="orders")), tmp_path / "none", "ndjson")


def test_there_are_batches_enough():
    assert batch_size_for(handler(KafkaConsumer(topic="orders"), batch_size=512), 100_000) == 512
    assert batch_size_for(handler(KafkaConsumer(topic="orders"), batch_size=512), 3200) == 100
    assert batch_size_for(handler(KafkaConsumer(topic="orders"), batch_size=512), 3) == 1


def test_messages_that_may_hold_newlines_are_not_taken_from_lines(tmp_path: Path) -> None:
    app = App("shop")
    app.batch_handler(source=MemoryConsumer([]), decoder=np.dtype("i4,i4"), name="score")(lambda batch: None)
    with pytest.raises(ConfigError, match=r"decodes fixed, whose payloads may hold newlines: .*--input-format"):
        sample_payloads(app.handler("score"), tmp_path / "rows", "ndjson")

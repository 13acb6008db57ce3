"""MessageLimit: so many messages and no more, and what stands behind it is as it was."""

from __future__ import annotations

import os
import tempfile

import pytest

from pythia_fast._ext.collecting_sink import END, STALLED, CollectingSink, poll
from pythia_fast._ext.file_reader import FileRecords
from pythia_fast._ext.message_limit import MessageLimit


def lines(count: int) -> FileRecords:
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(b"%d\n" % i for i in range(count)))
        file.flush()
        records = FileRecords("ndjson", max_payload_bytes=100)
        records.add(os.dup(file.fileno()), 0, 0)
    records.exhausted()
    return records


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize(("there", "most"), [(10, 4), (10, 10), (4, 10), (1, 1)])
def test_it_ends_after_so_many(there: int, most: int, at_once: int) -> None:
    limit, sink = MessageLimit(lines(there), most), CollectingSink()
    while poll(limit, sink, at_once) != END:
        pass
    assert sink.payloads == [b"%d" % i for i in range(min(there, most))]
    assert (limit.taken, limit.most) == (min(there, most), most)


def test_what_the_sink_does_not_take_is_not_counted() -> None:
    limit, sink = MessageLimit(lines(5), 3), CollectingSink(stall_after=2)
    assert poll(limit, sink, 100) == STALLED
    assert limit.taken == 2
    sink.stall_after(None)
    while poll(limit, sink, 100) != END:
        pass
    assert sink.payloads == [b"0", b"1", b"2"]

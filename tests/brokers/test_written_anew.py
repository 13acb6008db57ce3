"""Files that are truncated and written anew in their place while a run reads them: longer or as long as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast._ext.collecting_sink import MORE, CollectingSink, poll
from pythia_fast.brokers.base import Reader
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.errors import SourceError
from pythia_fast.testing.readers import collect, drain, reader_context
from tests.support.left_behind import nothing_left_behind

PREAMBLE = [b"preamble %05d" % number for number in range(100)]  # more than the head that a file is known by


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


def lines(first: int, count: int, *, preamble: bool = True) -> list[bytes]:
    return [*(PREAMBLE if preamble else []), *(b"number %07d" % number for number in range(first, first + count))]


def write(path: Path, rows: list[bytes]) -> None:
    """As who truncates does: the file stays the same one."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(0)
        file.write(b"".join(row + b"\n" for row in rows))


def opened(path: Path, *, follow: bool, told: list[str]) -> Reader:
    until = "forever" if follow else "end"
    context = reader_context(path.parent / "state", until=until, log=told.append)
    return FileConsumer(path, consumer_group="g", follow=follow).open(context)


@pytest.mark.parametrize("committed", ["before", "after", "both"])
@pytest.mark.parametrize("preamble", [True, False])
def test_a_file_that_is_written_anew_while_it_is_read_to_its_end_ends_the_run(
    tmp_path: Path, committed: str, preamble: bool
) -> None:
    path = tmp_path / "rows"
    write(path, lines(0, 50_000))
    size = path.stat().st_size
    reader = opened(path, follow=False, told=[])
    sink = CollectingSink()
    reader.serve()
    assert poll(reader.native, sink, 500) == MORE
    if committed != "after":
        reader.commit({0: sink.messages[-1].next_offset}, wait=True)
    write(path, lines(50_000, 60_000, preamble=preamble))
    with pytest.raises(SourceError, match=r"rows was written anew while it was read: [0-9,]+ bytes that it had were"):
        drain(reader, sink)
    assert sink.payloads == lines(0, 50_000)[: sink.count]  # no row of the new file, nor half of one
    position = sink.messages[-1].next_offset if committed != "before" else sink.messages[499].next_offset
    if committed != "before":
        reader.commit({0: position}, wait=True)
    reader.close()
    with pytest.raises(SourceError, match=rf"written anew, .* up to byte {position:,} of {size:,}; .* were not read"):
        opened(path, follow=False, told=[])


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("rewritten_as", [2000, 901])
def test_a_followed_file_that_is_written_anew_and_longer_is_read_from_its_beginning(
    tmp_path: Path, committed: bool, rewritten_as: int
) -> None:
    path, told = tmp_path / "rows", list[str]()
    write(path, lines(0, 900))
    reader = opened(path, follow=True, told=told)
    sink = collect(reader, 1000)
    if committed:
        reader.commit({0: sink.messages[-1].next_offset})
    write(path, lines(5000, rewritten_as))
    collect(reader, 1000 + len(lines(0, rewritten_as)), sink)
    assert sink.payloads[1000:] == lines(5000, rewritten_as)
    assert len(told) == 1
    assert "was truncated after byte" in told[0]
    reader.close()


def test_a_followed_file_that_is_written_anew_as_long_as_before_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write(path, lines(0, 900))
    reader = opened(path, follow=True, told=[])
    sink = collect(reader, 1000)
    reader.commit({0: sink.messages[-1].next_offset})
    write(path, lines(5000, 900))
    assert collect(reader, 2000, sink).payloads[1000:] == lines(5000, 900)
    reader.close()


def test_a_commit_does_not_learn_the_bytes_of_the_file_that_came_after(tmp_path: Path) -> None:
    """Rows in hand are committed after the file was written anew: the next run does not go on in its middle."""
    path = tmp_path / "rows"
    write(path, lines(0, 900))
    reader = opened(path, follow=True, told=[])
    sink = collect(reader, 1000)
    reader.commit({0: sink.messages[499].next_offset})
    write(path, lines(5000, 900))
    reader.commit({0: sink.messages[799].next_offset}, wait=True)
    reader.close()
    with pytest.raises(SourceError, match="written anew, bytes that were read have changed"):
        opened(path, follow=True, told=[])


def test_what_is_only_appended_is_never_taken_for_another_file(tmp_path: Path) -> None:
    path, told = tmp_path / "rows", list[str]()
    path.write_bytes(b"")
    reader = opened(path, follow=True, told=told)
    sink, text = CollectingSink(), b"".join(b"%d\n" % number for number in range(3000))
    with path.open("ab", buffering=0) as file:
        begin = 0
        for size in (1, 2, 255, 256, 257, 700, 5000, len(text)):
            file.write(text[begin : begin + size])
            begin += size
            collect(reader, text[:begin].count(b"\n"), sink)
            reader.commit({0: sink.messages[-1].next_offset} if sink.count else {})
            reader.serve()
    assert sink.payloads == text.split()
    assert told == []
    assert os.stat(path).st_size == sink.messages[-1].next_offset
    reader.close()

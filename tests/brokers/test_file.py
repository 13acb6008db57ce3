"""FileConsumer: records cut at every block boundary, ends of files, oversize records, streams, refusals."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pythia_fast._ext.collecting_sink import END, IDLE, STALLED, CollectingSink, CountingSink
from pythia_fast.brokers.base import Reader
from pythia_fast.brokers.file import FileConsumer
from pythia_fast.brokers.file_list import ListReader
from pythia_fast.errors import ConfigError, SourceError, UnknownOptionError
from pythia_fast.testing.readers import RememberingListener, drain, reader_context


@pytest.fixture(autouse=True)
def _no_descriptor_left_open() -> Iterator[None]:
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == before


def read_all(reader: Reader, max_messages: int = 1 << 20) -> CollectingSink:
    sink = CollectingSink()
    try:
        assert drain(reader, sink, max_messages) == END
    finally:
        reader.close()
    return sink


def test_lines_through_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_bytes(b'{"a":1}\r\n\n{"a":2}\n\r\n{"a":3}')
    listener = RememberingListener()
    sink = read_all(FileConsumer(path).open(reader_context(tmp_path, listener=listener)))
    assert sink.payloads == [b'{"a":1}\r', b'{"a":2}', b'{"a":3}']
    assert [(m.offset, m.next_offset) for m in sink.messages] == [(0, 9), (10, 18), (20, 27)]
    assert [(p.topic, p.partition) for p in listener.table.values()] == [(str(path), 0)]


def test_files_of_a_glob_come_in_order_of_their_names_one_partition_each(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.ndjson").write_bytes(name.encode() * 3 + b"\n" + name.encode())
    (tmp_path / "folder.ndjson").mkdir()
    listener = RememberingListener()
    reader = FileConsumer(str(tmp_path / "*.ndjson")).open(reader_context(tmp_path, listener=listener))
    sink = read_all(reader)
    assert sink.payloads == [b"aaa", b"a", b"bbb", b"b", b"ccc", b"c"]
    assert [m.partition for m in sink.messages] == [0, 0, 1, 1, 2, 2]
    assert [os.path.basename(p.topic) for p in listener.table.values()] == ["a.ndjson", "b.ndjson", "c.ndjson"]


def test_a_list_with_a_name_twice_reads_it_once(tmp_path: Path) -> None:
    path = tmp_path / "a[1].ndjson"
    path.write_bytes(b"x\n")
    assert read_all(FileConsumer([path, str(path)]).open(reader_context(tmp_path))).payloads == [b"x"]


def test_a_file_with_several_names_is_read_once_under_the_first(tmp_path: Path) -> None:
    (tmp_path / "b.log").write_bytes(b"x\n")
    (tmp_path / "a.log").symlink_to("b.log")
    os.link(tmp_path / "b.log", tmp_path / "c.log")
    (tmp_path / "same").symlink_to(tmp_path)
    lines: list[str] = []
    listener = RememberingListener()
    context = reader_context(tmp_path, listener=listener, log=lines.append)
    paths = [str(tmp_path / "*.log"), str(tmp_path / "same" / "b.log")]
    assert read_all(FileConsumer(paths).open(context)).payloads == [b"x"]
    first = tmp_path / "a.log"
    assert [partition.topic for partition in listener.table.values()] == [str(first)]
    assert lines == [
        f"{other} is left out: it is another name of {first}, and is read once"
        for other in (tmp_path / "b.log", tmp_path / "c.log", tmp_path / "same" / "b.log")
    ]


def test_a_link_to_nothing_that_a_glob_finds_is_told_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("gone")
    (tmp_path / "b.log").write_bytes(b"x\n")
    lines: list[str] = []
    context = reader_context(tmp_path, log=lines.append)
    assert read_all(FileConsumer(str(tmp_path / "*.log")).open(context)).payloads == [b"x"]
    assert lines == [f"{tmp_path / 'a.log'} is left out: it is a link to a file that is not there"]
    with pytest.raises(SourceError, match="no such file"):  # one that was asked for by its name
        FileConsumer(tmp_path / "a.log").open(reader_context(tmp_path))


def test_an_empty_file_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_all(FileConsumer(tmp_path / "empty").open(reader_context(tmp_path))).count == 0


def test_fixed_records_by_dtype(tmp_path: Path) -> None:
    records = np.array([(1, 2.5), (3, 4.5)], dtype=[("id", "<i8"), ("price", "<f8")])
    path = tmp_path / "records.bin"
    path.write_bytes(records.tobytes())
    sink = read_all(FileConsumer(path, format="fixed", dtype=records.dtype).open(reader_context(tmp_path)))
    assert np.frombuffer(b"".join(p for p in sink.payloads if p), records.dtype).tolist() == records.tolist()


@pytest.mark.parametrize("form", ["ndjson", "msgpack-frames"])
def test_an_oversize_record_comes_whole_in_bounded_memory(tmp_path: Path, form: str) -> None:
    large = os.urandom(1 << 20).hex().encode() * 4
    payloads = [b"before", large, b"after", large]
    path = tmp_path / "large"
    with path.open("wb") as file:
        for payload in payloads:
            file.write(payload + b"\n" if form == "ndjson" else struct.pack("<I", len(payload)) + payload)
    reader = FileConsumer(path, format=form).open(reader_context(tmp_path, max_payload_bytes=1000))  # type: ignore[arg-type]
    sink = read_all(reader)
    assert sink.payloads == payloads
    assert sink.messages[-1].next_offset == path.stat().st_size


def pipe_of(content: bytes, path: Path) -> threading.Thread:
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    return writer


@pytest.mark.parametrize("follow", [False, True])
def test_a_pipe_among_files_is_named_and_not_waited_for(tmp_path: Path, follow: bool) -> None:
    os.mkfifo(tmp_path / "b.ndjson")
    (tmp_path / "a.ndjson").write_bytes(b"1\n")
    source = FileConsumer(tmp_path / "*.ndjson", follow=follow)
    says = r"b.ndjson among other files: it is a named pipe"
    if follow:
        lines: list[str] = []
        source.open(reader_context(tmp_path, until="forever", log=lines.append)).close()
        assert any("b.ndjson among other files: it is a named pipe" in line for line in lines)
    else:
        with pytest.raises(SourceError, match=says):
            read_all(source.open(reader_context(tmp_path)))


def test_a_pipe_is_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = FileConsumer(tmp_path / "pipe", follow=True)
    with pytest.raises(SourceError, match=r"pipe: a pipe is read until its writers close it.*leave follow=True out"):
        source.open(reader_context(tmp_path))


@pytest.mark.parametrize("most", [5, 1 << 20])
def test_a_named_pipe_is_read_to_its_end(tmp_path: Path, most: int) -> None:
    payloads = [b"%d" % i * (i % 50) for i in range(1, 5000) if i % 50] + [b"long" * 300_000, b"end"]
    writer = pipe_of(b"\n".join(payloads), tmp_path / "pipe")
    reader = FileConsumer(tmp_path / "pipe").open(reader_context(tmp_path, max_payload_bytes=most))
    sink = CollectingSink()
    while drain(reader, sink, timeout_us=1_000_000) == IDLE:
        pass
    writer.join()
    reader.commit({0: 10}, wait=True)
    reader.close()
    assert sink.payloads == payloads
    assert not (tmp_path / "checkpoints").exists()
    assert list((tmp_path / "spool").iterdir()) == []


def test_standard_input(tmp_path: Path) -> None:
    kept = os.dup(0)
    read_end, write_end = os.pipe()
    try:
        os.dup2(read_end, 0)
        os.close(read_end)
        os.write(write_end, b"one\ntwo")
        reader = FileConsumer("-").open(reader_context(tmp_path))
        sink = CollectingSink()
        assert drain(reader, sink) == IDLE
        assert sink.payloads == [b"one"]
        os.close(write_end)
        assert drain(reader, sink, timeout_us=1_000_000) == END
        reader.close()
        assert sink.payloads == [b"one", b"two"]
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_what_is_appended_after_the_start_is_left_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"1\n2\n3-begun")
    reader = FileConsumer(path, consumer_group="g").open(reader_context(tmp_path))
    with path.open("ab") as file:
        file.write(b"-and-ended\n4\n")
    sink = CollectingSink()
    assert drain(reader, sink) == END
    assert sink.payloads == [b"1", b"2", b"3-begun-and-ended"]
    reader.commit({0: sink.messages[-1].next_offset}, wait=True)
    reader.close()
    assert read_all(FileConsumer(path, consumer_group="g").open(reader_context(tmp_path))).payloads == [b"4"]


def test_progress_counts_bytes_to_the_total(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\n" * 100)
    (tmp_path / "b").write_bytes(b"y\n" * 50)
    reader = FileConsumer([tmp_path / "a", tmp_path / "b"]).open(reader_context(tmp_path))
    assert isinstance(reader, ListReader)
    assert reader.progress() == (0, 300)
    drain(reader, CountingSink())
    assert reader.progress() == (300, 300)
    reader.close()


def test_a_file_rotated_before_its_turn_is_read_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\n")
    (tmp_path / "b").write_bytes(b"b1\nb2\n")
    files = [tmp_path / "a", tmp_path / "b"]
    reader = FileConsumer(files, consumer_group="g").open(reader_context(tmp_path))
    (tmp_path / "b").rename(tmp_path / "b.1")
    (tmp_path / "b").write_bytes(b"new\n")
    sink = CollectingSink(stall_after=2)
    assert drain(reader, sink) == STALLED
    reader.commit({0: 2, 1: 3}, wait=True)
    reader.close()
    assert sink.payloads == [b"a", b"b1"]
    again = FileConsumer(files, consumer_group="g").open(reader_context(tmp_path))
    assert read_all(again).payloads == [b"b2", b"new"]


def test_a_file_moved_away_before_its_turn_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\n")
    reader = FileConsumer(tmp_path / "a").open(reader_context(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").rename(tmp_path / "elsewhere" / "a")
    with pytest.raises(SourceError, match=r"a was moved away .*: 2 bytes of it were not read\. Move it back"):
        drain(reader, CollectingSink())
    reader.close()


@pytest.mark.parametrize("read_before", [0, 2])
def test_a_file_written_anew_before_its_turn_is_named_and_not_read_from_its_middle(
    tmp_path: Path, read_before: int
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(f"{name}1\n{name}2\n{name}3\n".encode())
    source = FileConsumer([tmp_path / "a", tmp_path / "b"], consumer_group="g")
    if read_before:
        reader = source.open(reader_context(tmp_path))
        assert drain(reader, CollectingSink()) == END
        reader.commit({1: 3 * read_before}, wait=True)
        reader.close()
    for _ in range(2):  # the group still knows the file that it read, so the next run refuses as well
        reader = source.open(reader_context(tmp_path))
        (tmp_path / "b").write_bytes(b"new1\nnew2\nnew3\n")
        with pytest.raises(SourceError, match=rf"b was written anew .*: {9 - 3 * read_before} bytes that it had"):
            drain(reader, CollectingSink())
        reader.close()
        (tmp_path / "b").write_bytes(b"b1\nb2\nb3\n")


def test_a_file_that_was_read_before_and_is_written_anew_before_its_turn_is_read_from_its_beginning(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_bytes(b"old\n")
    source = FileConsumer(tmp_path / "a", consumer_group="g")
    reader = source.open(reader_context(tmp_path))
    assert drain(reader, CollectingSink()) == END
    reader.commit({0: 4}, wait=True)
    reader.close()
    lines: list[str] = []
    reader = source.open(reader_context(tmp_path, log=lines.append))
    (tmp_path / "a").write_bytes(b"new1\nnew2\n")
    assert read_all(reader).payloads == [b"new1", b"new2"]
    (line,) = lines
    assert line.startswith(f"{tmp_path / 'a'} was written anew; the one before was read to its end, byte 4")


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(b"x" * 50 + b"\n")
    with path.open("ab") as file:
        file.write(b"y\n" * (1 << 20))
    reader = FileConsumer(path).open(reader_context(tmp_path))
    sink = CollectingSink(stall_after=10)
    assert drain(reader, sink) == STALLED
    os.truncate(path, 100)
    sink.stall_after(None)
    with pytest.raises(SourceError, match=r"shrinks shrank while it was read"):
        drain(reader, sink)
    reader.close()


@pytest.mark.parametrize("left", [0, 600_000])
def test_a_file_that_was_cut_before_its_planned_end_is_named_whatever_was_read(tmp_path: Path, left: int) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(b"y\n" * (1 << 20))
    reader = FileConsumer(path).open(reader_context(tmp_path))
    sink = CollectingSink(stall_after=10)
    if left:
        assert drain(reader, sink) == STALLED
    os.truncate(path, left)
    sink.stall_after(None)
    with pytest.raises(SourceError, match=r"shrinks shrank while it was read: it ends before byte 2,097,152 now"):
        drain(reader, sink)
    reader.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
def test_a_file_that_has_bytes_but_no_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="it has bytes, but no size"):
        FileConsumer("/proc/self/status").open(reader_context(tmp_path))


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18"])
def test_a_compressed_file_is_refused_with_what_to_do(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "orders"
    path.write_bytes(magic + b"\x00" * 20)
    with pytest.raises(SourceError, match=r'orders is compressed: unpack it, or read it with path="-"'):
        FileConsumer(path).open(reader_context(tmp_path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*nothing: no such file"):
        FileConsumer(tmp_path / "nothing").open(reader_context(tmp_path))
    with pytest.raises(SourceError, match=r"no file matches .*nothing-"):
        FileConsumer(str(tmp_path / "nothing-*")).open(reader_context(tmp_path))
    with pytest.raises(SourceError, match=r"not a file; to read a folder, write .*/\*"):
        FileConsumer(tmp_path).open(reader_context(tmp_path))


def test_a_record_larger_than_a_batch_is_refused_when_opened(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(SourceError, match="a record of 2,000 bytes does not fit a batch of at most 1,000"):
        FileConsumer(tmp_path / "a", format="fixed", record_size=2000).open(
            reader_context(tmp_path, max_payload_bytes=1000)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path='': a path, a glob, a list of them"),
        ({"path": []}, "path=[]: a path"),
        ({"path": None}, "path=None: a path"),
        ({"path": 3}, "path=3: a path"),
        ({"path": b"a"}, "path=b'a': a path"),
        ({"path": ["a", 3]}, "path=3: a path"),
        ({"path": "a\0b"}, "path='a\\x00b': a path"),
        ({"path": "\ud800"}, "path='\\ud800': a path"),
        ({}, "missing a required argument: 'path'; it takes path, consumer_group"),
        ({"path": ["-", "a"]}, "cannot be read together"),
        ({"path": "-", "follow": True}, 'standard input, "-", is read until it ends, so there is nothing to follow'),
        ({"path": "a", "format": "csv"}, "format='csv'; there are: fixed, msgpack-frames, ndjson"),
        ({"path": "a", "format": ["ndjson"]}, "format=['ndjson']"),
        ({"path": "a", "format": "fixed", "record_size": "8"}, "record_size='8': a whole number of bytes"),
        ({"path": "a", "format": "fixed", "record_size": True}, "record_size=True"),
        ({"path": "a", "format": "fixed", "record_size": 2**32}, "from 1 to 4,294,967,295"),
        ({"path": "a", "format": "fixed", "dtype": "nonsense"}, "dtype='nonsense': what numpy.dtype takes"),
        ({"path": "a", "follow": "no"}, "follow='no': True or False"),
        ({"path": "a", "follow": 1}, "follow=1: True or False"),
        ({"path": "a", "consumer_group": 3}, "consumer_group=3: a name of 1 to 240 bytes"),
        ({"path": "a", "consumer_group": "\ud800"}, "a name of 1 to 240 bytes"),
        ({"path": "a", "format": "fixed"}, "either record_size= (bytes) or dtype="),
        ({"path": "a", "format": "fixed", "record_size": 0}, "record_size=0: a whole number of bytes from 1"),
        ({"path": "a", "record_size": 8}, 'belong to format="fixed"'),
        ({"path": "a", "start": "middle"}, "start='middle'; there are: beginning, checkpoint, end"),
        ({"path": "a", "consumer_group": ""}, "a name of 1 to 240 bytes"),
        ({"path": "a", "consumer_group": "a" * 241}, "a name of 1 to 240 bytes"),
        (
            {"path": "a", "consumer_group": "é" * 90},
            "it names the file of positions, where it takes 540 bytes of at most 240 (each byte beyond ASCII",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        FileConsumer(**options)  # type: ignore[arg-type]


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="no option 'folow'; did you mean 'follow'"):
        FileConsumer("a", folow=True)


def test_a_group_that_is_given_later_names_a_file_too() -> None:
    assert FileConsumer("a").as_group("a" * 240).consumer_group == "a" * 240
    with pytest.raises(ConfigError, match="takes 241 bytes of at most 240"):
        FileConsumer("a").as_group("a" * 241)

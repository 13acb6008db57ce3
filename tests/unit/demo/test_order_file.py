"""pythia_fast.demo.order_file: the demo's input is what it says, whole or not there."""

import fcntl
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from benchmarks.data import Order, payloads
from pythia_fast.demo import order_file
from pythia_fast.demo.order_file import CHUNK_ROWS, is_whole, order_file_name, order_lines, write_order_file


def test_lines_have_the_shape_of_the_benchmarks() -> None:
    lines = order_lines(3, 20_000, seed=1).splitlines()
    decode = msgspec.json.Decoder(Order, strict=True).decode
    rows = [decode(line) for line in lines]
    assert [row.order_id for row in rows] == list(range(900_300_001, 900_320_001))
    wanted = sum(map(len, payloads(5_000))) / 5_000
    assert sum(map(len, lines)) / len(lines) == pytest.approx(wanted, abs=1.0)
    assert list(msgspec.json.decode(lines[0])) == list(msgspec.json.decode(payloads(1)[0]))


def test_values_lie_in_their_ranges() -> None:
    rows = [msgspec.json.decode(line, type=Order) for line in order_lines(0, 20_000, seed=7).splitlines()]
    assert all(
        5 <= row.price < 2500 and 1 <= row.qty < 20_000 and 10_000 <= row.customer_id < 10_000_000 for row in rows
    )
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(rows))
    assert {row.symbol for row in rows} == set(order_file.SYMBOLS)
    assert {row.venue for row in rows} == set(order_file.VENUES)
    assert {row.side for row in rows} == {"buy", "sell"}
    assert len({row.price for row in rows}) > 15_000


def test_time_goes_on_across_chunks() -> None:
    last = msgspec.json.decode(order_lines(0, CHUNK_ROWS, seed=1).splitlines()[-1], type=Order)
    first = msgspec.json.decode(order_lines(1, 1, seed=1), type=Order)
    assert last.ts <= first.ts
    assert last.order_id + 1 == first.order_id


def test_fewer_rows_are_a_prefix() -> None:
    assert order_lines(2, 500, seed=1).startswith(order_lines(2, 30, seed=1))


def test_the_seed_decides() -> None:
    assert order_lines(0, 10, seed=1) == order_lines(0, 10, seed=1) != order_lines(0, 10, seed=2)


def test_the_file_is_whole_and_alone(tmp_path: Path) -> None:
    told: list[int] = []
    path = write_order_file(tmp_path / "new", 250_000, tell=told.append)
    assert path.name == order_file_name(250_000, 1)
    assert told == [100_000, 200_000, 250_000]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes().count(b"\n") == 250_000


def test_a_whole_file_is_not_written_again(tmp_path: Path) -> None:
    path = write_order_file(tmp_path, 1_000)
    before = path.stat().st_mtime_ns
    told: list[int] = []
    assert write_order_file(tmp_path, 1_000, tell=told.append) == path
    assert path.stat().st_mtime_ns == before
    assert told == []


def test_two_that_are_made_at_once_in_one_folder_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, lock = threading.Semaphore(0), fcntl.flock

    def flock(fd: int, operation: int) -> None:
        asked.release()
        lock(fd, operation)

    told_first: list[int] = []
    told_second: list[int] = []
    second: list[Future[Path]] = []

    def begin_second(rows: int) -> None:
        told_first.append(rows)
        if not second:
            second.append(threads.submit(write_order_file, tmp_path, 250_000, tell=told_second.append))
            assert all(asked.acquire(timeout=60) for _ in ("first", "second"))

    monkeypatch.setattr(fcntl, "flock", flock)
    with ThreadPoolExecutor(1) as threads:
        path = write_order_file(tmp_path, 250_000, tell=begin_second)
        assert second[0].result() == path
    assert (told_first, told_second) == ([100_000, 200_000, 250_000], [])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


class _StopError(Exception):
    pass


@pytest.mark.parametrize("kept", [0, 5000, -1])
def test_a_file_that_was_cut_is_made_anew(tmp_path: Path, kept: int) -> None:
    path = write_order_file(tmp_path, 1000)
    whole = path.read_bytes()
    assert is_whole(path, 1000)
    assert not is_whole(path, 999)
    path.write_bytes(whole[:kept])
    assert not is_whole(path, 1000)
    write_order_file(tmp_path, 1000)
    assert path.read_bytes() == whole

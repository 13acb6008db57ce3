"""Whole runs in memory: what goes in comes out, once handled and in order, whatever the handler does."""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from collections import Counter

import msgspec
import numpy as np
import psutil
import pytest

from pythia_fast import App, Batch, DeadLetterLimit, RetryPolicy
from pythia_fast._ext.batch_memory import ColumnTooLargeError, decode_rows
from pythia_fast.brokers.memory import MemoryConsumer, MemoryMessage, MemoryProducer
from pythia_fast.errors import ConfigError, HandlerError, PoolError
from tests.support.memory_run import Events, echo, numbers, run, sorted_ints


class Order(msgspec.Struct):
    order_id: int
    price: float
    qty: int


def orders(n: int) -> list[bytes]:
    return [msgspec.json.encode(Order(i, i * 0.5, i % 7)) for i in range(n)]


@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_comes_out_once(tmp_path, ordering, workers):
    messages = [MemoryMessage(b"%d" % i, key=b"k%d" % (i % 11), partition=i % 4) for i in range(5000)]
    report, sink, dead, source = run(
        tmp_path, echo, messages, ordering=ordering, workers=workers, partitions=4, batch_size=64
    )
    assert sorted_ints(sink) == list(range(5000))
    assert dead.records == []
    assert (report.rows, report.crashes, report.ending, report.unfinished) == (5000, 0, "done", 0)
    assert source.committed == {0: 1250, 1: 1250, 2: 1250, 3: 1250}


@pytest.mark.parametrize(("ordering", "lane"), [("partition", lambda i: i % 4), ("key", lambda i: i % 11)])
def test_rows_of_a_lane_stay_in_order(tmp_path, ordering, lane):
    messages = [MemoryMessage(b"%d" % i, key=b"k%d" % (i % 11), partition=i % 4) for i in range(4000)]
    _, sink, _, _ = run(tmp_path, echo, messages, ordering=ordering, workers=3, partitions=4, batch_size=16)
    last = {}
    for payload in sink.payloads:
        i = int(payload)
        assert last.get(lane(i), -1) < i
        last[lane(i)] = i


def test_columns_reach_the_handler_as_views(tmp_path):
    def score(batch):
        assert isinstance(batch, Batch)
        assert batch["price"].dtype == np.float64
        assert not batch["price"].flags.owndata
        return {"order_id": batch["order_id"], "revenue": batch["price"] * batch["qty"]}

    report, sink, _, _ = run(tmp_path, score, orders(3000), schema=Order, decoder="json", batch_size=256)
    scored = {row["order_id"]: row["revenue"] for row in map(msgspec.json.decode, sink.payloads)}
    assert scored == {i: i * 0.5 * (i % 7) for i in range(3000)}
    assert report.rows == 3000


def test_refused_rows_are_dead_lettered_and_their_neighbours_go_on(tmp_path):
    messages = orders(100)
    messages[3] = b'{"order_id": "x"}'
    messages[50] = b""
    messages[99] = b'{"order_id": 1, "price": 1.0, "qty"'
    report, sink, dead, source = run(
        tmp_path, lambda batch: {"id": batch["order_id"]}, messages, schema=Order, decoder="json", batch_size=16
    )
    assert len(sink.records) == 97
    assert sorted(dead.payloads) == sorted([messages[3], messages[50], messages[99]])
    assert (report.rows, report.refused, report.dead_lettered) == (100, 3, 3)
    assert source.committed == {0: 100}


def test_rejected_rows_carry_their_reason(tmp_path):
    def handler(batch):
        values = np.array([int(payload) for payload in batch["payload"].tolist()])
        batch.reject(values % 10 == 3, reason="ends in three")

    report, _, dead, _ = run(tmp_path, handler, numbers(100))
    assert sorted_ints(dead) == list(range(3, 100, 10))
    assert "ends in three" in repr(dead.records[0].headers)
    assert (report.rejected, report.dead_lettered) == (10, 10)


def test_rows_given_back_are_not_sent_on(tmp_path):
    """A rejected row reaches the dead letters only, a retried one the sink once."""
    seen = set()

    def handler(batch):
        values = np.array([int(payload) for payload in batch["payload"].tolist()])
        batch.reject(values % 10 == 3, reason="ends in three")
        batch.retry((values % 10 == 7) & np.array([value not in seen for value in values.tolist()]))
        seen.update(values.tolist())
        return {"value": values}

    report, sink, dead, _ = run(tmp_path, handler, numbers(100), batch_size=16, workers=1)
    sent = sorted(msgspec.json.decode(payload)["value"] for payload in sink.payloads)
    assert sent == [value for value in range(100) if value % 10 != 3]
    assert sorted_ints(dead) == list(range(3, 100, 10))
    assert (report.rejected, report.retried) == (10, 10)


def test_an_exception_costs_only_the_rows_that_raise(tmp_path):
    def handler(batch):
        rows = batch["payload"].tolist()
        if b"17" in rows or b"401" in rows:
            raise ValueError("cannot stand primes")
        return rows

    report, sink, dead, _ = run(tmp_path, handler, numbers(1000), batch_size=128)
    assert sorted_ints(dead) == [17, 401]
    assert "cannot stand primes" in repr(dead.records[0].headers)
    assert sorted_ints(sink) == sorted(set(range(1000)) - {17, 401})
    assert report.crashes == 0


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "reason"), [(ValueError("x \ud800"), "ValueError: x"), (Unspeakable(), "Unspeakable")]
)
def test_an_exception_that_cannot_be_encoded_or_told_costs_its_row(tmp_path, error, reason):
    def handler(batch):
        if b"17" in batch["payload"].tolist():
            raise error

    report, _, dead, _ = run(tmp_path, handler, numbers(100), batch_size=32)
    assert sorted_ints(dead) == [17]
    assert reason in repr(dead.records[0].headers)
    assert report.crashes == 0


def test_a_reason_that_cannot_be_encoded_is_spelled_out(tmp_path):
    _, _, dead, _ = run(tmp_path, lambda batch: batch.reject([1], reason="x \ud800"), numbers(3))
    assert dead.payloads == [b"1"]
    assert "ud800" in repr(dead.records[0].headers)


def test_on_error_dead_letter_gives_up_the_batch(tmp_path):
    def handler(batch):
        if b"5" in batch["payload"].tolist():
            raise ValueError("no fives")

    report, _, dead, _ = run(tmp_path, handler, numbers(64), batch_size=16, on_error="dead_letter")
    assert sorted_ints(dead) == list(range(16))
    assert report.dead_lettered == 16


def test_on_error_stop_ends_the_run_with_the_traceback_and_commits_nothing_of_the_batch(tmp_path):
    def handler(batch):
        raise ValueError("this one stops")

    app = App("test")
    source = MemoryConsumer(numbers(10))
    app.batch_handler(source=source, decoder="raw", name="handler", on_error="stop")(handler)
    with pytest.raises(HandlerError, match="this one stops"):
        app.run(workers=1, until="end", state_dir=tmp_path, drain_timeout=0.2)
    assert source.committed.get(0, 0) == 0


def test_a_result_without_a_sink_is_an_error(tmp_path):
    app = App("test")
    app.batch_handler(source=MemoryConsumer(numbers(3)), decoder="raw", name="handler", dead_letter=MemoryProducer())(
        echo
    )
    with pytest.raises(HandlerError, match="has no sink"):
        app.run(workers=1, until="end", state_dir=tmp_path, drain_timeout=0.2)


def test_retried_rows_come_again_until_their_attempts_are_spent(tmp_path):
    def handler(batch):
        rows = np.array([int(payload) for payload in batch["payload"].tolist()])
        first = batch.attempts == 0
        batch.retry((rows % 10 == 1) & first)  # once
        batch.retry(rows == 55)  # always
        return [b"%d %d" % pair for pair in zip(rows[~(rows % 10 == 1) | ~first], batch.attempts, strict=False)]

    report, _, dead, _ = run(tmp_path, handler, numbers(100), retry=RetryPolicy(max_attempts=3), output_rows="any")
    assert dead.payloads == [b"55"]
    assert "3 of 3" in repr(dead.records[0].headers)
    assert report.retried == 10 + 2


def test_earlier_deliveries_stay_with_their_rows(tmp_path):
    def handler(batch):
        batch.retry((batch.delivery_counts % 3 == 1) & (batch.attempts == 0))
        return [b"%d %d" % pair for pair in zip(batch.delivery_counts, batch.attempts, strict=True)]

    payloads = [MemoryMessage(b"x", deliveries=count) for count in range(40)]
    _, sink, _, _ = run(tmp_path, handler, payloads, retry=RetryPolicy(max_attempts=3), output_rows="any")
    assert sorted(sink.payloads) == sorted(b"%d %d" % (count, count % 3 == 1) for count in range(40))


@pytest.mark.parametrize("size", [10, 3000])
def test_results_larger_than_the_output_region_are_sent_in_parts(tmp_path, size):
    def explode(batch):
        return [payload * size for payload in batch["payload"].tolist() for _ in range(3)]

    options = {"batch_size": 500, "max_batch_bytes": 100_000, "output_rows": "any"}
    _, sink, _, _ = run(tmp_path, explode, [b"0123456789"] * 500, **options)
    assert Counter(sink.payloads) == {b"0123456789" * size: 1500}


def test_a_view_kept_after_the_handler_is_named_and_keeps_its_bytes(tmp_path):
    class Keeper:
        def __init__(self):
            self.kept = []

        def __call__(self, batch):
            now = [bytes(view[:8].tobytes()) for view, _ in self.kept]
            assert now == [before for _, before in self.kept], "a kept view reads another batch's bytes"
            if len(self.kept) < 5:
                view = batch["order_id"]
                self.kept.append((view, bytes(view[:8].tobytes())))
            return {"id": batch["order_id"]}

    events = Events()
    _, sink, dead, _ = run(tmp_path, Keeper, orders(4000), schema=Order, decoder="json", batch_size=50, observer=events)
    assert len(sink.records) == 4000
    assert dead.records == []
    assert any("'order_id' was kept" in line for line in events.lines)


def test_positions_and_topics_are_the_brokers_own(tmp_path):
    def where(batch):
        positions = batch.positions
        return [
            b"%s %s %d %d" % (payload, topic.encode(), partition, offset)
            for payload, topic, (partition, offset) in zip(
                batch["payload"].tolist(), batch.topics, positions.tolist(), strict=True
            )
        ]

    app = App("test")
    sink = MemoryProducer()
    messages = [MemoryMessage(b"%d" % i, partition=i % 3) for i in range(30)]
    source = MemoryConsumer(messages, partitions=3, topic="orders")
    app.batch_handler(source=source, sink=sink, decoder="raw", name="handler", batch_size=7)(where)
    app.run(workers=2, until="end", state_dir=tmp_path)
    assert sorted(sink.payloads) == sorted(b"%d orders %d %d" % (i, i % 3, i // 3) for i in range(30))


def test_setup_and_teardown_run_once_a_process(tmp_path):
    log = tmp_path / "log"

    class Handler:
        def setup(self):
            with log.open("a") as file:
                file.write(f"setup {os.getpid()}\n")

        def __call__(self, batch):
            pass

        def teardown(self):
            with log.open("a") as file:
                file.write(f"teardown {os.getpid()}\n")

    run(tmp_path, Handler, numbers(500), workers=2, batch_size=10)
    lines = log.read_text().split("\n")[:-1]
    assert Counter(line.split()[0] for line in lines) == {"setup": 2, "teardown": 2}
    assert len({line.split()[1] for line in lines}) == 2


def test_a_setup_that_raises_ends_the_run_with_its_traceback(tmp_path):
    class Handler:
        def setup(self):
            raise RuntimeError("no model file")

        def __call__(self, batch):
            pass

    with pytest.raises(PoolError, match="no model file"):
        run(tmp_path, Handler, numbers(3))


@pytest.mark.parametrize("death", ["segv", "kill", "exit", "abort"])
@pytest.mark.parametrize("ordering", ["unordered", "partition", "key"])
def test_a_process_that_dies_costs_one_row(tmp_path, death, ordering):
    def die(batch):
        rows = batch["payload"].tolist()
        if b"123" in rows:
            if death == "exit":
                os._exit(7)
            os.kill(os.getpid(), {"segv": signal.SIGSEGV, "kill": signal.SIGKILL, "abort": signal.SIGABRT}[death])
        return rows

    events = Events()
    messages = [MemoryMessage(b"%d" % i, key=b"k%d" % (i % 5), partition=i % 2) for i in range(400)]
    report, sink, dead, source = run(
        tmp_path, die, messages, ordering=ordering, partitions=2, batch_size=32, observer=events
    )
    assert dead.payloads == [b"123"]
    how = {"segv": "SIGSEGV", "kill": "SIGKILL", "exit": "exit code 7", "abort": "SIGABRT"}[death]
    assert how in repr(dead.records[0].headers)
    assert sorted_ints(sink) == sorted(set(range(400)) - {123})
    assert report.crashes == 3  # with the batch of 32, and twice alone
    assert source.committed == {0: 200, 1: 200}
    assert sum(how in line for line in events.lines) == 3


@pytest.mark.parametrize("killers", [range(0, 1000, 25), range(40), range(960, 1000)], ids=["spread", "first", "last"])
def test_a_batch_may_hold_more_rows_that_kill_than_the_restart_budget(tmp_path, killers):
    poison = {b"%d" % i for i in killers}

    def die(batch):
        rows = batch["payload"].tolist()
        if not poison.isdisjoint(rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    report, sink, dead, source = run(tmp_path, die, numbers(1000), batch_size=1000, batch_timeout=5, workers=1)
    assert set(dead.payloads) == poison
    assert len(dead.records) == 40
    assert sorted_ints(sink) == sorted(set(range(1000)) - set(killers))
    assert report.crashes <= 40 * 4
    assert source.committed == {0: 1000}


@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_a_handler_that_always_kills_pauses_and_ends_a_run_to_the_end_after_its_probes(tmp_path, batch_size):
    def die(batch):
        os.kill(os.getpid(), signal.SIGKILL)

    app = App("test")
    source, dead = MemoryConsumer(numbers(1000)), MemoryProducer()
    limit = DeadLetterLimit(pause=0.01, max_pause=0.02, probes=1)
    app.batch_handler(
        source=source, dead_letter=dead, decoder="raw", name="handler", batch_size=batch_size, dead_letter_limit=limit
    )(die)
    events = Events()
    with pytest.raises(HandlerError, match=r"'handler' got nowhere: 51 rows, one after the other, .*SIGKILL"):
        app.run(workers=2, until="end", state_dir=tmp_path, observer=events)
    assert source.committed[0] <= len(dead.records) <= 2 * 51 + 2
    told = [line for line in events.lines if "reading is paused" in line]
    assert "dead_letter_limit=None" in told[0]
    assert sum("dead_letter_limit=None" in line for line in events.lines) == 1
    assert events.report.pauses == 1


def test_a_handler_that_kills_pauses_alone_and_goes_on_behind_the_rows_that_do(tmp_path):
    killers = 120

    def die_early(batch):
        if any(int(payload) < killers for payload in batch["payload"].tolist()):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch["payload"].tolist()

    app = App("test")
    source, dead, sink, other = MemoryConsumer(numbers(300)), MemoryProducer(), MemoryProducer(), MemoryProducer()
    limit = DeadLetterLimit(pause=0.05, max_pause=0.1)
    options = {"decoder": "raw", "batch_size": 100}
    app.batch_handler(source=source, sink=sink, dead_letter=dead, name="kills", dead_letter_limit=limit, **options)(
        die_early
    )
    app.batch_handler(source=MemoryConsumer(numbers(5000)), sink=other, name="other", **options)(echo)
    events = Events()
    report = app.run(workers=2, until="end", state_dir=tmp_path, observer=events)
    assert sorted_ints(other) == list(range(5000))
    assert sorted_ints(sink) == list(range(killers, 300))
    assert sorted_ints(dead) == list(range(killers))
    assert {part.name: part.pauses for part in report.handlers} == {"kills": 1, "other": 0}
    (told,) = [line for line in events.lines if "what kills its processes, and mend it" in line]  # the way out, once
    assert "kills: reading is paused" in told
    assert "kills: reading goes on" in events.lines


def test_without_a_limit_every_row_may_kill(tmp_path):
    def die(batch):
        os.kill(os.getpid(), signal.SIGKILL)

    report, _, dead, source = run(tmp_path, die, numbers(60), batch_size=16, dead_letter_limit=None)
    assert sorted_ints(dead) == list(range(60))
    assert source.committed == {0: 60}
    assert report.pauses == 0


def test_a_process_that_dies_now_and_then_loses_nothing(tmp_path):
    marker = tmp_path / "died"

    def die_once(batch):
        rows = batch["payload"].tolist()
        if b"50" in rows and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    report, sink, dead, _ = run(tmp_path, die_once, numbers(300), batch_size=20)
    assert sorted_ints(sink) == list(range(300))
    assert dead.records == []
    assert report.crashes == 1


def test_several_handlers_share_the_pool(tmp_path):
    app = App("two")
    sinks = {}
    for name in ("left", "right"):
        sinks[name] = MemoryProducer()
        source = MemoryConsumer([b"%s %d" % (name.encode(), i) for i in range(200)])
        app.batch_handler(source=source, sink=sinks[name], decoder="raw", name=name, batch_size=16)(echo)
    report = app.run(workers=3, until="end", state_dir=tmp_path)
    assert {part.name: (part.rows, part.workers) for part in report.handlers} == {"left": (200, 2), "right": (200, 1)}
    for name, sink in sinks.items():
        assert len(sink.records) == 200
        assert all(payload.startswith(name.encode()) for payload in sink.payloads)
    only = app.run(workers=1, until="end", handlers=["left"], state_dir=tmp_path)
    assert [part.name for part in only.handlers] == ["left"]


def test_a_sink_that_waits_holds_the_source_back_and_loses_nothing(tmp_path):
    app = App("test")
    source, sink = MemoryConsumer(numbers(2000)), MemoryProducer()
    sink.fail_with("the broker is away")
    app.batch_handler(source=source, sink=sink, decoder="raw", name="handler", batch_size=16)(echo)

    class Mend(Events):
        def sample(self, snapshot):
            super().sample(snapshot)
            if snapshot.trouble:
                sink.fail_with(None)

    events = Mend()
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert any("the broker is away" in sentence for snapshot in events.snapshots for sentence in snapshot.trouble)
    assert sorted_ints(sink) == list(range(2000))
    assert report.rows == 2000


def test_a_record_that_the_sink_refuses_is_dead_lettered(tmp_path):
    app = App("test")
    sink, dead = MemoryProducer(), MemoryProducer()
    sink.refuse(lambda record: "too large for the broker" if record.payload == b"7" else None)
    app.batch_handler(source=MemoryConsumer(numbers(20)), sink=sink, dead_letter=dead, decoder="raw", name="h")(echo)
    report = app.run(workers=1, until="end", state_dir=tmp_path)
    assert dead.payloads == [b"7"]
    assert "too large for the broker" in repr(dead.records[0].headers)
    assert sorted_ints(sink) == [i for i in range(20) if i != 7]
    assert report.dead_lettered == 1


def test_a_payload_larger_than_a_batch_is_dead_lettered_whole(tmp_path):
    big = os.urandom(3_000_000).hex().encode()
    _, sink, dead, source = run(tmp_path, echo, [b"1", big, b"2"], max_batch_bytes=1_000_000)
    assert sorted_ints(sink) == [1, 2]
    assert dead.payloads == [big]
    assert source.committed == {0: 3}
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers=0: a whole number of processes from 1 to 1,024, or 'auto'"),
        ({"workers": "all"}, "workers='all': a whole number of processes from 1 to 1,024, or 'auto'"),
        ({"workers": None}, "workers=None"),
        ({"workers": True}, "workers=True"),
        ({"workers": 10**9}, "workers=1000000000"),
        ({"until": "sometime"}, "until='sometime'; there are: end, forever"),
        ({"until": 3}, "until=3; there are: end, forever"),
        ({"handlers": ["handlr"]}, "did you mean 'handler'"),
        ({"handlers": "handler"}, "handlers='handler': a list of handlers' names"),
        ({"handlers": []}, "handlers=.*leave it out to run all"),
        ({"handlers": ["handler", "handler"]}, "handlers=.*each once"),
        ({"handlers": 3}, "handlers=3"),
        ({"handlers": [3]}, "has no handler 3"),
        ({"start_method": "magic"}, "start_method"),
        ({"start_method": None}, "start_method=None; there are: auto, fork"),
        ({"start_method": "spawn"}, "module-level name"),
        ({"state_dir": ""}, "state_dir='': a path"),
        ({"state_dir": 3}, "state_dir=3: a path"),
        ({"drain_timeout": -1}, "drain_timeout=-1: seconds, from 0"),
        ({"drain_timeout": math.nan}, "drain_timeout=nan"),
        ({"drain_timeout": math.inf}, "drain_timeout=inf"),
        ({"drain_timeout": None}, "drain_timeout=None"),
        ({"drain_timeout": "30"}, "drain_timeout='30'"),
        ({"connect_timeout": math.nan}, "connect_timeout=nan: seconds"),
        ({"connect_timeout": False}, "connect_timeout=False"),
        ({"observer": 3}, "observer=3: an object with the methods started"),
        ({"wrokers": 3}, "App.run has no option 'wrokers'; did you mean 'workers'"),
    ],
)
def test_options_of_run_that_cannot_work_are_refused(tmp_path, options, message):
    app = App("test")
    app.batch_handler(source=MemoryConsumer([]), decoder="raw", name="handler")(echo)
    with pytest.raises(ConfigError, match=message):
        app.run(**{"until": "end", "state_dir": tmp_path, **options})


class Item(msgspec.Struct):
    label: str = "x" * 1000


class Parcel(msgspec.Struct):
    number: int
    items: list[Item] = []


@pytest.mark.parametrize("largest", [None, 2], ids=["in one piece", "in halves"])
def test_rows_too_wide_for_the_slot_all_at_once_are_handled_once_each(tmp_path, monkeypatch, largest):
    """Each label is a default of 1,000 bytes, 64 KiB of it fit the slot, and the batch has 200 KB of them."""
    if largest is not None:

        def limited(memory, decoder, rows, attempts):
            if len(rows) > largest:  # as if they came to more than 2 GiB
                raise ColumnTooLargeError("a column would hold more than 2 GiB")
            return decode_rows(memory, decoder, rows, attempts)

        monkeypatch.setattr("pythia_fast.pool.rows.decode_rows", limited)

    def labels(batch):
        counts = np.diff(batch["items"].offsets)
        assert len(batch["items[].label"]) == counts.sum()
        return [b"%d %d" % pair for pair in zip(batch["number"].tolist(), counts.tolist(), strict=True)]

    messages = [b'{"number":%d,"items":[{},{}]}' % i for i in range(100)]
    messages[50] = b"not json"
    report, sink, dead, source = run(
        tmp_path, labels, messages, schema=Parcel, decoder="json", batch_size=100, max_batch_bytes=65536, workers=1
    )
    assert sorted(sink.payloads) == sorted(b"%d 2" % i for i in range(100) if i != 50)
    assert dead.payloads == [b"not json"]
    assert (report.rows, report.refused, report.dead_lettered, report.batches) == (100, 1, 1, 1)
    assert source.committed == {0: 100}


def test_too_little_shared_memory_is_told_with_what_to_lower(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(
            ConfigError, match=r"handler 'handler': no shared memory .* 2 processes: .*lower batch_size"
        ):
            run(tmp_path, echo, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_batch_kept_by_a_handler_that_raised_cannot_be_read_later(tmp_path):
    held = []

    def keep(batch):
        told = []
        for old in held:
            try:
                told.append(str(old["payload"].tolist()))
            except HandlerError as error:
                told.append(str(error))
        held.append(batch)
        if len(held) == 1:
            raise ValueError("no")
        return [text.encode() for text in told]

    _, sink, dead, _ = run(
        tmp_path, keep, numbers(20), batch_size=4, workers=1, on_error="dead_letter", output_rows="any"
    )
    assert len(dead.records) == 4
    assert set(sink.payloads) == {b"this batch is over; copy what is to be kept while the handler runs"}


def test_an_observer_that_raises_stops_the_run_in_order(tmp_path):
    class Refusing(Events):
        def event(self, text):
            super().event(text)
            if "exit code 7" in text:
                raise RuntimeError("cannot tell")

    def dies_once(batch):
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(7)
        return batch["payload"].tolist()

    observer = Refusing()
    with pytest.raises(RuntimeError, match="cannot tell"):
        run(tmp_path / "state", dies_once, numbers(100), workers=1, observer=observer)
    assert (observer.report.ending, observer.report.error) == ("failed", "cannot tell")
    assert observer.report.unfinished == 0


def test_the_first_signal_after_an_observer_has_failed_drains(tmp_path):
    class Refusing(Events):
        def event(self, text):
            super().event(text)
            if "exit code 7" in text:
                raise RuntimeError("cannot tell")

    runtime = os.getpid()

    def signals_once(batch):
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(7)
        if not (tmp_path / "signalled").exists():
            (tmp_path / "signalled").touch()
            os.kill(runtime, signal.SIGTERM)
            time.sleep(0.5)  # a run that is killed would not wait for that
        return batch["payload"].tolist()

    observer = Refusing()
    with pytest.raises(RuntimeError, match="cannot tell"):
        run(tmp_path / "state", signals_once, numbers(100), workers=1, batch_size=10, observer=observer)
    assert "SIGTERM: draining; the same again stops at once" in observer.lines
    assert (observer.report.ending, observer.report.unfinished) == ("failed", 0)


def test_a_batch_that_is_over_and_used_again_costs_the_rows_that_used_it(tmp_path):
    held = []

    def use(batch):
        if held and b"7" in [bytes(payload) for payload in batch.raw]:
            held[0]["payload"]
        held.append(batch)
        return batch.raw

    report, sink, dead, _ = run(tmp_path, use, numbers(20), batch_size=4, workers=1)
    assert dead.payloads == [b"7"]
    assert "this batch is over" in repr(dead.records[0].headers)
    assert sorted_ints(sink) == [value for value in range(20) if value != 7]
    assert report.ending == "done"


@pytest.mark.parametrize("how", ["one view at a time", "a reference cycle"])
def test_views_that_are_let_go_give_their_memory_back(tmp_path, how):
    """Each batch leaves a view behind; without its end 300 batches would keep some 300 MB."""
    kept = {}

    def look(batch):
        if how == "one view at a time":
            kept["last"] = batch["payload"]
        else:
            try:
                batch["payload"].tolist()[10**6]
            except IndexError as error:
                problem = error  # noqa: F841 - its traceback holds this frame, which holds it
                column = batch["payload"]  # noqa: F841
        return [b"%d" % (psutil.Process().memory_info().rss // 1_000_000)] * len(batch)

    events = Events()
    payload = b"x" * 1000
    _, sink, _, _ = run(tmp_path, look, [payload] * 300_000, batch_size=1000, workers=1, observer=events)
    megabytes = [int(text) for text in sink.payloads[::1000]]
    assert max(megabytes) - megabytes[20] < 100
    assert any("was kept" in line for line in events.lines) == (how == "one view at a time")


def test_attempts_count_the_deaths_before(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()

    def die_twice(batch):
        tries = len(list(marks.iterdir()))
        (marks / str(tries)).write_text("")
        if tries < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return [b"%d" % attempt for attempt in batch.attempts.tolist()]

    report, sink, _, _ = run(tmp_path, die_twice, numbers(3), workers=1)
    assert sink.payloads == [b"2", b"1", b"1"]  # the second death met the first row alone
    assert report.crashes == 2


def test_a_teardown_that_ends_the_process_is_told(tmp_path):
    class Leaves:
        def __call__(self, batch):
            return None

        def teardown(self):
            os._exit(9)

    app, events = App("test"), Events()
    app.batch_handler(source=MemoryConsumer(numbers(3)), decoder="raw", name="leaves")(Leaves)
    report = app.run(workers=1, until="end", state_dir=tmp_path, observer=events)
    assert (report.ending, report.rows) == ("done", 3)
    assert any("exit code 9 after its last batch, in teardown()" in line for line in events.lines)


def test_the_report_tells_where_the_dead_letters_went(tmp_path):
    def reject(batch):
        batch.reject([0], reason="no")

    app = App("test")
    app.batch_handler(source=MemoryConsumer(numbers(2)), decoder="raw", name="one")(reject)
    app.batch_handler(source=MemoryConsumer(numbers(2)), decoder="raw", name="two", dead_letter=MemoryProducer())(
        reject
    )
    app.batch_handler(source=MemoryConsumer(numbers(2)), decoder="raw", name="three")(lambda batch: None)
    one, two, three = app.run(workers=3, until="end", state_dir=tmp_path).handlers
    assert one.dead_letters == (f"file {tmp_path / 'dead-letters' / 'one.ndjson'}",)
    assert two.dead_letters == (MemoryProducer().describe(),)
    assert three.dead_letters == ()

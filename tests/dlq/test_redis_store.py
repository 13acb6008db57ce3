"""Dead letters in a real Redis stream: read a page at a time, and deleted one by one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast import RedisStreamsProducer
from pythia_fast.brokers.framing import encode_headers
from pythia_fast.brokers.redis import RedisStreamsConsumer
from pythia_fast.dlq import redis_store, work
from pythia_fast.dlq.fields import Fields
from pythia_fast.dlq.filters import Filter
from pythia_fast.dlq.redis_store import RedisStore, parse_id, spell_id
from pythia_fast.dlq.redis_target import RedisTarget
from pythia_fast.dlq.work import Outcome, Terms, requeue
from pythia_fast.errors import ConfigError, SinkError, SourceError
from pythia_fast.runtime.dead_letter_form import DeadLetter
from tests.support.kafka_broker import free_ports
from tests.support.letters import LETTER, letter, send_letters
from tests.support.redis_server import RedisServerProcess
from tests.support.tcp_proxy import TcpProxy

_numbers = itertools.count()


class Streams:
    """A stream of letters, and one that they came from, which no other test uses."""

    def __init__(self, server: RedisServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.client = server.client()
        number = next(_numbers)
        self.dead, self.source = f"dead-{number}", f"source-{number}"

    def add(self, *letters: DeadLetter, fields: Fields = Fields()) -> None:  # noqa: B008  # immutable
        sink = RedisStreamsProducer(self.dead, url=self.server.url, payload_field=fields.payload, key_field=fields.key)
        send_letters(sink, self.folder, *letters)

    def store(self, url: str | None = None, **options: object) -> RedisStore:
        server = RedisStreamsConsumer("any", url=url or self.server.url, timeout=30.0 if url is None else 0.5).server
        return RedisStore(self.dead, server, state_dir=self.folder, **options)  # type: ignore[arg-type]

    def target(self, stream: str | None = None) -> RedisTarget:
        server = RedisStreamsConsumer("any", url=self.server.url).server
        return RedisTarget(server, stream, fields=lambda _: Fields(), timeout_s=30.0)

    def payloads(self) -> list[bytes | None]:
        with contextlib.closing(self.store()) as store:
            return [entry.stored.letter().payload for entry in store.entries()]


@pytest.fixture
def streams(redis: RedisServerProcess, tmp_path: Path) -> Iterator[Streams]:
    made = Streams(redis, tmp_path)
    yield made
    made.client.close()


def test_letters_are_read_byte_for_byte_in_the_order_of_the_stream(streams: Streams) -> None:
    again = encode_headers([("a", b"1"), ("a", b"2"), ("redis-id", b"7-0"), ("key", b"no key")])
    letters = [
        LETTER._replace(headers=again),
        letter(key=None, payload=b"", headers=b""),
        letter(key=b"\xff", headers=b""),
    ]
    streams.add(*letters)
    store = streams.store()
    entries = list(store.entries())
    assert store.progress() == (3, 3)
    store.close()
    assert [entry.stored.letter() for entry in entries] == letters
    names = [name.decode() for name, _ in streams.client.xrange(streams.dead)]
    assert [store.locate(entry.place) for entry in entries] == [
        f"redis stream {streams.dead}, entry {name}" for name in names
    ]
    assert not (streams.folder / "dlq").exists()


def test_pages_are_as_small_as_their_entries_are_large(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    streams.add(*(letter(payload=b"x" * size, offset=size) for size in (10, 2000, 3000, 10, 10, 20)))
    asked: list[int] = []
    store = streams.store()
    ask = store._asking.ask

    def noted(*command: str | int, **options: object) -> object:
        if command[0] == "XRANGE":
            asked.append(int(command[-1]))
        return ask(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store._asking, "ask", noted)
    monkeypatch.setattr(redis_store, "PAGE_ENTRIES", 2)
    monkeypatch.setattr(redis_store, "PAGE_BYTES", 2000)
    assert [entry.stored.offset for entry in store.entries()] == [10, 2000, 3000, 10, 10, 20]
    store.close()
    assert asked == [2, 1, 1, 1, 1]


def test_what_comes_while_it_is_read_is_left_for_later(streams: Streams) -> None:
    streams.add(LETTER, LETTER)
    store = streams.store()
    reading = store.entries()
    next(reading)
    streams.add(LETTER)
    assert len(list(reading)) == 1
    store.close()
    assert len(streams.payloads()) == 3


def test_those_dealt_with_are_deleted_and_no_others(streams: Streams) -> None:
    streams.add(*(letter(payload=b"%d" % n) for n in range(6)))
    streams.client.xadd(streams.dead, {"data": "foreign"})
    store = streams.store()
    with store.claim():
        wanted = [entry.place for entry in store.entries() if entry.stored.payload in ("0", "3", "5")]
        assert store.settle(wanted, archive=True) == []
    assert streams.payloads() == [b"1", b"2", b"4"]
    assert streams.client.xlen(streams.dead) == 4
    assert store.foreign == 1
    told = f"1 entry of redis stream {streams.dead} without pf-* fields, or without a payload in field 'data', is"
    assert store.describe_foreign().startswith(told.removesuffix(", is"))


def test_one_entry_is_found_by_its_id(streams: Streams) -> None:
    streams.add(*(letter(payload=b"%d" % n) for n in range(3)))
    name = streams.client.xrange(streams.dead)[1][0].decode()
    for entry, found in ((name, [b"1"]), ("1-1", [])):
        store = streams.store(entry=entry)
        assert [each.stored.letter().payload for each in store.entries()] == found
        store.close()
    with pytest.raises(ConfigError, match="--entry '12-x': write the id of an entry"):
        streams.store(entry="12-x")


def test_ids_keep_their_order_as_numbers() -> None:
    names = ["0-1", "1-0", "1-18446744073709551615", "2-0", "18446744073709551615-18446744073709551615"]
    assert [spell_id(parse_id(name)) for name in names] == names
    assert sorted(map(parse_id, names)) == list(map(parse_id, names))


def test_fields_of_other_names(streams: Streams) -> None:
    fields = Fields("body", "id")
    streams.add(LETTER, fields=fields)
    assert streams.payloads() == []
    store = streams.store(fields=fields)
    (entry,) = store.entries()
    store.close()
    assert (entry.stored.payload, entry.stored.key) == ('{"price":"x"}', "k")


def test_messages_go_back_to_their_stream_and_their_letters_are_deleted(streams: Streams) -> None:
    streams.client.xadd(streams.source, {"data": "first"})
    headers = encode_headers([("redis-id", b"5-0"), ("trace", b"1")])
    streams.add(letter(topic=streams.source, headers=headers), letter(topic="no-such-stream"))
    outcome = Outcome()
    requeue(streams.store(), streams.target(), Terms(Filter(), 3), outcome, lambda: None)
    assert outcome.sent == {f"redis stream {streams.source}": 1}
    ((why, count),) = outcome.left_out.items()
    assert count == 1
    assert why.startswith(f"there is no redis stream no-such-stream at 127.0.0.1:{streams.server.port}: see whether")
    assert streams.client.xlen(streams.dead) == 1
    (_, (_, fields)) = streams.client.xrange(streams.source)
    assert fields == {b"data": LETTER.payload, b"key": b"k", b"trace": b"1", b"pf-requeued": b"1"}
    assert not streams.client.exists("no-such-stream")


def test_letters_are_deleted_a_part_at_a_time_and_only_once_they_were_sent(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PART", 100)
    streams.client.xadd(streams.source, {"data": "first"})
    streams.add(*(letter(topic=streams.source, payload=b"%d" % n, headers=b"") for n in range(2_000)))
    store, left = streams.store(), []
    settle = store.settle

    def noted(places: list[object], *, archive: bool) -> list[str]:
        told = settle(places, archive=archive)  # type: ignore[arg-type]
        left.append((streams.client.xlen(streams.dead), streams.client.xlen(streams.source) - 1))
        return told

    monkeypatch.setattr(store, "settle", noted)
    requeue(store, streams.target(), Terms(Filter(), 3), Outcome(), lambda: None)
    assert len(left) > 2
    assert all(letters + sent >= 2_000 for letters, sent in left)
    assert left[-1] == (0, 2_000)
    there = [fields[b"data"] for _, fields in streams.client.xrange(streams.source)[1:]]
    assert there == [b"%d" % n for n in range(2_000)]


def test_two_commands_do_not_deal_with_one_stream_at_once(streams: Streams) -> None:
    streams.add(LETTER)
    with streams.store().claim():
        with (
            pytest.raises(SinkError, match=f"another dlq command deals with letters of redis stream {streams.dead} at"),
            streams.store().claim(),
        ):
            pass
        assert streams.payloads() == [LETTER.payload]
    streams.dead = "long" * 1000
    with streams.store().claim():
        assert all(len(path.name) < 255 for path in (streams.folder / "dlq").iterdir())


def test_what_is_not_there_is_named(streams: Streams) -> None:
    at = f"127.0.0.1:{streams.server.port}"
    with pytest.raises(SourceError, match=f"there is no redis stream {streams.dead} at {at}: see whether its name"):
        streams.payloads()
    store = streams.store(may_lack=True)
    assert list(store.entries()) == []
    store.close()
    streams.client.set(streams.dead, "text")
    with pytest.raises(SourceError, match=f"Redis at {at}: the key {streams.dead} holds a string, not a stream"):
        streams.payloads()
    (port,) = free_ports(1)
    with pytest.raises(SourceError, match=rf"no Redis answers at 127.0.0.1:{port} \(.*\): is it running, and is"):
        next(streams.store(f"redis://127.0.0.1:{port}/0").entries())


def test_a_server_that_goes_away_leaves_the_letters(streams: Streams) -> None:
    streams.client.xadd(streams.source, {"data": "first"})
    streams.add(*(letter(topic=streams.source, payload=b"%d" % n) for n in range(3)))
    with TcpProxy(streams.server.port) as proxy:
        store = streams.store(f"redis://127.0.0.1:{proxy.port}/0")
        with store.claim():
            places = [entry.place for entry in store.entries()]
            proxy.cut()
            store.settle(places[:1], archive=True)  # by a new connection: deleting twice does no harm
            proxy.refuse()
            proxy.cut()
            with pytest.raises(SinkError, match=f"no Redis answers at 127.0.0.1:{proxy.port}"):
                store.settle(places[1:], archive=True)
    assert streams.payloads() == [b"1", b"2"]

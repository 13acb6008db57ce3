"""Dead letters in a real RabbitMQ queue: looked at without losing any, acknowledged once dealt with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pythia_fast import RabbitMQProducer
from pythia_fast.brokers.framing import decode_headers, encode_headers
from pythia_fast.brokers.rabbitmq import RabbitMQConsumer
from pythia_fast.dlq import work
from pythia_fast.dlq.file_store import FileStore
from pythia_fast.dlq.filters import Filter
from pythia_fast.dlq.original import message_of
from pythia_fast.dlq.rabbitmq_store import RabbitMqStore
from pythia_fast.dlq.rabbitmq_target import RabbitMqTarget
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.work import Outcome, Terms, requeue
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.runtime.dead_letter_form import DeadLetter, stored_letter
from tests.support.kafka_broker import free_ports
from tests.support.letters import LETTER, TIME, letter, send_letters, write_letters
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import READ_ONLY_USER, RabbitMqServer
from tests.support.tcp_proxy import TcpProxy

Declare = Callable[..., Queue]
TERMS = Terms(Filter(), max_requeues=3)


@pytest.fixture
def declare(rabbitmq: RabbitMqServer) -> Iterator[Declare]:
    """Declare a queue that no other test uses."""
    made: list[Queue] = []

    def declared(**options: object) -> Queue:
        made.append(Queue(rabbitmq, **options))
        return made[-1]

    yield declared
    for each in made:
        each.close()


def send(queue: Queue, folder: Path, *letters: DeadLetter) -> None:
    send_letters(RabbitMQProducer(queue.name, url=queue.server.url), folder, *letters)


def store_of(queue: Queue | str, url: str, timeout_s: float = 30.0) -> RabbitMqStore:
    name = queue if isinstance(queue, str) else queue.name
    return RabbitMqStore(name, RabbitMQConsumer("any", url=url).address, timeout_s=timeout_s)


def payloads_of(store: RabbitMqStore) -> list[bytes | None]:
    with contextlib.closing(store):
        return [entry.stored.letter().payload for entry in store.entries()]


def payloads(queue: Queue) -> list[bytes | None]:
    return payloads_of(store_of(queue, queue.server.url))


def target_of(queue: Queue, name: str | None = None) -> RabbitMqTarget:
    return RabbitMqTarget(RabbitMQConsumer("any", url=queue.server.url).address, name, timeout_s=30.0)


def numbered(count: int, **fields: object) -> list[DeadLetter]:
    return [letter(payload=b"%d" % number, **fields) for number in range(count)]


def test_letters_are_read_byte_for_byte_and_go_back_in_their_order(queue: Queue, tmp_path: Path) -> None:
    other = letter(payload=b"\x00\xff", key=None, headers=encode_headers([("n", None), ("\udcff", b"\xfe")]))
    send(queue, tmp_path, LETTER, other, *numbered(50))
    for _ in range(3):
        store = store_of(queue, queue.server.url)
        entries = list(store.entries())
        assert queue.count() == 0  # they are in this command's hands
        assert store.progress() == (52, 52)
        store.close()
        assert queue.count() == 52
        found = [entry.stored.letter() for entry in entries]
        assert found[:2] == [LETTER._replace(key=None), other]  # a queue has no room for a key
        assert [each.payload for each in found[2:]] == [b"%d" % number for number in range(50)]
        assert store.locate(entries[1].place) == f"rabbitmq queue {queue.name}, message 2 from its head"


def test_the_routing_key_of_an_exchange_is_the_key(queue: Queue, tmp_path: Path) -> None:
    queue.channel.exchange_declare("letters", "topic")
    queue.channel.queue_bind(queue.name, "letters", "#")
    send_letters(RabbitMQProducer(exchange="letters", url=queue.server.url), tmp_path, LETTER)
    store = store_of(queue, queue.server.url)
    assert [entry.stored.letter() for entry in store.entries()] == [LETTER]
    store.close()


def test_reading_that_is_broken_off_loses_nothing(queue: Queue, tmp_path: Path) -> None:
    send(queue, tmp_path, *numbered(5))
    store = store_of(queue, queue.server.url)
    reading = store.entries()
    next(reading)
    next(reading)
    send(queue, tmp_path, letter(payload=b"later"))
    store.close()
    reading.close()
    assert payloads(queue) == [b"0", b"1", b"2", b"3", b"4", b"later"]


def test_what_comes_while_it_is_read_is_left_for_later(queue: Queue, tmp_path: Path) -> None:
    send(queue, tmp_path, *numbered(2))
    store = store_of(queue, queue.server.url)
    reading = store.entries()
    next(reading)
    send(queue, tmp_path, LETTER)
    assert len(list(reading)) == 1
    store.close()
    assert len(payloads(queue)) == 3


def test_those_dealt_with_are_removed_and_no_others(queue: Queue, tmp_path: Path) -> None:
    send(queue, tmp_path, *numbered(6))
    queue.publish([b"foreign"], headers={"pf-reason": "no more than that", "n": 1, "list": [1]})
    store = store_of(queue, queue.server.url)
    with store.claim():
        wanted = [entry.place for entry in store.entries() if entry.stored.payload in ("0", "3", "4")]
        assert store.settle(wanted, archive=True) == []
    assert payloads(queue) == [b"1", b"2", b"5"]
    assert queue.count() == 4
    assert store.foreign == 1
    told = f"1 message of rabbitmq queue {queue.name} without pf-* headers is no dead letter, and left alone"
    assert store.describe_foreign() == told


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_quorum_queue_does_not_throw_away_what_is_looked_at_often(
    declare: Declare, tmp_path: Path, limit: int
) -> None:
    queue = declare(arguments={"x-queue-type": "quorum", "x-delivery-limit": limit})
    send(queue, tmp_path, *numbered(3), LETTER)
    for _ in range(2 * limit + 3):
        assert sorted(map(bytes, filter(None, payloads(queue)))) == [b"0", b"1", b"2", LETTER.payload]
    store = store_of(queue, queue.server.url)
    last = next(entry.stored for entry in store.entries() if entry.stored.payload == '{"price":"x"}')
    store.close()
    # The server sorts headers when it adds one of its own.
    headers = encode_headers(sorted(decode_headers(LETTER.headers)))
    assert last.letter() in (LETTER._replace(key=None), LETTER._replace(key=None, headers=headers))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_many_are_back_when_the_command_ends(declare: Declare, tmp_path: Path, kind: str) -> None:
    """Neither some time later, nor after the minutes that a classic queue takes for many that are nacked."""
    queue = declare(arguments={"x-queue-type": kind})
    send(queue, tmp_path, *numbered(500))
    for _ in range(2):
        found = payloads(queue)
        assert queue.count() == 500
        assert set(found) == {b"%d" % number for number in range(500)}
        if kind == "classic":  # a quorum queue promises no order
            assert found == [b"%d" % number for number in range(500)]


def test_a_quorum_queue_that_keeps_nothing_that_is_put_back_is_refused(declare: Declare, tmp_path: Path) -> None:
    queue = declare(arguments={"x-queue-type": "quorum", "x-delivery-limit": 0})
    send(queue, tmp_path, LETTER)
    with pytest.raises(SourceError, match="has x-delivery-limit 0: it would throw away what is looked at"):
        payloads(queue)
    assert queue.count() == 1


def test_messages_go_back_to_their_queue_and_their_letters_are_removed(declare: Declare, tmp_path: Path) -> None:
    dead, source = declare(), declare()
    headers = encode_headers([("trace", b"1"), ("x-death", b"2"), ("empty", None)])
    send(dead, tmp_path, letter(topic=source.name, headers=headers), letter(topic="no-such-queue"))
    send(dead, tmp_path, letter(topic="long" * 100))
    outcome = Outcome()
    requeue(store_of(dead, dead.server.url), target_of(dead), TERMS, outcome, lambda: None)
    assert outcome.sent == {f"rabbitmq queue {source.name}": 1}
    lacking, long = outcome.left_out
    assert lacking.startswith(
        f"there is no rabbitmq queue no-such-queue at 127.0.0.1:{dead.server.port}, virtual host /"
    )
    assert long.startswith("no rabbitmq queue can have the name longlong")
    assert dead.count() == 2
    method, properties, body = source.channel.basic_get(source.name, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == ("", source.name, LETTER.payload)
    assert properties.headers == {"trace": "1", "empty": None, "pf-requeued": "1"}
    assert properties.delivery_mode == 2


def test_headers_that_the_server_would_refuse_are_left_out(queue: Queue, tmp_path: Path) -> None:
    headers = encode_headers([("CC", b'["x"]'), ("a", b"1"), ("x-delivery-count", b"2"), ("a", b"2")])
    path = write_letters(tmp_path / "dead.ndjson", letter(headers=headers))
    outcome = Outcome()
    requeue(FileStore(path), target_of(queue, queue.name), TERMS, outcome, lambda: None)
    assert outcome.sent == {f"rabbitmq queue {queue.name}": 1}
    _, properties, _ = queue.channel.basic_get(queue.name, auto_ack=True)
    assert set(properties.headers) == {"a", "pf-requeued"}


def test_letters_are_removed_a_part_at_a_time_and_only_once_they_were_sent(
    declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PART", 100)
    dead, source = declare(), declare()
    send(dead, tmp_path, *numbered(2_000, topic=source.name))
    store, sent, settled = store_of(dead, dead.server.url), [], []
    settle = store.settle

    def noted(places: list[Place], *, archive: bool) -> list[str]:
        settled.append(len(places))
        sent.append(source.count())
        return settle(places, archive=archive)

    monkeypatch.setattr(store, "settle", noted)
    requeue(store, target_of(dead), TERMS, Outcome(), lambda: None)
    assert len(settled) > 2
    assert sum(settled) == 2_000
    assert all(there >= sum(settled[: index + 1]) for index, there in enumerate(sent))
    assert dead.count() == 0
    bodies = [source.channel.basic_get(source.name, auto_ack=True)[2] for _ in range(2_000)]
    assert bodies == [b"%d" % number for number in range(2_000)]


def test_a_connection_that_is_lost_leaves_the_letters(queue: Queue, tmp_path: Path) -> None:
    send(queue, tmp_path, *numbered(3))
    with TcpProxy(queue.server.port) as proxy:
        url = queue.server.url_for("pythia", port=proxy.port)
        store = store_of(queue, url)
        places = [entry.place for entry in store.entries()]
        proxy.cut()
        with pytest.raises(SinkError, match=rf"RabbitMQ at 127.0.0.1:{proxy.port}"):
            store.settle(places, archive=True)
        with pytest.raises(SinkError, match=f"the connection to RabbitMQ at 127.0.0.1:{proxy.port} is gone"):
            store.settle(places, archive=True)
    assert payloads(queue) == [b"0", b"1", b"2"]


def test_a_server_that_says_nothing_is_given_up(queue: Queue, tmp_path: Path) -> None:
    send(queue, tmp_path, *numbered(3))
    with TcpProxy(queue.server.port) as proxy:
        store = store_of(queue, queue.server.url_for("pythia", port=proxy.port), timeout_s=1.0)
        reading = store.entries()
        next(reading)
        proxy.freeze()
        with pytest.raises(SourceError, match="did not answer within 1 s when it was asked to get from queue"):
            next(reading)
        store.close()
    assert len(payloads(queue)) == 3


def test_what_is_not_there_is_named(rabbitmq: RabbitMqServer, queue: Queue) -> None:
    at = f"127.0.0.1:{rabbitmq.port}, virtual host /"
    with pytest.raises(SourceError, match=f"there is no rabbitmq queue none at {at}: see whether its name and the"):
        payloads_of(store_of("none", rabbitmq.url))
    (port,) = free_ports(1)
    away = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
    with pytest.raises(SourceError, match=rf"RabbitMQ at 127.0.0.1:{port} cannot be reached: .*: is it running"):
        payloads_of(store_of(queue, away, 2.0))
    with pytest.raises(SourceError, match="refuses user 'pythia': is the password right"):
        payloads_of(store_of(queue, rabbitmq.url_for("pythia", "wrong")))
    target = RabbitMqTarget(RabbitMQConsumer("any", url=away).address, "orders", timeout_s=2.0)
    with pytest.raises(SinkError, match=rf"RabbitMQ at 127.0.0.1:{port} cannot be reached"):
        target.obstacle(message_of(stored_letter(LETTER, "shop", "score", TIME)))


def test_a_stream_cannot_be_read_so_and_is_told(declare: Declare) -> None:
    queue = declare(arguments={"x-queue-type": "stream"})
    queue.publish([b"x"])
    with pytest.raises(SourceError, match="is a stream, from which no letter can be taken"):
        payloads(queue)


def test_who_may_only_read_can_look(declare: Declare, tmp_path: Path) -> None:
    queue = declare()
    send(queue, tmp_path, LETTER)
    store = store_of(queue, queue.server.url_for(READ_ONLY_USER))
    assert len(list(store.entries())) == 1
    store.close()
    assert queue.count() == 1

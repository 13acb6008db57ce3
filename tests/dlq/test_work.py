"""Sending again: to real Kafka topics and files, and what is dealt with when it is cut short."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pythia_fast.brokers.framing import encode_headers
from pythia_fast.brokers.kafka_client import KafkaAccess
from pythia_fast.dlq import kafka_target as sending
from pythia_fast.dlq.file_store import FileStore
from pythia_fast.dlq.file_target import FileTarget
from pythia_fast.dlq.filters import Filter
from pythia_fast.dlq.kafka_target import KafkaTarget
from pythia_fast.dlq.target import DryRun, RequeueTarget
from pythia_fast.dlq.work import Outcome, Terms, requeue
from pythia_fast.errors import SinkError
from pythia_fast.runtime.dead_letter import read_dead_letters
from tests.support.kafka_broker import KafkaBroker, free_ports
from tests.support.letters import LETTER, letter, messages_of, write_letters
from tests.support.tcp_proxy import TcpProxy

NewTopic = Callable[..., str]
TERMS = Terms(Filter(), max_requeues=3)
OWN = [("trace", b"1"), ("raw", b"\x00\xff"), ("empty", None)]


def kafka_target(kafka: KafkaBroker, topic: str | None = None, *, same_partition: bool = False) -> KafkaTarget:
    access = KafkaAccess({"bootstrap.servers": kafka.bootstrap_servers}, 30.0)
    return KafkaTarget(access, topic=topic, same_partition=same_partition)


def work(path: Path, target: RequeueTarget, terms: Terms = TERMS) -> Outcome:
    outcome = Outcome()
    requeue(FileStore(path), target, terms, outcome, lambda: None)
    return outcome


def left_in(path: Path) -> list[bytes | None]:
    return [stored.letter().payload for stored in read_dead_letters(path)]


def test_messages_go_back_to_the_topics_that_they_came_from(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    first, second = new_topic(), new_topic()
    path = write_letters(tmp_path / "dead", letter(topic=first), letter(topic=second, payload=None, key=b"\xff"))
    outcome = work(path, kafka_target(kafka))
    assert outcome.sent == {f"kafka topic {first}": 1, f"kafka topic {second}": 1}
    assert left_in(path) == []
    assert left_in(Path(f"{path}.done")) == [LETTER.payload, None]
    (message,) = messages_of(kafka.bootstrap_servers, first)
    assert (message.key(), message.value()) == (b"k", LETTER.payload)
    assert message.headers() == [*OWN, ("pf-requeued", b"1")]
    (message,) = messages_of(kafka.bootstrap_servers, second)
    assert (message.key(), message.value()) == (b"\xff", None)


def test_the_key_chooses_the_partition_unless_the_letters_own_is_asked_for(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic(4)
    letters = [letter(topic=topic, partition=partition) for partition in range(4)]
    work(write_letters(tmp_path / "dead", *letters), kafka_target(kafka))
    assert len({message.partition() for message in messages_of(kafka.bootstrap_servers, topic, 4)}) == 1
    other = new_topic(3)
    path = write_letters(tmp_path / "dead", *letters)
    outcome = work(path, kafka_target(kafka, other, same_partition=True))
    assert [message.partition() for message in messages_of(kafka.bootstrap_servers, other, 3)] == [0, 1, 2]
    assert outcome.left_out == {f"kafka topic {other} has no partition 3": 1}
    assert len(left_in(path)) == 1


def test_what_cannot_or_should_not_be_sent_stays_with_the_reason(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    looping = encode_headers([("pf-requeued", b"3")])
    path = write_letters(
        tmp_path / "dead",
        letter(topic=topic, payload=b"sent"),
        letter(topic=topic, payload=b"looping", headers=looping),
        letter(topic="kafka topic scored", payload=b"result", partition=-1, offset=-1),
        letter(topic="orders.ndjson", payload=b"of a file"),
        letter(topic=topic, payload=os.urandom(2_000_000)),
    )
    outcome = work(path, kafka_target(kafka))
    assert outcome.sent == {f"kafka topic {topic}": 1}
    assert left_in(path)[:3] == [b"looping", b"result", b"of a file"]
    reasons = sorted(outcome.left_out)
    assert [reason.partition(":")[0] for reason in reasons] == [
        "there is no Kafka topic orders.ndjson at 127.0.0.1",
        "they came back 3 times or more already",
        "they hold results that a sink refused, not messages",
    ]
    ((refusal, count),) = outcome.refused.items()
    assert count == 1
    assert refusal.startswith(f"kafka topic {topic}: Broker: Message size too large")
    raised = work(path, kafka_target(kafka), Terms(Filter(), max_requeues=4))
    assert raised.sent == {f"kafka topic {topic}": 1}
    assert messages_of(kafka.bootstrap_servers, topic)[1].headers() == [("pf-requeued", b"4")]


def test_results_go_where_one_says_and_messages_stay(tmp_path: Path) -> None:
    path = write_letters(tmp_path / "dead", letter(payload=b"result", partition=-1, offset=-1), letter())
    outcome = work(path, FileTarget(tmp_path / "to", "ndjson"), Terms(Filter(), 3, results=True))
    assert (tmp_path / "to").read_bytes() == b"result\n"
    assert outcome.left_out == {"they hold messages, and --results asks for results": 1}
    assert left_in(path) == [LETTER.payload]


@pytest.mark.parametrize("form", ["ndjson", "msgpack-frames"])
def test_payloads_go_to_a_file_and_what_it_cannot_hold_stays(tmp_path: Path, form: str) -> None:
    payloads = [b"%d" % number for number in range(1_234)]
    path = write_letters(tmp_path / "dead", *(letter(payload=payload) for payload in [*payloads, b"two\nlines", None]))
    to = tmp_path / "to"
    outcome = work(path, FileTarget(to, form))  # type: ignore[arg-type]
    lines = form == "ndjson"
    assert left_in(path) == ([b"two\nlines", None] if lines else [None])
    assert outcome.refused.total() == (2 if lines else 1)
    if lines:
        assert to.read_bytes().splitlines() == payloads
    else:
        framed = [len(each).to_bytes(4, "little") + each for each in [*payloads, b"two\nlines"]]
        assert to.read_bytes() == b"".join(framed)


def test_a_limit_counts_what_is_sent(tmp_path: Path) -> None:
    letters = [letter(payload=b"%d" % n, error="E" if n % 2 else "F") for n in range(8)]
    path = write_letters(tmp_path / "dead", *letters)
    work(path, FileTarget(tmp_path / "to", "ndjson"), Terms(Filter(error="E"), 3, limit=2))
    assert (tmp_path / "to").read_bytes() == b"1\n3\n"
    assert left_in(path) == [b"0", b"2", b"4", b"5", b"6", b"7"]


def test_a_dry_run_sends_nothing_and_needs_no_lock(tmp_path: Path) -> None:
    path = write_letters(tmp_path / "dead", *[LETTER] * 3)
    store = FileStore(path)
    with store.claim():
        outcome = work(path, DryRun(FileTarget(tmp_path / "to", "ndjson")))
    assert outcome.sent == {f"file {tmp_path / 'to'}": 3}
    assert not (tmp_path / "to").exists()
    assert len(left_in(path)) == 3


def test_cut_short_what_arrived_is_dealt_with_and_nothing_else(
    kafka: KafkaBroker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topic = new_topic()
    path = write_letters(tmp_path / "dead", *(letter(topic=topic, payload=b"%d" % n) for n in range(1_000)))
    outcome = Outcome()

    def interrupt() -> None:
        if outcome.sent.total() >= 1 or len(read) == 999:
            raise KeyboardInterrupt
        if len(read) > 500:
            time.sleep(0.02)  # the broker is slow today: its first answers come before the last letters are read
        read.append(1)

    read: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        requeue(FileStore(path), kafka_target(kafka), TERMS, outcome, interrupt)
    there = [message.value() for message in messages_of(kafka.bootstrap_servers, topic)]
    assert 0 < len(there) < 1_000
    assert outcome.sent.total() == len(there)
    assert left_in(path) == [b"%d" % n for n in range(len(there), 1_000)]
    work(path, kafka_target(kafka))
    assert [message.value() for message in messages_of(kafka.bootstrap_servers, topic)] == [
        b"%d" % n for n in range(1_000)
    ]


def test_a_broker_that_dies_leaves_the_letters(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = own_kafka.create_topic("orders")
    target = KafkaTarget(
        KafkaAccess({"bootstrap.servers": own_kafka.bootstrap_servers}, 2.0), topic=topic, same_partition=False
    )
    own_kafka.kill()
    path = write_letters(tmp_path / "dead", LETTER, LETTER)
    outcome, told = Outcome(), ""
    try:
        requeue(FileStore(path), target, TERMS, outcome, lambda: None)
    except SinkError as error:  # librdkafka did not give them up, which happens
        told = str(error)
    assert outcome.sent.total() == 0
    assert "has confirmed nothing for" in told or outcome.refused == {"kafka topic orders: Local: Message timed out": 2}
    assert len(left_in(path)) == 2


def test_a_broker_that_says_nothing_is_given_up(
    kafka: KafkaBroker, proxy: TcpProxy, new_topic: NewTopic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before librdkafka gives the messages up, so that this does not depend on whether it does."""
    monkeypatch.setattr(sending, "SILENCE_S", -29.0)
    access = KafkaAccess({"bootstrap.servers": proxy.address}, 30.0)
    target = KafkaTarget(access, topic=new_topic(), same_partition=False)
    proxy.freeze()
    path = write_letters(tmp_path / "dead", LETTER, LETTER)
    with pytest.raises(SinkError, match=r"Kafka at 127.0.0.1:\d+ has confirmed nothing for 1 s"):
        work(path, target)
    assert len(left_in(path)) == 2


def test_a_target_that_is_not_there_is_named(kafka: KafkaBroker, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="there is no Kafka topic nowhere at"):
        kafka_target(kafka, "nowhere")
    (port,) = free_ports(1)
    with pytest.raises(SinkError, match=f"Kafka at 127.0.0.1:{port}: "):
        KafkaTarget(KafkaAccess({"bootstrap.servers": f"127.0.0.1:{port}"}, 0.5), topic=None, same_partition=False)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = write_letters(tmp_path / "dead", LETTER)
    with pytest.raises(SinkError, match="cannot write /proc/none/x"):
        work(path, FileTarget(Path("/proc/none/x"), "ndjson"))
    assert left_in(path) == [LETTER.payload]

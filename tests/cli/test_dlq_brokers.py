"""``python -m pythia_fast dlq`` on a real Redis and a real RabbitMQ: as a person types it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pythia_fast import RabbitMQProducer, RedisStreamsProducer
from pythia_fast.brokers.framing import encode_headers
from pythia_fast.cli import main as cli
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.dlq import work
from pythia_fast.dlq.rabbitmq_store import RabbitMqStore
from pythia_fast.dlq.redis_store import RedisStore
from pythia_fast.dlq.store import Place
from pythia_fast.errors import SinkError
from pythia_fast.runtime.dead_letter_form import DeadLetter
from tests.support.command_line import HEAD, run, running
from tests.support.letters import letter, send_letters, write_letters
from tests.support.rabbitmq_run import Queue
from tests.support.rabbitmq_server import RabbitMqServer
from tests.support.redis_server import RedisServerProcess


class Broker(ABC):
    """Letters in ``dead``, which came from ``source``; ``place``: the options that name them."""

    kind: str
    dead: str
    source: str
    place: tuple[str, ...]
    imports: str
    reads: str  #: the source, in an app
    rejects: str  #: its dead_letter=

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def send(self, *letters: DeadLetter) -> None:
        """Letters, as a run writes them."""

    @abstractmethod
    def add(self, payload: bytes) -> None:
        """A message for the app."""

    @abstractmethod
    def messages(self) -> list[bytes]:
        """Payloads in the source; what is read of a queue is gone from it."""


class Redis(Broker):
    kind = "redis stream"
    imports = "from pythia_fast import RedisStreamsConsumer, RedisStreamsProducer\n"

    def __init__(self, folder: Path, server: RedisServerProcess, name: str) -> None:
        super().__init__(folder)
        self.dead, self.source = f"{name}-dead", f"{name}-source"
        self.client = server.client()
        self.client.xadd(self.source, {"data": '{"price":0,"qty":0}'})
        self._url = server.url
        self.place = ("--redis", self.dead, "--redis-url", server.url)
        self.reads = f'RedisStreamsConsumer("{self.source}", url="{server.url}")'
        self.rejects = f'RedisStreamsProducer("{self.dead}", url="{server.url}", payload_field="body")'

    def send(self, *letters: DeadLetter) -> None:
        send_letters(RedisStreamsProducer(self.dead, url=self._url), self.folder, *letters)

    def add(self, payload: bytes) -> None:
        self.client.xadd(self.source, {"data": payload, "trace": "1"})

    def messages(self) -> list[bytes]:
        return [fields[b"data"] for _, fields in self.client.xrange(self.source)[1:]]


class Rabbit(Broker):
    kind = "rabbitmq queue"
    imports = "from pythia_fast import RabbitMQConsumer, RabbitMQProducer\n"

    def __init__(self, folder: Path, server: RabbitMqServer) -> None:
        super().__init__(folder)
        self.queues = [Queue(server), Queue(server)]
        self.dead, self.source = [queue.name for queue in self.queues]
        self._url = server.url
        self.place = ("--rabbitmq", self.dead, "--rabbitmq-url", server.url)
        self.reads = f'RabbitMQConsumer("{self.source}", url="{server.url}")'
        self.rejects = f'RabbitMQProducer("{self.dead}", url="{server.url}")'

    def send(self, *letters: DeadLetter) -> None:
        send_letters(RabbitMQProducer(self.dead, url=self._url), self.folder, *letters)

    def add(self, payload: bytes) -> None:
        self.queues[1].publish([payload], headers={"trace": "1"})

    def messages(self) -> list[bytes]:
        source = self.queues[1]
        return [source.channel.basic_get(source.name, auto_ack=True)[2] for _ in range(source.count())]


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis | Rabbit]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    made: Redis | Rabbit
    if request.param == "redis":
        made = Redis(tmp_path, request.getfixturevalue("redis"), request.node.name)
        yield made
        made.client.close()
        return
    made = Rabbit(tmp_path, request.getfixturevalue("rabbitmq"))
    yield made
    for queue in made.queues:
        queue.close()


def dlq(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["dlq", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_letters_are_looked_at_sent_back_and_dropped(
    capsys: pytest.CaptureFixture[str], broker: Redis | Rabbit
) -> None:
    letters = [letter(topic=broker.source, payload=b"%d" % n, error="E" if n % 2 else "F") for n in range(6)]
    broker.send(*(each._replace(headers=_redis_id(broker)) for each in letters))
    named = f"{broker.kind} {broker.dead}"

    def payloads(*arguments: str) -> list[Any]:
        code, out, _ = dlq(capsys, "show", *broker.place, "--json", *arguments)
        assert code == 0
        return [json.loads(line)["payload"] for line in out.splitlines()]

    code, out, _ = dlq(capsys, "list", *broker.place, "--by", "error", "--json")
    assert code == 0
    assert [(group["error"], group["letters"]) for group in json.loads(out)["groups"]] == [("E", 3), ("F", 3)]
    assert payloads() == ["0", "1", "2", "3", "4", "5"]
    assert payloads("--limit", "2", "--error", "E") == ["1", "3"]
    code, out, _ = dlq(capsys, "requeue", *broker.place, "--error", "E", "--dry-run")
    assert (code, out) == (0, f"3 dead letters would be sent to {broker.kind} {broker.source}\n")
    assert broker.messages() == []
    code, out, err = dlq(capsys, "requeue", *broker.place, "--error", "E", "--limit", "2")
    assert (code, out, err) == (0, f"2 dead letters sent to {broker.kind} {broker.source}\n", "")
    assert broker.messages() == [b"1", b"3"]
    assert payloads() == ["0", "2", "4", "5"]
    assert dlq(capsys, "drop", *broker.place, "--dry-run")[1] == f"4 dead letters of {named} would be dropped\n"
    assert dlq(capsys, "drop", *broker.place, "--yes", "--limit", "3")[:2] == (
        0,
        f"3 dead letters of {named} dropped\n",
    )
    assert payloads() == ["5"]
    assert dlq(capsys, "drop", *broker.place, "--yes")[0] == 0
    assert dlq(capsys, "list", *broker.place)[1] == f"no dead letters match in {named}\n"


def _redis_id(broker: Broker) -> bytes:
    """What makes a row one of Redis."""
    return encode_headers([("redis-id", b"1-1")]) if isinstance(broker, Redis) else b""


def test_an_entry_is_shown_and_dropped_by_its_id(
    capsys: pytest.CaptureFixture[str], redis: RedisServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = Redis(tmp_path, redis, "by-id")
    broker.send(letter(payload=b"0"), letter(payload=b"1"))
    place = json.loads(dlq(capsys, "show", *broker.place, "--json")[1].splitlines()[1])["place"]
    name = place.rpartition(" ")[2]
    code, out, _ = dlq(capsys, "show", *broker.place, "--entry", name)
    assert code == 0
    assert f"   now in     redis stream {broker.dead}, entry {name}" in out.splitlines()
    assert dlq(capsys, "drop", *broker.place, "--entry", name, "--yes")[0] == 0
    assert [fields[b"data"] for _, fields in broker.client.xrange(broker.dead)] == [b"0"]
    broker.client.close()


def test_letters_of_an_app_go_back_to_its_source_and_fail_again_until_they_are_left_out(
    capsys: pytest.CaptureFixture[str], broker: Redis | Rabbit
) -> None:
    text = HEAD + broker.imports
    text += f"""
@app.batch_handler(source={broker.reads}, dead_letter={broker.rejects}, schema=Order)
def score(batch: Batch[Order]) -> None:
    batch.reject(batch["qty"] == 7, reason="sevens")
"""
    module = f"shop_{broker.dead.translate(str.maketrans('-[]', '___'))}"
    (broker.folder / f"{module}.py").write_text(text)
    app = f"{module}:app"
    if isinstance(broker, Redis):  # nothing was given up yet, and the first letter makes the stream
        assert dlq(capsys, "list", "--app", app)[:2] == (0, "no dead letters match in app orders\n")
    broker.add(b'{"price":1,"qty":7}')
    broker.add(b'{"price":1,"qty":1}')
    arguments = ("requeue", "--app", app, "--handler", "score", "--max-requeues", "2")
    for times in range(3):
        finished = run(broker.folder, "run", app, "--until-end", "--workers", "2")
        assert finished.returncode == 0, finished.stderr
        (shown,) = dlq(capsys, "show", "--app", app, "--json")[1].splitlines()
        found = json.loads(shown)
        assert (found["topic"], found["payload"]) == (broker.source, '{"price":1,"qty":7}')
        assert (found["reason"], found["handler"], found["requeued"]) == ("sevens", "score", times)
        assert {header["name"]: header.get("value") for header in found["headers"]}["trace"] == "1"
        assert sum(header["name"] == "redis-id" for header in found["headers"]) == isinstance(broker, Redis)
        if times < 2:
            code, out, err = dlq(capsys, *arguments)
            assert (code, out, err) == (0, f"1 dead letter sent to {broker.kind} {broker.source}\n", "")
    code, out, err = dlq(capsys, *arguments)
    assert (code, out) == (ExitCode.FAILED, "")
    assert "1 dead letter left out: they came back 2 times or more already" in err


def test_a_command_that_is_killed_loses_nothing(broker: Redis | Rabbit) -> None:
    """Between sending and removing, for the most part; a message may be there twice."""
    letters = 3_000
    headers = _redis_id(broker)
    broker.send(*(letter(topic=broker.source, payload=b"%d" % n, headers=headers) for n in range(letters)))
    sent: list[bytes] = []
    with running(broker.folder, "dlq", "requeue", *broker.place) as process:
        while not sent:  # ends by the test's time limit
            sent += broker.messages()
            assert sent or process.poll() is None
        process.kill()
        process.wait()
    finished = run(broker.folder, "dlq", "requeue", *broker.place)
    assert finished.returncode == 0, finished.stderr
    sent += broker.messages()
    assert {int(payload) for payload in sent} == set(range(letters))


def test_letters_go_elsewhere_and_from_files(capsys: pytest.CaptureFixture[str], broker: Redis | Rabbit) -> None:
    write_letters(broker.folder / "dead.ndjson", letter(payload=b"1", topic="/no/topic"))
    option, url = ("--to-redis", "--redis-url") if isinstance(broker, Redis) else ("--to-rabbitmq", "--rabbitmq-url")
    at = broker.place[-1]
    code, out, err = dlq(capsys, "requeue", "dead.ndjson", option, broker.source, url, at)
    assert (code, out.splitlines()[0], err) == (0, f"1 dead letter sent to {broker.kind} {broker.source}", "")
    broker.send(letter(payload=b"1", topic=broker.source))
    code, out, err = dlq(capsys, "requeue", *broker.place, option, broker.dead)
    assert (code, out) == (ExitCode.USAGE, "")
    assert f"{option} {broker.dead}: the dead letters themselves are there" in err
    write_letters(broker.folder / "dead.ndjson", letter(payload=b"2", topic=broker.source))
    origin = option.removeprefix("--to-")
    assert dlq(capsys, "requeue", "dead.ndjson", "--origin", origin, url, at)[0] == 0
    assert broker.messages() == [b"1", b"2"]
    write_letters(broker.folder / "dead.ndjson", letter(payload=b"3", topic="nowhere-at-all"))
    code, out, err = dlq(capsys, "requeue", "dead.ndjson", "--origin", origin, url, at)
    assert (code, out) == (ExitCode.FAILED, "")
    assert f"1 dead letter left out: there is no {broker.kind} nowhere-at-all at 127.0.0.1:" in err
    code, _, err = dlq(capsys, "requeue", "dead.ndjson", option, "nowhere-at-all", url, at)
    assert code == ExitCode.UNREACHABLE
    assert f"error: there is no {broker.kind} nowhere-at-all at 127.0.0.1:" in err


def test_what_is_missing_is_told(capsys: pytest.CaptureFixture[str], broker: Redis | Rabbit) -> None:
    option, _, url, at = broker.place
    code, _, err = dlq(capsys, "list", option, "no-such", url, at)
    assert code == ExitCode.UNREACHABLE
    assert f"error: there is no {broker.kind} no-such at 127.0.0.1:" in err
    code, _, err = dlq(capsys, "drop", option, "no-such", url, at, "--yes")
    assert (code, f"there is no {broker.kind} no-such" in err) == (ExitCode.UNREACHABLE, True)
    scheme = at.partition("://")[0]
    code, _, err = dlq(capsys, "list", option, "no-such", url, f"{scheme}://127.0.0.1:1", "--timeout", "2")
    assert code == ExitCode.UNREACHABLE
    assert "127.0.0.1:1" in err
    assert "is it running" in err
    assert len(err.splitlines()) == 1


def test_an_exchange_of_letters_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = HEAD + "from pythia_fast import RabbitMQProducer\n"
    text += '@app.batch_handler(source=MemoryConsumer([]), dead_letter=RabbitMQProducer(exchange="x"), schema=Order)\n'
    (tmp_path / "exchange_shop.py").write_text(f"{text}def score(batch): pass\n")
    code, _, err = dlq(capsys, "list", "--app", "exchange_shop:app")
    assert code == ExitCode.USAGE
    assert "sends its dead letters to rabbitmq exchange x, and dlq reads queues: name the one" in err


def test_what_is_dropped_without_a_question_is_dropped_a_part_at_a_time(
    capsys: pytest.CaptureFixture[str], broker: Redis | Rabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no place of a letter is kept for long; where it breaks off, what was dropped is told."""
    kind: Any = RedisStore if isinstance(broker, Redis) else RabbitMqStore
    settle, parts = kind.settle, []

    def noted(self: Any, places: list[Place], *, archive: bool) -> list[str]:
        if len(parts) == 5:
            raise SinkError("enough")
        parts.append(len(places))
        told: list[str] = settle(self, places, archive=archive)
        return told

    monkeypatch.setattr(work, "PART", 10)
    monkeypatch.setattr(kind, "settle", noted)
    broker.send(*(letter(payload=b"%d" % n) for n in range(35)))
    code, out, _ = dlq(capsys, "drop", *broker.place, "--yes")
    assert (code, out) == (0, f"35 dead letters of {broker.kind} {broker.dead} dropped\n")
    assert parts == [10, 10, 10, 5]
    broker.send(*(letter(payload=b"%d" % n) for n in range(35)))
    code, out, err = dlq(capsys, "drop", *broker.place, "--yes")
    assert (code, err) == (ExitCode.UNREACHABLE, "error: enough\n")
    assert out == f"10 dead letters of {broker.kind} {broker.dead} dropped\n"
    assert json.loads(dlq(capsys, "list", *broker.place, "--json")[1])["letters"] == 25

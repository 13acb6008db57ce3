"""Where a group begins and goes on, against a real broker: ``start_at=``, and the command ``seek``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pythia_fast.cli.exit_codes import ExitCode
from tests.support.command_line import run
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import committed
from tests.support.runtime_process import RuntimeProcess

NewTopic = Callable[..., str]
T0_MS = 1_700_000_000_000  #: of the first message; each is a second younger than the one before
ROWS = 40
PARTITIONS = 4

APP = """
import msgspec
from pythia_fast import App, Batch, FileProducer, KafkaConsumer

class Row(msgspec.Struct):
    id: int

app = App("app")

@app.batch_handler(
    source=KafkaConsumer("TOPIC", bootstrap_servers="SERVERS", consumer_group="GROUP", MORE),
    sink=FileProducer(path="FOLDER/out.ndjson"),
    schema=Row,
)
def handler(batch: Batch[Row]):
    return {"id": batch["id"]}
"""


@pytest.fixture
def topic(kafka: KafkaBroker, new_topic: NewTopic) -> str:
    """Holds the ids 0 to 39, by turns in four partitions."""
    name = new_topic(PARTITIONS, **{"retention.ms": "-1"})  # else messages as old as these are deleted soon
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for i in range(ROWS):
        producer.produce(name, b'{"id":%d}' % i, partition=i % PARTITIONS, timestamp=T0_MS + i * 1000)
    assert producer.flush(30) == 0
    return name


@pytest.fixture
def write(tmp_path: Path, kafka: KafkaBroker, topic: str) -> Callable[[str], None]:
    def app(more: str) -> None:
        text = APP.replace("TOPIC", topic).replace("SERVERS", kafka.bootstrap_servers)
        text = text.replace("FOLDER", str(tmp_path))
        (tmp_path / "app.py").write_text(text.replace("GROUP", f"group-of-{topic}").replace("MORE", more))

    return app


def ids_read(folder: Path) -> list[int]:
    """What one run of the app reads, to the end of its topic."""
    out = folder / "out.ndjson"
    out.unlink(missing_ok=True)
    finished = run(folder, "run", "app:app", "--until-end", "--workers", "1")
    assert finished.returncode == ExitCode.DONE, finished.stderr
    return sorted(int(line.split(":")[1].rstrip("}")) for line in out.read_text().splitlines()) if out.exists() else []


def moment(row: int) -> str:
    return datetime.fromtimestamp(T0_MS / 1000 + row, UTC).isoformat()


def test_a_new_group_begins_at_a_moment_and_an_old_one_where_it_was(
    write: Callable[[str], None], tmp_path: Path
) -> None:
    write(f"start_at={moment(30)!r}")
    assert ids_read(tmp_path) == list(range(30, ROWS))
    write(f"start_at={moment(0)!r}")
    assert ids_read(tmp_path) == []


def test_a_moment_after_the_last_message_is_the_end(
    write: Callable[[str], None], kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    write('start_at="1h"')
    assert ids_read(tmp_path) == []
    assert committed(kafka.bootstrap_servers, f"group-of-{topic}", topic) == [ROWS // PARTITIONS] * PARTITIONS
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b'{"id":99}', partition=0)
    assert producer.flush(30) == 0
    assert ids_read(tmp_path) == [99]


def test_seek_sets_where_a_group_goes_on(write: Callable[[str], None], tmp_path: Path) -> None:
    write("")
    assert ids_read(tmp_path) == list(range(ROWS))
    for to, read in [
        ("earliest", list(range(ROWS))),
        ("latest", []),
        (moment(20), list(range(20, ROWS))),
        ("-2", list(range(32, ROWS))),
        ("3", list(range(12, ROWS))),
    ]:
        tried = run(tmp_path, "seek", "app:app", "--to", to, "--dry-run")
        assert tried.returncode == ExitCode.DONE, tried.stderr
        assert "would go on at" in tried.stdout
        assert ids_read(tmp_path) == []
        done = run(tmp_path, "seek", "app:app", "--to", to)
        assert done.returncode == ExitCode.DONE, done.stderr
        assert f"{len(read)} messages are read again, 0 are left out, {len(read)} are ahead" in done.stdout
        assert ids_read(tmp_path) == read
    one = run(tmp_path, "seek", "app:app", "--to", "earliest", "--partition", "2")
    assert one.stdout.count("->") == 1, one.stdout
    assert ids_read(tmp_path) == list(range(2, ROWS, PARTITIONS))


def test_seek_before_the_first_run_makes_the_group(write: Callable[[str], None], tmp_path: Path) -> None:
    write("")
    done = run(tmp_path, "seek", "app:app", "--to", moment(38))
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "no position -> 10  (0 ahead)" in done.stdout
    assert ids_read(tmp_path) == [38, 39]


def test_seek_leaves_a_group_with_members_alone(
    write: Callable[[str], None], kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    write("")
    runtime = RuntimeProcess(tmp_path / "live", f"{tmp_path / 'app.py'}:app", {}, workers=1)
    try:
        runtime.wait_for("assigned")
        deadline = time.monotonic() + 60
        while sum(committed(kafka.bootstrap_servers, f"group-of-{topic}", topic)) < ROWS:
            assert time.monotonic() < deadline, runtime.log
            time.sleep(0.2)
        refused = run(tmp_path, "seek", "app:app", "--to", "earliest")
        assert refused.returncode == ExitCode.USAGE, refused.stderr
        assert f"group group-of-{topic} has a member (app-handler-" in refused.stderr
        assert "Stop them" in refused.stderr
        runtime.stop()
    finally:
        runtime.close()
    assert run(tmp_path, "seek", "app:app", "--to", "earliest").returncode == ExitCode.DONE
    assert ids_read(tmp_path) == list(range(ROWS))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "earliest", "--partition", "9"], "has no partition 9: it has 4"),
        (["--to", "yesterday"], "--to 'yesterday': write a time"),
        (["--to", "earliest", "--handler", "handle"], "did you mean 'handler'"),
        ([], "--to"),
    ],
)
def test_what_seek_cannot_do_is_said(
    write: Callable[[str], None], tmp_path: Path, arguments: list[str], says: str
) -> None:
    write("")
    refused = run(tmp_path, "seek", "app:app", *arguments)
    assert refused.returncode != ExitCode.DONE
    assert says in refused.stderr, refused.stderr


def test_seek_is_for_kafka(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from pythia_fast import App, FileConsumer\n"
        'app = App("app")\n'
        'app.batch_handler(source=FileConsumer("in.ndjson"), decoder="raw", name="h")(print)\n'
    )
    refused = run(tmp_path, "seek", "app:app", "--to", "earliest")
    assert refused.returncode == ExitCode.USAGE
    assert "no handler of app 'app' reads from Kafka" in refused.stderr


def test_a_topic_that_is_not_there_is_named(write: Callable[[str], None], topic: str, tmp_path: Path) -> None:
    write("")
    text = (tmp_path / "app.py").read_text()
    (tmp_path / "app.py").write_text(text.replace(f'"{topic}"', f'"{topic}x"'))
    refused = run(tmp_path, "seek", "app:app", "--to", "earliest")
    assert refused.returncode == ExitCode.UNREACHABLE, refused.stderr
    assert f"did you mean {topic}?" in refused.stderr

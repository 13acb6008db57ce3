"""``python -m pythia_fast dlq``: as a person types it, on files and on a real Kafka."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from pythia_fast.brokers.locked_file import open_locked
from pythia_fast.cli import main as cli
from pythia_fast.cli.exit_codes import ExitCode
from pythia_fast.runtime.dead_letter import read_dead_letters
from tests.support.command_line import ENVIRONMENT, HEAD, command, run
from tests.support.kafka_broker import KafkaBroker
from tests.support.letters import LETTER, letter, messages_of, produce_letters, write_letters

NewTopic = Callable[..., str]
COMMANDS = ("list", "show", "requeue", "drop")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file of four letters in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_letters(
        tmp_path / "dead.ndjson",
        letter(offset=1, payload=b'{"price":1}'),
        letter(offset=2, error="", reason="implausible", key=None),
        letter(offset=3, partition=4, payload=b"\xff\x00", key=b"\xfe"),
        letter(offset=4, topic="returns", payload=None),
    )
    return tmp_path


def dlq(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["dlq", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def offsets_in(path: Path | str) -> list[int]:
    return [stored.offset for stored in read_dead_letters(path)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_the_shared_filters(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = dlq(capsys, name, "--help")
    assert code == 0
    assert f"  python -m pythia_fast dlq {name} " in out
    for option in ("reason", "error", "handler", "topic", "partition", "offset", "since", "until", "key", "limit"):
        assert f"--{option} " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "dead.ndjson", "--reson", "x"], "No such option --reson; did you mean --reason?"),
        (["requeue", "dead.ndjson", "--max-requeue", "1"], "did you mean --max-requeues?"),
        (["lst"], "No such command 'lst'. Did you mean 'list'?"),
        (
            ["list", "--reason", "x"],
            "say where the dead letters are: PATH, --kafka TOPIC, --redis STREAM, --rabbitmq QUEUE or",
        ),
        (["show", "dead.ndjson", "--kafka", "dead"], "say where the dead letters are"),
        (["list", "none.ndjson"], "there is no file none.ndjson"),
        (["list", "."], ". is a folder"),
        (["show", "/dev/null"], "/dev/null is no plain file"),
        (["list", "dead.ndjson", "--since", "soon"], "--since 'soon': write a time"),
        (["list", "dead.ndjson", "--offset", "7..3"], "the last offset comes before the first"),
        (["list", "dead.ndjson", "--limit", "0"], "'--limit'"),
        (["list", "dead.ndjson", "--by", "rason"], "'rason'"),
        (["drop", "dead.ndjson"], "there is no terminal to ask on: give --yes or --dry-run"),
        (["requeue", "dead.ndjson", "--to-topic", "x", "--to-file", "y"], "--to-topic and --to-file: give one"),
        (["requeue", "dead.ndjson", "--to-redis", "x", "--to-rabbitmq", "y"], "--to-redis and --to-rabbitmq: give one"),
        (["requeue", "dead.ndjson", "--to-redis", "x", "--origin", "redis"], "--origin says what messages go back to"),
        (["list", "dead.ndjson", "--entry", "1-1"], "--entry is the id of an entry of a Redis stream"),
        (["list", "--redis", "dead", "--entry", "x"], "--entry 'x': write the id of an entry"),
        (["list", "--redis", "dead", "--redis-url", "http://x"], "url= takes redis://"),
        (["list", "--rabbitmq", "dead", "--rabbitmq-url", "http://x"], "url begins with 'http://'"),
        (["requeue", "dead.ndjson", "--to-file", "dead.ndjson.done"], "letters that are taken out are kept there"),
        (["requeue", "dead.ndjson", "--to-file", "link"], "--to-file link: letters that are taken out are kept there"),
        (["requeue", "dead.ndjson", "--results"], "--results needs --to-topic or --to-file"),
        (["list", "--kafka", "dead", "--kafka-option", "sasl"], "--kafka-option 'sasl': write NAME=VALUE"),
        (["list", "--kafka", "dead", "--kafka-option", "sasl.mechanisms.=x"], "did you mean 'sasl.mechanisms'?"),
    ],
)
def test_wrong_usage_is_told(
    capsys: pytest.CaptureFixture[str], project: Path, arguments: list[str], message: str
) -> None:
    (project / "link").symlink_to("dead.ndjson.done")
    code, out, err = dlq(capsys, *arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("error: ")
    assert message in err


def test_list_counts_by_handler_and_reason(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    code, out, _ = dlq(capsys, "list", "dead.ndjson")
    assert code == 0
    head, _, first, newest, second, _ = (line.split() for line in out.strip().splitlines())
    assert head == ["letters", "handler", "reason", "oldest,", "newest", "from"]
    oldest = "2026-01-01T00:00:00Z"
    assert first == ["3", "score", "ValueError:", "no", "sevens", oldest, "orders", "3,", "4;", "returns", "3"]
    assert newest == ["2026-01-01T00:03:00Z"]
    assert second[:3] == ["1", "score", "implausible"]
    code, out, _ = dlq(capsys, "list", "dead.ndjson", "--by", "error", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["letters"], found["not_dead_letters"]) == (4, 0)
    assert [(group["error"], group["letters"]) for group in found["groups"]] == [
        ("ValueError", 3),
        ("(rejected by the handler)", 1),
    ]
    assert found["groups"][1]["sources"] == [{"topic": "orders", "partition": 3, "letters": 1}]


def test_list_folds_no_line_in_a_pipe(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    reason = "the price of this order is not one that any shop would ask, " * 4 + "so look at it"
    write_letters(project / "long.ndjson", letter(reason=reason, error=""))
    code, out, _ = dlq(capsys, "list", "long.ndjson")
    assert code == 0
    assert reason in out


@pytest.mark.parametrize(
    ("filters", "offsets"),
    [
        (["--reason", "IMPLAUS"], [2]),
        (["--error", "ValueError"], [1, 3, 4]),
        (["--handler", "scores"], []),
        (["--topic", "returns"], [4]),
        (["--partition", "4"], [3]),
        (["--offset", "2..3"], [2, 3]),
        (["--key", "/g=="], [3]),
        (["--since", "2026-01-01T00:01:00Z", "--until", "2026-01-01T00:02:00Z"], [2, 3]),
        (["--since", "1h"], []),
        (["--limit", "2"], [1, 2]),
    ],
)
def test_filters_choose(
    capsys: pytest.CaptureFixture[str], project: Path, filters: list[str], offsets: list[int]
) -> None:
    code, out, _ = dlq(capsys, "show", "dead.ndjson", "--json", *filters)
    assert code == 0
    assert [json.loads(line)["offset"] for line in out.splitlines()] == offsets


def test_show_has_all_of_a_letter_and_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    write_letters(project / "evil", letter(payload=b"\x1b[2J\x9b\r", reason="\x1b]0;owned\x07", attempts=3))
    code, out, _ = dlq(capsys, "show", "evil")
    assert code == 0
    assert "\x1b" not in out
    assert "\r" not in out
    assert r"1. score: \x1b]0;owned\x07" in out
    code, out, _ = dlq(capsys, "show", "dead.ndjson")
    assert code == 0
    for part in (
        "1. score: ValueError: no sevens",
        "from       orders, partition 3, offset 1, 2026-01-01T00:00:00.000Z",
        "given up   2026-01-01T00:00:00.000Z by app shop, tried once",
        "now in     byte 0 of dead.ndjson",
        "key        k",
        "key        null",
        "key        /g== (base64)",
        "header     trace: 1",
        r"header     raw: \x00\xff",
        "header     empty: null",
        '     {\n       "price": 1\n     }',
        "payload    2 bytes, in base64\n     /wA=",
        "payload    null",
        "     ValueError: no sevens",
    ):
        assert part in out
    assert len([line for line in out.splitlines() if line[:1].isdigit()]) == 4


def test_show_gives_ten_unless_asked(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    write_letters(project / "many", *[LETTER] * 12)
    assert len(dlq(capsys, "show", "many", "--json")[1].splitlines()) == 10
    assert len(dlq(capsys, "show", "many", "--json", "--limit", "11")[1].splitlines()) == 11


def test_drop_takes_out_what_is_meant(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    arguments = ("drop", "dead.ndjson", "--error", "ValueError")
    assert dlq(capsys, *arguments, "--dry-run")[1] == "3 dead letters of file dead.ndjson would be dropped\n"
    assert offsets_in("dead.ndjson") == [1, 2, 3, 4]
    code, out, _ = dlq(capsys, *arguments, "--limit", "2", "--yes")
    assert (code, out) == (0, "2 dead letters of file dead.ndjson dropped\nkept in dead.ndjson.done\n")
    assert (offsets_in("dead.ndjson"), offsets_in("dead.ndjson.done")) == ([2, 4], [1, 3])
    code, out, _ = dlq(capsys, "drop", "dead.ndjson", "--yes", "--no-archive")
    assert (code, out) == (0, "2 dead letters of file dead.ndjson dropped\n")
    assert (offsets_in("dead.ndjson"), offsets_in("dead.ndjson.done")) == ([], [1, 3])
    for arguments in (("drop", "dead.ndjson", "--yes"), ("list", "dead.ndjson"), ("show", "dead.ndjson")):
        assert dlq(capsys, *arguments)[:2] == (0, "no dead letters match in file dead.ndjson\n")


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, []), ("n", 1, [1, 2, 3, 4])])
def test_drop_asks_on_a_terminal(project: Path, answer: str, code: int, left: list[int]) -> None:
    """With a bar on stderr, which is the terminal, too."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("dlq", "drop", "dead.ndjson"), cwd=project, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            assert select.select([ours], [], [], 60)[0], shown
            shown += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
        assert process.wait(60) == code
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"drop 4 dead letters of file dead.ndjson?" in shown
    assert offsets_in(project / "dead.ndjson") == left


@pytest.mark.parametrize("arguments", [("drop", "--yes"), ("requeue", "--to-file", "again.ndjson")])
def test_a_file_that_a_run_writes_is_refused_and_still_listed(
    capsys: pytest.CaptureFixture[str], project: Path, arguments: tuple[str, ...]
) -> None:
    fd = open_locked("dead.ndjson")
    try:
        code, out, err = dlq(capsys, arguments[0], "dead.ndjson", *arguments[1:])
        assert (code, out) == (ExitCode.UNREACHABLE, "")
        assert err.startswith("error: dead.ndjson is being written by a run or another dlq command: stop that first")
        assert dlq(capsys, "list", "dead.ndjson")[0] == 0
        assert dlq(capsys, arguments[0], "dead.ndjson", *arguments[1:], "--dry-run")[0] == 0
    finally:
        os.close(fd)
    assert offsets_in("dead.ndjson") == [1, 2, 3, 4]


def test_requeue_to_a_file_tells_what_stays(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    code, out, err = dlq(capsys, "requeue", "dead.ndjson", "--to-file", "again.ndjson")
    assert code == ExitCode.FAILED
    assert out == "3 dead letters sent to file again.ndjson\nkept in dead.ndjson.done\n"
    assert err.startswith("1 dead letter stay: refused by file again.ndjson: ")
    assert (project / "again.ndjson").read_bytes() == b'{"price":1}\n{"price":"x"}\n\xff\x00\n'
    assert offsets_in("dead.ndjson") == [4]


def test_messages_that_came_from_files_have_nowhere_to_go_back_to(
    capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    """And no Kafka is asked: there is none where this looks."""
    rows = [letter(topic="/data/orders.ndjson"), letter(topic="/data/orders.ndjson"), letter(topic="-")]
    write_letters(project / "files", *rows)
    code, out, err = dlq(capsys, "requeue", "files", "--bootstrap-servers", "127.0.0.1:1")
    assert (code, out) == (ExitCode.FAILED, "")
    where = "which takes no messages back: say where to with --to-file, --to-topic, --to-redis or --to-rabbitmq"
    assert err.splitlines() == [
        f"2 dead letters left out: they came from file /data/orders.ndjson, {where}",
        f"1 dead letter left out: they came from standard input, {where}",
    ]
    assert dlq(capsys, "requeue", "files", "--dry-run", "--bootstrap-servers", "127.0.0.1:1")[0] == ExitCode.FAILED
    assert dlq(capsys, "requeue", "files", "--to-file", "again.ndjson")[0] == 0


def test_lines_that_are_no_dead_letters_stay_and_are_told(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    path = project / "dead.ndjson"
    *others, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([b"not ours\n", *others, b"{}\n", last]))
    told = "line 1 of file dead.ndjson is no dead letter, and left alone, as 1 more: JSON is malformed"
    for arguments in (
        ["list", "dead.ndjson"],
        ["show", "dead.ndjson"],
        ["requeue", "dead.ndjson", "--to-file", "again.ndjson", "--topic", "orders"],
        ["drop", "dead.ndjson", "--yes"],
    ):
        code, _, err = dlq(capsys, *arguments)
        assert code == 0
        assert err.startswith(told)
        assert len(err.splitlines()) == 1
        assert json.loads(dlq(capsys, "list", "dead.ndjson", "--json")[1])["not_dead_letters"] == 2
    assert path.read_bytes() == b"not ours\n{}\n"


def test_show_gets_past_a_payload_that_is_nested_too_deep(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    path = project / "deep.ndjson"
    write_letters(path, letter(payload=b"[" * 5000), letter(payload=b'{"next":1}'))
    code, out, err = dlq(capsys, "show", "deep.ndjson")
    assert (code, err) == (0, "")
    assert "[" * 5000 in out
    assert '"next": 1' in out


APP = (
    HEAD
    + """
from pythia_fast import KafkaProducer

@app.batch_handler(source=KafkaConsumer(topic="SOURCE", bootstrap_servers="SERVERS"), DEAD schema=Order)
def score(batch: Batch[Order]) -> None:
    batch.reject(batch["qty"] == 7, reason="sevens")

@app.batch_handler(source=MemoryConsumer([]), schema=Order)
def other(batch: Batch[Order]) -> None:
    pass
"""
)


@pytest.mark.parametrize("where", ["topic", "frames", "records", "state folder"])
def test_letters_of_an_app_go_back_to_its_source_and_fail_again_until_they_are_left_out(
    capsys: pytest.CaptureFixture[str], project: Path, kafka: KafkaBroker, new_topic: NewTopic, where: str
) -> None:
    source, dead = new_topic(), new_topic()
    sinks = {
        "topic": f'dead_letter=KafkaProducer("{dead}", bootstrap_servers="SERVERS"),',
        "frames": 'dead_letter=FileProducer("rejected", format="msgpack-frames"),',
        "records": 'dead_letter=FileProducer("rejected", format="records"),',
    }
    text = APP.replace("DEAD", sinks.get(where, "")).replace("SOURCE", source)
    (project / f"shop_{source.replace('-', '_')}.py").write_text(text.replace("SERVERS", kafka.bootstrap_servers))
    app = f"shop_{source.replace('-', '_')}:app"
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(source, b'{"price":1,"qty":7}', b"k", headers=[("trace", b"1")])
    producer.produce(source, b'{"price":1,"qty":1}')
    assert producer.flush(30) == 0

    for times in range(3):
        finished = run(project, "run", app, "--until-end", "--workers", "2")
        assert finished.returncode == 0, finished.stderr
        (shown,) = dlq(capsys, "show", "--app", app, "--json")[1].splitlines()
        found = json.loads(shown)
        assert (found["topic"], found["offset"]) == (source, [0, 2, 3][times])
        assert (found["reason"], found["handler"], found["requeued"]) == ("sevens", "score", times)
        if times < 2:
            arguments = ("requeue", "--app", app, "--handler", "score", "--max-requeues", "2")
            code, out, err = dlq(capsys, *arguments)
            assert (code, err) == (0, "")
            assert out.splitlines()[0] == f"1 dead letter sent to kafka topic {source}"
            assert dlq(capsys, "list", "--app", app)[1] == "no dead letters match in app orders\n"
    code, out, err = dlq(capsys, *arguments)
    assert (code, out) == (ExitCode.FAILED, "")
    assert "1 dead letter left out: they came back 2 times or more already" in err
    last = messages_of(kafka.bootstrap_servers, source)[-1]
    assert (last.key(), last.value()) == (b"k", b'{"price":1,"qty":7}')
    assert last.headers() == [("trace", b"1"), ("pf-requeued", b"2")]


def test_a_topic_is_dealt_with_by_filters_and_what_is_hidden_is_told(
    capsys: pytest.CaptureFixture[str], project: Path, kafka: KafkaBroker, new_topic: NewTopic
) -> None:
    source, dead = new_topic(), new_topic()
    letters = [letter(topic=source, payload=b"%d" % n, error="E" if n % 2 else "F") for n in range(6)]
    produce_letters(kafka.bootstrap_servers, dead, *letters)
    place = ("--kafka", dead, "--bootstrap-servers", kafka.bootstrap_servers)

    def payloads() -> list[Any]:
        return [json.loads(line)["payload"] for line in dlq(capsys, "show", *place, "--json")[1].splitlines()]

    code, out, _ = dlq(capsys, "requeue", *place, "--error", "E", "--dry-run")
    assert (code, out) == (0, f"3 dead letters would be sent to kafka topic {source}\n")
    assert messages_of(kafka.bootstrap_servers, source) == []
    code, out, err = dlq(capsys, "requeue", *place, "--to-topic", dead)
    assert (code, out) == (ExitCode.USAGE, "")
    assert f"--to-topic {dead}: the dead letters themselves are there" in err
    code, out, _ = dlq(capsys, "requeue", *place, "--error", "E")
    assert code == 0
    assert out.splitlines()[0] == f"3 dead letters sent to kafka topic {source}"
    assert f"kafka topic {dead} holds other letters before some of them" in out
    assert payloads() == ["0", "2", "4"]
    code, out, _ = dlq(capsys, "drop", *place, "--yes", "--limit", "2")
    assert (code, out.splitlines()[0]) == (0, f"2 dead letters of kafka topic {dead} dropped")
    assert payloads() == ["4"]
    assert dlq(capsys, "drop", *place, "--yes")[:2] == (0, f"1 dead letter of kafka topic {dead} dropped\n")
    assert payloads() == []
    assert [message.value() for message in messages_of(kafka.bootstrap_servers, source)] == [b"1", b"3", b"5"]


def test_a_sink_that_cannot_be_read_is_told(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    text = HEAD + "from pythia_fast import MemoryProducer\n"
    for name, dead in (("one", "dead_letter=MemoryProducer(), "), ("two", "")):
        text += f"@app.batch_handler(source=MemoryConsumer([]), {dead}schema=Order)\ndef {name}(batch): pass\n"
    (project / "memory_shop.py").write_text(text)
    code, _, err = dlq(capsys, "list", "--app", "memory_shop:app")
    assert code == ExitCode.USAGE
    assert "error: handler 'one' sends its dead letters to " in err
    assert "which dlq cannot read" in err
    write_letters(project / ".pythia/orders/dead-letters/two.ndjson", LETTER, handler="two")
    write_letters(project / ".pythia/orders/dead-letters/two-1.ndjson", LETTER, LETTER, handler="two")
    write_letters(project / ".pythia/orders/dead-letters/two-1.ndjson", LETTER, handler="two-1")
    code, out, _ = dlq(capsys, "list", "--app", "memory_shop:app", "--handler", "two", "--json")
    assert (code, json.loads(out)["letters"]) == (0, 3)
    code, _, err = dlq(capsys, "list", "--app", "memory_shop:app", "--handler", "tow")
    assert (code, "did you mean 'two'?" in err) == (ExitCode.USAGE, True)


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from pythia_fast.cli.main import main; main(['dlq', 'requeue', '--help']);"
        "print([m for m in ('numpy', 'confluent_kafka', 'pika', 'redis', 'rich.table') if m in sys.modules])"
    )
    python = command()[0]
    finished = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert finished.stdout.splitlines()[-1] == "[]"

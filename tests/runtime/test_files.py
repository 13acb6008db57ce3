"""Files through whole runs: killed and resumed, a full disk at the sink, a file that shrank, dead letters on disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from pythia_fast import App, FileConsumer, FileProducer, MemoryProducer
from pythia_fast._ext.intake import SPOOLED_HEAD, SPOOLED_MOST
from pythia_fast.errors import ConfigError, SourceError
from pythia_fast.runtime.dead_letter import read_dead_letters

ROWS = 200_000

_APP = """
import sys
import time
import msgspec
from pythia_fast import App, FileConsumer, FileProducer

folder = sys.argv[1]

class Order(msgspec.Struct):
    id: int

app = App("files")

@app.batch_handler(
    source=FileConsumer(path=folder + "/in.ndjson", consumer_group="g"),
    sink=FileProducer(path=folder + "/out.ndjson"),
    schema=Order, batch_size=500, batch_timeout=0.01,
)
def score(batch):
    time.sleep(0.002)  # so that the run takes seconds, and can be killed in it
    return {"id": batch["id"]}

if __name__ == "__main__":
    print(app.run(workers=2, until="end", state_dir=folder + "/state").ending, flush=True)
"""


def ids(path: Path) -> set[int]:
    return {int(line.removeprefix(b'{"id":').removesuffix(b"}")) for line in path.read_bytes().splitlines()}


def wait_for_checkpoint(folder: Path, run: subprocess.Popen[bytes]) -> None:
    """Until the run has committed something (or ended, which the caller's asserts will tell)."""
    checkpoint = folder / "state" / "checkpoints" / "g.json"
    before = checkpoint.read_bytes() if checkpoint.exists() else b""
    while run.poll() is None and (checkpoint.read_bytes() if checkpoint.exists() else b"") == before:
        try:
            run.wait(0.01)
        except subprocess.TimeoutExpired:
            continue


def test_a_killed_run_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_bytes(b"".join(b'{"id":%d}\n' % i for i in range(ROWS)))
    (tmp_path / "app.py").write_text(_APP)
    command = [sys.executable, str(tmp_path / "app.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # it is built in place, not installed
    killed = 0
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
            assert run.stdout is not None
            if killed < 2:
                wait_for_checkpoint(tmp_path, run)
                run.send_signal(signal.SIGKILL)
                killed += 1
                continue
            assert run.stdout.read() == b"done\n"
            break
    rows = (tmp_path / "out.ndjson").read_bytes().count(b"\n")
    assert ids(tmp_path / "out.ndjson") == set(range(ROWS))
    assert rows < 3 * ROWS  # the checkpoint spared the later runs some of it


def echo(source: FileConsumer, sink: FileProducer | None = None) -> App:
    app = App("files")

    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=1000, name="echo")
    def echo(batch):
        return batch["payload"].tolist() if sink is not None else None

    return app


def test_a_full_disk_at_the_sink_holds_the_run_and_loses_nothing(tmp_path: Path) -> None:
    lines = [b"%06d" % i * 10 for i in range(50_000)]
    (tmp_path / "in").write_bytes(b"\n".join(lines) + b"\n")
    app = echo(FileConsumer(tmp_path / "in"), FileProducer(tmp_path / "out"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    troubles: list[str] = []
    full = threading.Event()

    class Watch:
        def started(self, info):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the arena, a file too, has its size by now

        def sample(self, snapshot):
            troubles.extend(snapshot.trouble)
            if any("cannot write" in line for line in troubles):  # a busy machine may be told of for other things
                full.set()

        def event(self, text):
            troubles.append(text)

        def finished(self, report):
            pass

    def make_room() -> None:
        full.wait(60)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    helper = threading.Thread(target=make_room)
    try:
        helper.start()
        report = app.run(workers=1, until="end", state_dir=tmp_path / "state", observer=Watch())
    finally:
        full.set()
        helper.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert report.rows == len(lines)
    assert any("cannot write" in line and "trying again" in line for line in troubles)
    assert sorted((tmp_path / "out").read_bytes().split()) == lines


def test_a_file_that_shrank_under_its_checkpoint_stops_the_run_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"a row\n" * 1000)
    state = tmp_path / "state"
    assert echo(FileConsumer(path)).run(workers=1, until="end", state_dir=state).rows == 1000
    assert echo(FileConsumer(path)).run(workers=1, until="end", state_dir=state).rows == 0
    path.write_bytes(b"a row\n" * 10)
    with pytest.raises(SourceError, match=r'shrank: it was read up to byte 6,000 and has 60 now.*start="beginning"'):
        echo(FileConsumer(path)).run(workers=1, until="end", state_dir=state)
    again = echo(FileConsumer(path, start="beginning"))
    assert again.run(workers=1, until="end", state_dir=state).rows == 10


@pytest.mark.parametrize("group", [None, "g"])
def test_two_handlers_of_one_group_of_files_are_refused_before_the_run(tmp_path: Path, group: str | None) -> None:
    (tmp_path / "in").write_bytes(b"a row\n")
    app = App("files")
    # Without a group the first one's is made of the names, "files.first": the second one may not take that either.
    for name, consumer_group in (("first", group), ("second", group or "files.first")):
        source = FileConsumer(tmp_path / "in", consumer_group=consumer_group)
        app.batch_handler(source=source, decoder="raw", name=name)(lambda batch: None)
    with pytest.raises(
        ConfigError,
        match=f"'first' and 'second' both read files as consumer group '{group or 'files.first'}'.*give each",
    ):
        app.run(workers=2, until="end", state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()
    assert app.run(workers=1, until="end", handlers=["second"], state_dir=tmp_path / "state").rows == 1


def test_two_handlers_that_write_one_file_are_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a row\n")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    app = App("files")
    for name, path in (("first", "out"), ("second", "link")):
        source = FileConsumer(tmp_path / "in", consumer_group=name)
        app.batch_handler(source=source, sink=FileProducer(tmp_path / path), decoder="raw", name=name)(
            lambda batch: None
        )
    with pytest.raises(ConfigError, match=r"sink of handler 'first' and the sink of handler 'second' are both .*link"):
        app.run(workers=2, until="end", state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_handler_whose_results_and_dead_letters_are_one_file_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a row\n")
    app = App("files")
    sinks = {"sink": FileProducer(tmp_path / "out"), "dead_letter": FileProducer(tmp_path / "." / "out")}
    app.batch_handler(source=FileConsumer(tmp_path / "in"), decoder="raw", name="one", **sinks)(lambda batch: None)
    with pytest.raises(ConfigError, match=r"the sink of handler 'one' and the dead_letter of handler 'one' are both"):
        app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_handlers_of_pipes_keep_no_positions_and_may_share_a_group(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = FileConsumer(tmp_path / "pipe", consumer_group="g")
    assert source.checkpoint_group("app", "handler") is None
    assert FileConsumer("-").checkpoint_group("app", "handler") is None


def test_rows_given_up_are_in_the_state_folder_byte_for_byte(tmp_path: Path) -> None:
    large = b"x" * 3_000_000
    (tmp_path / "in").write_bytes(b"good\n\xff\xfe\n" + large + b"\ngood\n")
    app = App("files")

    @app.batch_handler(source=FileConsumer(tmp_path / "in"), decoder="raw", max_batch_bytes=1 << 20, name="picky")
    def picky(batch):
        batch.reject(batch["payload"] == b"\xff\xfe", reason="not text")

    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (report.rows, report.dead_lettered) == (4, 2)
    letters = {
        stored.offset: stored.letter() for stored in read_dead_letters(tmp_path / "state/dead-letters/picky.ndjson")
    }
    assert letters[5].payload == b"\xff\xfe"
    assert letters[5].reason == "not text"
    assert letters[8].payload == large
    assert letters[8].topic == str(tmp_path / "in")


def test_of_a_record_that_no_dead_letter_can_hold_the_beginning_is_kept(tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb") as file:
        file.write(b"a\n")
        file.seek(2 + SPOOLED_MOST + 1)  # a hole: it takes no room on the disk
        file.write(b"END\nb\n")
    app = App("files")
    sink = MemoryProducer()

    @app.batch_handler(source=FileConsumer(tmp_path / "in"), sink=sink, decoder="raw", name="picky")
    def picky(batch):
        return batch["payload"].tolist()

    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (report.rows, report.dead_lettered) == (3, 1)
    assert sorted(sink.payloads) == [b"a", b"b"]
    (stored,) = read_dead_letters(tmp_path / "state/dead-letters/picky.ndjson")
    letter = stored.letter()
    assert letter.payload == bytes(SPOOLED_HEAD)
    assert (letter.topic, letter.offset) == (str(tmp_path / "in"), 2)
    assert (
        f"it has {SPOOLED_MOST + 4:,} bytes or more, of which the letter holds the first {SPOOLED_HEAD:,}"
        in letter.reason
    )


@pytest.mark.parametrize("part", ["sink", "dead_letter"])
def test_a_handler_cannot_write_to_a_file_that_it_reads(tmp_path: Path, part: str) -> None:
    (tmp_path / "in.ndjson").write_bytes(b"one\ntorn")
    (tmp_path / "link.ndjson").hardlink_to(tmp_path / "in.ndjson")
    app = App("files")
    options = {part: FileProducer(tmp_path / "link.ndjson")}
    app.batch_handler(source=FileConsumer(tmp_path / "in.ndjson"), decoder="raw", name="own", **options)(len)
    with pytest.raises(ConfigError, match=rf"handler 'own': its {part} is .*link.ndjson, which its source reads"):
        app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (tmp_path / "in.ndjson").read_bytes() == b"one\ntorn"


def test_a_sink_whose_file_is_made_within_the_glob_of_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_bytes(b"one\n")
    app = App("files")
    sink = FileProducer(tmp_path / "out.ndjson")
    app.batch_handler(source=FileConsumer(tmp_path / "*.ndjson"), sink=sink, decoder="raw", name="own")(len)
    with pytest.raises(SourceError, match=r"out.ndjson is written by a sink of the handler that would read it"):
        app.run(workers=1, until="end", state_dir=tmp_path / "state")


class Order(msgspec.Struct):
    id: int


@pytest.mark.parametrize("decoder", ["raw", "msgpack"])
def test_half_a_frame_is_a_dead_letter_where_nothing_can_follow_whatever_it_holds(tmp_path: Path, decoder: str) -> None:
    def frame(number: int) -> bytes:
        payload = b"\x81\xa2id" + bytes([number])
        return len(payload).to_bytes(4, "little") + payload

    # What is there of the last frame is a sound map by itself.
    half = (100).to_bytes(4, "little") + frame(2)[4:]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(frame(1) + half,))
    writer.start()
    app = App("files")
    sink = MemoryProducer()
    schema = {"schema": Order} if decoder == "msgpack" else {}

    @app.batch_handler(
        source=FileConsumer(tmp_path / "pipe", format="msgpack-frames"),
        sink=sink,
        decoder=decoder,
        name="cut",
        **schema,
    )
    def cut(batch):
        return [b"row"] * len(batch)

    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    writer.join()
    assert (report.rows, report.dead_lettered) == (2, 1)
    assert sink.payloads == [b"row"]
    (stored,) = read_dead_letters(tmp_path / "state/dead-letters/cut.ndjson")
    letter = stored.letter()
    assert (letter.payload, letter.offset) == (frame(2)[4:], len(frame(1)))
    assert letter.reason == "the file or pipe ends within this record"


def test_half_a_frame_that_fits_no_batch_is_refused_for_being_cut(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes((4_000_000).to_bytes(4, "little") + b"x" * 3_000_000)
    source = FileConsumer(tmp_path / "in", consumer_group="g", format="msgpack-frames")
    app = App("files")
    app.batch_handler(source=source, decoder="raw", max_batch_bytes=1 << 20, name="cut")(lambda batch: None)
    assert app.run(workers=1, until="end", state_dir=tmp_path / "state").rows == 0
    (tmp_path / "in").rename(tmp_path / "in.1")
    (tmp_path / "in").touch()
    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (report.rows, report.dead_lettered) == (1, 1)
    (stored,) = read_dead_letters(tmp_path / "state/dead-letters/cut.ndjson")
    letter = stored.letter()
    assert (letter.payload, letter.offset) == (b"x" * 3_000_000, 0)
    assert letter.reason == "the file or pipe ends within this record"


def test_a_json_line_that_was_cut_is_a_dead_letter_and_then_a_row(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"id":1}\n{"id":2')
    seen = MemoryProducer()
    app = App("files")

    @app.batch_handler(source=FileConsumer(tmp_path / "in"), sink=seen, schema=Order, name="orders")
    def orders(batch):
        return {"id": batch["id"]}

    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (report.rows, report.dead_lettered) == (2, 1)
    with (tmp_path / "in").open("ab") as file:
        file.write(b'3}\n{"id":4}\n')
    report = app.run(workers=1, until="end", state_dir=tmp_path / "state")
    assert (report.rows, report.dead_lettered) == (2, 0)
    assert seen.payloads == [b'{"id":1}', b'{"id":23}', b'{"id":4}']


def test_a_run_that_was_told_to_stop_and_one_whose_last_line_was_cut_lose_nothing(tmp_path: Path) -> None:
    """The first run is stopped by SIGTERM, the second takes half a line, the third reads that line whole."""
    rows = ROWS // 10
    content = b"".join(b'{"id":%d}\n' % number for number in range(rows))
    (tmp_path / "in.ndjson").write_bytes(content[:-4])
    (tmp_path / "app.py").write_text(_APP)
    command = [sys.executable, str(tmp_path / "app.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
        wait_for_checkpoint(tmp_path, run)
        run.send_signal(signal.SIGTERM)
        run.communicate()
    for _ in range(2):
        assert subprocess.run(command, check=True, capture_output=True, env=environment).stdout == b"done\n"
    with (tmp_path / "in.ndjson").open("ab") as file:
        file.write(content[-4:] + b'{"id":%d}\n' % rows)
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert ids(tmp_path / "out.ndjson") == set(range(rows + 1))

"""What ``transactional=True`` refuses when a handler is registered, and the ids that runs get."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pythia_fast import App, Batch, CircuitBreaker, FileProducer, KafkaConsumer, KafkaProducer, MemoryConsumer
from pythia_fast.brokers.base import PublisherContext
from pythia_fast.errors import ConfigError, SinkError
from pythia_fast.retry import RetryPolicy
from pythia_fast.runtime.transactional_id import claimed_id


class Row(msgspec.Struct):
    id: int


def register(**options: Any) -> None:
    def score(batch: Batch[Row]) -> None: ...

    given = {"source": KafkaConsumer("orders"), "sink": KafkaProducer("scored"), "transactional": True, **options}
    App("shop").batch_handler(**given)(score)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": MemoryConsumer([])}, "cannot be had with this source .it is MemoryConsumer."),
        ({"sink": None}, "cannot be had with this sink .none is given."),
        ({"sink": FileProducer("out.ndjson")}, "cannot be had with this sink .it is FileProducer."),
        ({"sink": KafkaProducer("scored", bootstrap_servers="elsewhere:9092")}, "source and sink are of two clusters"),
        (
            {"dead_letter": KafkaProducer("dead", bootstrap_servers="elsewhere:9092")},
            "source and dead_letter are of two",
        ),
        ({"source": KafkaConsumer("orders", isolation_level="read_uncommitted")}, "isolation_level='read_uncommitted'"),
        ({"retry": RetryPolicy(5, backoff=1)}, "rows may wait 15 s in all to be handled again"),
        (
            {"retry": RetryPolicy(3, backoff=1), "batch_deadline": 5},
            "rows may wait 3 s in all .* and then take batch_deadline=5 s, but a transaction may be open for 8 s",
        ),
        ({"transaction_interval_s": 9}, "transaction_interval_s=9 does not fit into the 8 s"),
        ({"transaction_interval_s": 0}, "seconds between commits, from 0.01 to 60"),
        ({"transactional": "yes"}, "transactional='yes': True or False"),
        ({"transactional_id": ""}, "transactional_id=''"),
        ({"transactional": False, "transactional_id": "a"}, "transactional_id='a' needs transactional=True"),
    ],
)
def test_what_cannot_be_exactly_once_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        register(**options)


def test_what_can_be_is_not() -> None:
    register()
    register(dead_letter=FileProducer("dead.ndjson"))
    register(retry=RetryPolicy(3, backoff=1))
    register(retry=RetryPolicy(3, backoff=1), batch_deadline=4.9)
    register(batch_deadline=60)  # nothing is written before every batch was handled once
    register(retry=RetryPolicy(3), batch_deadline=60)
    register(breaker=CircuitBreaker(expected=ConnectionError))
    register(sink=KafkaProducer("scored", transaction_timeout_ms=60_000), retry=RetryPolicy(5, backoff=1))
    both = ["kafka-1:9092", "kafka-2:9092"]
    register(
        source=KafkaConsumer("orders", bootstrap_servers=both), sink=KafkaProducer("scored", bootstrap_servers=both[1:])
    )


def test_options_of_the_producer(tmp_path: Path) -> None:
    context = PublisherContext("shop", "score", tmp_path, print)
    options = KafkaProducer("scored", linger_ms=7).transactional_options(context, "a.b.0")
    assert options["transactional.id"] == "a.b.0"
    assert (options["transaction.timeout.ms"], options["linger.ms"]) == ("10000", "7")
    assert "message.timeout.ms" not in options  # librdkafka makes it the timeout of the transaction


def test_every_copy_has_an_id_of_its_own_and_the_lowest_that_is_free(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        names = [first.enter_context(claimed_id("group", "score", "pod-1", tmp_path))]
        names += [stack.enter_context(claimed_id("group", "score", "pod-1", tmp_path)) for _ in range(2)]
        assert names == [f"group.score.pod-1.{number}" for number in range(3)]
        assert stack.enter_context(claimed_id("group", "other/handler", "pod-1", tmp_path)).endswith("pod-1.0")
        first.close()
        assert stack.enter_context(claimed_id("group", "score", "pod-1", tmp_path)) == names[0]
        assert len(list(tmp_path.iterdir())) == 4
    assert list(tmp_path.iterdir()) == []  # no lock outlives its holder


def test_what_killed_runs_left_is_removed_by_whoever_comes_next(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"transactions-{number:032}").touch()
    (tmp_path / "something else").touch()
    with (
        claimed_id("group", "score", "pod-1", tmp_path),
        claimed_id("group", "other", "pod-1", tmp_path) as other,
    ):
        assert other == "group.other.pod-1.0"
        assert len(list(tmp_path.glob("transactions-*"))) == 2  # those that are held
    assert [path.name for path in tmp_path.iterdir()] == ["something else"]


def test_a_lock_that_was_removed_under_its_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a copy's opening of the file and its lock, the holder leaves and another copy comes."""
    with ExitStack() as stack:
        holder = ExitStack()
        holder.enter_context(claimed_id("group", "score", "pod-1", tmp_path))
        lock, came = fcntl.flock, []

        def lock_late(fd: int, operation: int) -> None:
            if not operation & fcntl.LOCK_NB:
                return  # the folder's, which a release does not ask for, and neither does an earlier version
            monkeypatch.undo()
            holder.close()
            came.append(stack.enter_context(claimed_id("group", "score", "pod-1", tmp_path)))
            lock(fd, operation)

        monkeypatch.setattr(fcntl, "flock", lock_late)
        late = stack.enter_context(claimed_id("group", "score", "pod-1", tmp_path))
        assert (came, late) == (["group.score.pod-1.0"], "group.score.pod-1.1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SinkError, match="give the handler a transactional_id"),
        claimed_id("g", "h", None, tmp_path / "file"),
    ):
        pass

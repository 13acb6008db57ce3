"""When a run gives its transactions up, and when it writes them late: runtime/transactional.py with a producer that
loses what it is told.

A real broker loses a transaction now and then; five in a row, and one in between that is committed, are played here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pythia_fast import App, Batch, KafkaConsumer, KafkaProducer
from pythia_fast._ext.intake import GATE_OPEN
from pythia_fast._ext.ring import Arena
from pythia_fast.brokers.base import Partition, PublisherContext
from pythia_fast.errors import SinkError
from pythia_fast.runtime.dead_letter import DeadLetterWriter
from pythia_fast.runtime.flow import FlowControl
from pythia_fast.runtime.slots import SlotReader
from pythia_fast.runtime.transactional import MAX_ABORTS_IN_A_ROW, TransactionalCompletion


class Row(msgspec.Struct):
    id: int


class Producer:
    """Stands for KafkaTransactions: every request is fulfilled at once; ``loses`` says why it loses what is open."""

    transactional_id = "the-id"
    timeout_s = 10.0
    writes_late = False
    unwritten = False

    def __init__(self) -> None:
        self.outcomes: deque[str] = deque(["ready"])
        self.begun = 0
        self.open_s = 0.0
        self.late = False
        self.loses = ""
        self.committing: list[tuple[list[tuple[str, int, int]], bytes]] = []

    def outcome(self) -> str | None:
        return self.outcomes.popleft() if self.outcomes else None

    def begin(self, *, late: bool) -> None:
        self.begun += 1
        self.late = late

    def lost(self) -> str:
        return self.loses

    def abort(self) -> None:
        self.loses, self.open_s = "", 0.0
        self.outcomes.append("aborted")

    def commit(self, positions: list[tuple[str, int, int]], group: bytes) -> None:
        self.committing.append((positions, group))


class Reader:
    """Stands for the source: while it is asked for the group's membership, the intake thread does ``meanwhile``."""

    acknowledges_rows = False

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def group_metadata(self) -> bytes:
        self.meanwhile()
        return b"member"


class Run:
    """The completion thread of a handler, turn by turn, and what the intake thread does after an abort."""

    def __init__(self, folder: Path) -> None:
        app = App("shop")

        @app.batch_handler(source=KafkaConsumer("orders"), sink=KafkaProducer("scored"), transactional=True)
        def score(batch: Batch[Row]) -> None: ...

        handler = app.handlers["score"]
        self.arena = Arena(
            handler.decoding.plan, capacity=8, raw_bytes=4096, n_workers=1, credit=1, n_slots=2, output_bytes=4096
        )
        self.log: list[str] = []
        self.admitted: list[int] = []
        self.producer = Producer()
        self.reader = Reader()
        self.partitions: dict[int, Partition] = {}
        self.completion = TransactionalCompletion(
            handler,
            self.arena,
            self.reader,
            None,
            DeadLetterWriter(None, PublisherContext("shop", "score", folder, self.log.append)),
            slots=SlotReader(self.arena, handler, self.partitions, folder),
            flow=FlowControl(handler, self.arena, bounded=False, admit=self.admitted.append, log=self.log.append),
            launch=lambda _: None,
            wake_intake=lambda: None,
            fail=lambda _: None,
            log=self.log.append,
            transactions=self.producer,
            partitions=self.partitions,
            attend=lambda: None,
        )
        self.turn()

    def turn(self) -> None:
        self.completion._turn()

    def lose(self, why: str) -> None:
        self.producer.loses = why
        self.abort()

    def grow_old(self) -> None:
        self.producer.open_s = self.producer.timeout_s
        self.abort()

    def abort(self) -> None:
        self.turn()  # it is seen, and the abort asked for
        self.turn()  # the transaction is aborted
        assert self.completion.aborted
        self.completion.rewound(self.arena.epoch + 1)
        self.turn()  # another one is open
        assert not self.completion.aborted

    def commit(self) -> None:
        self.producer.outcomes.append("committed")
        self.turn()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.arena.close()


def test_five_aborts_in_a_row_are_made_and_the_sixth_ends_the_run(run: Run) -> None:
    for number in range(MAX_ABORTS_IN_A_ROW):
        run.lose(f"loss {number}")
    assert run.producer.begun == 1 + MAX_ABORTS_IN_A_ROW
    run.producer.loses = "loss 5"
    with pytest.raises(SinkError, match=r"'score': 5 transactions in a row were aborted.*the last one: loss 5"):
        run.turn()
    assert run.completion.counts.transactions_aborted == MAX_ABORTS_IN_A_ROW
    assert [line.split(": ")[2] for line in run.log] == [
        f"loss {number}; its rows are read again" for number in range(5)
    ]


def test_a_commit_begins_the_count_anew(run: Run) -> None:
    for _ in range(3):
        for _ in range(MAX_ABORTS_IN_A_ROW):
            run.lose("lost")
        run.commit()
    assert (run.completion.counts.transactions_aborted, run.completion.counts.transactions) == (15, 3)


def test_what_the_group_takes_away_does_not_count(run: Run) -> None:
    for index in range(2 * MAX_ABORTS_IN_A_ROW):
        run.completion.assigned([index])
        run.completion._epochs.settle(index, 1)  # rows of it are in the open transaction
        run.completion.forget([index])
        run.turn()
        run.turn()
        assert run.completion.aborted
        run.completion.rewound(run.arena.epoch + 1)
        run.turn()
    assert run.completion.counts.transactions_aborted == 2 * MAX_ABORTS_IN_A_ROW
    assert "the group went on without this member" in run.log[0]


@pytest.mark.parametrize("lost", [False, True])
def test_what_the_group_takes_away_while_its_membership_is_read_is_not_committed(run: Run, lost: bool) -> None:
    run.partitions[0] = Partition(0, "orders", 5)
    run.completion.assigned([0])
    run.completion._epochs.settle(0, 7)
    run.completion._epochs.begin(run.arena.epoch, run.arena.epoch - 1)  # all its batches are done
    if lost:
        run.reader.meanwhile = lambda: run.completion.forget([0])
    run.turn()
    assert run.producer.committing == ([] if lost else [([("orders", 5, 7)], b"member")])
    run.turn()
    run.turn()
    assert run.completion.aborted == lost


def test_after_one_that_became_too_old_transactions_are_written_late_until_they_are_quick_again(run: Run) -> None:
    assert not run.producer.late
    run.grow_old()
    assert run.producer.late
    run.commit()
    assert run.producer.late  # it was quick, but rows of the one that was aborted may still be to come
    run.completion._too_old_at -= run.producer.timeout_s
    run.completion._began -= run.producer.timeout_s
    run.commit()
    assert run.producer.late  # it was slow
    run.commit()
    assert not run.producer.late


def test_other_reasons_to_abort_are_none_to_write_late(run: Run) -> None:
    run.lose("lost")
    assert not run.producer.late


def test_what_an_abort_undid_is_void_until_reading_goes_on(run: Run) -> None:
    run.producer.loses = "lost"
    run.turn()
    assert run.arena.is_void(0)
    run.turn()
    assert run.arena.is_void(0)
    run.completion.rewound(0)
    assert not run.arena.is_void(0)


def test_reading_waits_while_a_transaction_takes_in_what_keeps_it_from_its_own_rows(run: Run) -> None:
    run.completion._extend(3)
    assert (run.completion._epochs.last, run.admitted) == (3, [0])
    run.completion._extend(4)
    assert (run.completion._epochs.last, run.admitted) == (4, [0])
    run.commit()
    assert run.admitted == [0, GATE_OPEN]
    run.completion._extend(9)
    run.lose("lost")
    assert run.admitted == [0, GATE_OPEN, 0, GATE_OPEN]

"""brokers/kafka_quiet: which partitions of a Kafka consumer have messages that do not come; with a broker made up."""

from __future__ import annotations

import threading

import pytest

from pythia_fast.brokers.base import Kept, Quiet
from pythia_fast.brokers.kafka_quiet import ASK_AFTER_S, ASK_EVERY_S, ASKED_AT_ONCE, TOLD_AFTER_S, QuietPartitions


class Broker:
    """Stands for the native reader. ``heard``: ends as fetches told them; ``ends``: as a question finds them."""

    def __init__(self, partitions: int = 1) -> None:
        self.position = dict.fromkeys(range(partitions), 0)
        self.ended_at = dict.fromkeys(range(partitions), -1)
        self.heard = dict.fromkeys(range(partitions), 0)
        self.ends: dict[int, int] = {}
        self.held: dict[int, float] = {}
        self.paused = False
        self.answers = True
        self.asked: list[int] = []

    def standing(self):
        return [
            ("t", p, at, self.ended_at[p], at if p in self.held else -1, self.held.get(p, -1.0), self.paused)
            for p, at in self.position.items()
        ]

    def watermarks(self, topic, partition, timeout_ms):
        if timeout_ms == 0:
            return (0, self.heard[partition]) if self.heard[partition] >= 0 else None
        self.asked.append(partition)
        return (0, self.ends.get(partition, self.heard[partition])) if self.answers else None

    def broker_answers(self, timeout_ms):
        self.asked.append(-1)
        return self.answers


class Watched:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.now = 1000.0
        self.quiet = QuietPartitions(broker, ["t"], lambda: self.now)

    def after(self, seconds: float) -> list[Quiet]:
        """What is told after so long, with a look a second."""
        for _ in range(int(seconds)):
            self.now += 1
            found = self.quiet.look()
            if self.quiet._asker is not None:
                self.quiet._asker.join()
        return found


@pytest.fixture
def watched():
    made = []

    def make(broker: Broker) -> Watched:
        made.append(Watched(broker))
        made[-1].quiet.look()
        return made[-1]

    yield make
    for one in made:
        one.quiet.close()


def test_a_partition_read_to_its_end_is_quiet_for_ever_without_a_word(watched):
    one = watched(Broker())
    assert one.after(3600) == []
    assert len(one.broker.asked) <= 3600 / ASK_EVERY_S + 1


def test_messages_known_to_be_there_that_do_not_come_are_told(watched):
    broker = Broker()
    broker.position[0], broker.heard[0] = 17, 20
    one = watched(broker)
    assert one.after(TOLD_AFTER_S - 1) == []
    (found,) = one.after(10)
    assert found == Quiet("t", 0, 17, pytest.approx(12.0), 3, 0.0)
    broker.position[0] = 20
    assert one.after(10) == []


def test_markers_behind_the_last_message_are_none_that_should_come(watched):
    """A transaction's marker has an offset of its own: the end that was met says that nothing is left before it."""
    broker = Broker()
    broker.position[0], broker.ended_at[0], broker.heard[0] = 17, 18, 18
    assert watched(broker).after(60) == []


def test_messages_behind_a_stuck_fetch_are_found_by_asking(watched):
    broker = Broker()
    broker.ends[0] = 5
    one = watched(broker)
    assert one.after(ASK_AFTER_S - 1) == []
    (found,) = one.after(ASK_EVERY_S)
    assert (found.offset, found.messages, found.silent_s) == (0, 5, 0.0)


def test_a_broker_that_does_not_answer_is_told_and_that_it_answers_again_is_noticed(watched):
    broker = Broker()
    broker.answers = False
    one = watched(broker)
    (found,) = one.after(20)
    assert found.messages is None
    assert found.silent_s == pytest.approx(20 - ASK_AFTER_S, abs=1.5)
    broker.answers = True
    assert one.after(3) == []


def test_a_partition_that_brings_neither_message_nor_end_is_told(watched):
    broker = Broker()
    broker.position[0] = broker.heard[0] = -1
    one = watched(broker)
    assert one.after(4) == []  # it may take a while to begin
    broker.ends[0] = 9
    (found,) = one.after(10)
    assert (found.offset, found.messages, found.silent_s) == (0, None, 0.0)


def test_a_partition_that_is_not_fetched_on_purpose_is_not_quiet(watched):
    broker = Broker()
    broker.heard[0], broker.paused = 100, True
    one = watched(broker)
    assert one.after(60) == []
    broker.paused, broker.held = False, {0: 60.0}
    assert one.after(60) == []
    assert one.quiet.kept() == [Kept("t", 0, 0, 60.0)]
    assert broker.asked == []
    broker.held = {}
    assert len(one.after(10)) == 1


def test_many_quiet_partitions_are_asked_in_turns(watched):
    broker = Broker(300)
    one = watched(broker)
    one.after(ASK_AFTER_S + 1)
    assert len(broker.asked) == ASKED_AT_ONCE
    one.after(5 * ASK_EVERY_S)
    assert set(broker.asked) == set(range(300))


def test_a_partition_that_was_given_back_is_forgotten(watched):
    broker = Broker(2)
    broker.heard[1] = 10
    one = watched(broker)
    assert len(one.after(10)) == 1
    del broker.position[1]
    assert one.after(1) == []
    broker.position[1] = 0
    assert one.after(2) == []  # a new assignment begins anew


def test_a_member_without_partitions_tells_of_a_broker_that_does_not_answer(watched):
    """As one that the group went on without, while its broker was away."""
    broker = Broker()
    one = watched(broker)
    broker.position.clear()
    assert one.after(100) == []
    broker.answers = False
    (found,) = one.after(ASK_EVERY_S + 2)
    assert (found.topic, found.partition, found.offset, found.messages) == ("t", -1, -1, None)
    assert found.silent_s > 0
    broker.position[0] = 0
    assert one.after(1) == []


def test_closing_waits_for_the_question_under_way_and_asks_no_more():
    asked, answer = threading.Event(), threading.Event()

    class Slow(Broker):
        def watermarks(self, topic, partition, timeout_ms):
            if timeout_ms:
                asked.set()
                answer.wait(30)
            return super().watermarks(topic, partition, timeout_ms)

    broker, now = Slow(3), [0.0]
    quiet = QuietPartitions(broker, ["t"], lambda: now[0])
    quiet.look()
    now[0] = 100.0
    quiet.look()
    assert asked.wait(30)
    closer = threading.Thread(target=quiet.close)
    closer.start()
    assert closer.is_alive()
    answer.set()
    closer.join(30)
    assert len(broker.asked) == 1
    assert quiet.look() == []
    assert quiet.kept() == []


def test_closing_is_possible_after_no_thread_could_be_started_to_ask(monkeypatch):
    def no_more(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    one = Watched(Broker())
    one.quiet.look()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        one.after(ASK_AFTER_S + 1)
    one.quiet.close()

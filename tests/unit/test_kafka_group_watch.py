"""brokers/kafka_group_watch: what a member is told while it waits for its group; with a coordinator made up."""

from __future__ import annotations

from pythia_fast.brokers.kafka_coordinator import Group
from pythia_fast.brokers.kafka_group_watch import AGAIN_S, ASK_AFTER_S, GroupWatch
from pythia_fast.brokers.kafka_rejoining import LOOK_AGAIN_S


class Coordinator:
    """Stands for the group's coordinator, and for time."""

    def __init__(self, *, static: bool = False, patterns: str = "") -> None:
        self.now_s = 100.0
        self.asked = 0
        self.rejoined = 0
        self.rebalances = False  #: as librdkafka sees it
        self.group = Group("rebalance", {"shop-1 at 10.0.0.1": 0})
        self.trouble: Exception | None = None  #: that asking raises
        self.watch = GroupWatch(
            "g",
            45,
            300,
            static=static,
            patterns=patterns,
            ask=self.answer,
            rejoin=self.rejoin,
            clock=lambda: self.now_s,
        )

    def answer(self) -> Group:
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        return self.group

    def rejoin(self) -> bool:
        self.rejoined += not self.rebalances
        return not self.rebalances

    def look(self, held: int = 0) -> str | None:
        """The question, and then what came of it."""
        first = self.watch.look(held)
        assert first is None
        if self.watch._asker is not None:
            self.watch._asker.join()
        return self.watch.look(held)

    def later(self, seconds: float) -> None:
        self.now_s += seconds


def test_nothing_is_asked_before_a_rebalance_has_had_its_time() -> None:
    coordinator = Coordinator()
    coordinator.later(ASK_AFTER_S - 0.1)
    assert coordinator.look() is None
    coordinator.watch.changed()
    coordinator.later(ASK_AFTER_S - 0.1)
    assert coordinator.look() is None
    assert coordinator.asked == 0


def test_a_member_without_partitions_says_what_it_waits_for_for_how_long_and_what_to_do() -> None:
    coordinator = Coordinator()
    coordinator.later(ASK_AFTER_S)
    line = coordinator.look()
    assert line is not None
    assert line.startswith("kafka: this member of group g has had no partition for 3 s: the group is in a rebalance")
    assert "(shop-1 at 10.0.0.1)" in line
    assert "until its session ends, at most 45 s after its last sign of life" in line
    assert "session_timeout_ms=" in line
    assert "with group_instance_id=, another one for each copy" in line


def test_it_is_told_again_as_long_as_it_lasts() -> None:
    coordinator = Coordinator()
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look() is not None
    coordinator.later(AGAIN_S - 0.1)
    assert coordinator.look() is None
    coordinator.later(0.1)
    coordinator.group = Group("stable", {"shop-1 at 10.0.0.1": 4})
    line = coordinator.look()
    assert line is not None
    assert "no partition for 18 s: others hold them (shop-1 at 10.0.0.1: 4)" in line


def test_a_member_too_many_is_told_so_once_every_session_that_could_end_has_ended() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("stable", {"shop-1 at 10.0.0.1": 4})
    coordinator.later(44)
    assert "are free when its session ends, at most 45 s" in (coordinator.look() or "")
    coordinator.later(AGAIN_S)
    line = coordinator.look() or ""
    assert "others hold them and live (shop-1 at 10.0.0.1: 4): there are more members than partitions" in line
    coordinator.later(1000)
    assert coordinator.look() is None
    assert coordinator.asked == 2


UNREAD = Group("stable", {"shop-1 at 10.0.0.1": 2}, unread="orders[0, 1]")


def test_a_member_without_partitions_joins_again_where_nobody_reads_some_at_two_looks() -> None:
    coordinator = Coordinator()
    coordinator.group = UNREAD
    coordinator.later(ASK_AFTER_S)
    line = coordinator.look() or ""
    assert "this member of group g has had no partition for 3 s, and nobody reads orders[0, 1]" in line
    assert coordinator.rejoined == 0
    coordinator.later(1.5 * LOOK_AGAIN_S)
    line = coordinator.look() or ""
    assert "nobody reads orders[0, 1], though group g is stable (shop-1 at 10.0.0.1: 2)" in line
    assert "This member leaves the group and joins it again" in line
    assert coordinator.rejoined == 1


def test_a_member_that_cannot_leave_as_a_rebalance_begins_tries_again_at_the_looks_after_it() -> None:
    coordinator = Coordinator()
    coordinator.group = UNREAD
    coordinator.later(ASK_AFTER_S)
    coordinator.look()
    coordinator.rebalances = True
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert coordinator.look() is None
    coordinator.rebalances = False
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert "this member of group g has had no partition" in (coordinator.look() or "")
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert "This member leaves the group and joins it again" in (coordinator.look() or "")
    assert coordinator.rejoined == 1


def test_a_question_that_fails_ends_in_a_sentence() -> None:
    coordinator = Coordinator()
    coordinator.trouble = KeyError("topic")
    coordinator.later(ASK_AFTER_S)
    assert "its coordinator does not tell why (KeyError: 'topic')" in (coordinator.look() or "")


def test_a_rebalance_between_two_looks_begins_the_count_anew() -> None:
    coordinator = Coordinator()
    coordinator.group = UNREAD
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look() is not None
    coordinator.watch.changed()
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert coordinator.look() is not None
    coordinator.group = Group("rebalance", {"shop-1 at 10.0.0.1": 2})
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert coordinator.look() is not None
    coordinator.group = UNREAD
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert coordinator.look() is not None
    assert coordinator.rejoined == 0


def test_a_member_that_joined_again_in_vain_says_what_to_do_and_leaves_the_group_alone_for_a_session() -> None:
    coordinator = Coordinator()
    coordinator.group = UNREAD
    coordinator.later(ASK_AFTER_S)
    coordinator.look()
    coordinator.later(1.5 * LOOK_AGAIN_S)
    coordinator.look()
    coordinator.watch.changed()  # it is in again
    coordinator.later(ASK_AFTER_S)
    line = coordinator.look() or ""
    assert "nobody reads orders[0, 1], though this member has joined group g again (shop-1 at 10.0.0.1: 2)" in line
    assert "start the other members anew" in line
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert coordinator.look() is None
    assert coordinator.rejoined == 1
    coordinator.later(90)
    assert coordinator.look() is not None
    assert coordinator.rejoined == 2


def test_a_member_with_partitions_joins_again_only_when_nobody_may_still_be_giving_them_back() -> None:
    coordinator = Coordinator()
    coordinator.group = UNREAD
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look(held=2) is None
    coordinator.later(299)
    assert coordinator.look(held=2) is None
    assert coordinator.rejoined == 0
    coordinator.later(1.5 * LOOK_AGAIN_S)
    assert "This member gives back what it has, leaves the group and joins it again" in (coordinator.look(held=2) or "")
    assert coordinator.rejoined == 1
    coordinator.watch.changed()
    coordinator.group = Group("stable", {"shop-1 at 10.0.0.1": 2})
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look(held=2) is None
    assert not coordinator.watch.waits


def test_a_member_that_is_not_in_the_group_yet_does_not_join_again() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("stable", {"shop-1 at 10.0.0.1": 2}, unread="orders[0, 1]", joined=False)
    coordinator.later(ASK_AFTER_S)
    assert "others hold them" in (coordinator.look() or "")
    coordinator.later(AGAIN_S)
    assert coordinator.look() is not None
    assert coordinator.rejoined == 0


def test_a_member_of_a_group_that_is_settled_asks_once() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("stable", {})
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look(held=2) is None
    assert not coordinator.watch.waits
    coordinator.later(1000)
    assert coordinator.look(held=2) is None
    assert coordinator.asked == 1
    coordinator.watch.changed()
    assert coordinator.watch.waits


def test_a_member_with_partitions_tells_of_a_rebalance_that_does_not_end() -> None:
    coordinator = Coordinator()
    coordinator.later(ASK_AFTER_S)
    line = coordinator.look(held=2)
    assert line is not None
    assert (
        "group g, of whose partitions this member has 2, has not settled for 3 s: the group is in a rebalance" in line
    )
    coordinator.group = Group("stable", {})
    coordinator.later(AGAIN_S)
    assert coordinator.look(held=2) is None
    assert not coordinator.watch.waits


def test_a_coordinator_that_does_not_answer_is_said_by_a_member_that_waits() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("unknown", {}, "timed out")
    coordinator.later(ASK_AFTER_S)
    assert "its coordinator does not tell why (timed out)" in (coordinator.look() or "")
    coordinator.later(AGAIN_S)
    assert coordinator.look(held=1) is None


def test_a_static_member_is_not_told_to_become_one() -> None:
    coordinator = Coordinator(static=True)
    coordinator.later(ASK_AFTER_S)
    assert (coordinator.look() or "").endswith("a restart with the same group_instance_id= need not wait")


def test_a_large_group_is_named_in_part() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("rebalance", {f"member {n}": 0 for n in range(9)})
    coordinator.later(ASK_AFTER_S)
    assert "(member 0, member 1, member 2, member 3 and 5 more)" in (coordinator.look() or "")


def test_patterns_that_no_topic_matches_are_told_and_given_up() -> None:
    coordinator = Coordinator(patterns="^zzz.* at kafka:9092")
    coordinator.group = Group("unknown", {}, joined=False)
    coordinator.later(ASK_AFTER_S)
    assert coordinator.watch.failure(3) is None  # nobody was asked yet
    assert coordinator.look() == "kafka: no topic matches ^zzz.* at kafka:9092; waiting for one"
    assert (coordinator.watch.failure(6), coordinator.watch.failure(None)) == (None, None)
    coordinator.later(ASK_AFTER_S)
    assert coordinator.look() is None  # told already
    failure = coordinator.watch.failure(6)
    assert failure is not None
    assert failure.startswith("no topic matches ^zzz.* at kafka:9092, and nobody created one within 6 s")
    coordinator.later(AGAIN_S)
    assert "waiting for one" in (coordinator.look() or "")
    coordinator.watch.changed()  # a topic came
    assert coordinator.watch.failure(6) is None


def test_a_member_that_joined_or_may_be_joining_is_not_given_up() -> None:
    coordinator = Coordinator(patterns="^zzz.* at kafka:9092")
    for group in (
        Group("rebalance", {}, joined=False),
        Group("unknown", {}, "timed out", joined=False),
        Group("stable", {"shop-1 at 10.0.0.1": 4}),
    ):
        coordinator.group = group
        coordinator.later(AGAIN_S)
        assert "matches" not in (coordinator.look() or "matches")
        assert coordinator.watch.failure(1) is None


def test_a_member_that_the_group_refuses_is_told_so_and_given_up() -> None:
    coordinator = Coordinator()
    coordinator.group = Group("stable", {"shop-1 at 10.0.0.1": 4}, joined=False)
    coordinator.watch.refused("JoinGroup failed: Broker: Inconsistent group protocol")
    coordinator.later(60)
    assert coordinator.look() == (
        "kafka: group g does not let this member in (JoinGroup failed: Broker: Inconsistent group protocol); trying on"
    )
    assert "did not let this member in within 6 s: JoinGroup failed" in (coordinator.watch.failure(6) or "")

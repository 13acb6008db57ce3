"""GroupWatch: what a member of a consumer group is told while it waits for the group.

A member that was killed has left nobody a word: its group waits for it until its session ends, 45 s by default. The
others get its partitions, and a successor gets any, only then, and nothing that librdkafka calls back with says so. So
a few seconds after the last assignment or revocation the group's coordinator is asked, beside the reading, how the
group stands: once where all is well, and now and then while there is something to wait for.

A stable group some of whose partitions nobody reads is asked on; where that lasts, this member joins it again
(``kafka_rejoining.py`` says how such a group comes about, and when).

A member whose patterns match no topic does not join its group at all, and one that the group refuses tries for ever.
The coordinator knows neither of them, so both are given up where what is not there is to be given up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pythia_fast.brokers.kafka_coordinator import Group
from pythia_fast.brokers.kafka_rejoining import Rejoining
from pythia_fast.error_text import reason_of

ASK_AFTER_S = 3.0  #: without an assignment or a revocation
AGAIN_S = 15.0  #: between two sentences about one wait
NAMED = 4  #: members


class GroupWatch:
    """Of one member; on the thread that acts on rebalances.

    Parameters:
        group: its name.
        session_s: after which a member that is silent is no member any more.
        poll_s: for how long a member may give partitions back.
        static: whether this member has a ``group.instance.id``.
        patterns: of topics, and where; empty where a topic is named, too.
        ask: the coordinator; called on a thread of its own.
        rejoin: leave the group, and join it again; False: it is rebalancing just now, nothing was done.
        clock: seconds.
    """

    def __init__(
        self,
        group: str,
        session_s: float,
        poll_s: float,
        *,
        static: bool,
        patterns: str = "",
        ask: Callable[[], Group],
        rejoin: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._session_s = session_s
        self._static = static
        self._patterns = patterns
        self._ask = ask
        self._rejoin = rejoin
        self._rejoining = Rejoining(session_s, poll_s, clock=clock)
        self._clock = clock
        self._since_s = self._next_s = 0.0
        self._answer: Group | None = None
        self._asker: threading.Thread | None = None
        self._asked = False
        self._refusal = ""
        self._outside = False  #: when the coordinator was last asked
        self._tell_outside_s = 0.0
        self.waits = False  #: ``look`` is to be called about once a second
        self.changed()

    def changed(self) -> None:
        """Partitions were assigned or revoked, or the brokers are there now."""
        self._since_s = self._clock()
        self._next_s = self._since_s + ASK_AFTER_S
        self._asked = False
        self._refusal = ""
        self._outside = False
        self._rejoining.changed()
        self.waits = True

    def refused(self, why: str) -> None:
        """The group did not let this member in."""
        self._refusal = why

    def failure(self, limit_s: float | None) -> str | None:
        """Why the run is to end, once this member has been outside its group for so long; None: it is not to end."""
        if limit_s is None or not self._outside or self._clock() - self._since_s < limit_s:
            return None
        if self._refusal:
            return f"group {self._group} did not let this member in within {limit_s:g} s: {self._refusal}"
        return (
            f"no topic matches {self._patterns}, and nobody created one within {limit_s:g} s: check the pattern, a "
            "POSIX extended regular expression ([0-9], not \\d), or create the topic (kafka-topics.sh --create)"
        )

    def look(self, held: int) -> str | None:
        """A sentence, where one is due. ``held``: partitions that this member has."""
        if not self.waits or self._clock() < self._next_s or (self._asker is not None and self._asker.is_alive()):
            return None
        if not self._asked:
            asker = threading.Thread(target=self._ask_and_keep, name=f"group {self._group}", daemon=True)
            asker.start()
            self._asker, self._asked = asker, True
            return None
        answer, self._asked = self._answer, False
        assert answer is not None  # _ask_and_keep has ended
        self._outside = not held and answer.is_without_us and bool(self._refusal or self._patterns)
        if self._outside:
            return self._tell_outside()
        if answer.state != "stable" or not answer.joined:
            self._rejoining.changed()
        elif answer.unread:
            return self._unread(answer, held)
        else:
            self._rejoining.helped()
        if held and answer.state != "rebalance":
            self.waits = False
            return None
        self._next_s = self._clock() + AGAIN_S
        if answer.state == "stable" and self._clock() - self._since_s > self._session_s + ASK_AFTER_S:
            self.waits = False
            return self._one_too_many(answer)
        return self._sentence(answer, held)

    def _ask_and_keep(self) -> None:
        try:
            self._answer = self._ask()
        except Exception as error:  # what it is asked for is a sentence, for which no run is to end
            self._answer = Group("unknown", {}, reason_of(error))

    def _tell_outside(self) -> str | None:
        now = self._clock()
        self._next_s = now + ASK_AFTER_S  # a topic that is made now takes us in
        if now < self._tell_outside_s:
            return None
        self._tell_outside_s = now + AGAIN_S
        if self._refusal:
            return f"kafka: group {self._group} does not let this member in ({self._refusal}); trying on"
        return f"kafka: no topic matches {self._patterns}; waiting for one"

    def _unread(self, group: Group, held: int) -> str | None:
        first = self._rejoining.is_first_look()
        due = self._rejoining.is_due(held)
        self._next_s = self._clock() + self._rejoining.look_after_s()
        if due:
            if not self._rejoin():
                self._rejoining.changed()
                return None
            self._rejoining.rejoined()
            return (
                f"kafka: nobody reads {group.unread}, though group {self._group} is stable "
                f"({_names(group, counts=True)}): a member was lost before it had said that it gave them back. This "
                f"member {'gives back what it has, ' if held else ''}leaves the group and joins it again, so that they "
                "are given out"
            )
        if not first:
            return None
        if self._rejoining.times:
            return (
                f"kafka: nobody reads {group.unread}, though this member has joined group {self._group} again "
                f"({_names(group, counts=True)}): start the other members anew, or stop all for longer than their "
                f"session. This member joins again in {self._rejoining.pause_s:.0f} s at the earliest"
            )
        if held:
            return None
        waited_s = self._clock() - self._since_s
        return (
            f"kafka: this member of group {self._group} has had no partition for {waited_s:.0f} s, and nobody reads "
            f"{group.unread}: a member that gives them back may still have rows of them in hand, or it was lost; if "
            "this lasts, this member joins the group again"
        )

    def _sentence(self, group: Group, held: int) -> str:
        waited_s = self._clock() - self._since_s
        if held:
            subject = f"group {self._group}, of whose partitions this member has {held}, has not settled"
        else:
            subject = f"this member of group {self._group} has had no partition"
        return f"kafka: {subject} for {waited_s:.0f} s: {self._why(group)}; {self._advice()}"

    def _one_too_many(self, group: Group) -> str:
        return (
            f"kafka: this member of group {self._group} has no partition, because others hold them and live "
            f"({_names(group, counts=True)}): there are more members than partitions, and it gets one when a member "
            "leaves"
        )

    def _why(self, group: Group) -> str:
        ends = f"its session ends, at most {self._session_s:g} s after its last sign of life"
        if group.state == "rebalance":
            return (
                f"the group is in a rebalance, which waits for every member ({_names(group, counts=False)}), and for "
                f"one that was killed until {ends}"
            )
        if group.state == "stable":
            return (
                f"others hold them ({_names(group, counts=True)}), and those of one that was killed are free when "
                f"{ends}"
            )
        if group.trouble:
            return f"its coordinator does not tell why ({group.trouble})"
        return f"its coordinator knows of no member yet; one that was killed is waited for until {ends}"

    def _advice(self) -> str:
        shorter = "a smaller session_timeout_ms= of the KafkaConsumer makes such waits shorter"
        if self._static:
            return f"{shorter}; a restart with the same group_instance_id= need not wait"
        return (
            f"{shorter}, and with group_instance_id=, another one for each copy, a copy that is started again has its "
            "partitions at once"
        )


def _names(group: Group, *, counts: bool) -> str:
    if not group.members:
        return "none but this one" if not counts else "nobody that is known"
    shown = [f"{name}: {count}" if counts else name for name, count in sorted(group.members.items())[:NAMED]]
    more = f" and {len(group.members) - NAMED} more" if len(group.members) > NAMED else ""
    return ", ".join(shown) + more

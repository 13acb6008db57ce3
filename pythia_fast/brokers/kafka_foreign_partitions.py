"""ForeignPartitions: what a member that has read its own partitions to their ends does about those of others.

A member that was killed keeps its partitions until its session ends: nobody reads them, and a run to the end that
leaves meanwhile would say that it is done. So it stays a member until, of every partition that is not its own,

    the group's position is at the end     it was read
    its owner is seen to live              it is left to that member, and told
    it comes here                          the owner was dead, or has left: it is read here

An owner lives whose position moves, or that the coordinator still knows one session after it was first looked at: it
drops a member that has been silent for so long. One that lives but gets nowhere holds nobody up for longer than that.
Members that wait for each other have committed all that they read, which each sees of the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pythia_fast.brokers.base import Rest
from pythia_fast.brokers.group_share import is_among
from pythia_fast.brokers.kafka_coordinator import Owner
from pythia_fast.brokers.kafka_foreign_look import Bounds, Key, Look, Looking
from pythia_fast.brokers.kafka_partition_names import partition_names

TOLD_AFTER_S = 3.0  #: of waiting
SESSION_MARGIN_S = 1.0  #: for the coordinator to notice that a session has ended
UNTOLD_MARGIN_S = 10.0  #: for its partitions to come here, where the coordinator does not tell whose they are


@dataclass(slots=True)
class _Life:
    """What was seen of a member."""

    since_s: float
    positions: dict[Key, int | None] = field(default_factory=dict)  #: when they were first looked at
    moved: bool = False


class ForeignPartitions:
    """Of one reader, on the thread that serves it.

    Parameters:
        group: its name.
        topics: that are read, patterns among them.
        session_s: after which a member that is silent is no member any more.
        looking: begins to look at the brokers.
        log: takes a line.
        clock: seconds.
    """

    def __init__(
        self,
        group: str,
        topics: Collection[str],
        session_s: float,
        *,
        looking: Callable[[Mapping[Key, Bounds | None]], Looking],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._patterns = [topic for topic in topics if topic.startswith("^")]
        self._session_s = session_s
        self._begin = looking
        self._log = log
        self._clock = clock
        self._read: frozenset[int] = frozenset()  #: assignments that were read to their ends
        self._matched: dict[Key, None] | None = None  #: of patterns, others' and not known before; None: not asked yet
        self._looking: Looking | None = None
        self._lives: dict[str | Key, _Life] = {}  #: by member id; by partition where that is not told
        self._since_s = 0.0
        self._told = False
        self.left: tuple[str, ...] = ()  #: sentences

    def ended(self, assignments: Collection[int]) -> None:
        """These, by their indices, were read to their ends; a partition that is assigned later was not."""
        self._read = frozenset(assignments)

    def rest(self, own: Mapping[Key, int], bounds: Mapping[Key, Bounds]) -> Rest:
        """``own``: partitions that this member has, with their indices; ``bounds``: of all that are known."""
        if not self._read.issuperset(own.values()):
            self._stop_looking()
            return "here"
        wanted: dict[Key, Bounds | None] = {
            key: marks for key, marks in bounds.items() if key not in own and marks[0] < marks[1]
        }
        wanted.update({key: None for key in self._matched or () if key not in own and key not in bounds})
        if not wanted and (self._matched is not None or not self._patterns):
            self._stop_looking()
            return "none"
        if self._looking is None:
            self._looking = self._begin(wanted)
            self._lives, self._since_s, self._told = {}, self._clock(), False
        self._looking.ask_about(wanted)
        look = self._looking.last
        if look is None or look.keys != wanted.keys():
            return "awaited"
        if self._matched is None and self._patterns and look.owners is not None:
            self._matched = {key: None for key in look.owners if self._is_matched(key) and key not in bounds}
            return "awaited"
        rest = self._judge(look)
        if rest == "none":
            self._stop_looking()
        return rest

    def close(self) -> None:
        """Nobody asks any more."""
        self._stop_looking()

    def _is_matched(self, key: Key) -> bool:
        return is_among(key[0], self._patterns)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.close()
        self._looking = None

    # -- a look ----------------------------------------------------------------------------------

    def _judge(self, look: Look) -> Rest:
        unread = look.keys - look.finished
        if not unread and not look.trouble:
            return "none"
        owners = look.owners
        if owners is not None:
            self._note(look, owners)
            if all(key in owners and self._is_alive(owners[key], key, look) for key in unread):
                self.left = tuple(self._sentences(look, owners, unread))
                for sentence in self.left:
                    self._log(f"kafka: {sentence}")
                return "none"
        if not self._told and self._clock() - self._since_s >= TOLD_AFTER_S:
            self._told = True
            self._log(f"kafka: {self._waiting(look, unread)}")
        return "awaited"

    def _note(self, look: Look, owners: Mapping[Key, Owner]) -> None:
        known = {_life_key(owner, key) for key, owner in owners.items()}
        self._lives = {key: life for key, life in self._lives.items() if key in known}
        for key in look.keys & owners.keys():
            life = self._lives.setdefault(_life_key(owners[key], key), _Life(look.began_s))
            position = look.positions.get(key)
            life.moved |= life.positions.setdefault(key, position) != position

    def _is_alive(self, owner: Owner, key: Key, look: Look) -> bool:
        life = self._lives[_life_key(owner, key)]
        margin_s = SESSION_MARGIN_S if owner.member_id else UNTOLD_MARGIN_S
        return life.moved or look.began_s - life.since_s >= self._session_s + margin_s

    # -- sentences -------------------------------------------------------------------------------

    def _sentences(self, look: Look, owners: Mapping[Key, Owner], unread: Collection[Key]) -> list[str]:
        theirs: dict[str, list[Key]] = {}
        for key in sorted(unread):
            theirs.setdefault(owners[key].name, []).append(key)
        return [
            f"{partition_names(keys)} left to {name}, which lives: {_short_of(look, keys)} are not committed by group "
            f"{self._group} yet"
            for name, keys in theirs.items()
        ]

    def _waiting(self, look: Look, unread: Collection[Key]) -> str:
        begin = "this member has read its partitions to their ends"
        if look.trouble:
            return f"{begin}, and the brokers do not tell how far those of others are: {look.trouble}"
        return (
            f"{begin}, and waits for {partition_names(unread)}, of which {_short_of(look, unread)} are not committed: "
            f"{self._why(look, unread)}"
        )

    def _why(self, look: Look, unread: Collection[Key]) -> str:
        if look.owners is None:
            return f"group {self._group} is in a rebalance"
        names = sorted({look.owners[key].name for key in unread if key in look.owners})
        if not names:
            return f"no member of group {self._group} has them"
        them = "it" if len(unread) == 1 else "them"
        return (
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} {them} and may have been killed; the group "
            f"knows when a session has ended, {self._session_s:g} s after the last sign of life, and gives {them} to a "
            "member that lives"
        )


def _life_key(owner: Owner, key: Key) -> str | Key:
    return owner.member_id or key


def _short_of(look: Look, keys: Collection[Key]) -> str:
    """Markers of transactions take offsets, too."""
    count = sum(end - max(look.positions.get(key, start), start) for key in keys for start, end in [look.bounds[key]])
    return f"up to {count:,} messages before the end"

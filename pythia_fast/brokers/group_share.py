"""What readers of one consumer group share, so that two handlers which would take each other's messages can be told."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

GROUP_VARIABLE = "CONSUMER_GROUP"  #: of the environment: the group of every consumer that is given none


@dataclass(frozen=True, slots=True)
class GroupShare:
    """What a group deals out among those who read as it: each message reaches one of them."""

    kind: str  #: of what it reads: "Kafka topic"
    names: tuple[str, ...]  #: of what it reads
    servers: frozenset[str]  #: where that is: two brokers are the same one where these have any in common
    group: str
    given: bool  #: as an option of the consumer, not by the environment
    patterns: bool = False  #: a name that begins with ^ is one

    def in_common(self, other: GroupShare) -> str | None:
        """What both would read as one group; None: nothing, as far as can be told without asking a broker."""
        if (self.kind, self.group) != (other.kind, other.group) or not self.servers & other.servers:
            return None
        for mine in self.names:
            for theirs in other.names:
                if mine == theirs or (self.patterns and is_among(theirs, [mine])):
                    return theirs
                if self.patterns and is_among(mine, [theirs]):
                    return mine
        return None

    @property
    def by_variable(self) -> bool:
        return not self.given and self.group == os.environ.get(GROUP_VARIABLE)


def is_among(name: str, patterns: Iterable[str]) -> bool:
    """Whether this name is among the names and patterns, as librdkafka has them."""
    return any(_matches(pattern, name) if pattern.startswith("^") else pattern == name for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            return re.match(pattern, name) is not None
    except re.error:  # librdkafka's expressions are not Python's in all they can say
        return False

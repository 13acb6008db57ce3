"""Brokers that do not answer: said while they are waited for, and given up in time."""

from __future__ import annotations

import time
from collections.abc import Callable

from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.routine import Routine

ALL_BROKERS_DOWN = -187
TRANSPORT = -195
RESOLVE = -193
AUTHENTICATION = -169
TIMED_OUT = -185
#: Connection trouble of one broker: told as one sentence once no broker is left.
CONNECTION_ERRORS = frozenset({TRANSPORT, RESOLVE, ALL_BROKERS_DOWN, TIMED_OUT, -181})

FIRST_COMPLAINT_SECONDS = 3.0


class BrokersAway:
    """Of one reader, on the thread that serves it; true while no broker answers.

    Parameters:
        servers: for messages.
        answers: whether one answers now, asked with whether any ever has.
        log: takes a line.
    """

    def __init__(
        self, servers: str, answers: Callable[[bool], bool], troubles: TroubleLog, log: Callable[[str], None]
    ) -> None:
        self._answers = answers
        self._servers = servers
        self._troubles = troubles
        self._log = log
        self._since: float | None = time.monotonic()
        self._reason = ""
        self._ever_reached = False

    def __bool__(self) -> bool:
        return self._since is not None

    def hear(self, code: int, text: str) -> None:
        """An error of the client as a whole."""
        if code in CONNECTION_ERRORS:
            self._reason = text if code != ALL_BROKERS_DOWN or not self._reason else self._reason
            if code == ALL_BROKERS_DOWN and self._since is None:
                self._since = time.monotonic()
        elif code == AUTHENTICATION:
            self._troubles.tell(
                f"kafka: {self._servers} refuses the credentials (sasl.* and security.protocol): {text}", code
            )
        else:
            self._troubles.tell(f"kafka: {text}", code)

    def answers(self) -> bool:
        """Whether one that was away is there again."""
        return self._since is not None and self._answers(self._ever_reached)

    def reached(self) -> None:
        """One has answered."""
        if self._since is not None and self._troubles.is_told("away"):
            self._log(Routine(f"kafka: {self._servers} answers"))
        self._troubles.over("away")
        self._since = None
        self._reason = ""
        self._ever_reached = True

    def failure(self, limit_s: float | None) -> str | None:
        """Why the run is to end; None: it is not. Complains meanwhile."""
        if self._since is None:
            return None
        away = time.monotonic() - self._since
        reason = f" ({self._reason})" if self._reason else ""
        if limit_s is not None and away >= limit_s:
            return (
                f"no Kafka broker answered at {self._servers} within {limit_s:g} s{reason}: is it running, and is "
                "bootstrap.servers right (bootstrap_servers= or KAFKA_BOOTSTRAP_SERVERS)?"
            )
        if away >= FIRST_COMPLAINT_SECONDS:
            self._troubles.tell(f"kafka: no broker answers at {self._servers}{reason}; trying on", "away")
        return None

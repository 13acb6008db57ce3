"""Brokers that do not answer: said while they are waited for, and given up in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.routine import Routine

ALL_BROKERS_DOWN = -187
TRANSPORT = -195
RESOLVE = -193
AUTHENTICATION = -169
TIMED_OUT = -185
#: Connection trouble of one broker: told as one sentence once no broker is left.
CONNECTION_ERRORS = frozenset({TRANSPORT, RESOLVE, ALL_BROKERS_DOWN, TIMED_OUT, -181})

ANSWER_MS = 1000
FIRST_COMPLAINT_SECONDS = 3.0


class AsksBrokers(Protocol):
    """A client, as far as it is asked here."""

    def broker_answers(self, timeout_ms: int) -> bool: ...


class BrokersAway:
    """Of one reader, on the thread that serves it; true while no broker answers."""

    def __init__(self, native: AsksBrokers, servers: str, troubles: TroubleLog, log: Callable[[str], None]) -> None:
        self._native = native
        self._servers = servers
        self._troubles = troubles
        self._log = log
        self._since: float | None = time.monotonic()
        self._reason = ""

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

    def look(self) -> None:
        """Is one there again? Waits for its answer."""
        if self._since is not None and self._native.broker_answers(ANSWER_MS):
            self.reached()

    def reached(self) -> None:
        """One has answered."""
        if self._since is not None and self._troubles.is_told("away"):
            self._log(Routine(f"kafka: {self._servers} answers"))
        self._troubles.over("away")
        self._since = None
        self._reason = ""

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

"""A connection to RabbitMQ that comes back: connects, notices the end, waits a little longer each time, tells people.

    connecting ──▶ opening ──▶ open ──▶ (lost) ──▶ waiting ──▶ connecting ...

Driven by ``turn()``, which never waits; one thread at a time.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pika.exceptions import AMQPConnectionError, AMQPError

from pythia_fast.brokers.rabbitmq_address import Address
from pythia_fast.brokers.rabbitmq_errors import Refusal, connection_refusal
from pythia_fast.brokers.rabbitmq_link import Connecting, Link, Timers
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast._ext.amqp_stream import AmqpStream

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
HANDSHAKE_S = 10.0  #: from the connected socket to being let in
FIRST_COMPLAINT_S = 2.0


class Backoff:
    """How long to wait before the next attempt: doubled each time, and spread, so that many do not come at once."""

    def __init__(self) -> None:
        self._attempts = 0

    def next_s(self) -> float:
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._attempts, 10))
        self._attempts += 1
        return wait_s * random.uniform(0.75, 1.25)

    def reset(self) -> None:
        self._attempts = 0


class Session:
    """See the module's docstring.

    Parameters:
        name: by which the server lists the connection.
        wake: makes whoever drives this call ``turn`` soon. Any thread.
        opened: the server has let us in.
        lost: the connection is gone, with why; called whether it had been opened or not.
        failed: it is of no use to go on, with a sentence.
        connect_timeout: seconds without a server before it has failed; None: it waits for ever.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        stream: AmqpStream,
        *,
        wake: Callable[[], None],
        log: Callable[[str], None],
        opened: Callable[[], None],
        lost: Callable[[str], None],
        failed: Callable[[str], None],
        connect_timeout: float | None,
    ) -> None:
        self.address = address
        self.timers = Timers()
        self.link: Link | None = None
        self.trouble: str | None = None  #: why there is no connection, while there is none
        self._name = name
        self._stream = stream
        self._wake = wake
        self._log = log
        self._opened = opened
        self._lost = lost
        self._failed = failed
        self._connect_timeout = connect_timeout
        self._connecting: Connecting | None = None
        self._backoff = Backoff()
        self._away_since: float | None = time.monotonic()
        self._ever_open = False
        self._closing = False
        self.troubles = TroubleLog(log)
        self._connect()
        if connect_timeout is not None:
            self.timers.later(connect_timeout, self._give_up_if_away)

    @property
    def is_open(self) -> bool:
        return self.link is not None and bool(self.link.is_open)

    def turn(self) -> float | None:
        """Do what is due; seconds until something will be, None: only when something comes."""
        if self._connecting is not None and (found := self._connecting.result()) is not None:
            self._connecting = None
            self._connected(found)
        if self.link is not None:
            self.link.turn()
        return self.timers.run()

    def drop(self, why: str) -> None:
        """End the connection as if it had been lost, so that another one is made."""
        if self.link is not None:
            self.link.drop(AMQPConnectionError(why))

    def close(self, turn: Callable[[float], None], timeout: float) -> None:
        """Say goodbye and wait for the answer; ``turn`` serves the connection for at most so many seconds."""
        self._closing = True
        if self._connecting is not None:
            self._connecting.abandon()
        link = self.link
        if link is None:
            return
        with contextlib.suppress(AMQPError):
            link.close()
        deadline = time.monotonic() + timeout
        while self.link is not None and time.monotonic() < deadline:
            turn(0.05)
        if self.link is not None:
            self.link.drop(AMQPConnectionError("closed"))

    # -- its course ----------------------------------------------------------------------------

    def _connect(self) -> None:
        if not self._closing:
            self._connecting = Connecting(self.address, self._wake)

    def _connected(self, found: socket.socket | OSError) -> None:
        if isinstance(found, OSError):
            self._over(found)
            return
        self.link = link = Link(
            self.address, self._name, found, self._stream, self.timers, opened=self._open, over=self._over
        )
        self.timers.later(HANDSHAKE_S, lambda: self._give_up_handshake(link))

    def _give_up_handshake(self, link: Link) -> None:
        if self.link is link and not link.is_open and not link.is_closing:
            link.drop(AMQPConnectionError(f"it did not let us in within {HANDSHAKE_S:.0f} s"))

    def _open(self) -> None:
        if self._away_since is not None and self.troubles.is_told("away"):
            self._log(Routine(f"rabbitmq: {self.address} answers"))
        self.troubles.over("away")
        self._away_since = None
        self._ever_open = True
        self.trouble = None
        self._opened()

    def settled(self) -> None:
        """All is as it should be: the next trouble is the first one."""
        self._backoff.reset()

    def _over(self, error: Exception) -> None:
        self.link = None
        if self._closing:
            return
        refusal = connection_refusal(error, self.address)
        self.trouble = refusal.sentence
        self._lost(refusal.sentence)
        if refusal.lasting and not self._ever_open:
            self._failed(refusal.sentence)
            return
        self._complain(refusal)
        self.timers.later(self._backoff.next_s(), self._connect)

    def _complain(self, refusal: Refusal) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            if self._connect_timeout is not None:
                self.timers.later(self._connect_timeout, self._give_up_if_away)
            self.troubles.tell(f"rabbitmq: {refusal.sentence}; trying again", "away")
        elif now - self._away_since >= FIRST_COMPLAINT_S:
            self.troubles.tell(f"rabbitmq: {refusal.sentence}; trying on", "away")

    def _give_up_if_away(self) -> None:
        limit = self._connect_timeout
        if limit is None or self._away_since is None or time.monotonic() - self._away_since < limit * 0.99:
            return
        reason = f" ({self.trouble})" if self.trouble else ""
        self._failed(
            f"no RabbitMQ let us in at {self.address} within {limit:g} s{reason}: is it running, and is the address "
            "right (url= or RABBITMQ_URL)?"
        )

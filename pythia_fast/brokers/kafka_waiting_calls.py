"""Calls of a transactional producer that wait for the broker: made again, told of, given up or left behind."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from pythia_fast.brokers.trouble_log import QUIET_S

Failure = tuple[int, str, str]  #: error code, text, kind (KafkaPublisherNative._outcome)
Call = Callable[[], Failure | None]

CALL_MS = 1000  #: a call that takes longer is made again, after a look whether the run ends meanwhile


class ClosedError(Exception):
    """The run ends while a call waits for the broker."""


class OverError(Exception):
    """The transaction is at its end, and librdkafka's producer with it; another one goes on."""


class WaitingCalls:
    """Makes the calls of one thread.

    Parameters:
        closing: whether the run ends.
        judge: raises what a failure comes to that no later call can heal.
        tell: says a sentence to the user.
    """

    def __init__(self, closing: threading.Event, judge: Callable[[Failure], None], tell: Callable[[str], None]) -> None:
        self.left_behind = False  #: a call that does not end has the producer
        self._closing = closing
        self._judge = judge
        self._tell = tell

    def insist(
        self,
        call: Call,
        what: str,
        *,
        between: Callable[[], object] = lambda: None,
        give_up_after_s: float = math.inf,
    ) -> str:
        """Make a call until it succeeds; why not, where the transaction has to be aborted.

        ``what``: says, after "it", what the call has not come to. ``between``: done between two calls. Raises
        ClosedError, OverError after ``give_up_after_s``, and what ``judge`` raises.
        """
        told = began = time.monotonic()
        while (failure := call()) is not None:
            _, text, kind = failure
            if kind == "abort":
                return text
            self._judge(failure)
            between()
            if self._closing.is_set():
                raise ClosedError
            now = time.monotonic()
            if now - began >= give_up_after_s:
                raise OverError(f"it {what}, after {give_up_after_s:g} s: {text}")
            if now - told >= QUIET_S:
                told = now
                self._tell(f"it {what}: {text}")
        return ""

    def answered_within(self, seconds: float, call: Call, name: str, who: str) -> Failure | None:
        """Make a call that may never end, on a thread of that ``name``, which has the producer then.

        A failure to abort for, after a pause, where there can be no thread now. Raises ClosedError, and OverError where
        ``who`` did not answer in time.
        """
        answer: SimpleQueue[Failure | None] = SimpleQueue()
        try:
            threading.Thread(target=lambda: answer.put(call()), name=name, daemon=True).start()
        except RuntimeError as error:  # as many threads as the system allows: that may be over soon
            self._closing.wait(CALL_MS / 1000)
            return 0, str(error), "abort"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                return answer.get(timeout=CALL_MS / 1000)
            except Empty:
                if self._closing.is_set():
                    self.left_behind = True
                    raise ClosedError from None
        self.left_behind = True
        raise OverError(f"{who} did not answer for {seconds:g} s")

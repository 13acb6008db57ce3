"""Reading: a handler's intake thread, from the first message to the last one that is committed.

    read ─▶ until the sources end, or it is to stop ─▶ drain: what was read is finished and committed
      ▲                                                  │
      ├──────── its transaction was aborted ◀────────────┤
      └──── partitions of others have come here ◀────────┘

It is also the listener of the source's reader: partitions come and go on this thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_fast._ext import gather
from pythia_fast._ext import intake as native
from pythia_fast._ext.intake import Intake
from pythia_fast.brokers.base import Partition, Reader
from pythia_fast.errors import SourceError
from pythia_fast.runtime.completion import READ_AGAIN, Completion
from pythia_fast.runtime.spool import SpoolTrouble
from pythia_fast.runtime.standing import next_attempt

if TYPE_CHECKING:
    from pythia_fast._ext.ring import Arena
    from pythia_fast.registration import Handler

DRAIN_TURN_S = 0.5  #: longest time without a look at the source while its last batches wait for credit
SETTLE_TURN_S = 0.002
REVOKE_TURN_S = 0.05
REST_TURN_S = 0.02
SPOOL_RETRY_S = 1.0
NAMED_PLACES = 4  #: in one line
COMMIT_RETRY_S = 0.2  #: between attempts at the last commit
LOSS_TOLD_S = 2.0  #: librdkafka looks once a second whether its session is over


class Reading:
    """See the module's docstring. Made before the source is open, whose reader has it as listener.

    Parameters:
        partitions: by index; kept up to date here.
        drain_timeout: seconds for which partitions that are taken away may hold up the group, and a broker that is
            away the end.
        fail: called with what ended the thread before its time.
    """

    def __init__(
        self,
        handler: Handler,
        arena: Arena,
        partitions: dict[int, Partition],
        *,
        drain_timeout: float,
        fail: Callable[[BaseException], None],
        log: Callable[[str], None],
    ) -> None:
        self.finished = False  #: source ended or stopped, everything settled and committed
        #: Stopped, and all that is not committed is the next run's: it waits, was aborted, or cannot be committed.
        self.left_over = False
        self.aborted_messages = 0  #: taken in, but their transaction was aborted, so they are read again
        self._handler = handler
        self._arena = arena
        self._partitions = partitions
        self._drain_timeout = drain_timeout
        self._fail = fail
        self._log = log
        self._giving_up = threading.Event()
        self._stopped = False
        self._drain_until = 0.0  #: time.monotonic(), once it is stopped
        self._lost = False  #: partitions were, while what was read was finished
        self._thread: threading.Thread | None = None
        self._reader: Reader
        self._completion: Completion
        self._intake: Intake
        self._spool_dir: Path
        self._spool_trouble = SpoolTrouble()
        self._spool_why = ""  #: the last failure, as half a sentence

    # -- other threads ---------------------------------------------------------------------------

    def start(self, reader: Reader, completion: Completion, intake: Intake, spool_dir: Path) -> None:
        """Begin to read."""
        self._reader, self._completion, self._intake, self._spool_dir = reader, completion, intake, spool_dir
        thread = threading.Thread(target=self._run, name=f"intake {self._handler.name}", daemon=True)
        thread.start()
        self._thread = thread  # now that it can be joined

    @property
    def started(self) -> bool:
        return self._thread is not None

    def spool_trouble(self) -> str:
        """Why nothing is read, where an oversize payload finds no room in the spool; else empty."""
        return self._spool_why if self._spool_trouble.lasts(time.monotonic()) else ""

    def stop(self) -> None:
        """Read no more; what was read is finished, and what waits to be handled again is due now, once a batch."""
        if not self._stopped:
            self._drain_until = time.monotonic() + self._drain_timeout
        self._stopped = True
        self._intake.hurry(True)
        if self._giving_up.is_set() or not self._reader.finish():
            self._intake.stop()

    def give_up(self) -> None:
        """End the thread, whatever is left, and wait for that."""
        self._giving_up.set()
        self.stop()
        assert self._thread is not None
        self._thread.join()

    # -- this thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read()
            while not self._drain():
                self._read()
        except BaseException as error:
            self._fail(error)

    def _read(self) -> None:
        while True:
            outcome = self._intake.run()
            if outcome == native.CALL:
                self._reader.serve()
            elif outcome == native.BLOCKED:
                self._reader.pause()
            elif outcome == native.ROOM:
                self._reader.resume()
            elif outcome == native.ATTENTION:
                self._rewind()
            elif outcome in (native.SPOOL, native.SOURCE_SPOOL):
                keeps = self._intake if outcome == native.SPOOL else self._reader
                reason = os.strerror(keeps.spool_error())
                self._spool_why = f"cannot keep an oversize payload in {self._spool_dir}: {reason}"
                if trying := self._spool_trouble.met(time.monotonic()):
                    self._log(f"{self._handler.name}: {self._spool_why}; {trying}")
                if self._giving_up.wait(SPOOL_RETRY_S):
                    return
            elif outcome == native.FAILED:
                raise SourceError(f"{self._handler.source.describe()}: {self._reader.failure()}")
            else:  # END or STOPPED
                if outcome == native.END:
                    self._reader.ended()
                return

    def _rewind(self) -> None:
        """Read again from the committed positions, if a transaction was aborted."""
        if not self._completion.aborted:
            return
        self._reader.rewind()
        self._completion.rewound(self._intake.next_epoch())
        self.aborted_messages = self._intake.messages - self._completion.counts.rows

    def _drain(self) -> bool:
        """Finish what was read and commit it. However long that takes, the source stays what the group knows.

        False: its transaction was aborted, or partitions were lost or have come, so there is more to read.
        """
        self._lost = False
        while True:
            idle = self._intake.flush(DRAIN_TURN_S) and self._completion.idle()
            if self._completion.aborted and not self._stopped:
                self._rewind()
                return False
            if idle:
                break
            if self._nothing_comes_before_the_end():
                self._leave_what_waits()
                return True
            self._reader.keep_alive()
            if self._giving_up.wait(SETTLE_TURN_S):
                return True
        if self._completion.aborted:
            self._leave_what_was_aborted()
            return True
        trouble = self._commit_the_last()
        if self._lost and not self._stopped and self._reader.read_again():
            return False
        if trouble and not self._stopped:
            raise SourceError(f"{self._handler.source.describe()}: {trouble}; {READ_AGAIN}")
        if not trouble and self._more_has_come():
            return False
        self.finished, self.left_over = not trouble, bool(trouble)
        return True

    def _more_has_come(self) -> bool:
        """Whether the rest of the source is to be read here. While that is not known, stay what the group knows."""
        limit = self._reader.limit
        if limit is not None and limit.taken >= limit.most:
            return False
        while not self._stopped and (rest := self._reader.rest()) != "none":
            if rest == "here":
                return self._reader.read_again()
            self._reader.keep_alive()
            if self._giving_up.wait(REST_TURN_S):
                break
        return False

    def _nothing_comes_before_the_end(self) -> bool:
        """Whether all that is left waits for its next attempt beyond the drain deadline, and has had its early one.

        Not asked with transactions: the rows of one that is being committed are in no slot any more.
        """
        if not self._stopped or self._handler.transactions is not None:
            return False
        return gather.all_wait_past(self._arena, self._drain_until - time.monotonic())

    def _leave_what_waits(self) -> None:
        if trouble := self._commit_the_last():
            self._log(f"{trouble}; {READ_AGAIN}")
        waits = gather.waiting(self._arena)
        them = "it" if waits.rows == 1 else "them"
        self._log(
            f"{self._handler.name}: {next_attempt(waits)}, beyond the drain timeout; the next run reads {them} again"
            f"{self._done_behind(them)}"
        )
        self.left_over = True

    def _done_behind(self, them: str) -> str:
        """What else the next run has again, as the end of a sentence."""
        places = [
            self._reader.place(self._partitions[index].topic, self._partitions[index].partition, at)
            for index, at in sorted(self._completion.held_back().items())
        ]
        if not places:
            return ""
        more = f" and of {len(places) - NAMED_PLACES} partitions more" if len(places) > NAMED_PLACES else ""
        return f", and with {them} all that was done behind {', '.join(places[:NAMED_PLACES])}{more}"

    def _leave_what_was_aborted(self) -> None:
        """Stopped, and the last transaction came to nothing: its rows are the next run's, or another member's.

        The reason may be that the group went on without this member, which the source tells some time later.
        """
        until = min(time.monotonic() + LOSS_TOLD_S, self._drain_until)
        while self._completion.undone.ours and time.monotonic() < until and not self._giving_up.wait(SETTLE_TURN_S):
            self._reader.keep_alive()
        self.left_over = self._completion.undone.ours > 0
        self.finished = not self.left_over

    def _commit_the_last(self) -> str:
        """What is done is handled again if this fails, so a broker that is away is given as long as a drain is.

        Returns "", or why it is not committed.
        """
        deadline = time.monotonic() + self._drain_timeout
        told = False
        while trouble := self._completion.commit(wait=True):
            if self._giving_up.is_set() or time.monotonic() >= deadline:
                return trouble
            if not told:
                self._log(f"{trouble}; trying again for {self._drain_timeout:g} s")
                told = True
            self._reader.keep_alive()
            self._giving_up.wait(COMMIT_RETRY_S)
        return ""

    # -- Listener: called by the reader on this thread -------------------------------------------

    def assigned(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            self._partitions[partition.index] = partition
            self._arena.name_partition(partition.index, partition.topic, partition.partition)
        self._completion.assigned([partition.index for partition in partitions])

    def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        indices = [partition.index for partition in partitions]
        if lost:
            self._lost = True
            self._completion.forget(indices)
            return
        deadline = self._settle(indices)
        if not self._completion.settle_and_forget(indices, deadline):
            names = ", ".join(f"{partition.topic}[{partition.partition}]" for partition in partitions)
            self._log(f"{self._handler.name}: {names} revoked with rows in hand; {READ_AGAIN}")

    def settle(self, partitions: Sequence[Partition]) -> None:
        self._settle([partition.index for partition in partitions])
        if trouble := self._completion.commit(wait=True):
            self._log(f"{trouble}; trying again")

    def _settle(self, indices: Sequence[int]) -> float:
        """Wait until no rows of these are in hand, at most to the deadline, which is returned (time.monotonic())."""
        deadline = time.monotonic() + self._drain_timeout
        self._intake.hurry(True)  # rows that wait would have the group wait for them
        while (left := deadline - time.monotonic()) > 0:
            self._intake.flush(min(left, REVOKE_TURN_S))
            if self._completion.settled(indices, min(left, REVOKE_TURN_S)):
                break
            if self._arena.waits_past(set(indices), left):
                deadline = 0.0  # what is not done by then is read again by whoever gets them: nobody need wait for that
        self._intake.hurry(self._stopped)
        return deadline

"""What a run did: the value `App.run` returns and the file `--report` writes."""

from __future__ import annotations

import builtins
from typing import Literal

import msgspec

from pythia_fast.printable import printable

#: How a run came to its end. "done": the sources ended. "drained": asked to stop, and everything read was
#: finished, or is another member's now. "deadline": asked to stop, and the drain deadline passed with work left, or
#: nothing was left but rows that wait for their next attempt beyond it, or whose transaction was aborted meanwhile.
#: "killed": a second signal. "failed": an exception ended it.
Ending = Literal["done", "drained", "deadline", "killed", "failed"]

#: Whether a handler's source is read. "paused": on purpose (docs/flow-control.md); "probing": it is being found out
#: whether that is still needed. "rate limited": it is read, but not faster than rate_limit allows.
Flow = Literal["open", "rate limited", "paused", "probing"]


class HandlerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One handler's part of a run. The counts mean what they mean in `RunReport`."""

    name: str
    source: str = ""  #: as the source describes itself
    sink: str = ""  #: as the sink describes itself; empty without one
    dead_letters: tuple[str, ...] = ()  #: where those of this run went: a sink, a file of the state folder, or both
    workers: int = 0  #: pool processes that ran this handler
    rows: int = 0
    batches: int = 0
    bytes: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    retried: int = 0
    refused: int = 0
    tombstones_skipped: int = 0
    unread_bytes: int = 0
    unread: tuple[str, ...] = ()  #: where they are, why nothing could be read from them, and what to do
    left_to_others: tuple[str, ...] = ()  #: partitions short of the end that other members of the group read on
    crashes: int = 0
    recycled: int = 0
    oldest_incomplete_s: float = 0.0
    longest_incomplete_s: float = 0.0
    pauses: int = 0
    paused_seconds: float = 0.0  #: over all causes
    flow: Flow = "open"  #: whether the source was read at the end
    transactions: int = 0
    transactions_aborted: int = 0
    circuit: Literal["", "closed", "open", "half-open"] = ""  #: its circuit breaker at the end; empty without one


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, from start to end, over all its handlers.

    A row is counted once it is settled: handled, skipped, or durably dead-lettered. ``seconds`` is wall-clock time from
    the first poll of a source to the last settled row; of a run that was stopped, to when it had finished, or no longer
    waited for, what it had read.
    """

    app: str = ""
    ending: Ending = "done"
    error: str = ""  #: what ended a run that failed
    rows: int = 0  #: messages settled
    batches: int = 0  #: calls of handlers that returned
    seconds: float = 0.0
    rows_per_second: float = 0.0  #: rows / seconds; computed, whatever is given
    bytes: int = 0  #: payload bytes of the rows
    rejected: int = 0  #: rows that a handler rejected
    dead_lettered: int = 0  #: rows that are in the dead letters, whoever put them there
    retried: int = 0  #: rows handed to a handler once more
    refused: int = 0  #: rows that the decoder refused
    tombstones_skipped: int = (
        0  #: rows with a null payload of handlers with tombstones="skip", which are not among those
    )
    unread_bytes: int = 0  #: of files, behind damage, where nothing tells any more where a record begins
    crashes: int = 0  #: pool processes that died unasked while the run went
    recycled: int = 0  #: pool processes that made room for a fresh one, as their limits say
    pauses: int = 0  #: times that a source was paused on purpose: too many dead letters, or an open circuit
    transactions: int = 0  #: committed
    transactions_aborted: int = 0  #: undone; their rows were read again, and are counted once
    oldest_incomplete_s: float = 0.0  #: age of the oldest row that was read but not settled when the run ended
    longest_incomplete_s: float = 0.0  #: the highest such age while it went, as far as it was looked at
    #: Rows read but not settled when the run ended; they are read again by the next run. Of partitions that a
    #: transactional run has lost none is left to it.
    unfinished: int = 0
    cpu_seconds: float = 0.0  #: user + system time of the runtime and all its pool processes
    #: Largest resident memory of the tree, shared pages counted once, as looked at every 2 s, and no less than the
    #: largest pool process had at once, as the kernel counted; 10**6 bytes.
    peak_rss_mb: float = 0.0
    workers: int = 0  #: pool processes at the start
    handlers: tuple[HandlerReport, ...] = ()

    def __post_init__(self) -> None:
        rate = self.rows / self.seconds if self.seconds > 0 else 0.0
        msgspec.structs.force_setattr(self, "rows_per_second", rate)

    @property
    def mb_per_second(self) -> float:
        """Payload bytes a second, in units of 10**6."""
        return self.bytes / self.seconds / 1e6 if self.seconds > 0 else 0.0

    @property
    def cpu_seconds_per_million(self) -> float:
        """CPU time that a million rows cost."""
        return self.cpu_seconds / self.rows * 1e6 if self.rows else 0.0

    def to_json(self) -> builtins.bytes:
        """The report as an indented JSON object that ends with a newline."""
        return msgspec.json.format(msgspec.json.encode(printable(msgspec.to_builtins(self))), indent=2) + b"\n"

    @classmethod
    def from_json(cls, text: builtins.bytes | str) -> RunReport:
        """Read what `to_json` wrote.

        Raises:
            msgspec.DecodeError, or UnicodeDecodeError or RecursionError: ``text`` is not such a report.
        """
        return msgspec.json.decode(text, type=cls)

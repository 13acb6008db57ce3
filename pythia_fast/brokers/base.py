"""What every broker must guarantee.

A *Source* or *Sink* is what a user writes down: options, checked when made, no connection, cheap to
copy. Opened by the runtime it becomes a *Reader* or a *Publisher*, which hold the connections and live
in the runtime process only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pythia_fast.brokers.checkup import CheckupContext, Findings

if TYPE_CHECKING:
    import numpy as np

    from pythia_fast._ext.message_limit import MessageLimit
    from pythia_fast._ext.ring import Arena
    from pythia_fast._ext.source import NativeSource
    from pythia_fast.brokers.group_share import GroupShare
    from pythia_fast.decoders import Decoding

#: What is left of a bounded source that its reader has read to its end. "awaited": others are to read it, or it comes
#: here. "here": it has come.
Rest = Literal["none", "awaited", "here"]

#: Partitions that a reader may have at once: the arena keeps that many names (PF_PARTITION_NAMES).
MAX_PARTITIONS = 4096


@dataclass(frozen=True, slots=True)
class Partition:
    """One assignment of one partition. A partition assigned again gets a new index: that is its epoch."""

    index: int
    topic: str  #: topic, file path, queue or stream
    partition: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A partition whose next message was taken from the broker and waits for room of its own."""

    topic: str
    partition: int
    offset: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """A partition that has messages which do not come, as far as can be told."""

    topic: str
    partition: int  #: -1: all of the topic, which is read by nobody here
    offset: int  #: of the first of them; -1: nobody knows
    since_s: float
    messages: int | None  #: None: nobody knows
    silent_s: float  #: how long its broker has not answered a question; 0: it did


class Listener(Protocol):
    """What a reader tells the runtime. Called with the GIL, on the intake thread."""

    def assigned(self, partitions: Sequence[Partition]) -> None: ...

    def settle(self, partitions: Sequence[Partition]) -> None:
        """Return once what is in flight of them is done and committed, or the drain deadline passed; they stay."""

    def revoked(self, partitions: Sequence[Partition], *, lost: bool) -> None:
        """Return once what is in flight of them is done and committed, or the drain deadline passed.

        ``lost``: they belong to somebody else already; nothing of them may be committed.
        """


@dataclass(frozen=True, slots=True)
class Unread:
    """Part of a source that could not be read, while what comes after it, or beside it, was."""

    bytes: int
    line: str  #: where it is, why it was not read, and what to do


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """What the runtime gives a source that it opens."""

    app: str  #: App name
    handler: str  #: handler name; default consumer group is made of these two
    state_dir: Path  #: where checkpoints live
    until: Literal["end", "forever"]
    batch_size: int
    batch_timeout: float  #: seconds
    max_payload_bytes: int  #: a larger payload is refused with PF_REASON_TOO_LARGE by the intake
    listener: Listener
    log: Callable[[str], None]  #: a line for the person who watches the run
    connect_timeout: float | None = None  #: seconds without any broker before the run fails; None = wait for ever
    rows_in_hand: int = 1 << 14  #: what the pool can have in hand: batches of all its processes, and the open one
    written: frozenset[tuple[int, int]] = (
        frozenset()
    )  #: (device, inode) of the files that the handler's own sinks write, that of dead letters too
    letters: tuple[Path, ...] = ()  #: where dead letters of the handler may be in the state folder, resolved
    hurried: Callable[[], bool] | None = None  #: whether the run is to end at once, asked while a broker is waited for


class Reader(ABC):
    """An open source. ``native`` is polled by the intake thread; everything else runs with the GIL."""

    native: NativeSource
    limit: MessageLimit | None = None  #: polled instead of ``native``, before which it stands
    commit_interval_s: float = 1.0  #: between commits; shorter where what is not yet committed costs the broker memory

    @abstractmethod
    def commit(self, positions: Mapping[int, int], *, wait: bool = False) -> str | None:
        """Commit, per partition index, the position to go on from. Called from one thread at a time.

        ``wait``: return only once the commit is durable (shutdown, revocation), or some seconds have passed. Returns
        "", or why it is not committed, where asking again can help. None, without ``wait``: nothing was sent, because
        the commit before is not answered yet.
        """

    #: Of one whose commit was sent, and is refused later: all positions are handed over again with the next.
    commit_failed: bool = False

    #: Whether ``settled`` is to be called.
    acknowledges_rows: bool = False

    def settled(self, arena: Arena, slot: int, first: int, messages: int) -> None:  # noqa: B027 - most have positions
        """So many messages in the table of this slot, from ``first`` on, are done, whatever came before them. Called on
        the completion thread, just before the slot is released, or waits with its other messages alone.

        For a broker that is told about single messages, so that what is done need not wait for what came before it.
        """

    def serve(self) -> None:  # noqa: B027 - most readers have nothing to serve
        """Called on the intake thread after poll() returned PF_SOURCE_CALL."""

    def failure(self) -> str:
        """Why poll() returned PF_SOURCE_FAILED, as a sentence that says what to do."""
        return "the source failed"

    def spool_error(self) -> int:
        """The errno for which poll() returned PF_SOURCE_SPOOL: where a reader keeps oversize messages itself."""
        return 0

    def pause(self) -> None:  # noqa: B027 - a file needs no pause
        """The arena has been full for a while: fetch no more, keep the membership."""

    def resume(self) -> None:  # noqa: B027
        """Room again after pause()."""

    def keep_alive(self) -> None:  # noqa: B027 - a file knows no membership
        """Take nothing in, but stay a member of the group, and let partitions be taken away.

        Called on the intake thread again and again while what was read is finished, after the last poll.
        """

    def finish(self) -> bool:
        """Stopped: True when it asks its broker for no more, and ends by itself once what was asked for has come.

        For a broker that counts as delivered what it has sent, so that nothing of it may be left lying. Any thread.
        """
        return False

    def group_metadata(self) -> bytes:
        """The membership that positions are committed under, for a transaction that commits them."""
        raise NotImplementedError(f"{type(self).__name__} cannot be part of a transaction")

    def rewind(self) -> None:
        """Go back to the committed positions: tell the listener that every partition is lost, and then assigned anew.

        Called on the intake thread, between two polls, after a transaction was aborted.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be part of a transaction")

    def read_again(self) -> bool:
        """Partitions were lost while what was read to the end was finished, and not all of it was committed; or more
        of the source has come here.

        True: reading goes on from the committed positions, of all partitions that there are now. False: whoever reads
        next gets what was not committed. Called as ``rewind`` is.
        """
        return False

    def ended(self) -> None:  # noqa: B027 - most need not know
        """poll() returned PF_SOURCE_END. Called on the intake thread, before what was read is finished."""

    def rest(self) -> Rest:
        """All that was read is committed: what is left for a run that is to see the whole source read.

        Called on the intake thread, with ``keep_alive``, until it is not "awaited". After "here" comes ``read_again``.
        """
        return "none"

    def left_to_others(self) -> Sequence[str]:
        """What was left to others that read on, a sentence each. Any thread, and after ``close`` too."""
        return ()

    def progress(self) -> tuple[int, int] | None:
        """(bytes or messages read, total) of a bounded source, for the progress bar."""
        return None

    def lag(self) -> Mapping[tuple[str, int], int]:
        """Messages not yet committed per (topic, partition), where the broker tells."""
        return {}

    def place(self, topic: str, partition: int, offset: int) -> str:
        """A position as a person finds it."""
        return f"{topic}[{partition}] offset {offset:,}"

    def kept(self) -> Sequence[Kept]:
        """Partitions that wait for room while others are read. Any thread."""
        return ()

    def quiet(self) -> Sequence[Quiet]:
        """Partitions that have messages which do not come. Asked about once a second, always on one thread; waits for
        nothing."""
        return ()

    def unread(self) -> Sequence[Unread]:
        """What could not be read so far. Any thread, and after ``close`` too."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Leave the group, close connections and files. Commits nothing."""


class Source(ABC):
    """A place messages come from, as the user declared it."""

    @abstractmethod
    def open(self, context: ReaderContext) -> Reader:
        """Connect. Called in the runtime process, after the pool has been forked."""

    @abstractmethod
    def describe(self) -> str:
        """One short phrase for logs: ``kafka topic orders as group order-processors``."""

    def as_group(self, group: str) -> Source:
        """The same source, read as another group; itself, where it knows no groups."""
        return self

    def checkpoint_group(self, app: str, handler: str) -> str | None:
        """The group whose positions it keeps in the state folder; None: it keeps none there."""
        return None

    def share(self, app: str, handler: str) -> GroupShare | None:
        """What its group deals out among its members; None: it knows no groups, or each reader gets everything."""
        return None

    def byte_stream(self) -> tuple[Hashable, str] | None:
        """What it reads that gives each byte to one reader only, as a pipe does: what that is known by, and its name;
        None: it reads no such thing."""
        return None

    def reads_what(self, sink: Sink) -> str | None:
        """Where the sink writes to, if this reads it: ``Kafka topic orders``; None: it does not, as far as can be told
        without asking a broker. Files are told by ``files``."""
        return None

    def unordered_because(self) -> str | None:
        """Why its rows come in no order that ``ordering=`` could keep, and what to do, half a sentence; None: there is
        one."""
        return None

    def record_dtype(self) -> np.dtype[Any] | None:
        """The layout of its records, where it was told; the decoder that is left out reads that."""
        return None

    def misread_by(self, decoding: Decoding) -> str | None:
        """Why what this decoder gets would not be the payloads that were written, a sentence; None: it will."""
        return None

    def files(self) -> list[str]:
        """The files that it would read now."""
        return []

    def checkup(self, context: CheckupContext) -> Findings:
        """What can be found out about it without reading, making or changing anything; by default there is nothing to
        ask. Called on a thread of its own, whose answers are waited for until ``context.deadline``."""
        return iter(())


#: Framing of the records a publisher is given, little endian, back to back without padding:
#: key size u32 (0xFFFFFFFF = no key), headers size u32, payload size u32 (0xFFFFFFFF = null),
#: key, headers (as in arena_layout.h), payload.
RECORD_HEADER_BYTES = 12
NO_BYTES = 0xFFFFFFFF
#: In the size of the headers: the record is placed, and behind the sizes stand timestamp i64 (milliseconds, -1: none),
#: offset i64 (-1: none), partition i32 (-1: any) and the size of a topic's name u32; the name comes before the key.
#: Only sinks that say ``takes_places`` are given such records.
PLACED = 0x80000000
PLACE_BYTES = 24


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """One record the sink will never take (too large for the broker, say); the runtime dead-letters it."""

    index: int  #: position of the record in the published buffer
    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """All records of one ticket are durable, but for ``failed``, which are refused for good."""

    ticket: int
    failed: tuple[FailedRecord, ...] = ()


class Publisher(ABC):
    """An open sink. Called by the completion thread only."""

    @abstractmethod
    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        """Start to send ``count`` framed records. ``records`` stays valid until the ticket is delivered.

        Trouble that can pass (no broker, full disk) is retried inside, for ever, and reported through
        ``trouble()``: the records stay undelivered, which holds the source back.
        """

    @abstractmethod
    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        """Tickets that have become durable since the last call; waits up to ``timeout`` seconds for one."""

    def trouble(self) -> str | None:
        """What it is waiting for right now, as a sentence, or None when all is well."""
        return None

    def files(self) -> frozenset[tuple[int, int]]:
        """(device, inode) of the files that it writes."""
        return frozenset()

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Flush for at most ``timeout`` seconds, then close."""


class Sink(ABC):
    """A place results or dead letters go to, as the user declared it."""

    @abstractmethod
    def open(self, context: PublisherContext) -> Publisher:
        """Connect. Called in the runtime process, after the pool has been forked."""

    @abstractmethod
    def describe(self) -> str:
        """One short phrase for logs."""

    #: Whether its publisher reads records that say where their messages came from.
    takes_places = False

    def file(self) -> str | None:
        """The file that it would write; None: it writes none."""
        return None

    def checkup(self, context: CheckupContext) -> Findings:
        """As that of a source."""
        return iter(())

    def encoding(self) -> Literal["json", "msgpack"]:
        """How a dict of arrays becomes payloads, one a row."""
        return "json"


@dataclass(frozen=True, slots=True)
class PublisherContext:
    """What the runtime gives a sink that it opens."""

    app: str
    handler: str
    state_dir: Path
    log: Callable[[str], None]
    connect_timeout: float | None = None


def options_of(**values: Any) -> dict[str, Any]:
    """The options that were given: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}

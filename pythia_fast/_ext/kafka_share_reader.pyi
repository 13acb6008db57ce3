from collections.abc import Sequence

from pythia_fast._ext.ring import Arena
from pythia_fast._ext.source import NativeSource

INSTALL: str

def check_library() -> None:
    """Raise ExtensionError where librdkafka has no share consumers."""

class KnownRows:
    """For tests: the table of rows that a share reader knows (ext/kafka_share_rows.h), by partition and offset."""

    def __len__(self) -> int: ...
    def __contains__(self, key: tuple[int, int]) -> bool: ...
    def add(self, partition: int, offset: int) -> None:
        """A row that is not in it."""
    def remove(self, partition: int, offset: int) -> None:
        """One that is."""

class KafkaShareReaderNative(NativeSource):
    """A share group as a source that is polled without the GIL: ``hands`` librdkafka share consumers of ``options``,
    each a member. The intake thread's, but for ``settled``, ``done`` and ``wake``.

    Raises ExtensionError where librdkafka has no share consumers.
    """

    def __init__(self, options: dict[str, str], hands: int) -> None: ...
    def close(self, leave_s: float) -> bool:
        """Leave the group, which gives up every lock. Whether that is over within so many seconds."""
    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group for these topics. Nothing is read before."""
    def take_notes(self) -> list[tuple[str, int, str, list[tuple[str, int]] | None]]:
        """What librdkafka has told since the last call: (kind, error code or log level, text, None)."""
    def unnamed(self) -> tuple[str, int] | None:
        """The topic and partition of a message that waits for them to have an index; None: none waits."""
    def name(self, topic: str, partition: int, index: int) -> None:
        """Messages of this partition are rows of ``index`` from here on."""
    def forget(self, index: int) -> None:
        """Acknowledge nothing of ``index`` any more: its topic was made anew."""
    def settled(self, arena: Arena, slot: int, first: int, messages: int) -> None:
        """So many messages of the slot's table, from ``first`` on, are done: accept them. Any thread."""
    def done(self, partition: int, offset: int) -> None:
        """This row is done. Any thread."""
    def wake(self) -> None: ...
    def turn(self, timeout: float) -> bool:
        """From here on take nothing in; acknowledge what is done, and wait for at most so many seconds.

        True: Reader.serve() must run.
        """
    def call(self, due: bool) -> None:
        """Let poll ask for Reader.serve() whatever comes."""
    def call_after(self, seconds: float | None) -> None:
        """Let poll ask for Reader.serve() once this time has passed; None: never."""
    def fail(self) -> None:
        """From now on poll returns PF_SOURCE_FAILED."""
    def end(self) -> None:
        """From now on poll returns PF_SOURCE_END."""
    def limits(self, lock_s: float, deliveries: int) -> None:
        """For how long the broker keeps a row for the member that took it, and how often it delivers one at most."""
    def partition_count(self, topic: str, timeout_ms: int) -> tuple[int, int]:
        """(number of partitions, error code) of a topic, asked of the broker."""
    def broker_answers(self, timeout_ms: int) -> bool:
        """Whether any broker answers a question within the time."""
    @property
    def fatal_error(self) -> str | None:
        """The error after which one of the members does no more, or None."""
    @property
    def headers_wanted(self) -> int:
        """Bytes of one message's headers that there was no memory for, which ended the source; 0: it did not happen."""
    @property
    def unconfirmed(self) -> int:
        """Rows that are done, and that the broker has not confirmed."""
    @property
    def assigned(self) -> int:
        """Members to which the group has given partitions."""
    @property
    def in_hand(self) -> int:
        """Rows that were taken and are not acknowledged."""
    @property
    def quiet_s(self) -> float:
        """Seconds since a row came."""
    @property
    def counters(self) -> tuple[int, int, int, int, int]:
        """Rows appended; that the broker will not deliver again; whose lock was over before they were done; that came
        again and were known; acknowledgements that the broker did not take."""

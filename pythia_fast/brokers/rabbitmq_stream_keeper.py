"""The keeper of a reader of RabbitMQ's streams: a thread for everything that is not the data path.

It finds out which streams there are and where to go on in each, makes the connection that the intake thread reads from,
and makes it again; on a connection of its own it stores offsets at the server, and asks how far the streams have grown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext.stream_reader import MOST_STREAMS, StreamReaderNative
from pythia_fast.brokers.rabbitmq_session import Backoff
from pythia_fast.brokers.rabbitmq_stream_connection import Chunk, StreamConnection
from pythia_fast.brokers.rabbitmq_stream_trouble import CannotRead, Refused, Trouble, of_error
from pythia_fast.brokers.rabbitmq_stream_wire import Code, ProtocolError, Start
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.routine import Routine

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq_stream import RabbitMQStreamConsumer

TURN_S = 0.05  #: between two looks at what is under way
LOOK_S = 10.0  #: between two looks how far the streams have grown
SEND_AGAIN_S = 1.0  #: until an offset that the server does not have is sent again
DAMAGED_AT_MOST = 3  #: times in a row that the same place cannot be read


class Keeper:
    """See the module's docstring. ``known`` is told the streams; ``fail`` the sentence that ends the run."""

    def __init__(
        self,
        consumer: RabbitMQStreamConsumer,
        native: StreamReaderNative,
        *,
        name: str,
        group: str,
        bounded: bool,
        connect_timeout: float | None,
        log: Callable[[str], None],
        known: Callable[[Sequence[str]], None],
        fail: Callable[[str], None],
    ) -> None:
        self.address = consumer.address
        self.group = group
        self.streams: list[str] = []
        self.begun: list[int] = []  #: where reading began; -1: nobody knows yet
        self.ends: list[int] = []  #: the last offset of each stream, when it was looked at; -1: there was none
        self.stored: list[int] = []  #: the position that the server has
        self._consumer = consumer
        self._native = native
        self._name = name
        self._bounded = bounded
        self._connect_timeout = connect_timeout
        self._log = log
        self._known = known
        self._fail = fail
        self._control: StreamConnection | None = None
        self._is_new = False  #: what was sent by the connection before is sent again
        self._sent_at = 0.0
        self._data: StreamConnection | None = None
        self._backoff = Backoff()
        self._away_since = time.monotonic()
        self._ever_attached = False
        self._try_at = 0.0
        self._look_at = 0.0
        self._damaged: tuple[str, int] = ("", 0)
        self._received = 0
        self._troubles = TroubleLog(log)
        self._changed = threading.Condition()  # guards what follows
        self._news = False
        self._broken: Trouble | None = None
        self._closed = False
        self._positions: dict[int, int] = {}  #: committed and not yet sent
        self._sent: dict[int, int] = {}  #: sent, or to be, and not yet seen at the server
        self._confirming = False
        self._thread = threading.Thread(target=self._run, name="rabbitmq stream keeper", daemon=True)

    # -- other threads ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def commit(self, positions: dict[int, int]) -> None:
        with self._changed:
            self._positions.update(positions)
            self._poke()

    def wait_stored(self, seconds: float) -> bool:
        """Wait until the server has all that was committed."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._confirming = True
            self._poke()
            while self._positions or self._sent:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    break
                self._changed.wait(min(left, TURN_S))
            self._confirming = False
            return not (self._positions or self._sent)

    def broken(self, trouble: Trouble) -> None:
        """The intake thread has given the data connection up."""
        with self._changed:
            self._broken = trouble
            self._poke()

    @property
    def data(self) -> StreamConnection:
        assert self._data is not None
        return self._data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._poke()
        if self._thread.ident is not None:
            self._thread.join()

    def _poke(self) -> None:
        self._news = True
        self._changed.notify_all()

    # -- its own thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._guarded_turn()
                with self._changed:
                    if not self._news and not self._closed:
                        self._changed.wait(TURN_S)
                    self._news = False
        except BaseException as error:
            self._fail(f"the keeper of rabbitmq {self._consumer.what} ended: {error!r}")
        finally:
            for connection in (self._data, self._control):
                if connection is not None:
                    connection.close()

    def _guarded_turn(self) -> None:
        with self._changed:
            broken, self._broken = self._broken, None
        if broken is not None:
            self._detached(broken)
        if time.monotonic() < self._try_at:
            return
        try:
            self._turn()
        except (OSError, CannotRead, Refused, ProtocolError) as error:
            if self._control is not None:
                self._control.close()
                self._control = None
            self._met(of_error(error, self.address))

    def _turn(self) -> None:
        if self._control is None:
            self._control = StreamConnection(self.address, f"{self._name}-offsets")
            self._is_new = True
        control = self._control
        if not self.streams:
            self._find_streams(control)
        self._store(control)
        if self._data is None:
            self._attach()
        elif self._native.counters[1] != self._received:
            self._well()
        now = time.monotonic()
        if not self._bounded and now >= self._look_at:
            self._look_at = now + LOOK_S
            self.ends = [-1 if chunk is None else chunk.last for chunk in control.last_chunks(self.streams)]
        control.service()

    def _detached(self, trouble: Trouble) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None
        self._away_since = time.monotonic()
        before, times = self._damaged
        self._damaged = (
            (trouble.sentence, times + 1 if trouble.sentence == before else 1) if trouble.damaged else ("", 0)
        )
        if not trouble.passes or self._damaged[1] >= DAMAGED_AT_MOST:
            self._fail(trouble.sentence)
        self._met(trouble)

    def _met(self, trouble: Trouble) -> None:
        """Something failed: give up, or try again later."""
        if not trouble.passes and not self._ever_attached:
            self._fail(trouble.sentence)
        limit = self._connect_timeout
        away = time.monotonic() - self._away_since
        if self._data is None and limit is not None and away >= limit:
            self._fail(
                f"{trouble.sentence}; nothing came of it within {limit:g} s: is it running, and is the address right?"
            )
        wait_s = self._backoff.next_s()
        if limit is not None and self._data is None:
            wait_s = min(wait_s, max(0.01, limit - away))
        self._try_at = time.monotonic() + wait_s
        self._troubles.tell(f"rabbitmq: {trouble.sentence}; trying on")

    def _well(self) -> None:
        """Messages come."""
        self._received = self._native.counters[1]
        if self._troubles.all_over():
            self._log(Routine(f"rabbitmq: {self.address} answers"))
        self._backoff.reset()

    # -- where there is something to read, and from where --------------------------------------------------------------

    def _find_streams(self, control: StreamConnection) -> None:
        consumer = self._consumer
        found = [consumer.stream] if consumer.stream is not None else control.partitions(str(consumer.super_stream))
        if not found:
            raise Refused(Code.NO_STREAM, f"read super stream {consumer.super_stream!r}")
        if len(found) > MOST_STREAMS:
            raise CannotRead(
                f"RabbitMQ at {self.address}: {consumer.what} has {len(found):,} streams, and one handler reads at "
                f"most {MOST_STREAMS}: give several handlers a stream= each"
            )
        for stream, code in control.missing(found).items():
            raise Refused(code, f"read stream {stream!r}")
        chunks = control.last_chunks(found)
        ends = [-1 if chunk is None else chunk.last for chunk in chunks]
        stored = [control.stored_offset(self.group, stream) for stream in found]
        # Nothing is asked from here on, so all of it is known or none.
        self.begun = [
            at + 1 if at is not None else self._first_of(chunk) for at, chunk in zip(stored, chunks, strict=True)
        ]
        self.stored = [-1 if at is None else at + 1 for at in stored]
        self.ends = ends
        self.streams = found
        self._native.have(len(found))
        for index in range(len(found)):
            self._native.want(index, self.begun[index], exact=stored[index] is not None)
            if self._bounded:
                self._native.bound(index, ends[index])
        if self._bounded:
            self._native.ends_known()
        self._look_at = time.monotonic() + LOOK_S
        self._known(found)

    def _first_of(self, chunk: Chunk | None) -> int:
        """Where a group begins that has stored nothing, where that is known; a number outlives a connection."""
        beginning = self._consumer.beginning
        if beginning.start == Start.OFFSET:
            return beginning.value
        if beginning.start == Start.NEXT:
            return 0 if chunk is None else chunk.last + 1
        if beginning.start == Start.LAST:
            return 0 if chunk is None else chunk.first
        return -1

    def _attach(self) -> None:
        data = StreamConnection(self.address, self._name)
        try:
            for index, stream in enumerate(self.streams):
                wanted = self._native.wanted(index)
                beginning = self._consumer.beginning
                start, value = (Start.OFFSET, wanted) if wanted >= 0 else (beginning.start, beginning.value)
                data.subscribe(index, stream, start, value, 0)
        except BaseException:
            data.close()
            raise
        data.socket.settimeout(0)
        self._data = data
        self._ever_attached = True
        self._received = self._native.counters[1]
        tls = self.address.tls is not None
        self._native.attach(data.socket.fileno(), tls, data.heartbeat_s)

    # -- offsets ------------------------------------------------------------------------------------------------------

    def _store(self, control: StreamConnection) -> None:
        """Tell the server the last offset that is done: that of the position, less one.

        It gives no answer, so what was sent is remembered until it was seen there, which is asked when somebody waits;
        a connection that breaks may take it along, so the next one begins with it.
        """
        now = time.monotonic()
        with self._changed:
            fresh = {index: at for index, at in self._positions.items() if at > max(0, self.stored[index])}
            self._sent |= fresh
            self._positions = {}
            sent, confirming = dict(self._sent), self._confirming
        if confirming and now - self._sent_at >= SEND_AGAIN_S:
            fresh = sent
        for index, position in (sent if self._is_new else fresh).items():
            control.store_offset(self.group, self.streams[index], position - 1)
            self.stored[index] = position
            self._sent_at = now
        self._is_new = False
        for index, position in sent.items() if confirming else ():
            stored = control.stored_offset(self.group, self.streams[index])
            if stored is not None and stored + 1 >= position:
                with self._changed:
                    del self._sent[index]
                    self._changed.notify_all()

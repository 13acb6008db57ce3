"""The keeper of a Redis reader: a thread for everything that is not the data path.

It makes the connection that the intake thread reads from, and makes it again; acknowledges what is committed, on a
connection of its own; finds what is pending, its own of an earlier life and what dead consumers left, and has the data
connection claim it; and looks now and then at the group: how far it is behind, and whether trimming has overtaken it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from pythia_fast._ext.redis_reader import MOST_IDS, RedisReaderNative
from pythia_fast.brokers.redis_client import Client, Connection, encode_command, socket_of
from pythia_fast.brokers.redis_group import RedisGroup
from pythia_fast.brokers.redis_trouble import Trouble, of_error
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import PythiaError
from pythia_fast.routine import Routine

TURN_S = 0.05  #: between two looks at what is under way
LOOK_S = 1.0  #: between two looks at the group
ACKS_AT_ONCE = 32  #: commands of one round trip
BACKOFF_CAP_S, BACKOFF_BASE_S = 2.0, 0.05
LEFT_TURN_S = 1.0  #: between two looks at what others left, in a run that is to end
LEFT_SLACK_S = 5.0  #: beyond ``min_idle``, until what another consumer has in hand is left to it
GARBAGE_AT_MOST = 3  #: connections in a row that answer with garbage


class Keeper:
    """See the module's docstring. ``fail`` is told the sentence that ends the run."""

    def __init__(
        self,
        group: RedisGroup,
        native: RedisReaderNative,
        *,
        bounded: bool,
        connect_timeout: float | None,
        log: Callable[[str], None],
        fail: Callable[[str], None],
    ) -> None:
        from redis.backoff import ExponentialWithJitterBackoff

        self.group = group
        self._native = native
        self._bounded = bounded
        self._connect_timeout = connect_timeout
        self._log = log
        self._fail = fail
        self._backoff = ExponentialWithJitterBackoff(BACKOFF_CAP_S, BACKOFF_BASE_S)
        self._client: Client | None = None
        self._data: Connection | None = None
        self._acks: Connection | None = None
        self._client_id: int | None = None
        self._attached = False
        self._ever_attached = False
        self._failures = 0
        self._garbage = 0
        self._replies = 0  #: of the native source, when it was last well
        self._away_since = time.monotonic()
        self._try_at = 0.0
        self._recovery: Iterator[None] = iter(())
        self._reclaim_at = 0.0
        self._look_at = 0.0
        self._refresh_at = 0.0
        self._left: dict[
            str, float
        ] = {}  #: consumers that are not connected and have entries: since when that is known
        self._troubles = TroubleLog(log)
        self._changed = threading.Condition()  # guards what follows
        self._news = False
        self._broken: Trouble | None = None
        self._finishing = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="redis keeper", daemon=True)

    # -- other threads ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        """Something was committed."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def broken(self, trouble: Trouble) -> None:
        """The intake thread has given the data connection up."""
        with self._changed:
            self._broken = trouble
            self._news = True
            self._changed.notify_all()

    def finish(self) -> None:
        """End the read that waits at the server."""
        with self._changed:
            self._finishing = True
            self._news = True
            self._changed.notify_all()

    def wait_acknowledged(self, seconds: float) -> bool:
        """Wait until nothing that was committed waits for the server's word."""
        deadline = time.monotonic() + seconds
        self.poke()
        with self._changed:
            while not self._native.all_acknowledged():
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._changed.wait(min(left, TURN_S))
        return True

    @property
    def data_socket(self) -> Any:
        assert self._data is not None
        return socket_of(self._data)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    # -- its own thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._guarded_turn()
                with self._changed:
                    if not self._news and not self._closed:
                        self._changed.wait(TURN_S)
                    self._news = False
            self._leave()
        except BaseException as error:
            self._fail(f"the keeper of {self.group.describe()} ended: {error!r}")
        finally:
            for connection in (self._data, self._acks):
                if connection is not None:
                    connection.disconnect()
            if self._client is not None:
                self._client.close()

    def _guarded_turn(self) -> None:
        import redis

        with self._changed:
            broken, self._broken = self._broken, None
        if broken is not None:
            self._detached(broken)
        if time.monotonic() < self._try_at:
            return
        try:
            if not self._attached and not self._finishing:
                self._connect()
            self._turn()
        except PythiaError as error:
            self._met(Trouble(str(error), passes=False))
        except (redis.RedisError, OSError) as error:
            self._met(of_error(error, self.group.server.name, self.group.what))

    def _met(self, trouble: Trouble) -> None:
        """Something failed: give up, or try again later."""
        if not trouble.passes:
            self._fail(trouble.sentence)
        limit = self._connect_timeout
        away = time.monotonic() - self._away_since
        if not self._attached and limit is not None and away >= limit:
            self._fail(
                f"{trouble.sentence}; nothing came of it within {limit:g} s: is it running, and is the address right?"
            )
        self._failures = min(self._failures + 1, 16)
        self._try_at = time.monotonic() + self._backoff.compute(self._failures)
        if self._acks is not None:
            self._acks.disconnect()
            self._acks = None
        if self._client is not None:
            self._client.close()
            self._client = None
        self._native.send_again()
        self._troubles.tell(f"redis: {trouble.sentence}; trying on")

    # -- the data connection ------------------------------------------------------------------------------------------

    def _detached(self, trouble: Trouble) -> None:
        assert self._data is not None
        self._data.disconnect()
        self._data = None
        self._attached = False
        self._recovery = iter(())
        self._away_since = time.monotonic()
        self._garbage = self._garbage + 1 if "does not answer as a Redis" in trouble.sentence else 0
        if self._garbage >= GARBAGE_AT_MOST:
            trouble = Trouble(trouble.sentence, passes=False)
        self._met(trouble)

    def _connect(self) -> None:
        group = self.group
        if self._client is None:
            self._client = group.server.client(group.streams)
        for line in (*group.prepare(self._client), *group.look(self._client)):
            self._log(line)
        if self._bounded and not self._ever_attached:
            for index, (ms, seq) in enumerate(group.ends(self._client)):
                self._native.bound(index, ms, seq)
        if not self._ever_attached and group.is_alive_elsewhere(self._client):
            self._log(
                f"redis: another consumer of group {group.name} at {group.server.name} is named {group.consumer} and "
                "connected: after a restart each gets what the other has in hand; give them different consumer_names, "
                "or none"
            )
        self._data = group.server.connection(self._client, group.connection_name)
        self._client_id = group.client_id(self._data)
        self._native.hold_reads(True)
        self._native.hold_end(True)
        sock = socket_of(self._data)
        tls = hasattr(sock, "pending")
        if tls:
            sock.settimeout(0)
        self._native.attach(sock.fileno(), tls)
        self._recovery = self._recover()
        self._attached = self._ever_attached = True
        self._replies = self._native.counters[3]

    # -- every turn ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._acknowledge()
        if not self._attached:
            return
        if self._native.counters[3] != self._replies:
            self._well()
        client = self._client_now()
        now = time.monotonic()
        if self._finishing:
            if self._client_id is not None:
                self.group.unblock(client, self._client_id)
            return
        next(self._recovery, None)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for line in self.group.look(client):
                self._log(line)
        if now >= self._refresh_at:
            self._refresh_at = now + self.group.min_idle / 4
            self.group.refresh(client, [self._native.unacknowledged(i) for i in range(len(self.group.streams))])

    def _well(self) -> None:
        """The connection has brought a whole reply: it serves."""
        self._replies = self._native.counters[3]
        if self._failures:
            self._log(Routine(f"redis: {self.group.server.name} answers"))
        self._failures = self._garbage = 0
        self._troubles.all_over()

    def _client_now(self) -> Client:
        if self._client is None:
            self._client = self.group.server.client(self.group.streams)
        return self._client

    def _acknowledge(self) -> None:
        """XACK what was committed: about a thousand ids a command, many commands a round trip."""
        while True:
            sent: deque[tuple[int, int]] = deque()
            commands = []
            for index in range(len(self.group.streams)):
                while len(sent) < ACKS_AT_ONCE and (made := self._native.acks(index)) is not None:
                    commands.append(made[0])
                    sent.append((index, made[1]))
            if not sent:
                return
            if self._acks is None:
                self._acks = self.group.server.connection(self._client_now(), self.group.connection_name + ":acks")
            self._acks.send_packed_command(commands, check_health=False)
            self._take_answers(self._acks, sent)
            with self._changed:
                self._changed.notify_all()

    def _take_answers(self, connection: Connection, sent: Sequence[tuple[int, int]]) -> None:
        import redis

        for index, count in sent:
            try:
                connection.read_response()
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._troubles.tell(
                    f"redis: {self.group.what}: the group is gone, and with it what was to be acknowledged"
                )
            self._native.acknowledged(index, count)

    # -- what is pending ----------------------------------------------------------------------------------------------

    def _recover(self) -> Iterator[None]:
        """A step a turn: what an earlier life of this name had in hand, then what dead consumers left, for ever."""
        group = self.group
        for index, stream in enumerate(group.streams):
            came = yield from self._claim_pages(index, consumer=group.consumer, min_idle_ms=0)
            if came:
                self._log(
                    Routine(
                        f"redis: {came:,} entries of {stream} were pending for {group.consumer}; they are read again"
                    )
                )
        self._native.hold_reads(False)
        while True:
            for index, stream in enumerate(group.streams):
                came = yield from self._claim_pages(index, consumer=None, min_idle_ms=round(group.min_idle * 1000))
                if came:
                    self._log(
                        Routine(
                            f"redis: reclaimed {came:,} entries of {stream} that other consumers of group {group.name} "
                            f"had left for {group.min_idle:g} s"
                        )
                    )
            self._native.hold_end(self._bounded and self._others_left_entries())
            pause_s = group.min_idle / 2
            again_at = time.monotonic() + (min(pause_s, LEFT_TURN_S) if self._bounded else pause_s)
            while time.monotonic() < again_at:
                yield

    def _others_left_entries(self) -> bool:
        """Whether consumers that have died, as it seems, left entries that are to be reclaimed before the run ends."""
        group, now = self.group, time.monotonic()
        left = group.left_by_others(self._client_now())
        self._left = {name: self._left.get(name, now) for name in left}
        patience_s = group.min_idle + LEFT_SLACK_S
        waited_for = [name for name, since in self._left.items() if now - since < patience_s]
        for name in waited_for:
            self._troubles.tell(
                f"redis: consumer {name} of group {group.name} is not connected and has entries in hand: this run ends "
                f"once they were reclaimed, which is {group.min_idle:g} s after it got them"
            )
        for name in left.keys() - set(waited_for):
            self._troubles.tell(
                Routine(f"redis: consumer {name} of group {group.name} is at work on entries, which are left to it")
            )
        return bool(waited_for)

    def _claim_pages(self, index: int, consumer: str | None, min_idle_ms: int) -> Generator[None, None, int]:
        """Claim what is pending, a page at a time; returns how many entries came."""
        group = self.group
        came = 0
        after = "-"
        while True:
            client = self._client_now()
            page = group.pending(client, index, after, MOST_IDS, consumer, min_idle_ms)
            held = set(self._native.unacknowledged(index)) if page else set()
            wanted = [
                (*each.id, each.deliveries)
                for each in page
                if each.id not in held and (consumer is not None or each.consumer != group.consumer)
            ]
            if wanted:
                ids = [b"%d-%d" % (ms, seq) for ms, seq, _ in wanted]
                stream = group.streams[index]
                command = encode_command("XCLAIM", stream, group.name, group.consumer, min_idle_ms, *ids)
                self._native.claim(index, command, wanted)
                while (outcome := self._native.take_claim()) is None:
                    yield
                missing, found = outcome
                came += found
                trimmed = group.forget_trimmed(self._client_now(), index, missing) if missing else 0
                if trimmed:
                    self._log(
                        f"redis: {trimmed:,} pending entries of {group.streams[index]} were deleted or trimmed before "
                        "they were handled: they are lost to this group"
                    )
            if len(page) < MOST_IDS:
                return came
            after = "({}-{}".format(*page[-1].id)
            yield

    # -- the end ------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """A name that nobody gave is deleted when it has nothing pending."""
        import redis

        if not self._native.is_idle:
            self._log(f"redis: what {self.group.consumer} had asked for and did not hand on stays pending for it")
        try:
            if self.group.is_temporary and self._native.is_idle and self._client is not None:
                self.group.leave(self._client)
        except (redis.RedisError, OSError) as error:
            self._log(f"redis: consumer {self.group.consumer} stays in group {self.group.name}: {error}")

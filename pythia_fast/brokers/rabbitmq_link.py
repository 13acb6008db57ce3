"""pika's connection over bytes that are read and written elsewhere.

pika's ``Connection`` is the AMQP client without a socket: it is given what came (``_on_data_available``) and says what
is to be sent (``_adapter_emit_data``), and an adapter does the rest. This is such an adapter: the socket is the
compiled reader's, which keeps the deliveries to itself, and hands everything else on. What of pika is relied on, and
why, is in docs/decisions/rabbitmq-reader.md.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika.connection import Connection
from pika.exceptions import StreamLostError

from pythia_fast.brokers.rabbitmq_address import CONNECT_S, Address

if TYPE_CHECKING:
    from pythia_fast._ext.amqp_stream import AmqpStream

READ_BUFFER_BYTES = 1 << 20  #: of the kernel, so that the server goes on sending while a batch is decoded


class Timers:
    """Things to be done later, on the thread that calls ``run``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._cancelled: set[int] = set()
        self._numbers = itertools.count()

    def later(self, delay_s: float, callback: Callable[[], object]) -> int:
        number = next(self._numbers)
        heapq.heappush(self._heap, (time.monotonic() + delay_s, number, callback))
        return number

    def cancel(self, number: int) -> None:
        self._cancelled.add(number)

    def run(self) -> float | None:
        """Do what is due; seconds until the next one, None: there is none."""
        while self._heap:
            due, number, callback = self._heap[0]
            if number not in self._cancelled and (left := due - time.monotonic()) > 0:
                return left
            heapq.heappop(self._heap)
            if number in self._cancelled:
                self._cancelled.discard(number)
            else:
                callback()
        self._cancelled.clear()
        return None


class Connecting:
    """Finds the server, connects and shakes hands for TLS on a thread of its own, since all of that waits."""

    def __init__(self, address: Address, wake: Callable[[], None]) -> None:
        self._address = address
        self._wake = wake
        self._lock = threading.Lock()
        self._abandoned = False
        self._found: socket.socket | OSError | None = None
        threading.Thread(target=self._run, name=f"connect to {address}", daemon=True).start()

    def _run(self) -> None:
        found: socket.socket | OSError
        try:
            found = self._connect()
        except OSError as error:
            found = error
        with self._lock:
            if self._abandoned and isinstance(found, socket.socket):
                found.close()
            self._found = found
        self._wake()

    def _connect(self) -> socket.socket:
        address = self._address
        sock = socket.create_connection((address.host, address.port), CONNECT_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BUFFER_BYTES)
            if address.tls is not None:
                sock = address.tls.wrap_socket(sock, server_hostname=address.host)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def result(self) -> socket.socket | OSError | None:
        """The socket, or why there is none; None: not yet."""
        with self._lock:
            return self._found

    def abandon(self) -> None:
        """Whatever comes of it is closed."""
        with self._lock:
            self._abandoned = True
            if isinstance(self._found, socket.socket):
                self._found.close()


class Link(Connection):  # type: ignore[misc]  # pika has no types that mypy may read
    """One connection, from a connected socket to its end. All of it runs on the thread that calls ``turn``.

    Parameters:
        stream: what reads and writes the socket.
        opened: called once the server has let us in.
        over: called once the connection is gone, with why.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        sock: socket.socket,
        stream: AmqpStream,
        timers: Timers,
        *,
        opened: Callable[[], None],
        over: Callable[[Exception], None],
    ) -> None:
        self._socket = sock
        self._stream = stream
        self._timers = timers
        self._gone = False
        stream.open(sock.fileno(), isinstance(sock, ssl.SSLSocket))
        super().__init__(
            address.parameters(name),
            on_open_callback=lambda _: opened(),
            on_open_error_callback=lambda _, error: over(error),
            on_close_callback=lambda _, error: over(error),
            internal_connection_workflow=False,
        )
        self._on_stream_connected()

    def turn(self) -> None:
        """Hand on what came, and notice the end of the connection."""
        if self._gone:
            return
        if isinstance(self._socket, ssl.SSLSocket):
            self._stream.exchange(self._socket)
        frames = self._stream.take_other()
        if frames is not None:
            self._on_data_available(frames)
        fault = self._stream.fault()
        # What was read before the end is still to be taken: it may say why (connection.close).
        if fault is not None and frames is None and not self._gone:
            self.drop(StreamLostError(fault))

    def drop(self, error: Exception | None) -> None:
        """It is over, whatever the server may think."""
        if self._gone:
            return
        self._gone = True
        self._stream.close()
        with contextlib.suppress(OSError):
            self._socket.close()
        self._on_stream_terminated(error)

    # -- what pika asks of an adapter ----------------------------------------------------------

    @property
    def bytes_received(self) -> int:
        """Grows with every byte that came, deliveries included, by which pika knows that the server lives."""
        return self._stream.received

    @bytes_received.setter
    def bytes_received(self, count: int) -> None:
        """pika counts the frames that it has seen, which are the fewest."""

    def _on_connection_tune(self, method_frame: Any) -> None:
        super()._on_connection_tune(method_frame)
        self._stream.agree(self.params.frame_max)

    def _adapter_emit_data(self, data: bytes) -> None:
        self._stream.emit(data)

    def _adapter_call_later(self, delay: float, callback: Callable[[], Any]) -> object:
        return self._timers.later(delay, callback)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        self._timers.cancel(timeout_id)

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., Any]) -> None:
        self._timers.later(0, callback)  # pika itself asks for it from this thread only

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError("the socket is connected before")

    def _adapter_disconnect_stream(self) -> None:
        self._timers.later(0, lambda: self.drop(None))  # pika wants it to come later

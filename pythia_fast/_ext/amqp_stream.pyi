import ssl

FAULTS: dict[int, str]

class AmqpStream:
    """One connection's bytes as the client library sees them. One thread at a time; no call waits."""

    def open(self, fd: int, tls: bool) -> None:
        """Begin with a connected socket that does not block, which stays the caller's."""
    def close(self) -> None:
        """Touch the socket no more."""
    def agree(self, frame_max: int) -> None:
        """Bytes that a frame may have from here on."""
    def emit(self, data: bytes) -> None:
        """Send this after what is to be sent already."""
    def take_other(self) -> bytes | None:
        """Frames that the compiled reader left to the client library; None: there are none."""
    @property
    def received(self) -> int:
        """Grows while the peer lives."""
    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
    def flush(self) -> None:
        """Send as much as a plain socket takes."""
    def fault(self) -> str | None:
        """Why the connection is over, as half a sentence; None: it is not."""
    def exchange(self, tls_socket: ssl.SSLSocket) -> None:
        """Send what waits and read what there is."""

"""What the runtime and the nursery say to each other: one msgpack value a packet, over a SOCK_SEQPACKET pair."""

from __future__ import annotations

import socket
from typing import Literal

import msgspec

from pythia_fast.pool.identity import AppIdentity, HandlerIdentity

#: Longest packet. A longer traceback is cut in its middle, where recursion repeats itself.
PACKET_BYTES = 60_000


class Setup(msgspec.Struct, tag="setup"):
    """First packet to a nursery that is a new interpreter: how to find the app, and the arenas it inherits."""

    # As bytes, which need not be UTF-8 (os.fsencode).
    target: list[bytes]  #: ["module", MODULE, ATTRIBUTE] or ["file", PATH, ATTRIBUTE]
    app: AppIdentity
    sys_path: list[bytes]
    argv: list[bytes]
    import_first: bool  #: import the app before forking; else each child imports it
    arenas: list[ArenaShape]


class ArenaShape(msgspec.Struct):
    """Everything ``Arena`` needs to map an inherited arena; ``handler`` says whose it is, and what that is."""

    handler: HandlerIdentity
    fd: int
    capacity: int
    raw_bytes: int
    n_workers: int
    credit: int
    n_slots: int
    output_bytes: int
    n_spares: int


class Launch(msgspec.Struct, tag="launch"):
    """To the nursery: make a process for this place, or this spare's seat (pool/places.py)."""

    pool: int
    worker: int


class Signal(msgspec.Struct, tag="signal"):
    """To the nursery: send a signal to a child, if it has not been reaped: its number may be another process' then."""

    pid: int
    number: int


class Ping(msgspec.Struct, tag="ping"):
    """To the nursery: is it still there?"""


class Pong(msgspec.Struct, tag="pong"):
    """From the nursery: it is."""


class Ready(msgspec.Struct, tag="ready"):
    """From the nursery: it listens."""

    pid: int
    threads: int


class Importing(msgspec.Struct, tag="importing"):
    """From a nursery that imports the app, which takes long: where it is."""

    stack: str


class Launched(msgspec.Struct, tag="launched"):
    """From the nursery: the place has a process, which is not up yet."""

    pool: int
    worker: int
    pid: int


class BootFailed(msgspec.Struct, tag="boot_failed"):
    """From a child (or the nursery itself, worker -1): the app's import or setup() raised."""

    pool: int
    worker: int
    pid: int
    traceback: str
    cause: str  #: the exception in a line
    app_changed: bool = False  #: it imported another app than the one that runs, as every other one would
    misconfigured: bool = False  #: an option cannot work, as ``traceback`` says in a sentence


class TeardownFailed(msgspec.Struct, tag="teardown_failed"):
    """From a child that leaves because it was told to: teardown() raised."""

    pool: int
    worker: int
    pid: int
    traceback: str


class Recycles(msgspec.Struct, tag="recycles"):
    """From a child whose last batch is done: it has reached a limit, takes no more, and runs teardown() now."""

    pool: int
    worker: int
    pid: int
    why: str  #: "has handled as many batches as max_batches_per_process=1000 lets it"


#: Why a process ends itself: what it cannot go on without, or an exception outside the handler's call.
QuitReason = Literal["memory", "descriptors", "exception"]


class Died(msgspec.Struct, tag="died"):
    """From the nursery: the process of this place is gone."""

    pool: int
    worker: int
    pid: int
    status: int  #: exit code, or minus the signal that killed it
    said: str = ""  #: its last words (pool/crash_text.py)
    quit_reason: QuitReason | None = None  #: it ended itself
    cause: str = ""  #: the exception with which it did, in a line
    peak_mb: float = 0.0  #: the most resident memory that it had at once, in 10**6 bytes


Message = (
    Setup | Launch | Signal | Ping | Pong | Ready | Importing | Launched | BootFailed | TeardownFailed | Recycles | Died
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def shorten(text: str, limit: int = PACKET_BYTES // 2) -> str:
    """A text that can be encoded (lone surrogates are spelled out), its middle left out where it would not fit."""
    encoded = text.encode(errors="backslashreplace")
    text = encoded.decode()
    if len(encoded) <= limit:
        return text
    half = limit // 4
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def send(channel: socket.socket, message: Message) -> None:
    channel.send(_encoder.encode(message))


def receive(channel: socket.socket) -> Message | None:
    """The next packet; None when the other side is gone. Raises BlockingIOError when there is none yet."""
    try:
        packet = channel.recv(PACKET_BYTES * 2)
    except ConnectionResetError:
        return None
    return _decoder.decode(packet) if packet else None

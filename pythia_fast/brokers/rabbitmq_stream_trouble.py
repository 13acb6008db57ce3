"""What goes wrong with a RabbitMQ's stream protocol, as a sentence that says what to do, and whether it can pass."""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from pythia_fast._ext import stream_reader as native
from pythia_fast.brokers.rabbitmq_address import Address
from pythia_fast.brokers.rabbitmq_stream_wire import Code, ProtocolError


class Trouble(NamedTuple):
    """``passes``: trying again can help, without anybody doing anything here."""

    sentence: str
    passes: bool
    damaged: bool = False  #: it is the bytes at one place, which will be met again


class CannotRead(Exception):
    """There is no use in trying again; the text is a sentence."""


class Refused(Exception):
    """The server answered with another code than OK. ``doing``: what was asked, as ``open virtual host /``."""

    def __init__(self, code: int, doing: str) -> None:
        super().__init__(f"{doing}: {name_of(code)}")
        self.code = code
        self.doing = doing


def name_of(code: int) -> str:
    """``NO_STREAM (2)``."""
    try:
        return f"{Code(code).name} ({code})"
    except ValueError:
        return f"code {code}"


def of_error(error: Exception, address: Address) -> Trouble:
    """Why nothing came of a connection, or of a question."""
    place = f"RabbitMQ at {address}"
    if isinstance(error, CannotRead):
        return Trouble(str(error), False)
    if isinstance(error, Refused):
        return _of_refusal(error, address)
    if isinstance(error, ProtocolError):
        return Trouble(
            f"{place}: what answers there does not speak RabbitMQ's stream protocol ({error}): is it the port of the "
            "plugin rabbitmq_stream (5552, with TLS 5551)?",
            False,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(f"{place}: its certificate is not accepted: {error.verify_message} (tls=)", False)
    if isinstance(error, ssl.SSLError):
        return Trouble(
            f"{place}: no TLS there: {error.reason or error} (tls=, rabbitmq-stream+tls:// and the port of TLS)", False
        )
    if isinstance(error, ConnectionRefusedError):
        return Trouble(
            f"{place}: nobody listens there: is it running, with its plugin for streams (rabbitmq-plugins enable "
            "rabbitmq_stream), and is the address right (url= or RABBITMQ_STREAM_URL)?",
            True,
        )
    if isinstance(error, TimeoutError):
        return Trouble(f"{place} does not answer", True)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Trouble(f"{place}: {text}", True)


def _of_refusal(refused: Refused, address: Address) -> Trouble:
    place, user, doing = f"RabbitMQ at {address}", address.username, refused.doing
    if refused.code in (Code.AUTHENTICATION, Code.SASL_ERROR):
        return Trouble(f"{place} refuses user {user!r}: is the password right (url= or RABBITMQ_STREAM_URL)?", False)
    if refused.code == Code.LOOPBACK:
        return Trouble(f"{place} lets user {user!r} in from its own machine only: log in as another one", False)
    if refused.code == Code.MECHANISM:
        return Trouble(f"{place} takes no user and password (PLAIN is not among its auth_mechanisms)", False)
    if refused.code == Code.VHOST:
        return Trouble(
            f"{place} does not let user {user!r} into virtual host {address.virtual_host!r}: does it exist "
            "(rabbitmqctl list_vhosts), and has the user permissions there (rabbitmqctl list_permissions)?",
            False,
        )
    if refused.code == Code.NO_STREAM:
        return Trouble(
            f"{place}: cannot {doing}: there is no such stream in virtual host {address.virtual_host!r}: declare it (a "
            "queue with x-queue-type=stream), or see that it is no classic or quorum queue",
            False,
        )
    if refused.code == Code.NOT_AVAILABLE:
        return Trouble(
            f"{place}: cannot {doing}: this node has no running copy of it: give the address of a node that has one "
            "(rabbitmq-streams stream_status), or wait until it is up",
            True,
        )
    if refused.code == Code.ACCESS_REFUSED:
        return Trouble(f"{place}: user {user!r} may not {doing} (rabbitmqctl set_permissions)", False)
    return Trouble(f"{place}: cannot {doing}: the server answers {name_of(refused.code)}", True)


def of_broken(broken: tuple[int, int], address: Address, what: str, max_chunk_bytes: int) -> Trouble:
    """The reader gave its connection up (``StreamReaderNative.take_broken``)."""
    kind, number = broken
    place = f"RabbitMQ at {address}"
    if kind == native.CLOSED:
        return Trouble(f"{place} closed the connection", True)
    if kind == native.ERRNO:
        return Trouble(f"the connection to {place} broke: {os.strerror(number)}", True)
    if kind == native.SILENT:
        return Trouble(f"{place} has not given a sign of life for {2 * address.heartbeat_s} s", True)
    if kind == native.TOO_LARGE:
        return Trouble(
            f"{place}: {what}: a chunk of messages has {number:,} bytes, max_chunk_bytes is {max_chunk_bytes:,}: "
            "raise it",
            False,
        )
    if kind == native.MEMORY:
        return Trouble(f"no memory for what {place} sends: {what}; give the process more", False)
    if kind == native.BAD_CRC:
        return Trouble(
            f"{place}: {what}: the chunk of messages from offset {number:,} has another checksum than is written in "
            "it: its bytes are damaged",
            True,
            True,
        )
    if kind == native.BEGUN_ANEW:
        return Trouble(
            f"{place}: {what}: messages from offset {number:,} come where later ones were read before: was the stream "
            "deleted and declared again? Run again with another consumer_group= to read it from offset= on",
            False,
        )
    if kind == native.OTHER_CHUNK:
        return Trouble(f"{place}: {what}: chunks of a format that is not known here", False)
    if kind == native.BAD_ENTRY:
        return Trouble(f"{place}: {what}: a chunk of messages cannot be taken apart at offset {number:,}", True, True)
    return Trouble(f"{place}: {what}: what comes is no frame of RabbitMQ's stream protocol", True)

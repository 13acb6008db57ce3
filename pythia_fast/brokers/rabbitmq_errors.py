"""What RabbitMQ refuses, in words: one sentence each, naming server and object, and what to do.

Reply codes: AMQP 0-9-1, section 1.2; which of them RabbitMQ uses for what: its documentation, "Channels" and
"Connections", and the texts that it sends with them, which are repeated.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from pika import exceptions

from pythia_fast.brokers.rabbitmq_address import Address

ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
CONTENT_TOO_LARGE, CONNECTION_FORCED, NOT_ALLOWED = 311, 320, 530


@dataclass(frozen=True)
class Refusal:
    """Why something did not come about."""

    sentence: str
    lasting: bool  #: trying again cannot help: somebody must change something


def connection_refusal(error: Exception, address: Address) -> Refusal:
    """Why there is no connection."""
    place = f"RabbitMQ at {address}"
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError) or (
        isinstance(error, exceptions.ConnectionClosedByBroker) and error.reply_code == ACCESS_REFUSED
    ):
        return Refusal(
            f"{place} refuses user {address.username!r}: is the password right (url= or RABBITMQ_URL)?", True
        )
    if isinstance(error, exceptions.ProbableAccessDeniedError) or (
        isinstance(error, exceptions.ConnectionClosedByBroker) and error.reply_code == NOT_ALLOWED
    ):
        told = f" ({error.reply_text})" if isinstance(error, exceptions.ConnectionClosedByBroker) else ""
        return Refusal(
            f"{place} does not let user {address.username!r} into virtual host {address.virtual_host!r}{told}: does it "
            "exist (rabbitmqctl list_vhosts), and has the user permissions there (rabbitmqctl list_permissions)?",
            "is down" not in told,
        )
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return Refusal(f"{place} closed the connection: {error.reply_text}", False)
    if isinstance(error, exceptions.AMQPHeartbeatTimeout):
        return Refusal(f"{place} has not given a sign of life for {address.heartbeat_s} s", False)
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return Refusal(f"{place}: what answers there does not speak AMQP 0-9-1 ({_text(error)})", True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refusal(f"{place}: its certificate is not accepted: {error.verify_message} (tls=)", True)
    if isinstance(error, ssl.SSLError):
        return Refusal(f"{place}: no TLS there: {error.reason or error} (tls=, amqps:// and the port of TLS)", True)
    if isinstance(error, exceptions.StreamLostError):
        return Refusal(
            f"{place}: {_text(error)}", "does not speak AMQP" in str(error) or "another version" in str(error)
        )
    return Refusal(f"{place} cannot be reached: {_text(error)}", False)


def channel_refusal(code: int, text: str, address: Address, doing: str) -> Refusal:
    """Why the server closed a channel. ``doing``: what was asked of it last."""
    place = f"RabbitMQ at {address.place}"
    if code == ACCESS_REFUSED:
        return Refusal(f"{place}: user {address.username!r} may not {doing}: {text}", True)
    if code == NOT_FOUND:
        return Refusal(f"{place}: cannot {doing}: {text}", True)
    if code == RESOURCE_LOCKED:
        return Refusal(f"{place}: cannot {doing}, which another connection has for itself: {text}", False)
    if code == PRECONDITION_FAILED and "timed out" in text:
        return Refusal(
            f"{place} closed the channel, because deliveries were not acknowledged for longer than its "
            f"consumer_timeout: {text}: raise that, or lower prefetch_count or batch_size",
            False,
        )
    if code == PRECONDITION_FAILED and "unknown delivery tag" in text:
        return Refusal(f"{place} closed the channel over an acknowledgement: {text}", False)
    if code == PRECONDITION_FAILED:
        return Refusal(f"{place}: cannot {doing}, which is there with other properties: {text}", True)
    return Refusal(f"{place} closed the channel: {code} {text}", False)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.args[0]) if error.args else type(error).__name__

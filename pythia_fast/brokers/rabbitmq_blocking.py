"""pika's blocking connection, for what is no batch path: made alike, and with failures as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pika
from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from pythia_fast.brokers.rabbitmq_errors import connection_refusal

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq_address import Address


class NoConnection(Exception):
    """The server did not let us in; why, as a sentence."""


def blocking_connection(address: Address, name: str, patience_s: float, **settings: Any) -> pika.BlockingConnection:
    """``settings``: of pika's parameters. Raises NoConnection."""
    parameters = address.parameters(name)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = patience_s
    for setting, value in settings.items():
        setattr(parameters, setting, value)
    if address.tls is not None:
        parameters.ssl_options = pika.SSLOptions(address.tls, address.host)
    try:
        return pika.BlockingConnection(parameters)
    except (exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        raise NoConnection(_why(error, address, patience_s)) from None


def _why(error: Exception, address: Address, patience_s: float) -> str:
    within: Any = error
    while isinstance(nested := getattr(within, "exception", None) or next(iter(within.args), None), Exception):
        within = nested  # pika wraps what the socket said
    if "imeout" in f"{type(within).__name__}{within}":
        return f"RabbitMQ at {address} did not answer within {patience_s:.1f} s"
    return connection_refusal(within, address).sentence

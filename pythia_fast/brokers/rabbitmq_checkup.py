"""A RabbitMQ before a run: login, objects, rights, settings; nothing is consumed, published or declared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pythia_fast.brokers.checkup import CheckupContext, Findings, note, ok, problem, warning
from pythia_fast.brokers.rabbitmq_asking import ASKING_QUEUE, BLOCKED_S, Asking, Queue, Refused
from pythia_fast.brokers.rabbitmq_blocking import NoConnection, blocking_connection
from pythia_fast.brokers.rabbitmq_errors import NOT_FOUND

if TYPE_CHECKING:
    from pythia_fast.brokers.rabbitmq import RabbitMQConsumer, RabbitMQProducer
    from pythia_fast.brokers.rabbitmq_address import Address

CONSUMER_TIMEOUT_S = 1800.0  #: the server's own, unless its administrator or the queue says otherwise


def check_consumer(consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    """The queue that is read."""
    asking = yield from _connect(consumer.address, context)
    if asking is not None:
        with contextlib.closing(asking):
            yield from _check_queue(asking, consumer, context)


def _check_queue(asking: Asking, consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    name, place = consumer.queue, consumer.address.place
    found = asking.queue(name)
    if consumer.exchange is not None:
        yield from _exchange(asking, consumer.exchange, place)
    if isinstance(found, Refused):
        yield from _missing(asking, found, consumer)
        return
    yield ok(f"queue {name!r} is there, with {found.messages:,} messages ready and {found.consumers} consumers")
    if not asking.may_read(name):
        yield problem(
            f"user {consumer.address.username!r} may not read queue {name!r}", "rabbitmqctl set_permissions: read"
        )
    yield from _sharing(consumer, context, found)
    yield from _prefetch(consumer, context)
    properties = asking.properties(name)
    if properties is None and asking.refuses_surely:
        yield note(
            f"the settings of queue {name!r} cannot be asked: user {consumer.address.username!r} may not declare it"
        )
    elif properties is not None:
        yield from _settings(name, properties, context, reads=True)


def _missing(asking: Asking, found: Refused, consumer: RabbitMQConsumer) -> Findings:
    name, user = consumer.queue, consumer.address.username
    if found.code != NOT_FOUND:
        yield problem(f"queue {name!r} cannot be asked about: {found.text}", "see there")
    elif asking.may_declare(name):
        yield note(f"queue {name!r} does not exist; a run declares it, {_declared_as(consumer)}")
    else:
        yield problem(
            f"queue {name!r} does not exist, and user {user!r} may not declare it",
            "declare it, or allow it (rabbitmqctl set_permissions: configure)",
        )


def _declared_as(consumer: RabbitMQConsumer) -> str:
    kind = (consumer.arguments or {}).get("x-queue-type", "classic")
    return f"{'durable' if consumer.durable else 'not durable'} and {kind}"


def _sharing(consumer: RabbitMQConsumer, context: CheckupContext, found: Queue) -> Findings:
    if consumer.auto_ack:
        yield warning(
            "auto_ack=True: what is in hand when the process dies, or the connection breaks, is lost",
            "leave auto_ack out",
        )
    if found.consumers and consumer.exclusive:
        yield problem(
            f"exclusive=True, and queue {consumer.queue!r} has {found.consumers} consumers already", "stop them"
        )
    elif found.consumers and context.ordering != "unordered":
        yield warning(
            f"queue {consumer.queue!r} has {found.consumers} consumers already, so its order is not kept: "
            f'ordering="{context.ordering}" holds within one consumer',
            "read it with one, or give each its own queue",
        )


def _prefetch(consumer: RabbitMQConsumer, context: CheckupContext) -> Findings:
    prefetch = consumer.prefetch_count
    if prefetch is not None and prefetch < context.batch_size:
        yield warning(
            f"prefetch_count={prefetch:,} is less than batch_size={context.batch_size:,}: no batch gets full, and each "
            "waits for batch_timeout",
            f"give prefetch_count={min(65_535, context.rows_in_hand):,}, or leave it out",
        )
    elif prefetch is not None and prefetch < min(65_535, context.rows_in_hand):
        yield note(
            f"prefetch_count={prefetch:,} is less than the {context.rows_in_hand:,} rows that the pool can have in hand"
        )


def check_producer(producer: RabbitMQProducer, context: CheckupContext) -> Findings:
    """The queue or exchange that is written to."""
    asking = yield from _connect(producer.address, context)
    if asking is not None:
        with contextlib.closing(asking):
            yield from _check_target(asking, producer, context)


def _check_target(asking: Asking, producer: RabbitMQProducer, context: CheckupContext) -> Findings:
    address = producer.address
    if producer.exchange:
        missing = yield from _exchange(asking, producer.exchange, address.place)
        if missing:
            return
        if producer.routing_key is None and context.role == "sink":
            yield note("each record's own key is its routing key: one without a key is published with an empty one")
    else:
        name = producer.routing_key or ""
        found = asking.queue(name)
        if isinstance(found, Refused):
            what = "does not exist" if found.code == NOT_FOUND else f"cannot be asked about: {found.text}"
            yield problem(
                f"queue {name!r} {what}: every record would come back and be dead-lettered", "declare it first"
            )
            return
        yield ok(f"queue {name!r} is there, with {found.messages:,} messages ready and {found.consumers} consumers")
        properties = asking.properties(name)
        if properties is not None:
            yield from _settings(name, properties, context, reads=False)
    if not asking.may_write(producer.exchange, ASKING_QUEUE):
        target = (
            f"exchange {producer.exchange!r}" if producer.exchange else "the default exchange, which leads to queues"
        )
        yield problem(f"user {address.username!r} may not write to {target}", "rabbitmqctl set_permissions: write")
    if asking.is_blocked():
        yield problem(
            f"RabbitMQ at {address} takes no messages now: an alarm of memory or disk is on",
            "see rabbitmqctl status, and free what it names",
        )


# -- what both have in common --------------------------------------------------------------------


def _connect(address: Address, context: CheckupContext) -> Any:
    """Yields findings; returns an Asking, or None where there is no way in."""
    begun = time.monotonic()
    try:
        connection = blocking_connection(
            address,
            f"{context.app}-{context.handler}-doctor",
            context.left_s(),
            # A server with an alarm does not read goodbyes.
            blocked_connection_timeout=BLOCKED_S,
        )
    except NoConnection as error:
        yield problem(
            str(error), "see that the server is up and the address and login are right (url= or RABBITMQ_URL)"
        )
        return None
    asking = Asking(connection)
    yield ok(
        f"{asking.product} {asking.server_version} at {address.place} let user {address.username!r} in after "
        f"{(time.monotonic() - begun) * 1000:.0f} ms"
    )
    if not asking.refuses_surely:
        yield note(
            f"rights and queues' settings are asked of RabbitMQ from 3.9 on, and this is {asking.product} "
            f"{asking.server_version}"
        )
    return asking


def _exchange(asking: Asking, name: str, place: str) -> Any:
    """Yields findings; returns whether it is missing."""
    refused = asking.exchange(name)
    if refused is None:
        yield ok(f"exchange {name!r} is there")
        return False
    what = "does not exist" if refused.code == NOT_FOUND else f"cannot be asked about: {refused.text}"
    yield problem(f"exchange {name!r} at {place} {what}", "declare it first")
    return True


def _settings(name: str, properties: Mapping[str, Any], context: CheckupContext, *, reads: bool) -> Findings:
    kind = properties.get("x-queue-type", "classic")
    given = ", ".join(
        f"{key}={value}" for key, value in properties.items() if key.startswith("x-") and "type" not in key
    )
    yield ok(f"queue {name!r} is of type {kind}{', ' + given if given else ''}")
    if kind == "stream" and reads:
        yield problem(
            f"{name!r} is a stream, not a queue: reading it removes nothing", "name a classic or quorum queue"
        )
        return
    if not properties["durable"]:
        yield warning(
            f"queue {name!r} is not durable: it is gone with its messages when the server restarts",
            "declare it durable, or of type quorum",
        )
    elif kind == "classic":
        yield note(
            f"queue {name!r} is classic: its messages are on one node",
            'a quorum queue (x-queue-type="quorum") has copies',
        )
    if properties["auto_delete"]:
        yield warning(
            f"queue {name!r} is auto_delete: it is removed with its messages when its last consumer leaves",
            "declare it without auto_delete",
        )
    yield from _losses(name, properties)
    if reads and kind == "quorum" and "x-delivery-limit" not in properties:
        yield note(
            f"queue {name!r} has no x-delivery-limit: a message whose run is killed each time comes back for ever "
            "(RabbitMQ 4 has 20 as its default)",
        )
    timeout_s = float(properties.get("x-consumer-timeout", CONSUMER_TIMEOUT_S * 1000)) / 1000
    if reads and context.batch_deadline_s is not None and context.batch_deadline_s > timeout_s:
        yield warning(
            f"batch_deadline={context.batch_deadline_s:g} s is longer than consumer_timeout, {timeout_s:g} s "
            "unless the "
            "server says otherwise: the channel would be closed and its messages delivered again",
            "lower batch_deadline, or raise consumer_timeout",
        )


def _losses(name: str, properties: Mapping[str, Any]) -> Findings:
    letters = "x-dead-letter-exchange" in properties
    gone = "dead-lettered by the server" if letters else "dropped"
    for limit, what in (("x-message-ttl", "older than {} ms"), ("x-expires", "left alone with its queue for {} ms")):
        if limit in properties:
            yield warning(
                f"messages of queue {name!r} that are {what.format(properties[limit])} are {gone}, read or not",
                f"leave {limit} out where every message counts",
            )
    bounds = [limit for limit in ("x-max-length", "x-max-length-bytes") if limit in properties]
    if bounds and properties.get("x-overflow", "drop-head") == "drop-head":
        yield warning(
            f"queue {name!r} has {bounds[0]}={properties[bounds[0]]} with drop-head: when it is full, its oldest "
            f"messages are {gone} unread",
            "give x-overflow=reject-publish, which holds the writers back",
        )
    if "x-delivery-limit" in properties:
        yield (note if letters else warning)(
            f"a message of queue {name!r} that was delivered more than {properties['x-delivery-limit']} times "
            f"is {gone}",
            "" if letters else "give the queue x-dead-letter-exchange",
        )

"""What a handler that asks for transactions gets besides: a producer of its own, and another completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
from pythia_fast.runtime.completion import Completion
from pythia_fast.runtime.transactional import TransactionalCompletion
from pythia_fast.runtime.transactional_id import claimed_id

if TYPE_CHECKING:
    from pythia_fast.brokers.base import Partition, PublisherContext
    from pythia_fast.brokers.kafka_transactions import KafkaTransactions
    from pythia_fast.registration import Handler

CLOSE_TIMEOUT_S = 10.0


def open_transactions(
    handler: Handler, context: PublisherContext, opened: ExitStack, wake: Callable[[], None]
) -> KafkaTransactions | None:
    """The producer, which ``opened`` closes; None: the handler asks for none.

    ``wake``: called when a commit, or an abort, is done. Raises SinkError, ConfigError.
    """
    if handler.transactions is None:
        return None
    from pythia_fast.brokers.kafka_transactions import KafkaTransactions

    source, sink, dead_letter = handler.source, handler.sink, handler.dead_letter
    assert isinstance(source, KafkaConsumer)  # checked when the handler was registered
    assert isinstance(sink, KafkaProducer)
    name = handler.transactions.id
    if name is None:
        group = source.group(context.app, handler.name)
        name = opened.enter_context(claimed_id(group, handler.name, source.instance_id))
    letters = dead_letter if isinstance(dead_letter, KafkaProducer) else None
    transactions = KafkaTransactions(sink, letters, context, name, wake)
    opened.callback(transactions.close, CLOSE_TIMEOUT_S)
    return transactions


def completion_maker(
    transactions: KafkaTransactions | None, partitions: Mapping[int, Partition], attend: Callable[[], None]
) -> Callable[..., Completion]:
    """What takes the parameters of Completion: itself where there are no transactions.

    ``partitions``, ``attend``: as TransactionalCompletion has them.
    """
    if transactions is None:
        return Completion
    return partial(TransactionalCompletion, transactions=transactions, partitions=partitions, attend=attend)

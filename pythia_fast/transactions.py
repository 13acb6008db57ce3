"""Transactions: what a handler says about them when it is registered, checked there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythia_fast import options
from pythia_fast.brokers.base import Sink, Source
from pythia_fast.brokers.file_sink import FileProducer
from pythia_fast.brokers.kafka import KafkaConsumer, KafkaProducer
from pythia_fast.errors import ConfigError
from pythia_fast.retry import RetryPolicy

#: Seconds after which a transaction is committed by default.
INTERVAL_S = 0.1
#: A transaction is aborted by us when this share of its timeout has passed: a broker that does it takes us for dead.
SHARE_OF_TIMEOUT = 0.8


@dataclass(frozen=True, slots=True)
class Transactions:
    """Outputs, Kafka dead letters and positions of a handler become visible together or not at all."""

    id: str | None  #: None: made of group, handler and machine (runtime/transactional_id.py)
    interval_s: float


def transactions_of(
    where: str,
    transactional: Any,
    transactional_id: Any,
    interval: Any,
    *,
    source: Source,
    sink: Sink | None,
    dead_letter: Sink | None,
    retry: RetryPolicy,
    batch_deadline: float | None,
) -> Transactions | None:
    """What the options ask for; None: no transactions. Raises ConfigError for what cannot be exactly once."""
    if not options.flag(where, "transactional", transactional):
        if transactional_id is not None:
            raise ConfigError(f"{where}: transactional_id={options.spell(transactional_id)} needs transactional=True")
        return None
    if transactional_id is not None:
        takes = "the name by which the brokers know this copy of the handler, 1 to 200 characters"
        transactional_id = options.text(where, "transactional_id", transactional_id, takes, longest=200)
    takes = "seconds between commits, from 0.01 to 60"
    interval_s = options.number(where, "transaction_interval_s", interval, 0.01, 60, takes)
    if not isinstance(source, KafkaConsumer):
        raise _refusal(where, "source", source, "the positions of a Kafka consumer alone can be part of one")
    if not isinstance(sink, KafkaProducer):
        raise _refusal(where, "sink", sink, "the records of a Kafka producer alone can be part of one")
    if dead_letter is not None and not isinstance(dead_letter, KafkaProducer | FileProducer):
        raise _refusal(where, "dead_letter", dead_letter, "give a Kafka producer, a file, or none")
    for role, producer in (("sink", sink), ("dead_letter", dead_letter)):
        if isinstance(producer, KafkaProducer) and not _same_cluster(source, producer):
            raise ConfigError(
                f"{where}: transactional=True, but source and {role} are of two clusters, {source.bootstrap_servers} "
                f"and {producer.bootstrap_servers}: a transaction cannot span both. Where they are one cluster, give "
                "them the same bootstrap_servers"
            )
    sink.check_transactional()
    if source.isolation_level != "read_committed":
        raise ConfigError(
            f"{where}: transactional=True, but the source reads isolation_level={source.isolation_level!r}, records of "
            "aborted transactions too; leave it out"
        )
    _check_times(where, sink.transaction_timeout_s * SHARE_OF_TIMEOUT, interval_s, retry, batch_deadline)
    return Transactions(transactional_id, interval_s)


def _refusal(where: str, role: str, given: Any, why: str) -> ConfigError:
    what = "none is given" if given is None else f"it is {type(given).__name__}"
    return ConfigError(f"{where}: transactional=True cannot be had with this {role} ({what}): {why}")


def _same_cluster(source: KafkaConsumer, producer: KafkaProducer) -> bool:
    """Whether the two have a broker in common, as far as their names tell."""
    ours, theirs = (set(servers.split(",")) for servers in (source.bootstrap_servers, producer.bootstrap_servers))
    return bool(ours & theirs)


def _check_times(
    where: str, open_s: float, interval_s: float, retry: RetryPolicy, batch_deadline: float | None
) -> None:
    """Raise ConfigError where a transaction would be open longer than it may.

    It is open from its first record on. Records are withheld for as long as it takes to handle all batches once, where
    need be (runtime/transactional.py), but not for a round that waits, in which rows may take batch_deadline again.
    """
    if interval_s >= open_s:
        raise ConfigError(
            f"{where}: transaction_interval_s={interval_s:g} does not fit into the {open_s:g} s for which a "
            "transaction may be open; raise transaction_timeout_ms of the KafkaProducer"
        )
    wait_s = sum(retry.wait_s(given, chance=0.0) for given in range(1, retry.max_attempts)) if retry.waits else 0.0
    if wait_s >= open_s:
        raise ConfigError(
            f"{where}: rows may wait {wait_s:g} s in all to be handled again (retry=), but a transaction may be open "
            f"for {open_s:g} s only, and would be aborted each time; lower backoff or max_attempts, or raise "
            "transaction_timeout_ms of the KafkaProducer"
        )
    if retry.waits and batch_deadline is not None and wait_s + batch_deadline >= open_s:
        raise ConfigError(
            f"{where}: rows may wait {wait_s:g} s in all to be handled again (retry=), and then take "
            f"batch_deadline={batch_deadline:g} s, but a transaction may be open for {open_s:g} s only, and would be "
            "aborted each time that one hangs; lower batch_deadline, backoff or max_attempts, or raise "
            "transaction_timeout_ms of the KafkaProducer"
        )

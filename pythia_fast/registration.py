"""Handler: one registered batch handler, checked when it is registered, so that nothing is found out at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pythia_fast import options
from pythia_fast.brokers.base import Sink, Source
from pythia_fast.circuit_breaker import CircuitBreaker
from pythia_fast.dead_letter_limit import DeadLetterLimit
from pythia_fast.decoders import Decoding, PayloadFormat, Tombstones, choose_decoder
from pythia_fast.errors import ConfigError
from pythia_fast.handlers import Adapter, inspect_handler
from pythia_fast.retry import RetryPolicy
from pythia_fast.schema import SchemaLike, check_schema
from pythia_fast.transactions import Transactions, transactions_of

Ordering = Literal["unordered", "partition", "key"]
OnError = Literal["isolate", "dead_letter", "stop"]
OutputRows = Literal["same", "any"]

MAX_BATCH_SIZE = 1 << 20
MAX_SPARES = 64
MIN_BATCH_BYTES = 1 << 20
MAX_BATCH_BYTES = 1 << 30
MIN_RATE, MAX_RATE = 0.001, 1_000_000_000  #: rows per second
BYTES_A_ROW = 256  #: raw bytes reserved a row unless max_batch_bytes says otherwise; only touched pages take memory


@dataclass(frozen=True)
class Handler:
    """One registered handler. See ``App.batch_handler`` for the meaning of the options."""

    name: str
    app: str
    function: Callable[..., Any]
    adapter: Adapter
    decoding: Decoding
    source: Source
    sink: Sink | None
    dead_letter: Sink | None
    batch_size: int
    batch_timeout: float
    busy_poll: float  #: seconds
    max_batch_bytes: int
    ordering: Ordering
    on_error: OnError
    output_rows: OutputRows
    retry: RetryPolicy
    batch_deadline: float | None  #: seconds
    setup_deadline: float | None  #: seconds
    max_batches_per_process: int | None
    max_memory_mb: float | None
    spares: int
    dead_letter_limit: DeadLetterLimit | None
    breaker: CircuitBreaker | None
    rate_limit: float | None
    transactions: Transactions | None
    workers: int | None

    @property
    def parks(self) -> bool:
        """Whether batches may wait in their slots to be handled again."""
        return self.retry.waits or self.breaker is not None


def make_handler(
    function: Callable[..., Any],
    *,
    app: str,
    name: str | None,
    source: Source,
    sink: Sink | None,
    dead_letter: Sink | None,
    schema: SchemaLike,
    decoder: Any,
    tombstones: Tombstones,
    batch_size: int,
    batch_timeout: float,
    busy_poll: float,
    max_batch_bytes: int | None,
    ordering: str,
    on_error: str,
    output_rows: str,
    retry: Any,
    batch_deadline: float | None,
    setup_deadline: float | None,
    max_batches_per_process: int | None,
    max_memory_mb: float | None,
    spares: int,
    dead_letter_limit: Any,
    breaker: Any,
    rate_limit: Any,
    transactional: Any,
    transactional_id: Any,
    transaction_interval_s: Any,
    workers: int | None,
) -> Handler:
    """Check everything and compile the schema. Raises ConfigError or SchemaError with what to do."""
    found = getattr(function, "__name__", None) if name is None else name
    if found is None:
        raise ConfigError(
            f"batch_handler: {options.spell(function)} has no name of its own, as a callable object or a "
            'functools.partial has none: give it one, name="..."'
        )
    handler_name = options.name("batch_handler", "name", found)
    where = f"handler {handler_name!r}"
    if not isinstance(source, Source):
        raise options.refusal(where, "source", source, "source must be a consumer such as KafkaConsumer(...)")
    for role, given in (("sink", sink), ("dead_letter", dead_letter)):
        if given is not None and not isinstance(given, Sink):
            raise options.refusal(where, role, given, f"{role} must be a producer such as KafkaProducer(...)")
    options.choice(where, "ordering", ordering, get_args(Ordering))
    if ordering != "unordered" and (why := source.unordered_because()):
        raise ConfigError(f'{where}: ordering="{ordering}" cannot be kept: {why}')
    options.choice(where, "on_error", on_error, get_args(OnError))
    options.choice(where, "output_rows", output_rows, get_args(OutputRows))
    options.choice(where, "tombstones", tombstones, get_args(Tombstones))
    batch_size = options.whole(where, "batch_size", batch_size, 1, MAX_BATCH_SIZE, "rows")
    if not isinstance(retry, RetryPolicy):
        raise options.refusal(where, "retry", retry, "a RetryPolicy(max_attempts, backoff, jitter, retry_on)")
    batch_deadline = _deadline(where, "batch_deadline", batch_deadline)
    setup_deadline = _deadline(where, "setup_deadline", setup_deadline)
    if max_batches_per_process is not None:
        max_batches_per_process = options.whole(
            where, "max_batches_per_process", max_batches_per_process, 1, 1 << 62, "batches", ", or None"
        )
    if max_memory_mb is not None:
        takes = "megabytes, from 1 to 1,099,511,627,776, or None"
        max_memory_mb = options.number(where, "max_memory_mb", max_memory_mb, 1, 1 << 40, takes)
    if breaker is not None and not isinstance(breaker, CircuitBreaker):
        takes = "a CircuitBreaker(failure_threshold, recovery_timeout, expected), or None"
        raise options.refusal(where, "breaker", breaker, takes)
    if rate_limit is not None:
        takes = f"rows per second, from {MIN_RATE:g} to {MAX_RATE:,}, or None"
        rate_limit = options.number(where, "rate_limit", rate_limit, MIN_RATE, MAX_RATE, takes)
    if workers is not None:
        workers = options.whole(where, "workers", workers, 1, options.MAX_WORKERS, "processes")
    batch_timeout = options.seconds(where, "batch_timeout", batch_timeout, high=3600)
    busy_poll = options.seconds(where, "busy_poll", busy_poll, high=1)
    if max_batch_bytes is None:
        max_batch_bytes = min(MAX_BATCH_BYTES, max(MIN_BATCH_BYTES, batch_size * BYTES_A_ROW))
    max_batch_bytes = options.whole(where, "max_batch_bytes", max_batch_bytes, 1, MAX_BATCH_BYTES, "bytes")
    check_schema(schema)
    if schema is None and isinstance(decoder, str) and decoder == "json" and source.record_dtype() is not None:
        decoder = source.record_dtype()  # "json" is what decoder= is where it is left out
    row_type = decoder.row_type if isinstance(decoder, PayloadFormat) else None
    adapter = inspect_handler(function, schema, where, row_type)
    decoding = choose_decoder(adapter.schema, decoder, tombstones)
    if why := source.misread_by(decoding):
        raise ConfigError(f"{where}: {why}")
    return Handler(
        name=handler_name,
        app=app,
        function=function,
        adapter=adapter,
        decoding=decoding,
        source=source,
        sink=sink,
        dead_letter=dead_letter,
        batch_size=batch_size,
        batch_timeout=batch_timeout,
        busy_poll=busy_poll,
        max_batch_bytes=max_batch_bytes,
        ordering=ordering,  # type: ignore[arg-type]  # checked above
        on_error=on_error,  # type: ignore[arg-type]
        output_rows=output_rows,  # type: ignore[arg-type]
        retry=retry,
        batch_deadline=batch_deadline,
        setup_deadline=setup_deadline,
        max_batches_per_process=max_batches_per_process,
        max_memory_mb=max_memory_mb,
        spares=options.whole(where, "spares", spares, 0, MAX_SPARES, "processes"),
        dead_letter_limit=_limit(where, dead_letter_limit),
        breaker=breaker,
        rate_limit=rate_limit,
        transactions=transactions_of(
            where,
            transactional,
            transactional_id,
            transaction_interval_s,
            source=source,
            sink=sink,
            dead_letter=dead_letter,
            retry=retry,
            batch_deadline=batch_deadline,
        ),
        workers=workers,
    )


def _deadline(where: str, name: str, given: Any) -> float | None:
    return None if given is None else options.seconds_above_0(where, name, given, "None")


def _limit(where: str, given: Any) -> DeadLetterLimit | None:
    if given is None or isinstance(given, DeadLetterLimit):
        return given
    takes = "a share of the rows, from 0 to 1, a DeadLetterLimit(ratio, min_rows, window), or None"
    return DeadLetterLimit(options.number(where, "dead_letter_limit", given, 0, 1, takes))

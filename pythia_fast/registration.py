"""Handler: one registered batch handler, checked when it is registered, so that nothing is found out at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

from pythia_fast.brokers.base import Sink, Source
from pythia_fast.decoders import Decoding, choose_decoder
from pythia_fast.errors import ConfigError
from pythia_fast.handlers import Adapter, inspect_handler

if TYPE_CHECKING:
    from pythia_fast.schema import SchemaLike

Ordering = Literal["unordered", "partition", "key"]
OnError = Literal["isolate", "dead_letter", "stop"]
OutputRows = Literal["same", "any"]

MAX_BATCH_SIZE = 1 << 20
MIN_BATCH_BYTES = 1 << 20
MAX_BATCH_BYTES = 1 << 30
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
    max_batch_bytes: int
    ordering: Ordering
    on_error: OnError
    output_rows: OutputRows
    max_attempts: int
    workers: int | None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or what there is."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names) or 'none'}"


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
    batch_size: int,
    batch_timeout: float,
    max_batch_bytes: int | None,
    ordering: str,
    on_error: str,
    output_rows: str,
    max_attempts: int,
    workers: int | None,
) -> Handler:
    """Check everything and compile the schema. Raises ConfigError or SchemaError with what to do."""
    handler_name = name or getattr(function, "__name__", None)
    if not handler_name or not all(character.isalnum() or character in "-_." for character in handler_name):
        raise ConfigError(f"handler name {handler_name!r}: use letters, digits, '-', '_' and '.'; give it with name=")
    where = f"handler {handler_name!r}"
    if not isinstance(source, Source):
        raise ConfigError(f"{where}: source must be a consumer such as KafkaConsumer(...), not {type(source).__name__}")
    for role, given in (("sink", sink), ("dead_letter", dead_letter)):
        if given is not None and not isinstance(given, Sink):
            raise ConfigError(
                f"{where}: {role} must be a producer such as KafkaProducer(...), not {type(given).__name__}"
            )
    _check_choice(where, "ordering", ordering, get_args(Ordering))
    _check_choice(where, "on_error", on_error, get_args(OnError))
    _check_choice(where, "output_rows", output_rows, get_args(OutputRows))
    _check_whole(where, "batch_size", batch_size, 1, MAX_BATCH_SIZE, "rows")
    _check_whole(where, "max_attempts", max_attempts, 1, 1000, "attempts")
    if workers is not None:
        _check_whole(where, "workers", workers, 1, 1024, "processes")
    if not isinstance(batch_timeout, int | float) or not 0 <= batch_timeout <= 3600:
        raise ConfigError(f"{where}: batch_timeout={batch_timeout!r}: seconds, from 0 to 3600")
    if max_batch_bytes is None:
        max_batch_bytes = min(MAX_BATCH_BYTES, max(MIN_BATCH_BYTES, batch_size * BYTES_A_ROW))
    _check_whole(where, "max_batch_bytes", max_batch_bytes, 1, MAX_BATCH_BYTES, "bytes")
    adapter = inspect_handler(function, schema, where)
    return Handler(
        name=handler_name,
        app=app,
        function=function,
        adapter=adapter,
        decoding=choose_decoder(adapter.schema, decoder),
        source=source,
        sink=sink,
        dead_letter=dead_letter,
        batch_size=batch_size,
        batch_timeout=float(batch_timeout),
        max_batch_bytes=max_batch_bytes,
        ordering=ordering,  # type: ignore[arg-type]  # checked above
        on_error=on_error,  # type: ignore[arg-type]
        output_rows=output_rows,  # type: ignore[arg-type]
        max_attempts=max_attempts,
        workers=workers,
    )


def _check_choice(where: str, option: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{where}: {option}={value!r}{nearest(str(value), choices)}")


def _check_whole(where: str, option: str, value: object, low: int, high: int, unit: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{where}: {option}={value!r}: a whole number of {unit} from {low} to {high}")

"""Trying a handler out in this process: no pool, no broker, no files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pythia_fast import options
from pythia_fast.batch import BadPayload, Batch
from pythia_fast.runtime.kept_rows import rows_to_send
from pythia_fast.runtime.outputs import OutputEncoder

if TYPE_CHECKING:
    from pythia_fast.registration import Handler


@dataclass(frozen=True)
class Trial:
    """What one call of a handler did. Indices are those of the payloads that were given."""

    returned: Any  #: as the handler returned it
    rejected: dict[int, str]  #: index -> reason
    retried: list[int]
    bad: tuple[BadPayload, ...]  #: refused by the decoder; the handler never saw them
    batch: Batch[Any]  #: the batch that the handler got, still open


def try_out(handler: Handler, payloads: Iterable[bytes | None]) -> Trial:
    """Decode ``payloads``, call the handler once with the good rows (``setup`` before, ``teardown`` after).

    Whatever the handler raises is raised here, and HandlerError for a result that would end a run.
    """
    given = list(options.items("App.test", "payloads", payloads, "a sequence of payloads: [payload] for one"))
    name, source = handler.decoding.name, handler.decoding.schema.source
    batch: Batch[Any] = Batch.decode(given, decoder=source) if name == "fixed" else Batch.decode(given, source, name)
    bad = {payload.index for payload in batch.bad}
    index_of = [index for index in range(len(given)) if index not in bad]
    call = handler.adapter.build()
    call.setup()
    try:
        returned = call(batch)
    finally:
        call.teardown()
    rows_to_send(handler, returned, len(batch), batch.given_back)
    OutputEncoder(handler.sink.encoding() if handler.sink is not None else "json").open(returned)
    return Trial(
        returned=returned,
        rejected={index_of[row]: reason for rows, reason in batch.rejected for row in rows.tolist()},
        retried=[index_of[row] for row in batch.retried.tolist()],
        bad=batch.bad,
        batch=batch,
    )

"""Trying a handler out in this process: no pool, no broker, no files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_fast import options
from pythia_fast.batch import BadPayload, Batch
from pythia_fast.errors import OutputValueError
from pythia_fast.results.kept_rows import rows_to_send
from pythia_fast.results.outputs import faults_in, output_encoder
from pythia_fast.runtime.handler_run import output_bytes

if TYPE_CHECKING:
    from pythia_fast.registration import Handler


@dataclass(frozen=True)
class Trial:
    """What one call of a handler did. Indices are those of the payloads that were given."""

    returned: Any  #: as the handler returned it
    rejected: dict[int, str]  #: index -> reason
    retried: list[int]
    failed: dict[int, str]  #: index -> why a run would give the row up: what was returned for it cannot be sent on
    bad: tuple[BadPayload, ...]  #: refused by the decoder; the handler never saw them
    skipped: list[int]  #: null payloads that tombstones="skip" passes over; nor did it see those
    batch: Batch[Any]  #: the batch that the handler got, still open


def try_out(handler: Handler, payloads: Iterable[bytes | None]) -> Trial:
    """Decode ``payloads``, call the handler once with the good rows (``setup`` before, ``teardown`` after).

    Whatever the handler raises is raised here; HandlerError for a result that would end a run; ResultError for one
    whose rows a run would give up together, or search for the one at fault.
    """
    given = list(options.items("App.test", "payloads", payloads, "a sequence of payloads: [payload] for one"))
    batch = Batch.of_payloads(given, handler.decoding)
    index_of = batch.positions["offset"].tolist()
    seen = {*index_of, *(payload.index for payload in batch.bad)}
    call = handler.adapter.build()
    call.setup()
    try:
        returned = call(batch)
    finally:
        call.teardown()
    result, kept = rows_to_send(handler, batch.with_nulls(returned), len(batch), batch.given_back)
    failed = _failed(handler, result, [index_of[row] for row in np.flatnonzero(kept)] if kept is not None else None)
    return Trial(
        returned=returned,
        rejected={index_of[row]: reason for rows, reason in batch.rejected for row in rows.tolist()},
        retried=[index_of[row] for row in batch.retried.tolist()],
        failed=failed,
        bad=batch.bad,
        skipped=[index for index in range(len(given)) if index not in seen],
        batch=batch,
    )


def _failed(handler: Handler, result: Any, places: list[int] | None) -> dict[int, str]:
    """Encode a result as a run does: what cannot be sent on of it, by the indices of the payloads.

    ``places``: of the payloads that its records are of; None where a record may be of any. Raises ResultError.
    """
    records = output_encoder(handler).open(result)
    failed = {}
    for fault in faults_in(records, np.empty(output_bytes(handler), np.uint8).data):
        if places is None or handler.on_error != "isolate":
            raise fault
        place = places[fault.row]
        failed[place] = str(OutputValueError(place, fault.why, fault.column))
    return failed

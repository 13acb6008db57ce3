"""Which rows of a batch that has killed a holder are handled next, and in which parts. Pure: it knows rows by number.

The rows that were in the dead holder's hands are cut into 64 parts, those are handled one after the other, and the one
that kills again is cut in turn, until a row is alone. One death may be chance (the kernel was short of memory), so a
row is convicted when holders have died on it alone twice, and thrice in all. The rows behind those that were in hand
are one part again, for most killers are alone in their batch; where two were found, they are cut into parts that
begin with twice the distance between two so far and double.

For one killer in 4,096 rows that is four deaths: with the batch, with 64 rows, and twice alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

PARTS = 64
DEATHS_ALONE = 2
DEATHS_IN_ALL = 3


class Suspects(NamedTuple):
    """What a death leaves to be found out. The rows before ``begin`` are done."""

    begin: int
    end: int  #: rows from begin to here were in hand
    deaths: int  #: of holders that had just these in hand
    deaths_before: int  #: of holders that had these and more in hand


class Part(NamedTuple):
    """Consecutive rows to be handled in one call."""

    begin: int
    end: int
    deaths_before: int


def convicted(suspects: Suspects) -> bool:
    """Whether the one row that was in hand is given up."""
    return (
        suspects.end - suspects.begin == 1
        and suspects.deaths >= DEATHS_ALONE
        and suspects.deaths + suspects.deaths_before >= DEATHS_IN_ALL
    )


def convicts_next(suspects: Suspects) -> bool:
    """Whether one more death with these rows in hand gives up the row that it is."""
    return convicted(suspects._replace(deaths=suspects.deaths + 1))


def parts_after(suspects: Suspects, rows: int, killers: int, most: int) -> list[Part]:
    """The parts, in order, that make up the rows from ``suspects.begin`` on; without the row that is convicted.

    ``killers``: rows of the batch that were convicted, this one among them. ``most``: see ``parts_to_go``.
    """
    begin, end = suspects.begin, min(suspects.end, rows)
    size = end - begin
    parts = []
    if size == 1 and not convicted(suspects):
        parts.append(Part(begin, end, suspects.deaths_before))
    elif size > 1:
        deaths = suspects.deaths_before + suspects.deaths
        number = max(PARTS, -(-size // most))
        edges = [begin + size * i // number for i in range(number + 1)]
        parts += [Part(first, last, deaths) for first, last in pairwise(edges) if first < last]
    step = rows if killers < 2 else max(1, 2 * end // killers)
    while end < rows:
        parts.append(Part(end, min(end + step, rows), 1))  # the whole batch was in the first holder's hands
        end, step = parts[-1].end, 2 * step
    return parts


def parts_to_go(suspects: Suspects, rows: int, killers: int, most: int, *, died: bool) -> list[Part]:
    """The parts, in order, that make up the rows from the beginning, or from where a death left them.

    ``most``: rows of one call. Rows that waited together may be more. Those that are given to the handler together
    begin at a multiple of it, so a death tells nothing of the ones behind.
    ``died``: ``suspects`` are of a holder that did.
    """
    parts: list[Part] = []
    end = 0
    if died:
        end = min(rows, max(suspects.end - 1, 0) // most * most + most)
        parts = parts_after(suspects, end, killers, most)
    return parts + [Part(begin, min(begin + most, rows), 0) for begin in range(end, rows, most)]

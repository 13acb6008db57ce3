"""The items of a list or a column of a user's own class, which may give others than it says."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pythia_fast.errors import ResultError


def given_items(what: str, items: Any) -> list[Any]:
    """The items, walked once, as many as it says. Raises ResultError, which begins with ``what``, for more or fewer.

    It may give more for ever; where it has no ``__iter__`` and gives them by ``__getitem__``, more are no fault.
    """
    n = len(items)
    given = list(islice(iter(items), n + 1 if hasattr(items, "__iter__") else n))
    if len(given) != n:
        gives = "more" if len(given) > n else len(given)
        raise ResultError(f"{what} says that it has {n} values, and gives {gives}")
    return given

"""Whether an exception is of types that the user named; asking that may run code of theirs (``__instancecheck__``)."""

from __future__ import annotations

import contextlib
from typing import TypeVar

from pythia_fast.error_text import reason_of

E = TypeVar("E", bound=BaseException)


def is_named(error: BaseException | None, types: tuple[type[E], ...], option: str) -> bool:
    """Whether it is of one of ``types``, which ``option`` names.

    Where that cannot be asked it is none of them, and a note of the exception says why: it costs what it would without
    the option.
    """
    if error is None:
        return False
    try:
        return isinstance(error, types)
    except BaseException as trouble:
        note = f"({option} could not be compared with this exception: {reason_of(trouble)})"
        with contextlib.suppress(BaseException):  # its class may be the user's, too
            if note not in getattr(error, "__notes__", ()):  # the same exception may be raised again and again
                error.add_note(note)
        return False

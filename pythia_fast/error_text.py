"""An exception as text, which costs a bounded time and raises nothing.

The user's code runs meanwhile: ``__str__``, and the loaders of modules whose source is shown. It may raise whatever it
likes, and exceptions may hang together by the ten thousand.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from types import TracebackType

#: Exceptions, and frames of theirs, that are told of one: as its causes, and in groups. Their frames are looked up in
#: the source, so that ten times as many may take longer than a batch may.
MOST_PARTS = 10_000
#: Frames that are told of an exception of which no more is.
MOST_FRAMES = 50

# Not error.__traceback__, type(error).__name__: a class may give these names a meaning that raises.
_traceback_of = vars(BaseException)["__traceback__"].__get__
_type_name = vars(type)["__name__"].__get__


def traceback_of(error: BaseException) -> TracebackType | None:
    """Where it was raised."""
    frames: TracebackType | None = _traceback_of(error)
    return frames


def type_name(error: BaseException) -> str:
    """The name of its type."""
    name: str = _type_name(type(error))
    return name


def reason_of(error: BaseException) -> str:
    """An exception as a sentence, lone surrogates spelled out."""
    try:
        if _is_manifold(error):
            return _last_line(error)
        # The text of its causes is made as well; limit=0: without their frames.
        told = traceback.TracebackException(type(error), error, None, limit=0, lookup_lines=False, compact=True)
        return _spelled_out("".join(told.format_exception_only()).strip())
    except BaseException:
        return _last_line(error)


def traceback_text(error: BaseException, frames: TracebackType | None) -> str:
    """An exception with its causes, as Python tells them. ``frames``: those of its own that are told."""
    try:
        if not _is_manifold(error):
            return "".join(traceback.format_exception(type(error), error, frames))
        why = "more belongs to it than can be told"
    except BaseException as trouble:
        why = f"{type_name(trouble)} was raised while the whole of it was put into words"
    lines = deque(_places(frames), maxlen=MOST_FRAMES)
    head = ["Traceback (most recent call last):\n"] if lines else []
    return "".join([f"(in short: {why})\n", *head, *lines, _last_line(error), "\n"])


def _is_manifold(error: BaseException) -> bool:
    """Whether so many exceptions and frames belong to it that they are left out."""
    seen: dict[int, BaseException] = {}
    parts, todo = 0, [error]
    while todo and parts <= MOST_PARTS:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        parts += 1
        frames = traceback_of(part)
        while frames is not None and parts <= MOST_PARTS:
            parts, frames = parts + 1, frames.tb_next
        todo += [cause for cause in (part.__cause__, part.__context__) if cause is not None]
        if isinstance(part, BaseExceptionGroup):
            todo += part.exceptions[:MOST_PARTS]
    return parts > MOST_PARTS


def _places(frames: TracebackType | None) -> Iterator[str]:
    """Frames without their source lines, which a loader would be asked for."""
    while frames is not None:
        code = frames.tb_frame.f_code
        yield f'  File "{code.co_filename}", line {frames.tb_lineno}, in {code.co_name}\n'
        frames = frames.tb_next


def _last_line(error: BaseException) -> str:
    try:
        says = _spelled_out(str(error))
    except BaseException:
        says = "<exception str() failed>"
    return _spelled_out(f"{type_name(error)}: {says}" if says else type_name(error))


def _spelled_out(text: str) -> str:
    """Not text.encode(): its class may be the user's."""
    return str.encode(text, errors="backslashreplace").decode()

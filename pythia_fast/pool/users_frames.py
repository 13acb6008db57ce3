"""The user's part of a stack: what stands between the runtime's own frames and the place where it happened."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeGuard

from pythia_fast.error_text import reason_of, traceback_of, traceback_text

_PACKAGE = Path(__file__).parents[1]
#: Files that call the user's code. The demo's handler lies in the package, too.
_CALLERS = (*(f"{_PACKAGE / part}{os.sep}" for part in ("pool", "results", "runtime")), str(_PACKAGE / "handlers.py"))
#: Between the runtime and the user's module, while it is imported.
_IMPORTERS = ("<frozen importlib", "<frozen runpy>", f"{os.sep}importlib{os.sep}__init__.py", f"{os.sep}runpy.py")
#: Of an import that takes long: so many of the first and of the last frames.
SHOWN_FRAMES = 5
_FRAME = re.compile(r'\s+File "(.*)", line \d+')


def _calls_the_user(file: str) -> bool:
    return file.startswith(_CALLERS) or any(part in file for part in _IMPORTERS)


def format_error(error: BaseException) -> str:
    """The traceback of an exception, from the first frame of the user's on; as it is where there is none."""
    frames = _users_frames(error)
    if frames is None and not _has_place(error):
        frames = traceback_of(error)
    return traceback_text(error, frames)


def is_ours(error: BaseException) -> bool:
    """Whether it was raised without any code of the user's."""
    return _users_frames(error) is None


def _users_frames(error: BaseException) -> TracebackType | None:
    frames = traceback_of(error)
    while frames is not None and _calls_the_user(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _has_place(error: BaseException) -> TypeGuard[SyntaxError]:
    """Whether it says itself where it is: a file that cannot be parsed has no frame."""
    return issubclass(type(error), SyntaxError) and getattr(error, "filename", None) is not None


def cause_of(error: BaseException) -> str:
    """An exception in one line, with the place of an error of syntax."""
    if _has_place(error):
        return f"{type(error).__name__}: {error.msg} in {error.filename}, line {error.lineno}"
    return reason_of(error).partition("\n")[0]


def format_import(frame: FrameType, outside: FrameType | None) -> str:
    """Where an import of the user's is: its frames without the machinery between them, from the outermost on.

    ``outside``: the frame that asked for it, which is none of the user's, nor are those that called it.
    """
    inside: list[tuple[FrameType, int]] = []
    at: FrameType | None = frame
    while at is not None and at is not outside:
        inside.append((at, at.f_lineno))
        at = at.f_back
    stack = [each for each in traceback.StackSummary.extract(reversed(inside)) if not _calls_the_user(each.filename)]
    if len(stack) > 2 * SHOWN_FRAMES:
        stack[SHOWN_FRAMES:-SHOWN_FRAMES] = []
    return "".join(traceback.format_list(stack)).rstrip("\n")


def shorten_stacks(text: str) -> str:
    """faulthandler's stacks, which tell the innermost call first, up to the runtime's call of the user's code."""
    return "\n\n".join(_shorten_stack(stack) for stack in text.split("\n\n"))


def _shorten_stack(stack: str) -> str:
    kept: list[str] = []
    frames = 0
    for line in stack.split("\n"):
        frame = _FRAME.match(line)
        if frame is not None:
            if frames and _calls_the_user(frame[1]):
                return "\n".join([*kept, "  (called by pythia_fast)"])
            frames += 1
        kept.append(line)
    return stack


def place_of(text: str) -> tuple[str, ...]:
    """What is the same in two crashes at one place: the first line and the frames of the thread that crashed."""
    first, _, rest = text.partition("\n")
    crashed = rest[max(0, rest.find("Current thread")) :].split("\n\n")[0]
    return (first, *(line for line in crashed.split("\n") if _FRAME.match(line)))

"""An exception as a sentence."""

from __future__ import annotations

import traceback


def reason_of(error: BaseException) -> str:
    """An exception as a sentence, lone surrogates spelled out. Not str(error): that runs the user's code, which may
    raise."""
    return "".join(traceback.format_exception_only(error)).strip().encode(errors="backslashreplace").decode()

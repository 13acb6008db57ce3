"""What a run does when another process asks it (control.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pythia_fast.errors import ConfigError
from pythia_fast.options import nearest

if TYPE_CHECKING:
    from pythia_fast.observer import Snapshot
    from pythia_fast.runtime.control import Request
    from pythia_fast.runtime.handler_run import HandlerRun

#: "wake" does nothing: with it the server ends its wait.
ORDERS = ("status", "pause", "resume", "wake")


class Orders:
    """Of one run; on the thread of the control server.

    Parameters:
        snapshot: the state of the run as last sampled.
    """

    def __init__(self, app: str, runs: Sequence[HandlerRun], snapshot: Callable[[], Snapshot]) -> None:
        self._app = app
        self._runs = {run.handler.name: run for run in runs}
        self._snapshot = snapshot

    def answer(self, request: Request) -> Any:
        """The result of a request: for "pause" and "resume" the names of the handlers that this is news for.

        Raises ConfigError.
        """
        if request.do not in ORDERS:
            raise ConfigError(f"a run cannot {request.do!r}{nearest(request.do, ORDERS)}")
        if request.do == "status":
            return {"app": self._app, "snapshot": msgspec.to_builtins(self._snapshot())}
        if request.do == "wake":
            return None
        names = request.handlers or list(self._runs)
        for name in names:
            if name not in self._runs:
                raise ConfigError(f"no handler {name!r} runs here{nearest(name, self._runs)}")
        paused = request.do == "pause"
        return [name for name in dict.fromkeys(names) if self._runs[name].pause_by_hand(paused)]

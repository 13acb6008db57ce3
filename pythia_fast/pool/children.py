"""What a fresh child of the nursery does first: find its handler and its arena, then serve."""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast._ext.ring import Arena
from pythia_fast.errors import ConfigError
from pythia_fast.pool.messages import ArenaShape
from pythia_fast.pool.process import serve

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler


class ForkedChildren:
    """Children of a nursery that was forked from the runtime: handlers and arenas are there already."""

    def __init__(self, pools: Sequence[tuple[Handler, Arena]]) -> None:
        self._pools = pools

    def main(self, pool: int, seat: int, recycles: Callable[[str], None]) -> str:
        handler, arena = self._pools[pool]
        return serve(handler, arena, seat, recycles)


class ImportedChildren:
    """Children of a nursery that is a new interpreter: it, or each of them, imports the app."""

    def __init__(self, target: Sequence[str], shapes: Sequence[ArenaShape]) -> None:
        self._target = target
        self._shapes = shapes
        self._pools: list[tuple[Handler, Arena]] | None = None

    def load(self) -> list[tuple[Handler, Arena]]:
        """Import the app and map the arenas, once."""
        if self._pools is None:
            app = _find_app(self._target)
            self._pools = []
            for shape in self._shapes:
                handler = app.handler(shape.handler)
                arena = Arena(
                    handler.decoding.plan,
                    capacity=shape.capacity,
                    raw_bytes=shape.raw_bytes,
                    n_workers=shape.n_workers,
                    credit=shape.credit,
                    n_slots=shape.n_slots,
                    output_bytes=shape.output_bytes,
                    n_spares=shape.n_spares,
                    fd=shape.fd,
                )
                self._pools.append((handler, arena))
        return self._pools

    def main(self, pool: int, seat: int, recycles: Callable[[str], None]) -> str:
        handler, arena = self.load()[pool]
        return serve(handler, arena, seat, recycles)


def _find_app(target: Sequence[str]) -> App:
    from pythia_fast.app import App

    kind, place, attribute = target
    if kind == "module":
        found = getattr(importlib.import_module(place), attribute, None)
    else:
        # As multiprocessing does for a script: not under the name __main__, so that its guard holds.
        found = runpy.run_path(place, run_name="__pythia_main__").get(attribute)
    if not isinstance(found, App):
        raise ConfigError(f"{place} has no App named {attribute!r} when it is imported anew")
    return found

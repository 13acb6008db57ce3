"""What a fresh child of the nursery does first: find its handler and its arena, then serve."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pythia_fast import pool as package
from pythia_fast._ext.ring import Arena
from pythia_fast.pool.identity import AppChangedError, AppIdentity
from pythia_fast.pool.main_guard import made_under_guard
from pythia_fast.pool.messages import ArenaShape
from pythia_fast.pool.process import serve
from pythia_fast.pool.script_module import import_script

if TYPE_CHECKING:
    from pythia_fast.app import App
    from pythia_fast.registration import Handler


class ForkedChildren:
    """Children of a nursery that was forked from the runtime: handlers and arenas are there already."""

    def __init__(self, pools: Sequence[tuple[Handler, Arena]]) -> None:
        self._pools = pools
        for handler, _ in pools:
            handler.decoding.load()  # once, before any child is forked, and not by each of them at its first batch

    def main(self, pool: int, seat: int, recycles: Callable[[str], None]) -> str:
        handler, arena = self._pools[pool]
        package.serving = True
        return serve(handler, arena, seat, recycles)


class ImportedChildren:
    """Children of a nursery that is a new interpreter: it, or each of them, imports the app."""

    def __init__(self, target: Sequence[str], identity: AppIdentity, shapes: Sequence[ArenaShape]) -> None:
        self._target = target
        self._identity = identity
        self._shapes = shapes
        self._pools: list[tuple[Handler, Arena]] | None = None

    def load(self) -> list[tuple[Handler, Arena]]:
        """Import the app and map the arenas, once. Raises AppChangedError where it is not the app that runs."""
        if self._pools is None:
            handlers = self._import()
            self._pools = []
            for handler, shape in zip(handlers, self._shapes, strict=True):
                handler.decoding.load()  # here too
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

    def _import(self) -> list[Handler]:
        """The handlers of the app as its file has them now, which are those that run."""
        place, found = _import_anew(self._target)
        try:
            app = self._app_of(found)
            handlers = []
            for shape in self._shapes:
                handler = app.handlers.get(shape.handler.name)
                if handler is None:
                    raise AppChangedError(f"there is no handler {shape.handler.name!r}")
                shape.handler.check(handler)
                handlers.append(handler)
        except AppChangedError as error:
            if made_under_guard(place, self._target[2]):
                raise AppChangedError(
                    f"{place} is imported anew by each process of the pool. That runs nothing of what stands under "
                    f'`if __name__ == "__main__":`, where the App {self._target[2]!r} or its handlers are made. Make '
                    "them at module level, and have only run() under it"
                ) from None
            raise AppChangedError(
                f"{place} is imported anew by each process of the pool, and has not the app that this run began with: "
                f"{error}. If the file was changed meanwhile, start the run again: what is not committed is read again."
                " If it was not, the App or its handlers are made by what the import does not call, such as a main() "
                'under `if __name__ == "__main__":`: make them at module level'
            ) from None
        return handlers

    def _app_of(self, found: object) -> App:
        from pythia_fast.app import App

        if not isinstance(found, App):
            raise AppChangedError(f"no App is named {self._target[2]!r} there")
        self._identity.check(found)
        return found

    def main(self, pool: int, seat: int, recycles: Callable[[str], None]) -> str:
        handler, arena = self.load()[pool]
        package.serving = True
        return serve(handler, arena, seat, recycles)


def _import_anew(target: Sequence[str]) -> tuple[str, object]:
    """The file, and what is bound to the app's name in it."""
    kind, place, attribute = target
    if kind == "module":
        module = importlib.import_module(place)
        return getattr(module, "__file__", None) or place, getattr(module, attribute, None)
    return place, getattr(import_script(place), attribute, None)

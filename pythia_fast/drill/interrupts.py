"""Signals while a drill goes on: they end it, but not while it makes or removes what would outlive it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Has the first of these signals raise KeyboardInterrupt where it is let through, and no other one.

    Whoever is about to clean up cannot close the door in time if signals come through it again and again. So it is
    closed from the beginning and opened for what may be cut short; and once one has come through, it stays closed.
    """

    def __init__(self) -> None:
        self._open = False
        self._came = False
        self._raised = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals inside the ``with``; one that was held back is raised behind it, unless an exception is.

        Outside the main thread, and where they are ignored (``nohup``), nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in STOPS}
        chosen = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in chosen:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number in chosen:
                signal.signal(number, before[number])
        self._raise_what_came()

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """What is done inside may be cut short."""
        self._open = True
        try:
            self._raise_what_came()
            yield
        finally:
            self._open = False

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """What is done inside, within ``let_through()``, is done to its end; one that comes meanwhile is raised
        behind it, unless an exception is."""
        self._open = False
        try:
            yield
        finally:
            self._open = True
        self._raise_what_came()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        if self._open:
            self._raise_what_came()

    def _raise_what_came(self) -> None:
        if self._came and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

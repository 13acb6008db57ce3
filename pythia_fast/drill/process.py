"""The drill's handle on the process that runs the app."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from pythia_fast.drill.settings import (
    ENVIRONMENT,
    Acted,
    Finished,
    Sampled,
    Settings,
    Told,
    Word,
    write_settings,
)
from pythia_fast.errors import PythiaError
from pythia_fast.interpreters import module_environment
from pythia_fast.private import private_opener
from pythia_fast.report import RunReport
from pythia_fast.unreadable import UNREADABLE

LOOK_EVERY_S = 0.02
GONE_S = 10.0
LEAVE_S = 5.0


class RunProcess:
    """One run of the app, in a session of its own: a Ctrl-C is for the drill."""

    def __init__(self, settings: Settings, folder: Path, name: str) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.samples: list[Sampled] = []
        self.acts: list[Acted] = []
        self.told: list[Told] = []
        self.report: RunReport | None = None
        self.began = time.monotonic()
        settings_path = folder / f"{name}-settings.json"
        write_settings(settings, settings_path)
        environment = {**module_environment(), ENVIRONMENT: str(settings_path)}
        read_fd, write_fd = os.pipe()
        self._reader = threading.Thread(target=self._read, args=(read_fd,), name=f"reads {name}", daemon=True)
        try:
            self._reader.start()  # before the process, which nobody would end were there no thread to be had
            with open(self.log_path, "wb", opener=private_opener) as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "pythia_fast.drill.child", str(write_fd)],
                    env=environment,
                    pass_fds=[write_fd],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise PythiaError(f"{name}: no process can be started for it: {error}") from None
        finally:
            os.close(write_fd)

    def _read(self, fd: int) -> None:
        decode = msgspec.json.Decoder(Word).decode
        with open(fd, "rb") as lines:
            for line in lines:
                with contextlib.suppress(*UNREADABLE):  # half a line of a process that was killed
                    self._hear(decode(line))

    def _hear(self, word: Word) -> None:
        match word:
            case Sampled():
                self.samples.append(word)
            case Acted():
                self.acts.append(word)
            case Told():
                self.told.append(word)
            case Finished():
                self.report = word.report

    @property
    def rows(self) -> int:
        """Settled so far, as far as it has told."""
        return self.samples[-1].rows if self.samples else 0

    @property
    def trouble(self) -> list[str]:
        """What it waits for, as far as it has told."""
        return self.samples[-1].trouble if self.samples else []

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr."""
        return self.log_path.read_text(errors="replace")

    def wait_until(self, done: Callable[[], bool], seconds: float, tick: Callable[[], None]) -> bool:
        """Wait for something, the end of the process, or so many seconds without a row; whether it is done."""
        rows, since = self.rows, time.monotonic()
        while not done():
            if self.ended:
                self._reader.join(GONE_S)
                return done()
            if self.rows != rows:
                rows, since = self.rows, time.monotonic()
            if time.monotonic() - since > seconds:
                return False
            tick()
            time.sleep(LOOK_EVERY_S)
        return True

    def wait(self, seconds: float, tick: Callable[[], None]) -> int:
        """Wait for its end; its exit code. Raises PythiaError when no row was settled for so many seconds."""
        if not self.wait_until(lambda: self.ended, seconds, tick):
            raise PythiaError(
                f"{self.name}: no row was settled for {seconds:g} seconds, with {self.rows:,} settled before"
                f"{''.join(f'; it waits: {sentence}' for sentence in self.trouble)}; see {self.log_path}"
            )
        self._reader.join(GONE_S)
        return self.process.returncode

    def stop(self) -> None:
        """Ask it to drain, as an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the runtime process alone."""
        self.process.kill()
        self.process.wait()
        self._reader.join(GONE_S)

    def left_behind(self) -> list[int]:
        """Processes of the run that are still there after it, some seconds having been given to them."""
        deadline = time.monotonic() + GONE_S
        while (found := self._members()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        return found

    def _members(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        """End it and all that it started, however it stands; it gets a moment to leave its group."""
        if not self.ended:
            self.stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVE_S)
        for pid in self._members():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(GONE_S)

"""The spool: oversize payloads on their way to the dead letters, in a folder of this run and handler alone.

    STATE_DIR/spool.lock            held while a folder is made, taken away or looked over
    STATE_DIR/spool/score-4711-x/   one handler of one run (its pid is for people; pids are reused)
                    owner.lock      locked as long as that run lives: the kernel lets go of it, however the run ends
                    oversize-3-0    a payload (ext/intake.h writes it, runtime/slots.py reads and removes it)

The positions of what lies there are not committed, so the next run reads those messages again: a folder whose owner is
dead holds nothing that anybody needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pythia_fast.errors import ConfigError
from pythia_fast.private import PRIVATE_FOLDER_MODE
from pythia_fast.runtime.stalls import Pace

OWNER = "owner.lock"
LASTS_S = 3.0  #: after a failure, within which it is tried again, and so would be met again
OVER_S = 10.0  #: without a failure, after which the next one is a trouble of its own


class Spool:
    """The folder of one handler of this run; made when opened, with those of dead runs taken away."""

    def __init__(self, state_dir: Path, handler: str, log: Callable[[str], None]) -> None:
        """Raises ConfigError where no folder can be made."""
        self._root = state_dir / "spool"
        self._lock = state_dir / "spool.lock"
        try:
            self._root.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
            with _locked(self._lock):
                for folder in self._root.iterdir():
                    if folder.is_dir() and not folder.is_symlink():
                        _remove_if_dead(folder, log)
                self.folder = Path(tempfile.mkdtemp(prefix=f"{handler}-{os.getpid()}-", dir=self._root))
                self._owner = os.open(self.folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            place = error.filename if error.filename is not None else self._root
            raise ConfigError(
                f"cannot keep oversize payloads in {place}: {error.strerror}; choose another folder with --state-dir "
                "(state_dir= of App.run)"
            ) from None

    def close(self) -> None:
        """Take the folder away. What cannot be removed now is left to the next run."""
        with contextlib.suppress(OSError), _locked(self._lock):
            _remove(self.folder)
        os.close(self._owner)


class SpoolTrouble:
    """What keeps payloads from being written: told at once, and at growing intervals while it lasts, as a stall is.

    Pure: the caller tells the time.
    """

    def __init__(self) -> None:
        self._since_s = self._met_s = float("-inf")
        self._pace = Pace(OVER_S)

    def met(self, now_s: float) -> str:
        """A payload could not be written: what is to be told besides that, empty if nothing is."""
        fresh = now_s - self._met_s > OVER_S
        self._met_s = now_s
        if fresh:
            self._since_s, self._pace = now_s, Pace(OVER_S)
            return "trying again"
        lasted_s = now_s - self._since_s
        return f"still trying after {lasted_s:.0f} s" if self._pace.due(now_s, lasted_s) else ""

    def lasts(self, now_s: float) -> bool:
        """Whether a payload waits to be written, as far as the time since the last failure tells. Any thread."""
        return now_s - self._met_s <= LASTS_S


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all runs with this state folder, for the moment that it takes to list, make or remove folders."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_if_dead(folder: Path, log: Callable[[str], None]) -> None:
    """Under the lock of all runs, so a folder without an owner's lock is none that is just being made."""
    try:
        fd = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        finally:
            os.close(fd)
    except BlockingIOError:  # its run lives
        return
    except OSError as error:
        log(f"cannot remove {folder}, which a run that was killed left behind: {error.strerror}")


def _remove(folder: Path) -> None:
    """Only what is ours: a file that somebody else put there keeps its folder."""
    for path in folder.glob("oversize-*"):
        path.unlink()
    (folder / OWNER).unlink()
    folder.rmdir()

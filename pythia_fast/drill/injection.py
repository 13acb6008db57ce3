"""In a pool process: the handler as registered, with the fault around it.

Which batches meet the fault is agreed on by files, because the processes that meet it die:

    claim-N    made by the process whose batch is the N-th to meet it once
    poison     the row that meets it always, once all claims are taken
    hits       a line for every time that somebody met it, written just before, and for every recovery
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pythia_fast.batch import Batch
from pythia_fast.drill.faults import Fault
from pythia_fast.drill.growing_file import GrowingFile
from pythia_fast.drill.ledger import Keys, keys_of
from pythia_fast.drill.receipts import with_receipts
from pythia_fast.handlers import Adapter, HandlerCall
from pythia_fast.private import PRIVATE_MODE, private_opener

POISON, HITS = "poison", "hits"
MEMORY_STEP = 16 << 20
MEMORY_STEPS = 16
CALLS_BEFORE = 2


class DrillError(Exception):
    """What the handler raises in ``drill raise``."""


class Hit(msgspec.Struct, frozen=True, tag=True):
    """A call of the handler met the fault."""

    number: int  #: of the claim; -1: by the poisonous row
    t: float
    keys: list[int]  #: rows in hand


class Recovery(msgspec.Struct, frozen=True, tag=True):
    """The first call after a hit came back that had one of its rows."""

    number: int
    t: float


Note = Hit | Recovery
_DECODER: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)


@dataclass(frozen=True, slots=True)
class Injection:
    """What a wrapped handler is told."""

    fault: Fault | None  #: None: only receipts
    folder: Path
    batch_deadline: float
    any_rows: bool  #: output_rows of the handler is "any"
    decoder: str  #: name of the handler's
    calls_before: int  #: of a process, before one of its calls may meet the fault


@dataclass(frozen=True, slots=True)
class DrilledAdapter(Adapter):
    """An adapter whose call meets the fault."""

    injection: Injection

    def build(self) -> HandlerCall:
        return DrilledCall(Adapter(self.function, self.view, self.convert, self.schema).build(), self.injection)


class DrilledCall(HandlerCall):
    """The handler in one pool process, with the fault around it."""

    def __init__(self, inner: HandlerCall, injection: Injection) -> None:
        self._inner = inner
        self._injection = injection
        self._fault = injection.fault if injection.fault is not None and injection.fault.place == "handler" else None
        self._calls = 0
        self._poison: int | None = None
        self._notes = GrowingFile(injection.folder / HITS)
        self._hits: dict[int, Hit] = {}  #: by number; the last one of the poisonous row
        self._unrecovered: dict[int, Hit] = {}  #: a batch may wait for its backoff while others meet the fault

    def setup(self) -> None:
        self._inner.setup()

    def teardown(self) -> None:
        self._inner.teardown()

    def __call__(self, batch: Batch[Any]) -> Any:
        positions = batch.positions
        keys = keys_of(positions["partition"], positions["offset"])
        number = None if self._fault is None else self._meets(keys)
        self._calls += 1
        if number is not None and number % 2 == 0:
            self._fail(number, keys)
        injection = self._injection
        result = with_receipts(self._inner(batch), keys, any_rows=injection.any_rows, decoder=injection.decoder)
        if number is not None:  # every other time the handler has done its work already
            self._fail(number, keys)
        if self._fault is not None:
            self._recovered(keys)
        return result

    # -- who meets it ----------------------------------------------------------------------------

    def _meets(self, keys: Keys) -> int | None:
        """The number of the claim if this call is to meet the fault, an even negative one for the poisonous row."""
        if self._poison is None:
            with contextlib.suppress(FileNotFoundError):
                self._poison = int((self._injection.folder / POISON).read_text())
        if self._poison is not None:
            return -2 if bool((keys == self._poison).any()) else None
        self._read_notes()
        if self._calls < self._injection.calls_before or any(self._touches(hit, keys) for hit in self._hits.values()):
            return None  # rows that met it once are let pass
        assert self._fault is not None
        if self._fault.name == "raise" and len(keys) == 1:
            return None  # a row that raises alone is the guilty one, and rightly dead-lettered
        for number in range(self._fault.once):
            if make_new(self._injection.folder / f"claim-{number}", b""):
                return number
        make_new(self._injection.folder / POISON, b"%d" % keys[len(keys) // 2])
        return self._meets(keys)

    def _read_notes(self) -> None:
        """Learn what all processes have noted since."""
        for note in map(_DECODER.decode, self._notes.new_lines()):
            if isinstance(note, Recovery):
                self._unrecovered.pop(note.number, None)
                continue
            self._hits[note.number] = note
            if note.number >= 0:
                self._unrecovered[note.number] = note

    @staticmethod
    def _touches(hit: Hit, keys: Keys) -> bool:
        return bool(np.isin(keys, hit.keys).any())

    # -- the fault -------------------------------------------------------------------------------

    def _fail(self, number: int, keys: Keys) -> None:
        assert self._fault is not None
        number = max(number, -1)
        self._note(Hit(number, time.monotonic(), keys.tolist()))
        match self._fault.name:
            case "sigsegv":
                ctypes.string_at(0)
            case "kill":
                kill_own_process()
            case "hang":
                time.sleep(self._injection.batch_deadline + 60)
            case "oom":
                run_out_of_memory(by_kernel=number == 1)
            case _:
                raise DrillError(f"drill: {len(keys):,} rows are not to be handled")

    def _recovered(self, keys: Keys) -> None:
        """This call came back; note it for each that did not and had one of its rows, in whatever process that was."""
        self._read_notes()
        now = time.monotonic()
        for hit in list(self._unrecovered.values()):
            if self._touches(hit, keys):
                self._note(Recovery(hit.number, now))

    def _note(self, note: Note) -> None:
        fd = os.open(self._injection.folder / HITS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_MODE)
        try:
            os.write(fd, msgspec.json.encode(note) + b"\n")  # one write: whole, whoever else writes
        finally:
            os.close(fd)


def calls_before(max_batches: int | None) -> int:
    """Calls before one that may meet the fault, for processes that leave after so many batches."""
    return CALLS_BEFORE if max_batches is None else min(CALLS_BEFORE, max_batches - 1)


def read_notes(folder: Path) -> list[Note]:
    """What was noted so far."""
    return [_DECODER.decode(line) for line in GrowingFile(folder / HITS).new_lines()]


def make_new(path: Path, content: bytes) -> bool:
    """Make the file, whole from the beginning; False: another process was first."""
    fresh = path.with_name(f"{path.name}-{os.getpid()}")
    with open(fresh, "wb", opener=private_opener) as file:
        file.write(content)
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    finally:
        fresh.unlink()
    return True


def kill_own_process() -> None:
    """SIGKILL to this process alone."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # a signal to oneself may come a moment later


def run_out_of_memory(*, by_kernel: bool) -> None:
    """Take memory until there is none, which raises MemoryError; or until the kernel would kill, and be killed."""
    if not by_kernel:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            limit = pages * resource.getpagesize() + MEMORY_STEP * MEMORY_STEPS // 2
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    held = [bytearray(MEMORY_STEP) for _ in range(MEMORY_STEPS)]
    kill_own_process()
    held.clear()

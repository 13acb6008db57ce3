"""Versions, cores, memory and descriptors, against what the handlers of an app need."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast.brokers.checkup import Finding, note, ok, problem, warning
from pythia_fast.machine import available_cores, memory_limit_bytes
from pythia_fast.runtime.slot_plan import CHOICES, SHARE_OF_MEMORY, SlotPlan, plan_slots, slot_bytes

if TYPE_CHECKING:
    from pythia_fast.registration import Handler

CLIENTS = ("confluent-kafka", "pika", "redis", "msgspec", "numpy")
SHM = "/dev/shm"
#: Descriptors besides those that grow with the pool: standard ones, sockets of clients, epoll, log files.
BASE_DESCRIPTORS = 128
DESCRIPTORS_A_PROCESS = 8  #: pipes to the nursery, the arena, a file for its last words


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use."""

    cores: int
    memory_bytes: int
    open_files: int
    most_open_files: int | None = None  #: as far as a run raises that for files that it follows

    @classmethod
    def here(cls) -> Machine:
        return cls(available_cores(), memory_limit_bytes(), *resource.getrlimit(resource.RLIMIT_NOFILE))


def versions() -> Mapping[str, str]:
    """Of Python, this package, the client libraries, and librdkafka."""
    import pythia_fast

    found = {"pythia_fast": pythia_fast.__version__, "Python": platform.python_version()}
    for name in CLIENTS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        import confluent_kafka

        found["librdkafka"] = str(confluent_kafka.libversion()[0])
    except ImportError as error:
        found["librdkafka"] = f"not usable: {error}"
    return found


def version_findings(found: Mapping[str, str]) -> Iterator[Finding]:
    """One line of all versions, and those that do not work."""
    yield ok(", ".join(f"{name} {version}" for name, version in found.items()))
    for name, version in found.items():
        if version.startswith("not "):
            yield problem(f"{name} is {version}", "pip install it into this environment")


def plan_of(handler: Handler, workers: int, handlers: int, machine: Machine) -> SlotPlan:
    """The arena that a run would make."""
    return plan_slots(
        workers,
        slot_bytes(handler.batch_size, handler.max_batch_bytes, len(handler.decoding.schema.columns)),
        waits=handler.parks,
        memory_bytes=_arena_bytes(handlers, machine),
        holds=handler.transactions is not None,
    )


def _arena_bytes(handlers: int, machine: Machine) -> int:
    return int(machine.memory_bytes * SHARE_OF_MEMORY) // max(1, handlers)


def machine_findings(handlers: Sequence[Handler], shares: Sequence[int], machine: Machine) -> Iterator[Finding]:
    """``shares``: pool processes of each handler."""
    workers = sum(shares)
    if workers > machine.cores:
        yield note(
            f"{workers} processes for the {machine.cores} cores that this process may use: they take turns",
            f"--workers {max(machine.cores, len(handlers))}, unless handlers wait for something else",
        )
    else:
        yield ok(f"{workers} processes, {machine.cores} cores that this process may use")
    yield from _busy_polls(handlers, shares, machine)
    for handler, share in zip(handlers, shares, strict=True):
        yield from _arena(handler, share, len(handlers), machine)
    yield from _shared_memory()
    yield from _descriptors(handlers, workers, machine)


def _busy_polls(handlers: Sequence[Handler], shares: Sequence[int], machine: Machine) -> Iterator[Finding]:
    """The runtime's own threads need a core besides those of processes that do not sleep."""
    polling = sum(share for handler, share in zip(handlers, shares, strict=True) if handler.busy_poll)
    if polling >= machine.cores:
        yield warning(
            f"{polling} processes with busy_poll= hold the {machine.cores} cores that this process may use while they "
            "wait, and the runtime that is to give them batches waits for a core",
            f"leave busy_poll out, or --workers {max(1, machine.cores - 1)}",
        )


def _arena(handler: Handler, workers: int, handlers: int, machine: Machine) -> Iterator[Finding]:
    plan, bearable = plan_of(handler, workers, handlers, machine), _arena_bytes(handlers, machine)
    what = f"handler {handler.name!r}: {plan.slots} batches take up to {plan.bytes // 10**6:,} MB of shared memory"
    if plan.bytes > bearable:
        yield warning(
            f"{what} when they are full, and {bearable // 10**6:,} MB are meant for it, half of what this machine or "
            "container has",
            "lower batch_size, max_batch_bytes or workers",
        )
    elif plan.credit < CHOICES[0][0]:
        yield note(
            f"{what}; a process has {plan.credit} batches in hand in place of {CHOICES[0][0]}, because memory is short",
            "give the container more memory, or lower batch_size or max_batch_bytes",
        )
    else:
        yield ok(f"{what}, of {machine.memory_bytes // 10**6:,} MB that there are")


def _shared_memory() -> Iterator[Finding]:
    """On Linux the arena is an anonymous file (memfd_create); elsewhere it has a name in /dev/shm or the like."""
    if hasattr(os, "memfd_create"):
        try:
            os.close(os.memfd_create("pythia-fast-doctor", os.MFD_CLOEXEC))
        except OSError as error:
            yield problem(
                f"no shared memory can be made: memfd_create: {error.strerror}", "allow memfd_create in the sandbox"
            )
        else:
            yield ok("shared memory is an anonymous file (memfd); the size of /dev/shm does not matter")
    else:
        yield ok("shared memory is a file without a name")


def _descriptors(handlers: Sequence[Handler], workers: int, machine: Machine) -> Iterator[Finding]:
    spares = sum(handler.spares for handler in handlers)
    kept_open = sum(len(handler.source.files()) for handler in handlers if getattr(handler.source, "follow", False))
    base = BASE_DESCRIPTORS + DESCRIPTORS_A_PROCESS * (workers + spares)
    needed, limit = base + kept_open, machine.open_files
    if _is_within(base, limit) and not _is_within(needed, limit) and machine.most_open_files is not None:
        limit = machine.most_open_files
    if _is_within(needed, limit):
        yield ok(f"a run needs about {needed:,} open files; the limit is {_limit(limit)}")
    else:
        yield problem(
            f"a run needs about {needed:,} open files, and the limit is {limit:,}",
            f"ulimit -n {needed * 2}, or LimitNOFILE= of the service",
        )


def _is_within(number: int, limit: int) -> bool:
    return limit == resource.RLIM_INFINITY or number <= limit


def _limit(number: int) -> str:
    return "none" if number == resource.RLIM_INFINITY else f"{number:,}"

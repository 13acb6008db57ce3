"""CPU time and memory of the processes of a run.

Resident memory counts a shared page in every process that maps it. The tree's own footprint is therefore
the sum of proportional set sizes (Linux: Pss of /proc/PID/smaps_rollup, proc(5)), which counts the arena
once; where the system does not tell it, the sum of resident sizes stands in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from pythia_fast.observer import ProcessSample


def _proportional_bytes(pid: int) -> int | None:
    """Pss of a process, or None where it cannot be read."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def tree_memory_mb(pids: Iterable[int]) -> float:
    """Memory of these processes together, a shared page counted once; units of 10**6 bytes."""
    total = 0
    for pid in pids:
        size = _proportional_bytes(pid)
        if size is None:
            try:
                size = psutil.Process(pid).memory_info().rss
            except (psutil.Error, OSError):
                size = 0
        total += size
    return total / 1e6


class ProcessSampler:
    """Samples a changing set of processes and keeps their totals, also of those that ended."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._cpu: dict[int, float] = {}
        self._base: dict[int, float] = {}
        self._sampled_at: dict[int, float] = {}
        self._ended_cpu = 0.0
        self.peak_rss_mb = 0.0

    @property
    def cpu_seconds(self) -> float:
        """User + system time spent by all processes ever sampled, since each was first seen."""
        return self._ended_cpu + sum(self._cpu[pid] - self._base[pid] for pid in self._cpu)

    def sample(self, processes: Iterable[tuple[str, int]], *, whole: bool = True) -> list[ProcessSample]:
        """Look at these (name, pid) pairs now; those that are gone are left out.

        The CPU time of a process counts from its first sample (a pool process is young then; the runtime's
        own start-up is not the run's). ``whole`` also measures the memory of the tree for ``peak_rss_mb``,
        which walks page tables: some 0.1 ms per 100 MB mapped.
        """
        samples = []
        seen = set()
        for name, pid in processes:
            sample = self._look(name, pid)
            if sample is not None:
                samples.append(sample)
                seen.add(pid)
        for pid in set(self._cpu) - seen:
            self._ended_cpu += self._cpu.pop(pid) - self._base.pop(pid)
            del self._sampled_at[pid]
            self._known.pop(pid, None)
        if whole:
            self.peak_rss_mb = max(self.peak_rss_mb, tree_memory_mb(seen))
        return samples

    def had(self, largest_mb: float) -> None:
        """One of the processes, which has ended, had so much resident memory at once, as the kernel counted: then the
        tree had no less."""
        self.peak_rss_mb = max(self.peak_rss_mb, largest_mb)

    def _look(self, name: str, pid: int) -> ProcessSample | None:
        try:
            process = self._known.get(pid)
            if process is None:
                process = self._known[pid] = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                resident = process.memory_info().rss
                if process.status() == psutil.STATUS_ZOMBIE:
                    return None
        except (psutil.Error, OSError):  # OSError: this process has no descriptor left to look with
            return None
        now = time.monotonic()
        cpu = times.user + times.system
        before, then = self._cpu.get(pid, cpu), self._sampled_at.get(pid, now)
        self._base.setdefault(pid, cpu)
        self._cpu[pid], self._sampled_at[pid] = cpu, now
        percent = (cpu - before) / (now - then) * 100 if now > then else 0.0
        return ProcessSample(name, pid, percent, resident / 1e6)

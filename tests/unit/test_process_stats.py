"""pythia_fast.process_stats: samples of real processes."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pythia_fast.process_stats import ProcessSampler, tree_memory_mb

BUSY = "import sys\nsum(i * i for i in range(3_000_000))\nprint('ready', flush=True)\nsys.stdin.read()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_cpu_time_is_counted_also_after_the_end(child: subprocess.Popen[str]) -> None:
    sampler = ProcessSampler()
    assert [s.name for s in sampler.sample([("worker 0", child.pid)])] == ["worker 0"]
    assert child.stdout is not None
    child.stdout.readline()
    (sample,) = sampler.sample([("worker 0", child.pid)])
    assert sample.cpu_percent > 0
    spent = sampler.cpu_seconds
    assert spent > 0.02
    child.kill()
    child.communicate()
    assert sampler.sample([("worker 0", child.pid)]) == []
    assert sampler.cpu_seconds == pytest.approx(spent)


def test_a_process_that_is_not_there_is_left_out(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()
    sampler = ProcessSampler()
    names = [s.name for s in sampler.sample([("gone", child.pid), ("me", os.getpid())])]
    assert names == ["me"]


def test_peak_is_kept() -> None:
    sampler = ProcessSampler()
    before = tree_memory_mb([os.getpid()])
    with mmap.mmap(-1, 64 << 20) as block:
        for at in range(0, len(block), 4096):
            block[at] = 1
        sampler.sample([("me", os.getpid())])
        high = sampler.peak_rss_mb
    assert high >= before + 50
    sampler.sample([("me", os.getpid())])
    assert sampler.peak_rss_mb == high


def test_what_one_process_had_that_has_ended_counts_where_it_is_more() -> None:
    sampler = ProcessSampler()
    sampler.sample([("me", os.getpid())])
    high = sampler.peak_rss_mb
    sampler.had(high / 2)
    assert sampler.peak_rss_mb == high
    sampler.had(high + 100)
    assert sampler.peak_rss_mb == high + 100

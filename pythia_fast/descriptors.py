"""Descriptors for files that are kept open: how many more there may be, and the limit raised where it may be."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

#: Left for what a run opens besides: sockets, the checkpoint that it writes, the folders that it lists.
SPARE_DESCRIPTORS = 64


def room_for_files(count: int) -> int:
    """How many of ``count`` files more can be kept open. The soft limit is raised as far as they need and it may be."""
    try:
        taken = len(os.listdir("/dev/fd")) + SPARE_DESCRIPTORS
    except OSError:  # none is left to list them with
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (resource.RLIM_INFINITY, hard) and taken + count > soft:
        wanted = 2 * (taken + count)  # so that files which come later are no reason to raise it for each
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return count if soft == resource.RLIM_INFINITY else max(0, min(count, soft - taken))


def how_to_raise(files: int) -> str:
    """The limit in force, and what to do so that a run may keep so many files open: half a sentence."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"the limit is {limit:,}: ulimit -n {2 * (files + SPARE_DESCRIPTORS)}, or LimitNOFILE= of the service"

"""Files before a run: are they there, may they be read or written, is there room, does somebody else have them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_fast.brokers.checkpoint import (
    Identity,
    checkpoint_path,
    identity_of,
    lock_path,
    stored_positions,
)
from pythia_fast.brokers.checkup import CheckupContext, Finding, Findings, note, ok, problem, warning
from pythia_fast.brokers.known_files import KnownFiles, known_position
from pythia_fast.brokers.named_files import STDIN, is_stream, open_regular
from pythia_fast.errors import SourceError

if TYPE_CHECKING:
    from pythia_fast.brokers.file import FileConsumer
    from pythia_fast.brokers.file_sink import FileProducer

MOST_FILES = 10_000  #: that are looked into
LITTLE_ROOM_BYTES = 1 << 30
LOCKS = Path("/proc/locks")


def check_consumer(consumer: FileConsumer, context: CheckupContext) -> Findings:
    """The files, and the positions of the group."""
    if consumer.paths == [STDIN] or any(is_stream(path) for path in consumer.paths):
        what = "standard input" if consumer.paths == [STDIN] else f"the pipe {consumer.paths[0]}"
        yield note(f"{what} is read once and cannot go back: rows in hand are lost when the run is killed")
        return
    files = consumer.files()
    if not files:
        yield problem(f"no file matches {', '.join(consumer.paths)}", "give a path that there is, or make the file")
        return
    known = KnownFiles([])
    if consumer.start == "checkpoint":
        group = consumer.group(context.app, context.handler)
        try:
            path = checkpoint_path(context.state_dir, group)
            if (pid := holder_of(lock_path(path))) is not None:
                yield problem(
                    f"consumer group {group!r} is being read by process {pid} already",
                    "stop that run, or give this one another consumer_group or --state-dir",
                )
            known = KnownFiles(stored_positions(path))
        except SourceError as error:
            yield problem(str(error), "see there")
            return
    else:
        yield note(f"start={consumer.start!r} forgets the checkpoint: every run begins there")
    yield from _readable(files, known)


def _readable(files: Sequence[str], known: KnownFiles) -> Findings:
    size = unread = 0
    for path in files[:MOST_FILES]:
        try:
            fd = open_regular(path)
        except SourceError as error:
            yield problem(str(error), "give this user the right to read it, or another path")
            continue
        try:
            bytes_there = os.fstat(fd).st_size
            size += bytes_there
            unread += bytes_there - (known_position(path, fd, known) or 0)
        except SourceError as error:
            yield problem(str(error), "see there")
        finally:
            os.close(fd)
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    yield ok(f"{count}, {size:,} bytes, of which {unread:,} are not read yet")


def check_producer(producer: FileProducer, context: CheckupContext) -> Findings:
    """The file or the place for it, and the room there."""
    path = Path(producer.path)
    if path.exists():
        if not path.is_file():
            yield problem(f"{path} is not a plain file", "name another one")
            return
        if not os.access(path, os.R_OK | os.W_OK):
            yield problem(f"{path} may not be read and written by this user", "change its mode or owner")
            return
        if (pid := holder_of(path)) is not None:
            yield problem(f"{path} is being written by process {pid}", "give each run a file of its own")
        yield ok(f"{path} is there, with {path.stat().st_size:,} bytes, and can be written")
    yield from check_folder(path.parent, f"{path}")
    if producer.fsync == "never":
        yield note(
            'fsync="never": a record counts as written before it is on the disk, and a crash of the machine '
            "can lose it",
            'give fsync="batch" where that matters',
        )
    elif producer.fsync == "interval":
        yield note('fsync="interval": a crash of the machine can lose the records of the last second')


def check_folder(folder: Path, what: str) -> Iterator[Finding]:
    """Whether files can be made in a folder, which may itself have to be made, and how much room there is."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        yield problem(f"{what} cannot be written: {there} is not a folder", "choose another place")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield problem(f"{what} cannot be written: this user may not make files in {there}", "change its mode or owner")
        return
    try:
        room = shutil.disk_usage(there)
    except OSError as error:
        yield note(f"how much room there is in {there} cannot be asked: {error.strerror}")
        return
    free = f"{room.free // 10**6:,} MB are free for {what}"
    if room.free == 0:
        yield problem(f"the disk of {what} is full", "make room")
    elif room.free < LITTLE_ROOM_BYTES and room.free < room.total // 10:
        yield warning(free, "make room: a full disk holds the source back")
    else:
        yield ok(free)


def holder_of(path: Path, locks: Path = LOCKS) -> int | None:
    """The process that has the file locked (flock), as the kernel lists it: nothing is locked to find out.

    None: nobody, or it cannot be told. See proc_locks(5).
    """
    try:
        identity = identity_of(os.stat(path))
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if "FLOCK" in words and "->" not in words and len(words) >= 6 and _identity(words[5]) == identity:
            return int(words[4])
    return None


def _identity(words: str) -> Identity | None:
    """``08:01:1234``: major and minor number of the device in hexadecimal, inode."""
    major, minor, inode = words.split(":")
    try:
        return os.makedev(int(major, 16), int(minor, 16)), int(inode)
    except ValueError:
        return None

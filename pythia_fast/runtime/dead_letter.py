"""Where dead letters are kept: DeadLetterWriter makes them durable, read_dead_letters reads a file of them.

What one looks like, in a file and in any other sink, says dead_letter_form.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from pythia_fast.brokers.base import Delivery, Publisher, PublisherContext, Sink
from pythia_fast.brokers.file_sink import FileProducer, FilePublisher
from pythia_fast.brokers.framing import Place, decode_headers, frame_record, iterate_records
from pythia_fast.brokers.locked_file import FileLockedError
from pythia_fast.brokers.recording import begins_with_record
from pythia_fast.brokers.trouble_log import TroubleLog
from pythia_fast.errors import SinkError, SourceError
from pythia_fast.private import PRIVATE_MODE, make_private_folders
from pythia_fast.runtime.dead_letter_form import (
    DeadLetter,
    StoredLetter,
    broker_headers,
    check_stored,
    letter_of_record,
    stored_letter,
)
from pythia_fast.unreadable import UNREADABLE

FRAME_HEADER_BYTES = 4
FOLDER = "dead-letters"  #: of the state folder
MAX_FILES = 100  #: runs that may write dead letters of one handler into one state folder


def read_dead_letters(path: str | os.PathLike[str], size: int | None = None) -> Iterator[StoredLetter]:
    """Every dead letter of a file of JSON lines, MessagePack frames or records, within its first ``size`` bytes.

    By default those that it has when reading begins: what is appended meanwhile, perhaps because of what is read, is
    left out. ``.letter()`` gives the row byte for byte. Raises SourceError naming the record that is no dead letter.
    """
    for record in located_records(path, size):
        if record.stored is None:
            raise SourceError(f"{record.name} of {os.fspath(path)} is not a dead letter: {record.why}")
        yield record.stored


class LocatedRecord(NamedTuple):
    """A record of a file of dead letters."""

    stored: StoredLetter | None  #: None: it is no dead letter
    start: int  #: its first byte in the file
    end: int  #: the one after its last
    name: str  #: "line 7"
    why: str = ""  #: why it is no dead letter


def located_records(path: str | os.PathLike[str], size: int | None = None) -> Iterator[LocatedRecord]:
    """Every record of such a file, one that is no dead letter too."""
    form = form_of(path)
    read_letter = _READERS[form]
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size if size is None else size
        number = start = 0
        while start < size:
            number += 1
            record = file.readline() if form == "lines" else _read_frame(file)
            end = start + len(record) + (0 if form == "lines" else FRAME_HEADER_BYTES)
            stored, why = None, ""
            try:
                stored = read_letter(record)
            except (*UNREADABLE, ValueError) as error:
                why = str(error)
            yield LocatedRecord(stored, start, end, f"{'line' if form == 'lines' else 'record'} {number:,}", why)
            start = end


Form = Literal["lines", "frames", "records"]


def form_of(path: str | os.PathLike[str]) -> Form:
    """Whether a file of dead letters holds JSON lines, MessagePack frames, or messages whose headers say why.

    Frames are four bytes of size, then the head of a MessagePack map, which is no character of ASCII. The highest byte
    of a size is less than that of any text, whose fifth byte may belong to a character beyond ASCII.
    """
    if begins_with_record(Path(path)):
        return "records"
    with open(path, "rb") as file:
        head = file.read(FRAME_HEADER_BYTES + 1)
    is_framed = len(head) > FRAME_HEADER_BYTES and head[4] >= 0x80 and head[3] < ord(" ")
    return "frames" if is_framed else "lines"


def holds_dead_letters(path: str | os.PathLike[str]) -> bool:
    """Whether the file's first record has the fields of a dead letter and no others. Not where it is a message, which
    is one of the file's own, whatever its headers say."""
    form = form_of(path)
    if form == "records":
        return False
    with open(path, "rb") as file:
        record = _read_frame(file) if form == "frames" else file.readline()
    codec = msgspec.msgpack if form == "frames" else msgspec.json
    try:
        codec.decode(record, type=StoredLetter)
        return set(codec.decode(record)) <= set(StoredLetter.__struct_fields__)
    except UNREADABLE:
        return False


def _checked(decode: Callable[[bytes], StoredLetter]) -> Callable[[bytes], StoredLetter]:
    def read(record: bytes) -> StoredLetter:
        stored = decode(record)
        check_stored(stored)
        return stored

    return read


def _letter_in_headers(record: bytes) -> StoredLetter:
    (message,) = iterate_records(record)
    stored = letter_of_record(message.payload, message.key, decode_headers(message.headers))
    if stored is None:
        raise ValueError("its headers do not say why it is one (pf-*)")
    return stored


_READERS: dict[Form, Callable[[bytes], StoredLetter]] = {
    "lines": _checked(msgspec.json.Decoder(StoredLetter).decode),
    "frames": _checked(msgspec.msgpack.Decoder(StoredLetter).decode),
    "records": _letter_in_headers,
}


def _read_frame(file: BinaryIO) -> bytes:
    size = int.from_bytes(file.read(FRAME_HEADER_BYTES), "little")
    return file.read(size)


def default_files(state_dir: Path, handler: str) -> list[Path]:
    """Where dead letters of a handler may be in a state folder: the file of one run, those of others beside it."""
    name = quote(handler, safe=" @+=,")
    folder = state_dir / FOLDER
    return [folder / f"{name}.ndjson", *(folder / f"{name}-{number}.ndjson" for number in range(1, MAX_FILES))]


def place_of(letter: DeadLetter) -> Place:
    """Where its message came from, for a file of records."""
    topic = letter.topic.encode("utf-8", "surrogateescape")
    return Place(letter.timestamp_ms, letter.offset, letter.partition, topic)


class DeadLetterWriter:
    """Sends dead letters to the handler's sink, and to the file in the state folder what that sink refuses.

    Without a sink all go to that file: ``<state dir>/dead-letters/<handler>.ndjson``, made when the first one comes.
    ``publisher``: the sink, where somebody has opened it already.
    """

    def __init__(self, sink: Sink | None, context: PublisherContext, publisher: Publisher | None = None) -> None:
        self._context = context
        self._folder = context.state_dir / FOLDER
        try:
            make_private_folders(self._folder)
        except OSError as error:
            raise SinkError(f"cannot keep dead letters in {self._folder}: {error.strerror}") from None
        self._file: Publisher | None = None
        self._publisher = self._open_sink(sink) if sink is not None and publisher is None else publisher
        self._sink = sink.describe() if sink is not None else ""
        self._places: dict[str, None] = {}  #: where letters were sent, in the order of the first of each
        self._encode = self._encoder(sink)
        self._letters: dict[int, Sequence[DeadLetter]] = {}  # by ticket, until the sink has them
        self._troubles = TroubleLog(context.log)
        self._refused_count = 0  # in this run

    def _open_sink(self, sink: Sink) -> Publisher:
        if isinstance(sink, FileProducer):
            return FilePublisher(sink, self._context.log, PRIVATE_MODE)
        return sink.open(self._context)

    def _encoder(self, sink: Sink | None) -> Callable[[DeadLetter, str], bytes]:
        in_file = isinstance(sink, FileProducer)
        if sink is None or (isinstance(sink, FileProducer) and sink.format != "records"):
            encode = msgspec.json.encode if sink is None or sink.encoding() == "json" else msgspec.msgpack.encode
            return lambda letter, time: frame_record(encode(self._stored(letter, time)))
        context = self._context
        return lambda letter, time: frame_record(
            letter.payload,
            letter.key,
            broker_headers(letter, context.app, context.handler, time),
            place_of(letter) if in_file else None,
        )

    def _stored(self, letter: DeadLetter, time: str) -> StoredLetter:
        return stored_letter(letter, self._context.app, self._context.handler, time)

    def publish(self, letters: Sequence[DeadLetter], ticket: int) -> None:
        """Start to make them durable; ``deliveries()`` gives the ticket back."""
        if self._publisher is None:
            self._publish_to_file(letters, ticket)
            return
        self._places[self._sink] = None
        time = _now()
        records = b"".join([self._encode(letter, time) for letter in letters])
        self._letters[ticket] = letters
        self._publisher.publish(memoryview(records), len(letters), ticket)

    def _publish_to_file(self, letters: Sequence[DeadLetter], ticket: int) -> None:
        if self._file is None:
            self._file = self._open_file()
        time = _now()
        records = b"".join([frame_record(msgspec.json.encode(self._stored(letter, time))) for letter in letters])
        self._file.publish(memoryview(records), len(letters), ticket)

    def _open_file(self) -> Publisher:
        """The file of this handler, or where another run with the same state folder has it, one of its own."""
        for path in default_files(self._context.state_dir, self._context.handler):
            try:
                publisher = FilePublisher(FileProducer(path, fsync="batch"), self._context.log, PRIVATE_MODE)
            except FileLockedError:
                continue
            self._places[f"file {path}"] = None
            return publisher
        raise SinkError(f"{MAX_FILES} runs write dead letters into {self._folder} already")

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        """Tickets whose letters are all durable, in the sink or in the file. None of them has failed."""
        done = []
        for delivery in self._publisher.deliveries(timeout) if self._publisher is not None else ():
            letters = self._letters.pop(delivery.ticket)
            if delivery.failed:
                self._publish_to_file(self._refused(letters, delivery), delivery.ticket)
            else:
                done.append(delivery)
        if self._file is not None:
            done += self._file.deliveries(timeout if self._publisher is None else 0.0)
        return done

    def _refused(self, letters: Sequence[DeadLetter], delivery: Delivery) -> list[DeadLetter]:
        refused = [
            letters[record.index]._replace(
                reason=f"{letters[record.index].reason} (and its dead-letter sink refused it: {record.reason})"
            )
            for record in delivery.failed
        ]
        self._refused_count += len(refused)
        self._troubles.tell(
            f"{self._context.handler}: the dead-letter sink refused {_count_text(self._refused_count)} "
            f"({delivery.failed[0].reason}); what it refuses is kept in {self._folder}",
            "refused",
        )
        return refused

    @property
    def places(self) -> tuple[str, ...]:
        """Where letters of this run were sent."""
        return tuple(self._places)

    def files(self) -> frozenset[tuple[int, int]]:
        """As a publisher has it; without the file in the state folder, which is made when the first letter comes."""
        return self._publisher.files() if self._publisher is not None else frozenset()

    def trouble(self) -> str | None:
        """What it is waiting for right now, as a sentence, or None when all is well."""
        for publisher in (self._publisher, self._file):
            sentence = publisher.trouble() if publisher is not None else None
            if sentence is not None:
                return f"dead letters: {sentence}"
        return None

    def close(self, timeout: float) -> None:
        """Flush for at most ``timeout`` seconds, then close."""
        for publisher in (self._publisher, self._file):
            if publisher is not None:
                publisher.close(timeout)


def _count_text(records: int) -> str:
    return "1 record" if records == 1 else f"{records:,} records in all"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

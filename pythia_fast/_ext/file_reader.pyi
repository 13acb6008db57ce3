from pythia_fast._ext.source import NativeSource

FORMATS: dict[str, int]
ANEW: int  #: in states(): bytes that were read have changed since

def frames_end(fd: int, size: int) -> int:
    """Where the last whole frame of the first ``size`` bytes of a file ends. Raises OSError."""

class FileRecords(NativeSource):
    """Files or a stream, cut into records. All calls on the intake thread, but for ``bytes_read``."""

    def __init__(
        self,
        format: str,  # noqa: A002 - the option's name
        *,
        max_payload_bytes: int,
        record_bytes: int = 0,
        follow: bool = False,
        block_bytes: int = ...,
        pace: float = 0,
    ) -> None:
        """``format``: a key of FORMATS. ``follow``: call serve() now and then to look for rotated and new files.
        ``pace``: of records, times the speed at which their messages came; 0: as fast as they are taken."""
    def add(
        self,
        fd: int,
        partition: int,
        offset: int,
        *,
        stream: bool = False,
        last: bool = True,
        final: bool = False,
        limit: int = ...,
        handled: int = 0,
    ) -> None:
        """Read ``fd`` from ``offset`` on; the descriptor belongs to this object from now on.

        ``partition``: a higher number than those that were added before have.
        ``stream``: it cannot seek. ``last``: no more of it is read than it holds now. ``final``: nothing will be
        appended to it, ever; a stream is. ``limit``: a record that begins there or later is left, and a file that ends
        before it has shrunk. ``handled``: what lies before it of the line at ``offset`` was a row of an earlier run.
        """
    def fd(self, partition: int) -> int: ...
    def finish(self, partition: int) -> None:
        """What the file of ``partition`` holds now is all that it will ever hold."""
    def ends(self, partition: int) -> tuple[int, int, int]:
        """The position to read on from, the end of the last record, the bytes of an incomplete one that were left."""
    def remove(self, partition: int) -> None:
        """Close the file of ``partition``."""
    def states(self) -> list[tuple[int, int, int, int, int]]:
        """(partition, position, done, shrunk, errno) of every file. ``shrunk``: it ends before what was read of it, or
        before its limit, or it is ANEW; nothing more is read of it then, and what came of it is the old file's."""
    def spill_to(self, fd: int) -> None:
        """Where the bytes of a stream's oversize record go until its end is found; the descriptor changes hands."""
    def spill_error(self) -> int:
        """The errno that kept them from going there, when the last poll returned SPOOL; the next one tries again."""
    def attended(self) -> None:
        """serve() has looked after the files."""
    def exhausted(self) -> None:
        """No file will be added: once all are done the source ends."""
    @property
    def looks(self) -> int:
        """Times a file was asked whether it has grown."""
    @property
    def bytes_read(self) -> int: ...
    def close(self) -> None: ...

"""DeadLetterLimit: which share of a handler's rows may go to the dead letters before its source is paused."""

from __future__ import annotations

from dataclasses import dataclass

from pythia_fast import options
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options

MAX_ROWS = 1_000_000_000
MAX_PROBES = 1000


@dataclass(frozen=True, slots=True, init=False)
class DeadLetterLimit:
    """A bad deploy must not empty a topic into the dead letters: beyond this limit the source is paused.

    ``ratio``: share of the rows settled within ``window`` seconds that may be given up: refused by the decoder, failed,
    or fatal to their process. ``min_rows``: with fewer rows settled in the window nothing is paused.
    ``count_rejected``: whether rows that the handler itself rejected count as given up.
    ``pause``: seconds before a small batch is tried; twice as many after each one that goes no better, at most
    ``max_pause``. ``probes``: such batches before a run with until="end" is ended; until="forever" goes on trying.

    Raises ConfigError, UnknownOptionError.
    """

    ratio: float
    min_rows: int
    window_s: float
    count_rejected: bool
    pause_s: float
    max_pause_s: float
    probes: int

    @named_options("DeadLetterLimit")
    def __init__(
        self,
        ratio: float = 0.5,
        min_rows: int = 1000,
        window: float = 60.0,
        *,
        count_rejected: bool = False,
        pause: float = 1.0,
        max_pause: float = 60.0,
        probes: int = 5,
    ) -> None:
        where = "DeadLetterLimit"
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "ratio", options.number(where, "ratio", ratio, 0, 1, "a share of the rows, from 0 to 1"))
        set_field(self, "min_rows", options.whole(where, "min_rows", min_rows, 1, MAX_ROWS, "rows"))
        set_field(self, "window_s", options.number(where, "window", window, 1, 86_400, "seconds, from 1 to 86,400"))
        set_field(self, "count_rejected", options.flag(where, "count_rejected", count_rejected))
        set_field(self, "pause_s", options.number(where, "pause", pause, 0.01, 3600, "seconds, from 0.01 to 3,600"))
        set_field(self, "max_pause_s", options.seconds(where, "max_pause", max_pause, 86_400))
        set_field(self, "probes", options.whole(where, "probes", probes, 1, MAX_PROBES, "batches"))
        if self.max_pause_s < self.pause_s:
            raise ConfigError(f"{where}: max_pause={max_pause} is less than pause={pause}")

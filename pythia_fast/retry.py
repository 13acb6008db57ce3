"""RetryPolicy: how often rows are handled again, and how long they wait before that."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pythia_fast import options
from pythia_fast.errors import ConfigError
from pythia_fast.options import named_options

MAX_ATTEMPTS = 1000
MAX_WAIT_S = 86_400


@dataclass(frozen=True, slots=True, init=False)
class RetryPolicy:
    """What becomes of rows that ``batch.retry`` asks another attempt for, or whose exception ``retry_on`` names.

    ``max_attempts``: times a row is given to the handler before it is dead-lettered.
    ``backoff``: seconds before the second attempt, twice as many before each further one, at most ``max_backoff``.
    With 0, rows are handled again at once, by the same process. Else their batch waits in shared memory while others
    are handled. With ordering="partition" or "key", rows that come behind them in their lane wait for them, but for
    those of the same call; that costs these no attempt. Rows wait in 32 slots, each of batch_size rows, at least 256,
    and max_batch_bytes (fewer where memory is short; with transactions one batch a slot); when these are taken,
    nothing is read until the first is due. A run that is stopped tries such rows once early, which counts only if it
    succeeds, and leaves the others to the next run.
    ``jitter``: share of the wait, 0 to 1, that is left to chance, so that those who wait do not come back together.
    ``retry_on``: an exception type, or a tuple of them: a call that raises one of these is tried again with all its
    rows, once the backoff has passed; any other exception follows ``on_error`` at once, and so does this one after the
    last attempt: with on_error="isolate" the rows that raise it alone are given up, the others of the batch completed.
    One of these that ``batch.retry`` asks for then has one attempt more, since calls that raised used up its own.
    A service that is away makes every row raise: that costs up to two calls a row, and all of them are given up.
    ``breaker=`` waits for the service instead.

    Raises ConfigError, UnknownOptionError.
    """

    max_attempts: int
    backoff_s: float
    max_backoff_s: float
    jitter: float
    retry_on: tuple[type[BaseException], ...] = field(default=())

    @named_options("RetryPolicy")
    def __init__(
        self,
        max_attempts: int = 3,
        backoff: float = 0.0,
        jitter: float = 0.2,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        *,
        max_backoff: float = 60.0,
    ) -> None:
        where = "RetryPolicy"
        types = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
            raise options.refusal(where, "retry_on", retry_on, "an exception type, or a tuple of them")
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "max_attempts", options.whole(where, "max_attempts", max_attempts, 1, MAX_ATTEMPTS, "attempts"))
        set_field(self, "backoff_s", options.seconds(where, "backoff", backoff, MAX_WAIT_S))
        set_field(self, "max_backoff_s", options.seconds(where, "max_backoff", max_backoff, MAX_WAIT_S))
        set_field(self, "jitter", options.number(where, "jitter", jitter, 0, 1, "a share of the wait, from 0 to 1"))
        set_field(self, "retry_on", types)
        if self.max_backoff_s < self.backoff_s:
            raise ConfigError(f"{where}: max_backoff={max_backoff} is less than backoff={backoff}")

    @property
    def waits(self) -> bool:
        """Whether rows wait before they are handled again."""
        return self.backoff_s > 0

    def wait_s(self, given: int, chance: float | None = None) -> float:
        """Seconds to wait after a row was given to the handler for the ``given``-th time.

        ``chance``: 0 to 1; by default drawn.
        """
        doublings = min(given - 1, 64)
        whole = min(self.backoff_s * 2.0**doublings, self.max_backoff_s)
        return whole * (1 - self.jitter * (random.random() if chance is None else chance))

"""The drills there are: what each does to the app, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pythia_fast import options

#: Who is hit. "handler": a pool process, within the handler. "runtime": the runtime process keeps going, but what it
#: stands on does not. "run": the run as a whole is killed, or gets company.
Place = Literal["handler", "runtime", "run"]

#: Promise and place of the faults of a handler.
_ONE_ROW: tuple[str, Place] = (
    "only the guilty row is dead-lettered, nothing is lost, nothing comes twice",
    "handler",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One drill."""

    name: str
    does: str  #: to the app
    promise: str  #: what must come of it
    place: Place
    once: int = 0  #: batches that meet it once; beside them one row meets it always
    kills: bool = False  #: the process ends by it
    kafka: bool = False  #: needs a broker
    pace_s: float = 0.0  #: seconds that the rows are spread over, so that it comes in the middle; 0: as fast as it goes


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("sigsegv", "the handler reads address 0, for three batches and one row", *_ONE_ROW, 3, kills=True),
        Fault("kill", "its process is killed -9, for three batches and one row", *_ONE_ROW, 3, kills=True),
        Fault("hang", "the handler does not return, for one batch and one row", *_ONE_ROW, 1, kills=True),
        Fault("oom", "its process runs out of memory, for two batches and one row", *_ONE_ROW, 2, kills=True),
        Fault("raise", "the handler raises, for three batches and one row", *_ONE_ROW, 3),
        Fault(
            "broker-cut",
            "every connection to the brokers is cut, again and again, for three seconds",
            "nothing is lost, nothing comes twice, and rows flow again without help",
            "runtime",
            kafka=True,
            pace_s=8,
        ),
        Fault(
            "slow-broker",
            "every connection to the brokers carries 64 kB/s at most each way, for five seconds",
            "nothing is lost, nothing comes twice, no partition is lost to another member",
            "runtime",
            kafka=True,
            pace_s=8,
        ),
        Fault(
            "rebalance",
            "a second run joins the consumer group and leaves it again",
            "nothing is lost, nothing comes twice, both have rows",
            "run",
            kafka=True,
            pace_s=15,
        ),
        Fault(
            "disk-full",
            "the file of results cannot grow for two seconds; then again, and the run is stopped meanwhile",
            "it is told, rows wait, nothing is lost, the next run finishes, and only rows behind the committed "
            "position come twice",
            "runtime",
            pace_s=6,
        ),
        Fault(
            "parent-kill",
            "the runtime is killed -9 in the middle and started again",
            "nothing is lost, no process is left behind, and only rows behind the committed position come twice",
            "run",
            pace_s=5,
        ),
    )
}


def chosen_faults(name: str) -> list[Fault]:
    """The drill of this name; all of them for ``all``. Raises ConfigError with the nearest name there is."""
    options.choice("drill", "FAULT", name, [*FAULTS, "all"])
    return list(FAULTS.values()) if name == "all" else [FAULTS[name]]

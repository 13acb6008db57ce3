"""What the suite needs to know of a broker, and whole runtimes that read from it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy

LANES = 4  #: partitions, streams, queues or files, as far as a broker has several; messages take turns
KEYS = 8


@dataclass(frozen=True, slots=True)
class Message:
    payload: bytes
    key: str = ""
    trace: str = ""  #: the header of that name

    @property
    def headers(self) -> dict[str, str]:
        return {"trace": self.trace} if self.trace else {}


def row(number: int, do: str = "", padding: str = "") -> Message:
    fields = {"id": number} | ({"do": do} if do else {}) | ({"padding": padding} if padding else {})
    return Message(json.dumps(fields).encode(), f"key-{number % KEYS}", f"trace-{number}")


def rows(numbers: range) -> list[Message]:
    return [row(number) for number in numbers]


class Rig(ABC):
    """One source of one test, new and empty."""

    has_keys = True  #: messages keep their key and headers

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0
        self._runs = ExitStack()

    @abstractmethod
    def produce(self, messages: Sequence[Message]) -> None:
        """Returns once the broker has them. Message number n goes to lane n % LANES, where there are lanes."""

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """The part of the app's settings that says what it reads."""

    def start(self, *arguments: str, state: str = "state", **settings: Any) -> RuntimeProcess:
        """A runtime; those of one ``state`` share their state folder, one after the other."""
        name = f"run-{self._started}"
        self._started += 1
        told = {"folder": str(self.folder), "name": name, **self.source(), **settings}
        if "messages" in told:
            told["keep_open"] = "--until-end" not in arguments
        runtime = RuntimeProcess(
            self.folder / name,
            "tests.support.conformance_app:app",
            {"CONFORMANCE": json.dumps(told)},
            arguments,
            state_dir=self.folder / state,
        )
        self._runs.callback(runtime.close)
        return runtime

    def results(self) -> list[dict[str, Any]]:
        """What all runtimes have sent on: of one after the other, each in its order."""
        return self._lines("out")

    def ids(self) -> list[int]:
        return [result["id"] for result in self.results()]

    def count(self) -> int:
        """How many results there are, which is known without reading what they say."""
        paths = [self.folder / f"run-{number}.out" for number in range(self._started)]
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    def dead(self) -> list[dict[str, Any]]:
        """The dead letters, as FileProducer keeps them."""
        return self._lines("dead")

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        found = []
        for number in range(self._started):
            path = self.folder / f"run-{number}.{kind}"
            if path.exists():
                # A line that is being written, or that a killed runtime left without its end, is none yet.
                found += [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        return found

    def close(self) -> None:
        self._runs.close()


class KeptRig(Rig):
    """A source that keeps what is done, whatever becomes of the runtime."""

    @abstractmethod
    def remaining(self) -> int:
        """Messages that no runtime is done with, as the broker counts them."""


class ServerRig(KeptRig):
    """A source at a server, behind a proxy."""

    def __init__(self, folder: Path, proxy: TcpProxy) -> None:
        super().__init__(folder)
        self.proxy = proxy

"""A whole runtime, run as a user runs it, in a session of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.kafka_libraries import ROOT


class RuntimeProcess:
    """``python -m pythia_fast run TARGET``, with its state, its log and its report in ``folder``, which it makes."""

    def __init__(
        self,
        folder: Path,
        target: str,
        environment: Mapping[str, str],
        arguments: Sequence[str] = (),
        *,
        workers: int = 2,
        state_dir: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.report_path = folder / "report.json"
        self.log_path = folder / "log"
        command = [sys.executable, "-m", "pythia_fast", "run", target, "--workers", str(workers)]
        command += ["--state-dir", str(state_dir or folder / "state"), "--report", str(self.report_path), *arguments]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def session_id(self) -> int:
        """By which the rows that this runtime handled are known."""
        return self.process.pid

    def wait_for(self, text: str, times: int = 1, seconds: float = 60) -> None:
        """Until its log has told this so many times."""
        deadline = time.monotonic() + seconds
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log}"
            assert time.monotonic() < deadline, f"no {text!r} after {seconds} s: {self.log}"
            time.sleep(0.02)

    def wait(self, seconds: float = 60) -> dict[str, Any]:
        """Until it ends by itself; its report."""
        assert self.process.wait(seconds) == 0, self.log
        self.assert_gone()
        return dict(json.loads(self.report_path.read_text()))

    def stop(self) -> dict[str, Any]:
        """SIGTERM, as an orchestrator stops it; its report."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9 of the runtime process alone; its pool must go with it."""
        self.process.kill()
        self.process.wait()
        self.assert_gone()

    def assert_gone(self) -> None:
        deadline = time.monotonic() + 10
        while left := self.members():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)

    def members(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def close(self) -> None:
        for process in self.members():
            with suppress(psutil.NoSuchProcess):  # it has gone by itself
                process.kill()
        self.process.wait()

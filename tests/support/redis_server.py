"""A real Redis for tests and benchmarks: own port, own data folder, stopped by its process id.

By hand: ``python -m tests.support.redis_server`` prints the address and runs until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import redis

from tests.support.kafka_broker import BrokerError, _die_with_parent, free_ports


class RedisServerProcess:
    """One server. Port and folder stay the same over ``restart()``; ``close()`` removes the folder.

    ``settings``: directives of redis.conf, added or in place of the ones here. ``is_sentinel``: it watches others.
    """

    def __init__(
        self, folder: Path | None = None, settings: Mapping[str, str] | None = None, *, is_sentinel: bool = False
    ) -> None:
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="pythia-fast-redis-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.log_path = self.folder / "redis.log"
        self._is_sentinel = is_sentinel
        self._settings = dict(settings or {}) if is_sentinel else {"save": "", "appendonly": "no", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2, **options)  # type: ignore[arg-type]

    def start(self, timeout: float = 60.0) -> RedisServerProcess:
        """Start and return once it answers."""
        self.launch()
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
                try:
                    client.ping()
                except redis.AuthenticationError:  # it answers, and wants a password
                    return self
                except redis.BusyLoadingError:
                    time.sleep(0.05)
                    continue
                return self
            assert self._process is not None
            if self._process.poll() is not None:
                raise BrokerError(f"redis-server did not start:\n{self.log_path.read_text()[-2000:]}")
            if time.monotonic() >= deadline:
                self.kill()
                raise BrokerError(f"redis-server was not ready after {timeout:.0f} s")
            time.sleep(0.02)

    def launch(self) -> None:
        """Start and return at once."""
        program = shutil.which("redis-server")
        if program is None:
            raise BrokerError("redis-server is missing: apt-get install redis-server")
        command = [program]
        if self._is_sentinel:  # keeps what it is told in a file of its own
            (self.folder / "sentinel.conf").touch()
            command += [str(self.folder / "sentinel.conf"), "--sentinel"]
        command += ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        for name, value in self._settings.items():
            command += [f"--{name}", *(value.split(" ") if value else [""])]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def stop(self) -> None:
        """As an operator would; what is kept on disk stays."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(60)

    def kill(self) -> None:
        """As a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RedisServerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has what is in the background ignore SIGINT
        signal.signal(number, lambda *_: sys.exit(0))
    with RedisServerProcess() as server:
        print(f"REDIS_URL={server.url}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()

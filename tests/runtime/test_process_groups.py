"""Process groups: that of a handler is its process' own, and the one that a terminal signals is the runtime's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest

from tests.support.script_process import MAIN, PRELUDE

SIGNALS_ITS_GROUP = """
    import signal
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def echo(batch):
        if b"505" in batch["payload"].tolist():
            {call}
        return batch["payload"].tolist()
"""


@pytest.mark.parametrize("call", ["os.killpg(0, signal.SIGKILL)", "os.kill(0, signal.SIGKILL)"])
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_row_whose_handler_kills_its_process_group_is_given_up_and_the_run_goes_on(script, method, call):
    code, out, err = script(PRELUDE, SIGNALS_ITS_GROUP.format(call=call), MAIN, method=method).end()
    assert (code, err) == (0, "")
    assert "finished done 1000 0" in out
    assert "rows 999 999" in out
    assert "was killed by SIGKILL" in out


@pytest.mark.parametrize("call", ["os.killpg(0, signal.SIGTERM)", "os.killpg(0, signal.SIGINT)"])
def test_a_handler_that_signals_its_process_group_does_not_end_the_run(script, call):
    code, out, err = script(PRELUDE, SIGNALS_ITS_GROUP.format(call=call), MAIN).end()
    assert (code, err) == (0, "")
    assert "finished done 1000 0" in out
    assert "rows 1000 1000" in out


class Terminal:
    """A terminal, and on it a script in the foreground."""

    def __init__(self, folder: Path, *parts: str) -> None:
        path = folder / "orders.py"
        path.write_text("".join(textwrap.dedent(part) for part in parts))
        self._fd, screen = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(folder / "state"), "60", "auto"],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "OPEN": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        os.close(screen)
        self.shown = ""

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), self.shown

    def _read(self) -> bool:
        """False: nobody has the terminal any more."""
        try:
            read = os.read(self._fd, 4096)
        except OSError:  # EIO
            return False
        self.shown += read.decode()
        return bool(read)

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path):
    made = []

    def start(*parts):
        made.append(Terminal(tmp_path, *parts))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_ctrl_c_on_a_terminal_drains_and_cuts_no_work_short(terminal, tmp_path):
    waits = """
    import subprocess
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def echo(batch):
        child = subprocess.Popen(["sh", "-c", "while [ ! -e go ]; do sleep 0.01; done"])
        print("handling", flush=True)
        assert child.wait() == 0
        return batch["payload"].tolist()
    """
    one = terminal(PRELUDE, waits, MAIN)
    one.wait_for("handling")
    one.press(b"\x03")
    one.wait_for("draining")
    (tmp_path / "go").touch()
    assert one.end() == 0, one.shown
    rows = int(one.shown.split("rows ")[1].split()[0])
    assert rows > 0
    assert f"finished drained {rows} 0" in one.shown


def test_a_handler_that_reads_the_terminal_is_told_that_it_cannot(terminal):
    reads = """
    import errno
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0, batch_deadline=20)
    def echo(batch):
        try:
            os.read(os.open("/dev/tty", os.O_RDWR), 1)
        except OSError as error:
            print("reading:", errno.errorcode[error.errno], flush=True)
        return batch["payload"].tolist()
    """
    one = terminal(PRELUDE, reads, MAIN)
    one.wait_for("reading: EIO")
    one.press(b"\x03")
    assert one.end() == 0, one.shown
    assert "finished drained" in one.shown

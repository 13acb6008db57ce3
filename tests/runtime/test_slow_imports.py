"""An import of the app that hangs, takes long, or ends its process: a pool's parent that is a new interpreter."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.script_process import HANDLER, MAIN, PRELUDE

HANGS = """
    if __name__ != "__main__":
        import lingering
"""
LINGERING = """import time

def connect():
    time.sleep(1000)

connect()
"""
AT_ONCE_S = 8.0  #: less than what a pool's parent that is up is given to leave


def assert_ends_in_order(one, began: float) -> None:
    code, out, err = one.end()
    assert time.monotonic() - began < AT_ONCE_S
    assert (code, err) == (0, "")
    assert "finished drained 0 0" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_hangs_is_told_of_with_its_place_and_ends_at_a_signal(tmp_path, script, number):
    (tmp_path / "lingering.py").write_text(LINGERING)
    one = script(PRELUDE, HANDLER, HANGS, MAIN, method="forkserver")
    line = one.read_until("It is there:")
    assert f"has been importing {tmp_path / 'orders.py'} for " in line
    assert line.endswith("Stop it with Ctrl-C or SIGTERM: it ends the run at once. It is there:\n")
    stack = [one.process.stdout.readline() for _ in range(6)]
    assert [text.strip() for text in stack] == [
        f'File "{tmp_path / "orders.py"}", line 13, in <module>',
        "import lingering",
        f'File "{tmp_path / "lingering.py"}", line 6, in <module>',
        "connect()",
        f'File "{tmp_path / "lingering.py"}", line 4, in connect',
        "time.sleep(1000)",
    ]
    (parent,) = one.tree()
    began = time.monotonic()
    os.killpg(one.process.pid, number)  # as a terminal does
    assert_ends_in_order(one, began)
    assert not parent.is_running()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_signal_to_the_whole_group_ends_it_however_early_it_comes(tmp_path, script, method):
    (tmp_path / "lingering.py").write_text(LINGERING)
    one = script(PRELUDE, HANDLER, HANGS, MAIN, method=method)
    while not one.tree():
        assert one.process.poll() is None
    began = time.monotonic()
    os.killpg(one.process.pid, signal.SIGINT)
    assert_ends_in_order(one, began)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV while it imported {}; PYTHONFAULTHANDLER=1 has"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL, likely by the kernel for want of memory or by hand while"),
        ("os._exit(5)", "ended with exit code 5 while it imported {}. No handler ran in it. What"),
    ],
    ids=["segv", "kill", "exit"],
)
def test_one_that_ends_its_process_is_told_with_how_and_where(tmp_path, script, ends, told):
    dies = f"""
    if __name__ != "__main__":
        {ends}
    """
    code, _, err = script(PRELUDE, HANDLER, dies, MAIN, method="forkserver").end()
    assert code == 1
    assert told.format(tmp_path / "orders.py") in err
    assert f"imported {tmp_path / 'orders.py'}" in err
    assert "ended from within a handler" not in err

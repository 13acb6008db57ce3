"""pythia_fast.pool.users_frames: what a user sees of a stack begins with the user's code."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.pool.process import _once
from pythia_fast.pool.users_frames import cause_of, format_error, place_of, shorten_stacks

PACKAGE = Path(pythia_fast.__file__).parent
ENGINE = f'  File "{PACKAGE}/pool/records.py", line 40 in call_and_write'
SCRIPT = '  File "/home/user/orders.py", line 90 in <module>'
HANDLER = '  File "/home/user/orders.py", line 12 in score'
NATIVE = '  File "/usr/lib/python3/ctypes/__init__.py", line 519 in string_at'


def stacks(*frames: str, thread: str = "0x00007f") -> str:
    return "\n".join(["Fatal Python error: Segmentation fault", "", f"Current thread {thread}:", *frames])


def load() -> None:
    raise OSError("no model")


def test_a_traceback_begins_with_the_users_frame() -> None:
    with pytest.raises(OSError, match="no model") as caught:
        _once(load, os.getpid())
    lines = format_error(caught.value).splitlines()
    assert "test_users_frames.py" in lines[1]  # this function called the pool's, which called load()


def test_a_traceback_of_a_setup_has_no_frame_of_ours() -> None:
    with pytest.raises(OSError, match="no model") as caught:
        _once(load, os.getpid())
    assert caught.tb.tb_next is not None
    text = format_error(caught.value.with_traceback(caught.tb.tb_next))  # as if the pool had called itself
    assert "process.py" not in text
    assert "in load" in text.splitlines()[1]
    assert text.endswith("OSError: no model\n")


def test_a_file_that_cannot_be_parsed_is_named_and_no_frame_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "orders.py"
    path.write_text("import os\ndef (:\n")
    with pytest.raises(SyntaxError) as caught:
        runpy.run_path(str(path))
    assert caught.tb.tb_next is not None
    error = caught.value.with_traceback(caught.tb.tb_next)  # as if the pool had called it
    assert format_error(error).startswith(f'  File "{path}", line 2\n    def (:\n')
    assert cause_of(error) == f"SyntaxError: invalid syntax in {path}, line 2"
    assert cause_of(SyntaxError("no file")) == "SyntaxError: no file"
    assert cause_of(OSError("no\nmodel")) == "OSError: no"


def test_a_stack_ends_where_the_runtime_calls_the_handler() -> None:
    text = shorten_stacks(stacks(NATIVE, HANDLER, ENGINE, SCRIPT))
    assert text == stacks(NATIVE, HANDLER, "  (called by pythia_fast)")


def test_a_crash_in_the_runtime_itself_is_told_whole() -> None:
    whole = stacks(ENGINE, SCRIPT)
    assert shorten_stacks(whole) == whole


def test_one_place_is_one_place_whichever_thread_and_process() -> None:
    here = place_of(stacks(NATIVE, HANDLER, thread="0x1"))
    assert here == place_of(stacks(NATIVE, HANDLER, thread="0x2"))
    assert here != place_of(stacks(NATIVE, HANDLER.replace("12", "13")))
    assert here != place_of(stacks(NATIVE, HANDLER).replace("Segmentation fault", "Aborted"))


@given(st.text())
def test_whatever_a_process_said_can_be_shortened(text: str) -> None:
    assert len(shorten_stacks(text)) <= len(text) + text.count("\n\n") * 30 + 30
    assert place_of(text)[0] == text.partition("\n")[0]

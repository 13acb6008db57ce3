"""The runtime as a process: start methods, signals, and what is left when it is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.script_process import HANDLER, MAIN, PRELUDE, Script


@pytest.mark.parametrize("method", ["auto", "fork", "forkserver", "spawn"])
def test_every_start_method_runs_the_same_script(script, method):
    code, out, err = script(PRELUDE, HANDLER, MAIN, method=method).end()
    assert (code, err) == (0, "")
    assert "rows 1000 1000" in out


def test_a_module_that_starts_threads_is_imported_by_each_process(script):
    threads = """
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    """
    code, out, err = script(PRELUDE, threads, HANDLER, MAIN, method="auto").end()
    assert (code, err) == (0, "")
    assert "starts threads: each pool process imports it by itself" in out
    assert "rows 1000 1000" in out


def test_a_fork_beside_threads_is_warned_of(script):
    threads = """
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    """
    _, out, _ = script(PRELUDE, threads, HANDLER, MAIN, method="fork").end()
    assert "start_method='fork' forks a process with a thread beside" in out
    assert "rows 1000 1000" in out


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_module_that_does_not_import_again_ends_the_run_with_its_traceback(script, method):
    broken = """
    if __name__ != "__main__":
        import no_such_module_anywhere
    """
    code, _, err = script(PRELUDE, broken, HANDLER, MAIN, method=method).end()
    assert code == 1
    assert "no_such_module_anywhere" in err


def test_a_module_that_cannot_be_parsed_any_more_is_named_and_the_run_goes_on_once_it_can(script, tmp_path):
    first_dies = """
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0, workers=1, spares=0)
    def echo(batch):
        if batch["payload"].tolist()[0] == b"500" and not os.path.exists("died"):
            open("died", "w").close()
            open(__file__, "a").write("def (:\\n")
            os._exit(1)
        return batch["payload"].tolist()
    """
    one = script(f"import os; os.chdir({str(tmp_path)!r})\n", PRELUDE, first_dies, MAIN, method="spawn")
    path = tmp_path / "orders.py"
    one.read_until("could not start; another one is made:")
    number = len(path.read_text().splitlines())
    assert next(one.process.stdout) == f'  File "{path}", line {number}\n'
    one.read_until("SyntaxError: invalid syntax")
    path.write_text(path.read_text().removesuffix("def (:\n"))
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert "rows 1000 1000" in out


def test_a_closed_standard_input_is_told_and_never_the_arena(tmp_path):
    (tmp_path / "closed.py").write_text(
        "from pythia_fast import App, FileConsumer\n"
        "app = App('closed')\n"
        "@app.batch_handler(source=FileConsumer('-'), decoder='raw')\n"
        "def nothing(batch): pass\n"
    )
    command = f"exec {sys.executable} -m pythia_fast run closed:app --until-end --state-dir {tmp_path / 'state'} <&-"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "standard input" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_without_a_main_guard_is_told(script):
    unguarded = MAIN.replace('if __name__ == "__main__":', "if True:")
    code, _, err = script(PRELUDE, HANDLER, unguarded, method="spawn").end()
    assert code == 1
    assert '__name__ == "__main__"' in err


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_run_that_a_handler_starts_is_refused_as_that(script, method):
    runs = """
    @app.batch_handler(source=source, sink=sink, decoder="raw")
    def nested(batch):
        try:
            app.run()
        except Exception as error:
            return [f"{type(error).__name__}: {error}"] * len(batch)
    """
    prints = """
    if __name__ == "__main__":
        print(set(sink.payloads))
    """
    code, out, err = script(PRELUDE, runs, MAIN, prints, method=method).end()
    assert (code, err) == (0, "")
    assert "{b'ConfigError: run() was called from within a handler, whose process cannot have a pool" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(script, number):
    one = script(PRELUDE, HANDLER, MAIN, OPEN="1")
    one.read_until("started")
    one.process.send_signal(number)
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert "draining" in out
    assert "finished drained" in out
    rows = int(out.split("rows ")[1].split()[0])
    assert f"finished drained {rows} 0" in out


SLOW = """
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def slow(batch):
        print("handling", os.getpid(), flush=True)
        time.sleep(1000)
"""


def test_the_second_signal_stops_at_once(script):
    one = script(PRELUDE, SLOW, MAIN, drain=1000.0)
    one.read_until("handling")
    tree = one.tree()
    one.process.send_signal(signal.SIGTERM)
    one.read_until("draining")
    one.process.send_signal(signal.SIGTERM)
    code, out, _ = one.end()
    assert code == 0
    assert "finished killed" in out
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_the_drain_deadline_ends_a_run_whose_handler_hangs(script):
    one = script(PRELUDE, SLOW, MAIN, drain=0.3)
    one.read_until("handling")
    tree = one.tree()
    one.process.send_signal(signal.SIGTERM)
    _, out, _ = one.end()
    ending, _, unfinished = out.split("finished ")[1].split()[:3]
    assert ending == "deadline"
    assert int(unfinished) > 0
    assert psutil.wait_procs(tree, timeout=10)[1] == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_killed_parent_takes_its_children_with_it(script, method):
    one = script(PRELUDE, SLOW, MAIN, method=method)
    one.read_until("handling")
    tree = one.tree()
    assert len(tree) == 3
    one.process.kill()
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_processes_that_the_kernel_does_not_kill_with_their_parent_leave_by_themselves(script):
    """So it is for those that dropped privileges, which undoes PR_SET_PDEATHSIG; spares that wait, too."""
    undone = """
    import ctypes

    class Echo:
        def setup(self):
            ctypes.CDLL(None).prctl(1, 0)

        def __call__(self, batch):
            print("handling", flush=True)
            time.sleep(0.01)
            return batch["payload"].tolist()

    app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0, name="echo")(Echo)
    """
    one = script(PRELUDE, undone, MAIN, OPEN="1")
    one.read_until("handling")
    deadline = time.monotonic() + 60
    while len(tree := one.tree()) < 4:
        assert time.monotonic() < deadline, "no spare"
        time.sleep(0.01)
    one.process.kill()
    assert psutil.wait_procs(tree, timeout=30)[1] == []


def nursery_of(one: Script) -> psutil.Process:
    """The newest: one that was killed is a zombie until another one has followed it."""
    return max((each for each in one.tree() if each.ppid() == one.process.pid), key=psutil.Process.create_time)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_killed_nursery_is_followed_by_another_one_and_the_run_goes_on(script, tmp_path, method):
    waits = """
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def echo(batch):
        if batch["payload"].tolist()[0] == b"500":
            while not os.path.exists("go"):
                open("waits", "w").close()
                time.sleep(0.01)
        return batch["payload"].tolist()
    """
    one = script(f"import os; os.chdir({str(tmp_path)!r})\n", PRELUDE, waits, MAIN, method=method)
    one.read_until("started")
    wait_for(tmp_path / "waits")
    tree = one.tree()
    nursery_of(one).kill()
    one.read_until("follows it, and their batches are handled again")
    (tmp_path / "go").touch()
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert "finished done 1000 0" in out
    assert "rows 1000 1000" in out
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_a_nursery_that_is_killed_before_it_is_up_is_followed_too(script, tmp_path):
    waits = """
    if os.path.exists("hold"):
        open("importing", "w").close()
        while os.path.exists("hold"):
            time.sleep(0.01)

    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def echo(batch):
        while batch["payload"].tolist()[0] == b"500" and not os.path.exists("go"):
            open("waits", "w").close()
            time.sleep(0.01)
        return batch["payload"].tolist()
    """
    one = script(f"import os; os.chdir({str(tmp_path)!r})\n", PRELUDE, waits, MAIN, method="forkserver")
    one.read_until("started")
    wait_for(tmp_path / "waits")
    (tmp_path / "hold").touch()
    nursery_of(one).kill()
    for _ in range(2):
        wait_for(tmp_path / "importing")
        (tmp_path / "importing").unlink()
        nursery_of(one).kill()
        one.read_until("where it was to follow the one before; another one is made")
    (tmp_path / "hold").unlink()
    one.read_until("follows it, and their batches are handled again")
    (tmp_path / "go").touch()
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert "finished done 1000 0" in out
    assert "rows 1000 1000" in out


def test_nurseries_that_are_killed_again_and_again_before_they_are_up_end_the_run(script, tmp_path):
    dies = """
    if os.path.exists("dies"):
        os.kill(os.getpid(), 9)

    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    def slow(batch):
        open("waits", "w").close()
        time.sleep(1000)
    """
    one = script(f"import os; os.chdir({str(tmp_path)!r})\n", PRELUDE, dies, MAIN, method="forkserver", drain=0.1)
    one.read_until("started")
    wait_for(tmp_path / "waits")
    (tmp_path / "dies").touch()
    nursery_of(one).kill()
    code, _, err = one.end()
    assert code == 1
    assert "None of 5 others came up; the last one: the pool's parent process" in err
    assert re.search(r"killed by SIGKILL\b.* while it imported", err)


def test_a_row_whose_handler_kills_the_pools_parent_is_given_up_and_the_run_goes_on(script):
    kills = """
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0, workers=1)
    def echo(batch):
        if b"505" in batch["payload"].tolist():
            os.kill(os.getppid(), 9)
            time.sleep(60)
        return batch["payload"].tolist()
    """
    code, out, err = script(PRELUDE, kills, MAIN, method="forkserver").end()
    assert (code, err) == (0, "")
    assert "finished done 1000 0" in out
    assert "rows 999 999" in out


def test_a_killed_nursery_ends_the_run_where_no_other_can_be_made(script):
    local = """
    def make():
        app = App("local")
        @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
        def slow(batch):
            print("handling", os.getpid(), flush=True)
            time.sleep(1000)
        return app
    """
    one = script(PRELUDE, local, MAIN.replace("app.run(", "make().run("), method="auto", drain=0.1)
    one.read_until("handling")
    tree = one.tree()
    nursery_of(one).kill()
    code, _, err = one.end()
    assert code == 1
    assert "the pool's parent process" in err
    assert "app 'local' is no module-level name that a new interpreter could import" in err
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_a_stopped_nursery_is_told_of(script):
    quick = """
    from pythia_fast.pool import nursery_watch
    nursery_watch.SILENCE_S = nursery_watch.PING_EVERY_S = 0.2
    """
    one = script(PRELUDE, quick, HANDLER, MAIN, OPEN="1")
    one.read_until("started")
    nursery = nursery_of(one)
    nursery.suspend()
    line = one.read_until("does not answer")
    assert f"the pool's parent process {nursery.pid} does not answer" in line
    assert f"it was stopped by a signal (kill -CONT {nursery.pid} has it go on)" in line
    nursery.resume()
    one.read_until(f"{nursery.pid} answers again")
    one.process.terminate()
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert "finished drained" in out


@pytest.mark.parametrize("ending", ["drained", "killed"])
def test_a_stopped_nursery_delays_no_end_of_a_run(script, tmp_path, ending):
    patient = """
    from pythia_fast.runtime import engine
    engine.CLOSE_TIMEOUT_S = 1000.0
    """
    tears_down = f"""
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0, spares=0)
    class Echo:
        def __call__(self, batch):
            if {ending == "killed"}:
                print("handling", flush=True)
                time.sleep(1000)
            return batch["payload"].tolist()
        def teardown(self):
            open({str(tmp_path)!r} + f"/torn-down-{{os.getpid()}}", "w").close()
    """
    one = script(PRELUDE, patient, tears_down, MAIN, OPEN="1")
    one.read_until("started" if ending == "drained" else "handling")
    tree, nursery = one.tree(), nursery_of(one)
    workers = [process.pid for process in tree if process != nursery]
    nursery.suspend()
    one.process.terminate()
    one.read_until("draining")
    if ending == "killed":
        one.process.terminate()
    code, out, err = one.end()
    assert (code, err) == (0, "")
    assert f"finished {ending}" in out
    if ending == "drained":
        assert f"the pool's parent process {nursery.pid} was stopped, so it is killed; its children have left" in out
        assert {f"torn-down-{pid}" for pid in workers} == {path.name for path in tmp_path.glob("torn-down-*")}
    assert psutil.wait_procs(tree, timeout=10)[1] == []


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_nursery_that_imports_the_app_ends_with_the_runtime(script, tmp_path, method):
    slow_import = f"""
    import os, sys, time
    if __name__ != "__main__":
        open({str(tmp_path / "imports")!r}, "w").close()
        time.sleep(1000)
    """
    one = script(slow_import, PRELUDE, HANDLER, MAIN, method=method)
    wait_for(tmp_path / "imports")
    tree = one.tree()
    assert tree
    one.process.kill()
    assert psutil.wait_procs(tree, timeout=10)[1] == []


@pytest.mark.parametrize("source", ["ends", "goes on"])
def test_the_second_signal_ends_a_run_whose_teardown_hangs(script, tmp_path, source):
    hangs = f"""
    @app.batch_handler(source=source, sink=sink, decoder="raw", batch_size=10, batch_timeout=0)
    class Echo:
        def __call__(self, batch):
            return batch["payload"].tolist()
        def teardown(self):
            open({str(tmp_path / "hangs")!r}, "w").close()
            time.sleep(1000)
    """
    patient = """
    from pythia_fast.runtime import engine
    engine.CLOSE_TIMEOUT_S = 1000.0
    """
    one = script(PRELUDE, patient, hangs, MAIN, **({"OPEN": "1"} if source == "goes on" else {}))
    one.read_until("started")
    tree = one.tree()
    if source == "goes on":
        one.process.terminate()
        one.read_until("draining")
    wait_for(tmp_path / "hangs")
    one.process.terminate()
    if source == "ends":
        one.read_until("draining")
        one.process.terminate()
    code, out, _ = one.end()
    assert code == 0
    assert "is killed, for a second signal asked for the end and its teardown()" in out
    assert "finished killed" in out
    assert "rows 1000 1000" in out or source == "goes on"
    assert psutil.wait_procs(tree, timeout=10)[1] == []

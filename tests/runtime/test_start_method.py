"""runtime/start_method.py in whole runs: what is told of a fork beside threads, and when it is refused."""

from __future__ import annotations

import pytest

USE_POLARS = """
    import sys, threading, time
    import polars
    from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer

    polars.DataFrame({"a": list(range(1000))}).group_by("a").agg(polars.len())
"""
START_A_THREAD = """
    import sys, threading, time
    from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer

    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""
IN_A_FUNCTION = """
    def main():
        app = App("local")

        @app.batch_handler(source=MemoryConsumer([]), decoder="raw")
        def look(batch: VIEW):
            return None

        class Observer:
            def started(self, info): pass
            def sample(self, snapshot): pass
            def event(self, text): print("event", text, flush=True)
            def finished(self, report): print("finished", report.ending, flush=True)
        app.run(workers=1, until="end", observer=Observer(), state_dir=sys.argv[1], start_method=sys.argv[3])

    main()
"""
OF_POLARS = IN_A_FUNCTION.replace("VIEW", "polars.DataFrame")
OF_BATCHES = IN_A_FUNCTION.replace("VIEW", "Batch")


def assert_told(out: str) -> None:
    """What may happen, and the way out; the run goes on."""
    assert "a lock that one of them holds stays locked in the pool for ever, and a library's thread pool" in out
    assert "where the pool hangs, put the app into a module" in out
    assert "finished done" in out


def test_a_handler_of_polars_frames_is_not_forked_from_a_process_that_has_used_polars(script):
    code, out, err = script(USE_POLARS, OF_POLARS).end()
    assert code == 1
    assert "ConfigError: handler 'look' takes a polars.DataFrame, and the pool would be forked from this" in err
    assert "put the app into a module" in err
    assert "event" not in out


def test_it_is_where_a_fork_is_asked_for_and_told(script):
    code, out, _ = script(USE_POLARS, OF_POLARS, method="fork").end()
    assert code == 0
    assert "start_method='fork' forks a process with polars' threads beside" in out
    assert_told(out)


@pytest.mark.parametrize("beside", [USE_POLARS, START_A_THREAD], ids=["polars", "a thread"])
def test_an_app_of_no_module_is_forked_beside_threads_and_told_what_may_happen(script, beside):
    code, out, _ = script(beside, OF_BATCHES).end()
    assert code == 0
    assert "because app 'local' is no module-level name that a new interpreter could import" in out
    assert_told(out)


def test_an_app_of_no_module_is_told_the_same_where_a_fork_is_asked_for(script):
    code, out, _ = script(START_A_THREAD, OF_BATCHES, method="fork").end()
    assert code == 0
    assert "start_method='fork' forks a process with a thread beside" in out
    assert_told(out)


def test_a_handler_of_polars_frames_is_forked_where_polars_was_only_imported(script):
    only_imported = USE_POLARS.replace("polars.DataFrame({", "0 and polars.DataFrame({")
    code, out, _ = script(only_imported, OF_POLARS).end()
    assert code == 0
    assert "finished done" in out

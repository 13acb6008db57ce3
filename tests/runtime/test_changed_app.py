"""A new interpreter of the pool that does not find the app that runs: the run ends, and sends nothing on."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

import pytest

APP = """
    import os, sys, time
    import msgspec
    from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer

    class Order(msgspec.Struct):
        price: float
        quantity: int

    WAITS = True
    app = App("orders")
    source = MemoryConsumer([b'{"price":0.5,"quantity":%d}' % i for i in range(100)])
    sink = MemoryProducer()

    @app.batch_handler(source=source, sink=sink, batch_size=10, ordering="partition", spares=0)
    def total(batch: Batch[Order]):
        if 50 in batch["quantity"].tolist() or not float(batch["price"][0]) == 0.5:
            print("handling", os.getpid(), os.getppid(), flush=True)
            while WAITS:
                time.sleep(0.01)
        return {"price": batch["price"], "quantity": batch["quantity"]}

    if __name__ == "__main__":
        try:
            app.run(workers=1, until="end", state_dir=sys.argv[1], start_method=sys.argv[3])
        finally:
            print("rows", len(sink.records), all(b'"price":0.5,' in each for each in sink.payloads), source.committed)
"""


def change(folder: Path, old: str, new: str) -> None:
    """As a deploy does: another file under the same name, whose handler waits for nothing."""
    text = (folder / "orders.py").read_text()
    assert old in text
    (folder / "orders.new").write_text(text.replace(old, new).replace("WAITS = True", "WAITS = False"))
    (folder / "orders.new").rename(folder / "orders.py")


TYPE = "field 'quantity' was int64, is float64"


@pytest.mark.parametrize(
    ("method", "old", "new", "told"),
    [
        (
            "spawn",
            "    price: float\n    quantity: int\n",
            "    quantity: int\n    price: float\n",
            "handler 'total' is another one: its fields stand in another order, 'quantity' where 'price' was",
        ),
        ("spawn", "def total(", "def sum(", "there is no handler 'total'"),
        ("spawn", 'app = App("orders")', 'app = App("shop")', "the App there is 'shop' and not 'orders'"),
        ("spawn", "quantity: int", "quantity: float", TYPE),
        ("forkserver", "quantity: int", "quantity: float", TYPE),
        ("fork", "quantity: int", "quantity: float", TYPE),
    ],
    ids=["order", "handler", "app", "type", "type forkserver", "type fork"],
)
def test_a_file_that_changes_while_it_runs_ends_the_run(script, tmp_path, method, old, new, told):
    """Where each process imports it, one that dies is enough; else it is their parent."""
    one = script(APP, method=method)
    process, parent = map(int, one.read_until("handling").split()[1:])
    change(tmp_path, old, new)
    os.kill(process if method == "spawn" else parent, signal.SIGKILL)
    code, out, err = one.end()
    assert code == 1
    assert "rows 50 True {0: 50}" in out
    error = err[err.index("PoolError") :]
    assert f"{tmp_path / 'orders.py'} is imported anew" in error
    assert told in error
    assert "start the run again" in error


@pytest.mark.parametrize("above", ['app = App("orders")', 'NAME = "orders"'], ids=["handlers", "app"])
def test_an_app_or_handlers_under_the_guard_are_told(script, above):
    """What an import does not run is missing there, though nobody has changed the file."""
    head, tail = APP.split('app = App("orders")')
    made, run = tail.split('if __name__ == "__main__":')
    made = made if above.startswith("app") else f'app = App("orders"){made}'
    guarded = 'if __name__ == "__main__":\n    ' + f"    {made.strip()}".replace("\n", "\n    ")
    one = script(f"{head}{above}\n\n    {guarded}{run}", method="spawn")
    code, _, err = one.end()
    assert code == 1
    assert "Make them at module level, and have only run() under it" in err[err.index("PoolError") :]
    assert "changed meanwhile" not in err


@pytest.mark.parametrize("made", ["handlers", "app"])
def test_an_app_or_handlers_made_by_a_function_that_no_import_calls_are_told(script, made):
    """Both causes are named: which of them it is cannot be seen."""
    head, tail = APP.split('app = App("orders")')
    handlers, run = tail.split('if __name__ == "__main__":')
    made_there = 'app = App("orders")\n' if made == "app" else ""
    body = textwrap.indent(f"global app, source, sink\n{made_there}{textwrap.dedent(handlers)}", "    ")
    above = "app = None" if made == "app" else 'app = App("orders")'
    function = f'\n{above}\ndef make():\n{body}\nif __name__ == "__main__":\n    make()'
    runs = textwrap.indent(textwrap.dedent(run), "    ")
    code, _, err = script(head, function + runs, method="spawn").end()
    assert code == 1
    error = err[err.index("PoolError") :]
    assert ("there is no handler 'total'" if made == "handlers" else "no App is named 'app' there") in error
    assert "If the file was changed meanwhile, start the run again" in error
    assert 'such as a main() under `if __name__ == "__main__":`: make them at module level' in error


def test_a_file_whose_change_keeps_schema_and_names_goes_on(script, tmp_path):
    one = script(APP, method="spawn")
    process = int(one.read_until("handling").split()[1])
    change(tmp_path, '"quantity": batch["quantity"]', '"quantity": batch["quantity"] * 2')
    os.kill(process, signal.SIGKILL)
    code, out, _ = one.end()
    assert code == 0
    assert "rows 100 True {0: 100}" in out


LOOP = """
    import sys
    from pythia_fast import App, MemoryConsumer, MemoryProducer

    for name, factor in NAMES:
        app, sink = App(name), MemoryProducer()

        def times(batch, factor=factor):
            return [b"%d" % (int(payload) * factor) for payload in batch["payload"].tolist()]

        app.batch_handler(source=MemoryConsumer([b"1", b"2"]), sink=sink, decoder="raw")(times)
        if __name__ == "__main__":
            app.run(workers=1, until="end", state_dir=sys.argv[1] + name, start_method=sys.argv[3])
            print("sent", name, sink.payloads, flush=True)
"""


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([("one", 10), ("two", 20)], "the App there is 'two' and not 'one'"),
        (
            [("same", 10), ("same", 20)],
            "makes several Apps named 'same', and the one that is left at the end is number 2",
        ),
    ],
)
def test_a_loop_that_gives_a_name_to_several_apps_runs_none_in_place_of_another(script, names, told):
    code, out, err = script(LOOP.replace("NAMES", repr(names)), method="forkserver").end()
    assert code == 1
    assert "sent" not in out
    assert told in err


def test_a_loop_that_gives_a_name_to_several_apps_can_fork(script):
    code, out, _ = script(LOOP.replace("NAMES", "[('same', 10), ('same', 20)]"), method="fork").end()
    assert code == 0
    assert "sent same [b'10', b'20']" in out
    assert "sent same [b'20', b'40']" in out

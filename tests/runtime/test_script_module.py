"""pool/script_module.py: what a script defines is found by its name in processes that import the script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
    from __future__ import annotations

    import concurrent.futures, multiprocessing, os, pickle, sys, time
    import msgspec
    from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer

    class Order(msgspec.Struct):
        i: int

    class Customer(msgspec.Struct):
        name: str

    class Enriched(msgspec.Struct):
        i: int
        customer: Customer

    app = App("script")
    sink = MemoryProducer()
    dead = MemoryProducer()
"""
MAIN = """
    if __name__ == "__main__":
        report = app.run(workers=1, until="end", state_dir=sys.argv[1], start_method=sys.argv[3])
        print("rows", report.rows, "sent", len(sink.payloads), "dead", report.dead_lettered, flush=True)
        for letter in dead.records[:1]:
            print(dict(letter.headers)["pf-reason"], flush=True)
"""
ENRICH = """
    @app.batch_handler(source=MemoryConsumer([b'{"i":%d}' % i for i in range(10)]), sink=sink, dead_letter=dead,
                       schema=Order, batch_size=5, ordering="partition", spares=0)
    def enrich(batch: Batch[Order]):
        if KILLED and os.path.exists(sys.argv[1] + ".wait") and batch["i"][0] == 5:
            print("handling", os.getppid(), flush=True)
            time.sleep(1000)
        return [msgspec.convert({"i": i, "customer": {"name": "ann"}}, Enriched) for i in batch["i"].tolist()]
"""
PICKLES = """
    @app.batch_handler(source=MemoryConsumer([pickle.dumps(Customer("ann"))] * 5), sink=sink, dead_letter=dead,
                       decoder="raw")
    def answer(batch: Batch):
        customers = [pickle.loads(payload) for payload in batch["payload"].tolist()]
        return [pickle.dumps(Customer(customer.name.upper())) for customer in customers]
"""
STARTS_A_PROCESS = """
    def upper(customer):
        return Customer(customer.name.upper())

    @app.batch_handler(source=MemoryConsumer([b"ann"]), sink=sink, dead_letter=dead, decoder="raw")
    def answer(batch: Batch):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
            return [others.submit(upper, Customer("ann")).result().name.encode()]
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_type_of_a_field_is_found(script, method):
    code, out, err = script(SCRIPT, ENRICH.replace("KILLED", "False"), MAIN, method=method).end()
    assert (code, err) == (0, "")
    assert out == "rows 10 sent 10 dead 0\n"


def test_it_is_in_a_pool_that_follows_a_forked_one_that_was_killed(script, tmp_path):
    wait = tmp_path / "state.wait"
    wait.touch()
    one = script(SCRIPT, ENRICH.replace("KILLED", "True"), MAIN, method="fork")
    parent = int(one.read_until("handling").split()[1])
    wait.unlink()
    os.kill(parent, signal.SIGKILL)
    code, out, _ = one.end()
    assert (code, out) == (0, "rows 10 sent 10 dead 0\n")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pickles_go_both_ways(script, method):
    loads = """
    if __name__ == "__main__":
        print([pickle.loads(payload).name for payload in sink.payloads])
    """
    code, out, err = script(SCRIPT, PICKLES, MAIN, loads, method=method).end()
    assert (code, err) == (0, "")
    assert out.splitlines() == ["rows 5 sent 5 dead 0", "['ANN', 'ANN', 'ANN', 'ANN', 'ANN']"]


def test_a_process_that_a_handler_starts_finds_it_too(script):
    code, out, err = script(SCRIPT, STARTS_A_PROCESS, MAIN, method="forkserver").end()
    assert (code, err) == (0, "")
    assert out == "rows 1 sent 1 dead 0\n"


SEEN = """
import sys
import json
from pythia_fast import App, Batch, MemoryConsumer, MemoryProducer

seen = {"file": __file__, "package": __package__ or "", "spec": str(__spec__), "argv": sys.argv[1:], "path": sys.path,
        "main": sys.modules["__main__"] is sys.modules[__name__]}
app = App("folder")
sink = MemoryProducer()

@app.batch_handler(source=MemoryConsumer([b"1"]), sink=sink, decoder="raw")
def look(batch: Batch):
    return [seen]

if __name__ == "__main__":
    app.run(workers=1, until="end", state_dir=sys.argv[1], start_method="forkserver")
    there = json.loads(sink.payloads[0])
    print("__main__.py" in there["file"], [key for key in seen if seen[key] != there[key]])
"""


def test_a_folder_that_is_run_finds_itself_as_it_was(tmp_path):
    """But for its name, the module is what it is in the runtime."""
    folder = tmp_path / "orders"
    folder.mkdir()
    (folder / "__main__.py").write_text(SEEN)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(folder), str(tmp_path / "state")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True ['spec']\n"

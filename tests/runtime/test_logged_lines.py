"""What a script that has set up logging sees of a run that nobody watches."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.support.script_process import PRELUDE, Script

#: The first process is killed; the others keep views, leave after two batches, and leave badly.
TROUBLES = """
    import logging, msgspec, signal
    logging.basicConfig(level=os.environ["LEVEL"])

    class Order(msgspec.Struct):
        id: int

    orders = MemoryConsumer([b'{"id":%d}' % i for i in range(600)])

    @app.batch_handler(source=orders, sink=sink, schema=Order, batch_size=100, max_batches_per_process=2)
    class Echo:
        def __init__(self):
            self.kept = []

        def __call__(self, batch):
            try:
                os.mkdir(sys.argv[1] + ".killed")
            except FileExistsError:
                self.kept.append(batch["id"])
                return {"id": batch["id"]}
            os.kill(os.getpid(), signal.SIGKILL)

        def teardown(self):
            raise ValueError("left badly")

    if __name__ == "__main__":
        app.run(workers=1, until="end", state_dir=sys.argv[1], start_method="fork")
"""
TROUBLE = ("was killed by SIGKILL", "was kept after the handler returned", "teardown() raised")
ROUTINE = "has reached its limits"


@pytest.mark.parametrize("level", ["WARNING", "INFO"])
def test_trouble_is_logged_as_a_warning_and_the_ordinary_course_is_not(tmp_path: Path, level: str) -> None:
    with closing(Script(tmp_path, PRELUDE, TROUBLES, LEVEL=level)) as script:
        code, _, err = script.end()
    assert code == 0, err
    lines = err.splitlines()
    for words in TROUBLE:
        assert [line for line in lines if words in line and line.startswith("WARNING:pythia_fast:")], (words, err)
    routine = [line for line in lines if ROUTINE in line]
    assert bool(routine) == (level == "INFO")
    assert all(line.startswith("INFO:pythia_fast:") for line in routine)

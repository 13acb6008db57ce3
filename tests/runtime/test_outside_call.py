"""What is raised in a pool process outside the handler's call costs that process, and nobody else."""

from __future__ import annotations

from tests.support import memory_run


class Loader:
    @staticmethod
    def get_source(name: str) -> str:
        raise SystemExit(4)


def test_a_loader_that_raises_while_a_traceback_is_made_costs_the_row_alone(tmp_path):
    code = compile("raise ValueError('bad row')", "nowhere.py", "exec")

    def handler(batch):
        rows = [int(payload) for payload in batch["payload"].tolist()]
        if 7 in rows:
            exec(code, {"__loader__": Loader(), "__name__": "nowhere"})  # the frame it is to have
        return [b"%d" % row for row in rows]

    report, sink, dead, _ = memory_run.run(tmp_path, handler, memory_run.numbers(20), batch_size=10, workers=1)
    assert memory_run.sorted_ints(sink) == [row for row in range(20) if row != 7]
    headers = {name: value.decode() for name, value in dead.records[0].headers}
    assert headers["pf-reason"] == "ValueError: bad row"
    assert 'File "nowhere.py", line 1, in <module>\nValueError: bad row\n' in headers["pf-traceback"]
    assert report.crashes == 0

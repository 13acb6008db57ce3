"""Handlers that keep views beyond their call: no batch to come is affected."""

from __future__ import annotations

import pytest

from tests.support.memory_run import numbers, run, sorted_ints

ROWS = 2000


@pytest.mark.parametrize("mark", ["reject", "retry"])
@pytest.mark.parametrize("batch_size", [1, 40])
def test_marks_of_a_batch_whose_view_is_kept_mark_no_rows_of_the_next_ones(tmp_path, mark, batch_size):
    """The slots are used again and again, at another address each time a view of theirs is kept."""

    class Keeps:
        def __call__(self, batch):
            self.last = batch["payload"]
            rows = [int(payload) for payload in batch["payload"].tolist()]
            marked = [row % 50 == 7 and batch.attempts[at] == 0 for at, row in enumerate(rows)]
            if any(marked):
                batch.reject(marked, reason="it is one") if mark == "reject" else batch.retry(marked)
            return [b"%d" % row for row in rows]

    report, sink, dead, source = run(tmp_path, Keeps, numbers(ROWS), batch_size=batch_size)
    rejected = [row for row in range(ROWS) if row % 50 == 7 and mark == "reject"]
    assert sorted_ints(dead) == rejected
    assert sorted_ints(sink) == sorted(set(range(ROWS)) - set(rejected))
    assert report.retried == (ROWS // 50 if mark == "retry" else 0)
    assert source.committed == {0: ROWS}

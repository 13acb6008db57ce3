"""The table of a mirror's offsets: against a target that is written by hand, over kills, and on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.brokers.locked_file import FileLockedError
from pythia_fast.errors import SourceError
from pythia_fast.moving import offset_table
from pythia_fast.moving.offset_table import FROM_THE_START, OffsetTable, Run, Translation


class Cluster:
    """A partition of the source with gaps, mirrored by hand; the target's messages are the source's offsets."""

    def __init__(self, gaps: list[int]) -> None:
        self.source = [sum(gaps[: i + 1]) + i for i in range(len(gaps))]
        self.target: list[int] = []

    def mirror(self, first: int, end: int, translation: Translation, markers: set[int]) -> None:
        """Messages first .. end; before those in ``markers`` the target's log has something that is no message."""
        run: Run | None = None
        for offset in self.source[first:end]:
            if offset in markers:
                self.target.append(-1)
            at = len(self.target)
            self.target.append(offset)
            if run is not None and at - offset == run.target_first - run.source_first:
                run.source_last = offset
                continue
            if run is not None:
                translation.note(run)
            run = Run(offset, at, offset)
        if run is not None:
            translation.note(run)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=4),
    st.sets(st.integers(0, 100), max_size=5),
)
def test_no_message_from_a_position_on_lies_before_its_translation(
    gaps: list[int], kills: list[tuple[int, int]], markers: set[int]
) -> None:
    cluster, translation = Cluster(gaps), Translation()
    at = 0
    for step, back in kills:  # runs that are killed: the last messages are mirrored again
        end = min(at + step, len(cluster.source))
        cluster.mirror(at, end, translation, markers)
        at = max(0, end - back)
    cluster.mirror(at, len(cluster.source), translation, markers)
    for position in range(cluster.source[-1] + 2):
        target = translation.target(position)
        assert target is not None
        wanted = [offset for offset in cluster.source if offset >= position]
        # The last copy of each: what lies before the translated position is not needed any more.
        assert set(wanted) <= set(cluster.target[target:])
        if wanted and wanted[0] == position:
            assert cluster.target[target] == position


def test_what_was_mirrored_before_the_table_is_not_known() -> None:
    translation = Translation(begun=100)
    assert translation.target(150) is None
    translation.note(Run(110, 50, 120))
    assert translation.target(99) is None
    assert [translation.target(at) for at in (100, 110, 115, 121, 500)] == [50, 50, 55, 61, 61]
    older = Translation(begun=FROM_THE_START)
    older.note(Run(110, 0, 120))
    assert older.target(3) == 0


def test_many_runs_are_thinned_out_and_never_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_table, "MOST_RUNS", 100)
    translation = Translation()
    for i in range(1000):
        translation.note(Run(2 * i, i, 2 * i))
    assert len(translation.runs) <= 100
    for i in range(1000):
        target = translation.target(2 * i)
        assert target is not None
        assert target <= i
    assert translation.target(1998) == 999


def test_it_is_there_again_after_a_save(tmp_path: Path) -> None:
    path = tmp_path / "offsets" / "g.ndjson"
    table = OffsetTable(path)
    table.begin("orders", 0, FROM_THE_START)
    table.note([("orders", 0, 0, 0, 9)])
    table.note([("orders", 0, 0, 0, 19), ("orders", 0, 30, 20, 39)])
    table.save()
    table.note([("orders", 0, 40, 40, 50)])  # not saved, so it was not committed either
    table.close()
    with path.open("ab") as file:
        file.write(b'["orders",0,40')  # what a kill leaves of a line
    again = OffsetTable(path)
    assert again.knows("orders", 0)
    assert not again.knows("orders", 1)
    assert [again.target("orders", 0, at) for at in (5, 19, 25, 35, 60)] == [5, 19, 20, 25, 30]
    again.close()
    assert OffsetTable(path).target("orders", 0, 35) == 25


def test_one_mirror_has_it(tmp_path: Path) -> None:
    path = tmp_path / "g.ndjson"
    table = OffsetTable(path)
    with pytest.raises(FileLockedError, match="another sink or run"):
        OffsetTable(path)
    table.close()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.ndjson"
    path.write_text('["orders",0,-1]\n["orders",0,"x",0,9]\n')
    with pytest.raises(SourceError, match=r"g.ndjson line 2 is damaged"):
        OffsetTable(path)


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_table, "REWRITE_BYTES", 1000)
    path = tmp_path / "g.ndjson"
    table = OffsetTable(path)
    for last in range(500):
        table.note([("orders", 0, 0, 0, last)])
        table.save()
    assert path.stat().st_size < 1100
    table.close()
    assert os.listdir(tmp_path) == ["g.ndjson"]
    assert OffsetTable(path).target("orders", 0, 499) == 499

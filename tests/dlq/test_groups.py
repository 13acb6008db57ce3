"""Letters counted."""

from __future__ import annotations

from pythia_fast.dlq.groups import grouped
from pythia_fast.pool.notes import DIED
from pythia_fast.refusal import oversize_text
from pythia_fast.runtime.dead_letter_form import StoredLetter, stored_letter
from tests.support.letters import letter


def test_groups_are_counted_with_times_and_sources_the_largest_first() -> None:
    refused = [
        stored_letter(
            letter(reason=f"expected float, found str, field price, byte {at}"), "shop", "score", f"2026-0{at}"
        )
        for at in (3, 1, 2)
    ]
    other = stored_letter(letter(partition=4, error=""), "shop", "audit", "2026-09")
    first, second = grouped([other, *refused], "reason")
    assert (first.handler, first.why, first.count) == ("score", "expected float, found str, field price", 3)
    assert (first.oldest, first.newest) == ("2026-01", "2026-03")
    assert first.sources == {("orders", 3): 3}
    assert (second.handler, second.why, second.count) == ("audit", "ValueError: no sevens", 1)
    assert [(group.why, group.count) for group in grouped([other, *refused], "error")] == [
        ("ValueError", 3),
        ("(rejected by the handler)", 1),
    ]


def test_messages_that_are_too_large_are_one_group_whatever_their_sizes() -> None:
    reasons = [oversize_text(size, 0, 1000) for size in (2000, 3_000_000)]
    (group,) = grouped([stored_letter(letter(reason=why), "shop", "score", "2026-01") for why in reasons], "reason")
    assert group.why == "the payload is larger than a batch may be; raise max_batch_bytes, which is 1,000"
    assert group.count == 2


def test_no_letters_are_no_groups() -> None:
    assert grouped([], "reason") == []


def test_what_killed_is_no_rejection() -> None:
    def stored(reason: str) -> StoredLetter:
        return stored_letter(letter(reason=reason, error=""), "shop", "score", "2026-01")

    segv = stored(f"{DIED} (was killed by SIGSEGV)")
    assert [(group.why, group.count) for group in grouped([segv, segv, stored(DIED), stored("odd")], "error")] == [
        ("(its process was killed by SIGSEGV)", 2),
        ("(its process died)", 1),
        ("(rejected by the handler)", 1),
    ]

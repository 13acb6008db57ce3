"""printable.py: texts that can be shown."""

from __future__ import annotations

import pytest

from pythia_fast.printable import printable, without_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a line\n\tand another", "a line\n\tand another"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u00e4\u00a0\U0001f600", "\u00e4\u00a0\U0001f600"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert without_controls(text) == shown


def test_what_cannot_be_encoded_is_spelled_out_wherever_it_stands() -> None:
    assert printable({"\udcff": ["a", ("\udc80", 1)]}) == {r"\udcff": ["a", [r"\udc80", 1]]}

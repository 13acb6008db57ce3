"""pythia_fast.pool.exception_types: the user's types, one of which may not want to be asked."""

from __future__ import annotations

import pytest

from pythia_fast.pool.exception_types import is_named


class Refuses(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("do not ask")


class Unaskable(Exception, metaclass=Refuses):
    pass


class Likes(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return "please" in str(instance)


class Polite(Exception, metaclass=Likes):
    pass


@pytest.mark.parametrize(
    ("error", "types", "named"),
    [
        (TimeoutError(), (OSError,), True),
        (ValueError(), (OSError, KeyError), False),
        (ValueError(), (), False),
        (None, (Unaskable,), False),
        (ValueError("once more, please"), (Polite,), True),
        (ValueError("once more"), (Polite,), False),
    ],
)
def test_types_are_asked_as_isinstance_does(error, types, named):
    assert is_named(error, types, "retry_on=") is named


class TakesNoNotes(Exception):
    def add_note(self, note: str) -> None:
        raise SystemExit("no notes")


def test_an_exception_that_takes_no_note_is_compared_all_the_same():
    assert not is_named(TakesNoNotes(), (Unaskable,), "retry_on=")


def test_a_type_that_raises_is_told_of_once_in_the_exception():
    error = ValueError("bad row")
    for _ in range(3):
        assert not is_named(error, (Unaskable,), "retry_on=")
    assert error.__notes__ == ["(retry_on= could not be compared with this exception: SystemExit: do not ask)"]

"""What tests of the compiled modules share."""

from __future__ import annotations

import pytest

from tests.support.ring_feed import Feed


@pytest.fixture
def feed(tmp_path):
    made = []

    def make(messages, **options):
        made.append(Feed(tmp_path, messages, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()

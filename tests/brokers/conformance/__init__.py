"""One suite for all brokers: what is promised of each is tested in the same words against each."""

import pytest

pytest.register_assert_rewrite("tests.brokers.conformance.suite")

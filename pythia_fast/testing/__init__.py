"""Helpers for tests of brokers and handlers."""

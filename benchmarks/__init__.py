"""Measurements; outside the default test run (``make bench``)."""

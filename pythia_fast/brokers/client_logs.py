"""What client libraries log of failures: where a command tells those itself, nobody wants them twice."""

from __future__ import annotations

import logging


def quieten_clients() -> None:
    """Have pika and redis-py log nowhere, unless somebody has set up where."""
    for name in ("pika", "redis"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False

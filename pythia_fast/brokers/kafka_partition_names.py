"""Partitions of Kafka topics in sentences."""

from __future__ import annotations

from collections.abc import Iterable


def partition_names(keys: Iterable[tuple[str, int]]) -> str:
    """``orders[0, 1, 2], payments[0]`` for (topic, partition)s."""
    partitions: dict[str, list[int]] = {}
    for topic, partition in sorted(keys):
        partitions.setdefault(topic, []).append(partition)
    return ", ".join(f"{topic}[{', '.join(map(str, numbers))}]" for topic, numbers in partitions.items())

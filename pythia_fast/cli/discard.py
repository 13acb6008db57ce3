"""A sink that drops what it is given, for replays that shall change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pythia_fast.brokers.base import Delivery, Publisher, PublisherContext, Sink


class Discard(Sink):
    """Takes every record and keeps none."""

    def open(self, context: PublisherContext) -> DiscardPublisher:
        """Nothing to connect to."""
        return DiscardPublisher()

    def describe(self) -> str:
        """For the line that announces the handler."""
        return "nowhere"


class DiscardPublisher(Publisher):
    """Delivered at once."""

    def __init__(self) -> None:
        self._tickets: list[int] = []

    def publish(self, records: memoryview, count: int, ticket: int) -> None:
        """Drop the records."""
        self._tickets.append(ticket)

    def deliveries(self, timeout: float = 0.0) -> Sequence[Delivery]:
        """All tickets since the last call."""
        tickets, self._tickets = self._tickets, []
        return [Delivery(ticket) for ticket in tickets]

    def close(self, timeout: float) -> None:
        """Nothing to flush."""

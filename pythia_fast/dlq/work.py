"""Sending the messages of letters again, and marking those letters as dealt with."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pythia_fast.dlq.filters import Filter
from pythia_fast.dlq.original import headers_of, message_of, times_requeued
from pythia_fast.dlq.store import DeadLetterStore, Entry, Place
from pythia_fast.dlq.target import Answer, DryRun, RequeueTarget
from pythia_fast.runtime.dead_letter_form import StoredLetter

WAIT_S = 1.0
PART = 500  #: letters that are dealt with together, in a store that takes them in parts
Step = Callable[[], None]  #: called for every letter that is read


@dataclass(slots=True)
class Outcome:
    """What became of the letters of one store that were meant."""

    sent: Counter[str] = field(default_factory=Counter)  #: by destination
    left_out: Counter[str] = field(default_factory=Counter)  #: by the reason
    refused: Counter[str] = field(default_factory=Counter)  #: by what the target said
    told: list[str] = field(default_factory=list)  #: what the store has to say


@dataclass(frozen=True, slots=True)
class Terms:
    """What is sent again, and how much of it."""

    chosen: Filter
    max_requeues: int
    results: bool = False  #: records that a sink refused, instead of messages of a source
    limit: int | None = None
    archive: bool = True


def chosen_entries(store: DeadLetterStore, chosen: Filter, step: Step) -> Iterator[Entry]:
    """The letters of the store that are meant."""
    for entry in store.entries():
        step()
        if chosen.matches(entry.stored):
            yield entry


def requeue(store: DeadLetterStore, target: RequeueTarget, terms: Terms, outcome: Outcome, step: Step) -> None:
    """Send the messages of the letters that are meant; those that arrived are dealt with, also where it is cut short.

    ``outcome`` is filled while it goes. A DryRun target leaves the store as it is. Raises SourceError, SinkError.
    """
    with contextlib.closing(target):
        if isinstance(target, DryRun):
            _Sending(store, target, terms, outcome).run(step, lambda sending: None)
            return

        def settle_part(sending: _Sending) -> None:
            if store.settles_in_parts and len(sending.arrived) >= PART:
                outcome.told += store.settle(sending.arrived, archive=terms.archive)
                sending.arrived = []

        with store.claim():
            sending = _Sending(store, target, terms, outcome)
            try:
                sending.run(step, settle_part)
            finally:
                # What has arrived must not be sent a second time, whatever it is that ends this.
                sending.take([answer for answer in target.close() if not answer.refused])
                outcome.told += store.settle(sending.arrived, archive=terms.archive)


class _Sending:
    """One store's messages on their way."""

    def __init__(self, store: DeadLetterStore, target: RequeueTarget, terms: Terms, outcome: Outcome) -> None:
        self._store = store
        self._target = target
        self._terms = terms
        self._outcome = outcome
        self._waiting: dict[Place, str] = {}  # their destinations
        self.arrived: list[Place] = []

    def run(self, step: Step, part: Callable[[_Sending], None]) -> None:
        """Send, and wait for every answer. ``part``: called whenever answers were taken in."""
        sent = 0
        for entry in chosen_entries(self._store, self._terms.chosen, step):
            message = message_of(entry.stored)
            why = _obstacle(entry.stored, self._terms) or self._target.obstacle(message)
            if why:
                self._outcome.left_out[why] += 1
                continue
            self._waiting[entry.place] = self._target.destination(message)
            self._target.send(message, entry.place)
            self.take(self._target.answers())
            part(self)
            sent += 1
            if sent == self._terms.limit:
                break
        while self._waiting:
            self.take(self._target.answers(WAIT_S))
            part(self)

    def take(self, answers: list[Answer]) -> None:
        """Count what became of them."""
        for answer in answers:
            destination = self._waiting.pop(answer.place)
            if answer.refused:
                self._outcome.refused[f"{destination}: {answer.refused}"] += 1
            else:
                self._outcome.sent[destination] += 1
                self.arrived.append(answer.place)


def _obstacle(stored: StoredLetter, terms: Terms) -> str:
    is_result = stored.offset < 0
    if is_result and not terms.results:
        return (
            "they hold results that a sink refused, not messages: send those with --results to --to-topic or --to-file"
        )
    if terms.results and not is_result:
        return "they hold messages, and --results asks for results"
    if times_requeued(headers_of(stored)) >= terms.max_requeues:
        return f"they came back {terms.max_requeues} times or more already: raise --max-requeues to send them again"
    return ""

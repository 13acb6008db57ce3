"""Messages back to Kafka topics, confirmed by every in-sync replica."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Delivered

from pythia_fast.brokers.kafka_client import KafkaAccess, missing, text_of
from pythia_fast.dlq.original import Message
from pythia_fast.dlq.store import Place
from pythia_fast.dlq.target import Answer, RequeueTarget
from pythia_fast.errors import SinkError

CLOSE_S = 5.0
#: Beyond the timeout after which librdkafka gives a message up: it has been seen not to, with a broker that died.
SILENCE_S = 10.0


class KafkaTarget(RequeueTarget):
    """``topic``: for all of them; None: each goes back to its own.

    The partition is chosen by the key, as by any producer, unless ``same_partition``.
    Raises SinkError when no broker answers, or there is no such ``topic``.
    """

    def __init__(self, access: KafkaAccess, *, topic: str | None, same_partition: bool) -> None:
        self._access = access
        self._topic = topic
        self._same_partition = same_partition
        self._producer = access.producer()
        self._known = access.topics(self._producer, SinkError)
        if topic is not None and topic not in self._known:
            raise SinkError(missing(topic, self._known, access.servers))
        self._answers: list[Answer] = []
        self._silent_since_s = time.monotonic()

    def destination(self, message: Message) -> str:
        return f"kafka topic {self._topic or message.topic}"

    def obstacle(self, message: Message) -> str:
        topic = self._topic or message.topic
        if topic not in self._known:
            hint = "where it was no Kafka topic that they came from, give --to-topic or --to-file"
            return f"{missing(topic, self._known, self._access.servers)} ({hint})"
        if self._same_partition and message.partition not in self._known[topic]:
            return f"kafka topic {topic} has no partition {message.partition}"
        return ""

    def send(self, message: Message, place: Place) -> None:
        def reported(error: KafkaError | None, delivered: Delivered) -> None:
            self._answers.append(Answer(place, "" if error is None else text_of(error)))

        deadline = time.monotonic() + self._access.timeout_s
        if not len(self._producer):
            self._silent_since_s = time.monotonic()
        while True:
            try:
                self._producer.produce(
                    self._topic or message.topic,
                    value=message.payload,
                    key=message.key,
                    headers=list(message.headers),
                    partition=message.partition if self._same_partition else -1,
                    on_delivery=reported,
                )
            except BufferError:  # full of what waits; each report makes room
                self._producer.poll(0.1)
                if time.monotonic() > deadline:
                    raise SinkError(f"Kafka at {self._access.servers} takes no more messages") from None
            except KafkaException as error:  # too large, say: refused before it is sent
                self._answers.append(Answer(place, text_of(error.args[0])))
                return
            else:
                return

    def answers(self, timeout_s: float = 0.0) -> list[Answer]:
        self._producer.poll(0 if self._answers else timeout_s)
        answers, self._answers = self._answers, []
        now = time.monotonic()
        if answers or not len(self._producer):
            self._silent_since_s = now
        elif now - self._silent_since_s > self._access.timeout_s + SILENCE_S:
            silent_s = now - self._silent_since_s
            raise SinkError(
                f"Kafka at {self._access.servers} has confirmed nothing for {silent_s:.0f} s: is it running?"
            )
        return answers

    def close(self) -> list[Answer]:
        # What is under way may still arrive, so its report is waited for; the rest is taken back.
        self._producer.purge(in_queue=True, in_flight=False, blocking=True)
        self._producer.flush(CLOSE_S)
        answers, self._answers = self._answers, []
        return answers

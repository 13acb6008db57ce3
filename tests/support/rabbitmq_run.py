"""RabbitMQ for a test: publish, count, and run a handler over a queue."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Any

import pika

from pythia_fast import App, RabbitMQConsumer, RunReport
from pythia_fast.brokers.memory import MemoryProducer
from tests.support.memory_run import Events, echo
from tests.support.rabbitmq_server import RabbitMqServer

_numbers = itertools.count()


class Queue:
    """A queue that no other test uses, with a connection of the test's own."""

    def __init__(self, server: RabbitMqServer, **declared: Any) -> None:
        self.name = f"queue-{next(_numbers)}"
        self.server = server
        self._connection = pika.BlockingConnection(pika.URLParameters(server.url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()
        self.channel.queue_declare(self.name, **{"durable": True, **declared})

    def publish(self, payloads: Iterable[bytes], **properties: Any) -> None:
        for payload in payloads:
            self.channel.basic_publish("", self.name, payload, pika.BasicProperties(**properties))

    def count(self) -> int:
        """Messages ready in it."""
        return int(self.channel.queue_declare(self.name, passive=True).method.message_count)

    def close(self) -> None:
        self._connection.close()


def echo_app(source: RabbitMQConsumer, **options: Any) -> tuple[App, MemoryProducer]:
    """An app that sends every payload on, and where to."""
    app, sink = App("rabbit"), MemoryProducer()
    app.batch_handler(**{"source": source, "sink": sink, "decoder": "raw", "name": "echo", **options})(echo)
    return app, sink


class Running:
    """An app that runs in a thread until it is stopped."""

    def __init__(self, app: App, **options: Any) -> None:
        self.events = Events()
        self.report: RunReport | None = None
        self.error: BaseException | None = None
        self._app, self._options = app, {"workers": 1, **options}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.report = self._app.run(observer=self.events, **self._options)
        except BaseException as error:
            self.error = error

    def join(self, timeout: float = 100.0) -> None:
        self._thread.join(timeout)
        assert not self._thread.is_alive()

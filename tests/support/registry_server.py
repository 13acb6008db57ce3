"""A schema registry's answers over HTTP, as far as readers ask for them: schemas by their number, versions of subjects.

Stands in for a server of its own: its errors and its absence can be had at will.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOT_FOUND = {"error_code": 40403, "message": "Schema not found"}


class RegistryServer:
    """``schemas``: number -> what is answered for it. ``versions``: (subject, version) -> the same."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.versions: dict[tuple[str, int], dict[str, Any]] = {}
        self.status = 200  #: of all answers that would be good ones
        self.asked: list[str] = []
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answering.asked.append(self.path)
                status, body = answering.answer(self.path.partition("?")[0].strip("/").split("/"))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def add(self, number: int, schema: Any, **more: Any) -> None:
        self.schemas[number] = {"schema": json.dumps(schema)} | more

    def answer(self, path: list[str]) -> tuple[int, dict[str, Any]]:
        if self.status != 200:
            return self.status, {"error_code": self.status * 100 + 1, "message": "not now"}
        found: dict[str, Any] | None = None
        if path[:2] == ["schemas", "ids"]:
            found = self.schemas.get(int(path[2]))
        elif path[0] == "subjects":
            found = self.versions.get((path[1], int(path[3])))
        return (404, NOT_FOUND) if found is None else (200, found)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def registry_server() -> Iterator[RegistryServer]:
    server = RegistryServer()
    try:
        yield server
    finally:
        server.close()

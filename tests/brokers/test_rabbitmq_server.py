"""The server that the RabbitMQ tests run against: is it a world of its own, and is nothing of it left behind?"""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.support.rabbitmq_server import RabbitMqServer


def processes_of(folder: Path) -> list[str]:
    """Those whose environment or command names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_server_that_is_closed_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "rabbitmq"
    with RabbitMqServer(folder) as server:
        assert server.pid is not None
        assert any("epmd" in command for command in processes_of(folder))
    assert processes_of(folder) == []
    assert not folder.exists()

"""pythia_fast.runtime.control: the socket by which a run is asked."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythia_fast.errors import ConfigError
from pythia_fast.runtime import control
from pythia_fast.runtime.control import Answer, ControlServer, Request, ask, remove_stale, running, socket_path

PID = os.getpid()


def reply(request: Request) -> object:
    if request.do == "fail":
        raise ConfigError("a sentence")
    return [request.do, *request.handlers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its path alone is longer than the address of a socket may be."""
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    return deep


@pytest.fixture
def server(folder: Path) -> Iterator[ControlServer]:
    made = ControlServer(folder, reply)
    yield made
    made.close()
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("server")
def test_requests_are_answered_one_after_the_other(folder: Path) -> None:
    assert running(folder) == [PID]
    assert stat.S_IMODE(socket_path(folder, PID).stat().st_mode) == 0o600
    for _ in range(3):
        assert ask(folder, PID, Request("pause", ["a", "b"])) == Answer(result=["pause", "a", "b"])
    assert ask(folder, PID, Request("fail")) == Answer(refused="a sentence")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"\xff\n", b'{"do":1}\n', b'{"do":"x","more":1}\n', b"[" * 9999]
)
def test_what_is_no_request_is_refused_and_the_next_one_answered(folder: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection, control.short_path(folder) as short:
        connection.connect(str(short / socket_path(folder, PID).name))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        assert b'{"refused":"no request: ' in control.read_line(connection)
    assert ask(folder, PID, Request("x")).result == ["x"]


def test_who_says_nothing_or_too_much_delays_others_no_longer_than_the_patience(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MOST_BYTES", 1000)
    server = ControlServer(folder, reply, patience_s=0.2)
    for said in (b"x" * 2000, b"", b"half a requ"):
        with socket.socket(socket.AF_UNIX) as connection, control.short_path(folder) as short:
            connection.connect(str(short / socket_path(folder, PID).name))
            connection.sendall(said)
            assert ask(folder, PID, Request("x")).result == ["x"]
            assert control.read_line(connection) == b""
    server.close()


def test_sockets_of_runs_that_were_killed_are_removed_and_those_of_others_left(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed, control.short_path(folder) as short:
        killed.bind(str(short / "control-999999999.sock"))
    (folder / "control-x.sock").touch()
    with socket.socket(socket.AF_UNIX) as live, control.short_path(folder) as short:
        live.bind(str(short / "control-1.sock"))
        live.listen(1)
        assert running(folder) == [1, 999999999]
        remove_stale(folder)
        assert running(folder) == [1]
    with pytest.raises(OSError):
        ask(folder, 1, Request("x"))
    made = ControlServer(folder, reply)
    assert running(folder) == [PID]
    made.close()
    assert running(folder) == []


def test_a_folder_that_is_not_there_has_no_socket(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        ControlServer(tmp_path / "none", reply)

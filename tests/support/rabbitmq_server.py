"""A real RabbitMQ for tests and benchmarks: one node of Debian's package, own ports, own data folder, own users.

In tests it is the session fixture ``rabbitmq`` (see ``tests/conftest.py``). By hand::

    python -m tests.support.rabbitmq_server    # prints the address, runs until Ctrl-C

The node has a port mapper (epmd) of its own, a child of ours like the node: nothing of either is left behind, and
another RabbitMQ of this machine is not met. Users and virtual hosts come from a file of definitions that the node reads
when it boots, since every call of rabbitmqctl costs seconds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import trustme

from tests.support.kafka_broker import _die_with_parent, _tail, free_ports

PROGRAMS = Path("/usr/lib/rabbitmq/bin")  # those of /usr/sbin change to a user and a folder of the system's
ADDRESS = "127.0.0.1"
NODE = "tests@localhost"
USER, PASSWORD = "pythia", "fast"
READ_ONLY_USER = "reader"  #: may read every queue, and declare and write none
OTHER_VHOST = "other"

CONFIGURATION = """\
listeners.tcp.1 = {address}:{port}
listeners.ssl.1 = {address}:{tls_port}
ssl_options.cacertfile = {folder}/authority.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_none
stream.listeners.tcp.1 = {address}:{stream_port}
stream.listeners.ssl.1 = {address}:{stream_tls_port}
stream.advertised_host = {address}
stream.advertised_port = {stream_port}
load_definitions = {folder}/definitions.json
log.file.level = info
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""


class ServerError(RuntimeError):
    """The test server cannot be had; the text says what to install or where to look."""


class RabbitMqServer:
    """One node. The ports and the data stay the same over ``restart()``; ``close()`` removes the data."""

    def __init__(self, folder: Path | None = None, *, settings: str = "") -> None:
        """``settings``: further lines of rabbitmq.conf."""
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="pythia-fast-rabbitmq-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port, self.stream_port, self.stream_tls_port, self._epmd_port, self._node_port = free_ports(
            6
        )
        self.log_path = self.folder / "server.log"
        self.authority_path = self.folder / "authority.pem"
        self._settings = settings
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_for(USER, PASSWORD)

    def url_for(self, user: str, password: str = PASSWORD, *, port: int | None = None, vhost: str = "%2F") -> str:
        return f"amqp://{user}:{password}@{ADDRESS}:{port or self.port}/{vhost}"

    @property
    def pid(self) -> int | None:
        """Of the node; what it runs in is one process."""
        return self._node.pid if self._node is not None else None

    def tls_context(self) -> ssl.SSLContext:
        """For a client that trusts this server."""
        return ssl.create_default_context(cafile=str(self.authority_path))

    def start(self, timeout: float = 120.0) -> RabbitMqServer:
        """Start and return once the node serves."""
        if self._node is not None:
            raise ServerError("the server is running already")
        if not (PROGRAMS / "rabbitmq-server").exists():
            raise ServerError(
                "RabbitMQ is missing, which the tests of that broker need: apt-get install rabbitmq-server"
            )
        if not (self.folder / "rabbitmq.conf").exists():
            self._write_files()
        self._start_epmd(timeout)
        with self.log_path.open("ab") as log:
            self._node = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # The start script is then replaced by the node, so that its process id is the one that we have.
                env={**self._environment(), "RUNNING_UNDER_SYSTEMD": "true"},
                start_new_session=True,  # Ctrl-C is for the test run, which stops the server itself
                preexec_fn=_die_with_parent,
            )
        self._wait_ready(timeout)
        return self

    def _write_files(self) -> None:
        (self.folder / "rabbitmq.conf").write_text(
            CONFIGURATION.format(
                address=ADDRESS,
                port=self.port,
                tls_port=self.tls_port,
                stream_port=self.stream_port,
                stream_tls_port=self.stream_tls_port,
                folder=self.folder,
            )
            + self._settings
        )
        (self.folder / "enabled_plugins").write_text("[rabbitmq_stream].\n")
        (self.folder / "environment.conf").write_text("")  # else /etc/rabbitmq/rabbitmq-env.conf is read
        (self.folder / "definitions.json").write_text(json.dumps(definitions()))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority_path)
        certificate = authority.issue_cert(ADDRESS, "localhost")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "server.pem")
        certificate.private_key_pem.write_to_path(self.folder / "server.key")

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": folder,  # where the cookie is
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": ADDRESS,
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/environment.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _start_epmd(self, timeout: float) -> None:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ServerError("Erlang's epmd is missing, which RabbitMQ needs: apt-get install erlang-base")
        with self.log_path.open("ab") as log:
            self._epmd = subprocess.Popen(
                [epmd, "-port", str(self._epmd_port), "-address", ADDRESS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        # A node that finds none starts one, which would outlive it.
        if not _answers(self._epmd_port, time.monotonic() + timeout, self._epmd):
            self.kill()
            raise ServerError(f"epmd did not start: {_tail(self.log_path.read_bytes())}")

    def _wait_ready(self, timeout: float) -> None:
        """The listeners are opened last, and all of them by one process: TLS after plain, the plugin's after both."""
        assert self._node is not None
        deadline = time.monotonic() + timeout
        if all(
            _answers(port, deadline, self._node)
            for port in (self.port, self.tls_port, self.stream_port, self.stream_tls_port)
        ):
            return
        self.kill()
        raise ServerError(
            f"RabbitMQ was not ready after {timeout:.0f} s; its log ({self.log_path}) ends:\n"
            f"{_tail(self.log_path.read_bytes())}"
        )

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, which takes seconds; what it printed."""
        done = subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--quiet", *arguments],
            env=self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"rabbitmqctl {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def evaluate(self, expressions: str) -> str:
        """Have the node evaluate Erlang; the last value. It takes milliseconds, where each rabbitmqctl boots a node."""
        cookie = (self.folder / ".erlang.cookie").read_text().strip()
        done = subprocess.run(
            ["erl_call", "-sname", NODE, "-c", cookie, "-e"],
            input=f"{expressions}.\n",
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        value = re.fullmatch(r"\{ok, (.*)\}\s*", done.stdout, re.DOTALL)
        if value is None:
            raise ServerError(f"erl_call {expressions}:\n{done.stdout}{done.stderr}")
        return value[1]

    def messages(self, queue: str) -> int:
        """Of a queue: ready and unacknowledged, as ``rabbitmqctl list_queues`` has it."""
        name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
        return int(
            self.evaluate(
                f"{{ok, Queue}} = rabbit_amqqueue:lookup({name}), "
                "[{messages, Count}] = rabbit_amqqueue:info(Queue, [messages]), Count"
            )
        )

    def stop(self, timeout: float = 60.0) -> None:
        """Stop as an operator would; the data stays."""
        if self._node is not None:
            self._node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._node.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """As a power cut would; the data stays."""
        for process in (self._node, self._epmd):
            if process is not None:
                process.kill()
                process.wait()
        self._node = self._epmd = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RabbitMqServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def definitions() -> dict[str, object]:
    """Users, virtual hosts and permissions, as the node imports them."""
    vhosts = ["/", OTHER_VHOST]
    owners = [{"user": USER, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"} for vhost in vhosts]
    reader = {"user": READ_ONLY_USER, "vhost": "/", "configure": "^$", "write": "^$", "read": ".*"}
    return {
        "users": [
            {"name": USER, "password_hash": password_hash(PASSWORD), "tags": "administrator"},
            {"name": READ_ONLY_USER, "password_hash": password_hash(PASSWORD), "tags": ""},
        ],
        "vhosts": [{"name": vhost} for vhost in vhosts],
        "permissions": [*owners, reader],
    }


def password_hash(password: str) -> str:
    """As rabbit_password_hashing_sha256 has it: base64 of four bytes of salt and the SHA-256 of salt and password."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _answers(port: int, deadline: float, process: subprocess.Popen[bytes]) -> bool:
    """Wait until somebody listens there; False: the process ended, or time is up."""
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), 1):
            return True
        time.sleep(0.05)
    return False


def main() -> int:
    server = RabbitMqServer()
    try:
        server.start()
        print(f"RABBITMQ_URL={server.url}", flush=True)
        print(
            f"TLS on port {server.tls_port}, streams on {server.stream_port}, pid {server.pid}, "
            f"log {server.folder}/log; Ctrl-C stops it",
            flush=True,
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell has what is in the background ignore SIGINT
            signal.signal(number, lambda *_: sys.exit(0))
        signal.pause()
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

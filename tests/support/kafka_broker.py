"""A real Apache Kafka for tests and benchmarks: one node (KRaft), own ports, own data folder.

In tests it is the session fixture ``kafka`` (see ``tests/conftest.py``). By hand::

    python -m tests.support.kafka_broker                     # prints the address, runs until Ctrl-C
    python -m tests.support.kafka_broker --topic orders:4    # with a topic of four partitions
    python -m tests.support.kafka_broker --fetch             # only download the jars

Where the jars come from is in ``kafka_libraries.py``. Before the first broker one is run to prepare the others: it
takes some 10 s of processor time, and saves three of each later start, which has its classes loaded and verified, and
its folder formatted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.support.kafka_libraries import KAFKA_VERSION, BrokerError, java_program, libraries, prepared

CLUSTER_ID = "cHl0aGlhLWZhc3QtdGVzdA"
READY_LINE = b"Kafka Server started"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{advertised_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.share.min.heartbeat.interval.ms=300
group.share.heartbeat.interval.ms=300
group.share.min.session.timeout.ms=1000
group.share.session.timeout.ms=3000
group.share.min.record.lock.duration.ms=1000
log.retention.hours=1
metadata.max.idle.interval.ms=0
"""

#: As Kafka's own start script (kafka-run-class.sh) has it. With it goes a heap that is its full size from the
#: beginning: one that starts small is collected every second, and marked all the time, since 128 MB of it are the log
#: cleaner's.
GARBAGE_COLLECTION = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
)

#: A broker of a test lives for seconds: what the second, thorough compiler makes of it comes too late, and costs as
#: much processor time as the rest of the start.
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"


CLASSES = "classes.jsa"  #: of what is prepared: the classes of a broker, as Java has them in memory
BOOTSTRAP = "bootstrap.checkpoint"  #: and the metadata that a formatted folder begins with, whoever it is of

META = """\
version=1
cluster.id={cluster}
node.id={node}
directory.id={directory}
"""

#: Below those that the kernel gives to the near ends of connections (from 32768 on): there a client that knocks at a
#: stopped broker could take the broker's port itself, as could any other process that connects to somewhere.
SERVER_PORTS = range(10_000, 32_000)
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, and that this process has not been given before.

    They are drawn at random, so that test processes that run at once hardly ever draw the same one.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(SERVER_PORTS, len(SERVER_PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _given:
                probe.bind(("127.0.0.1", port))
                found.append(port)
    _given.update(found)
    return found


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class KafkaBroker:
    """One broker. The ports and the data stay the same over ``restart()``; ``close()`` removes the data.

    ``advertised_port``: that of a proxy before ``proxied_port``: clients that come by it are told to come by it again,
    while those of ``bootstrap_servers`` are not. ``settings``: properties that are added, or replace the ones here.
    ``cluster_id``: 16 bytes in base64 without their padding; brokers that are to be told apart by it need their own.
    ``sustained``: it is to bear load for long, as in benchmarks, and is compiled thoroughly; its start costs twice as
    much.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        heap: str = "512m",
        settings: dict[str, str] | None = None,
        advertised_port: int | None = None,
        cluster_id: str = CLUSTER_ID,
        sustained: bool = False,
    ) -> None:
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="pythia-fast-kafka-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.controller_port, self.proxied_port = free_ports(3)
        self._advertised_port = advertised_port if advertised_port is not None else self.proxied_port
        self.log_path = self.folder / "broker.log"
        self._heap = heap
        self._cluster_id = cluster_id
        self._compiler = [] if sustained else [QUICK_COMPILER]
        self._prepares: Path | None = None  #: folder that this broker prepares others in
        self.settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._formatted = False
        self._log_begin = 0  #: size of the log when the broker was launched last

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self, timeout: float = 180.0) -> KafkaBroker:
        """Start and return once the broker serves."""
        self.launch()
        self.wait_ready(timeout)
        return self

    def launch(self) -> None:
        """Start and return at once; ``wait_ready`` must follow."""
        if self._process is not None:
            raise BrokerError("the broker is running already")
        java, jars = java_program(), f"{libraries()}/*"
        ready = self._prepares or prepared(java, _prepare)
        properties = self.folder / "server.properties"
        if not self._formatted:
            text = PROPERTIES.format(
                port=self.port,
                proxied_port=self.proxied_port,
                advertised_port=self._advertised_port,
                controller_port=self.controller_port,
                data=self.folder / "data",
            )
            # Of a property that stands there twice, Java takes the last.
            properties.write_text(text + "".join(f"{name}={value}\n" for name, value in self.settings.items()))
            if self._prepares is not None:
                _format(java, jars, properties)
                shutil.copy(self.folder / "data" / BOOTSTRAP, ready)
            else:
                self._write_data_folder(ready / BOOTSTRAP)
            self._formatted = True
        options = [f"-Xms{self._heap}", f"-Xmx{self._heap}", *GARBAGE_COLLECTION, *self._compiler]
        options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info"]
        # What the JVM unpacks (libraries for lz4 and zstd) stays there when it is killed, so it goes with the folder.
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        options += [f"-Djava.io.tmpdir={temporary}", "-XX:-UsePerfData"]
        if self._prepares is not None:
            options.append(f"-XX:ArchiveClassesAtExit={ready / CLASSES}")
        elif (ready / CLASSES).exists():  # there is none of a Java that comes without an archive of its own classes
            options.append(f"-XX:SharedArchiveFile={ready / CLASSES}")
        self._log_begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [java, *options, "-cp", jars, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for the test run, which stops the broker itself
                preexec_fn=_die_with_parent,
            )

    def _write_data_folder(self, bootstrap: Path) -> None:
        """What ``StorageTool format`` writes, without a JVM."""
        data = self.folder / "data"
        data.mkdir()
        shutil.copy(bootstrap, data)
        directory = "d" + secrets.token_urlsafe(16)[1:]  # 16 bytes in base64, which may not begin with "-"
        node = self.settings.get("node.id", "1")
        (data / "meta.properties").write_text(META.format(cluster=self._cluster_id, node=node, directory=directory))

    def wait_ready(self, timeout: float = 180.0) -> None:
        """Return once the broker that was launched serves."""
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self.log_path.open("rb") as log:
                log.seek(self._log_begin)
                text = log.read()
            if READY_LINE in text:
                return
            if self._process.poll() is not None:
                self._process = None
                raise BrokerError(f"Kafka did not start; its log ({self.log_path}) ends:\n{_tail(text)}")
            time.sleep(0.05)
        self.kill()
        raise BrokerError(f"Kafka was not ready after {timeout:.0f} s; its log ({self.log_path}) ends:\n{_tail(text)}")

    def stop(self, timeout: float = 30.0) -> None:
        """Stop as an operator would; the data stays."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """As a power cut would; the data stays."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> KafkaBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name once the broker knows it; ``config`` with ``_`` for ``.``."""
        from confluent_kafka.admin import AdminClient, NewTopic

        settings = {option.replace("_", "."): value for option, value in config.items()}
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(30)
        wait_for_leaders(admin, name, partitions)
        return name


def _prepare(folder: Path) -> None:
    """Run one broker for what the others begin with: ``CLASSES`` and ``BOOTSTRAP``."""
    with tempfile.TemporaryDirectory(prefix="pythia-fast-kafka-") as scratch:
        broker = KafkaBroker(Path(scratch))
        broker._prepares = folder
        with broker:
            broker.create_topic("any")
            broker.stop(180)  # Java writes the archive when it ends


def _format(java: str, jars: str, properties: Path) -> None:
    command = [java, "-Xmx128m", QUICK_COMPILER, "-cp", jars, "kafka.tools.StorageTool", "format"]
    command += ["-t", CLUSTER_ID, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BrokerError(f"StorageTool format failed:\n{done.stdout}{done.stderr}")


def wait_for_leaders(admin: object, name: str, partitions: int) -> None:
    """Return once every partition of the topic has a leader."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        topic = admin.list_topics(name, timeout=10).topics[name]  # type: ignore[attr-defined]
        if len(topic.partitions) == partitions and all(p.leader >= 0 for p in topic.partitions.values()):
            return
        time.sleep(0.02)
    raise BrokerError(f"topic {name} has no leaders after 30 s")


def _tail(text: bytes, lines: int = 15) -> str:
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running_broker(**options: object) -> Iterator[KafkaBroker]:
    """A broker for the length of a ``with`` block; a failure says what to install."""
    broker = KafkaBroker(**options)  # type: ignore[arg-type]
    try:
        yield broker.start()
    finally:
        broker.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.kafka_broker", description=__doc__.splitlines()[0])
    parser.add_argument("--fetch", action="store_true", help="download the jars and leave")
    parser.add_argument("--topic", action="append", default=[], metavar="NAME:PARTITIONS", help="topic to create")
    arguments = parser.parse_args()
    try:
        if arguments.fetch:
            prepared(java_program(), _prepare)
            print(f"Apache Kafka {KAFKA_VERSION} is in {libraries()}")
            return 0
        # A cluster of its own: one who tries a mirror starts two of them.
        with running_broker(sustained=True, cluster_id="p" + secrets.token_urlsafe(16)[1:]) as broker:
            for topic in arguments.topic:
                name, _, partitions = topic.partition(":")
                broker.create_topic(name, int(partitions or 1))
            print(f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}", flush=True)
            print(f"pid {broker.pid}, log {broker.log_path}; Ctrl-C stops it", flush=True)
            for number in (signal.SIGINT, signal.SIGTERM):  # a shell has what is in the background ignore SIGINT
                signal.signal(number, lambda *_: sys.exit(0))
            signal.pause()
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

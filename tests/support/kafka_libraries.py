"""Apache Kafka's jars, and what a Java makes of them once, so that a broker of a test starts in a third of the time.

The jars (54 MB) come from Maven Central by ``mvn dependency:copy-dependencies`` and are kept in
``.cache/kafka-libs`` of the project, or where ``PYTHIA_FAST_KAFKA_LIBS`` points.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

KAFKA_VERSION = "4.3.1"
SCALA_VERSION = "2.13"
ROOT = Path(__file__).resolve().parents[2]

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>pythia-fast</groupId><artifactId>test-broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA_VERSION}</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class BrokerError(RuntimeError):
    """The test broker cannot be had; the text says what to install or where to look."""


def libraries() -> Path:
    """The folder with Kafka's jars, filled on first use."""
    folder = Path(os.environ.get("PYTHIA_FAST_KAFKA_LIBS") or ROOT / ".cache" / "kafka-libs")
    marker = folder / f"kafka_{SCALA_VERSION}-{KAFKA_VERSION}.jar"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, "libraries"):  # two test runs at once: one downloads, the other waits
        if not marker.exists():
            _download(folder)
        if not marker.exists():
            raise BrokerError(f"Maven brought no {marker.name} into {folder}")
    return folder


def _download(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            "Apache Kafka's jars are not cached yet and Maven is missing: apt-get install maven openjdk-17-jre-headless"
        )
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch, "pom.xml")
        pom.write_text(POM)
        fetched = Path(scratch, "libs")
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{done.stdout}{done.stderr}")
        for jar in fetched.glob("*.jar"):
            shutil.move(jar, folder / jar.name)


def java_program() -> str:
    """Where Java is."""
    java = shutil.which("java")
    if java is None:
        raise BrokerError("Java is missing, and Apache Kafka needs it: apt-get install openjdk-17-jre-headless")
    return java


def prepared(java: str, make: Callable[[Path], None]) -> Path:
    """The folder of what ``make`` writes into the folder that it is given, once for this Java and these jars.

    Java takes an archive of classes only with the very jars that it was made of, in the same place.
    """
    folder = libraries()
    parts = [Path(java).resolve(), *sorted(folder.glob("*.jar"))]
    facts = [(str(part), part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    place = folder / f"prepared-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
    if place.exists():
        return place
    with _locked(folder, "prepared"):  # whoever prepares asks for the libraries
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix="preparing-") as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                make(made)
                made.rename(place)
    return place


@contextlib.contextmanager
def _locked(folder: Path, what: str) -> Iterator[None]:
    with (folder / f".{what}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""What an installed wheel must do; run by scripts/smoke.sh with each Python, outside the project."""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

import pythia_fast
from pythia_fast import App, Batch, FileConsumer, MemoryConsumer, MemoryProducer


class Order(msgspec.Struct):
    """The smallest order worth scoring."""

    price: float
    qty: int


ORDERS = [b'{"price":1.5,"qty":2}', b'{"qty":4,"price":2.25}', b'{"price":3,"qty":1,"note":"x"}']


def check(what: str, seen: object, wanted: object) -> None:
    """Stop when two values differ."""
    if seen != wanted:
        sys.exit(f"{what}: {seen!r} instead of {wanted!r}")


def decode() -> None:
    """Three rows become columns without a runtime."""
    batch = Batch.decode(ORDERS, Order)
    check("decoded rows", (batch["price"] * batch["qty"]).tolist(), [3.0, 9.0, 3.0])
    check("refused rows", list(batch.bad), [])


def run(folder: Path) -> None:
    """Rows go from memory and from a file through the pool."""
    path = folder / "orders.ndjson"
    path.write_bytes(b"\n".join(ORDERS) + b"\n")
    app = App("smoke")
    sink = MemoryProducer()

    @app.batch_handler(source=MemoryConsumer(ORDERS * 10), sink=sink, schema=Order, batch_size=16)
    def from_memory(batch: Batch[Order]) -> dict[str, object]:
        return {"revenue": batch["price"] * batch["qty"]}

    @app.batch_handler(source=FileConsumer(path=path, consumer_group="smoke"), schema=Order, batch_size=16)
    def from_file(batch: Batch[Order]) -> None:
        assert batch["qty"].sum() == 7

    report = app.run(workers=2, until="end", state_dir=folder / "state")
    check("rows handled", report.rows, 33)
    check("rows dead-lettered", report.dead_lettered, 0)
    check("rows sent", len(sink.payloads), 30)


def command_line() -> None:
    """The command starts."""
    command = [sys.executable, "-I", "-m", "pythia_fast", "version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    check("version named", pythia_fast.__version__ in answer.stdout, True)


if __name__ == "__main__":
    decode()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name))
    command_line()
    print(f"Python {platform.python_version()}: pythia_fast {pythia_fast.__version__} installed from its wheel works")

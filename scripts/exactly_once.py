"""Exactly once, seen: ``kill -9`` of a whole runtime every few seconds, from Kafka to Kafka, then every output counted.

    make exactly-once                                         # a million rows
    make exactly-once EXACTLY_ONCE="--rows 5000000 --seed 7"

What must hold: a reader with isolation.level=read_committed finds the output of every row once. Prints what it found;
exit code 1 when that does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.exactly_once import kill_again_and_again
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_run import PARTITIONS


def main() -> int:
    """Run it; 0 when every output was found once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--lives", type=float, nargs=2, default=(0.5, 3.0), help="seconds that a runtime lives")
    parser.add_argument("--batch-seconds", type=float, default=0.004, help="how long a batch of 256 rows takes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exactly-once-") as folder, KafkaBroker(sustained=True) as broker:
        topics = ("rows", "results", "dead")
        for topic, partitions in zip(topics, (PARTITIONS, 1, 1), strict=True):
            broker.create_topic(topic, partitions)
        seen = kill_again_and_again(
            Path(folder),
            broker.bootstrap_servers,
            topics,
            given.rows,
            lives_s=(given.lives[0], given.lives[1]),
            seed=given.seed,
            tell=print,
            seconds=given.batch_seconds,
        )
    print(
        f"{given.rows:,} rows in, {seen.rows:,} results that are committed: {seen.missing:,} missing, "
        f"{seen.repeated:,} more than once; {seen.kills} kills in {seen.seconds:.0f} s"
    )
    return 0 if seen.exactly_once else 1


if __name__ == "__main__":
    sys.exit(main())

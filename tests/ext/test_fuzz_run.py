"""fuzz/run.sh: how long each target runs; clang and the targets are stand-ins that note what they are told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
CLANG = r"""#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\necho "$1" >>told\n' >"$2"
chmod +x "$2"
"""


@pytest.mark.parametrize(("seconds", "each"), [(3, 1), (40, 10)])
def test_no_target_runs_without_end(tmp_path: Path, seconds: int, each: int) -> None:
    folder, programs = tmp_path / "fuzz", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name in ("run.sh", "make_powers.py"):
        shutil.copy(FUZZ / name, folder)
    (programs / "clang").write_text(CLANG)
    (programs / "clang").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "FUZZ_SECONDS": str(seconds)}
    targets = ["intake", "outputs", "resp", "amqp"]
    subprocess.run([folder / "run.sh", *targets], env=environment, check=True, capture_output=True, timeout=60)
    assert (folder / "told").read_text().splitlines() == [f"-max_total_time={each}"] * len(targets)

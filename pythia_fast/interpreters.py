"""New interpreters of ours find this package where it was found here."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = str(Path(__file__).parents[1])


def module_environment() -> dict[str, str]:
    """The environment for ``python -m pythia_fast...``, whatever its working folder."""
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}

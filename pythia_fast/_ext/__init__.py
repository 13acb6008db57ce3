"""The compiled modules. Private: the public names are re-exported one level up.

Importing any of them comes through here first, so here a missing build is named.
"""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from pythia_fast.errors import ExtensionError

_PROBE = "decoder"  # any one module: they are built and installed together


def _check_built(folder: Path) -> None:
    if any((folder / f"{_PROBE}{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        return
    others = sorted(path.name for path in folder.glob(f"{_PROBE}.*.so"))
    running = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    if others:
        raise ExtensionError(
            f"the compiled modules of pythia_fast in {folder} are for another Python ({others[0]}), not for "
            f"{running}: run 'pip install .' (or 'make build') with this one"
        )
    raise ExtensionError(
        f"the compiled modules of pythia_fast are missing in {folder}: it looks like a source tree that was not "
        "built; run 'make build' there, or 'pip install .' and start outside of it"
    )


_check_built(Path(__file__).parent)

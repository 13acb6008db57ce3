"""Prints what pyproject.toml asks for, one requirement a line: ``requirements.py [--build] [EXTRA]...``.

The Makefile installs the dependencies only; the package itself is used from the working tree.
"""

import sys
import tomllib
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Print the base requirements, the build system's with ``--build``, and those of every extra named."""
    with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
        tables = tomllib.load(file)
    extras = tables["project"]["optional-dependencies"]
    wanted = list(tables["project"]["dependencies"])
    for argument in arguments:
        if argument == "--build":
            wanted += tables["build-system"]["requires"]
        elif argument in extras:
            wanted += extras[argument]
        else:
            print(f"pyproject.toml has no extra {argument!r}; it has {', '.join(sorted(extras))}", file=sys.stderr)
            return 2
    print("\n".join(dict.fromkeys(wanted)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

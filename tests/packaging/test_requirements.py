"""Bounds of requirements that the code needs, wherever they are named."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_pyarrow_that_may_be_installed_knows_string_views() -> None:
    """``pyarrow.string_view``, by which results/output_columns.py knows a type, came with 16."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra: each for extra, needs in extras.items() for each in needs if each.startswith("pyarrow")}
    assert named.keys() == {"arrow", "pandas", "dev"}
    assert {int(each.partition(">=")[2]) for each in named.values()} == {16}

"""``python -m pythia_fast``."""

import gc
import sys

from pythia_fast.cli.early_stop import note_signals
from pythia_fast.outlet import hold_standard_streams


def main() -> int:
    """Run the command line and return its exit code."""
    note_signals(sys.argv[1:])
    hold_standard_streams()
    # What is imported stays: no garbage is looked for in it, neither meanwhile, nor later, nor at the end.
    gc.disable()
    from pythia_fast.cli.main import main as command_line  # takes a while to import, and a stop may come meanwhile

    gc.freeze()
    gc.enable()
    return command_line()


if __name__ == "__main__":
    sys.exit(main())

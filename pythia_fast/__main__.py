"""``python -m pythia_fast``."""

import sys

from pythia_fast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

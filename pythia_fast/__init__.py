"""pythia_fast: batches of messages as NumPy and Arrow columns, handled by a pool of processes."""

__version__ = "0.1.0.dev0"

"""What ``python -m pythia_fast doctor`` finds out: the machine, and the source and sinks of each handler."""

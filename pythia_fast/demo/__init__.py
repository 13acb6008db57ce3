"""The demo: an order file, a scoring handler over it, and what is shown of the run."""

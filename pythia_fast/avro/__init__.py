"""Avro: records in Apache Avro's binary encoding, into columns.

resolution.py   the writer's schema against the columns
writer.py       one writer's schema: its program for the compiled decoder, and rows of it as Structs
format.py       ``decoder=Avro(...)``
"""

from pythia_fast.avro.format import Avro

__all__ = ["Avro"]

"""Lines of a run's log that tell of its ordinary course.

Most of what a run says is of trouble, and whoever listens to warnings hears it. What is only news is marked where it is
said, so that a line that nobody thought of is heard once too often rather than never.
"""

from __future__ import annotations


class Routine(str):
    """One such line. The mark is lost where it is made part of another string."""

    __slots__ = ()

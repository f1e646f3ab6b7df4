"""What all pool values share."""

from __future__ import annotations


class NotExecutable(Exception):
    """A pool of an instance file has no contract behind it; it can be solved, not settled."""

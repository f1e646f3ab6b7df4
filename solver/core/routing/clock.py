"""How long a search may take."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from msgspec import Struct


class Clock(Struct, frozen=True):
    """How long a solve may take: a monotonic ``now`` in seconds, and when it must have ended."""

    now: Callable[[], float]
    deadline: float

    def allows(self, seconds: float) -> bool:
        """Whether so much time is left."""
        return self.now() + seconds < self.deadline


UNLIMITED = Clock(lambda: 0.0, inf)

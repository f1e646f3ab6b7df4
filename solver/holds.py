"""Who made bundles fail: waits, suspects, and who is refused for good. The clock is passed in.

A bundle that fails without naming a culprit makes suspects of its intents. They are tried again in
two halves, apart from everybody else, and a half that fails is halved again. So a culprit is found
in a logarithm of tries, and nobody but suspects ever waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

MAX_HOLD_SECONDS = 60.0


class Hold(Struct, frozen=True):
    """An intent that made a bundle fail: until when it waits, and how often it did so."""

    until: float
    failures: int


class Holds:
    """The memory of failed bundles; lost at a crash, which gives everybody a fresh start."""

    def __init__(self, tick_seconds: float) -> None:
        self._tick_seconds = tick_seconds
        self._holds: dict[str, Hold] = {}
        self._groups: list[tuple[str, ...]] = []

    def is_held(self, digest: str, now: float) -> bool:
        """Whether an intent still has to wait."""
        hold = self._holds.get(digest)
        return hold is not None and hold.until > now

    def blame(self, digest: str, now: float) -> int:
        """Let a culprit wait, twice as long each time; returns how often it has failed."""
        before = self._holds.get(digest)
        failures = before.failures + 1 if before else 1
        wait = min(self._tick_seconds * 2**failures, MAX_HOLD_SECONDS)
        self._holds[digest] = Hold(now + wait, failures)
        return failures

    def suspect(self, digests: Sequence[str]) -> None:
        """One of these made a bundle fail."""
        middle = (len(digests) + 1) // 2
        self._groups += [tuple(half) for half in (digests[:middle], digests[middle:]) if half]

    @property
    def suspects(self) -> frozenset[str]:
        """Everybody who waits for a try of their own group."""
        return frozenset(digest for group in self._groups for digest in group)

    def next_group(self) -> tuple[str, ...]:
        """The suspects to try next, who are suspects no longer; empty when there are none."""
        return self._groups.pop(0) if self._groups else ()

    def clear(self, digests: Iterable[str]) -> None:
        """Forget the failures of intents that were settled, or that are final."""
        for digest in digests:
            self._holds.pop(digest, None)

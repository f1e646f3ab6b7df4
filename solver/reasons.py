"""Why an intent is not filled, told at once and written seldom.

A best rate moves with every block. Writing it each time would let the journal grow without end, so
an intent's reason is written when its code changes and at most once in a while; in between only the
state in memory follows. A crash loses nothing but the latest wording.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from solver.core.journal import Explained
from solver.core.types import OpenReason
from solver.ledger import Ledger

_QUIET_SECONDS = 60.0


class Reasons:
    """The reasons of open intents."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._written_at: dict[str, float] = {}

    async def tell(self, reasons: Sequence[OpenReason]) -> None:
        """Take note of reasons, and write down those that are news."""
        now = time.time()
        news = []
        for reason in reasons:
            event = Explained(reason.digest, reason, now)
            before = self._ledger.book.intents[reason.digest].reason
            is_quiet = now - self._written_at.get(reason.digest, 0.0) < _QUIET_SECONDS
            if (before is not None and before.code == reason.code) or is_quiet:
                self._ledger.note(event)
            else:
                self._written_at[reason.digest] = now
                news.append(event)
        if news:
            await self._ledger.append(*news)

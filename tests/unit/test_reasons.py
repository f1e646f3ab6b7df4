"""Reasons follow the market in memory and are written seldom."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from solver.core.journal import Explained
from solver.core.types import OpenReason
from solver.ledger import Ledger
from solver.reasons import Reasons
from tests.unit.test_ledger import accepted


async def test_a_moving_rate_does_not_fill_the_journal(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    event = accepted(1)
    await ledger.append(event)
    reasons = Reasons(ledger)
    for number in range(50):
        code = ("limit_not_met", "batch_full")[number % 2]
        await reasons.tell([OpenReason(event.digest, code, "", best_rate=str(number))])
    reason = ledger.book.intents[event.digest].reason
    assert reason is not None
    assert (reason.code, reason.best_rate) == ("batch_full", "49")
    await ledger.durable()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        assert database.execute("SELECT count(*) FROM journal").fetchone() == (2,)
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    kept = again.book.intents[event.digest].reason
    assert kept == OpenReason(event.digest, "limit_not_met", "", best_rate="0")
    again.note(Explained(event.digest, reason, 1.0))
    again.close()

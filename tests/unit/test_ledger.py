"""The journal: durable before it answers, the same state after a restart, append-only."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from solver.core.journal import Accepted, Bundled, BundleMoved, Explained, Moved
from solver.core.lifecycle import BundleState, IntentState, TransitionError
from solver.core.types import Fill, OpenReason
from solver.ledger import Ledger, LedgerError
from tests.make import UNIT, signed, swap


def accepted(nonce: int) -> Accepted:
    intent = signed(swap(nonce=nonce))
    return Accepted(intent.digest, intent.swap, intent.signature, 1.0)


async def test_a_restart_gives_the_same_state(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first, second = accepted(1), accepted(2)
    fill = Fill(first.digest, UNIT, UNIT, 7)
    bundle = Bundled("b1", "batch", "settle", 1, "0x00", "0x", 21_000, 99, 2.0, (fill,))
    await ledger.append(first, second, bundle)
    await ledger.append(
        Moved(first.digest, IntentState.BATCHED, 2.0),
        BundleMoved("b1", BundleState.SENDING, 2.0, 0, "0xraw", "0xhash"),
    )
    await ledger.append(
        BundleMoved("b1", BundleState.CONFIRMED, 3.0, block=5),
        Moved(first.digest, IntentState.SETTLED, 3.0, fill=fill, bundle="b1"),
        Explained(second.digest, OpenReason(second.digest, "no_route", "none"), 3.0),
    )
    before = ledger.book
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.book == before
    record = again.book.intents[first.digest]
    assert (record.state, record.intent.filled, record.bought) == (IntentState.SETTLED, UNIT, UNIT)
    assert again.book.bundles["b1"].raw == "0xraw"
    again.close()


async def test_a_second_accept_of_the_same_digest_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    event = accepted(1)
    await asyncio.gather(ledger.append(event), ledger.append(replace(event, at=9.0)))
    assert [record.accepted_at for record in ledger.book.intents.values()] == [1.0]
    ledger.close()


async def test_concurrent_appends_are_committed_in_groups(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await asyncio.gather(*(ledger.append(accepted(nonce)) for nonce in range(300)))
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        assert database.execute("SELECT count(*) FROM journal").fetchone() == (300,)
    ledger.close()


async def test_a_step_that_the_table_lacks_is_a_bug(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    event = accepted(1)
    await ledger.append(event)
    with pytest.raises(TransitionError):
        await ledger.append(Moved(event.digest, IntentState.SETTLED, 2.0))
    ledger.close()


async def test_a_group_with_an_impossible_step_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first, second = accepted(1), accepted(2)
    await ledger.append(first, second, Moved(second.digest, IntentState.CANCELLED, 1.0))
    bundle = Bundled("b1", "batch", "settle", 1, "0x00", "0x", 21_000, 99, 2.0)
    with pytest.raises(TransitionError):
        await ledger.append(
            bundle,
            Moved(first.digest, IntentState.BATCHED, 2.0),
            Moved(second.digest, IntentState.BATCHED, 2.0),
        )
    states = [record.state for record in ledger.book.intents.values()]
    assert states == [IntentState.OPEN, IntentState.CANCELLED]
    assert ledger.book.bundles == {}
    before = ledger.book
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.book == before
    again.close()


async def test_rows_cannot_be_changed_or_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.append(accepted(1))
    ledger.close()
    database = sqlite3.connect(tmp_path / "ledger.db")
    for statement in ("DELETE FROM journal", "UPDATE journal SET event = x'00'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="another daemon"):
        Ledger(tmp_path / "ledger.db")
    ledger.close()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, and long enough to be read as one" * 9)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")


_CHILD = """
import asyncio, sys
from pathlib import Path
from solver.ledger import Ledger
from tests.unit.test_ledger import accepted

async def main():
    ledger = Ledger(Path(sys.argv[1]))
    for nonce in range(10_000):
        event = accepted(nonce)
        await ledger.append(event)
        print(event.digest, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    ledger = Ledger(path)
    assert {digest for digest in said if len(digest) == 66} <= set(ledger.book.intents)
    ledger.close()

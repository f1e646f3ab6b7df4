"""The durable journal: append-only SQLite, one writer thread, group commit.

``append`` applies events to the state at once and returns when they are on the disk. Whatever
leaves the process (an answer to a client, bytes to a chain) waits for that. When a write fails the
ledger is broken for good: the daemon stops rather than promise what it cannot keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from solver.core.journal import Book, Event, Explained

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event  BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS journal_keeps_rows BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS journal_keeps_events BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""
_VERSION = 1


class LedgerError(Exception):
    """The journal cannot be opened, read or written; the message says why."""


class _Write:
    """One group of events and the future that is done when they are durable."""

    def __init__(self, rows: list[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self.rows = rows
        self.loop = loop
        self.done: asyncio.Future[None] = loop.create_future()

    def settle(self, error: Exception | None) -> None:
        """Called by the writer thread; a loop that is gone no longer waits."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._resolve, error)

    def _resolve(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(LedgerError(f"the journal cannot be written: {error}"))


class Ledger:
    """The journal of one daemon. Holds a lock on the file: a second daemon is refused."""

    def __init__(self, path: Path, max_group: int = 256) -> None:
        self.book = Book()
        self.path = path
        self._max_group = max_group
        self._broken: Exception | None = None
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path.with_suffix(".lock"))
        try:
            self._replay()
        except (sqlite3.Error, msgspec.DecodeError, LedgerError) as error:
            self._lock.close()
            raise LedgerError(f"{path}: {error}") from error
        self._thread = threading.Thread(target=self._write_forever, name="ledger", daemon=True)
        self._thread.start()

    async def append(self, *events: Event) -> None:
        """Apply the events and return when they are durable, all of them or none.

        Raises TransitionError, with nothing applied, when one of them is no possible step.
        """
        if self._broken is not None:
            raise LedgerError(f"the journal is broken: {self._broken}")
        self.book.check(events)
        for event in events:
            self.book.apply(event)
        write = _Write([msgspec.json.encode(event) for event in events], asyncio.get_running_loop())
        self._writes.put(write)
        await asyncio.shield(write.done)

    def note(self, event: Explained) -> None:
        """Apply a reason without writing it: advice that changes with every block."""
        self.book.check([event])
        self.book.apply(event)

    async def durable(self) -> None:
        """Return when everything that was applied so far is on the disk."""
        await self.append()

    def close(self) -> None:
        """Write what is waiting and stop."""
        self._writes.put(None)
        self._thread.join()
        self._lock.close()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        return database

    def _replay(self) -> None:
        database = self._connect()
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise LedgerError(
                    f"it has journal version {version}, this program reads {_VERSION}"
                )
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            decoder = msgspec.json.Decoder(Event)
            for (row,) in database.execute("SELECT event FROM journal ORDER BY number"):
                self.book.apply(decoder.decode(row))
        finally:
            database.close()

    def _write_forever(self) -> None:
        try:
            database = self._connect()
        except sqlite3.Error as error:
            self._broken = error
            database = None
        while True:
            group = self._next_group()
            writes = [write for write in group if write is not None]
            if self._broken is None and database is not None:
                self._commit(database, writes)
            for write in writes:
                write.settle(self._broken)
            if len(writes) < len(group):
                break
        if database is not None:
            database.close()

    def _next_group(self) -> list[_Write | None]:
        group = [self._writes.get()]
        while len(group) < self._max_group and group[-1] is not None:
            try:
                group.append(self._writes.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit(self, database: sqlite3.Connection, writes: Sequence[_Write]) -> None:
        rows = [(row,) for write in writes for row in write.rows]
        if not rows:
            return
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO journal (event) VALUES (?)", rows)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            self._broken = error


def _lock(path: Path) -> IO[str]:
    handle = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise LedgerError(f"{path} is held by another daemon") from error
    return handle

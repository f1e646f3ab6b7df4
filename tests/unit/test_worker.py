"""The solver's processes: quotes beside batches, and clients that go away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import Struct

from solver.core.batch import Terms
from solver.core.types import Intent
from solver.core.venue import Pool, Snapshot
from solver.worker import PoolFailed, SolverFailed, Worker
from tests.bad_pools import BadPool, Declaring
from tests.make import UNIT, A, B, pair, signed, snapshot, swap

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUESTION: tuple[Snapshot, tuple[Intent, ...], Terms] = (
    snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)]),
    (signed(swap()),),
    Terms(),
)
PATIENCE_SECONDS = 60.0


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(word) for task in tasks for word in task.read_text().split()}


def is_worker(pid: int) -> bool:
    return b"solver.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


async def stopped(pid: int) -> None:
    """Until the kernel says that every thread of a process stands still."""
    tasks = Path(f"/proc/{pid}/task")
    for _ in range(1_000):
        states = [(task / "stat").read_text().rpartition(")")[2] for task in tasks.iterdir()]
        if all(state.split()[0] == "T" for state in states):
            return
        await asyncio.sleep(0.005)


class Started(Struct, frozen=True):
    """A worker and the process that solves its batches."""

    worker: Worker
    batches: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Started]:
    worker, others = Worker(), children()
    await worker.start()
    (batches,) = children() - others  # the process for quotes is not even begun
    yield Started(worker, batches)
    await worker.stop()
    assert children() <= others


async def test_a_quote_does_not_wait_for_a_batch(started: Started) -> None:
    os.kill(started.batches, signal.SIGSTOP)
    batch = asyncio.create_task(started.worker.solve(*QUESTION, PATIENCE_SECONDS))
    try:
        assert (await started.worker.quote(*QUESTION, PATIENCE_SECONDS)).fills
        assert not batch.done()
    finally:
        os.kill(started.batches, signal.SIGCONT)
    assert (await batch).fills


async def test_who_goes_away_costs_nobody_a_process(started: Started) -> None:
    worker = started.worker
    await worker.quote(*QUESTION, PATIENCE_SECONDS)
    before = children()
    quotes = [pid for pid in before if is_worker(pid) and pid != started.batches]
    for pid in quotes:
        os.kill(pid, signal.SIGSTOP)
    try:
        # SIGSTOP is not instant: of what is asked until it works, all is answered.
        await asyncio.gather(*(stopped(pid) for pid in quotes))
        asked, waiting = (
            asyncio.create_task(worker.quote(*QUESTION, PATIENCE_SECONDS)) for _ in "ab"
        )
        await asyncio.sleep(0.05)
        for task in (asked, waiting):
            task.cancel()
        await asyncio.gather(asked, waiting, return_exceptions=True)
        assert asked.cancelled() and waiting.cancelled()
    finally:
        for pid in quotes:
            os.kill(pid, signal.SIGCONT)
    assert (await worker.quote(*QUESTION, PATIENCE_SECONDS)).fills
    assert children() == before


@pytest.mark.parametrize("kind", [BadPool, Declaring])
@pytest.mark.parametrize(
    ("act", "reason"),
    [("raise", "RuntimeError: boom"), ("float", "gives"), ("negative", "gives")],
)
@pytest.mark.parametrize("count", [1, 2])
async def test_a_pool_that_breaks_in_the_solver_is_named(
    started: Started, kind: type[BadPool], act: str, reason: str, count: int
) -> None:
    pools: list[Pool] = [pair("good", A, B, 100 * UNIT, 100 * UNIT), kind(act)]
    orders = tuple(signed(swap(sell_amount=30 * UNIT, nonce=n)) for n in range(count))
    with pytest.raises(PoolFailed, match=reason) as failed:
        await started.worker.quote(snapshot(pools), orders, Terms(), PATIENCE_SECONDS)
    assert failed.value.pool == "bad"
    rest = await started.worker.quote(snapshot(pools[:1]), orders, Terms(), PATIENCE_SECONDS)
    assert rest.fills


async def test_a_pool_that_does_not_come_to_an_end_is_named(started: Started) -> None:
    pools: list[Pool] = [pair("good", A, B, 100 * UNIT, 100 * UNIT), BadPool("loop")]
    looping = snapshot(pools)
    with pytest.raises(PoolFailed, match="does not come to an end"):
        await started.worker.quote(looping, (signed(swap()),), Terms(), 1.0)
    assert (await started.worker.quote(*QUESTION, PATIENCE_SECONDS)).fills


async def test_what_has_no_pickle_fails_alone(started: Started) -> None:
    class Local(BadPool, frozen=True):
        """A class that no other process can find."""

    with pytest.raises(SolverFailed, match="cannot be sent"):
        await started.worker.quote(snapshot([Local("")]), (), Terms(), PATIENCE_SECONDS)
    assert (await started.worker.quote(*QUESTION, PATIENCE_SECONDS)).fills


async def test_an_overrun_is_killed_and_the_next_question_answered(started: Started) -> None:
    worker = started.worker
    with pytest.raises(SolverFailed, match="no answer within"):
        await worker.quote(*QUESTION, 1e-6)
    assert (await worker.quote(*QUESTION, PATIENCE_SECONDS)).fills


async def test_a_stopped_worker_starts_nothing() -> None:
    worker, before = Worker(), children()
    await worker.start()
    solving = asyncio.create_task(worker.solve(*QUESTION, PATIENCE_SECONDS))
    waiting = asyncio.create_task(worker.solve(*QUESTION, PATIENCE_SECONDS))
    await asyncio.sleep(0)
    await worker.stop()
    with pytest.raises(asyncio.CancelledError):
        await solving
    with pytest.raises(SolverFailed, match="stopping"):
        await waiting
    assert children() == before

"""The CoW solver engine: an auction's bytes in, an answer's bytes out, in processes of their own.

The first process always has an answer in time: the baseline, which looks at the clock as it goes.
With the profile *full* a second one has what is left of the time: first each order alone through
the router, then all together; when it overruns it is killed, and what was there before stands.
Bytes go through as they came: the event loop neither decodes nor solves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog
from msgspec import Struct

from solver import worker
from solver.auctions import Question, Settings, Solver, Stage, merged
from solver.core.types import Infeasible, Rejection
from solver.wire.engine import Answer, Reply
from solver.worker import SolverFailed

log = structlog.get_logger("thalweg.engine")

_MODULE = "solver.engine"
_START_SECONDS = 300.0
_REMEMBERED_SECONDS = 300.0
_GRACE_SECONDS = 5.0  # beyond its time, for a baseline that looks at the clock between two paths


class _Overrun(Struct, frozen=True):
    """An auction whose orders could not be solved together in the time that was left."""

    size: int
    seconds: float
    at: float

    def covers(self, size: int, seconds: float) -> bool:
        """Whether the same would happen to an auction of so many bytes in so much time.

        For a while: trying costs the next auctions the second process, which starts again.
        """
        is_fresh = time.time() - self.at < _REMEMBERED_SECONDS
        return is_fresh and size >= self.size and seconds <= self.seconds


class Engine:
    """Answers requests, one after another; ``max_pending`` may wait."""

    def __init__(self, settings: Settings, max_pending: int = 4) -> None:
        self.settings = settings
        self._max_pending = max_pending
        self._pending = 0
        self._first, self._second = worker.Lane(_MODULE), worker.Lane(_MODULE, "--warm")
        self._warming: set[asyncio.Task[None]] = set()
        self._overrun: _Overrun | None = None

    async def start(self) -> None:
        """Start the first process; the second may come up later."""
        await self._first.ask(None, _START_SECONDS)
        if self.settings.profile == "full":
            self._warm(self._second)

    async def stop(self) -> None:
        """Kill the processes."""
        for task in self._warming:
            task.cancel()
        await asyncio.gather(*self._warming, return_exceptions=True)
        await asyncio.gather(self._first.stop(), self._second.stop())

    async def solve(self, body: bytes) -> Answer:
        """The answer to a request, or why there is none."""
        if self._pending >= self._max_pending:
            return Rejection("busy", "too many auctions at once, try again")
        self._pending += 1
        try:
            return await self._solve(body)
        except SolverFailed as error:
            log.error("auction_failed", reason=str(error))
            return Rejection("internal", "a bug of ours; the log has it")
        finally:
            self._pending -= 1

    async def _solve(self, body: bytes) -> Answer:
        settings = self.settings
        longest = settings.max_seconds + _GRACE_SECONDS
        held = _sound(await self._first.ask(Question(settings, body), longest))
        if settings.profile != "full" or isinstance(held, Rejection) or self._second.is_busy:
            return held
        singles = held.singles
        for stage in (Stage.ALONE, Stage.TOGETHER):
            left = held.due - time.time()
            if left <= 0.0 or held.joinable < (1 if stage is Stage.ALONE else 2):
                break
            if stage is Stage.TOGETHER and self._overrun and self._overrun.covers(len(body), left):
                break
            try:
                question = Question(settings, body, stage, singles)
                found = _sound(await self._second.ask(question, left))
            except SolverFailed as error:
                log.info("stage_failed", auction=held.auction, stage=stage.value, reason=str(error))
                if stage is Stage.TOGETHER:
                    self._overrun = _Overrun(len(body), left, time.time())
                self._warm(self._second)
                break
            if isinstance(found, Reply):
                held = found if stage is Stage.ALONE else merged(found, held)
        return held

    def _warm(self, lane: worker.Lane) -> None:
        """Start a lane's process in the background."""

        async def start() -> None:
            with contextlib.suppress(SolverFailed):
                await lane.ask(None, _START_SECONDS)

        task = asyncio.create_task(start())
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)


def _sound(found: Answer | Infeasible) -> Answer:
    if isinstance(found, Infeasible):
        raise SolverFailed(f"{found.code}: {found.detail}")
    return found


if __name__ == "__main__":
    worker.serve(Solver().answer)

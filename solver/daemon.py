"""The ticks: tend escrows, read the market, solve, settle; batch after batch until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from enum import Enum

import msgspec
import structlog
from msgspec import Struct

from solver import devnet
from solver.chain import Chain, RpcError, Unreachable
from solver.config import Config
from solver.core.journal import Bundled, BundleRecord, IntentRecord, Moved
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Intent, OpenReason, Solution
from solver.core.venue import Snapshot
from solver.escrows import Escrows
from solver.holds import Holds
from solver.intake import Intake, World, terms_of
from solver.ledger import Ledger
from solver.market import Market
from solver.planner import Planner
from solver.reasons import Reasons
from solver.selection import Selection
from solver.settler import Blame, Settler
from solver.worker import PoolFailed, SolverFailed, Worker

log = structlog.get_logger("thalweg.daemon")

_Digests = frozenset[tuple[str, int]]
#: The settlement paid out less than it was promised: an order is named, a venue may be why.
_SHORT = "BoughtTokenShort"
_TRIED_APART = 3


class _Outcome(Enum):
    """What became of an attempt at a batch."""

    NOTHING = "nothing to do"
    REFUSED = "somebody made it fail; without them it may pass"
    SENT = "bundles were sent"


class _Refused(Struct, frozen=True):
    """A bundle that would fail, and the venues that may be why."""

    blame: Blame
    bundle: Bundled
    venues: list[str]


class Daemon:
    """A running solver. Built by :func:`solver.startup.running`."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        chains: dict[int, Chain],
        world: World,
        market: Market,
        worker: Worker,
        settler: Settler,
        escrows: Escrows,
        deployments: dict[int, devnet.Deployment],
    ) -> None:
        self.config = config
        self.world = world
        self.ledger = ledger
        self.market = market
        self.settler = settler
        self.escrows = escrows
        self.deployments = deployments
        self.intake = Intake(config, world, ledger, market, worker)
        self.last_tick_at = 0.0
        self.trouble = ""
        self._chains = chains
        self.worker = worker
        self._planner = Planner(config, world)
        self._holds = Holds(config.batch.tick_seconds)
        self._reasons = Reasons(ledger)
        self._selection = Selection(
            config, world, ledger, chains, settler, self._holds, self._reasons
        )
        #: What was solved already at the snapshot of this hash; the answer would be the same.
        self._solved: tuple[str, set[_Digests]] = ("", set())

    def chain(self, chain_id: int) -> Chain:
        """A chain that is served."""
        return self._chains[chain_id]

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop. A tick that has begun is finished, except for its waiting."""
        self.settler.stop = stop
        await self.settler.recover()
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self.tick()
                self.trouble = "; ".join(self.market.down.values())
            except (Unreachable, RpcError, SolverFailed) as error:
                self.trouble = str(error)
                log.warning("tick_failed", reason=self.trouble)
            self.last_tick_at = time.time()
            rest = self.config.batch.tick_seconds - (time.monotonic() - started)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(rest, 0.001))

    async def tick(self) -> None:
        """One round: expire, find out what became of what was sent, tend escrows, solve, settle.

        Suspects get a try of their own first, which costs the others nothing: whatever becomes of
        it, they have theirs in the same tick, and again without anybody who makes it fail.
        """
        await self._expire()
        for record in await self.settler.follow():
            await self._judge(record)
        await self.escrows.tend()
        snapshot = await self.market.refresh()
        if await self._attempt(snapshot, await self._selection.suspects(snapshot)) is _Outcome.SENT:
            snapshot = await self.market.refresh()
        for _ in range(self.config.batch.max_replans + 1):
            if self.settler.stop.is_set():
                return
            candidates = await self._selection.candidates(snapshot)
            asked = frozenset((record.intent.digest, record.intent.filled) for record in candidates)
            if self._solved[0] != snapshot.hash:
                self._solved = (snapshot.hash, set())
            if asked in self._solved[1]:
                return
            if await self._attempt(snapshot, candidates) is not _Outcome.REFUSED:
                self._solved[1].add(asked)
                return

    async def _expire(self) -> None:
        now = time.time()
        late = [
            Moved(record.intent.digest, IntentState.EXPIRED, now, "expired")
            for record in self.ledger.book.open_intents()
            if record.intent.swap.valid_until < now
        ]
        if late:
            await self.ledger.append(*late)

    async def _attempt(self, snapshot: Snapshot, records: Sequence[IntentRecord]) -> _Outcome:
        """Solve for these intents, and send what comes of it."""
        if not records:
            return _Outcome.NOTHING
        intents = tuple(record.intent for record in records)
        outcome = await self._try(snapshot, intents)
        if not isinstance(outcome, _Refused):
            return outcome
        if outcome.venues and await self._passes_without(snapshot, intents, outcome):
            return _Outcome.SENT
        await self._punish(outcome.blame, outcome.bundle)
        return _Outcome.REFUSED

    async def _passes_without(
        self, snapshot: Snapshot, intents: tuple[Intent, ...], refused: _Refused
    ) -> bool:
        """Whether the same orders settle without a venue of the bundle: then it was at fault.

        A venue whose quote is not what its contract does makes every bundle fail that uses it, and
        the orders in it must not answer for that. Where nothing can be filled without it, it cannot
        be told whose fault it was.
        """
        reason = f"a bundle failed with it and not without it: {refused.blame.reason}"[:300]
        names = refused.venues
        groups = [[name] for name in names[:_TRIED_APART]] if len(names) > 1 else []
        for group in [*groups, names]:
            reduced = self.market.without(snapshot, group, reason)
            outcome = await self._try(reduced, intents)
            if outcome is _Outcome.SENT:
                log.warning("venue_accused", venues=group, reason=refused.blame.reason)
                self.market.accuse(group, reason)
                return True
            if outcome is _Outcome.NOTHING:
                said = f"bundles failed that used it: {refused.blame.reason}"[:300]
                self.market.doubt(group, said)
        return False

    async def _try(self, snapshot: Snapshot, intents: tuple[Intent, ...]) -> _Outcome | _Refused:
        snapshot = self.market.standing(snapshot)
        terms = terms_of(intents, snapshot, self.world, self.config)
        started = time.monotonic()
        while True:
            try:
                solution = await self.worker.solve(
                    snapshot, intents, terms, self.config.batch.solve_timeout_seconds
                )
                break
            except PoolFailed as error:
                venues = self.market.venues_of([error.pool])
                if not venues or not any(pool.id == error.pool for pool in snapshot.pools):
                    raise
                log.warning("pool_failed", pool=error.pool, reason=error.reason)
                self.market.accuse(venues, str(error))
                snapshot = self.market.standing(snapshot)
        seconds = time.monotonic() - started
        await self._reasons.tell(solution.open)
        if not solution.fills:
            return _Outcome.NOTHING
        return await self._settle(snapshot, intents, solution, seconds)

    async def _settle(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        seconds: float,
    ) -> _Outcome | _Refused:
        batch, planned = self._planner.plan(snapshot, intents, solution, seconds)
        gas: dict[int, int] = {}
        for bundle in planned:
            answer = await self.settler.check(bundle)
            if isinstance(answer, Blame):
                return _Refused(answer, bundle, self._involved(answer, solution, bundle.chain))
            gas[bundle.chain] = answer
        if self.config.storage.record_batches:
            await asyncio.to_thread(self._planner.record, batch.id, snapshot, intents, solution)
        profits = self._planner.profits(snapshot, intents, solution, gas)
        planned = [
            msgspec.structs.replace(bundle, profit=f"{profits[bundle.chain]:.6f}")
            for bundle in planned
        ]
        now, book = time.time(), self.ledger.book
        # Owners may cancel until this very moment; from the check to the write nobody else runs.
        if any(book.intents[f.digest].state is not IntentState.OPEN for f in solution.fills):
            log.info("batch_overtaken", id=batch.id)
            return _Outcome.REFUSED
        await self.ledger.append(
            msgspec.structs.replace(batch, profit=f"{sum(profits.values()):.6f}"),
            *planned,
            *(Moved(fill.digest, IntentState.BATCHED, now) for fill in solution.fills),
        )
        log.info("batch", id=batch.id, fills=len(solution.fills), bundles=len(planned))
        for bundle in planned:
            await self._send(bundle)
        return _Outcome.SENT

    def _involved(self, blame: Blame, solution: Solution, chain: int) -> list[str]:
        """The venues that may be why a bundle of a solution fails on a chain."""
        if blame.digest and blame.reason != _SHORT:
            return []
        return self.market.venues_of(_pools_on(solution, chain))

    async def _send(self, bundle: Bundled) -> None:
        """Send a bundle, unless it would pay for locks that are not there."""
        objection = ""
        if bundle.needs:
            before = self.ledger.book.bundles[bundle.needs]
            if before.state is not BundleState.CONFIRMED:
                objection = "the bundle before it is not confirmed"
        if bundle.payments and not objection:
            try:
                objection = await self.escrows.objection(bundle.payments)
            except Unreachable as error:
                objection = str(error)
        if objection:
            await self.settler.drop(bundle.id, objection)
            return
        await self._judge(await self.settler.execute(bundle.id))

    async def _judge(self, record: BundleRecord) -> None:
        """Find out whose fault a failure was; a success makes up for earlier ones."""
        bundle = record.bundle
        batch = self.ledger.book.batches.get(bundle.batch)
        pools = _pools_on(batch.solution, bundle.chain) if batch else set()
        if record.state is BundleState.CONFIRMED:
            self._holds.clear(fill.digest for fill in bundle.fills)
            self.market.trust(pools)
        if record.state not in (BundleState.REVERTED, BundleState.DROPPED) or not bundle.batch:
            return
        try:
            answer = await self.settler.check(bundle)
        except Unreachable:
            answer = 0
        if isinstance(answer, Blame) and time.time() <= bundle.deadline:
            await self._punish(answer, bundle)
        elif record.state is BundleState.REVERTED:
            # It cost gas, so somebody has to answer for it, even if it would pass now.
            reason = record.detail or record.state.value
            self.market.doubt(self.market.venues_of(pools), f"a bundle that used it: {reason}")
            await self._punish(Blame(reason), bundle)

    async def _punish(self, blame: Blame, bundle: Bundled) -> None:
        """Hold back whoever made a bundle fail; without a culprit everybody in it is a suspect."""
        log.warning("bundle_refused", bundle=bundle.id, reason=blame.reason, intent=blame.digest)
        book, now = self.ledger.book, time.time()
        parts = {fill.digest for fill in bundle.fills} | {p.digest for p in bundle.payments}
        involved = sorted(parts, key=lambda digest: book.intents[digest].number)
        culprits = [digest for digest in involved if digest == blame.digest] or involved
        await self._reasons.tell([OpenReason(d, blame.code, blame.reason) for d in culprits])
        if len(culprits) > 1:
            self._holds.suspect(culprits)
            return
        for digest in culprits:
            failures = self._holds.blame(digest, now)
            is_open = book.intents[digest].state is IntentState.OPEN
            if failures >= self.config.batch.max_failures and is_open:
                self._holds.clear([digest])
                detail = f"{failures} bundles failed because of it: {blame.reason}"
                await self.ledger.append(
                    Moved(digest, IntentState.REFUSED, now, blame.code, detail)
                )


def _pools_on(solution: Solution, chain: int) -> Collection[str]:
    return {leg.pool for leg in solution.legs if leg.token_in.chain == chain}

"""Wiring, clock and ticks: opens what a daemon needs, and runs batch after batch.

Start-up after a crash is the ordinary start-up: load the ledger, ask the chains what settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path

import aiohttp
import msgspec
import structlog
from eth_account import Account
from msgspec import Struct

from solver import devnet
from solver.chain import Chain, Rpc, RpcError, Unreachable, Wallet
from solver.config import Config
from solver.core import bundle as bundles
from solver.core import crypto
from solver.core.intent import max_sell
from solver.core.journal import (
    Batched,
    Bundled,
    Event,
    Explained,
    IntentRecord,
    Moved,
)
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Intent, Kind, OpenReason, Solution, Swap, Token, TokenId
from solver.core.venue import Snapshot
from solver.intake import Intake, World, gas_values, terms_of
from solver.ledger import Ledger, LedgerError
from solver.market import Market, PriceList, Stake, VenueError, build_venue
from solver.settler import Blame, Contracts, Settler, payment_of
from solver.wire import instance
from solver.worker import SolverFailed, Worker

log = structlog.get_logger("thalweg.daemon")

_MAX_HOLD_SECONDS = 60.0
_CLOCK_SLACK_SECONDS = 2


class StartError(Exception):
    """The daemon cannot start; one line that says why."""


class Hold(Struct, frozen=True):
    """An intent that made a bundle fail waits; after a failure without a culprit it goes alone."""

    until: float
    failures: int
    alone: bool


class Daemon:
    """A running solver. Built by :func:`running`."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        chains: dict[int, Chain],
        world: World,
        market: Market,
        worker: Worker,
        settler: Settler,
        deployments: dict[int, devnet.Deployment],
    ) -> None:
        self.config = config
        self.world = world
        self.ledger = ledger
        self.market = market
        self.settler = settler
        self.deployments = deployments
        self.intake = Intake(config, world, ledger, market, worker)
        self.last_tick_at = 0.0
        self.trouble = ""
        self._chains = chains
        self._worker = worker
        self._holds: dict[str, Hold] = {}
        self._solved: tuple[str, frozenset[tuple[str, int]]] | None = None

    def chain(self, chain_id: int) -> Chain:
        """A chain that is served."""
        return self._chains[chain_id]

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop; a tick that has begun is finished."""
        await self.settler.recover()
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self.tick()
                self.trouble = ""
            except (Unreachable, RpcError, SolverFailed) as error:
                self.trouble = str(error)
                log.warning("tick_failed", reason=self.trouble)
            self.last_tick_at = time.time()
            rest = self.config.batch.tick_seconds - (time.monotonic() - started)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(rest, 0.001))

    async def tick(self) -> None:
        """One round: expire, read the market, tend escrows, solve, settle."""
        await self._expire()
        snapshot = await self.market.refresh()
        await self.settler.tend_escrows()
        candidates = await self._candidates(snapshot)
        asked = frozenset((record.intent.digest, record.intent.filled) for record in candidates)
        if not candidates or self._solved == (snapshot.hash, asked):
            return
        intents = tuple(record.intent for record in candidates)
        terms = terms_of(intents, snapshot, self.world, self.config)
        started = time.monotonic()
        solution = await self._worker.solve(
            snapshot, intents, terms, self.config.batch.solve_timeout_seconds
        )
        seconds = time.monotonic() - started
        self._solved = (snapshot.hash, asked)
        await self._explain(solution.open)
        if solution.fills:
            await self._settle(snapshot, intents, solution, seconds)

    async def _expire(self) -> None:
        now = time.time()
        late = [
            Moved(record.intent.digest, IntentState.EXPIRED, now, "expired")
            for record in self.ledger.book.open_intents()
            if record.intent.swap.valid_until < now
        ]
        if late:
            await self.ledger.append(*late)

    async def _candidates(self, snapshot: Snapshot) -> list[IntentRecord]:
        """Open intents that may be filled now, the oldest first, each owner's balance shared."""
        if not snapshot.prices:
            return []
        now = time.time()
        ready = [
            record
            for record in self.ledger.book.open_intents()
            if record.intent.swap.valid_from <= now - _clock_slack(record)
            and self._hold(record.intent.digest).until <= now
        ]
        ready = await self._without_cancelled(ready)
        lonely = [record for record in ready if self._hold(record.intent.digest).alone]
        ready = lonely[:1] or ready
        direction: tuple[int, int] | None = None
        taken: list[IntentRecord] = []
        free = await self._spendable(ready)
        for record in ready:
            swap = record.intent.swap
            if swap.is_cross_chain:
                if swap.fill_deadline < now + self.config.batch.min_fill_seconds:
                    await self._explain([_too_late(record)])
                    continue
                # Opposite directions would each wait for the other's escrow.
                if direction not in (None, (swap.sell_chain, swap.buy_chain)):
                    continue
                direction = (swap.sell_chain, swap.buy_chain)
            need, purse = _most_sold(record.intent), (swap.owner, swap.sell)
            if need > free[purse]:
                await self._explain(
                    [
                        OpenReason(
                            record.intent.digest,
                            "insufficient_balance",
                            f"needs {need}, {free[purse]} are approved and not promised elsewhere",
                        )
                    ]
                )
                continue
            free[purse] -= need
            taken.append(record)
            if len(taken) == self.config.batch.max_intents:
                break
        return taken

    async def _without_cancelled(self, records: list[IntentRecord]) -> list[IntentRecord]:
        """Leave out, and mark, what the owner cancelled on chain or another solver filled."""
        kept: list[IntentRecord] = []
        for chain_id, chain in self._chains.items():
            here = [r for r in records if r.intent.swap.sell_chain == chain_id]
            if not here:
                continue
            contract = self.world.contracts[chain_id].settlement
            flags = await chain.orders(
                contract, [(r.intent.swap.owner, r.intent.digest) for r in here]
            )
            for record, (cancelled, filled) in zip(here, flags, strict=True):
                digest = record.intent.digest
                if cancelled:
                    await self.ledger.append(
                        Moved(digest, IntentState.CANCELLED, time.time(), "cancelled_on_chain")
                    )
                elif filled != record.intent.filled:
                    detail = f"the contract counts {filled}, the ledger {record.intent.filled}"
                    await self._explain([OpenReason(digest, "filled_elsewhere", detail)])
                else:
                    kept.append(record)
        return sorted(kept, key=lambda record: record.number)

    async def _spendable(self, records: Sequence[IntentRecord]) -> dict[tuple[str, TokenId], int]:
        purses = {(r.intent.swap.owner, r.intent.swap.sell) for r in records}
        found: dict[tuple[str, TokenId], int] = {}
        for chain_id, chain in self._chains.items():
            here = sorted(purse for purse in purses if purse[1].chain == chain_id)
            wanted = [(token.address, owner) for owner, token in here]
            holder = self.world.contracts[chain_id].holder
            amounts = await chain.balances(wanted, holder)
            found.update(zip(here, amounts, strict=True))
        return found

    async def _explain(self, reasons: Sequence[OpenReason]) -> None:
        """Write down reasons that are news."""
        now, book = time.time(), self.ledger.book
        news: list[Event] = []
        for reason in reasons:
            before = book.intents[reason.digest].reason
            if before is None or (before.code, before.best_rate) != (
                reason.code,
                reason.best_rate,
            ):
                news.append(Explained(reason.digest, reason, now))
        if news:
            await self.ledger.append(*news)

    async def _settle(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        seconds: float,
    ) -> None:
        batch, planned = self._plan(snapshot, intents, solution, seconds)
        estimates = []
        for bundle in planned:
            answer = await self.settler.check(bundle)
            if isinstance(answer, Blame):
                await self._punish(answer, bundle)
                return
            estimates.append((bundle.chain, answer))
        if self.config.storage.record_batches:
            await asyncio.to_thread(self._record, batch.id, snapshot, intents)
        profits = self._profits(snapshot, intents, solution, estimates)
        planned = [
            msgspec.structs.replace(bundle, profit=f"{profits[bundle.chain]:.6f}")
            for bundle in planned
        ]
        now = time.time()
        await self.ledger.append(
            msgspec.structs.replace(batch, profit=f"{sum(profits.values()):.6f}"),
            *planned,
            *(Moved(fill.digest, IntentState.BATCHED, now) for fill in solution.fills),
        )
        log.info("batch", id=batch.id, fills=len(solution.fills), bundles=len(planned))
        failed = False
        for bundle in planned:
            if failed and bundle.needs:
                await self.settler.drop(bundle.id, "the bundle before it failed")
                continue
            record = await self.settler.execute(bundle.id)
            failed = failed or record.state is not BundleState.CONFIRMED
            if record.state is not BundleState.CONFIRMED:
                await self._punish(Blame(record.detail or record.state.value), bundle)

    def _plan(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        seconds: float,
    ) -> tuple[Batched, list[Bundled]]:
        now = time.time()
        by_digest = {intent.digest: intent for intent in intents}
        digests = sorted(by_digest)
        seed = "|".join([*digests, snapshot.hash, str(time.time_ns())])
        identity = "0x" + crypto.keccak(seed.encode()).hex()
        settlements = {c: contract.settlement for c, contract in self.world.contracts.items()}
        pools = {pool.id: pool for pool in snapshot.pools}
        cross = {
            fill.digest: payment_of(
                bundles.cross_fill(by_digest[fill.digest], fill.buy),
                by_digest[fill.digest].swap,
                fill,
            )
            for fill in solution.fills
            if by_digest[fill.digest].swap.is_cross_chain
        }
        planned: list[Bundled] = []
        for number, bundle in enumerate(bundles.build(solution, by_digest, pools, settlements)):
            deadline = int(now) + self.config.batch.bundle_lifetime_seconds
            payments = tuple(p for p in cross.values() if p.target == bundle.chain)
            planned.append(
                Bundled(
                    f"{identity[2:18]}-{number}",
                    identity,
                    "settle",
                    bundle.chain,
                    settlements[bundle.chain],
                    bundles.encode(bundle, identity, deadline),
                    bundle.gas,
                    deadline,
                    now,
                    fills=tuple(trade.fill for trade in bundle.trades),
                    locks=tuple(p for p in cross.values() if p.origin == bundle.chain),
                    payments=payments,
                    needs=planned[0].id if payments and planned else "",
                )
            )
        blocks = {str(c): (ref.number, ref.hash) for c, ref in snapshot.blocks.items()}
        return Batched(identity, now, tuple(digests), solution, blocks, seconds), planned

    def _record(self, identity: str, snapshot: Snapshot, intents: Sequence[Intent]) -> None:
        """The batch as an instance file; a disk that refuses costs the file, not the batch."""
        terms = terms_of(tuple(intents), snapshot, self.world, self.config)
        settlements = {c: contract.settlement for c, contract in self.world.contracts.items()}
        document = instance.from_core(snapshot, intents, terms, settlements, self.world.tokens)
        omitted = instance.omitted_pools(snapshot)
        if omitted:
            log.warning("batch_recorded_in_part", id=identity, omitted=omitted)
        path = Path(self.config.storage.directory) / "batches" / f"{identity[2:18]}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
        except OSError as error:
            log.warning("batch_not_recorded", id=identity, reason=str(error))

    def _profits(
        self,
        snapshot: Snapshot,
        intents: Sequence[Intent],
        solution: Solution,
        estimates: Sequence[tuple[int, int]],
    ) -> dict[int, float]:
        """Per chain, everything the solver keeps less what it pays, in the numeraire.

        Per token: sold + leg outputs + inventory margin − leg inputs − bought; fees stay inside.
        """
        swaps = {intent.digest: intent.swap for intent in intents}
        kept: dict[TokenId, int] = {}

        def add(token: TokenId, amount: int) -> None:
            kept[token] = kept.get(token, 0) + amount

        for fill in solution.fills:
            add(swaps[fill.digest].sell, fill.sell)
            add(swaps[fill.digest].buy, -fill.buy)
        for leg in solution.legs:
            add(leg.token_in, -leg.amount_in)
            add(leg.token_out, leg.amount_out)
        values = gas_values(snapshot, self.world)
        profits = {chain: -gas * values.get(chain, 0.0) for chain, gas in estimates}
        for token, amount in kept.items():
            income = snapshot.prices.get(token, 0.0) * amount
            profits[token.chain] = profits.get(token.chain, 0.0) + income
        return profits

    async def _punish(self, blame: Blame, bundle: Bundled) -> None:
        """Hold back whoever made a bundle fail, twice as long each time."""
        log.warning("bundle_refused", bundle=bundle.id, reason=blame.reason, intent=blame.digest)
        digests = [blame.digest] if blame.digest else [fill.digest for fill in bundle.fills]
        known = [digest for digest in digests if digest in self.ledger.book.intents]
        now = time.time()
        for digest in known:
            failures = self._hold(digest).failures + 1
            wait = min(self.config.batch.tick_seconds * 2**failures, _MAX_HOLD_SECONDS)
            self._holds[digest] = Hold(now + wait, failures, not blame.digest)
        self._solved = None
        await self._explain([OpenReason(digest, blame.code, blame.reason) for digest in known])

    def _hold(self, digest: str) -> Hold:
        return self._holds.get(digest, Hold(0.0, 0, False))


def _clock_slack(record: IntentRecord) -> int:
    """The chain's clock may be behind ours; a validity that starts later waits that long."""
    return _CLOCK_SLACK_SECONDS if record.intent.swap.valid_from else 0


def _too_late(record: IntentRecord) -> OpenReason:
    return OpenReason(
        record.intent.digest,
        "fill_deadline_near",
        "there is too little time left to be sure of the payment, and a lock would last until "
        "refundAfter",
    )


def _most_sold(intent: Intent) -> int:
    """The most that filling the rest may pull from the owner."""
    swap: Swap = intent.swap
    return intent.remaining if swap.kind is Kind.EXACT_IN else max_sell(swap, intent.remaining)


@contextlib.asynccontextmanager
async def running(config: Config) -> AsyncIterator[Daemon]:
    """A daemon with everything open, not yet ticking. Raises StartError."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
        )
        directory = Path(config.storage.directory)
        try:
            # The lock of the ledger comes first: two daemons must not share local chains either.
            directory.mkdir(parents=True, exist_ok=True)
            ledger = Ledger(directory / "ledger.db", config.storage.max_group)
        except (LedgerError, OSError) as error:
            raise StartError(str(error)) from error
        stack.callback(lambda: ledger.close())
        deployments, attached = await _local_chains(config, directory, session)
        if not attached:
            stack.callback(devnet.stop, deployments)
        if ledger.book.intents and deployments and _is_foreign(ledger, deployments):
            ledger.close()
            ledger = _set_aside(directory, config)
        yield await _assemble(config, ledger, session, deployments, stack)
        # Chains that were found running outlive a daemon that fails, not one that is told to stop.
        if attached:
            stack.callback(devnet.stop, deployments)


async def _local_chains(
    config: Config,
    directory: Path,
    session: aiohttp.ClientSession,
) -> tuple[dict[int, devnet.Deployment], bool]:
    """The local chains, and whether they were running already."""
    local = [(chain.chain_id, chain.port) for chain in config.chain if chain.is_local]
    if not local:
        return {}, False
    try:
        deployments, was_running = await devnet.attach_or_start(
            local, directory, session, config.limits.start_timeout_seconds
        )
    except devnet.DevnetError as error:
        raise StartError(str(error)) from error
    log.info("local_chains", attached=was_running, chains=sorted(deployments))
    return deployments, was_running


def _is_foreign(ledger: Ledger, deployments: dict[int, devnet.Deployment]) -> bool:
    """Whether the ledger is about chains that are gone: their run file has another birth."""
    born = max(deployment.born_at for deployment in deployments.values())
    return any(record.accepted_at < born for record in ledger.book.intents.values())


def _set_aside(directory: Path, config: Config) -> Ledger:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        path = directory / name
        if path.exists():
            path.rename(directory / f"{stamp}-{name}")
    log.warning("ledger_set_aside", reason="its local chains are gone", kept=f"{stamp}-ledger.db")
    return Ledger(directory / "ledger.db", config.storage.max_group)


async def _assemble(
    config: Config,
    ledger: Ledger,
    session: aiohttp.ClientSession,
    deployments: dict[int, devnet.Deployment],
    stack: contextlib.AsyncExitStack,
) -> Daemon:
    chains: dict[int, Chain] = {}
    contracts: dict[int, Contracts] = {}
    for entry in config.chain:
        url = deployments[entry.chain_id].url if entry.is_local else entry.rpc_url
        rpc = Rpc(url, session, config.limits.rpc_timeout_seconds)
        chain = Chain(entry.chain_id, rpc, entry.is_local)
        settlement = (
            deployments[entry.chain_id].addresses["settlement"]
            if entry.is_local
            else entry.settlement.lower()
        )
        try:
            await chain.check()
            contracts[entry.chain_id] = await _contracts(chain, settlement)
        except Unreachable as error:
            raise StartError(f"chain {entry.chain_id}: {error}") from error
        chains[entry.chain_id] = chain
    wallet, attester = _wallets(config)
    names = {chain: deployment.addresses for chain, deployment in deployments.items()}
    tokens = _tokens(config, names)
    world = World(
        contracts,
        tokens,
        {
            token.id.chain: token.id
            for token in tokens.values()
            if token.symbol == config.prices.native
        },
        attester is not None,
    )
    prices = PriceList(
        config.prices.source,
        float(config.prices.updated or time.time()),
        config.prices.max_age_seconds,
        {
            token.id: float(Decimal(config.prices.usd[token.symbol]).scaleb(-token.decimals))
            for token in tokens.values()
        },
    )
    stake = Stake(
        wallet.address, {c: entry.holder for c, entry in contracts.items()}, tuple(tokens)
    )
    try:
        venues = [
            (v.kind, build_venue(v.name, v.kind, v.chain, v.options, names.get(v.chain, {})))
            for v in config.venue
        ]
    except VenueError as error:
        raise StartError(str(error)) from error
    market = Market(chains, venues, prices, stake, config.limits.venue_timeout_seconds)
    worker = Worker()
    stack.push_async_callback(worker.stop)
    try:
        await worker.start()
        await market.refresh()
    except Unreachable as error:
        raise StartError(str(error)) from error
    settler = Settler(
        ledger,
        chains,
        contracts,
        wallet,
        attester,
        config.batch.confirmations,
        config.batch.bundle_lifetime_seconds,
    )
    return Daemon(config, ledger, chains, world, market, worker, settler, deployments)


async def _contracts(chain: Chain, settlement: str) -> Contracts:
    holder = await chain.read(settlement, "holder()", ["address"])
    escrow = await chain.read(settlement, "escrow()", ["address"])
    verifier = await chain.read(escrow, "verifier()", ["address"])
    return Contracts(settlement, holder, escrow, verifier)


def _tokens(config: Config, names: dict[int, dict[str, str]]) -> dict[TokenId, Token]:
    tokens = {}
    for entry in config.token:
        address = entry.address.lower()
        if entry.address.startswith("devnet:"):
            name = entry.address.removeprefix("devnet:")
            known = names.get(entry.chain, {})
            if name not in known:
                raise StartError(f"token {entry.symbol}: the local chain has no {name}")
            address = known[name]
        identity = TokenId(entry.chain, address)
        tokens[identity] = Token(identity, entry.symbol, entry.decimals)
    return tokens


def _wallets(config: Config) -> tuple[Wallet, Wallet | None]:
    """The solver's and the attester's wallet. Public test accounts serve local chains only."""
    keys = config.solver
    if all(chain.is_local for chain in config.chain) and not keys.keystore:
        return devnet.account(devnet.SOLVER), devnet.account(devnet.ATTESTER)
    attester = None
    if keys.attester_keystore:
        attester = _unlock(keys.attester_keystore, keys.attester_password_env)
    return _unlock(keys.keystore, keys.password_env), attester


def _unlock(path: str, password_env: str) -> Wallet:
    password = os.environ.get(password_env)
    if password is None:
        raise StartError(f"the password of {path} is not in the environment as {password_env}")
    try:
        key = Account.decrypt(Path(path).read_text(encoding="utf-8"), password)
    except (OSError, ValueError, TypeError, KeyError) as error:
        # The library's message may hold parts of the file; the kind of error is enough.
        raise StartError(f"{path} cannot be unlocked ({type(error).__name__})") from None
    return Wallet(bytes(key))

"""Opens everything that a daemon needs: ledger, local chains, contracts, keys, venues, worker.

Start-up after a crash is the ordinary start-up: load the ledger, ask the chains what settled.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import aiohttp
import structlog
from eth_account import Account

from solver import devnet
from solver.chain import Chain, Rpc, Unreachable, Wallet
from solver.config import Config
from solver.core.rebirth import retired
from solver.core.types import Token, TokenId
from solver.daemon import Daemon
from solver.escrows import Escrows
from solver.intake import World
from solver.ledger import Ledger, LedgerError
from solver.market import Market, PriceList, Stake, VenueError, build_venue
from solver.settler import Contracts, Pace, Settler
from solver.worker import Worker

_WEI_PER_GWEI = 10**9

log = structlog.get_logger("thalweg.startup")


class StartError(Exception):
    """The daemon cannot start; one line that says why."""


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
        if len(deployments) < len(config.chain):
            for number, deployment in deployments.items():
                ended = retired(ledger.book, number, deployment.born_at, time.time())
                await ledger.append(*ended)
        elif ledger.book.intents and _is_foreign(ledger, deployments):
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
        max_fee_wei = int(config.limits.max_fee_gwei * _WEI_PER_GWEI)
        chain = Chain(entry.chain_id, rpc, entry.is_local, max_fee_wei)
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
    stack.callback(market.close)
    worker = Worker()
    stack.push_async_callback(worker.stop)
    try:
        await worker.start()
        await market.refresh()
    except Unreachable as error:
        raise StartError(str(error)) from error
    batch = config.batch
    pace = Pace(
        batch.confirmations,
        batch.watch_seconds,
        batch.poll_seconds,
        batch.bump_seconds,
        batch.lost_answers,
    )
    settler = Settler(ledger, chains, wallet, pace)
    escrows = Escrows(ledger, chains, contracts, settler, attester, batch.confirmations)
    return Daemon(config, ledger, chains, world, market, worker, settler, escrows, deployments)


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

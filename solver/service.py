"""The daemon as the API sees it, and the HTTP server in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from pathlib import Path

from solver import devnet
from solver.api import Api, Limits
from solver.auctions import Settings
from solver.config import Config, CowConfig, Installed, VenueConfig, load
from solver.core.baseline import Rules
from solver.core.journal import Auctioned, Book, IntentRecord, Notified
from solver.core.types import JsonObject, Rejection, Solution, Swap, TokenId
from solver.core.venue import Snapshot
from solver.daemon import Daemon
from solver.door import DoorLimits, listening
from solver.engine import Engine
from solver.intake import blank_swap, cancel_typed_data
from solver.market import VenueError, build_venue, installed_kinds
from solver.startup import StartError, running
from solver.wire import v1
from solver.wire.engine import Answer
from solver.wire.jsonio import amount

_LATE_TICKS = 20


class DaemonService:
    """Implements :class:`solver.api.Service`."""

    def __init__(self, daemon: Daemon, engine: Engine) -> None:
        self._daemon = daemon
        self._engine = engine
        self.info = _info(daemon)

    @property
    def book(self) -> Book:
        """The state of the ledger."""
        return self._daemon.ledger.book

    @property
    def snapshot(self) -> Snapshot | None:
        """The current snapshot."""
        return self._daemon.market.snapshot

    @property
    def venues(self) -> list[v1.VenueView]:
        """Venues at the last snapshot."""
        return [
            v1.VenueView(
                status.name,
                status.kind,
                status.chain,
                status.pools,
                status.milliseconds,
                status.failures,
                status.reason,
            )
            for status in self._daemon.market.statuses
        ]

    @property
    def troubles(self) -> list[str]:
        """Why batches are not being settled now."""
        daemon = self._daemon
        found = [daemon.trouble] if daemon.trouble else []
        if daemon.market.prices_are_stale():
            found.append("the reference prices are too old")
        late = time.time() - daemon.last_tick_at
        patience = daemon.config.batch.tick_seconds * _LATE_TICKS
        if late > patience + daemon.config.batch.solve_timeout_seconds:
            found.append("no tick has finished lately")
        return found

    def venue_of(self, pool: str) -> str:
        """The venue that a pool came from."""
        return self._daemon.market.venue_of(pool)

    def settlement(self, chain: int) -> str | None:
        """The settlement contract of a chain."""
        contracts = self._daemon.world.contracts.get(chain)
        return contracts.settlement if contracts else None

    def draft(self, draft: v1.Draft) -> Swap | Rejection:
        """A complete swap from a client's draft."""
        fields: dict[str, int] = {}
        for name in ("sell_amount", "buy_amount", "nonce", "max_fee"):
            text = getattr(draft, name)
            value = amount(text) if text else 0
            if value is None:
                pointer = "/" + name.replace("_a", "A").replace("_f", "F")
                return Rejection("bad_amount", "not a canonical decimal below 2^256", pointer)
            fields[name] = value
        stated = frozenset(name for name in fields if getattr(draft, name))
        owner, receiver = _address(draft.owner), _address(draft.receiver or draft.owner)
        sell, buy = _address(draft.sell_asset), _address(draft.buy_asset)
        for name, address in (
            ("owner", owner),
            ("receiver", receiver),
            ("sellAsset", sell),
            ("buyAsset", buy),
        ):
            if not address:
                return Rejection("bad_hex", "not an address", f"/{name}")
        swap = blank_swap(
            owner,
            receiver,
            TokenId(draft.sell_chain, sell),
            TokenId(draft.buy_chain, buy),
            draft.kind,
            fields["sell_amount"],
            fields["buy_amount"],
            draft.partial_fill,
            fields["nonce"],
            fields["max_fee"],
        )
        return self._daemon.intake.complete(
            swap, draft.lifetime_seconds, draft.slippage_bps, stated
        )

    def cancel_typed_data(self, digest: str, chain: int) -> JsonObject:
        """What an owner signs to cancel."""
        return cancel_typed_data(digest, chain, self.settlement(chain) or "")

    async def submit(self, swap: Swap, signature: str) -> tuple[IntentRecord, bool] | Rejection:
        """See :meth:`solver.intake.Intake.submit`."""
        return await self._daemon.intake.submit(swap, signature)

    async def cancel(self, digest: str, signature: str) -> IntentRecord | Rejection:
        """See :meth:`solver.intake.Intake.cancel`."""
        return await self._daemon.intake.cancel(digest, signature)

    async def quote(self, swap: Swap) -> Solution | Rejection:
        """See :meth:`solver.intake.Intake.quote`."""
        return await self._daemon.intake.quote(swap)

    async def solve_auction(self, body: bytes) -> Answer:
        """See :meth:`solver.engine.Engine.solve`."""
        return await self._engine.solve(body)

    async def record(self, event: Auctioned | Notified) -> None:
        """Return when the event is in the ledger, on the disk."""
        await self._daemon.ledger.append(event)


def engine_of(config: CowConfig) -> Engine:
    """The engine for a CoW Protocol driver; its processes start when they are asked to."""

    def token(address: str) -> TokenId:
        return TokenId(config.chain_id, address.lower())

    rules = Rules(
        token(config.native),
        tuple(token(address) for address in config.base_tokens),
        config.max_hops,
        config.max_partial_attempts,
        int(config.native_token_price_estimation_amount),
        config.solution_gas_offset,
    )
    settings = Settings(
        config.chain_id,
        rules,
        config.profile,
        config.slack_seconds,
        config.max_seconds,
        config.joint_orders,
    )
    return Engine(settings, config.max_pending)


def checked_config(path: Path | None = None) -> Config:
    """The file, checked against what is installed here as well. Raises ConfigError."""
    return load(path, Installed(local_names(), tuple(installed_kinds()), _build))


def local_names() -> frozenset[str]:
    """The contracts that every local chain has; known before one is started."""
    tokens = (symbol for symbol, _ in devnet.TOKENS)
    others = ("verifier", "settlement", "holder", "escrow", "WETH-USDC-book", "bridge")
    return frozenset((*tokens, *devnet.PAIRS, *others))


def _build(venue: VenueConfig, addresses: Mapping[str, str]) -> None:
    try:
        build_venue(venue.name, venue.kind, venue.chain, venue.options, addresses)
    except VenueError as error:
        raise ValueError(str(error).removeprefix(f"venue {venue.name}: ")) from error


@contextlib.asynccontextmanager
async def serving(config: Config) -> AsyncIterator[tuple[Daemon, str]]:
    """A ticking daemon with its HTTP door open, and the URL of the door. Raises StartError."""
    async with running(config) as daemon:
        server = config.server
        limits = Limits(
            server.max_body_bytes,
            server.request_timeout_seconds,
            server.max_pending_requests,
            config.cow.max_body_bytes,
        )
        engine = engine_of(config.cow)
        api = Api(DaemonService(daemon, engine), limits)
        door = DoorLimits(server.max_connections, server.header_timeout_seconds)
        stop = asyncio.Event()
        ticking: asyncio.Task[None] | None = None
        try:
            if config.cow.prestart:
                await engine.start()
            async with contextlib.AsyncExitStack() as stack:
                try:
                    host, port = await stack.enter_async_context(
                        listening(api.application(), server.host, server.port, door)
                    )
                except (OSError, UnicodeError) as error:
                    where = f"{server.host}:{server.port}"
                    reason = getattr(error, "strerror", None) or error
                    raise StartError(f"cannot listen on {where}: {reason}") from error
                ticking = asyncio.create_task(daemon.run(stop))
                async with _fail_with(ticking):
                    yield daemon, f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            stop.set()
            await engine.stop()
            if ticking is not None:
                await asyncio.gather(ticking, return_exceptions=True)


@contextlib.asynccontextmanager
async def _fail_with(ticking: asyncio.Task[None]) -> AsyncIterator[None]:
    """Leave the body when the ticks end by a bug: a daemon that no longer ticks must not stay."""
    body = asyncio.current_task()
    assert body is not None

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            body.cancel()

    ticking.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        _raise_what_ended(ticking)
        raise
    finally:
        ticking.remove_done_callback(ended)
    # The body may have ended by itself before it noticed.
    _raise_what_ended(ticking)


def _raise_what_ended(ticking: asyncio.Task[None]) -> None:
    if ticking.done() and not ticking.cancelled() and ticking.exception() is not None:
        raise RuntimeError("the ticks ended") from ticking.exception()


def _info(daemon: Daemon) -> v1.Info:
    local = {chain.chain_id: chain for chain in daemon.config.chain}
    return v1.Info(
        version("thalweg"),
        [
            v1.ChainView(
                chain,
                local[chain].name,
                contracts.settlement,
                contracts.holder,
                local[chain].is_local,
            )
            for chain, contracts in daemon.world.contracts.items()
        ],
        [
            v1.TokenView(token.symbol, token.id.chain, token.id.address, token.decimals)
            for token in daemon.world.tokens.values()
        ],
    )


def _address(text: str) -> str:
    """Lower-case hex of a 20-byte address, also from its 32-byte spelling; empty when neither."""
    digits = text[2:].lower()
    if not text.startswith("0x") or any(digit not in "0123456789abcdef" for digit in digits):
        return ""
    if len(digits) == 64 and digits[:24] == "0" * 24:
        digits = digits[24:]
    return "0x" + digits if len(digits) == 40 else ""

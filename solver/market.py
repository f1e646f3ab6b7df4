"""Reads venues and builds snapshots: one block per chain; what is bad is left out with a reason.

Adapters are trusted code but fenced: each has a time budget, an exception or a nonsensical pool
costs only its venue, and a venue that keeps failing is asked again only after a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from msgspec import Struct

from solver.chain import Chain, PinnedReader, RpcError, Unreachable
from solver.core import crypto, curves
from solver.core.types import TokenId
from solver.core.venue import (
    DeclaresArcs,
    Pool,
    Reader,
    Snapshot,
    StatesRoutes,
    Venue,
)

GROUP = "thalweg.venues"
_OPEN_AFTER_FAILURES = 3
_PAUSE_SECONDS = 5.0
_MAX_POOLS_PER_VENUE = 10_000


class VenueError(Exception):
    """A venue of the config cannot be built; the message names it and the reason."""


class VenueStatus(Struct, frozen=True):
    """How a venue did at the last snapshot; ``reason`` is empty when it took part."""

    name: str
    kind: str
    chain: int
    pools: int
    milliseconds: float
    failures: int
    reason: str = ""


class PriceList(Struct, frozen=True):
    """Reference prices: numeraire per whole token by symbol, their source and their time."""

    source: str
    updated_at: float
    max_age_seconds: float
    per_token: dict[TokenId, float]


class Stake(Struct, frozen=True):
    """Where the solver's inventory is: its address, and per chain who may move it."""

    solver: str
    holders: dict[int, str]
    tokens: tuple[TokenId, ...]


class _Ground(Struct, frozen=True):
    """A chain at one block."""

    reader: PinnedReader
    inventory: dict[TokenId, int]
    gas_price_wei: int


class _Slot(Struct):
    venue: Venue
    kind: str
    failures: int = 0
    retry_at: float = 0.0


def installed_kinds() -> list[str]:
    """The venue kinds that exist on this machine."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def build_venue(
    name: str,
    kind: str,
    chain: int,
    options: Mapping[str, object],
    addresses: Mapping[str, str],
) -> Venue:
    """A venue from config; ``devnet:NAME`` in an option becomes the address of NAME."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name == kind]
    if not found:
        kinds = ", ".join(installed_kinds())
        raise VenueError(f"venue {name}: kind {kind!r} is not installed; there are: {kinds}")
    try:
        resolved = {key: _resolve(value, addresses) for key, value in options.items()}
        venue: Venue = found[0].load()(name, chain, resolved)
    except Exception as error:  # third-party code: whatever it raises is its operator's to see
        raise VenueError(f"venue {name}: {error}") from error
    return venue


def _resolve(value: object, addresses: Mapping[str, str]) -> object:
    if isinstance(value, list):
        return [_resolve(item, addresses) for item in value]
    if isinstance(value, str) and value.startswith("devnet:"):
        name = value.removeprefix("devnet:")
        if name not in addresses:
            raise ValueError(f"{value}: the chain has no such contract")
        return addresses[name]
    return value


class Market:
    """The current snapshot; replaced whole by :meth:`refresh`."""

    def __init__(
        self,
        chains: Mapping[int, Chain],
        venues: Sequence[tuple[str, Venue]],
        prices: PriceList,
        stake: Stake,
        venue_timeout_seconds: float,
    ) -> None:
        self.snapshot: Snapshot | None = None
        self.statuses: tuple[VenueStatus, ...] = ()
        #: Chains that the snapshot had to leave out, with the reason.
        self.down: dict[int, str] = {}
        self.prices = prices
        self._chains = dict(chains)
        self._slots = [_Slot(venue, kind) for kind, venue in venues]
        self._stake = stake
        self._timeout_seconds = venue_timeout_seconds

    async def refresh(self) -> Snapshot:
        """Read everything at the latest blocks; a chain that does not answer is left out.

        Raises Unreachable when none does.
        """
        grounds = await asyncio.gather(*(self._ground(chain) for chain in self._chains.values()))
        answers = dict(zip(self._chains, grounds, strict=True))
        found_at = {c: ground for c, ground in answers.items() if isinstance(ground, _Ground)}
        self.down = {c: str(error) for c, error in answers.items() if isinstance(error, Exception)}
        if not found_at:
            raise Unreachable("; ".join(self.down.values()))
        outcomes = await asyncio.gather(
            *(
                self._ask(slot, found_at[slot.venue.chain].reader)
                for slot in self._slots
                if slot.venue.chain in found_at
            )
        )
        self.statuses = (
            *(status for _, status in outcomes),
            *(
                self._status(slot, [], 0.0, f"chain {slot.venue.chain} does not answer")
                for slot in self._slots
                if slot.venue.chain not in found_at
            ),
        )
        excluded = {status.name: status.reason for status in self.statuses if status.reason}
        excluded |= {f"chain {chain}": reason for chain, reason in self.down.items()}
        pools: dict[str, Pool] = {}
        for found, status in outcomes:
            clash = next((pool.id for pool in found if pool.id in pools), None)
            if clash is not None:
                excluded[status.name] = f"pool id {clash} belongs to another venue"
                continue
            pools.update((pool.id, pool) for pool in found)
        if self.prices_are_stale():
            excluded["prices"] = f"older than {self.prices.max_age_seconds:g} s"
        blocks = {chain: ground.reader.block for chain, ground in found_at.items()}
        prices = {} if self.prices_are_stale() else dict(self.prices.per_token)
        inventory = {t: n for ground in found_at.values() for t, n in ground.inventory.items()}
        gas_price_wei = {chain: ground.gas_price_wei for chain, ground in found_at.items()}
        facts = (
            sorted(blocks.items()),
            sorted((key, repr(pools[key])) for key in pools),
            sorted((str(token), amount) for token, amount in inventory.items()),
            sorted((str(token), price) for token, price in prices.items()),
            sorted(gas_price_wei.items()),
        )
        self.snapshot = Snapshot(
            blocks,
            tuple(pools[key] for key in sorted(pools)),
            prices,
            inventory,
            gas_price_wei,
            excluded,
            self.prices.source,
            "0x" + crypto.keccak(repr(facts).encode()).hex(),
        )
        return self.snapshot

    def prices_are_stale(self) -> bool:
        """Whether the reference prices are too old to value anything with."""
        return time.time() - self.prices.updated_at > self.prices.max_age_seconds

    async def _ask(self, slot: _Slot, reader: Reader) -> tuple[list[Pool], VenueStatus]:
        started = time.monotonic()
        pools: list[Pool] = []
        if started < slot.retry_at:
            reason = f"paused after {slot.failures} failures"
            return [], self._status(slot, [], 0.0, reason)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                pools = list(await slot.venue.pools(reader))
            reason = _nonsense(slot.venue, pools)
        except TimeoutError:
            reason = f"no answer within {self._timeout_seconds:g} s"
        except Exception as error:  # the fence around third-party code
            reason = f"{type(error).__name__}: {error}"[:300]
        spent = time.monotonic() - started
        if not reason:
            slot.failures = 0
            return pools, self._status(slot, pools, spent, "")
        slot.failures += 1
        if slot.failures >= _OPEN_AFTER_FAILURES:
            slot.retry_at = time.monotonic() + _PAUSE_SECONDS
        return [], self._status(slot, [], spent, reason)

    def _status(
        self, slot: _Slot, pools: Sequence[Pool], seconds: float, reason: str
    ) -> VenueStatus:
        venue = slot.venue
        return VenueStatus(
            venue.name,
            slot.kind,
            venue.chain,
            len(pools),
            round(seconds * 1e3, 3),
            slot.failures,
            reason,
        )

    async def _ground(self, chain: Chain) -> _Ground | Unreachable:
        """What every venue of a chain stands on, or why the chain is left out."""
        try:
            reader = await chain.reader()
            inventory, gas_price_wei = await asyncio.gather(
                self._inventory(chain, reader), chain.gas_price_wei()
            )
        except (Unreachable, RpcError) as error:
            return Unreachable(str(error))
        return _Ground(reader, inventory, gas_price_wei)

    async def _inventory(self, chain: Chain, reader: PinnedReader) -> dict[TokenId, int]:
        holder = self._stake.holders.get(chain.id)
        if holder is None:
            return {}
        tokens = [token for token in self._stake.tokens if token.chain == chain.id]
        wanted = [(token.address, self._stake.solver) for token in tokens]
        amounts = await chain.balances(wanted, holder, reader)
        found = zip(tokens, amounts, strict=True)
        return {token: amount for token, amount in found if amount > 0}


def _nonsense(venue: Venue, pools: Sequence[Pool]) -> str:
    """Why the pools cannot be used; empty when they can."""
    if len(pools) > _MAX_POOLS_PER_VENUE:
        return f"{len(pools)} pools, {_MAX_POOLS_PER_VENUE} allowed"
    seen: set[str] = set()
    for pool in pools:
        if not isinstance(pool, Pool):
            return f"{type(pool).__name__} is not a pool"
        if pool.id in seen:
            return f"pool id {pool.id} occurs twice"
        seen.add(pool.id)
        tokens = pool.tokens
        if len(set(tokens)) < 2 or not all(isinstance(token, TokenId) for token in tokens):
            return f"{pool.id} does not name two tokens"
        if not isinstance(pool, StatesRoutes) and {token.chain for token in tokens} != {
            venue.chain
        }:
            return f"{pool.id} names tokens of another chain"
        if isinstance(pool, DeclaresArcs) and not all(map(curves.is_sane, pool.arcs())):
            return f"{pool.id} declares an arc that is no number"
    return ""

"""Reads venues and builds snapshots: one block per chain; what is bad is left out with a reason.

Adapters are trusted code but fenced: each has a thread and a time budget, an exception or a
nonsensical pool costs only its venue, and a venue that keeps failing is asked again only after a
pause. What shows only later, in the solver or in a simulation, is held against the venue as well.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import entry_points
from itertools import permutations

from msgspec import Struct, field
from msgspec.structs import replace

from solver.chain import Chain, PinnedReader, RpcError, Unreachable
from solver.core import crypto, curves
from solver.core.types import Exact, TokenId
from solver.core.venue import (
    BlockRef,
    DeclaresArcs,
    EventLog,
    Pool,
    PoolFault,
    Reader,
    Snapshot,
    StatesRoutes,
    Venue,
    step_of,
)
from solver.fence import Fence, Fenced

GROUP = "thalweg.venues"
_OPEN_AFTER_FAILURES = 3
_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_DOUBTS = 3
_PROBES = (0, 1_000, 10**18)
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
    """A venue and its record.

    ``strikes`` are faults that ``pools`` did not show, ``doubts`` failures that may have been
    somebody else's; ``sound`` the pools that were probed and the text that stands for each.
    """

    venue: Venue
    kind: str
    fence: Fence[_Reading]
    failures: int = 0
    strikes: int = 0
    doubts: int = 0
    retry_at: float = 0.0
    reason: str = ""
    sound: dict[str, tuple[Pool, str]] = field(default_factory=dict)


class _Reading(Struct, frozen=True):
    """Pools that were probed, each with the text that stands for it in the snapshot's hash."""

    pools: tuple[Pool, ...]
    texts: tuple[str, ...]


class _Nonsense(Exception):
    """Why what a venue gave cannot be used."""


class _Relay:
    """A reader for the thread of an adapter: what it asks is asked on the daemon's own loop."""

    def __init__(self, reader: Reader, home: asyncio.AbstractEventLoop) -> None:
        self._reader = reader
        self._home = home

    @property
    def block(self) -> BlockRef:
        return self._reader.block

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        asked = asyncio.run_coroutine_threadsafe(self._reader.call(calls, code), self._home)
        return await asyncio.wrap_future(asked)

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        asked = asyncio.run_coroutine_threadsafe(
            self._reader.logs(address, topic, from_block), self._home
        )
        return await asyncio.wrap_future(asked)


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
        self._slots = [_Slot(venue, kind, Fence(f"venue {venue.name}")) for kind, venue in venues]
        self._owners: dict[str, _Slot] = {}
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
        pools: dict[str, Pool] = {}
        texts: dict[str, str] = {}
        owners: dict[str, _Slot] = {}
        statuses = []
        for slot, found, status in outcomes:
            clash = next((pool.id for pool in found.pools if pool.id in pools), None)
            if clash is not None:
                reason = f"pool id {clash} belongs to venue {owners[clash].venue.name}"
                statuses.append(replace(status, pools=0, reason=reason))
                continue
            statuses.append(status)
            for pool, text in zip(found.pools, found.texts, strict=True):
                pools[pool.id], texts[pool.id], owners[pool.id] = pool, text, slot
        statuses += [
            self._status(slot, 0, 0.0, f"chain {slot.venue.chain} does not answer")
            for slot in self._slots
            if slot.venue.chain not in found_at
        ]
        self.statuses, self._owners = tuple(statuses), owners
        excluded = {status.name: status.reason for status in self.statuses if status.reason}
        excluded |= {f"chain {chain}": reason for chain, reason in self.down.items()}
        if self.prices_are_stale():
            excluded["prices"] = f"older than {self.prices.max_age_seconds:g} s"
        blocks = {chain: ground.reader.block for chain, ground in found_at.items()}
        prices = {} if self.prices_are_stale() else dict(self.prices.per_token)
        inventory = {t: n for ground in found_at.values() for t, n in ground.inventory.items()}
        gas_price_wei = {chain: ground.gas_price_wei for chain, ground in found_at.items()}
        facts = (
            sorted(blocks.items()),
            sorted(texts.items()),
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

    def venue_of(self, pool: str) -> str:
        """The name of the venue that a pool of the last snapshot came from; empty for others."""
        return self._owners[pool].venue.name if pool in self._owners else ""

    def venues_of(self, pools: Collection[str]) -> list[str]:
        """The names of the venues that these pools came from."""
        return sorted({self._owners[pool].venue.name for pool in pools if pool in self._owners})

    def without(self, snapshot: Snapshot, venues: Collection[str], reason: str) -> Snapshot:
        """The snapshot as if these venues had been left out of it."""
        return replace(
            snapshot,
            pools=tuple(
                pool
                for pool in snapshot.pools
                if pool.id not in self._owners or self._owners[pool.id].venue.name not in venues
            ),
            excluded={**snapshot.excluded, **dict.fromkeys(venues, reason)},
        )

    def standing(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without the venues that were paused since it was taken."""
        now = time.monotonic()
        paused = {slot.venue.name: slot.reason for slot in self._slots if slot.retry_at > now}
        found = snapshot
        for name in set(self.venues_of([pool.id for pool in snapshot.pools])) & set(paused):
            found = self.without(found, [name], paused[name])
        return found

    def accuse(self, venues: Collection[str], reason: str) -> None:
        """Pause venues whose pools failed after ``pools`` was sound; longer each time."""
        for slot in self._named(venues):
            slot.strikes, slot.doubts, slot.reason = slot.strikes + 1, 0, reason
            pause = _PAUSE_SECONDS * 2 ** min(slot.strikes - 1, 10)
            slot.retry_at = time.monotonic() + min(pause, _LONGEST_PAUSE_SECONDS)
        self.statuses = tuple(
            replace(status, pools=0, reason=reason) if status.name in venues else status
            for status in self.statuses
        )

    def doubt(self, venues: Collection[str], reason: str) -> None:
        """Count a failure that may be an order's fault as well; the third in a row counts."""
        for slot in self._named(venues):
            slot.doubts += 1
            if slot.doubts >= _DOUBTS:
                self.accuse([slot.venue.name], reason)

    def trust(self, pools: Collection[str]) -> None:
        """What these pools promised was kept on chain; earlier faults are forgotten."""
        for slot in self._named(self.venues_of(pools)):
            slot.strikes = slot.doubts = 0

    def close(self) -> None:
        """Let the adapters' threads end."""
        for slot in self._slots:
            slot.fence.close()

    def _named(self, venues: Collection[str]) -> list[_Slot]:
        return [slot for slot in self._slots if slot.venue.name in venues]

    async def _ask(self, slot: _Slot, reader: Reader) -> tuple[_Slot, _Reading, VenueStatus]:
        started = time.monotonic()
        nothing = _Reading((), ())
        if started < slot.retry_at:
            count = slot.strikes or slot.failures
            times = "once" if count == 1 else f"{count} times"
            reason = f"paused, it failed {times}: {slot.reason}"
            return slot, nothing, self._status(slot, 0, 0.0, reason)
        relay, sound = _Relay(reader, asyncio.get_running_loop()), slot.sound
        try:
            found = await slot.fence.run(
                lambda: _read(slot.venue, relay, sound), self._timeout_seconds
            )
        except Fenced as error:
            spent = time.monotonic() - started
            slot.reason = str(error).removeprefix(f"{_Nonsense.__name__}: ")
            slot.failures += 1
            if slot.failures >= _OPEN_AFTER_FAILURES:
                slot.retry_at = time.monotonic() + _PAUSE_SECONDS
            return slot, nothing, self._status(slot, 0, spent, slot.reason)
        slot.failures = 0
        pairs = zip(found.pools, found.texts, strict=True)
        slot.sound = {pool.id: (pool, text) for pool, text in pairs}
        spent = time.monotonic() - started
        return slot, found, self._status(slot, len(found.pools), spent, "")

    def _status(self, slot: _Slot, pools: int, seconds: float, reason: str) -> VenueStatus:
        venue = slot.venue
        return VenueStatus(
            venue.name,
            slot.kind,
            venue.chain,
            pools,
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


async def _read(venue: Venue, reader: Reader, before: Mapping[str, tuple[Pool, str]]) -> _Reading:
    """A venue's pools, probed; one that is equal to its last reading need not be probed again."""
    pools = tuple(await venue.pools(reader))
    if len(pools) > _MAX_POOLS_PER_VENUE:
        raise _Nonsense(f"{len(pools)} pools, {_MAX_POOLS_PER_VENUE} allowed")
    seen: set[str] = set()
    texts = []
    for pool in pools:
        if not isinstance(pool, Pool):
            raise _Nonsense(f"{type(pool).__name__} is not a pool")
        if not isinstance(pool.id, str) or pool.id in seen:
            raise _Nonsense(f"pool id {pool.id} occurs twice or is no text")
        seen.add(pool.id)
        last = before.get(pool.id)
        if last is not None and last[0] == pool:
            texts.append(last[1])
            continue
        _probe(venue, pool)
        texts.append(repr(pool))
    return _Reading(pools, tuple(texts))


def _probe(venue: Venue, pool: Pool) -> None:
    """Whether the solver could use the pool at all. Raises _Nonsense, or what the pool raises."""
    tokens = pool.tokens
    if len(set(tokens)) < 2 or not all(isinstance(token, TokenId) for token in tokens):
        raise _Nonsense(f"{pool.id} does not name two tokens")
    is_route = isinstance(pool, StatesRoutes)
    if not is_route and {token.chain for token in tokens} != {venue.chain}:
        raise _Nonsense(f"{pool.id} names tokens of another chain")
    declares = isinstance(pool, DeclaresArcs)
    if isinstance(pool, DeclaresArcs) and not all(map(curves.is_sane, pool.arcs())):
        raise _Nonsense(f"{pool.id} declares an arc that is no number")
    try:
        pickle.loads(pickle.dumps(pool, protocol=5))
    except Exception as error:
        reason = f"{pool.id} cannot go to the solver's process, it has no pickle: {error}"
        raise _Nonsense(reason[:300]) from error
    if is_route:
        return  # no bundle swaps in it
    for ends in permutations(tokens, 2):
        for amount in _PROBES:
            try:
                step_of(pool, *ends, amount, Exact.IN)
            except PoolFault as error:
                # Of a pool that declares its arcs this is the way to have one direction only.
                if declares and isinstance(error.__cause__, ValueError):
                    break
                raise _Nonsense(str(error)[:300]) from error

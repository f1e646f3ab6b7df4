"""All pools of a snapshot as flat arrays, kept from block to block.

One arc per pool and direction; ticks and book levels lie in flat tables with cumulative sums, so
that any arc is evaluated by one bisection however many ticks it has. Flows are in numeraire at
reference prices: an arc between fairly priced tokens has a slope near 1. When a block moves some
pools, only their rows are written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core import curves
from solver.core.graph import sample
from solver.core.kernels import (
    LINEAR,
    PRODUCT,
    STABLE,
    WEIGHTED,
    WIDTH,
    Array,
    IntArray,
    KindArray,
)
from solver.core.routing import arcs as kernel
from solver.core.routing.arcs import STEPS, TICKS, Table
from solver.core.routing.coins import coins_of
from solver.core.routing.sparse import System
from solver.core.types import TokenId
from solver.core.venue import (
    Arc,
    ConstantProductArc,
    DeclaresArcs,
    LevelsArc,
    Pool,
    StableArc,
    StatesRoutes,
    TicksArc,
    TickTable,
    WeightedArc,
)

IndexArray = NDArray[np.int32]
_ROOM = 4  # levels that a book may grow by before its rows move
_MOST_SCALE = 1e6  # prices in terms of a token that is worth less say nothing


class Prices(Struct, frozen=True):
    """ν of every token, λ and μ of every joint pool in numeraire; 0 where unknown."""

    nu: Array
    lam: Array
    mu: Array

    def at(self, target: int) -> Prices:
        """The same in terms of a target, whose ν is 1; reference prices if it is worth nothing."""
        scale = 1.0 / max(float(self.nu[target]), 1e-300)
        if not scale < _MOST_SCALE:
            return Prices(np.ones(len(self.nu)), 0.0 * self.lam, 0.0 * self.mu)
        return Prices(self.nu * scale, self.lam * scale, self.mu * scale)


class Settled(Struct, frozen=True):
    """A block after all its arbitrage: its prices and what it yields."""

    block: int
    prices: Prices
    value: float


class Network:
    """Arrays over arcs, tokens and pools; see the module's docstring for units.

    ``unit[t]`` is base units of token t per unit of numeraire. ``assumed`` names the pools that are
    sampled because they declare no arcs. Tokens without a reference price take no part.
    """

    def __init__(self, pools: Sequence[Pool], prices: Mapping[TokenId, float]) -> None:
        self.tokens: list[TokenId] = []
        self.index: dict[TokenId, int] = {}
        self.pools: list[Pool] = []
        self.assumed: dict[str, None] = {}
        self._declares: dict[type[Pool], bool] = {}
        self._pooled: list[tuple[int, int, float, float, float, float]] = []
        self._stable: list[tuple[float, ...]] = []
        self._ticks: list[tuple[int, float, float]] = []
        self._prices = dict(prices)
        self._whole = all(self._is_priced(token) for pool in pools for token in pool.tokens)
        self._all = tuple(pool.id for pool in pools)
        if len(set(self._all)) < len(self._all):  # its depth would count twice
            twice = next(name for k, name in enumerate(self._all) if name in self._all[:k])
            raise ValueError(f"{twice} is there twice")
        self._pool_index: dict[str, int] = {}
        self._tables = _Tables()
        rows = [
            (pool, arcs)
            for pool in pools
            if not isinstance(pool, StatesRoutes) and (arcs := self._priced(pool))
        ]
        count = sum(len(arcs) for _, arcs in rows)
        self.tail: IndexArray = np.empty(count, np.int32)
        self.head: IndexArray = np.empty(count, np.int32)
        self.pool: IndexArray = np.empty(count, np.int32)
        self.kind: KindArray = np.empty(count, np.int8)
        self.par: Array = np.zeros((count, WIDTH))
        self.table: IntArray = np.zeros((count, 3), np.int64)
        self.first_arc: IntArray = np.empty(len(rows) + 1, np.int64)
        self.pool_gas: Array = np.empty(len(rows))
        self._held: list[tuple[Arc, ...]] = []
        position = 0
        for number, (pool, arcs) in enumerate(rows):
            self.pools.append(pool)
            self._pool_index[pool.id] = number
            self.first_arc[number] = position
            self.pool_gas[number] = max(arc.gas for arc in arcs)
            for arc in arcs:
                self.tail[position] = self._token(arc.token_in)
                self.head[position] = self._token(arc.token_out)
                self.pool[position] = number
                position += 1
            self._held.append(arcs)
        self.first_arc[len(rows)] = position
        self.unit: Array = np.array([1.0 / prices[token] for token in self.tokens])
        for number in range(len(rows)):
            self._place(number, self._held[number], placed=False)
        self._write()
        self.joint = Joints(self)
        for number in range(len(rows)):
            self.joint.add(number, self._held[number])
        self.joint.close()
        self.spot = np.empty(count)
        self._adjacency()
        self._rates: dict[int, Array] = {}
        self.block = 0
        # what :mod:`whole` and :mod:`arbitrage` remember; the yields by token are of this block
        self.system: System | None = None
        self.settled: Settled | None = None
        self.yields: dict[int, object] = {}
        self.fair_yield: float | None = None
        self._refresh(np.arange(count))

    @property
    def arc_count(self) -> int:
        """Directed arcs."""
        return len(self.tail)

    @property
    def rows(self) -> Table:
        """The tables of all TICKS and STEPS arcs."""
        return self._tables.rows

    def update(self, pools: Iterable[Pool]) -> IntArray:
        """Take over moved pools; their arcs are returned.

        A pool that is new, or has other arcs than before, needs a new network: KeyError.
        """
        moved: list[int] = []
        for pool in pools:
            number = self._pool_index[pool.id]
            arcs = self._priced(pool)
            if len(arcs) != len(self._held[number]):
                raise KeyError(f"{pool.id} has other arcs than before")
            self.pools[number] = pool
            moved.append(number)
            self._place(number, arcs, placed=True)
            if self.joint.of_pool[number] >= 0:
                self.joint.update(number, arcs)
            self._held[number] = arcs
        if not moved:
            return np.empty(0, np.int64)
        self.block += 1
        self.yields.clear()
        self.fair_yield = None
        self._write()
        touched = np.zeros(self.arc_count, np.bool_)
        for number in moved:
            touched[self.first_arc[number] : self.first_arc[number + 1]] = True
        changed = np.nonzero(touched)[0]
        self._refresh(changed)
        return changed

    @property
    def prices(self) -> Mapping[TokenId, float]:
        """Reference prices, numeraire per base unit."""
        return self._prices

    @property
    def by_id(self) -> dict[str, Pool]:
        """The pools as they are now."""
        return {pool.id: pool for pool in self.pools}

    def takes(self, pools: Sequence[Pool], prices: Mapping[TokenId, float]) -> bool:
        """Whether these are the same pools, states apart, at the same reference prices."""
        return self._all == tuple(pool.id for pool in pools) and self._prices == dict(prices)

    def curves(self, number: int) -> tuple[Arc, ...]:
        """What the arcs of a pool are made of, in their order."""
        return self._held[number]

    def rates(self, size: float) -> Array:
        """f(s)/s of every arc at the grid size nearest to ``size`` (a factor of two apart)."""
        step = round(float(np.log2(size)))
        if step not in self._rates:
            found = np.empty(self.arc_count)
            every = np.arange(self.arc_count)
            kernel.rates(self.kind, self.par, self.table, self.rows, every, 2.0**step, found)
            self._rates[step] = found
        return self._rates[step]

    def only(self, kept: NDArray[np.bool_]) -> Network:
        """The same network as if it had only some of its arcs; it sees no later blocks."""
        return _Part(self, kept)

    def forget_rates(self) -> None:
        """Drop the cached rates; the next order computes those that it needs."""
        self._rates.clear()

    def _priced(self, pool: Pool) -> tuple[Arc, ...]:
        kind = type(pool)
        if kind not in self._declares:
            self._declares[kind] = isinstance(pool, DeclaresArcs)
        if self._declares[kind]:
            arcs: Sequence[Arc] = pool.arcs()  # type: ignore[attr-defined]  # just asked for
        else:
            arcs = sample(pool)
            self.assumed[pool.id] = None
        if self._whole:
            return tuple(arcs)
        return tuple(
            arc for arc in arcs if self._is_priced(arc.token_in) and self._is_priced(arc.token_out)
        )

    def _is_priced(self, token: TokenId) -> bool:
        return 0.0 < self._prices.get(token, 0.0) < inf

    def _token(self, token: TokenId) -> int:
        if token not in self.index:
            self.index[token] = len(self.tokens)
            self.tokens.append(token)
        return self.index[token]

    def _place(self, number: int, arcs: tuple[Arc, ...], placed: bool) -> None:
        """Note what :meth:`_write` is to write for the arcs of one pool."""
        a = int(self.first_arc[number])
        held = self._held[number]
        for k, arc in enumerate(arcs):
            if isinstance(arc, ConstantProductArc):
                self._pooled.append((a, PRODUCT, arc.reserve_in, arc.reserve_out, arc.fee, 0.0))
            elif isinstance(arc, WeightedArc):
                ratio = arc.weight_in / arc.weight_out
                self._pooled.append((a, WEIGHTED, arc.reserve_in, arc.reserve_out, arc.fee, ratio))
            elif isinstance(arc, StableArc):
                numbers = curves.stable_numbers(arc)
                self._stable.append((a, *(numbers or (0.0,) * WIDTH)))
            elif isinstance(arc, TicksArc):
                before = held[k] if k < len(held) else None
                if not (isinstance(before, TicksArc) and before.table is arc.table and placed):
                    self.table[a, :2] = self._tables.ticks(arc.table)
                self._ticks.append((a, arc.start, 1.0 - arc.fee))
            else:
                ends = float(self.unit[self.tail[a]]), float(self.unit[self.head[a]])
                self.kind[a] = STEPS
                self.table[a] = self._tables.steps(arc, *ends, self.table[a])
            a += 1

    def _write(self) -> None:
        """Write what was noted, in the network's units, kind by kind."""
        if self._pooled:
            rows = np.array(self._pooled, float)
            a = rows[:, 0].astype(np.int64)
            self.kind[a] = rows[:, 1]
            self.par[a, 0] = rows[:, 2] / self.unit[self.tail[a]]
            self.par[a, 1] = rows[:, 3] / self.unit[self.head[a]]
            self.par[a, 2] = 1.0 - rows[:, 4]
            self.par[a, 3] = rows[:, 5]
        if self._stable:
            rows = np.array(self._stable)
            a = rows[:, 0].astype(np.int64)
            # no numbers, no curve: a linear arc of slope 0
            self.kind[a] = np.where(rows[:, 1] > 0.0, STABLE, LINEAR)
            self.par[a] = rows[:, 1:]
            self.par[a, 2] *= self.unit[self.tail[a]]
            self.par[a, 3] /= self.unit[self.head[a]]
        if self._ticks:
            rows = np.array(self._ticks)
            a = rows[:, 0].astype(np.int64)
            self.kind[a] = TICKS
            self.par[a, :2] = rows[:, 1:]
            self.par[a, 2] = self.unit[self.tail[a]]
            self.par[a, 3] = self.unit[self.head[a]]
        self._pooled, self._stable, self._ticks = [], [], []

    def _adjacency(self) -> None:
        count = len(self.tokens)
        self.out_arc: IndexArray = np.argsort(self.tail, kind="stable").astype(np.int32)
        self.in_arc: IndexArray = np.argsort(self.head, kind="stable").astype(np.int32)
        self.out_start = np.searchsorted(self.tail[self.out_arc], np.arange(count + 1))
        self.in_start = np.searchsorted(self.head[self.in_arc], np.arange(count + 1))
        self.in_tail: IndexArray = self.tail[self.in_arc]
        self.in_spot: Array = np.empty(len(self.in_arc))
        self.in_place: IndexArray = np.empty(len(self.in_arc), np.int32)
        self.in_place[self.in_arc] = np.arange(len(self.in_arc), dtype=np.int32)

    def _refresh(self, changed: IntArray) -> None:
        kernel.prepare(
            self.kind, self.par, self.table, self.rows, changed,
            self.spot, self.in_spot, self.in_place,
        )  # fmt: skip
        for step, cached in self._rates.items():
            kernel.rates(self.kind, self.par, self.table, self.rows, changed, 2.0**step, cached)


class _Part(Network):
    """A network that hides arcs: their first slope and their rates are 0."""

    def __init__(self, whole: Network, kept: NDArray[np.bool_]) -> None:
        self.__dict__.update(whole.__dict__)
        self._behind, self._kept = whole, kept
        self.settled = None
        self.yields, self.fair_yield = {}, None
        self.spot = np.where(kept, whole.spot, 0.0)
        self.in_spot = self.spot[self.in_arc]

    def rates(self, size: float) -> Array:
        return np.where(self._kept, self._behind.rates(size), 0.0)


def following(
    before: Network | None, pools: Sequence[Pool], prices: Mapping[TokenId, float]
) -> Network:
    """The network of a snapshot: ``before`` with its moved pools taken over, or a new one.

    A pool that is the same object, or equal, has not moved.
    """
    if before is not None and before.takes(pools, prices):
        known = before.by_id
        moved = [pool for pool in pools if pool.id in known and known[pool.id] != pool]
        try:
            before.update(moved)
        except KeyError:
            return Network(pools, prices)
        return before
    return Network(pools, prices)


class Joints:
    """Pools of three or more coins, coin by coin; see :mod:`solver.core.routing.joint`.

    ``of_pool[p]`` is the joint pool of pool p or −1, ``pool_of[j]`` the way back; j's coins are
    start[j]…start[j + 1]. In the invariant's units a coin has ``reserve``; one numeraire paid in is
    ``gross`` units, ``into`` after the fee; one unit taken out is ``out`` numeraire. ``excess`` is
    E, 0 for a weighted pool.
    ``coin_in[a]`` and ``coin_out[a]`` are the coins of arc a, −1 for arcs of other pools.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rows: list[list[float]] = []
        self._starts: list[int] = [0]
        self._kinds: list[tuple[float, float]] = []  # Ann and E
        self.of_pool: IntArray = np.full(len(network.pools), -1, np.int64)

    def add(self, number: int, arcs: tuple[Arc, ...]) -> None:
        """Take a pool in if it has more than two coins behind one state."""
        if len(arcs) < 3 or not all(isinstance(arc, WeightedArc | StableArc) for arc in arcs):
            return
        coins, ann, excess = coins_of(arcs, self._network.index, self._network.unit)
        if coins:
            self.of_pool[number] = len(self._kinds)
            self._rows += coins
            self._starts.append(len(self._rows))
            self._kinds.append((ann, excess))

    def close(self) -> None:
        """Lists to arrays."""
        rows = np.array(self._rows).reshape(len(self._rows), 6)
        self.start: IntArray = np.array(self._starts, np.int64)
        self.token: IntArray = rows[:, 0].astype(np.int64)
        self.reserve, self.weight, self.into, self.out, self.gross = (
            np.ascontiguousarray(rows[:, k]) for k in range(1, 6)
        )
        kinds = np.array(self._kinds).reshape(len(self._kinds), 2)
        self.ann, self.excess = np.ascontiguousarray(kinds[:, 0]), kinds[:, 1].copy()
        network = self._network
        self.pool_of: IntArray = np.nonzero(self.of_pool >= 0)[0]
        self.coin_in: IntArray = np.full(network.arc_count, -1, np.int64)
        self.coin_out: IntArray = np.full(network.arc_count, -1, np.int64)
        for number in self.pool_of:
            first = int(self.start[self.of_pool[number]])
            coins = self.token[first : self.start[self.of_pool[number] + 1]].tolist()
            for a in range(network.first_arc[number], network.first_arc[number + 1]):
                self.coin_in[a] = first + coins.index(network.tail[a])
                self.coin_out[a] = first + coins.index(network.head[a])

    def update(self, number: int, arcs: tuple[Arc, ...]) -> None:
        """The state of a moved pool."""
        j = self.of_pool[number]
        if j >= 0:
            coins, _, self.excess[j] = coins_of(arcs, self._network.index, self._network.unit)
            for c, row in zip(range(self.start[j], self.start[j + 1]), coins, strict=True):
                self.reserve[c] = row[1]
                self.into[c], self.out[c], self.gross[c] = row[3:]


class _Tables:
    """Rows of ticks and levels in one array that grows; a static tick table is stored once."""

    def __init__(self) -> None:
        self._filled = 0
        self._known: dict[int, tuple[int, TickTable]] = {}
        self.rows: Table = np.zeros((1024, 4))

    def ticks(self, table: TickTable) -> tuple[int, int]:
        """Offset and number of rows of a tick table."""
        if id(table) not in self._known:
            edges, depth = table.edges, table.liquidity
            rows = np.zeros((len(edges), 4))
            rows[:, 0] = edges
            rows[:-1, 1] = depth
            rows[1:, 2] = np.cumsum(depth * np.diff(edges))
            rows[1:, 3] = np.cumsum(depth * -np.diff(1.0 / edges))
            self._known[id(table)] = (self._append(rows, len(rows)), table)
        return self._known[id(table)][0], len(table.edges)

    def steps(
        self, arc: LevelsArc, unit_in: float, unit_out: float, place: IntArray
    ) -> tuple[int, int, int]:
        """Offset, number of rows and room of a book side; written in place while it fits."""
        rows = np.zeros((len(arc.levels) + 1, 4))
        if arc.levels:
            numbers = np.array(arc.levels)
            width, rate = numbers[:, 0] / unit_in, numbers[:, 1] * (unit_in / unit_out)
            rows[:-1, 1] = rate
            rows[1:, 0] = rows[1:, 2] = np.cumsum(width)
            rows[1:, 3] = np.cumsum(width * rate)
        offset, room = int(place[0]), int(place[2])
        if len(rows) > room:
            room = len(rows) + _ROOM
            return self._append(rows, room), len(rows), room
        self.rows[offset : offset + len(rows)] = rows
        return offset, len(rows), room

    def _append(self, rows: Table, room: int) -> int:
        offset = self._filled
        if offset + room > len(self.rows):
            larger = np.zeros((max(2 * len(self.rows), offset + room), 4))
            larger[:offset] = self.rows[:offset]
            self.rows = larger
        self.rows[offset : offset + len(rows)] = rows
        self._filled += room
        return offset

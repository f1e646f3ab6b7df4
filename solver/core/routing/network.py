"""All pools of a snapshot as flat arrays, kept from block to block.

One arc per pool and direction; ticks and book levels lie in flat tables with cumulative sums, so
that any arc is evaluated by one bisection however many ticks it has. Flows are in numeraire at
reference prices: an arc between fairly priced tokens has a slope near 1. When a block moves some
pools, only their rows are written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import inf

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.graph import sample
from solver.core.kernels import Array, IntArray
from solver.core.routing import arcs as kernel
from solver.core.routing.arcs import IndexArray, Table
from solver.core.routing.coins import Coins, is_joint
from solver.core.routing.sheet import Sheet
from solver.core.routing.sparse import System
from solver.core.types import TokenId
from solver.core.venue import Arc, DeclaresArcs, Pool, StatesRoutes, trades_in_lots

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
        self.index: dict[TokenId, int] = {}
        self.pools: list[Pool] = []
        self.assumed: dict[str, None] = {}
        self._declares: dict[type[Pool], bool | None] = {}
        self._prices = dict(prices)
        tokens = {token for pool in pools for token in pool.tokens}
        self._whole = all(self._is_priced(token) for token in tokens)
        self._given = {pool.id: pool for pool in pools}
        if len(self._given) < len(pools):  # its depth would count twice
            names = [pool.id for pool in pools]
            twice = next(name for k, name in enumerate(names) if name in names[:k])
            raise ValueError(f"{twice} is there twice")
        self._number: dict[str, int] = {}
        rows: list[tuple[Arc, ...]] = []
        for pool in pools:
            if own := self._priced(pool):
                self._number[pool.id] = len(rows)
                self.pools.append(pool)
                rows.append(own)
        arcs = list(chain.from_iterable(rows))
        tail, head = [], []
        for arc in arcs:
            tail.append(self.index.setdefault(arc.token_in, len(self.index)))
            head.append(self.index.setdefault(arc.token_out, len(self.index)))
        self.tokens: list[TokenId] = list(self.index)
        self.tail: IndexArray = np.array(tail, np.int32)
        self.head: IndexArray = np.array(head, np.int32)
        counts = np.array([len(own) for own in rows], np.int64)
        self.first_arc: IntArray = np.append(0, np.cumsum(counts))
        self.pool: IndexArray = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        self.pool_gas: Array = _most_gas(arcs, counts)
        self.lots: NDArray[np.bool_] = np.array([trades_in_lots(pool) for pool in self.pools], bool)
        self.unit: Array = np.array([1.0 / prices[token] for token in self.tokens])
        self._sheet = Sheet(self.unit[self.tail], self.unit[self.head])
        self.kind, self.par, self.table = self._sheet.kind, self._sheet.par, self._sheet.table
        self._sheet.write(range(len(arcs)), arcs)
        self.joint = Joints(self, rows)
        self.spot: Array = np.empty(len(arcs))
        self._adjacency()
        self._rates: dict[int, tuple[Array, int]] = {}
        self._written: IntArray = np.zeros(len(arcs), np.int64)
        self.block = 0
        # what :mod:`whole` and :mod:`arbitrage` remember; the yields by token are of this block
        self.system: System | None = None
        self.settled: Settled | None = None
        self.yields: dict[int, object] = {}
        self.fair_yield: float | None = None
        self._refresh(np.arange(len(arcs)))

    @property
    def arc_count(self) -> int:
        """Directed arcs."""
        return len(self.tail)

    @property
    def rows(self) -> Table:
        """The tables of all TICKS and STEPS arcs."""
        return self._sheet.rows

    def update(self, pools: Iterable[Pool]) -> IntArray:
        """Take over moved pools; their arcs are returned.

        A pool that is new, or has other arcs than before, needs a new network: KeyError, and this
        one is as it was.
        """
        given = {pool.id: pool for pool in pools}
        rows: list[tuple[Arc, ...]] = []
        moved: list[int] = []
        for name, pool in given.items():
            own = self._priced(pool)
            if own or name in self._number:
                rows.append(own)
                moved.append(self._number[name])
            elif name not in self._given:
                raise KeyError(f"{name} is new")
        numbers: IntArray = np.array(moved, np.int64)
        first, end = self.first_arc[numbers], self.first_arc[numbers + 1]
        places = spans(first, end)
        arcs = list(chain.from_iterable(rows))
        joint = [
            (j, own)
            for j, own in zip(self.joint.of_pool[numbers].tolist(), rows, strict=True)
            if j >= 0
        ]
        if not (
            [len(own) for own in rows] == (end - first).tolist()
            and self._named(self.tail[places]) == [arc.token_in for arc in arcs]
            and self._named(self.head[places]) == [arc.token_out for arc in arcs]
            and self._sheet.takes(places, arcs)
            and all(self.joint.takes(j, own) for j, own in joint)
        ):
            raise KeyError("a pool has other arcs than before")
        self._given.update(given)
        if not moved:
            return places
        for number in moved:
            self.pools[number] = given[self.pools[number].id]
        self.pool_gas[numbers] = _most_gas(arcs, end - first)
        self._sheet.write(places.tolist(), arcs)
        self.joint.write(joint)
        self.block += 1
        self.yields.clear()
        self.fair_yield = None
        self._written[places] = self.block
        self._refresh(places)
        return np.sort(places)

    @property
    def prices(self) -> Mapping[TokenId, float]:
        """Reference prices, numeraire per base unit."""
        return self._prices

    def moved(self, pools: Sequence[Pool], prices: Mapping[TokenId, float]) -> list[Pool] | None:
        """Those of a later snapshot's pools that are not as they were; None for other pools.

        Other reference prices, too, make another network. A pool that is the same object, or equal,
        has not moved.
        """
        if len(pools) != len(self._given) or self._prices != prices:
            return None
        moved = []
        for (name, before), pool in zip(self._given.items(), pools, strict=True):
            if pool is not before:
                if pool.id != name:
                    return None
                if pool != before:
                    moved.append(pool)
        return moved

    def curves(self, number: int) -> tuple[Arc, ...]:
        """What the arcs of a pool are made of, in their order."""
        return self._priced(self.pools[number])

    def rates(self, size: float) -> Array:
        """f(s)/s of every arc at the grid size nearest to ``size`` (a factor of two apart).

        What an earlier block knew at this size is kept for the arcs that have not moved since.
        """
        step = round(float(np.log2(size)))
        found, block = self._rates.get(step, (np.empty(self.arc_count), -1))
        if block < self.block:
            stale = np.nonzero(self._written > block)[0]
            kernel.rates(self.kind, self.par, self.table, self.rows, stale, 2.0**step, found)
            self._rates[step] = found, self.block
        return found

    def only(self, kept: NDArray[np.bool_]) -> Network:
        """The same network as if it had only some of its arcs; it sees no later blocks."""
        return _Part(self, kept)

    def forget_rates(self) -> None:
        """Drop the cached rates; the next order computes those that it needs."""
        self._rates.clear()

    def _priced(self, pool: Pool) -> tuple[Arc, ...]:
        """The arcs between tokens with a price; none of a bridge, which pays only later."""
        kind = type(pool)
        if kind not in self._declares:
            bridge = isinstance(pool, StatesRoutes)
            self._declares[kind] = None if bridge else isinstance(pool, DeclaresArcs)
        declares = self._declares[kind]
        if declares is None:
            return ()
        if declares:
            arcs: Sequence[Arc] = pool.arcs()  # type: ignore[attr-defined]  # just asked for
        else:
            arcs = sample(pool)
            self.assumed[pool.id] = None
        if self._whole:
            return tuple(arcs)
        return tuple(
            arc for arc in arcs if self._is_priced(arc.token_in) and self._is_priced(arc.token_out)
        )

    def _named(self, numbers: IndexArray) -> list[TokenId]:
        return [self.tokens[number] for number in numbers.tolist()]

    def _is_priced(self, token: TokenId) -> bool:
        return 0.0 < self._prices.get(token, 0.0) < inf

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

    Whoever still reads ``before`` sees it change.
    """
    moved = before.moved(pools, prices) if before is not None else None
    if before is None or moved is None:
        return Network(pools, prices)
    try:
        before.update(moved)
    except KeyError:
        return Network(pools, prices)
    return before


def spans(first: IntArray, end: IntArray) -> IntArray:
    """All of first[k]…end[k] − 1, one span after the other."""
    count = end - first
    return np.repeat(end - np.cumsum(count), count) + np.arange(int(count.sum()))


def _most_gas(arcs: Sequence[Arc], counts: IntArray) -> Array:
    """The gas of the dearest arc of each pool."""
    if not arcs:
        return np.empty(0)
    return np.maximum.reduceat([float(arc.gas) for arc in arcs], np.cumsum(counts) - counts)


class Joints(Coins):
    """The pools of three or more coins of a network.

    ``of_pool[p]`` is the joint pool of pool p or −1, ``pool_of[j]`` the way back. ``coin_in[a]``
    and ``coin_out[a]`` are the coins of arc a, −1 for arcs of other pools.
    """

    def __init__(self, network: Network, pools: Sequence[tuple[Arc, ...]]) -> None:
        joint = [number for number, arcs in enumerate(pools) if is_joint(arcs)]
        super().__init__([pools[number] for number in joint], network.index, network.unit)
        self.pool_of: IntArray = np.array(joint, np.int64)
        self.of_pool: IntArray = np.full(len(pools), -1, np.int64)
        self.of_pool[self.pool_of] = np.arange(len(joint))
        self.coin_in: IntArray = np.full(network.arc_count, -1, np.int64)
        self.coin_out: IntArray = np.full(network.arc_count, -1, np.int64)
        for j, number in enumerate(joint):
            first = int(self.start[j])
            coins = self.token[first : self.start[j + 1]].tolist()
            for a in range(network.first_arc[number], network.first_arc[number + 1]):
                self.coin_in[a] = first + coins.index(network.tail[a])
                self.coin_out[a] = first + coins.index(network.head[a])

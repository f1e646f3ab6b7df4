"""One order net of gas: every pool that a route uses costs a fixed charge.

    maximise  what arrives at B − Σ_{pools used} gas·price − the settlement's gas

1. The gas-blind route and the best single paths net of gas are the first answers.
2. The relaxation: every curve less its charge is replaced by its concave hull, which the interior
   point solves like any market. Its ν prove a bound on every route of the whole graph (see
   :mod:`solver.core.routing.perspective`); arcs that break it join the candidates.
3. Where the hulls of joint pools count a depth twice, a master program over trades of whole pools
   (GLOP) gives other ν.
4. The pools that the relaxation uses are opened and closed greedily, each set solved exactly.
5. Branch and bound: a pool is opened (its charge is sunk) or closed, the relaxation solved again.
   Every node has its own bound over the whole graph; best bound first, ended by a node limit.
6. If that leaves a gap, SCIP chooses pools on perspective cuts.

The clock is asked between any two of these. The answer is always a feasible route and a true bound.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from solver.core.kernels import WIDTH, Array, IntArray
from solver.core.program.charges import Curves, Trades, choose, master
from solver.core.routing import perspective as kernel
from solver.core.routing.arcs import arc_best, arc_output, expand
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.interior import interior_point
from solver.core.routing.labels import select
from solver.core.routing.model import Local, best_flow, localise, walk
from solver.core.routing.network import Network
from solver.core.routing.paths import best_paths
from solver.core.routing.router import Route, Warm, find_route

Pools = frozenset[int]

_SIZES = (1.0 / 16.0, 1.0 / 4.0, 1.0)
_PER_SIZE = 40
_SHARES = (0.5, 0.1)  # of the order, for one more path
_SPLITS = (1.0, 0.5, 0.125)  # of the order, for paths that share no pool
_DISJOINT = 6
_ROUNDS = 10
_ADDED = 60
_PATH = 8
_VISITS = 40
_SLACK = 4e-3
_CAPPED = 1e-7
_NODES = 16
_COLUMN_ROUNDS = 6
_MIP_POOLS = 60
_GREEDY = 10
_PARTS = (0.2, 0.0, -1.0)
_DROPS = (1e-6, 1e-4, 1e-3)


class NetRoute(Struct, frozen=True):
    """A feasible route net of gas, in numeraire, and bounds on the net of every acyclic route.

    ``arc`` and ``used`` are as in :class:`Route`; ``gross`` arrives, ``charge`` is the gas of the
    pools used and of the settlement. Not trading is a route without arcs: all of them 0. ``nu``
    proves ``bound`` with the limits on what a plan can hold; ``bound_in_set`` is the bound of the
    branch-and-bound tree, never above it. ``stage`` is the last stage that was completed: blind,
    relaxed, greedy, tree or mip.
    """

    source: int
    target: int
    amount: float
    arc: IntArray
    used: Array
    gross: float
    charge: float
    bound: float
    bound_in_set: float
    nu: Array
    blind: Route
    stage: str
    nodes: int = 0
    note: str = ""
    warm: Warm | None = None

    @property
    def net(self) -> float:
        """What is left of the gross value after gas."""
        return self.gross - self.charge

    @property
    def route(self) -> Route:
        """The route with its value before gas, and the bound of the gas-blind one."""
        return replace(self.blind, arc=self.arc, used=self.used, value=self.gross)


class _Found(Struct, frozen=True):
    """A feasible flow on a set of pools."""

    net: float
    gross: float
    arc: IntArray
    used: Array


class _Relaxed(Struct, frozen=True):
    """Prices of every token, the bound that they prove, and how open each candidate pool is."""

    nu: Array
    bound: float
    openness: dict[int, float]
    arcs: IntArray
    gains: Array


def net_of_gas(
    network: Network,
    source: int,
    target: int,
    amount: float,
    gas_value: float,
    settlement_gas: float = 0.0,
    clock: Clock = UNLIMITED,
    warm: Warm | None = None,
    tolerance: float = 3e-6,
) -> NetRoute:
    """The best route net of gas within ``tolerance`` of the order, or as far as ``clock`` lets.

    ``gas_value`` is numeraire per unit of gas, valued like what arrives (ν = 1 at the target).
    """
    blind, state = find_route(network, source, target, amount, 1e-5, warm, clock)
    search = _Search(network, blind, gas_value, settlement_gas, tolerance)
    search.run(state, lambda: not clock.allows(0.0))
    return search.answer(state)


class _Book:
    """Trades of whole pools collected for the master program; tokens without a rank stay out."""

    def __init__(self, rank: IntArray) -> None:
        self._rank = rank
        self._pool: list[int] = []
        self._charge: list[float] = []
        self._trade: list[int] = []
        self._token: list[int] = []
        self._net: list[float] = []

    def add(self, pool: int, charge: float, tokens: IntArray, net: Array) -> None:
        """A trade that brings ``net`` numeraire of each token."""
        ranks = [int(self._rank[t]) if t >= 0 else -1 for t in tokens]
        if any(r < 0 and x < 0.0 for r, x in zip(ranks, net, strict=True)):
            return  # needs a token that nobody brings
        for r, x in zip(ranks, net, strict=True):
            if r >= 0 and x != 0.0:
                self._trade.append(len(self._pool))
                self._token.append(r)
                self._net.append(float(x))
        self._pool.append(pool)
        self._charge.append(charge)

    def trades(self, amount: float) -> Trades:
        """For the program, in units of the order."""
        return Trades(
            np.array(self._pool, np.int64), np.array(self._charge) / amount,
            np.array(self._trade, np.int64), np.array(self._token, np.int64),
            np.array(self._net) / amount,
        )  # fmt: skip

    def touched(self, tokens: int) -> NDArray[np.bool_]:
        """The tokens that some trade moves."""
        found = np.zeros(tokens, np.bool_)
        found[self._token] = True
        return found

    def openness(self, shares: Array) -> dict[int, float]:
        """Σ λ per pool."""
        total: dict[int, float] = {}
        for k, share in zip(self._pool, shares.tolist(), strict=True):
            if share > 1e-6:
                total[k] = min(1.0, total.get(k, 0.0) + share)
        return total


class _Search:
    """The state of one solve. Bounds and nets inside leave the settlement's charge out."""

    def __init__(
        self,
        network: Network,
        blind: Route,
        gas_value: float,
        settlement: float,
        tolerance: float,
    ) -> None:
        self._network = network
        self._blind = blind
        self._source, self._target, self._amount = blind.source, blind.target, blind.amount
        self._charge: Array = network.pool_gas * gas_value
        self._settlement = settlement * gas_value
        self._slack = tolerance * blind.amount
        self._discount = kernel.discounts(
            network.first_arc, network.tail, network.head, network.spot, network.joint.of_pool
        )
        self._candidates: IntArray = np.empty(0, np.int64)
        self._member: NDArray[np.bool_] = np.zeros(network.arc_count, np.bool_)
        self._local: Local | None = None
        self._guess: Array = np.zeros(len(network.tokens))
        self._known: dict[Pools, _Found | None] = {}
        self._best = _Found(0.0, 0.0, np.empty(0, np.int64), np.empty(0))
        self._limit: Array = np.full(len(network.tokens), inf)
        self._bound = inf
        self._bound_nu: Array = blind.nu
        self._tree = inf
        self._stage = "blind"
        self._nodes = 0
        self._notes: list[str] = [blind.note] if blind.note else []

    # --- the stages

    def run(self, state: Warm | None, stop: Callable[[], bool]) -> None:
        """All stages, as far as they are needed and ``stop`` lets."""
        if len(self._blind.arc) == 0:
            return
        self._bound = self._tree = self._blind.bound
        self._take(self._blind.value, self._blind.arc, self._blind.used)
        self._single_paths()
        if self._closed or stop():
            return
        self._hold(self._blind.nu, self._blind.bound)
        self._begin(state)
        root = self._root(stop)
        if root is None:
            self._notes.append("no relaxation")
            return
        self._stage = "relaxed"
        if self._closed or stop():
            return
        self._greedy(root, stop)
        self._disjoint_paths(stop)
        self._polish(stop)
        self._stage = "greedy"
        if self._closed or stop():
            return
        self._branch(root, stop)
        if self._closed or stop():
            return
        self._mip(root)
        self._polish(stop)

    def answer(self, state: Warm | None) -> NetRoute:
        """The best route and the bounds so far; not trading where nothing is worth its gas."""
        best, charge = self._best, self._best.gross - self._best.net + self._settlement
        notes = list(self._notes)
        if len(best.arc) == 0 or best.gross - charge <= 0.0:
            if len(best.arc):
                notes.append("not worth its gas")
            best, charge = _Found(0.0, 0.0, np.empty(0, np.int64), np.empty(0)), 0.0
        bound = max(0.0, self._bound - self._settlement)
        tree = max(0.0, min(self._tree, self._bound) - self._settlement)
        return NetRoute(
            self._source, self._target, self._amount, best.arc, best.used, best.gross, charge,
            bound, max(tree, min(bound, best.gross - charge)), self._bound_nu, self._blind,
            self._stage, self._nodes, "; ".join(notes), state,
        )  # fmt: skip

    @property
    def _closed(self) -> bool:
        return min(self._tree, self._bound) - max(self._best.net, 0.0) <= self._slack

    def _single_paths(self) -> None:
        """The best path of each length as it is, and with its pools solved exactly."""
        for arcs in self._paths(self._amount, self._charge):
            local = localise(self._network, arcs, self._source, self._target)
            if local is not None:
                self._push(arcs[local.place], local, np.ones(len(local.place)))
                self._evaluate(frozenset(self._network.pool[arcs].tolist()))

    def _disjoint_paths(self, stop: Callable[[], bool]) -> None:
        """The best path for a share of the order, then the best without its pools, and so on."""
        for share in _SPLITS:
            others, pools = self._charge.copy(), frozenset[int]()
            for _ in range(_DISJOINT):
                paths = self._paths(share * self._amount, others)
                if not paths or stop():
                    break
                best = max(paths, key=lambda arcs: self._worth(arcs, share * self._amount))
                pools |= frozenset(self._network.pool[best].tolist())
                others[sorted(pools)] = inf
                self._evaluate(pools)

    def _worth(self, path: IntArray, amount: float) -> float:
        """What a path brings for an amount, net of gas."""
        network, left = self._network, amount
        for a in path:
            kind, par, table = network.kind[a], network.par[a], network.table[a]
            left = arc_output(kind, par, table, network.rows, left)
        return left - float(np.sum(self._charge[network.pool[path]]))

    def _paths(self, amount: float, charge: Array) -> list[IntArray]:
        return best_paths(self._network, self._source, self._target, amount, charge)

    def _polish(self, stop: Callable[[], bool]) -> None:
        """Leave single pools out and take paths through others in, while that pays."""
        before = -inf
        while self._best.net > before + 0.01 * self._slack and not self._closed and not stop():
            before = self._best.net
            arcs, flow = self._best.arc, self._best.used / self._amount
            local = localise(self._network, arcs, self._source, self._target)
            if local is not None:
                self._thin(arcs[local.place], local, flow[local.place])
            pools = self._chosen()
            for k in sorted(pools):
                self._evaluate(pools - {k})
            others = self._charge.copy()
            others[sorted(pools)] = inf
            for share in _SHARES:
                for arcs in self._paths(share * self._amount, others):
                    self._evaluate(pools | frozenset(self._network.pool[arcs].tolist()))

    def _begin(self, state: Warm | None) -> None:
        """Candidates from labels whose rates are net of charges, and what the blind route used."""
        network = self._network
        chosen = np.zeros(network.arc_count)
        per_arc = self._charge[network.pool]
        for share in _SIZES:
            size = share * self._amount
            select(
                network.out_start, network.out_arc, network.in_start, network.in_arc,
                network.tail, network.head,
                np.maximum(network.rates(size) - per_arc / size, 0.0),
                self._source, self._target, _PER_SIZE, chosen,
            )  # fmt: skip
        self._add(np.nonzero(chosen)[0])
        self._add(self._blind.arc)
        if state is not None:
            self._add(state.arc[state.flow > 1e-3])
            self._guess = state.nu
        else:
            self._guess = np.where(self._blind.nu > 0.0, self._blind.nu, 1.0)

    def _root(self, stop: Callable[[], bool]) -> _Relaxed | None:
        """The relaxation with nothing decided, until no arc outside breaks its bound."""
        best: _Relaxed | None = None
        for _ in range(_ROUNDS):
            relaxed = self._relax(self._charge, self._guess, 2 if best is None else 1)
            if relaxed is None:
                break
            improved = best is None or relaxed.bound < best.bound - 0.1 * self._slack
            if best is None or relaxed.bound < best.bound:
                best = relaxed
                self._keep_bound(relaxed)
            self._guess = relaxed.nu
            self._evaluate(_open(relaxed, 0.5))
            self._hold(relaxed.nu, relaxed.bound)
            if self._closed or stop():
                break
            if not (self._grow(relaxed) or improved):
                break
        if best is not None and not self._closed and not stop():
            best = self._columns(best, self._charge, _COLUMN_ROUNDS, stop)
            self._keep_bound(best)
            self._hold(best.nu, best.bound)
            self._evaluate(_open(best, 0.5))
        if best is not None:
            self._tree = self._bound
        return best

    def _columns(
        self, start: _Relaxed, charge: Array, rounds: int, stop: Callable[[], bool]
    ) -> _Relaxed:
        """Better ν from a master program over trades of whole pools.

        Each round prices the point halfway between the best prices so far and the program's.
        """
        network, local = self._network, self._local
        assert local is not None
        rank = np.full(len(network.tokens), -1, np.int64)
        rank[local.tokens] = np.arange(len(local.tokens))
        book = _Book(rank)
        best, sunk = start, self._sunk(charge)
        self._price_trades(start, charge, book)
        for _ in range(rounds):
            answer = master(book.trades(self._amount), len(local.tokens), 0, 1)
            if answer is None:
                self._notes.append("the linear program returned nothing")
                break
            shares, duals = answer
            touched = book.touched(len(local.tokens)) & (duals > 0.0)
            middle = best.nu[local.tokens]
            middle = np.where(touched, 0.5 * middle + 0.5 * duals, middle)
            floors = np.where(touched, middle, 0.0)
            openness = book.openness(shares)
            found = self._extend(
                charge, local, middle, touched, floors, np.ones(len(network.tokens)), openness
            )
            if found is None:
                break
            self._price_trades(found, charge, book)
            if found.bound < best.bound:
                best = found
            if best.bound - sunk <= self._best.net + self._slack or stop():
                break
        return best

    def _price_trades(self, relaxed: _Relaxed, charge: Array, book: _Book) -> None:
        """Every trade that is near its charge at the prices, and the chords, into the book."""
        network, joint, nu = self._network, self._network.joint, relaxed.nu
        per_pool = dict(
            zip(network.pool[relaxed.arcs].tolist(), relaxed.gains.tolist(), strict=True)
        )
        net = np.empty(len(joint.token))
        for k, gain in per_pool.items():
            q = float(charge[k])
            j = int(joint.of_pool[k])
            if j >= 0 and gain >= q > 0.0:
                part = slice(int(joint.start[j]), int(joint.start[j + 1]))
                kernel.joint_trade(
                    joint.token[part], joint.reserve[part], joint.weight[part], joint.into[part],
                    joint.out[part], float(joint.excess[j]), nu, self._limit, net[part],
                )  # fmt: skip
                book.add(k, q, joint.token[part], net[part])
        for m in np.nonzero(relaxed.gains >= 0.3 * charge[network.pool[relaxed.arcs]])[0]:
            a = int(relaxed.arcs[m])
            i, h, k = int(network.tail[a]), int(network.head[a]), int(network.pool[a])
            row, place = network.par[a], network.table[a]
            trades = [arc_best(network.kind[a], row, place, network.rows, nu[i], nu[h])[0]]
            if charge[k] > 0.0:
                trades.append(
                    kernel.break_even(
                        network.kind[a], row, place, network.rows, network.spot[a], nu[h],
                        charge[k], self._limit[i],
                    )[1]
                )  # fmt: skip
            for x in {min(x, float(self._limit[i]), 2.0 * self._amount) for x in trades if x > 0.0}:
                y = arc_output(network.kind[a], row, place, network.rows, x)
                book.add(k, float(charge[k]), np.array([i, h]), np.array([-x, y]))

    def _hold(self, nu: Array, bound: float) -> None:
        """Limit what a better plan can hold of each token; see the kernels' docstring."""
        most = (bound + self._blind.bound - self._best.net) * (1.0 + 1e-9)
        known = (nu > 1e-9) & (most < inf)
        self._limit[known] = np.minimum(self._limit[known], most / nu[known])

    def _keep_bound(self, relaxed: _Relaxed) -> None:
        if relaxed.bound < self._bound:
            self._bound, self._bound_nu = relaxed.bound, relaxed.nu

    def _greedy(self, root: _Relaxed, stop: Callable[[], bool]) -> None:
        """Open and close single pools while the net improves."""
        for least in (0.9, 0.3, 0.1, 0.01):
            pools = _open(root, least)
            if len(pools) <= 3 * _GREEDY:
                self._evaluate(pools)
        likely = sorted(root.openness, key=lambda k: -root.openness[k])[:_GREEDY]
        for _ in range(_GREEDY):
            pools = self._chosen()
            before = self._best.net
            for k in sorted(pools):
                self._evaluate(pools - {k})
            if stop():
                return
            for k in likely:
                if k not in pools:
                    self._evaluate(pools | {k})
            if self._best.net <= before + 0.01 * self._slack or self._closed or stop():
                return

    def _branch(self, root: _Relaxed, stop: Callable[[], bool]) -> None:
        """Best bound first; every node's bound holds over the whole graph."""
        count = 0
        heap: list[tuple[float, int, Pools, Pools, _Relaxed]] = [
            (-self._bound, count, frozenset(), frozenset(), root)
        ]
        settled = -inf  # the best bound of nodes that cannot be split
        while heap and self._nodes < _NODES and not stop():
            negative, _, opened, closed, relaxed = heap[0]
            self._tree = max(-negative, settled, self._best.net)
            if self._closed:
                break
            heapq.heappop(heap)
            pick = _undecided(relaxed, opened, closed)
            if pick is None:
                settled = max(settled, -negative)
                continue
            for more, less in ((opened | {pick}, closed), (opened, closed | {pick})):
                self._nodes += 1
                node = self._node(more, less, relaxed.nu)
                if node is None:
                    settled = max(settled, -negative)
                    continue
                self._evaluate(_open(node, 0.5) | more)
                bound = min(node.bound, -negative)
                if bound > self._best.net + self._slack:
                    count += 1
                    heapq.heappush(heap, (-bound, count, more, less, node))
                else:
                    settled = max(settled, bound)
        self._tree = max([settled, self._best.net, *(-entry[0] for entry in heap)])
        self._stage = "tree"

    def _node(self, opened: Pools, closed: Pools, guess: Array) -> _Relaxed | None:
        charge = self._charge.copy()
        charge[list(opened)] = 0.0
        charge[list(closed)] = inf
        node = self._relax(charge, guess, 1)
        if node is None:
            return None
        sunk = float(np.sum(self._charge[list(opened)]))
        openness = {**node.openness, **dict.fromkeys(opened, 1.0)}
        return _Relaxed(node.nu, node.bound - sunk, openness, node.arcs, node.gains)

    def _mip(self, root: _Relaxed) -> None:
        """SCIP on perspective cuts around the trades of the root."""
        network, local = self._network, self._local
        assert local is not None
        arcs = self._candidates[local.place]
        pools = sorted(root.openness, key=lambda k: -root.openness[k])[:_MIP_POOLS]
        rank = {k: number for number, k in enumerate(pools)}
        kept = [m for m, a in enumerate(arcs) if int(network.pool[a]) in rank]
        slopes, heights = np.empty((len(kept), 9)), np.empty((len(kept), 9))
        for row, m in enumerate(kept):
            a = int(arcs[m])
            for column, share in enumerate((0.0, 0.02, 0.06, 0.12, 0.25, 0.4, 0.6, 0.8, 1.0)):
                x = share * self._amount
                y = arc_output(network.kind[a], network.par[a], network.table[a], network.rows, x)
                step = 1e-4 * self._amount
                more = arc_output(
                    network.kind[a], network.par[a], network.table[a], network.rows, x + step
                )
                slope = float(network.spot[a]) if share == 0.0 else (more - y) / step
                slopes[row, column], heights[row, column] = slope, (y - slope * x) / self._amount
        chosen = choose(
            Curves(
                np.array([rank[int(network.pool[arcs[m]])] for m in kept]),
                local.tail[kept], local.head[kept], np.full(len(kept), 1.5), slopes, heights,
            ),
            self._charge[pools] / self._amount, len(local.tokens), 0, 1,
        )  # fmt: skip
        if chosen is None:
            self._notes.append("the integer program returned nothing")
            return
        self._evaluate(frozenset(pools[k] for k in chosen))
        pools_now = self._chosen()
        for k in sorted(pools_now):
            self._evaluate(pools_now - {k})
        self._stage = "mip"

    # --- the relaxation and its bound

    def _add(self, arcs: IntArray) -> bool:
        network = self._network
        fresh = arcs[~self._member[arcs]]
        if len(fresh) == 0:
            return False
        self._member[fresh] = True
        self._candidates = np.concatenate([self._candidates, fresh])
        self._local = localise(network, self._candidates, self._source, self._target)
        return True

    def _grow(self, relaxed: _Relaxed) -> bool:
        """Add arcs whose pools gain more than their charge, and their way to B."""
        network = self._network
        excess = relaxed.gains - self._charge[network.pool[relaxed.arcs]]
        outside = (excess > 1e-3 * self._slack) & ~self._useful(relaxed.arcs)
        arcs, excess = relaxed.arcs[outside], excess[outside]
        if len(arcs) == 0:
            return False
        if len(arcs) > _ADDED:
            arcs = arcs[np.sort(np.argpartition(-excess, _ADDED)[:_ADDED])]
        ends = np.full(len(network.tokens), inf)
        local = self._local
        assert local is not None
        ends[local.tokens] = 0.0
        found = np.empty(_PATH, np.int64)
        more = [arcs]
        for a in arcs:
            count = kernel.follow_charged(
                int(network.head[a]), network.out_start, network.out_arc, network.head,
                network.pool, network.spot, self._charge, self._discount, network.kind,
                network.par, network.table, network.rows, relaxed.nu, ends, self._limit,
                self._target, _PATH, found,
            )  # fmt: skip
            more.append(found[:count].copy())
        return self._add(np.unique(np.concatenate(more)))

    def _useful(self, arcs: IntArray) -> NDArray[np.bool_]:
        useful = np.zeros(self._network.arc_count, np.bool_)
        if self._local is not None:
            useful[self._candidates[self._local.place]] = True
        return useful[arcs]

    def _relax(self, charge: Array, guess: Array, passes: int) -> _Relaxed | None:
        """Hulls at the guessed prices, the interior point, and what its prices prove."""
        network, local = self._network, self._local
        if local is None:
            return None
        arcs = self._candidates[local.place]
        per_arc = charge[network.pool[arcs]]
        nu = np.maximum(guess[local.tokens], 1e-6)
        best: _Relaxed | None = None
        for _ in range(passes):
            solved = self._solve_hulls(arcs, local, per_arc, nu)
            if solved is None:
                return best
            prices, share, inflow = solved
            openness: dict[int, float] = {}
            for m in np.nonzero(share > 1e-4)[0]:
                k = int(network.pool[arcs[m]])
                openness[k] = min(1.0, openness.get(k, 0.0) + float(share[m]))
            relaxed = self._prove(charge, local, prices, inflow, openness)
            if relaxed is None:
                return best
            if best is None or relaxed.bound < best.bound:
                best = relaxed
            nu = np.maximum(prices, 1e-6)
        return best

    def _solve_hulls(
        self, arcs: IntArray, local: Local, per_arc: Array, nu: Array
    ) -> tuple[Array, Array, Array] | None:
        """Prices, share of the charge paid per arc, and inflow per local token."""
        network = self._network
        room = 4 * len(arcs) + 64
        price_in, price_out = nu[local.tail], nu[local.head]
        while True:
            arc_of, kind = np.empty(room, np.int64), np.zeros(room, np.int8)
            par, capacity = np.zeros((room, WIDTH)), np.empty(room)
            n = expand(
                arcs, price_in, price_out, _SLACK, 2.0 * self._amount, network.kind, network.par,
                network.table, network.rows, arc_of, kind, par, capacity,
            )  # fmt: skip
            if n >= 0:
                break
            room *= 2
        most = n + len(arcs)
        of, level_kind = np.empty(most, np.int64), np.zeros(most, np.int8)
        level_par, level_capacity = np.zeros((most, WIDTH)), np.empty(most)
        kappa = np.zeros(most)
        count = kernel.hull(
            arcs, price_out, per_arc, self._limit[network.tail[arcs]],
            self._amount, arc_of[:n], kind[:n], par[:n], capacity[:n],
            network.kind, network.par, network.table, network.rows, network.spot, of, level_kind,
            level_par, level_capacity, kappa,
        )  # fmt: skip
        if count == 0:
            return None
        of, level_capacity, kappa = of[:count], level_capacity[:count], kappa[:count]
        x = np.minimum(0.4 * level_capacity, 0.03)
        prices = nu.copy()
        tail, head = local.tail[of], local.head[of]
        interior_point(
            tail, head, np.ones(count, np.int64), np.ones(count), kappa, level_kind[:count],
            level_par[:count], level_capacity, 0, 1, x, prices, 1e-2, 1e-7,
        )  # fmt: skip
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(prices))):
            return None
        chord = kappa < 0.0
        share = np.zeros(len(arcs))
        share[of[chord]] = x[chord] / level_capacity[chord]
        inflow: Array = np.bincount(head, weights=x, minlength=len(local.tokens)).astype(float)
        return prices, share, inflow

    def _prove(
        self, charge: Array, local: Local, prices: Array, inflow: Array, openness: dict[int, float]
    ) -> _Relaxed | None:
        """Prices of every token from those of the local ones, and the bound over the graph."""
        fixed = (inflow > _CAPPED) | (local.tokens == self._source)
        best: _Relaxed | None = None
        part = np.ones(len(self._network.tokens))
        for floors in (np.zeros(len(prices)), np.where(fixed, 0.0, prices)):
            found = self._spread(charge, local, prices, fixed, floors, part, openness)
            if found is not None and (best is None or found.bound < best.bound):
                best = found
            if best is None or self._done(best, charge) or self._stage != "blind":
                break
        return best

    def _spread(
        self, charge: Array, local: Local, prices: Array, fixed: NDArray[np.bool_], floors: Array,
        part: Array, openness: dict[int, float],
    ) -> _Relaxed | None:  # fmt: skip
        """Where a joint pool gains too much by tokens that no flow fixes, raise their prices."""
        network = self._network
        joint = network.joint.of_pool
        free = np.zeros(len(network.tokens), np.bool_)
        free[local.tokens] = ~fixed
        best: _Relaxed | None = None
        for level in _PARTS:
            found = self._extend(charge, local, prices, fixed, floors, part, openness)
            if found is None:
                break
            if best is None or found.bound < best.bound:
                best = found
            if self._done(best, charge):
                break
            pools = network.pool[found.arcs]
            tails = network.tail[found.arcs]
            over = (found.gains > charge[pools] * (1.0 + 1e-6)) & (joint[pools] >= 0) & free[tails]
            over &= part[tails] > level
            if not np.any(over):
                break
            part[tails[over]] = level
        return best

    def _done(self, relaxed: _Relaxed, charge: Array) -> bool:
        return relaxed.bound - self._sunk(charge) <= self._best.net + self._slack

    def _sunk(self, charge: Array) -> float:
        opened = charge == 0.0
        return float(np.sum(self._charge[opened]))

    def _extend(
        self, charge: Array, local: Local, prices: Array, fixed: NDArray[np.bool_], floors: Array,
        part: Array, openness: dict[int, float],
    ) -> _Relaxed | None:  # fmt: skip
        """ν of every token, not below ``floors`` where no flow fixes it, and the bound."""
        network = self._network
        joint = network.joint
        cap = np.full(len(network.tokens), inf)
        cap[local.tokens] = np.where(fixed, prices, inf)
        cap[self._target] = 1.0
        floor = np.full(len(network.tokens), -1.0)
        floor[local.tokens] = floors
        whole = np.empty(len(network.tokens))
        ended = kernel.extend_charged(
            network.in_start, network.in_arc, network.in_tail, network.in_spot, network.pool,
            charge, self._discount, network.kind, network.par, network.table, network.rows, cap,
            self._limit, floor, part, self._target, _VISITS, whole,
        )  # fmt: skip
        if not ended:
            return None
        total, arcs, gains = kernel.charged_total(
            local.tokens, network.out_start, network.out_arc, network.head, network.pool,
            network.spot, whole, charge, self._limit, network.kind, network.par, network.table,
            network.rows, joint.of_pool, joint.start, joint.token, joint.reserve, joint.weight,
            joint.into, joint.out, joint.excess,
        )  # fmt: skip
        bound = (float(whole[self._source]) * self._amount + total) * (1.0 + 1e-13)
        return _Relaxed(whole, bound, openness, arcs, gains)

    # --- feasible routes

    def _chosen(self) -> Pools:
        return frozenset(self._network.pool[self._best.arc].tolist())

    def _take(self, gross: float, arcs: IntArray, used: Array) -> float:
        """Keep a feasible flow if its net, which is returned, is the best so far.

        Every arc of it is a call that costs the gas of its pool.
        """
        net = gross - float(np.sum(self._charge[self._network.pool[arcs]]))
        if net > self._best.net or (len(self._best.arc) == 0 and len(arcs)):
            self._best = _Found(net, gross, arcs, used)
        return net

    def _evaluate(self, pools: Pools) -> None:
        """The best flow on a set of pools, by the interior point without charges."""
        if pools in self._known or not pools:
            return
        self._known[pools] = None
        network = self._network
        arcs = np.concatenate(
            [np.arange(network.first_arc[k], network.first_arc[k + 1]) for k in sorted(pools)]
        )
        local = localise(network, arcs, self._source, self._target)
        if local is None:
            return
        arcs = arcs[local.place]
        flow = best_flow(network, arcs, local, self._guess, self._amount)
        if flow is None:
            return
        for threshold in _DROPS:
            self._push(arcs, local, np.where(flow > threshold, flow, 0.0))
        self._thin(arcs, local, flow)

    def _thin(self, arcs: IntArray, local: Local, flow: Array) -> None:
        """Drop calls of pools that are called more than once, the smallest first, if that pays."""
        number = self._network.pool[arcs]
        flow = np.where(flow > _DROPS[-1], flow, 0.0)
        used = np.nonzero(flow)[0]
        calls = np.bincount(number[used], minlength=len(self._charge))
        best = self._push(arcs, local, flow)
        for a in used[np.argsort(flow[used], kind="stable")]:
            if calls[number[a]] > 1:
                fewer = flow.copy()
                fewer[a] = 0.0
                net = self._push(arcs, local, fewer)
                if net > best:
                    best, flow = net, fewer
                    calls[number[a]] -= 1

    def _push(self, arcs: IntArray, local: Local, flow: Array) -> float:
        """Make a route of flows and keep it if it is the best; its net, −∞ if nothing arrives."""
        walked = walk(self._network, arcs, local, flow, 0.0, self._amount)
        return self._take(*walked) if walked is not None else -inf


def _open(relaxed: _Relaxed, least: float) -> Pools:
    return frozenset(k for k, share in relaxed.openness.items() if share >= least)


def _undecided(relaxed: _Relaxed, opened: Pools, closed: Pools) -> int | None:
    """The free pool whose openness is nearest to a half, or None when all are whole."""
    pick, nearest = None, 0.5 - 1e-3
    for k in sorted(relaxed.openness):
        if k not in opened and k not in closed and abs(relaxed.openness[k] - 0.5) < nearest:
            pick, nearest = k, abs(relaxed.openness[k] - 0.5)
    return pick

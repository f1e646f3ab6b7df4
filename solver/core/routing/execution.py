"""The route that brings most when it is executed in the pools' exact integers.

The continuous program knows no whole lots: what a book cannot take of a token that nothing else
takes is lost. Where that costs something, the pools around the route are solved again with the
books that it uses cut to the lots that they took, so that the rest finds another way; and again,
until no lots are lost. The best single paths and the pools without books are tried, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.kernels import Array, IntArray
from solver.core.routing.arcs import STEPS, arc_output
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.model import best_flow, localise, walk
from solver.core.routing.network import Network, spans
from solver.core.routing.paths import best_paths
from solver.core.routing.replay import Replay, replay
from solver.core.routing.router import Route, Warm

_SHARES = (0.5, 0.1)  # of the order, for paths beside others
_CUTS = 4
_HOPS = 3
_PATHS = 12  # of all paths over the near pools, the best are executed
_LOSS = 6e-6  # of the order: less lost on the way is not worth a search
_SPARE = 2e-6  # of the order, more than lots cost: flows that are a hair short lose the last lot
_OVER = 2e-5  # of the order: with more than this above its cut a book would lose a lot
_DROPS = (1e-8, 1e-6, 1e-4, 1e-3)  # of the order: flows that may not be worth their call


class Execution(Struct, frozen=True):
    """A route and what it does in integers; ``net`` is numeraire after the gas of its legs."""

    route: Route
    replay: Replay
    net: float


def execute(
    network: Network,
    route: Route,
    amount: int,
    gas_value: float = 0.0,
    warm: Warm | None = None,
    clock: Clock = UNLIMITED,
) -> Execution:
    """The best execution found for ``amount`` base units of the route's source.

    ``gas_value`` is numeraire per unit of gas. That of ``route`` itself if nothing is lost on its
    way; ``warm`` names arcs that are worth a look. The bound of the route stays as it is.
    """
    first = _executed(network, route, amount, gas_value)
    enough = route.value * (1.0 - _LOSS) - first.replay.gas * gas_value
    if (gas_value <= 0.0 and first.net >= enough) or not clock.allows(0.0):
        return first
    return _Repair(network, route, amount, gas_value, clock).best(first, enough, warm)


def _executed(network: Network, route: Route, amount: int, gas_value: float) -> Execution:
    found = replay(network, route, amount)
    arrived = found.amount_out / float(network.unit[route.target])
    return Execution(route, found, arrived - found.gas * gas_value)


class _Repair:
    """The pools around one route, solved again in several ways."""

    def __init__(
        self, network: Network, route: Route, amount: int, gas_value: float, clock: Clock
    ) -> None:
        self._network, self._route = network, route
        self._amount, self._gas_value = amount, gas_value
        self._clock = clock
        self._charge: Array = network.pool_gas * gas_value
        self._least = -inf  # what the best execution so far brings

    def best(self, first: Execution, enough: float, warm: Warm | None) -> Execution:
        """The best execution of those until one nets enough or time is up."""
        best = first
        for found in self._found(first, warm):
            best = max(best, found, key=lambda one: one.net)
            if best.net >= enough:
                break
        return best

    def _found(self, first: Execution, warm: Warm | None) -> Iterator[Execution]:
        """Executions of other routes, each only if its flows bring more than the best so far."""
        network = self._network
        self._least = first.net
        paths = [*self._single_paths(1.0, 0.0), *self._single_paths(1.0, inf)]
        for path in paths:
            whole = np.ones(len(path))
            yield from self._walked(path, whole, np.full(len(path), inf))
        parts = [path for share in _SHARES for path in self._single_paths(share, inf)]
        for pools in self._markets(paths, parts, warm):
            yield from self._with_cuts(first, pools)
            plain = pools[~network.lots[pools]]
            if len(plain) < len(pools) and self._clock.allows(0.0):
                yield from self._solved(plain, {})
        if self._gas_value > 0.0:
            near = np.unique(network.pool[np.concatenate([self._route.arc, *paths, *parts])])
            wide = near if warm is None else np.unique([*near, *network.pool[warm.arc]])
            for path in self._paths_over(wide):
                yield from self._walked(path, np.ones(len(path)), np.full(len(path), inf))
            cuts: dict[int, float] = {}
            self._cut(first, cuts)
            yield from self._thinned(near, cuts)

    def _paths_over(self, pools: IntArray) -> list[IntArray]:
        """The best of all paths of a few hops over some pools, net of gas, whole order each."""
        network, route = self._network, self._route
        out: dict[int, list[int]] = {}
        for a in spans(network.first_arc[pools], network.first_arc[pools + 1]).tolist():
            out.setdefault(int(network.tail[a]), []).append(a)
        found: list[tuple[float, list[int]]] = []
        waiting: list[tuple[float, list[int]]] = [(route.amount, [])]
        while waiting:
            amount, path = waiting.pop()
            at = int(network.head[path[-1]]) if path else route.source
            if at == route.target:
                found.append((amount, path))
            elif len(path) < _HOPS:
                been = {route.source, *(int(network.tail[a]) for a in path), at}
                for a in out.get(at, ()):
                    if int(network.head[a]) not in been:
                        kind, par, table = network.kind[a], network.par[a], network.table[a]
                        more = arc_output(kind, par, table, network.rows, amount)
                        less = float(self._charge[network.pool[a]])
                        if more - less > self._least:
                            waiting.append((more - less, [*path, a]))
        found.sort(key=lambda one: -one[0])
        return [np.array(path, np.int64) for _, path in found[:_PATHS]]

    def _thinned(self, pools: IntArray, cuts: Mapping[int, float]) -> Iterator[Execution]:
        """One pool fewer each time, the one that carries least: few may be worth their gas."""
        while len(pools) > 1 and self._clock.allows(0.0):
            solved = self._flows(pools, cuts)
            if solved is None:
                return
            arcs, flow, most = solved
            yield from self._walked(arcs, flow, most)
            carried = np.bincount(
                self._network.pool[arcs], weights=flow, minlength=len(self._charge)
            )[pools]
            kept = carried > _DROPS[-1]
            kept[np.argmin(np.where(kept, carried, inf))] = False
            pools = pools[kept]

    def _with_cuts(self, first: Execution, pools: IntArray) -> Iterator[Execution]:
        """Solved again with more books cut each time, until that brings no more."""
        cuts: dict[int, float] = {}
        tried = first
        for _ in range(_CUTS):
            if not self._clock.allows(0.0) or not self._cut(tried, cuts):
                break
            least = self._least
            for tried in self._solved(pools, cuts):
                yield tried
            if self._least <= least:
                break

    def _markets(
        self, paths: list[IntArray], parts: list[IntArray], warm: Warm | None
    ) -> list[IntArray]:
        """Sets of pools to solve on: all that are near, or the route's with those of one path."""
        pool, arcs = self._network.pool, self._route.arc
        if self._gas_value <= 0.0:
            near = np.concatenate([arcs, *paths, *parts])
            sets = [near] if warm is None else [near, np.concatenate([near, warm.arc])]
            return _different([np.unique(pool[one]) for one in sets])
        joined = [np.concatenate([arcs, path]) for path in (arcs, *paths, *parts)]
        return _different([np.unique(pool[one]) for one in joined])

    def _single_paths(self, share: float, lot_charge: float) -> list[IntArray]:
        """The best path of each length for a share of the order.

        Books cost ``lot_charge`` more than their gas.
        """
        network, route = self._network, self._route
        charge = self._charge + np.where(network.lots, lot_charge, 0.0)
        return best_paths(network, route.source, route.target, share * route.amount, charge)

    def _cut(self, tried: Execution, cuts: dict[int, float]) -> bool:
        """Cut the books of a route to the input that their lots took; whether any was longer."""
        network, changed = self._network, False
        taken = {
            (leg.pool, leg.token_in, leg.token_out): leg.amount_in for leg in tried.replay.legs
        }
        for a, used in zip(tried.route.arc.tolist(), tried.route.used.tolist(), strict=True):
            number = int(network.pool[a])
            if not (network.lots[number] and network.kind[a] == STEPS):
                continue
            ends = network.tokens[network.tail[a]], network.tokens[network.head[a]]
            whole = taken.get((network.pools[number].id, *ends), 0) / network.unit[network.tail[a]]
            if whole < used - 2.0 * _SPARE * self._route.amount:
                cuts[a] = float(whole)
                changed = True
        return changed

    def _solved(self, pools: IntArray, cuts: Mapping[int, float]) -> Iterator[Execution]:
        """The best route on some pools, of which some arcs take no more than their cut."""
        solved = self._flows(pools, cuts)
        if solved is not None:
            yield from self._walked(*solved)

    def _flows(
        self, pools: IntArray, cuts: Mapping[int, float]
    ) -> tuple[IntArray, Array, Array] | None:
        """Arcs of some pools, their flows and limits in units of the order; None without a way."""
        network, route = self._network, self._route
        first, end = network.first_arc[pools], network.first_arc[pools + 1]
        arcs = spans(first, end)
        most = np.full(len(arcs), inf)
        for a, cut in cuts.items():
            most[arcs == a] = cut / route.amount + _SPARE if cut > 0.0 else 0.0
        arcs, most = arcs[most > 0.0], most[most > 0.0]
        local = localise(network, arcs, route.source, route.target)
        if local is None:
            return None
        arcs, most = arcs[local.place], most[local.place]
        flow = best_flow(network, arcs, local, route.nu, route.amount, most)
        return None if flow is None else (arcs, flow, most)

    def _walked(self, arcs: IntArray, flow: Array, most: Array) -> Iterator[Execution]:
        """What flows do in integers, if they promise more than the best so far.

        Small flows are dropped. Where the rest then exceeds ``most`` of an arc, its lots may be
        lost, and only gas that is saved may be worth it.
        """
        network, route = self._network, self._route
        local = localise(network, arcs, route.source, route.target)
        if local is None:
            return
        arcs, flow, most = arcs[local.place], flow[local.place], most[local.place] + _OVER
        best: dict[bool, tuple[float, IntArray, Array]] = {}
        for threshold in _DROPS:
            walked = walk(network, arcs, local, flow, threshold, route.amount)
            if walked is None:
                continue
            net = walked[0] - float(np.sum(self._charge[network.pool[walked[1]]]))
            keeps = not np.any(walked[2] > route.amount * _of(walked[1], arcs, most))
            keeps |= threshold == _DROPS[0]
            if net > max(self._least, best[keeps][0] if keeps in best else -inf):
                best[keeps] = net, walked[1], walked[2]
        for keeps, (_, chosen, used) in best.items():
            if keeps or self._gas_value > 0.0:
                found = replace(route, arc=chosen, used=used)
                done = _executed(network, found, self._amount, self._gas_value)
                arrived = done.replay.amount_out / float(network.unit[route.target])
                self._least = max(self._least, done.net)
                yield replace(done, route=replace(found, value=arrived))


def _different(sets: Iterable[IntArray]) -> list[IntArray]:
    return [np.array(one, np.int64) for one in dict.fromkeys(tuple(one.tolist()) for one in sets)]


def _of(chosen: IntArray, arcs: IntArray, value: Array) -> Array:
    """The values of some of the arcs."""
    order = np.argsort(arcs)
    return value[order[np.searchsorted(arcs, chosen, sorter=order)]]

"""The route that brings most when it is executed in the pools' exact integers.

The continuous program knows no whole lots: what a book cannot take of a token that nothing else
takes is lost. Where that costs something, the pools around the route are solved again with the
books that it uses cut to the lots that they took, so that the rest finds another way; and again,
until no lots are lost. The best single paths and the pools without books are tried, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.kernels import Array, IntArray
from solver.core.routing.arcs import STEPS
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.model import best_flow, localise, walk
from solver.core.routing.network import Network, spans
from solver.core.routing.paths import best_paths
from solver.core.routing.replay import Replay, replay
from solver.core.routing.router import Route, Warm

_SHARES = (0.5, 0.1)  # of the order, for paths beside others
_CUTS = 4
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
    if not _loses(network, first, route.value) or not clock.allows(0.0):
        return first
    return _Repair(network, route, amount, gas_value, clock).best(first, warm)


def _executed(network: Network, route: Route, amount: int, gas_value: float) -> Execution:
    found = replay(network, route, amount)
    arrived = found.amount_out / float(network.unit[route.target])
    return Execution(route, found, arrived - found.gas * gas_value)


def _loses(network: Network, done: Execution, promised: float) -> bool:
    arrived = done.replay.amount_out / float(network.unit[done.route.target])
    return arrived < promised * (1.0 - _LOSS)


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

    def best(self, first: Execution, warm: Warm | None) -> Execution:
        """The best execution; the first one's if no other brings more in the time there is."""
        best = first
        for found in self._found(first, warm):
            best = max(best, found, key=lambda one: one.net)
            if not _loses(self._network, best, self._route.value):
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
        if self._gas_value > 0.0:
            sets = [np.concatenate([arcs, path]) for path in (arcs, *paths, *parts)]
        else:
            near = np.concatenate([arcs, *paths, *parts])
            sets = [near] if warm is None else [near, np.concatenate([near, warm.arc])]
        return [np.array(one) for one in dict.fromkeys(tuple(np.unique(pool[s])) for s in sets)]

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
        network, route = self._network, self._route
        first, end = network.first_arc[pools], network.first_arc[pools + 1]
        arcs = spans(first, end)
        most = np.full(len(arcs), inf)
        for a, cut in cuts.items():
            most[arcs == a] = cut / route.amount + _SPARE if cut > 0.0 else 0.0
        arcs, most = arcs[most > 0.0], most[most > 0.0]
        local = localise(network, arcs, route.source, route.target)
        if local is None:
            return
        arcs, most = arcs[local.place], most[local.place]
        flow = best_flow(network, arcs, local, route.nu, route.amount, most)
        if flow is not None:
            yield from self._walked(arcs, flow, most)

    def _walked(self, arcs: IntArray, flow: Array, most: Array) -> Iterator[Execution]:
        """What flows do in integers, if they promise more than the best so far.

        Small flows are dropped where the rest then still keeps to ``most`` per arc.
        """
        network, route = self._network, self._route
        local = localise(network, arcs, route.source, route.target)
        if local is None:
            return
        arcs, flow, most = arcs[local.place], flow[local.place], most[local.place] + _OVER
        best, promised = None, self._least
        for threshold in _DROPS:
            walked = walk(network, arcs, local, flow, threshold, route.amount)
            if walked is None:
                continue
            over = walked[2] > route.amount * _of(walked[1], arcs, most)
            if threshold > _DROPS[0] and np.any(over):
                continue
            net = walked[0] - float(np.sum(self._charge[network.pool[walked[1]]]))
            if net > promised:
                best, promised = walked, net
        if best is not None:
            found = replace(route, arc=best[1], used=best[2])
            done = _executed(network, found, self._amount, self._gas_value)
            arrived = done.replay.amount_out / float(network.unit[route.target])
            self._least = max(self._least, done.net)
            yield replace(done, route=replace(found, value=arrived))


def _of(chosen: IntArray, arcs: IntArray, value: Array) -> Array:
    """The values of some of the arcs."""
    order = np.argsort(arcs)
    return value[order[np.searchsorted(arcs, chosen, sorter=order)]]

"""The route that brings most when it is executed in the pools' exact integers.

The continuous program knows no whole lots: what a book cannot take of a token that nothing else
takes is lost. Where that costs something, the market around the route is solved again with the
books that it uses cut to the lots that they took, so that the rest finds another way; and again,
until no lots are lost. The best single paths and the market without books are tried, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.kernels import Array, IntArray
from solver.core.routing.arcs import STEPS
from solver.core.routing.charges import net_of_gas
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.network import Network
from solver.core.routing.paths import best_paths
from solver.core.routing.replay import Replay, replay
from solver.core.routing.router import Route, Warm, find_route
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, LevelsArc, Pool, Step, trades_in_lots

_SHARES = (0.5, 0.1)  # of the order, for paths beside others
_CUTS = 4
_LOSS = 1e-6  # of the order: less lost on the way is not worth a search
_TOLERANCE = 1e-6
_SPARE = 1e-6  # more than the lots cost, so that rounding on the way does not lose the last


class Execution(Struct, frozen=True):
    """A route and what it does in integers; ``net`` is numeraire after the gas of its legs."""

    route: Route
    replay: Replay
    net: float


class _Side(Struct, frozen=True):
    """One direction of a pool, up to some input. Its curve is used, never its integers."""

    id: str
    curve: LevelsArc

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        return self.curve.token_in, self.curve.token_out

    def arcs(self) -> tuple[Arc, ...]:
        return (self.curve,)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        raise NotImplementedError

    def encode(self, leg: Leg) -> Sequence[Call]:
        raise NotImplementedError


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
    promised = route.value * float(network.unit[route.target])
    if first.replay.amount_out >= promised * (1.0 - _LOSS) or not clock.allows(0.0):
        return first
    best = first
    search = _Repair(network, route, amount, gas_value, warm, clock)
    for found in search.found(first):
        best = max(best, found, key=lambda one: one.net)
        if best.replay.amount_out >= promised * (1.0 - _LOSS):
            break
    return best


def _executed(network: Network, route: Route, amount: int, gas_value: float) -> Execution:
    found = replay(network, route, amount)
    arrived = found.amount_out / float(network.unit[route.target])
    return Execution(route, found, arrived - found.gas * gas_value)


class _Repair:
    """The market around one route, solved again in several ways."""

    def __init__(
        self,
        network: Network,
        route: Route,
        amount: int,
        gas_value: float,
        warm: Warm | None,
        clock: Clock,
    ) -> None:
        self._network, self._route = network, route
        self._amount, self._gas_value = amount, gas_value
        self._clock = clock
        self._lots = np.array([trades_in_lots(pool) for pool in network.pools])
        self._paths = [*self._single_paths(1.0, 0.0), *self._single_paths(1.0, inf)]
        parts = [path for share in _SHARES for path in self._single_paths(share, inf)]
        close = np.concatenate([route.arc, *self._paths, *parts])
        self._markets = [np.unique(network.pool[close])]
        if warm is not None and gas_value <= 0.0:  # what did not pay its gas will not now
            self._markets.append(np.unique(network.pool[np.concatenate([close, warm.arc])]))

    def found(self, first: Execution) -> Iterator[Execution]:
        """Executions of other routes, as many as the clock lets."""
        yield from (self._execute(path.tolist(), np.ones(len(path))) for path in self._paths)
        for pools in self._markets:
            tried: Execution | None = first
            cuts: dict[int, float] = {}
            for _ in range(_CUTS):
                if tried is None or not self._clock.allows(0.0) or not self._cut(tried, cuts):
                    break
                tried = self._solved(pools, cuts)
                if tried is not None:
                    yield tried
            plain = pools[~self._lots[pools]]
            again = len(plain) > 0 and self._clock.allows(0.0)
            without = self._solved(plain, {}) if again else None
            if without is not None:
                yield without

    def _single_paths(self, share: float, lot_charge: float) -> list[IntArray]:
        """The best path of each length for a share of the order.

        Books cost ``lot_charge`` more than their gas.
        """
        network, route = self._network, self._route
        charge = network.pool_gas * self._gas_value + np.where(self._lots, lot_charge, 0.0)
        return best_paths(network, route.source, route.target, share * route.amount, charge)

    def _cut(self, tried: Execution, cuts: dict[int, float]) -> bool:
        """Cut the books of a route to the input that their lots took; whether any was longer."""
        network, changed = self._network, False
        taken = {
            (leg.pool, leg.token_in, leg.token_out): leg.amount_in for leg in tried.replay.legs
        }
        for a, used in zip(tried.route.arc.tolist(), tried.route.used.tolist(), strict=True):
            number = int(network.pool[a])
            if not (self._lots[number] and network.kind[a] == STEPS):
                continue
            ends = network.tokens[network.tail[a]], network.tokens[network.head[a]]
            whole = taken.get((network.pools[number].id, *ends), 0) / network.unit[network.tail[a]]
            if whole < used * (1.0 - 2.0 * _SPARE):
                cuts[a] = float(whole)
                changed = True
        return changed

    def _solved(self, pools: IntArray, cuts: Mapping[int, float]) -> Execution | None:
        """The best route on some pools, of which some sides end early."""
        network, route = self._network, self._route
        places: dict[str, int] = {}
        market = Network(list(self._market(pools, cuts, places)), network.prices)
        ends = network.tokens[route.source], network.tokens[route.target]
        if not all(token in market.index for token in ends):
            return None
        order = market, market.index[ends[0]], market.index[ends[1]], route.amount
        if self._gas_value > 0.0:
            priced = net_of_gas(*order, self._gas_value, clock=self._clock)
            arcs, used = priced.arc, priced.used
        else:
            plain, _ = find_route(*order, _TOLERANCE, clock=self._clock)
            arcs, used = plain.arc, plain.used
        if len(arcs) == 0:
            return None
        return self._execute([self._original(market, int(a), places) for a in arcs], used)

    def _market(
        self, pools: IntArray, cuts: Mapping[int, float], places: dict[str, int]
    ) -> Iterator[Pool]:
        """The pools, those with cuts side by side; ``places`` gets their numbers by their ids."""
        network = self._network
        for number in pools.tolist():
            pool = network.pools[number]
            arcs = range(network.first_arc[number], network.first_arc[number + 1])
            if not any(a in cuts for a in arcs):
                places[pool.id] = number
                yield pool
                continue
            for a, curve in zip(arcs, network.curves(number), strict=True):
                assert isinstance(curve, LevelsArc)  # as all that is cut
                most = cuts.get(a, inf) * float(network.unit[network.tail[a]]) * (1.0 + _SPARE)
                levels = tuple(_up_to(curve.levels, most))
                if levels:
                    name = f"{pool.id} {curve.token_in}"
                    places[name] = number
                    yield _Side(name, replace(curve, levels=levels))

    def _original(self, market: Network, a: int, places: Mapping[str, int]) -> int:
        network = self._network
        number = places[market.pools[market.pool[a]].id]
        ends = market.tokens[market.tail[a]], market.tokens[market.head[a]]
        for b in range(network.first_arc[number], network.first_arc[number + 1]):
            if (network.tokens[network.tail[b]], network.tokens[network.head[b]]) == ends:
                return int(b)
        raise KeyError(f"{network.pools[number].id} has no arc from {ends[0]} to {ends[1]}")

    def _execute(self, arcs: Sequence[int], used: Array) -> Execution:
        route = replace(self._route, arc=np.array(arcs, np.int64), used=used)
        done = _executed(self._network, route, self._amount, self._gas_value)
        arrived = done.replay.amount_out / float(self._network.unit[route.target])
        return replace(done, route=replace(route, value=arrived))


def _up_to(levels: Sequence[tuple[float, float]], most: float) -> Iterator[tuple[float, float]]:
    """The best levels for an input of ``most``."""
    for capacity, rate in levels:
        if most <= 0.0:
            return
        yield min(capacity, most), rate
        most -= capacity

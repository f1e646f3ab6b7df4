"""Markets of bare curves for the tests of gas charges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from msgspec import Struct

from solver.core.routing.network import Network
from solver.core.routing.router import find_route
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, Pool, Step


class BarePool(Struct, frozen=True, kw_only=True):
    """A pool that is nothing but its arcs."""

    id: str
    tokens: tuple[TokenId, ...]
    curves: tuple[Arc, ...]

    def arcs(self) -> Sequence[Arc]:
        return self.curves

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        raise NotImplementedError

    def encode(self, leg: Leg) -> Sequence[Call]:
        raise NotImplementedError


def best_subset(
    pools: Sequence[Pool],
    prices: dict[TokenId, float],
    ends: tuple[TokenId, TokenId],
    amount: float,
    gas_value: float,
) -> tuple[float, float]:
    """The best net over all subsets of at most eight pools: what a route reaches, and its bound.

    A route pays for its calls, and a pool of several coins may be called more than once.
    """
    best, most = 0.0, 0.0
    for size in range(1, len(pools) + 1):
        for chosen in combinations(pools, size):
            network = Network(chosen, prices)
            if any(end not in network.index for end in ends):
                continue
            source, target = (network.index[end] for end in ends)
            route, _ = find_route(network, source, target, amount, 1e-9)
            calls = float(network.pool_gas[network.pool[route.arc]].sum())
            best = max(best, route.value - calls * gas_value)
            most = max(most, route.bound - float(network.pool_gas.sum()) * gas_value)
    return best, most

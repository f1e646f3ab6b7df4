"""Arbitrage in a graph: what is exhibited is real, and a user's fill lies in the sandwich."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from benchmarks.markets import Market, Shape, generate, move
from solver.core.routing.arbitrage import Yield, exhibit
from solver.core.routing.network import Network
from solver.core.routing.router import ARBITRAGE, Route, find_route
from solver.core.routing.whole import Outcome, Question, proven, settle, solve_whole
from solver.core.types import Exact, TokenId

SHAPES = [Shape(12, noisy=True), Shape(80, noisy=True), Shape(400, noisy=True)]


def swapped(network: Network, found: Yield) -> dict[TokenId, int]:
    """Balances after the legs, each swapped here on what the legs before it left."""
    pools = {pool.id: pool for pool in network.pools}
    net: dict[TokenId, int] = {}
    for leg in found.legs:
        step = pools[leg.pool].swap(leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
        assert (step.amount_in, step.amount_out) == (leg.amount_in, leg.amount_out)
        pools[leg.pool] = step.next_pool
        net[leg.token_in] = net.get(leg.token_in, 0) - step.amount_in
        net[leg.token_out] = net.get(leg.token_out, 0) + step.amount_out
    return net


def most_without_input(network: Network, token: int) -> float:
    """A bound on V(0) in a token, in numeraire, from the prices after all arbitrage."""
    settled = settle(network)
    assert settled is not None
    bound, _, _ = proven(network, settled.prices.at(token), Question(token, {}))
    found = whole(network, Question(token, {}), max(1e-3 * settled.value, 1e-3))
    return min(bound, found.bound if found else bound)


def whole(network: Network, question: Question, unit: float) -> Outcome | None:
    settled = settle(network)
    return solve_whole(network, question, settled.prices if settled else None, 1e-4, unit)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.pools))
@pytest.mark.parametrize("seed", range(3))
def test_exhibited_arbitrage_needs_no_input(shape: Shape, seed: int) -> None:
    market = generate(shape, seed)
    network = Network(market.pools, market.prices)
    settled = settle(network)
    if settled is None:  # nothing gains here
        return
    for token in range(0, len(network.tokens), max(1, len(network.tokens) // 4)):
        found = exhibit(network, token)
        net = swapped(network, found)
        assert min(net.values(), default=0) >= 0
        assert net.get(network.tokens[token], 0) == found.gained >= 0
        assert found.worth == pytest.approx(found.gained / float(network.unit[token]), rel=1e-12)
        assert found.worth <= most_without_input(network, token) * (1.0 + 1e-9)
        assert exhibit(network, token) is found  # remembered until the block is over


def test_most_of_it_is_exhibited_where_pools_are_many() -> None:
    market = generate(SHAPES[-1], 1)
    network = Network(market.pools, market.prices)
    hub = int(np.argmax(np.diff(network.out_start)))
    before = exhibit(network, hub)
    settled = settle(network)
    assert settled is not None
    assert before.worth >= 0.95 * settled.value > 0.0
    _, moved = move(market, 5)
    network.update(moved)
    after = exhibit(network, hub)
    assert after is not before
    assert min(swapped(network, after).values()) >= 0


@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: str(shape.pools))
@pytest.mark.parametrize("seed", range(3))
def test_a_route_among_arbitrage_gets_what_the_order_adds(shape: Shape, seed: int) -> None:
    market = generate(shape, seed)
    network = Network(market.pools, market.prices)
    settle(network)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        source, target = (int(t) for t in rng.choice(min(12, len(network.tokens)), 2, False))
        route, _ = find_route(network, source, target, 1e4)
        assert route.note == ARBITRAGE
        assert 0.0 < route.value <= route.bound * (1.0 + 1e-12)
        assert route.joint <= route.bound * (1.0 + 1e-12)
        assert route.bound - route.joint <= 1e-4 * 1e4
        _no_cycle(network, route)


def _no_cycle(network: Network, route: Route) -> None:
    """Tokens are paid before they are spent, so a route in order has no cycle."""
    seen = {route.source}
    spent: set[int] = set()
    for arc in route.arc.tolist():
        tail, head = int(network.tail[arc]), int(network.head[arc])
        assert tail in seen and head not in spent
        seen.add(head)
        spent.add(tail)


def _pairs_only(market: Market) -> Network:
    pools = [pool for pool in market.pools if len(pool.tokens) == 2]
    return Network(pools, market.prices)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("usd", [1e3, 1e5])
def test_the_best_fill_without_cycles_lies_in_the_sandwich(seed: int, usd: float) -> None:
    """V(Δ) − V(0) ≤ best acyclic fill ≤ V(Δ), the middle one by trying every row of tokens."""
    market = generate(Shape(24, tokens=5, noisy=True), seed)
    network = _pairs_only(market)
    source, target = 0, 1
    joint = whole(network, Question(target, {source: usd}), usd)
    assert joint is not None
    idle = most_without_input(network, target)
    between = [t for t in range(len(network.tokens)) if t not in (source, target)]
    best_value, best_bound = 0.0, 0.0
    for row in permutations(between):
        rank = np.empty(len(network.tokens), np.int64)
        rank[[source, *row, target]] = np.arange(len(network.tokens))
        forward = network.only(rank[network.tail] < rank[network.head])
        route, _ = find_route(forward, source, target, usd, 1e-7)
        best_value, best_bound = max(best_value, route.value), max(best_bound, route.bound)
    assert best_bound - best_value <= 1e-5 * usd  # the middle is known
    assert joint.bound - joint.value <= 1e-4 * usd  # and so is the right side
    assert best_value <= joint.bound * (1.0 + 1e-12)
    assert joint.value - idle <= best_bound * (1.0 + 1e-12)
    route, _ = find_route(network, source, target, usd)
    assert route.value <= best_bound * (1.0 + 1e-9)

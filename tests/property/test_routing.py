"""Properties of the routing engine on random markets and on graphs made by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.markets import Market, Shape, generate, move
from solver.core import graph, program
from solver.core.pools import (
    BookPool,
    ConcentratedPool,
    ConstantProductPool,
    Level,
    StablePool,
    WeightedPool,
)
from solver.core.problem import normalise
from solver.core.routing.clock import Clock
from solver.core.routing.network import Network
from solver.core.routing.router import Route, find_route
from solver.core.types import Exact, TokenId
from solver.core.venue import Pool
from tests.make import asset, pair, signed, snapshot, swap
from tests.routes import check_route, proven_bound

SEEDS = range(int(os.environ.get("THALWEG_ROUTING_SEEDS", "3")))
TIGHT = 1e-9
SHAPES = [
    Shape(5),
    Shape(12, noisy=True),
    Shape(40, tokens=6),
    Shape(80, noisy=True),
    Shape(200),
]
conic: Any = import_module("cvxpy")  # its types do not know its own functions
NAMES = ["5", "12-noisy", "40-dense", "80-noisy", "200"]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
every_seed = pytest.mark.parametrize("seed", SEEDS)


def ends(network: Network, rng: np.random.Generator) -> tuple[int, int]:
    """A pair of tokens; the first ones are the hubs of most markets."""
    source, target = rng.choice(len(network.tokens), 2, replace=False)
    return int(source), int(target)


def simple(market: Market) -> tuple[Pool, ...]:
    """The pools whose curve is one smooth pair."""
    return tuple(
        pool
        for pool in market.pools
        if isinstance(pool, ConstantProductPool)
        or (isinstance(pool, WeightedPool) and len(pool.coins) == 2)
    )


@every_shape
@every_seed
def test_every_answer_is_feasible_and_bounded(shape: Shape, seed: int) -> None:
    market = generate(shape, seed)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(seed)
    for amount in 10.0 ** rng.uniform(-1, 6, 5):
        route, _ = find_route(network, *ends(network, rng), float(amount))
        done = check_route(network, route)
        assert done is None or done.amount_in <= int(amount * network.unit[route.source])


@every_shape
def test_the_bound_is_what_its_prices_prove(shape: Shape) -> None:
    """Over all arcs and joint pools, from the pools alone."""
    market = generate(shape, 11)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(11)
    for amount in (10.0, 1e4, 3e5):
        route, _ = find_route(network, *ends(network, rng), amount)
        if len(route.arc):
            assert proven_bound(network, route) <= route.bound * (1.0 + 1e-9)


@every_seed
def test_no_other_route_is_above_the_bound(seed: int) -> None:
    """Single paths, random splits over several paths and random walks, all in exact integers."""
    market = generate(Shape(14, tokens=5, noisy=seed % 2 == 1), seed)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(seed)
    source, target = ends(network, rng)
    for amount in (30.0, 1e4, 1e6):
        route, _ = find_route(network, source, target, amount)
        check_route(network, route)
        units = int(amount * network.unit[source])
        most = route.bound * network.unit[target] * (1.0 + 1e-9) + 1.0
        paths = list(_paths(network, source, target, 4))
        assert paths or route.value == 0.0
        best = max((_send(network, [path], [units]) for path in paths), default=0)
        assert best <= most
        if route.gap < 1e-4:
            assert best * (1.0 - 2e-4) <= route.value * network.unit[target] + 1.0
        for _ in range(60):
            chosen = [paths[k] for k in rng.integers(0, len(paths), rng.integers(2, 6))]
            shares = rng.dirichlet(np.ones(len(chosen)))
            assert _send(network, chosen, [int(s * units) for s in shares]) <= most


def _paths(network: Network, source: int, target: int, hops: int) -> list[list[int]]:
    found, started = [], [[a] for a in range(network.arc_count) if network.tail[a] == source]
    for _ in range(hops):
        longer = []
        for path in started:
            if network.head[path[-1]] == target:
                found.append(path)
                continue
            seen = {source, *(int(network.head[a]) for a in path)}
            longer += [
                [*path, a]
                for a in range(network.arc_count)
                if network.tail[a] == network.head[path[-1]] and int(network.head[a]) not in seen
            ]
        started = longer
    return found


def _send(network: Network, paths: Sequence[Sequence[int]], amounts: Sequence[int]) -> int:
    """What paths bring that are sent one after another, each on the state the last one left."""
    state: dict[int, Pool] = {}
    total = 0
    for path, amount in zip(paths, amounts, strict=True):
        for a in path:
            number = int(network.pool[a])
            pool = state.get(number, network.pools[number])
            step = pool.swap(
                network.tokens[network.tail[a]], network.tokens[network.head[a]], amount, Exact.IN
            )
            state[number], amount = step.next_pool, step.amount_out
        total += amount
    return total


@every_seed
def test_the_segment_program_of_the_batch_agrees(seed: int) -> None:
    market = generate(Shape(30, tokens=6), seed)
    pools = [pool for pool in market.pools if len(pool.tokens) == 2]  # pairs of three over-count
    network = Network(pools, market.prices)
    rng = np.random.default_rng(seed)
    source, target = ends(network, rng)
    sell, buy = network.tokens[source], network.tokens[target]
    units = int(2e4 * network.unit[source])
    intent = signed(replace(swap(sell, buy, units, 1), sell_asset=asset(sell)))
    built = graph.build(snapshot(pools, market.prices), [graph.Node(sell), graph.Node(buy)])
    batch = normalise(built, [intent], {}, market.prices)
    plan = program.solve(batch.problem)
    value = plan.value * batch.scale
    route, _ = find_route(network, source, target, units / network.unit[source], 1e-7)
    check_route(network, route)
    assert value <= route.bound * (1.0 + 1e-6)
    assert route.value >= value * (1.0 - 1e-6) or route.gap > 1e-6
    assert route.gap <= 1e-6


@every_seed
def test_a_conic_solver_agrees(seed: int) -> None:
    """cvxpy and Clarabel on pools whose trading sets are cones of (weighted) means."""
    market = generate(Shape(40, tokens=6), seed)
    network = Network(simple(market), market.prices)
    rng = np.random.default_rng(100 + seed)
    source, target = ends(network, rng)
    for amount in (1e4, 2e5):
        flow = [conic.Variable(network.arc_count, nonneg=True) for _ in range(2)]
        net = np.zeros((len(network.tokens), network.arc_count))
        out = net.copy()
        net[network.tail, np.arange(network.arc_count)] = 1.0
        out[network.head, np.arange(network.arc_count)] = 1.0
        rules = []
        for a in range(network.arc_count):
            x, y = network.par[a, 0], network.par[a, 1]
            w = network.par[a, 3] if network.kind[a] == 2 else 1.0
            # in units of the order: a mean of (1 + γx/R) and (1 − y/R) that does not fall
            grown = 1.0 + network.par[a, 2] * amount / x * flow[0][a]
            left = 1.0 - amount / y * flow[1][a]
            rules.append(conic.geo_mean(conic.hstack([grown, left]), _weights(w)) >= 1.0)
        given = np.zeros(len(network.tokens))
        given[source] = 1.0
        brought = given + out @ flow[1] - net @ flow[0]
        rules += [brought[t] >= 0.0 for t in range(len(network.tokens)) if t != target]
        model = conic.Problem(conic.Maximize(brought[target]), rules)
        best = float(model.solve(solver=conic.CLARABEL)) * amount
        route, _ = find_route(network, source, target, amount, 1e-8)
        check_route(network, route)
        # the cone's own tolerance, 1e-8 of a pool's depth, is much more of a small order
        assert best <= route.bound * (1.0 + 1e-5)
        assert route.value >= best * (1.0 - 1e-5)


def _weights(w: float) -> list[int]:
    """w = weight_in/weight_out as whole numbers; the generator has 1, 4 and 1/4."""
    return [round(4 * w), 4] if w >= 1.0 else [1, round(1 / w)]


@every_seed
def test_output_rises_with_the_input_and_is_concave(seed: int) -> None:
    market = generate(Shape(60, tokens=8), seed)
    network = Network(market.pools, market.prices)
    source, target = ends(network, np.random.default_rng(seed))
    amounts = [1e3 * 1.6**k for k in range(12)]
    routes = [find_route(network, source, target, amount, 1e-7)[0] for amount in amounts]
    for route in routes:
        check_route(network, route)
    for low, high in pairwise(routes):
        assert low.value <= high.bound  # more input, no less output
        assert low.value / low.amount >= high.value / high.amount * (1.0 - 1e-6)
        middle, _ = find_route(network, source, target, 0.5 * (low.amount + high.amount), 1e-7)
        assert middle.bound >= 0.5 * (low.value + high.value)
        assert middle.value >= 0.5 * (low.value + high.value) * (1.0 - 1e-6)


@every_seed
def test_splitting_an_order_never_beats_the_optimum(seed: int) -> None:
    market = generate(Shape(60, tokens=8), seed)
    network = Network(market.pools, market.prices)
    source, target = ends(network, np.random.default_rng(50 + seed))
    names = network.tokens[source], network.tokens[target]
    whole, _ = find_route(network, source, target, 2e5, 1e-8)
    rest = Network(market.pools, market.prices)
    total = 0
    for amount in (3e4, 1.2e5, 5e4):
        route, _ = find_route(rest, source, target, amount, 1e-7)
        done = check_route(rest, route)
        assert done is not None
        total += done.amount_out
        moved = {pool.id: pool for pool in rest.pools}
        for leg in done.legs:
            after = moved[leg.pool].swap(leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
            moved[leg.pool] = after.next_pool
        # not an update: a side of a book may be sold out, and then its arc is gone
        rest = Network(list(moved.values()), market.prices)
        source, target = (rest.index[token] for token in names)
    assert total <= whole.bound * network.unit[network.index[names[1]]] * (1.0 + 1e-9) + 9


@every_seed
def test_one_more_pool_never_hurts(seed: int) -> None:
    market = generate(Shape(40, tokens=7, noisy=seed % 2 == 1), seed)
    before = None
    for count in (10, 20, 30, 40):
        network = Network(market.pools[:count], market.prices)
        hubs = [network.index.get(token) for token in market.hubs[:2]]
        if hubs[0] is None or hubs[1] is None:
            continue
        route, _ = find_route(network, hubs[0], hubs[1], 5e4)
        check_route(network, route)
        if before is not None:
            assert before.value <= route.bound * (1.0 + 1e-12)
        before = route
    assert before is not None


@every_seed
def test_the_order_of_pools_and_tokens_changes_nothing(seed: int) -> None:
    market = generate(Shape(60, tokens=8), seed)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(seed)
    source, target = ends(network, rng)
    names = network.tokens[source], network.tokens[target]
    route, _ = find_route(network, source, target, 1e5, TIGHT)
    for _ in range(3):
        pools = [market.pools[k] for k in rng.permutation(len(market.pools))]
        other = Network([_turned(pool, rng) for pool in pools], market.prices)
        again, _ = find_route(other, other.index[names[0]], other.index[names[1]], 1e5, TIGHT)
        check_route(other, again)
        check_same(route, again)


def check_same(one: Route, two: Route, factor: float = 1.0) -> None:
    """Two answers to one question: equal as far as they are proven."""
    slack = 1e-9 + one.gap + two.gap
    assert one.value * factor == pytest.approx(two.value, rel=slack)
    assert one.bound * factor == pytest.approx(two.bound, rel=slack)
    assert slack < 2e-3


def _turned(pool: Pool, rng: np.random.Generator) -> Pool:
    """The same pool with its coins in another order."""
    if isinstance(pool, ConstantProductPool) and rng.random() < 0.5:
        return replace(
            pool, token0=pool.token1, token1=pool.token0, reserve0=pool.reserve1,
            reserve1=pool.reserve0,
        )  # fmt: skip
    if isinstance(pool, WeightedPool | StablePool):
        order = rng.permutation(len(pool.coins))
        names = ["coins", "balances", "scaling", "rates"]
        if isinstance(pool, WeightedPool):
            names.append("weights")
        return replace(
            pool, **{name: tuple(getattr(pool, name)[k] for k in order) for name in names}
        )
    return pool


@every_shape
def test_the_same_input_gives_the_same_bytes(shape: Shape) -> None:
    found: list[list[bytes]] = []
    for _ in range(2):
        market = generate(shape, 3)
        network = Network(market.pools, market.prices)
        rng = np.random.default_rng(3)
        rows = []
        for amount in (1e2, 1e5):
            route, warm = find_route(network, *ends(network, rng), amount)
            numbers = np.array([route.value, route.bound, route.rounds])
            rows += [x.tobytes() for x in (route.arc, route.used, route.nu, numbers)]
            rows += [] if warm is None else [warm.arc.tobytes(), warm.flow.tobytes()]
        found.append(rows)
    assert found[0] == found[1]


@every_seed
@pytest.mark.parametrize("shift", [6, 12])
def test_more_decimals_change_nothing(seed: int, shift: int) -> None:
    """Every second token counted in units that are smaller by 10^shift."""
    market = generate(Shape(40, tokens=6), seed)
    plain = [pool for pool in market.pools if not isinstance(pool, ConcentratedPool)]
    # deep enough that a unit of six decimals is no rounding of the reserves themselves
    finer = {token: 10**shift * (k % 2) or 1 for k, token in enumerate(market.prices)}
    prices = {token: price / finer[token] for token, price in market.prices.items()}
    results = []
    for pools, priced in (
        (plain, market.prices),
        ([_finer(pool, finer) for pool in plain], prices),
    ):
        network = Network(pools, priced)
        names = market.hubs[0], market.hubs[1]
        source, target = (network.index[name] for name in names)
        route, _ = find_route(network, source, target, 5e4, TIGHT)
        check_route(network, route)
        results.append(route)
    check_same(results[0], results[1])


def _finer(pool: Pool, factor: dict[TokenId, int]) -> Pool:
    if isinstance(pool, ConstantProductPool):
        return replace(
            pool,
            reserve0=pool.reserve0 * factor[pool.token0],
            reserve1=pool.reserve1 * factor[pool.token1],
        )
    if isinstance(pool, BookPool):
        quote = factor[pool.quote]
        sides = (
            tuple(Level(level.price * quote, level.lots) for level in side)
            for side in (pool.bids, pool.asks)
        )
        bids, asks = sides
        return replace(pool, lot_size=pool.lot_size * factor[pool.base], bids=bids, asks=asks)
    assert isinstance(pool, WeightedPool | StablePool)
    balances = tuple(b * factor[coin] for b, coin in zip(pool.balances, pool.coins, strict=True))
    if isinstance(pool, WeightedPool):
        return replace(pool, balances=balances)
    # scaling·rate/1e18 is what one unit counts; the rate takes the shift where scaling cannot
    rates = tuple(
        rate * scaling // factor[coin]
        for rate, scaling, coin in zip(pool.rates, pool.scaling, pool.coins, strict=True)
    )
    fine = all(
        rate * factor[coin] == old * scaling
        for rate, old, scaling, coin in zip(
            rates, pool.rates, pool.scaling, pool.coins, strict=True
        )
    )
    if not fine:  # the rate has no digits left for it: leave the shift in the scaling's stead
        return _rescaled(pool, balances, factor)
    return replace(pool, balances=balances, scaling=(1,) * len(rates), rates=rates)


def _rescaled(
    pool: StablePool, balances: tuple[int, ...], factor: dict[TokenId, int]
) -> StablePool:
    """Everything times the largest factor, so that the ratios of the scales stay whole."""
    top = max(factor[coin] for coin in pool.coins)
    return replace(
        pool,
        balances=balances,
        scaling=tuple(
            s * (top // factor[coin]) for s, coin in zip(pool.scaling, pool.coins, strict=True)
        ),
    )


@every_seed
@pytest.mark.parametrize("factor", [1e-12, 3e-5, 7e3, 1e12])
def test_another_numeraire_changes_nothing(seed: int, factor: float) -> None:
    market = generate(Shape(60, tokens=8), seed)
    dear = {token: price * factor for token, price in market.prices.items()}
    first, second = (Network(market.pools, prices) for prices in (market.prices, dear))
    source, target = ends(first, np.random.default_rng(seed))
    one, _ = find_route(first, source, target, 7e4, TIGHT)
    two, _ = find_route(second, source, target, 7e4 * factor, TIGHT)
    check_route(second, two)
    check_same(one, two, factor)


@pytest.mark.parametrize("noisy", [False, True])
@every_seed
def test_warm_equals_cold(seed: int, noisy: bool) -> None:
    market = generate(Shape(80, noisy=noisy), seed)
    network = Network(market.pools, market.prices)
    source, target = 0, 1
    _, warm = find_route(network, source, target, 2e4)
    for block in range(4):
        market, moved = move(market, 10 * seed + block, 0.2)
        network.update(moved)
        route, warm = find_route(network, source, target, 2e4, 1e-6, warm)
        cold, _ = find_route(network, source, target, 2e4, 1e-6)
        check_route(network, route)
        assert route.value <= cold.bound * (1.0 + 1e-12)
        assert cold.value <= route.bound * (1.0 + 1e-12)
        if not noisy:
            assert route.value == pytest.approx(cold.value, rel=2e-6)


def test_a_warm_state_of_another_pair_or_size_is_no_harm() -> None:
    market = generate(Shape(60, tokens=10), 5)
    network = Network(market.pools, market.prices)
    _, warm = find_route(network, 0, 1, 1e3)
    for source, target in ((1, 0), (2, 3), (3, 7), (0, 5)):
        for amount in (1.0, 1e5):
            cold, _ = find_route(network, source, target, amount)
            route, _ = find_route(network, source, target, amount, warm=warm)
            check_route(network, route)
            assert route.value == pytest.approx(cold.value, rel=2e-5)


class _Ticking:
    """A clock that advances by one at every look at it."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1.0
        return self.time


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("looks", [0, 1, 2, 3, 5, 8, 13])
def test_a_stopped_search_answers_with_what_it_has(looks: int, noisy: bool) -> None:
    market = generate(Shape(200, noisy=noisy), 4)
    network = Network(market.pools, market.prices)
    warm = None
    for source, target in ((0, 1), (5, 2), (9, 14)):
        clock = Clock(_Ticking(), float(looks))
        route, warm = find_route(network, source, target, 3e5, 1e-9, clock=clock)
        check_route(network, route)
        assert route.value > 0.0
        if looks < 2:
            assert route.rounds == 1
        again, _ = find_route(network, source, target, 3e5, 1e-9, warm, Clock(_Ticking(), looks))
        check_route(network, again)


def test_nothing_is_refused_but_what_makes_no_sense() -> None:
    market = generate(Shape(20), 6)
    network = Network(market.pools, market.prices)
    for source, target, amount in (
        (1, 1, 1.0), (0, len(network.tokens), 1.0), (-1, 0, 1.0), (0, 1, 0.0), (0, 1, -1.0),
        (0, 1, float("inf")), (0, 1, float("nan")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r".+"):
            find_route(network, source, target, amount)


def _tokens(count: int) -> list[TokenId]:
    return [TokenId(1, f"0x{k + 1:040x}") for k in range(count)]


def _line(hops: int, reserve: int = 10**24) -> tuple[Network, Route]:
    tokens = _tokens(hops + 1)
    pools = [pair(f"p{k}", tokens[k], tokens[k + 1], reserve, reserve) for k in range(hops)]
    network = Network(pools, dict.fromkeys(tokens, 1e-18))
    return network, find_route(network, 0, hops, 1000.0)[0]


@pytest.mark.parametrize("hops", [1, 2, 3, 4, 5, 9, 30])
def test_a_long_way_is_found(hops: int) -> None:
    network, route = _line(hops)
    done = check_route(network, route)
    assert done is not None
    assert len(done.legs) == hops
    assert route.gap <= 1e-5


def test_a_long_way_beats_a_short_one() -> None:
    """Nine good hops against one pool that is 10 % off; labels see only three."""
    tokens = _tokens(10)
    pools = [pair(f"p{k}", tokens[k], tokens[k + 1], 10**24, 10**24, 1) for k in range(9)]
    pools.append(pair("direct", tokens[0], tokens[9], 10**24, 10**24, 1000))
    network = Network(pools, dict.fromkeys(tokens, 1e-18))
    route, _ = find_route(network, 0, 9, 1000.0)
    check_route(network, route)
    assert route.gap <= 1e-5
    assert route.value > 980.0


def test_what_cannot_be_reached_is_worth_nothing() -> None:
    tokens = _tokens(5)
    pools = [pair("a", tokens[0], tokens[1], 10**21, 10**21)]
    pools.append(pair("b", tokens[2], tokens[3], 10**21, 10**21))
    network = Network(pools, dict.fromkeys(tokens, 1e-18))
    route, warm = find_route(network, 0, 3, 5.0)
    assert (route.value, route.bound, route.gap, route.note) == (0.0, 0.0, 0.0, "no_route")
    assert len(route.arc) == 0
    assert warm is None
    assert tokens[4] not in network.index

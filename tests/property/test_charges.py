"""Gas as a fixed charge: against every subset of pools, monotone, and never an exception."""

from __future__ import annotations

from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.markets import Market, Shape, generate
from solver.core.routing.charges import NetRoute, net_of_gas
from solver.core.routing.network import Network
from solver.core.types import TokenId
from solver.core.venue import Arc, ConstantProductArc, LevelsArc
from tests.charges import BarePool, best_subset

AMOUNT = 1e4


def small_market(seed: int, pools: int) -> Market:
    return generate(Shape(pools, tokens=4, median_depth_usd=4e5, spread_of_depth=1.5), seed)


def solved(market: Market, gas_usd: float) -> tuple[NetRoute | None, float]:
    network = Network(market.pools, market.prices)
    first, second = list(market.prices)[:2]
    if first not in network.index or second not in network.index:
        return None, 0.0
    source, target = network.index[first], network.index[second]
    gas_value = gas_usd / float(network.pool_gas.mean())
    return net_of_gas(network, source, target, AMOUNT, gas_value), gas_value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.sampled_from([0.3, 3.0, 30.0]))
def test_the_best_subset_lies_between_the_route_and_its_bound(
    seed: int, pools: int, gas_usd: float
) -> None:
    market = small_market(seed, pools)
    route, gas_value = solved(market, gas_usd)
    if route is None:
        return
    first, second = list(market.prices)[:2]
    best, most = best_subset(market.pools, market.prices, (first, second), AMOUNT, gas_value)
    slack = 1e-8 * AMOUNT
    assert route.bound >= best - slack
    assert route.bound_in_set >= best - slack
    assert route.net <= most + slack
    assert route.net >= best - max(1e-5 * AMOUNT, route.bound_in_set - route.net) - slack
    assert route.net >= best - 0.5e-4 * AMOUNT


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 20))
def test_dearer_gas_leaves_less(seed: int, pools: int) -> None:
    market = small_market(seed, pools)
    before = None
    for gas_usd in (0.0, 0.3, 3.0, 30.0, 3000.0):
        route, _ = solved(market, gas_usd)
        if route is None:
            return
        assert route.net <= route.bound + 1e-7
        if before is not None:
            assert route.net <= before.bound_in_set + 1e-7
            assert route.bound >= 0.0
        before = route


def test_a_route_that_is_not_worth_its_gas_is_not_taken() -> None:
    route, _ = solved(small_market(1, 12), 1e5)
    assert route is not None
    assert route.net == 0.0 and len(route.arc) == 0
    assert "not worth its gas" in route.note


def test_the_settlement_is_charged_once() -> None:
    market = small_market(3, 12)
    network = Network(market.pools, market.prices)
    first, second = (network.index[token] for token in list(market.prices)[:2])
    bare = net_of_gas(network, first, second, AMOUNT, 1e-5)
    charged = net_of_gas(network, first, second, AMOUNT, 1e-5, settlement_gas=100_000)
    assert charged.net == pytest.approx(bare.net - 1.0, abs=1e-3)
    assert charged.bound == pytest.approx(bare.bound - 1.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_route_that_is_blind_to_gas(seed: int) -> None:
    market = generate(Shape(200), seed)
    network = Network(market.pools, market.prices)
    hubs = [network.index[token] for token in market.hubs if token in network.index]
    for gas_usd in (0.3, 3.0, 30.0):
        gas_value = gas_usd / float(network.pool_gas.mean())
        route = net_of_gas(network, hubs[0], hubs[1], AMOUNT, gas_value)
        used = np.unique(network.pool[route.blind.arc])
        blind = route.blind.value - float(network.pool_gas[used].sum()) * gas_value
        assert route.net >= blind
        assert route.net <= route.bound_in_set <= route.bound


reserves = st.sampled_from([1, 1_000, 10**6, 10**18, 2**112])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), reserves, reserves,
                       st.sampled_from([0.0, 0.003, 0.999]), st.booleans()),
             min_size=1, max_size=8),
    st.sampled_from([1e-9, 1.0, 1e4, 1e12]),
    st.sampled_from([0.0, 1e-12, 3.0, 1e12]),
)  # fmt: skip
def test_adversarial_pools_never_break_it(
    rows: list[tuple[int, int, int, int, float, bool]], amount: float, charge: float
) -> None:
    tokens = [TokenId(1, f"0x{k + 1:040x}") for k in range(4)]
    pools = []
    for number, (i, j, x, y, fee, book) in enumerate(rows):
        if i == j:
            continue
        arcs: tuple[Arc, ...]
        if book:
            arcs = (
                LevelsArc(tokens[i], tokens[j], ((x, 1.0), (y, 0.5)), 1),
                LevelsArc(tokens[j], tokens[i], ((y, 1.1),), 1),
            )
        else:
            arcs = (
                ConstantProductArc(tokens[i], tokens[j], x, y, fee, 1),
                ConstantProductArc(tokens[j], tokens[i], y, x, fee, 1),
            )
        pools.append(BarePool(id=str(number), tokens=(tokens[i], tokens[j]), curves=arcs))
    network = Network(pools, dict.fromkeys(tokens, 1.0))
    if tokens[0] not in network.index or tokens[1] not in network.index:
        return
    source, target = network.index[tokens[0]], network.index[tokens[1]]
    route = net_of_gas(network, source, target, amount, charge)
    assert isfinite(route.net) and route.net >= 0.0
    assert not route.bound < route.net * (1.0 - 1e-9)

"""Pools as an attacker would make them: an answer or a clear refusal, never NaN, never a raise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from solver.core.pools import (
    BookPool,
    ConcentratedPool,
    ConstantProductPool,
    CurvePool,
    CurveVariant,
    Level,
    LimitOrderPool,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.pools.tick_math import sqrt_price_at
from solver.core.routing.network import Network
from solver.core.routing.replay import replay
from solver.core.routing.router import Route, find_route
from solver.core.types import TokenId
from solver.core.venue import Pool
from tests.make import A, B, C, D, pair

ONE = 10**18
HUGE = 2**112 - 1
FAIR = dict.fromkeys((A, B, C, D), 1e-18)
ORDERS = (1e-18, 1e-9, 1.0, 1e6, 1e15, 1e30)
DEEP = [pair("ab", A, B, 10**24, 10**24), pair("bc", B, C, 10**24, 10**24)]


def weighted(name: str, coins: Sequence[TokenId], balances: Sequence[int], parts: Sequence[int],
             fee: int = 0) -> WeightedPool:  # fmt: skip
    n = len(coins)
    return WeightedPool(
        id=name, coins=tuple(coins), balances=tuple(balances),
        weights=tuple(part * ONE // 100 for part in parts), scaling=(1,) * n, rates=(ONE,) * n,
        fee=fee, version=WeightedVersion.V3_PLUS, gas=1,
    )  # fmt: skip


def stable(name: str, coins: Sequence[TokenId], balances: Sequence[int], amp: int) -> StablePool:
    n = len(coins)
    return StablePool(
        id=name, coins=tuple(coins), balances=tuple(balances), amp=amp * 1000, scaling=(1,) * n,
        rates=(ONE,) * n, fee=0, version=StableVersion.BALANCER_V2, gas=1,
    )  # fmt: skip


def curve(name: str, balances: Sequence[int], amp: int, fee: int) -> CurvePool:
    n = len(balances)
    return CurvePool(
        id=name, coins=(A, B, C, D)[:n], balances=tuple(balances), amp=amp, rates=(ONE,) * n,
        fee=fee, variant=CurveVariant.PLAIN, gas=1,
    )  # fmt: skip


def limit(name: str, taker: TokenId, maker: TokenId, take: int, make: int) -> LimitOrderPool:
    return LimitOrderPool(
        id=name, maker_token=maker, taker_token=taker, maker_amount=make, taker_amount=take, gas=1
    )


def ticks(name: str, liquidity: int, reach: int, tick: int = 0, fee: int = 0) -> ConcentratedPool:
    nets = {-reach: liquidity, reach: -liquidity}
    return ConcentratedPool(
        id=name, token0=A, token1=B, fee_pips=fee, tick_spacing=1,
        sqrt_price_x96=sqrt_price_at(tick), tick=tick,
        liquidity=liquidity if -reach <= tick < reach else 0, ticks=TickMap.of(nets, 1), gas=1,
        gas_per_tick=1,
    )  # fmt: skip


def book(name: str, bid: int, ask: int, lots: int, lot: int = 1) -> BookPool:
    return BookPool(
        id=name, base=A, quote=B, lot_size=lot, taker_fee_bps=0,
        bids=(Level(bid, lots),) if bid else (), asks=(Level(ask, lots),) if ask else (), gas=1,
        gas_per_level=1,
    )  # fmt: skip


MARKETS: dict[str, list[Pool]] = {
    "empty market": [],
    "no reserve": [pair("p", A, B, 0, 0), *DEEP],
    "one side empty": [pair("p", A, B, 0, HUGE), pair("q", A, B, HUGE, 0), *DEEP],
    "one unit": [pair("p", A, B, 1, 1), *DEEP],
    "one unit alone": [pair("p", A, B, 1, 1)],
    "one unit against much": [pair("p", A, B, 1, HUGE), pair("q", B, C, HUGE, 1)],
    "2^112": [pair("p", A, B, HUGE, HUGE), *DEEP],
    "2^112, no fee": [pair("p", A, B, HUGE, HUGE, 0), pair("q", A, B, HUGE, HUGE, 0)],
    "all of it is fee": [pair("p", A, B, 10**20, 10**20, 10_000), *DEEP],
    "no fee circle": [pair(f"p{k}", *ends, 10**22, 10**22, 0) for k, ends in
                      enumerate([(A, B), (B, C), (C, A), (A, B)])],
    "gaining circle": [pair("p", A, B, 10**22, 2 * 10**22, 0), pair("q", B, C, 10**22, 2 * 10**22),
                       pair("r", C, A, 10**22, 2 * 10**22)],
    "circle beside the way": [pair("p", A, B, 10**22, 10**22), pair("q", C, D, 10**22, 3 * 10**22),
                              pair("r", D, C, 10**22, 3 * 10**22), pair("s", B, C, 10, 10)],
    "circle before the end": [pair("p", A, B, 10**22, 10**22), pair("q", B, C, 10**22, 3 * 10**22),
                              pair("r", C, B, 10**22, 3 * 10**22)],
    "constant sum": [limit("l", A, B, HUGE, HUGE), limit("m", B, A, HUGE, HUGE), *DEEP],
    "constant sum, small": [limit("l", A, B, ONE, ONE), limit("m", B, C, 7, 7)],
    "sum circle": [limit("l", A, B, 10**30, 10**30), limit("m", B, A, 10**30, 10**30),
                   limit("n", B, C, 10**30, 10**30), limit("o", C, A, 10**30, 10**30)],
    "absurd rates": [limit("l", A, B, 1, HUGE), limit("m", B, C, HUGE, 1)],
    "no maker": [limit("l", A, B, 5, 0), limit("m", A, B, 0, 5), *DEEP],
    "weights 1/99": [weighted("w", (A, B), (10**22, 10**22), (1, 99)), *DEEP],
    "weights 99/1": [weighted("w", (A, B), (10**22, 10**22), (99, 1)),
                     weighted("v", (A, B), (99 * 10**22, 10**22), (99, 1))],
    "three weights": [weighted("w", (A, B, C), (98 * 10**22, 10**22, 10**22), (98, 1, 1)), *DEEP],
    "three weights, dust": [weighted("w", (A, B, C), (1, HUGE, 1), (1, 98, 1)), *DEEP],
    "three weights, one empty": [weighted("w", (A, B, C), (0, 10**22, 10**22), (1, 1, 98))],
    "flat": [stable("s", (A, B), (10**24, 10**24), 10**6), *DEEP],
    "barely stable": [stable("s", (A, B), (10**24, 10**18), 1), *DEEP],
    "three flat": [stable("s", (A, B, C), (10**24, 10**24, 10**24), 10**6), *DEEP],
    "three, A = 1, skewed": [stable("s", (A, B, C), (10**26, 10**24, 10**22), 1), *DEEP],
    "four, one dry": [stable("s", (A, B, C, D), (10**24, 10**24, 10**24, 1), 200), *DEEP],
    "stable, huge": [stable("s", (A, B, C), (2**100, 2**100, 2**100), 200), *DEEP],
    "stable, dust": [stable("s", (A, B, C), (3, 3, 3), 200), *DEEP],
    "curve": [curve("c", (10**24, 10**24, 10**24), 10**6, 0), *DEEP],
    "curve, dear": [curve("c", (10**26, 10**23, 10**20), 1, 10**9), *DEEP],
    "ticks": [ticks("t", 10**24, 1), ticks("u", 2**127, 887_272), *DEEP],
    "ticks, dust": [ticks("t", 1, 10), *DEEP],
    "ticks, price far off": [ticks("t", 10**20, 10, 500_000), ticks("u", 10**20, 10, -500_000)],
    "ticks, edge of the range": [ticks("t", 10**20, 887_272, 887_000), *DEEP],
    "books": [book("b", ONE, ONE, 10**20), book("c", 0, 1, HUGE), book("d", 1, 0, 1, HUGE), *DEEP],
    "crossed book": [book("b", 3, 2, 10**20), *DEEP],
    "parallel": [pair(f"p{k}", A, B, 10**22, 10**22) for k in range(50)],
    "parallel without a fee": [pair(f"p{k}", A, B, 10**22, 10**22, 0) for k in range(9)],
    "apart": [pair("p", A, B, 10**22, 10**22), pair("q", C, D, 10**22, 10**22)],
    "everything": [pair("p", A, B, 1, 1), limit("l", A, B, HUGE, HUGE), ticks("t", 10**24, 1),
                   stable("s", (A, B, C), (10**24, 10**24, 10**24), 10**6),
                   weighted("w", (A, C, D), (10**22, 1, HUGE), (1, 98, 1)), *DEEP],
}  # fmt: skip


def check(network: Network, route: Route) -> None:
    assert np.isfinite(route.value), "value"
    assert np.isfinite(route.bound), "bound"
    assert np.all(np.isfinite(route.nu)) and np.all(route.nu >= 0.0), "prices"
    assert np.all(np.isfinite(route.used)) and np.all(route.used >= 0.0), "used"
    assert 0.0 <= route.value <= route.bound
    assert 0.0 <= route.gap <= 1.0
    amount = int(route.amount * network.unit[route.source])
    done = replay(network, route, amount)
    assert 0 <= done.amount_in <= amount
    assert done.amount_out <= route.bound * network.unit[route.target] * (1 + 1e-9) + 1


@pytest.mark.parametrize("name", MARKETS)
def test_every_pair_at_every_size(name: str) -> None:
    network = Network(MARKETS[name], FAIR)
    for source in range(len(network.tokens)):
        for target in range(len(network.tokens)):
            if source != target:
                warm = None
                for amount in ORDERS:
                    route, warm = find_route(network, source, target, amount, warm=warm)
                    check(network, route)
                    cold, _ = find_route(network, source, target, amount)
                    check(network, cold)


@pytest.mark.parametrize("price", [1e-48, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", ["three flat", "constant sum", "ticks", "everything", "books"])
def test_a_reference_price_that_is_far_off(name: str, price: float) -> None:
    """Prices only scale: a wrong one must not break an answer."""
    network = Network(MARKETS[name], {**FAIR, B: price})
    for source in range(len(network.tokens)):
        for target in range(len(network.tokens)):
            if source != target:
                for amount in (1e-9, 1.0, 1e6):
                    check(network, find_route(network, source, target, amount)[0])


def test_tokens_with_prices_of_sixty_digits_apart() -> None:
    prices = {A: 1e-30, B: 1e30, C: 1.0, D: 1e-18}
    pools = [
        pair("p", A, B, 10**80, 10**20),
        pair("q", B, C, 10**3, 10**33),
        pair("r", A, C, 10**60, 10**30),
    ]
    network = Network(pools, prices)
    for source, target in ((0, 1), (1, 2), (2, 0), (0, 2)):
        for amount in (1.0, 1e20, 1e30, 1e40, 1e60):
            check(network, find_route(network, source, target, amount)[0])


def test_an_order_for_all_there_is_takes_most_of_it() -> None:
    pools = [pair(f"p{k}", A, B, 10**22, 10**22) for k in range(3)]
    network = Network(pools, FAIR)
    for amount in (1e6, 1e8, 1e12):
        route, _ = find_route(network, 0, 1, amount)
        check(network, route)
        assert route.value >= 0.9 * 3e4


def test_the_order_takes_what_a_huge_limit_order_gives() -> None:
    network = Network([limit("l", A, B, HUGE, HUGE), pair("p", A, B, 10**20, 10**20)], FAIR)
    for amount in (1e-9, 1.0, 1e9):
        route, _ = find_route(network, 0, 1, amount)
        check(network, route)
        assert route.value == pytest.approx(amount, rel=1e-5)
        assert route.gap <= 1e-5


def test_parallel_pools_share_the_order() -> None:
    network = Network(MARKETS["parallel"], FAIR)
    route, _ = find_route(network, 0, 1, 5e4, 1e-8)
    check(network, route)
    each = ConstantProductPool(
        id="one", token0=A, token1=B, reserve0=50 * 10**22, reserve1=50 * 10**22, fee_num=30,
        fee_den=10_000, gas=0,
    )  # fmt: skip
    whole, _ = find_route(Network([each], FAIR), 0, 1, 5e4, 1e-8)
    assert route.value == pytest.approx(whole.value, rel=2e-8)


def test_one_pool_twice_is_not_twice_the_depth() -> None:
    pool = pair("p", A, B, 10**22, 10**22)
    with pytest.raises(ValueError, match="p is there twice"):
        Network([pool, pool], FAIR)

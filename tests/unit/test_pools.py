"""What the curved pools do beside their curves: surge fees, moving weights, limits of a trade."""

from __future__ import annotations

from msgspec.structs import replace

from solver.core.pools import StablePool, StableVersion, Surge, WeightedPool, WeightedVersion
from solver.core.pools.stable import surge_fee
from solver.core.pools.weighted import moved_weight
from solver.core.types import Exact
from tests.make import A, B

ONE = 10**18


def test_surge_fee_rises_with_the_imbalance() -> None:
    surge, even = Surge(ONE // 10, ONE // 2), (100 * ONE, 100 * ONE)
    fee = ONE // 1000
    assert surge_fee(fee, surge, even, 0, 1, (5 * ONE, 5 * ONE)) == fee  # below the threshold
    # 140 and 60: 80 of 200 off the median, a third of the way from 0.1 to 1
    third = fee + (ONE // 2 - fee) * (3 * ONE // 10 * ONE // (9 * ONE // 10)) // ONE
    assert surge_fee(fee, surge, even, 0, 1, (40 * ONE, 40 * ONE)) == third
    uneven = (140 * ONE, 60 * ONE)
    assert surge_fee(fee, surge, uneven, 1, 0, (20 * ONE, 20 * ONE)) == fee  # it gets better


def test_a_surge_never_gives_more_than_the_pool_without_it() -> None:
    plain = StablePool(
        id="s",
        coins=(A, B),
        balances=(100 * ONE, 100 * ONE),
        amp=100_000,
        scaling=(1, 1),
        rates=(ONE, ONE),
        fee=ONE // 1000,
        version=StableVersion.BALANCER_V3,
        gas=1,
    )
    surging = replace(plain, surge=Surge(ONE // 10, ONE // 2))
    small, large = (
        [pool.swap(A, B, amount, Exact.IN).amount_out for pool in (plain, surging)]
        for amount in (ONE, 60 * ONE)
    )
    assert small[0] == small[1]
    assert large[0] > large[1] > 0
    assert surging.arcs() == plain.arcs()


def test_weights_move_from_start_to_end() -> None:
    half, tenth = ONE // 2, ONE // 10
    assert moved_weight(half, tenth, 100, 200, 99) == half
    assert moved_weight(half, tenth, 100, 200, 150) == half - 2 * tenth
    assert moved_weight(tenth, half, 100, 200, 150) == tenth + 2 * tenth
    assert moved_weight(half, tenth, 100, 200, 200) == tenth


def test_a_trade_saturates_at_its_limit() -> None:
    pool = WeightedPool(
        id="w",
        coins=(A, B),
        balances=(100 * ONE, 100 * ONE),
        weights=(ONE // 2, ONE // 2),
        scaling=(1, 1),
        rates=(ONE, ONE),
        fee=0,
        version=WeightedVersion.BALANCER_V3,
        gas=1,
    )
    assert pool.swap(A, B, 90 * ONE, Exact.IN).amount_in == 30 * ONE
    assert pool.swap(A, B, 90 * ONE, Exact.OUT).amount_out == 30 * ONE
    limited = replace(pool, trade_limit=ONE // 10)
    assert limited.swap(A, B, 90 * ONE, Exact.IN).amount_in == 10 * ONE
    out = limited.swap(A, B, 90 * ONE, Exact.OUT)
    assert out.amount_in <= 10 * ONE  # both sides are limited
    assert out.amount_out < 10 * ONE

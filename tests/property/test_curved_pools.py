"""Weighted, stable and Curve pools: monotone, no free lunch, arcs as declared, nothing raises."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.core.pools import (
    BufferPool,
    CurvePool,
    CurveVariant,
    GyroPool,
    StablePool,
    StableVersion,
    WeightedPool,
    WeightedVersion,
)
from solver.core.types import Exact
from solver.core.venue import StableArc, WeightedArc
from tests.curves import output_of, stable_out_real, weighted_out_real
from tests.property.pools import (
    COINS,
    ELLIPSE,
    ONE,
    buffer_pools,
    curve_pools,
    gyro_pools,
    stable_pools,
    weighted_pools,
)

QUIET = settings(max_examples=100, deadline=None, derandomize=True)


POOLS = st.one_of(weighted_pools(), stable_pools(), curve_pools())


def _unit(pool: WeightedPool | StablePool | CurvePool, index: int, other: int) -> int:
    """What rounding may move, in base units of a coin: some units of it, the worth of some units
    of the other coin, and what the contract is off by on purpose: 1e-14 in pow, and in V2's
    stable balance the precision of A (1000), which it multiplies with after a rounded division.
    """
    if isinstance(pool, WeightedPool):
        value = [b * ONE // w for b, w in zip(pool.balances, pool.weights, strict=True)]
        return 4 + 4 * value[index] // value[other] + pool.balances[index] // 10**13
    if isinstance(pool, CurvePool):
        return 4 + 40 * pool.rates[other] // pool.rates[index]
    factor = [s * r for s, r in zip(pool.scaling, pool.rates, strict=True)]
    return 4 + (40 * factor[other] + 1000 * ONE) // factor[index]


@QUIET
@given(POOLS, st.data())
def test_monotone_and_concave(
    pool: WeightedPool | StablePool | CurvePool, data: st.DataObject
) -> None:
    i, o = data.draw(st.sampled_from(list(permutations(range(len(pool.coins)), 2))))
    base = pool.balances[i] // 1000
    slack = _unit(pool, o, i)
    outs = []
    for k in range(1, 9):
        step = pool.swap(pool.coins[i], pool.coins[o], base * k, Exact.IN)
        assert step.amount_in == base * k
        outs.append(step.amount_out)
    gains = [b - a for a, b in pairwise([0, *outs])]
    assert all(gain >= 0 for gain in gains)
    assert all(b <= a + slack for a, b in pairwise(gains))


@QUIET
@given(POOLS, st.data())
def test_exact_out_of_an_output_costs_no_more(
    pool: WeightedPool | StablePool | CurvePool, data: st.DataObject
) -> None:
    i, o = data.draw(st.sampled_from(list(permutations(range(len(pool.coins)), 2))))
    amount = data.draw(st.integers(pool.balances[i] // 10**6 + 1, pool.balances[i] // 5))
    step = pool.swap(pool.coins[i], pool.coins[o], amount, Exact.IN)
    if not 0 < step.amount_out < pool.balances[o] * 3 // 10:
        return  # weighted pools give no more than 30 % when the output is named
    back = pool.swap(pool.coins[i], pool.coins[o], step.amount_out, Exact.OUT)
    assert back.amount_out == step.amount_out
    # V2's formulas disagree by rounding, and the search for enough input bumps it tenfold
    assert back.amount_in <= step.amount_in + 100 * _unit(pool, i, o)
    again = step.next_pool.swap(pool.coins[o], pool.coins[i], step.amount_out, Exact.IN)
    assert again.amount_out <= amount


@QUIET
@given(POOLS, st.data())
def test_arcs_agree_with_swaps(
    pool: WeightedPool | StablePool | CurvePool, data: st.DataObject
) -> None:
    arcs = {(arc.token_in, arc.token_out): arc for arc in pool.arcs()}
    i, o = data.draw(st.sampled_from(list(permutations(range(len(pool.coins)), 2))))
    arc = arcs[pool.coins[i], pool.coins[o]]
    assert isinstance(arc, WeightedArc | StableArc)
    share = data.draw(st.integers(10, 250))
    step = pool.swap(pool.coins[i], pool.coins[o], pool.balances[i] * share // 1000, Exact.IN)
    real = (
        weighted_out_real(arc, step.amount_in)
        if isinstance(arc, WeightedArc)
        else stable_out_real(arc, step.amount_in)
    )
    assert step.amount_out <= real * (1 + 1e-9) + 1
    assert step.amount_out >= real * (1 - 1e-9) - _unit(pool, o, i)
    assert output_of(arc, step.amount_in) == pytest.approx(real, rel=1e-12)


@QUIET
@given(gyro_pools(), st.sampled_from([(0, 1), (1, 0)]))
def test_the_ellipse_is_monotone_and_ends(pool: GyroPool, ends: tuple[int, int]) -> None:
    i, o = ends
    most = pool.swap(pool.coins[i], pool.coins[o], 10**45, Exact.IN)
    assert most.amount_out <= pool.balances[o]
    outs = [
        pool.swap(pool.coins[i], pool.coins[o], most.amount_in * k // 8, Exact.IN).amount_out
        for k in range(1, 9)
    ]
    assert all(a <= b for a, b in pairwise(outs))
    assert outs[-1] == most.amount_out
    scale = [s * r for s, r in zip(pool.scaling, pool.rates, strict=True)]
    slack = 4 + 40 * scale[i] // scale[o] + pool.balances[o] // 10**12
    assert all(c - b <= b - a + slack for a, b, c in zip([0, *outs], outs, outs[1:], strict=False))


@QUIET
@given(gyro_pools(), st.sampled_from([(0, 1), (1, 0)]), st.integers(1, 99))
def test_the_ellipse_gives_no_free_lunch(
    pool: GyroPool, ends: tuple[int, int], percent: int
) -> None:
    i, o = ends
    most = pool.swap(pool.coins[i], pool.coins[o], 10**45, Exact.IN)
    step = pool.swap(pool.coins[i], pool.coins[o], most.amount_in * percent // 100, Exact.IN)
    if step.amount_out == 0:
        return
    back = pool.swap(pool.coins[i], pool.coins[o], step.amount_out, Exact.OUT)
    scale = [s * r for s, r in zip(pool.scaling, pool.rates, strict=True)]
    # the invariant is over- and underestimated by an error that grows with the stretch
    slack = 4 + (40 * scale[o] + 10**6 * ONE) // scale[i] + pool.balances[i] // 10**9
    assert back.amount_in <= step.amount_in + slack
    again = step.next_pool.swap(pool.coins[o], pool.coins[i], step.amount_out, Exact.IN)
    assert again.amount_out <= step.amount_in


@QUIET
@given(buffer_pools(), st.booleans(), st.integers(0, 10**28))
def test_a_buffer_rounds_against_the_user(pool: BufferPool, wrap: bool, amount: int) -> None:
    ends = (pool.underlying, pool.wrapped) if wrap else (pool.wrapped, pool.underlying)
    step = pool.swap(ends[0], ends[1], amount, Exact.IN)
    assert step.amount_in <= amount
    if step.amount_out >= 1000:
        back = pool.swap(ends[0], ends[1], step.amount_out, Exact.OUT)
        assert (back.amount_out, back.amount_in <= step.amount_in) == (step.amount_out, True)
        again = step.next_pool.swap(ends[1], ends[0], step.amount_out, Exact.IN)
        assert again.amount_out <= step.amount_in
        (arc,) = (arc for arc in pool.arcs() if arc.token_in == ends[0])
        real = output_of(arc, step.amount_in)
        assert real * (1 - 1e-9) - 1 <= step.amount_out <= real * (1 + 1e-9) + 1


EXTREMES = st.sampled_from([0, 1, 2, 10**6, 10**18, 2**112 - 1, 2**112])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(EXTREMES, min_size=2, max_size=8),
    st.sampled_from([1000, 10**9]),
    st.sampled_from([0, 10**12, ONE // 2, ONE - 1, ONE]),
    st.sampled_from([1, 10**12]),
    st.sampled_from([1, ONE // 2, ONE, 10**24]),
    st.integers(0, 2**130),
    st.data(),
)
def test_adversarial_pools_never_raise(
    balances: list[int], amp: int, fee: int, scale: int, rate: int, amount: int, data: st.DataObject
) -> None:
    count = len(balances)
    weights = [ONE // 100, *[ONE * 99 // 100 // (count - 1)] * (count - 1)]
    common: dict[str, Any] = {
        "id": "x",
        "coins": COINS[:count],
        "balances": tuple(balances),
        "rates": (rate,) * count,
        "fee": fee,
        "gas": 1,
    }
    curve = {**common, "fee": fee // 10**8}
    common["scaling"] = (scale,) * count
    version = data.draw(st.sampled_from(WeightedVersion))
    stable = data.draw(st.sampled_from(StableVersion))
    pools: list[WeightedPool | StablePool | CurvePool | GyroPool | BufferPool] = [
        WeightedPool(**common, weights=tuple(weights), version=version),
        StablePool(**common, amp=amp, version=stable),
        GyroPool(
            id="x",
            coins=(COINS[0], COINS[1]),
            balances=(balances[0], balances[1]),
            parameters=ELLIPSE,
            scaling=(scale, scale),
            rates=(rate, rate),
            fee=fee,
            gas=1,
        ),
        BufferPool(
            id="x",
            wrapped=COINS[0],
            underlying=COINS[1],
            rate=rate,
            wrapped_left=balances[0],
            underlying_left=balances[1] - 1,
            gas=1,
        ),
        CurvePool(**curve, amp=amp // 1000, variant=data.draw(st.sampled_from(CurveVariant))),
    ]
    for pool in pools:
        for exact in Exact:
            step = pool.swap(COINS[0], COINS[1], amount, exact)
            assert min(step.amount_in, step.amount_out) >= 0
            assert (step.amount_in if exact is Exact.IN else step.amount_out) <= amount
            assert step.amount_out < max(1, balances[1])
        if not isinstance(pool, GyroPool):
            assert list(pool.arcs()) == list(pool.arcs())


def test_other_pairs_are_refused() -> None:
    pool = WeightedPool(
        id="w",
        coins=COINS[:2],
        balances=(ONE, ONE),
        weights=(ONE // 2, ONE // 2),
        scaling=(1, 1),
        rates=(ONE, ONE),
        fee=0,
        version=WeightedVersion.V0,
        gas=1,
    )
    for pair in ((COINS[0], COINS[0]), (COINS[0], COINS[5])):
        with pytest.raises(ValueError, match="does not trade"):
            pool.swap(pair[0], pair[1], 1, Exact.IN)
    assert pool.swap(COINS[0], COINS[1], 0, Exact.IN).next_pool is pool

"""Concentrated liquidity: conformance, edges, and what it refuses to be built from."""

from __future__ import annotations

import pickle
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from solver.core.pools import ConcentratedPool, NotExecutable, TickMap
from solver.core.pools.tick_math import (
    MAX_SQRT_PRICE,
    MAX_TICK,
    MIN_SQRT_PRICE,
    MIN_TICK,
    sqrt_price_at,
    tick_at,
)
from solver.core.types import Exact, Leg
from solver.core.venue import TicksArc
from tests.make import A, B, C
from venues.testing import check_pool

Position = tuple[int, int, int]


def pool_of(
    positions: list[Position],
    sqrt_price: int = 2**96,
    fee_pips: int = 3_000,
    spacing: int = 60,
) -> ConcentratedPool:
    """Positions are (lower tick, upper tick, liquidity)."""
    nets: defaultdict[int, int] = defaultdict(int)
    for lower, upper, liquidity in positions:
        nets[lower] += liquidity
        nets[upper] -= liquidity
    ticks, tick = TickMap.of(nets, spacing), tick_at(sqrt_price)
    return ConcentratedPool(
        id="v3", token0=A, token1=B, fee_pips=fee_pips, tick_spacing=spacing,
        sqrt_price_x96=sqrt_price, tick=tick, liquidity=ticks.liquidity_at(tick), ticks=ticks,
        gas=100_000, gas_per_tick=20_000,
    )  # fmt: skip


@st.composite
def pools(draw: st.DrawFn) -> ConcentratedPool:
    spacing = draw(st.sampled_from([1, 10, 60, 200, 16_383]))
    last = MAX_TICK // spacing
    near = min(last, 2_000)
    place = st.integers(-near, near) | st.integers(-last, last)
    ends = st.lists(place, min_size=2, max_size=2, unique=True).map(sorted)
    liquidity = st.integers(1, 10**6) | st.integers(1, 2**100)
    found = draw(st.lists(st.tuples(ends, liquidity), min_size=1, max_size=5))
    positions = [(low * spacing, high * spacing, size) for (low, high), size in found]
    low = min(position[0] for position in positions)
    high = max(position[1] for position in positions)
    tick = draw(st.integers(max(low - 600, MIN_TICK), min(high + 600, MAX_TICK - 1)))
    price = draw(st.integers(sqrt_price_at(tick), sqrt_price_at(tick + 1) - 1))
    return pool_of(positions, price, draw(st.integers(0, 999_999)), spacing)


@settings(max_examples=40, deadline=None)
@given(pools())
def test_concentrated_pools_conform(pool: ConcentratedPool) -> None:
    check_pool(pool, samples=12)


@settings(max_examples=40, deadline=None)
@given(pools(), st.integers(1, 2**110), st.booleans())
def test_a_limit_inside_a_swap_splits_it_without_gain(
    pool: ConcentratedPool, amount: int, down: bool
) -> None:
    """Stopping on the way and going on never gives more, and comes to the same price."""
    ends = (A, B) if down else (B, A)
    whole = pool.swap(*ends, amount, Exact.IN)
    after = whole.next_pool
    assert isinstance(after, ConcentratedPool)
    middle = (pool.sqrt_price_x96 + after.sqrt_price_x96) // 2
    if middle in (pool.sqrt_price_x96, after.sqrt_price_x96):
        return
    first = pool.swap_to(ends[0], amount, Exact.IN, middle)
    assert isinstance(first.next_pool, ConcentratedPool)
    assert first.next_pool.sqrt_price_x96 == middle
    second = first.next_pool.swap(*ends, amount - first.amount_in, Exact.IN)
    assert first.amount_out + second.amount_out <= whole.amount_out


@given(st.integers(MIN_TICK, MAX_TICK - 1))
def test_ticks_and_prices_agree(tick: int) -> None:
    price, above = sqrt_price_at(tick), sqrt_price_at(tick + 1)
    assert price < above
    assert tick_at(price) == tick_at(above - 1) == tick
    assert price / 2**96 == pytest.approx(1.0001 ** (tick / 2), rel=1e-9)


def test_the_range_of_prices_ends_where_the_contract_says() -> None:
    assert (sqrt_price_at(MIN_TICK), sqrt_price_at(MAX_TICK)) == (MIN_SQRT_PRICE, MAX_SQRT_PRICE)
    for price in (0, MIN_SQRT_PRICE - 1, MAX_SQRT_PRICE):
        with pytest.raises(ValueError, match="outside"):
            tick_at(price)
    with pytest.raises(ValueError, match="outside"):
        sqrt_price_at(MAX_TICK + 1)


def test_gas_counts_initialised_ticks_only() -> None:
    pool = pool_of([(-60_000, 60_000, 10**18), (-120, 120, 10**18), (-120, 180, 10**18)])
    small = pool.swap(B, A, 10**10, Exact.IN)
    assert small.gas == 100_000
    past_two = pool.swap(B, A, 2 * 10**18, Exact.IN)  # and many edges of bitmap words
    assert isinstance(past_two.next_pool, ConcentratedPool)
    assert past_two.next_pool.tick > 256 * 60
    assert past_two.gas == 140_000
    assert past_two.next_pool.ticks is pool.ticks
    assert pool.ticks.tables() is pool.ticks.tables()


def test_the_end_of_liquidity_saturates_and_turns_back() -> None:
    pool = pool_of([(-600, 600, 10**18)])
    huge = pool.swap(A, B, 2**300, Exact.IN)
    assert 0 < huge.amount_in < 10**18
    again = huge.next_pool.swap(A, B, 10**18, Exact.IN)
    assert (again.amount_in, again.amount_out, again.gas) == (0, 0, 0)
    assert again.next_pool == huge.next_pool
    most = pool.swap(A, B, 2**300, Exact.OUT)
    assert (most.amount_in, most.amount_out) == (huge.amount_in, huge.amount_out)
    back = huge.next_pool.swap(B, A, huge.amount_out, Exact.IN)
    assert 0 < back.amount_out < huge.amount_in
    directions = [
        [(arc.token_in, arc.token_out) for arc in state.arcs()]  # type: ignore[attr-defined]
        for state in (pool, huge.next_pool, pool.swap(B, A, 2**300, Exact.IN).next_pool)
    ]
    assert directions == [[(A, B), (B, A)], [(B, A)], [(A, B)]]


def test_arcs_follow_the_state_and_share_the_tables() -> None:
    pool = pool_of([(-600, 0, 5), (120, 600, 7)], sqrt_price_at(60))
    down, up = pool.arcs()
    assert isinstance(down, TicksArc)
    assert isinstance(up, TicksArc)
    assert up.table.liquidity.tolist() == [5, 0, 7]
    assert down.table.liquidity.tolist() == [7, 0, 5]
    assert up.start == pytest.approx(1.0001**30)
    assert down.start == pytest.approx(1.0001**-30)
    assert (up.fee, up.gas, up.gas_per_tick) == (0.003, 100_000, 20_000)
    outside = pool_of([(-600, 0, 5)], sqrt_price_at(660))
    (only,) = outside.arcs()
    assert isinstance(only, TicksArc)
    assert only.start == only.table.edges[0]  # the way to the liquidity costs nothing
    assert list(pool_of([]).arcs()) == []


def test_a_pool_without_liquidity_gives_nothing() -> None:
    pool = pool_of([])
    for exact in Exact:
        step = pool.swap(A, B, 10**30, exact)
        assert (step.amount_in, step.amount_out, step.gas) == (0, 0, 0)
        assert step.next_pool is pool
    with pytest.raises(NotExecutable):
        pool.encode(Leg("v3", A, B, 1, 1, 1, "0x"))
    with pytest.raises(ValueError, match="does not trade"):
        pool.swap(A, C, 1, Exact.IN)
    with pytest.raises(ValueError, match="does not trade"):
        pool.swap_to(C, 1, Exact.IN, MIN_SQRT_PRICE + 1)


def test_tick_maps_are_values() -> None:
    one, two = (TickMap.of({-60: 5, 0: 0, 60: -5}, 60) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != TickMap.of({-60: 5, 60: -5}, 60)
    assert one != "ticks"
    assert (one.liquidity_at(-61), one.liquidity_at(-60), one.liquidity_at(60)) == (0, 5, 0)


@pytest.mark.parametrize(
    ("nets", "spacing", "message"),
    [
        ({-60: 5}, 60, "liquidityNet"),
        ({-60: -5, 60: 5}, 60, "liquidityNet"),
        ({-60: 2**128, 60: -(2**128)}, 60, "liquidityNet"),
        ({-61: 5, 60: -5}, 60, "multiple"),
        ({-887_273: 5, 60: -5}, 1, "outside"),
        ({}, 0, "spacing"),
    ],
)
def test_impossible_ticks_are_refused(nets: dict[int, int], spacing: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TickMap.of(nets, spacing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fee_pips": 1_000_000}, "fee"),
        ({"tick_spacing": 10}, "spacing"),
        ({"sqrt_price_x96": 0}, "price"),
        ({"tick": 1}, "tick"),
        ({"tick": 10**7}, "tick"),
        ({"liquidity": 1}, "liquidity"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(pool_of([(-60, 60, 5)]), **changes)


@pytest.mark.parametrize("limit", [0, MIN_SQRT_PRICE, MAX_SQRT_PRICE, 2**96, 2**96 + 1])
def test_wrong_limits_are_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        pool_of([(-60, 60, 5)]).swap_to(A, 1, Exact.IN, limit)

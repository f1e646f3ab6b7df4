"""A network that follows its blocks equals one that is built from nothing, bit for bit."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.markets import Shape, generate, move
from solver.core.graph import sample
from solver.core.kernels import Array
from solver.core.pools import (
    BookPool,
    BufferPool,
    ConcentratedPool,
    ConstantProductPool,
    CurvePool,
    GyroPool,
    Level,
    LimitOrderPool,
    RoutePool,
    StablePool,
    TickMap,
    WeightedPool,
)
from solver.core.pools.tick_math import sqrt_price_at
from solver.core.routing.arcs import TICKS
from solver.core.routing.network import Network, following
from solver.core.types import TokenId
from solver.core.venue import Arc, DeclaresArcs, Pool, Quote, StableArc, StatesRoutes
from tests.charges import BarePool
from tests.property.pools import (
    COINS,
    FEES,
    buffer_pools,
    concentrated_pools,
    curve_pools,
    gyro_pools,
    stable_pools,
    weighted_pools,
)

QUIET = settings(max_examples=80, deadline=None, derandomize=True)
SIZES = (1e2, 1e4, 3e6)
AMOUNT = st.integers(10**6, 10**24) | st.integers(0, 3)
LEVELS = st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), max_size=6)


def _book(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], gas: int) -> BookPool:
    return BookPool(
        id="book",
        base=COINS[0],
        quote=COINS[1],
        lot_size=1000,
        taker_fee_bps=5,
        bids=tuple(Level(*level) for level in sorted(bids, reverse=True)),
        asks=tuple(Level(*level) for level in sorted(asks)),
        gas=gas,
        gas_per_level=7,
    )


def _order(maker: int, taker: int) -> LimitOrderPool:
    return LimitOrderPool(
        id="order",
        maker_token=COINS[0],
        taker_token=COINS[2],
        maker_amount=maker,
        taker_amount=taker,
        gas=1,
    )


def _product(reserve0: int, reserve1: int, fee: int) -> ConstantProductPool:
    return ConstantProductPool(
        id="product",
        token0=COINS[0],
        token1=COINS[1],
        reserve0=reserve0,
        reserve1=reserve1,
        fee_num=fee,
        fee_den=1000,
        gas=1,
    )


def _route(fee_bps: int) -> RoutePool:
    return RoutePool(id="bridge", quote=Quote(COINS[0], COINS[1], 1, fee_bps, 10**20, 60))


def _bare(balances: tuple[float, ...]) -> BarePool:
    """Three arcs of a stable pool that are there even while a coin is missing."""
    arcs = tuple(
        StableArc(COINS[i], COINS[o], i, o, balances, (1.0, 1.0, 1e-3), 300.0, 1e-4, 0.0)
        for i, o in ((0, 1), (1, 2), (2, 0))
    )
    return BarePool(id="bare", tokens=COINS[:3], curves=arcs)


BALANCE = st.floats(1.0, 1e24) | st.just(0.0)
POOLS = st.one_of(
    st.builds(_product, AMOUNT, AMOUNT, st.integers(0, 5)),
    st.builds(_book, LEVELS, LEVELS, st.integers(1, 3)),
    st.builds(_order, AMOUNT, AMOUNT),
    st.builds(_route, st.integers(0, 9)),
    st.builds(_bare, st.tuples(BALANCE, BALANCE, BALANCE)),
    weighted_pools(),
    stable_pools(),
    curve_pools(),
    gyro_pools(),
    buffer_pools(),
    concentrated_pools(),
)


@st.composite
def later(draw: st.DrawFn, pool: Pool) -> Pool:
    """Another state of a pool, now and then without anything on one side or all of them."""
    gas = draw(st.integers(1, 3))
    if isinstance(pool, WeightedPool | StablePool | CurvePool | GyroPool):
        factors = [draw(st.integers(50, 200)) for _ in pool.coins]
        balances = tuple(b * f // 100 for b, f in zip(pool.balances, factors, strict=True))
        if draw(st.integers(0, 5)) == 0:
            balances = (0, *balances[1:])
        if isinstance(pool, GyroPool):
            return replace(pool, balances=(balances[0], balances[1]), gas=gas)
        moved = replace(pool, balances=balances, gas=gas)
        if isinstance(moved, WeightedPool):
            return replace(moved, weights=draw(st.permutations(moved.weights)), fee=draw(FEES))
        return replace(moved, amp=moved.amp * draw(st.integers(1, 2)))
    if isinstance(pool, ConcentratedPool):
        reach = draw(st.integers(0, 50)) * 60
        if reach:
            size = max(1, pool.liquidity)
            ticks = TickMap.of({-reach: size, reach: -size}, 60)
            return replace(pool, ticks=ticks, liquidity=ticks.liquidity_at(pool.tick), gas=gas)
        tick = draw(st.sampled_from([-7000, -9, 0, 5, 40, 6030, 7000]))
        return replace(
            pool,
            sqrt_price_x96=sqrt_price_at(tick),
            tick=tick,
            liquidity=pool.ticks.liquidity_at(tick),
            gas=gas,
        )
    if isinstance(pool, ConstantProductPool):
        return draw(st.builds(_product, AMOUNT, AMOUNT, st.integers(0, 5)))
    if isinstance(pool, BookPool):
        return draw(st.builds(_book, LEVELS, LEVELS, st.integers(1, 3)))
    if isinstance(pool, LimitOrderPool):
        return draw(st.builds(_order, AMOUNT, AMOUNT))
    if isinstance(pool, RoutePool):
        return draw(st.builds(_route, st.integers(0, 9)))
    if isinstance(pool, BufferPool):
        return replace(pool, wrapped_left=draw(AMOUNT), rate=pool.rate + 1, gas=gas)
    return draw(st.builds(_bare, st.tuples(BALANCE, BALANCE, BALANCE)))


def _shape(pools: Sequence[Pool]) -> list[tuple[str, list[tuple[TokenId, TokenId]]]]:
    """Every pool with the directions in which it gives something."""
    found = []
    for pool in pools:
        arcs: Sequence[Arc] = ()
        if not isinstance(pool, StatesRoutes):
            arcs = pool.arcs() if isinstance(pool, DeclaresArcs) else sample(pool)
        found.append((pool.id, [(arc.token_in, arc.token_out) for arc in arcs]))
    return found


def check_same(network: Network, fresh: Network) -> None:
    """All arrays, tables, coins and rates are equal to the last bit."""
    assert network.pools == fresh.pools
    assert network.tokens == fresh.tokens
    names = ("tail", "head", "pool", "first_arc", "kind", "par", "spot", "in_spot", "unit")
    for name in (*names, "pool_gas"):
        assert np.array_equal(getattr(network, name), getattr(fresh, name)), name
    coins = ("start", "token", "reserve", "weight", "into", "out", "gross", "ann", "excess")
    for name in (*coins, "of_pool", "pool_of", "coin_in", "coin_out"):
        assert np.array_equal(getattr(network.joint, name), getattr(fresh.joint, name)), name
    for a in np.nonzero(network.kind >= TICKS)[0].tolist():
        assert np.array_equal(_rows(network, a), _rows(fresh, a))
        assert network.table[a, 2] == fresh.table[a, 2]
    for size in SIZES:
        assert np.array_equal(network.rates(size), fresh.rates(size)), size


def _rows(network: Network, a: int) -> Array:
    first, count = network.table[a, :2].tolist()
    return network.rows[first : first + count]


@QUIET
@given(st.data())
def test_a_network_that_follows_its_blocks_equals_a_new_one(data: st.DataObject) -> None:
    price = st.floats(1e-18, 1e-3)
    prices = {coin: data.draw(price) for coin in COINS[: data.draw(st.integers(2, 8))]}
    drawn = data.draw(st.lists(POOLS, min_size=1, max_size=8, unique_by=lambda pool: pool.id))
    pools: list[Pool] = list(drawn)
    network = Network(pools, prices)
    for _ in range(5):
        for size in data.draw(st.sets(st.sampled_from(SIZES))):
            network.rates(size)  # others stay as they were some blocks ago
        before, names = network, _shape(pools)
        pools = [
            data.draw(later(pool)) if data.draw(st.booleans()) else pickle.loads(pickle.dumps(pool))
            for pool in pools
        ]
        kind = data.draw(st.integers(0, 9))
        if kind == 0 and len(pools) > 1:
            pools.pop()
        elif kind == 1:
            pools += [pool for pool in drawn if pool.id not in {known.id for known in pools}]
        network = following(network, pools, prices)
        if names == _shape(pools) and not any(isinstance(pool, BarePool) for pool in pools):
            assert network is before
            event("taken over")
        check_same(network, Network(pools, prices))


@pytest.mark.parametrize("seed", range(3))
def test_moved_pools_are_taken_over(seed: int) -> None:
    market = generate(Shape(120, noisy=seed == 2), seed)
    network = Network(market.pools, market.prices)
    network.rates(SIZES[1])
    for block in range(4):
        market, moved = move(market, 100 * seed + block, share=0.3)
        assert following(network, market.pools, market.prices) is network
        assert network.block == block + 1
        changed = network.update(moved)  # the same rows again
        assert np.array_equal(np.unique(network.pool[changed]), np.unique(_numbers(network, moved)))
        network.block = block + 1
    check_same(network, Network(market.pools, market.prices))


def _numbers(network: Network, pools: Sequence[Pool]) -> list[int]:
    return [network.pools.index(pool) for pool in pools]


def test_tables_that_come_and_go_need_no_more_room() -> None:
    """A child process gets every pool anew, with tables of its own."""
    pool = ConcentratedPool(
        id="concentrated",
        token0=COINS[0],
        token1=COINS[1],
        fee_pips=3000,
        tick_spacing=60,
        sqrt_price_x96=2**96,
        tick=0,
        liquidity=10**20,
        ticks=TickMap.of({-600: 10**20, 600: -(10**20), 6000: 5, 6060: -5}, 60),
        gas=1,
        gas_per_tick=2,
    )
    fewer = replace(pool, ticks=TickMap.of({-600: 10**20, 600: -(10**20)}, 60))
    books = [
        _book([(k + 5, 9) for k in range(n)], [(k + 9, 9) for k in range(n)], 1) for n in (6, 2)
    ]
    prices = dict.fromkeys(COINS, 1e-12)
    network = Network([pool, books[0]], prices)
    room = len(network.rows)
    for block in range(40):
        pools: list[Pool] = [(pool, fewer)[block % 2], books[block % 2]]
        network.update(pickle.loads(pickle.dumps(pools)))
    check_same(network, Network(pools, prices))
    assert len(network.rows) == room


def test_what_is_refused_changes_nothing() -> None:
    market = generate(Shape(60), 4)
    product, book = _product(10**9, 10**9, 3), _book([(5, 9)], [], 1)
    prices = {**market.prices, **dict.fromkeys(COINS[:2], 1e-12)}
    pools = [*market.pools, product, book]
    network = Network(pools, prices)
    _, moved = move(market, 5, share=0.5)
    for bad in (
        _product(0, 10**9, 3),
        _book([], [(5, 9)], 1),  # as many arcs as before, the other way round
        replace(product, id="unknown"),
        replace(product, id="unknown", reserve0=0),
    ):
        with pytest.raises(KeyError):
            network.update([*moved, bad])
        check_same(network, Network(pools, prices))
    assert network.block == 0

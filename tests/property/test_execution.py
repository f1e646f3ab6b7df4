"""Routes as they are executed: whole lots, calls of pools, and nothing lost that need not be."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks import orders
from benchmarks.baselines import BASELINES, Order
from benchmarks.engine import solve
from benchmarks.exact import FREE, Gas, base_units
from benchmarks.markets import Shape, generate
from solver.core.pools import BookPool, Level
from solver.core.routing.clock import Clock
from solver.core.routing.execution import execute
from solver.core.routing.network import Network
from solver.core.routing.replay import replay
from solver.core.routing.router import find_route
from solver.core.types import Exact
from solver.core.venue import Pool
from tests.make import PRICES, UNIT, A, B, C, pair

TOLERANCE = 1e-6
PRICED = Gas(2e-5)


def book(name: str, base_lots: int) -> BookPool:
    """B for C at par, a lot is a seventh of B."""
    lot = UNIT // 7
    return BookPool(
        id=name, base=B, quote=C, lot_size=lot, taker_fee_bps=0, asks=(),
        bids=(Level(lot, base_lots),), gas=0, gas_per_level=0,
    )  # fmt: skip


def test_what_a_book_does_not_take_is_not_sold_to_it() -> None:
    """B leads on by a book alone; what does not fill a lot of it goes another, dearer way."""
    deep = pair("deep", A, B, 10**6 * UNIT, 10**6 * UNIT)
    dear = pair("dear", A, C, 50 * UNIT, 49 * UNIT)
    network = Network([deep, dear, book("book", 10_000)], PRICES)
    source, target = network.index[A], network.index[C]
    amount = UNIT + UNIT // 9
    route, warm = find_route(network, source, target, amount / UNIT, TOLERANCE)
    plain = replay(network, route, amount)
    done = execute(network, route, amount, 0.0, warm)
    assert sum(plain.stranded.values()) > UNIT // 20
    assert sum(done.replay.stranded.values()) < UNIT // 10**5
    assert plain.amount_out < 0.97 * amount
    assert done.replay.amount_out > 0.985 * amount
    assert {leg.pool for leg in done.replay.legs} == {"deep", "dear", "book"}
    assert done.net == pytest.approx(done.replay.amount_out / UNIT, rel=1e-12)


def test_without_time_the_route_is_executed_as_it_is() -> None:
    pools: list[Pool] = [pair("deep", A, B, 10**6 * UNIT, 10**6 * UNIT), book("book", 10_000)]
    network = Network([*pools, pair("dear", A, C, 50 * UNIT, 49 * UNIT)], PRICES)
    route, warm = find_route(network, network.index[A], network.index[C], 1.1, TOLERANCE)
    done = execute(network, route, 11 * UNIT // 10, 0.0, warm, Clock(lambda: 1.0, 0.0))
    assert done.route is route
    assert done.replay == replay(network, route, 11 * UNIT // 10)


@pytest.mark.parametrize("gas", [FREE, PRICED], ids=["free", "priced"])
@pytest.mark.parametrize("usd", [1e3, 1e4, 1e5])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_baseline_brings_more(seed: int, usd: float, gas: Gas) -> None:
    """What the certificate leaves open apart, which is what the engine was asked for."""
    market = generate(Shape(150, 15), seed)
    network = Network(market.pools, market.prices)
    for source, target in orders.draw(market, network, 6, seed).pairs:
        ours = solve(network, source, target, usd, TOLERANCE, gas=gas).answer
        for router in BASELINES.values():
            theirs = router(network, Order(source, target, usd), gas)
            if theirs is not None and theirs.net > 0.0:
                assert ours is not None
                assert ours.net >= theirs.net - TOLERANCE * usd


def test_executions_are_no_worse_than_the_route_and_happen_as_told() -> None:
    assert sum(improved(seed) for seed in (3, 4, 5)) >= 3


def improved(seed: int) -> int:
    """How many executions of a random market brought more than their route; all are checked."""
    market = generate(Shape(150, 15), seed)
    pools = [coarse(pool, seed + k) for k, pool in enumerate(market.pools)]
    network = Network(pools, market.prices)
    better = 0
    for source, target in orders.draw(market, network, 12, seed).pairs:
        amount = base_units(network, source, 3e3)
        route, warm = find_route(network, source, target, 3e3, TOLERANCE)
        if not len(route.arc):
            continue
        done, plain = execute(network, route, amount, 0.0, warm), replay(network, route, amount)
        assert done.replay == replay(network, done.route, amount)
        assert done.replay.amount_out >= plain.amount_out
        assert done.replay.amount_in <= amount
        assert done.replay.amount_out <= route.bound * float(network.unit[target]) * (1.0 + 1e-9)
        state = {pool.id: pool for pool in network.pools}
        for leg in done.replay.legs:
            step = state[leg.pool].swap(leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
            assert (step.amount_in, step.amount_out) == (leg.amount_in, leg.amount_out)
            state[leg.pool] = step.next_pool
        better += done.replay.amount_out > plain.amount_out
    return better


def coarse(pool: Pool, seed: int) -> Pool:
    """Books in lots a hundred times as large."""
    if not isinstance(pool, BookPool) or np.random.default_rng(seed).random() < 0.3:
        return pool
    sides = (
        tuple(Level(level.price * 100, max(1, level.lots // 100)) for level in side)
        for side in (pool.bids, pool.asks)
    )
    bids, asks = sides
    return replace(pool, lot_size=pool.lot_size * 100, bids=bids, asks=asks)

"""Concentrated liquidity against the numbers that Uniswap publishes, one test per case."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from solver.core.pools import ConcentratedPool, TickMap
from solver.core.pools.tick_math import sqrt_price_at, step_within, tick_at
from solver.core.types import Exact
from tests.make import A, B
from tests.parity.cases import rows


def pool_of(given: Any) -> ConcentratedPool:
    nets: defaultdict[int, int] = defaultdict(int)
    for position in given["positions"]:
        nets[position["tickLower"]] += int(position["liquidity"])
        nets[position["tickUpper"]] -= int(position["liquidity"])
    ticks = TickMap.of(nets, given["tick_spacing"])
    sqrt_price = int(given["sqrt_price_x96"])
    tick = tick_at(sqrt_price)
    return ConcentratedPool(
        id=given["description"],
        token0=A,
        token1=B,
        fee_pips=given["fee_pips"],
        tick_spacing=given["tick_spacing"],
        sqrt_price_x96=sqrt_price,
        tick=tick,
        liquidity=ticks.liquidity_at(tick),
        ticks=ticks,
        gas=0,
        gas_per_tick=1,
    )


@pytest.mark.parametrize(("data", "case"), rows("uniswap-v3-swaps", "swaps.json", "cases"))
def test_uniswap_v3_swaps(data: Any, case: Any) -> None:
    given = next(pool for pool in data["pools"] if pool["description"] == case["pool"])
    pool, swap = pool_of(given), case["swap"]
    down = swap["zero_for_one"]
    token_in, token_out = (A, B) if down else (B, A)
    exact = Exact.OUT if swap["exact"] == "out" else Exact.IN
    amount = int(swap["amount"]) if swap["amount"] is not None else 2**255 - 1
    limit = swap["sqrt_price_limit_x96"]
    if limit is None:
        limit = sqrt_price_at(-887_272) + 1 if down else sqrt_price_at(887_272) - 1
    if case["reverts"]:
        with pytest.raises(ValueError, match="price limit"):
            pool.swap_to(token_in, amount, exact, int(limit))
        if swap["sqrt_price_limit_x96"] is None:
            assert pool.swap(token_in, token_out, amount, exact).amount_out == 0
        return
    step = pool.swap_to(token_in, amount, exact, int(limit))
    expected = case["expected"]
    deltas = int(expected["amount0Delta"]), int(expected["amount1Delta"])
    moved = (step.amount_in, -step.amount_out)
    assert (moved if down else moved[::-1]) == deltas
    assert isinstance(step.next_pool, ConcentratedPool)
    assert pool.tick == expected["tickBefore"]
    assert step.next_pool.tick == expected["tickAfter"]
    if swap["sqrt_price_limit_x96"] is None and step.amount_out:
        assert pool.swap(token_in, token_out, amount, exact) == step


@pytest.mark.parametrize(
    ("data", "row"), rows("routing", "uniswap_v3_tickmath.json", "getSqrtRatioAtTick")
)
def test_price_at_tick(data: Any, row: Any) -> None:
    assert sqrt_price_at(row["tick"]) == int(row["sqrtRatioX96"])
    assert tick_at(int(row["sqrtRatioX96"])) == row["tick"]


@pytest.mark.parametrize(
    ("data", "row"), rows("routing", "uniswap_v3_tickmath.json", "getTickAtSqrtRatio")
)
def test_tick_at_price(data: Any, row: Any) -> None:
    assert tick_at(int(row["ratio"])) == row["tick"]


@pytest.mark.parametrize(("data", "row"), rows("routing", "uniswap_v3_swapmath.json", "rows"))
def test_swap_step(data: Any, row: Any) -> None:
    price, target, liquidity, amount = (int(row[key]) for key in ("price", "target", "L", "amount"))
    found = step_within(price, target, liquidity, abs(amount), row["fee"], amount >= 0)
    expected = (int(row[key]) for key in ("sqrtQ", "amountIn", "amountOut", "feeAmount"))
    assert found == tuple(expected)

"""Liquidity of CoW auctions: built exactly, in both spellings, or left out by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from solver.core.pools import ConcentratedPool, StablePool, WeightedPool, WeightedVersion
from solver.core.venue import Pool
from solver.wire import cow

ONE = 10**18
A, B, C = ("0x" + letter * 40 for letter in "abc")


def read(entry: dict[str, Any], **more: Any) -> cow.Problem:
    body = {"tokens": {}, "orders": [], "liquidity": [entry], "effectiveGasPrice": "1", **more}
    return cow.to_core(msgspec.convert(body, cow.Auction), 1, "")


def only(entry: dict[str, Any]) -> Pool:
    problem = read(entry)
    assert problem.warnings == ()
    (pool,) = problem.snapshot.pools
    return pool


def weighted(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "weightedProduct",
        "id": "7",
        "fee": "0.005",
        "version": "v3Plus",
        "tokens": {
            B: {"balance": "200", "weight": "0.2", "scalingFactor": "1000000000000"},
            A: {"balance": "0x64", "weight": "0.8", "scalingFactor": "1"},
        },
        **changes,
    }


def concentrated(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "concentratedLiquidity",
        "id": "9",
        "fee": "0.003",
        "tokens": [B, A],
        "sqrtPrice": str(2**96),
        "liquidity": "1000",
        "tick": 0,
        "liquidityNet": {"-60": "1000", "60": "-1000"},
        **changes,
    }


def test_weighted() -> None:
    pool = only(weighted())
    assert isinstance(pool, WeightedPool)
    assert [coin.address for coin in pool.coins] == [A, B]
    assert (pool.balances, pool.weights) == ((100, 200), (8 * ONE // 10, 2 * ONE // 10))
    assert (pool.rates, pool.fee) == ((ONE, 10**12 * ONE), 5 * ONE // 1000)
    assert pool.version is WeightedVersion.V3_PLUS
    old = only(weighted(version="v0"))
    assert isinstance(old, WeightedPool)
    assert old.version is WeightedVersion.V0


def test_a_stable_pool_does_not_count_its_own_token() -> None:
    tokens = {token: {"balance": "5", "scalingFactor": "1.05"} for token in (A, B, C)}
    entry = {"kind": "stable", "id": "1", "fee": "0.0001", "tokens": tokens, "address": C}
    for name in ("amplificationParameter", "amplification_parameter"):
        pool = only({**entry, name: "5000.5"})
        assert isinstance(pool, StablePool)
        assert [coin.address for coin in pool.coins] == [A, B]
        assert (pool.amp, pool.rates) == (5_000_500, (105 * ONE // 100,) * 2)


def test_concentrated() -> None:
    pool = only(concentrated())
    assert isinstance(pool, ConcentratedPool)
    assert (pool.token0.address, pool.token1.address) == (A, B)
    assert (pool.fee_pips, pool.tick_spacing) == (3000, 60)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (weighted(version="v9"), "version 'v9'"),
        (concentrated(fee="0.0031"), "tick spacing"),
        (concentrated(liquidity="999"), "liquidity 999"),
        (concentrated(liquidityNet={"-60": "1000"}), "liquidityNet"),
        ({"kind": "curveCrypto", "id": "3"}, "is not supported"),
    ],
)
def test_what_cannot_be_priced_is_left_out_by_name(entry: dict[str, Any], reason: str) -> None:
    problem = read(entry)
    assert problem.snapshot.pools == ()
    (warning,) = problem.warnings
    assert repr(entry["id"]) in warning
    assert reason in warning


def test_without_reference_prices_the_first_order_gives_the_unit() -> None:
    order = {
        "uid": "0x01",
        "sellToken": A.upper().replace("X", "x"),
        "buyToken": B,
        "sellAmount": "1",
        "buyAmount": "1",
        "kind": "sell",
        "partiallyFillable": False,
    }
    problem = read(weighted(), orders=[order])
    assert {token.address: price for token, price in problem.snapshot.prices.items()} == {A: 1.0}
    assert A in problem.unit

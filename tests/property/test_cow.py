"""Random auctions of CoW Protocol: whatever the orders, the full profile does no less, exactly."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cow import answered, check, scores, settings, solutions

TOKENS = ["0x" + f"{k:040x}" for k in range(0xA0, 0xA5)]
NATIVE = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"


def auction(seed: int, count: int = 4) -> dict[str, Any]:
    """A few orders over a few pools of all kinds, some near their limit, some far from it."""
    rng = random.Random(seed)
    tokens = [*TOKENS[: rng.randint(1, 4)], NATIVE]
    worth = {token: 10 ** rng.uniform(-4, 4) for token in tokens}
    worth[NATIVE] = 1.0
    liquidity: list[dict[str, Any]] = []
    for number in range(rng.randint(1, 6)):
        first, second = rng.sample(tokens, 2)
        depth = 10 ** rng.uniform(18, 23)
        balances = {
            token: str(int(depth / worth[token] * rng.uniform(0.9, 1.1)) + 10)
            for token in (first, second)
        }
        kind = rng.choice(["constantProduct", "constantProduct", "weightedProduct"])
        entry: dict[str, Any] = {
            "kind": kind,
            "id": str(number),
            "fee": rng.choice(["0.003", "0.0005", "0.01"]),
            "tokens": {token: {"balance": amount} for token, amount in balances.items()},
        }
        if kind == "weightedProduct":
            entry["version"] = rng.choice(["v0", "v3Plus"])
            for state in entry["tokens"].values():
                state.update(weight="0.5", scalingFactor="1")
        liquidity.append(entry)
    orders = []
    for number in range(rng.randint(1, count)):
        sell, buy = rng.sample(tokens, 2)
        value = 10 ** rng.uniform(15, 21)
        order = {
            "uid": "0x" + f"{number + 1:0112x}",
            "sellToken": sell,
            "buyToken": buy,
            "sellAmount": str(int(value / worth[sell]) + 1),
            "buyAmount": str(int(value / worth[buy] * rng.choice([0.2, 0.9, 0.97, 1.1])) + 1),
            "kind": rng.choice(["sell", "buy"]),
            "partiallyFillable": rng.random() < 0.4,
            "class": rng.choice(["market", "limit"]),
        }
        orders.append(order)
    prices = rng.random() < 0.8
    return {
        "id": "1",
        "tokens": {
            token: {
                "referencePrice": str(int(worth[token] * 10**18)) if prices else None,
                "availableBalance": rng.choice(["0", str(10**24)]),
                "trusted": rng.random() < 0.5,
            }
            for token in tokens
        },
        "orders": orders,
        "liquidity": liquidity,
        "effectiveGasPrice": str(rng.choice([0, 10**9, 30 * 10**9])),
        "deadline": "2106-01-01T00:00:00Z",
    }


@given(st.integers(min_value=0, max_value=2**32))
@hypothesis_settings(max_examples=60, deadline=None)
def test_full_is_never_lower_and_adds_up(seed: int) -> None:
    request = auction(seed)
    plain = answered(request, settings("baseline", max_hops=2))
    full = answered(request, settings("full", max_hops=2))
    offered = solutions(full)
    for solution in (*offered, *solutions(plain)):
        check(request, solution)
    found = [scores(request, solution) for solution in offered]
    for solution in solutions(plain):
        ((uid, score),) = scores(request, solution).items()
        assert any(other.get(uid, -1) >= score for other in found)

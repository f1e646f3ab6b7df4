"""Orders of CoW Protocol that meet: one price per token, whether pools help or not."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.batches import disguised
from benchmarks.manipulation import random_market
from solver.core import joint
from solver.core.types import Intent, Kind
from solver.core.venue import Snapshot
from tests.cow import answered, check, executed, scores, settings, solutions

TOKENS = ["0x" + f"{k:040x}" for k in range(0xA0, 0xA4)]
ONE = 10**18


def order(number: int, sell: str, buy: str, **fields: Any) -> dict[str, Any]:
    """A sale of one for at least nine tenths, all or nothing, unless said otherwise."""
    return {
        "uid": "0x" + f"{number + 1:0112x}",
        "sellToken": sell,
        "buyToken": buy,
        "sellAmount": str(ONE),
        "buyAmount": str(ONE * 9 // 10),
        "kind": "sell",
        "partiallyFillable": False,
        "class": "market",
    } | fields


def pool(name: str, one: str, two: str) -> dict[str, Any]:
    return {
        "kind": "constantProduct",
        "id": name,
        "fee": "0.01",
        "tokens": {token: {"balance": str(100 * ONE)} for token in (one, two)},
    }


def auction(orders: list[dict[str, Any]], liquidity: list[dict[str, Any]]) -> dict[str, Any]:
    token = {"referencePrice": str(ONE), "availableBalance": "0", "trusted": False}
    return {
        "id": "1",
        "tokens": dict.fromkeys(TOKENS, token),
        "orders": orders,
        "liquidity": liquidity,
        "effectiveGasPrice": "0",
        "deadline": "2106-01-01T00:00:00Z",
    }


def best(request: dict[str, Any], trades: int) -> dict[str, Any]:
    """The solution that settles so many orders, checked in the contract's arithmetic."""
    (found, *_) = (
        solution
        for solution in solutions(answered(request, settings()))
        if len(solution["trades"]) == trades
    )
    check(request, found)
    return found


@pytest.mark.parametrize("kind", ["sell", "buy"])
@pytest.mark.parametrize("partly", [False, True])
def test_two_opposite_orders_need_no_liquidity(kind: str, partly: bool) -> None:
    a, b = TOKENS[:2]
    more = {"kind": kind, "partiallyFillable": partly}
    request = auction([order(0, a, b, **more), order(1, b, a, **more)], [])
    for sold, bought in executed(request, best(request, 2)).values():
        assert ONE * 9 // 10 <= bought <= sold <= ONE
        assert bought == pytest.approx(sold, rel=1e-5) or kind == "buy"


def test_the_smaller_of_two_is_whole_and_the_larger_is_filled_in_part() -> None:
    a, b = TOKENS[:2]
    large = {"sellAmount": str(3 * ONE), "buyAmount": str(2 * ONE), "partiallyFillable": True}
    request = auction([order(0, a, b), order(1, b, a, **large)], [])
    solution = best(request, 2)
    assert executed(request, solution)[order(0, a, b)["uid"]][0] == ONE


def test_a_whole_order_that_nobody_can_fill_stays_out() -> None:
    a, b = TOKENS[:2]
    large = {"sellAmount": str(3 * ONE), "buyAmount": str(2 * ONE)}
    request = auction([order(0, a, b), order(1, b, a, **large)], [])
    assert solutions(answered(request, settings())) == []


@pytest.mark.parametrize("liquidity", [[], [pool("0", TOKENS[0], TOKENS[3])]])
def test_a_ring_of_three(liquidity: list[dict[str, Any]]) -> None:
    ring = list(pairwise((*TOKENS[:3], TOKENS[0])))
    request = auction([order(k, *ends) for k, ends in enumerate(ring)], liquidity)
    for sold, bought in executed(request, best(request, 3)).values():
        assert bought == pytest.approx(sold, rel=1e-5)


def test_a_pool_takes_what_no_order_does() -> None:
    """Two thirds of the larger order meet the smaller; both gain over the pool alone."""
    a, b = TOKENS[:2]
    large = {"sellAmount": str(3 * ONE), "buyAmount": str(27 * ONE // 10)}
    small = {"sellAmount": str(2 * ONE), "buyAmount": str(18 * ONE // 10)}
    request = auction([order(0, a, b, **large), order(1, b, a, **small)], [pool("0", a, b)])
    together = best(request, 2)
    assert len(together["interactions"]) == 1
    gained = sum(scores(request, together).values())
    singles = [s for s in solutions(answered(request, settings())) if len(s["trades"]) == 1]
    assert len(singles) == 2
    assert gained > sum(sum(scores(request, single).values()) for single in singles)


def settled(market: Snapshot, intents: list[Intent]) -> list[joint.Settlement]:
    buffers = dict.fromkeys(market.prices, 100)
    charges = joint.Charges(0, 0, {}, {}, True, buffers)
    return list(joint.together(market, intents, charges))


@pytest.mark.parametrize("seed", range(40))
def test_every_settlement_holds_in_the_protocol_s_arithmetic(seed: int) -> None:
    market, intents = random_market(random.Random(seed))
    swaps = {intent.digest: intent.swap for intent in intents}
    for found in settled(market, intents):
        left: Counter[object] = Counter()
        for trade in found.trades:
            swap = swaps[trade.digest]
            sell, buy = found.prices[swap.sell], found.prices[swap.buy]
            exact_in = swap.kind is Kind.EXACT_IN
            sold = trade.executed if exact_in else trade.executed * buy // sell
            bought = -(-trade.executed * sell // buy) if exact_in else trade.executed
            assert (trade.sold, trade.bought) == (sold, bought)
            assert bought * swap.sell_amount >= swap.buy_amount * sold
            assert trade.executed == swap.total or (
                swap.partial_fill and 0 < trade.executed < swap.total
            )
            left[swap.sell] += sold
            left[swap.buy] -= bought
        for leg in found.legs:
            left[leg.token_in] -= leg.amount_in
            left[leg.token_out] += leg.amount_out
        pooled = {leg.token_out for leg in found.legs}
        for token, amount in left.items():
            assert amount >= (0 if token in pooled else -len(found.trades))


@pytest.mark.parametrize("seed", range(10))
def test_neither_ids_nor_arrival_change_a_settlement(seed: int) -> None:
    rng = random.Random(seed)
    market, intents = random_market(rng)
    answers = []
    for orders in (intents, disguised(rng, intents)):
        swaps = {intent.digest: intent.swap for intent in orders}
        answers.append(
            [
                {swaps[trade.digest]: (trade.sold, trade.bought) for trade in found.trades}
                for found in settled(market, orders)
            ]
        )
    assert answers[0] == answers[1]


def test_most_random_batches_settle_at_one_price() -> None:
    """Where opposite whole orders differ in size, often no single price can fill both."""
    batches = [random_market(random.Random(seed)) for seed in range(40)]
    assert sum(bool(settled(market, intents)) for market, intents in batches) >= 30

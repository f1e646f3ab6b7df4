"""What holds for every batch: limits, conservation, one rate per pair, value below the bound."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from solver.core import graph
from solver.core.batch import Terms, solve_batch
from solver.core.intent import respects_limit
from solver.core.pools import BookPool, Level
from solver.core.problem import ExtraRow
from solver.core.types import Exact, Fill, Intent, Kind, Solution
from solver.core.venue import Pool, Snapshot
from solver.core.verify import verify
from tests.make import UNIT, A, B, C, D, pair, signed, snapshot, swap

TOKENS = (A, B, C, D)


def random_market(rng: random.Random) -> Snapshot:
    pools: list[Pool] = []
    for number in range(rng.randrange(0, 9)):
        one, two = rng.sample(TOKENS, 2)
        depth = int(UNIT * 10 ** rng.uniform(0, 4))
        other = int(depth * rng.uniform(0.97, 1.03))
        pools.append(pair(f"p{number}", one, two, depth, other, rng.choice((5, 30, 100))))
    if rng.random() < 0.5:
        lot = 10 ** rng.randrange(14, 18)
        bids = tuple(Level(lot * (999 - k) // 1000, rng.randrange(1, 500)) for k in range(4))
        asks = tuple(Level(lot * (1001 + k) // 1000, rng.randrange(1, 500)) for k in range(4))
        pools.append(
            BookPool(
                id="book",
                base=A,
                quote=B,
                lot_size=lot,
                taker_fee_bps=5,
                bids=bids,
                asks=asks,
                gas=0,
                gas_per_level=0,
            )
        )
    return snapshot(pools)


def random_intents(rng: random.Random) -> list[Intent]:
    intents = []
    for number in range(rng.randrange(1, 8)):
        sell, buy = rng.sample(TOKENS, 2)
        amount = int(UNIT * 10 ** rng.uniform(-2, 2)) + rng.randrange(10**9)
        limit = int(amount * rng.uniform(0.8, 1.02))
        order = swap(
            sell,
            buy,
            amount,
            limit,
            kind=rng.choice((Kind.EXACT_IN, Kind.EXACT_IN, Kind.EXACT_OUT)),
            partial=rng.random() < 0.6,
            nonce=number,
        )
        intents.append(signed(order))
    return intents


@pytest.mark.parametrize("seed", range(120))
def test_every_answer_survives_the_independent_check(seed: int) -> None:
    rng = random.Random(seed)
    market, intents = random_market(rng), random_intents(rng)
    solution = solve_batch(market, intents)
    pools = {pool.id: pool for pool in market.pools}
    assert (
        verify(
            intents,
            pools,
            graph.inventories(market, 0),
            solution.fills,
            solution.legs,
            solution.inventory,
            solution.clearing,
        )
        is None
    )
    check_by_hand(intents, solution)
    named = {reason.digest for reason in solution.open}
    filled = {fill.digest for fill in solution.fills}
    assert named | filled == {intent.digest for intent in intents}


def check_by_hand(intents: list[Intent], solution: Solution) -> None:
    known = {intent.digest: intent for intent in intents}
    certificate = solution.certificate
    assert Fraction(certificate.value) <= Fraction(certificate.bound)
    assert Fraction(certificate.net_gap) <= Fraction(certificate.gap)
    balance: dict[str, int] = {}
    for fill in solution.fills:
        order = known[fill.digest].swap
        assert respects_limit(order, fill.sell, fill.buy)
        balance[str(order.sell)] = balance.get(str(order.sell), 0) + fill.sell
        balance[str(order.buy)] = balance.get(str(order.buy), 0) - fill.buy - fill.fee
    for leg in solution.legs:
        balance[str(leg.token_in)] = balance.get(str(leg.token_in), 0) - leg.amount_in
        balance[str(leg.token_out)] = balance.get(str(leg.token_out), 0) + leg.amount_out
    assert {token: amount for token, amount in balance.items() if amount} == solution.dust


@pytest.mark.parametrize("seed", range(25))
def test_the_same_batch_in_another_order_gives_the_same_answer(seed: int) -> None:
    rng = random.Random(seed)
    market, intents = random_market(rng), random_intents(rng)
    shuffled = list(intents)
    rng.shuffle(shuffled)
    assert solve_batch(market, intents) == solve_batch(market, shuffled)


def only(solution: Solution) -> Fill:
    (fill,) = solution.fills
    return fill


def test_one_pool_is_exact_to_the_unit() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    fill = only(solve_batch(market, [signed(swap(sell_amount=UNIT))]))
    net = UNIT * 9970
    assert fill.buy == net * 100 * UNIT // (100 * UNIT * 10_000 + net)


def test_exact_output_pays_the_least_input() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    order = swap(sell_amount=2 * UNIT, buy_amount=UNIT, kind=Kind.EXACT_OUT, partial=False)
    fill = only(solve_batch(market, [signed(order)]))
    pool = market.pools[0]
    assert fill.buy == UNIT
    assert fill.sell == pool.swap(A, B, UNIT, Exact.OUT).amount_in


def test_two_users_match_with_no_pool() -> None:
    one = signed(swap(A, B, UNIT, UNIT * 9 // 10))
    two = signed(swap(B, A, UNIT, UNIT * 9 // 10))
    solution = solve_batch(snapshot([]), [one, two])
    assert {(fill.sell, fill.buy) for fill in solution.fills} == {(UNIT, UNIT)}
    assert solution.legs == ()
    assert float(solution.certificate.net_gap) < 1e-9


def test_an_extra_row_binds_and_is_part_of_the_proof() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    row = ExtraRow("margin:alice", {0: 1.0}, 0.25)
    solution = solve_batch(market, [signed(swap(sell_amount=UNIT))], Terms(rows=(row,)))
    assert abs(only(solution).sell - UNIT // 4) < UNIT // 10**6
    assert float(solution.certificate.multipliers["margin:alice"]) > 0
    assert "row:margin:alice" in solution.certificate.binding
    assert float(solution.certificate.net_gap) < 1e-6 * float(solution.certificate.bound)


def test_price_impact_is_bounded_and_named() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    order = signed(swap(sell_amount=10 * UNIT, buy_amount=UNIT))
    solution = solve_batch(market, [order], Terms(max_impact_bps=500))
    fill = only(solution)
    before, after = 1.0, (100 * UNIT / (100 * UNIT + 0.997 * fill.sell)) ** 2
    assert after / before == pytest.approx(0.95, abs=1e-6)
    assert solution.certificate.binding == ["impact:p"]
    assert solution.open[0].code == "partly_filled"


def test_a_fee_above_the_signed_cap_leaves_the_order_out() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    intent = signed(swap(max_fee=10))
    solution = solve_batch(market, [intent], Terms(fees={intent.digest: 11}))
    assert solution.fills == ()
    assert solution.open[0].code == "fee_above_cap"
    assert only(solve_batch(market, [intent], Terms(fees={intent.digest: 10}))).fee == 10


def test_unused_lots_are_not_sold() -> None:
    book = BookPool(
        id="book",
        base=A,
        quote=B,
        lot_size=UNIT,
        taker_fee_bps=0,
        bids=(Level(UNIT, 10),),
        asks=(),
        gas=0,
        gas_per_level=0,
    )
    fill = only(solve_batch(snapshot([book]), [signed(swap(sell_amount=5 * UNIT // 2))]))
    assert (fill.sell, fill.buy) == (2 * UNIT, 2 * UNIT)

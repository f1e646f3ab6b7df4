"""What every batch promises: the same answer whoever asks, R as the least, and fair rates."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from benchmarks import batches
from benchmarks.batches import by_content, disguised, gain_of_splitting, random_batch
from solver.core.batch import solve_batch
from solver.core.types import Intent, Solution
from tests.make import PRICES, UNIT, A, B, C, D, pair, signed, snapshot, swap

SHARE = 1_000  # of the batches of `make fuzz`
CHUNK = 50


@pytest.mark.parametrize("first", range(10_000_000, 10_000_000 + SHARE, CHUNK))
def test_no_random_batch_breaks_a_promise(first: int) -> None:
    """A seeded share of ``make fuzz``: limits, conservation, floors, ids, order, repetition."""
    played = [batches.play(seed) for seed in range(first, first + CHUNK)]
    assert [one for one in played if one["wrong"]] == []


@pytest.mark.parametrize("seed", range(20))
def test_neither_ids_nor_arrival_nor_repetition_change_anything(seed: int) -> None:
    rng = random.Random(seed)
    market, intents = random_batch(rng)
    expected = by_content(intents, solve_batch(market, intents))
    for _ in range(3):
        others = disguised(rng, intents)
        assert by_content(others, solve_batch(market, others)) == expected


@pytest.mark.parametrize("seed", range(60))
def test_splitting_a_partial_order_does_not_help_it(seed: int) -> None:
    rng = random.Random(seed)
    market, intents = random_batch(rng)
    gained = gain_of_splitting(rng, market, intents)
    assert gained is None or gained <= 0.0


def rate(solution: Solution, intent: Intent) -> float:
    (fill,) = (fill for fill in solution.fills if fill.digest == intent.digest)
    return fill.buy / fill.sell


def test_what_pools_out_of_line_yield_is_not_one_small_order_s() -> None:
    """Once a sharing step without a right end paid an order ten times the reference rate."""
    market = snapshot(
        [
            pair("cheap", A, B, 1_000 * UNIT, 1_300 * UNIT),
            pair("dear", A, B, 1_300 * UNIT, 1_000 * UNIT),
            pair("other", B, C, 10_000 * UNIT, 10_000 * UNIT),
        ]
    )
    small = signed(swap(A, C, UNIT // 10, UNIT * 95 // 1_000, partial=False, nonce=1))
    large = signed(swap(C, B, 100 * UNIT, 90 * UNIT, partial=False, nonce=2))
    solution = solve_batch(market, [small, large])
    assert len(solution.fills) == 2
    assert 0.95 <= rate(solution, small) < 1.4
    assert rate(solution, large) > 0.98


def test_a_match_is_priced_at_the_reference_rate_for_both() -> None:
    one = signed(swap(A, B, 10 * UNIT, UNIT, partial=False))
    two = signed(swap(B, A, 10 * UNIT, 9 * UNIT, partial=False))
    solution = solve_batch(snapshot([]), [one, two])
    assert solution.stage == "program"
    assert rate(solution, one) == rate(solution, two) == 1.0


def test_a_tight_limit_moves_the_rate_no_further_than_it_asks() -> None:
    one = signed(swap(A, B, 10 * UNIT, 10_050 * UNIT // 1_000, partial=True))
    two = signed(swap(B, A, 11 * UNIT, 9 * UNIT, partial=True))
    solution = solve_batch(snapshot([]), [one, two])
    assert rate(solution, one) == pytest.approx(1.005, rel=2e-5)


def test_a_ring_shares_what_a_match_saves() -> None:
    """Three orders in a ring, and pools that cost one percent: everybody gets the same rate."""
    pools = [pair(f"p{k}", *ends, 10**3 * UNIT, 10**3 * UNIT, 100) for k, ends in
             enumerate(pairwise((A, B, C, A)))]  # fmt: skip
    intents = [
        signed(swap(*ends, UNIT, UNIT * 9 // 10, partial=False, nonce=k))
        for k, ends in enumerate(pairwise((A, B, C, A)))
    ]
    solution = solve_batch(snapshot(pools), intents)
    rates = [rate(solution, intent) for intent in intents]
    assert min(rates) == pytest.approx(1.0, abs=2e-5)


def test_orders_that_ask_for_the_same_are_filled_in_proportion() -> None:
    market = snapshot([pair("p", A, B, 10 * UNIT, 10 * UNIT)])
    large = signed(swap(A, B, 30 * UNIT, 24 * UNIT, nonce=1))
    small = signed(swap(A, B, 10 * UNIT, 8 * UNIT, nonce=2))
    solution = solve_batch(market, [large, small])
    sold = {fill.digest: fill.sell for fill in solution.fills}
    assert sold[large.digest] == pytest.approx(3 * sold[small.digest], rel=1e-9)


def test_what_each_would_get_alone_stands_beside_what_it_got() -> None:
    market = snapshot([pair("p", A, B, 100 * UNIT, 100 * UNIT)])
    one = signed(swap(A, B, UNIT, UNIT // 2, partial=False))
    two = signed(swap(B, A, UNIT, UNIT // 2, partial=False))
    solution = solve_batch(market, [one, two])
    by_itself = {answer.digest: answer for answer in solution.alone}
    assert by_itself.keys() == {one.digest, two.digest}
    for intent in (one, two):
        answer = by_itself[intent.digest]
        (single,) = solve_batch(market, [intent]).fills
        assert (answer.sell, answer.buy) == (single.sell, single.buy)
        assert float(answer.value) <= float(answer.bound)
        assert rate(solution, intent) > answer.buy / answer.sell  # the match saves the pool's fee
    assert solve_batch(market, [one]).alone == ()


def test_a_paradoxically_rejected_order_is_listed_with_its_reason() -> None:
    """Ten can be sold at the limit or better, fifty cannot, and the large order is whole or out."""
    small = signed(swap(A, B, 10 * UNIT, 9 * UNIT, partial=False, nonce=1))
    large = signed(swap(A, B, 50 * UNIT, 46 * UNIT, partial=False, nonce=2))
    other = signed(swap(B, A, 10 * UNIT, 9 * UNIT, partial=False, nonce=3))
    solution = solve_batch(snapshot([]), [small, large, other])
    (reason,) = solution.open
    assert (reason.digest, reason.paradox, reason.code) == (large.digest, True, "not_chosen")
    assert reason.detail


def test_every_stage_is_recorded() -> None:
    market = snapshot([pair("p", A, D, 100 * UNIT, 100 * UNIT)], PRICES)
    fine = [signed(swap(A, D, UNIT, UNIT // 2, nonce=k)) for k in range(2)]
    never = [signed(swap(A, D, UNIT, 3 * UNIT, nonce=k)) for k in range(2)]
    assert solve_batch(market, fine).stage == "program"
    assert solve_batch(market, fine[:1]).stage == "route"
    assert solve_batch(market, never).stage == "empty"

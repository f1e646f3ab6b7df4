"""Orders of several legs: the same share of each, or none of any."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from benchmarks.batches import random_batch, wrongs
from solver.core import legs
from solver.core.batch import Terms, solve_batch
from solver.core.types import Intent, Kind, Solution
from tests.make import UNIT, A, B, C, D, pair, signed, snapshot, swap

MARKET = snapshot(
    [pair("ab", A, B, 10 * UNIT, 10 * UNIT), pair("cd", C, D, 1_000 * UNIT, 1_000 * UNIT)]
)


def share_of(solution: Solution, intent: Intent) -> float:
    for fill in solution.fills:
        if fill.digest == intent.digest:
            amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
            return amount / intent.remaining
    return 0.0


def test_the_shallow_leg_holds_the_deep_one_back() -> None:
    shallow = signed(swap(A, B, 10 * UNIT, 8 * UNIT, nonce=1))
    deep = signed(swap(C, D, 10 * UNIT, 8 * UNIT, nonce=2))
    apart = solve_batch(MARKET, [shallow, deep])
    assert share_of(apart, deep) == 1.0
    together = Terms(legs=((shallow.digest, deep.digest),))
    solution = solve_batch(MARKET, [shallow, deep], together)
    assert 0.05 < share_of(solution, shallow) < 0.95
    assert share_of(solution, deep) == pytest.approx(share_of(solution, shallow), abs=1e-6)
    names = {name for name, price in solution.certificate.multipliers.items() if float(price) > 0}
    assert names and all(name.startswith("legs:") for name in names)
    assert float(solution.certificate.net_gap_bps) < 1.0


@pytest.mark.parametrize("partly", [False, True])
def test_a_leg_that_cannot_be_filled_keeps_the_others_out(partly: bool) -> None:
    never = signed(swap(A, B, UNIT, 3 * UNIT, partial=partly, nonce=1))
    fine = signed(swap(C, D, UNIT, UNIT // 2, partial=partly, nonce=2))
    other = signed(swap(C, D, UNIT, UNIT // 2, nonce=3))
    terms = Terms(legs=((never.digest, fine.digest),))
    solution = solve_batch(MARKET, [never, fine, other], terms)
    assert [fill.digest for fill in solution.fills] == [other.digest]
    assert {reason.digest for reason in solution.open} == {never.digest, fine.digest}


def test_a_leg_that_is_not_there_keeps_the_others_out() -> None:
    fine = signed(swap(C, D, UNIT, UNIT // 2))
    solution = solve_batch(MARKET, [fine], Terms(legs=((fine.digest, "0x" + "00" * 32),)))
    assert solution.fills == ()


@pytest.mark.parametrize("seed", range(60))
def test_random_batches_with_random_legs(seed: int) -> None:
    rng = random.Random(f"legs {seed}")
    market, intents = random_batch(rng)
    digests = [intent.digest for intent in rng.sample(intents, min(len(intents), 4))]
    groups = (tuple(digests[:2]), tuple(digests[2:])) if len(digests) == 4 else (tuple(digests),)
    solution = solve_batch(market, intents, Terms(legs=groups))
    assert legs.broken(groups, intents, solution.fills) is None
    for group in groups:
        shares = [share_of(solution, i) for i in intents if i.digest in group]
        unit = sum(2 / i.remaining for i in intents if i.digest in group)
        assert max(shares) - min(shares) <= 1e-6 + unit
    found = [wrong for wrong in wrongs(market, intents, solution) if "reference" not in wrong]
    assert found == []


def test_an_order_without_legs_is_not_touched() -> None:
    order = signed(swap(A, B, UNIT, UNIT // 2))
    assert solve_batch(MARKET, [order]) == solve_batch(MARKET, [order], replace(Terms(), legs=()))

"""The operator's fees: every promise of a batch holds with them, and they are what was said."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from benchmarks.answers import SETTLEMENT
from benchmarks.batches import intent_of, random_batch, wrongs
from solver.cli import judge
from solver.core.batch import Terms, solve_batch
from solver.core.derivation import derive
from solver.core.intent import min_buy, respects_limit
from solver.core.schedule import FeeSchedule, gross, tightened
from solver.core.types import Charges, Infeasible, Intent, Kind, Solution, Token, TokenId
from solver.core.venue import BlockRef, Snapshot
from solver.wire import instance
from solver.wire.solution import solution_document
from tests.make import UNIT, A, B, pair, signed, snapshot, swap

SEEDS = range(60)


def random_schedule(rng: random.Random) -> FeeSchedule:
    """Any of the kinds, from a trifle to all that there is."""
    share = [rng.choice((0.0, 1e-4, 0.01, rng.random(), 1.0)) for _ in range(6)]
    return FeeSchedule(min(share[0], rng.choice((0.003, 0.5))), *share[1:])


def charged_batch(seed: int) -> tuple[Snapshot, list[Intent], Terms, Solution]:
    rng = random.Random(f"fees {seed}")
    market, intents = random_batch(rng)
    terms = Terms(schedule=random_schedule(rng))
    return market, intents, terms, solve_batch(market, intents, terms)


def document_of(market: Snapshot, intents: list[Intent], terms: Terms, answer: Solution) -> Any:
    tokens = {token: Token(token, token.address[-1], 18) for pool in market.pools
              for token in pool.tokens}  # fmt: skip
    for intent in intents:
        for token in (intent.swap.sell, intent.swap.buy):
            tokens[token] = Token(token, token.address[-1], 18)
    placed = replace(market, blocks={1: BlockRef(1, 1, "", 1)})
    return instance.from_core(placed, intents, terms, {1: SETTLEMENT}, tokens, answer)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_below_the_signed_limit_and_nothing_is_lost(seed: int) -> None:
    _, intents, _, solution = charged_batch(seed)
    swaps = {intent.digest: intent.swap for intent in intents}
    balance: Counter[TokenId] = Counter()
    for fill in solution.fills:
        mine = swaps[fill.digest]
        assert respects_limit(mine, fill.sell, fill.buy)
        before = gross(fill, mine.kind)
        buy, sell = solution.clearing[f"{mine.sell}>{mine.buy}"]
        if mine.kind is Kind.EXACT_IN:
            assert before.buy + fill.fee == fill.sell * buy // sell
        else:
            assert before.sell == -(-(fill.buy + fill.fee) * sell // buy)
        assert min(msgspec.structs.astuple(fill.charges)) >= 0
        balance[mine.sell] += fill.sell
        balance[mine.buy] -= fill.buy + fill.fee
        balance[mine.buy if mine.kind is Kind.EXACT_IN else mine.sell] -= fill.charges.total
    for leg in solution.legs:
        balance[leg.token_in] -= leg.amount_in
        balance[leg.token_out] += leg.amount_out
    assert {str(token): left for token, left in balance.items() if left} == solution.dust


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gross_batch_keeps_every_promise(seed: int) -> None:
    """Without what was taken it is the batch of the orders with room for the volume fee."""
    market, intents, terms, solution = charged_batch(seed)
    kinds = {intent.digest: intent.swap.kind for intent in intents}
    before = tuple(gross(fill, kinds[fill.digest]) for fill in solution.fills)
    tight = tightened(intents, terms.schedule)
    assert wrongs(market, tight, replace(solution, fills=before)) == []
    assert replace(solution, fills=before) == solve_batch(market, tight)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_checker_accepts_it_and_derives_it_again(seed: int) -> None:
    market, intents, terms, solution = charged_batch(seed)
    document = document_of(market, intents, terms, solution)
    body = msgspec.json.encode(document)
    assert instance.terms_to_core(msgspec.json.decode(body, type=instance.Instance)) == terms
    answer = msgspec.json.encode(solution_document(solution))
    assert judge(body, answer).violations == ()
    said = document.proposal
    assert said is not None
    decided = instance.decision_of(said, intents)
    derived = derive(market, intents, terms, decided, instance.alone_of(said))
    assert not isinstance(derived, Infeasible)
    assert instance.derived_again(said, derived) == said


@pytest.mark.parametrize("kind", ["volume", "surplus", "improvement", "solver"])
def test_the_checker_refuses_a_fee_that_the_terms_do_not_say(kind: str) -> None:
    schedule = FeeSchedule(0.001, 0.5, 0.001, 0.5, 0.01, 0.0005)
    market = snapshot([pair("p", A, B, 10**3 * UNIT, 10**3 * UNIT, 100)])
    intents = [
        signed(swap(A, B, UNIT, UNIT * 9 // 10, nonce=1)),
        signed(swap(B, A, UNIT, UNIT * 9 // 10, nonce=2)),
    ]
    terms = Terms(schedule=schedule)
    solution = solve_batch(market, intents, terms)
    body = msgspec.json.encode(document_of(market, intents, terms, solution))
    answer = json.loads(msgspec.json.encode(solution_document(solution)))
    fill = answer["fills"][0]
    assert int(fill["charges"][kind]) > 0
    assert judge(body, json.dumps(answer).encode()).accepted
    for more in (1, -1):
        changed = json.loads(json.dumps(answer))
        taken = changed["fills"][0]
        taken["charges"][kind] = str(int(taken["charges"][kind]) + more)
        taken["buy"] = str(int(taken["buy"]) - more)
        codes = {v.code for v in judge(body, json.dumps(changed).encode()).violations}
        assert codes == {"charges_differ"}


def test_nothing_is_taken_unless_the_operator_says_so() -> None:
    market, intents = random_batch(random.Random(3))
    solution = solve_batch(market, intents)
    assert solution.fills
    assert all(fill.charges == Charges() for fill in solution.fills)


def test_what_each_kind_takes_from_a_lone_order() -> None:
    """At a rate of one, without depth in the way: 1,000,000 sold for at least 900,000."""
    market = snapshot([replace(pair("p", A, B, 10**30, 10**30), fee_num=0)])
    order = signed(swap(A, B, 10**6, 9 * 10**5))
    schedule = FeeSchedule(0.01, 0.5, 1.0, 1.0, 1.0, 0.02)
    (fill,) = solve_batch(market, [order], Terms(schedule=schedule)).fills
    brought = gross(fill, Kind.EXACT_IN).buy
    assert brought == 999_999  # the pool rounds
    volume = brought // 100
    surplus = (brought - volume - 900_000) // 2
    solver = (brought - volume - surplus) * 2 // 100
    # Alone it would have got the same: nothing has improved.
    assert fill.charges == Charges(volume, surplus, 0, solver)
    assert fill.buy == brought - volume - surplus - solver


def test_an_improvement_is_over_what_an_order_gets_alone() -> None:
    """Two orders that meet save the pool's fee of one percent; the operator takes half of that."""
    market = snapshot([pair("p", A, B, 10**6 * UNIT, 10**6 * UNIT, 100)])
    there = signed(swap(A, B, UNIT, UNIT // 2, partial=False, nonce=1))
    back = signed(swap(B, A, UNIT, UNIT // 2, partial=False, nonce=2))
    schedule = FeeSchedule(improvement_factor=0.5, improvement_max_volume_factor=1.0)
    solution = solve_batch(market, [there, back], Terms(schedule=schedule))
    for answer in solution.alone:
        (fill,) = (fill for fill in solution.fills if fill.digest == answer.digest)
        before = gross(fill, Kind.EXACT_IN)
        assert fill.charges == Charges(improvement=(before.buy - answer.buy) // 2)
        assert fill.charges.improvement == pytest.approx(UNIT / 200, rel=0.01)


def test_a_volume_fee_leaves_out_what_could_not_pay_it() -> None:
    market = snapshot([pair("p", A, B, 10**6 * UNIT, 10**6 * UNIT, 0)])
    order = signed(swap(A, B, UNIT, UNIT * 995 // 1_000))
    fine, dear = FeeSchedule(0.004), FeeSchedule(0.006)
    (fill,) = solve_batch(market, [order], Terms(schedule=fine)).fills
    assert fill.buy >= min_buy(order.swap, fill.sell)
    assert fill.charges.volume == pytest.approx(UNIT * 0.004, rel=1e-5)
    assert solve_batch(market, [order], Terms(schedule=dear)).fills == ()


@pytest.mark.parametrize("sold", [1, 2, 3, 10, 999])
@pytest.mark.parametrize("factor", [1e-18, 0.003, 0.1, 0.5])
def test_small_amounts_never_pay_more_than_was_signed(sold: int, factor: float) -> None:
    market = snapshot([pair("p", A, B, 10**24, 10**24, 0)])
    for kind in Kind:
        order = intent_of(A, B, sold, max(1, sold - 1), kind, False, 1)
        for fill in solve_batch(market, [order], Terms(schedule=FeeSchedule(factor))).fills:
            assert respects_limit(order.swap, fill.sell, fill.buy)


@pytest.mark.parametrize("factors", [(0.51,), (-0.1,), (0.0, 1.1), (0.0,) * 5 + (float("nan"),)])
def test_a_schedule_of_other_numbers_is_no_schedule(factors: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|at most"):
        FeeSchedule(*factors)

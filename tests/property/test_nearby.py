"""Batches in large markets: few pools in the program, all of them in the proof."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.answers import SETTLEMENT
from benchmarks.batches import intent_of
from benchmarks.joint import Case, intents_of
from benchmarks.markets import Market, Shape, generate
from solver.cli import judge
from solver.core import nearby
from solver.core.batch import Terms, solve_batch
from solver.core.routing.network import Network
from solver.core.types import Intent, Kind, Solution, Token, TokenId
from solver.core.venue import BlockRef, Snapshot
from solver.wire import instance
from solver.wire.solution import solution_document


def market_and_orders(pools: int, count: int, seed: int) -> tuple[Market, Network, list[Intent]]:
    market = generate(Shape(pools), seed)
    network = Network(market.pools, market.prices)
    case = Case(pools, count, True, None, None, 0.05, 1)
    return market, network, intents_of(market, network, case, seed)


def snapshot_of(market: Market, seed: int) -> Snapshot:
    blocks = {1: BlockRef(1, 1, "", 1)}
    prices = market.prices
    return Snapshot(blocks, tuple(market.pools), prices, {}, {}, {}, "", f"0x{seed:064x}")


def submitted(market: Market, intents: list[Intent]) -> float:
    return sum(i.swap.sell_amount * market.prices[i.swap.sell] for i in intents)


@pytest.mark.parametrize("seed", range(3))
def test_the_checker_accepts_the_proof_over_the_whole_market(seed: int) -> None:
    market, network, intents = market_and_orders(200, 8, seed)
    assert not np.all(nearby.near(network, intents, market.prices))
    snapshot = snapshot_of(market, seed)
    solution = solve_batch(snapshot, intents)
    assert len(solution.fills) > 4
    tokens = sorted({token for pool in market.pools for token in pool.tokens})
    names = {token: Token(token, f"T{k}", 18) for k, token in enumerate(tokens)}
    document = instance.from_core(snapshot, intents, Terms(), {1: SETTLEMENT}, names)
    body = msgspec.json.encode(document)
    verdict = judge(body, msgspec.json.encode(solution_document(solution)))
    assert verdict.violations == ()
    assert float(verdict.figures["bound"]) == pytest.approx(float(solution.certificate.bound))


@pytest.mark.parametrize("seed", range(4))
def test_what_few_pools_find_is_what_all_find(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    market, _, intents = market_and_orders(40, 5, 100 + seed)
    whole, few = both(snapshot_of(market, seed), intents, monkeypatch)
    room = 2e-6 * submitted(market, intents)  # what segments leave of a curve
    assert float(few.certificate.value) <= float(few.certificate.bound)
    assert float(few.certificate.bound) <= float(whole.certificate.bound) + room
    assert float(whole.certificate.value) <= float(few.certificate.bound) + room


def both(
    snapshot: Snapshot, intents: list[Intent], monkeypatch: pytest.MonkeyPatch
) -> tuple[Solution, Solution]:
    """The answer by segments over everything, and the one of a large market."""
    whole = solve_batch(snapshot, intents)
    monkeypatch.setattr(nearby, "MANY", 0)
    return whole, solve_batch(snapshot, intents)


def test_orders_between_tokens_that_no_pool_trades_meet() -> None:
    market = generate(Shape(150), 9)
    one, two = (TokenId(1, f"0x{9_000 + k:040x}") for k in range(2))
    prices = market.prices | {one: 1e-18, two: 1e-18}
    there = intent_of(one, two, 10**21, 99 * 10**19, Kind.EXACT_IN, True, 1)
    back = intent_of(two, one, 10**21, 99 * 10**19, Kind.EXACT_IN, True, 2)
    snapshot = replace(snapshot_of(market, 9), prices=prices)
    solution = solve_batch(snapshot, [there, back])
    assert {fill.digest for fill in solution.fills} == {there.digest, back.digest}
    assert solution.legs == ()


def test_the_order_of_intents_changes_nothing() -> None:
    market, _, intents = market_and_orders(150, 6, 7)
    snapshot = snapshot_of(market, 7)
    forward, backward = solve_batch(snapshot, intents), solve_batch(snapshot, intents[::-1])
    assert set(forward.fills) == set(backward.fills)

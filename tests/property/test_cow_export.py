"""A batch exported as an auction is solved to the same fills; what cannot be said is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from solver.cli import app
from solver.core.batch import Terms, solve_batch
from solver.core.pools import BookPool
from solver.core.schedule import FeeSchedule
from solver.core.types import Exact, Intent, Token, TokenId
from solver.core.venue import Pool, Snapshot
from solver.wire import cow, cow_export, instance
from solver.wire.instance import Instance
from tests.make import SETTLEMENT, UNIT, A, B, C, D, pair, signed, snapshot, swap
from tests.property.pools import (
    buffer_pools,
    concentrated_pools,
    curve_pools,
    gyro_pools,
    stable_pools,
    weighted_pools,
)
from tests.property.test_batch import random_intents, random_market

SYMBOLS = {A: "WETH", B: "B", C: "C", D: "D"}
POOLS = st.one_of(
    weighted_pools(), stable_pools(), concentrated_pools(), curve_pools(), gyro_pools(),
    buffer_pools(),
)  # fmt: skip


def document(market: Snapshot, intents: list[Intent], terms: Terms | None = None) -> Instance:
    tokens = {token: Token(token, symbol, 18) for token, symbol in SYMBOLS.items()}
    found = instance.from_core(market, intents, terms or Terms(), {1: SETTLEMENT}, tokens)
    chains = [instance.InstanceChain(1, SETTLEMENT, gas_price_wei="7")]
    return replace(found, chains=chains)


def exported(found: Instance, without: tuple[str, ...] = ()) -> cow.Problem:
    """The auction as a reader of it sees it."""
    auction, unsaid = cow_export.auction_of(found, "WETH", without)
    assert unsaid == []
    read = msgspec.convert(json.loads(json.dumps(auction)), cow.Auction)
    return cow.to_core(cow.checked(read), 1, "")


@pytest.mark.parametrize("seed", range(60))
def test_the_same_fills(seed: int) -> None:
    """Limits are the same to the unit; where the program stops within a partial order, or how it
    shares, may differ as floats do, since the orders come to it in another sequence.
    """
    rng = random.Random(seed)
    market, intents = random_market(rng), random_intents(rng)
    pools = tuple(pool for pool in market.pools if not isinstance(pool, BookPool))
    market = replace(market, pools=pools)
    problem = exported(document(market, intents))
    there = {
        fill.digest[:66]: fill for fill in solve_batch(problem.snapshot, problem.intents).fills
    }
    here = {fill.digest: fill for fill in solve_batch(market, intents).fills}
    assert there.keys() == here.keys()
    for digest, fill in here.items():
        assert there[digest].sell == pytest.approx(fill.sell, rel=1e-6)
        assert there[digest].buy == pytest.approx(fill.buy, rel=1e-6)
    limits = {
        intent.digest: (intent.swap.sell_amount, intent.swap.buy_amount) for intent in intents
    }
    for intent in problem.intents:
        swapped = (intent.swap.sell_amount, intent.swap.buy_amount)
        assert limits[intent.digest[:66]] == swapped


@settings(max_examples=150, deadline=None, derandomize=True)
@given(POOLS)
def test_a_pool_is_said_exactly_or_not_at_all(pool: Pool) -> None:
    """What the auction says of a pool trades like the pool, in both directions."""
    found = document(snapshot([pool, pair("p", A, B, UNIT, UNIT)]), [signed(swap())])
    auction, unsaid = cow_export.auction_of(found, "WETH")
    if unsaid:
        assert [each.name for each in unsaid] == ["pools"]
        assert pool.id in unsaid[0].detail
        assert len(auction["liquidity"]) == 1
        return
    read = cow.pool_of(auction["liquidity"][0], 1)
    assert read is not None
    for one, two in ((0, 1), (1, 0)):
        ends = pool.tokens[one], pool.tokens[two]
        for amount in (1, 10**6, 10**15, 10**18):
            steps = [each.swap(*ends, amount, Exact.IN) for each in (pool, read)]
            first, second = ((step.amount_in, step.amount_out) for step in steps)
            assert first == second


KINDS: list[dict[str, Any]] = [
    {"kind": "limitOrder", "makerToken": A.address, "takerToken": B.address, "makerAmount": "5",
     "takerAmount": "7"},
    {"kind": "constantProduct", "fee": "0.0025",
     "tokens": {A.address: {"balance": "8"}, B.address: {"balance": "9"}}},
    {"kind": "weightedProduct", "version": "v3Plus", "fee": "0.01",
     "tokens": {A.address: {"balance": "8", "weight": "0.2", "scalingFactor": "1000000000000"},
                B.address: {"balance": "9", "weight": "0.8", "scalingFactor": "1.05"}}},
    {"kind": "stable", "amplificationParameter": "5000.0", "fee": "0.0001",
     "tokens": {A.address: {"balance": "8", "scalingFactor": "1"},
                B.address: {"balance": "9", "scalingFactor": "1000000000000"},
                C.address: {"balance": "9", "scalingFactor": "1"}}},
    {"kind": "concentratedLiquidity", "fee": "0.003", "tokens": [A.address, B.address],
     "sqrtPrice": str(2**96), "tick": 0, "liquidity": "1000",
     "liquidityNet": {"-60": "1000", "60": "-1000"}},
]  # fmt: skip


@pytest.mark.parametrize("entry", KINDS, ids=lambda entry: str(entry["kind"]))
def test_every_kind_that_an_auction_has_goes_there_and_back(entry: dict[str, Any]) -> None:
    pool = cow.pool_of({"id": "x", **entry}, 1)
    assert pool is not None
    problem = exported(document(snapshot([pool]), [signed(swap())]))
    (read,) = problem.snapshot.pools
    assert replace(read, id="x") == pool  # type: ignore[type-var]


def test_what_remains_of_an_order_is_what_is_asked() -> None:
    """A third of it is filled: the limit of the rest rounds against the solver."""
    order = replace(signed(swap(sell_amount=10, buy_amount=7, partial=True)), filled=3)
    problem = exported(document(snapshot([pair("p", A, B, UNIT, UNIT)]), [order]))
    (intent,) = problem.intents
    assert (intent.swap.sell_amount, intent.swap.buy_amount) == (7, 5)
    assert problem.auction.orders[0].full_sell_amount == "10"


BOOK = BookPool(
    id="book", base=A, quote=B, lot_size=1, taker_fee_bps=0, bids=(), asks=(), gas=0,
    gas_per_level=0,
)  # fmt: skip
ELSEWHERE = TokenId(2, B.address)


@pytest.mark.parametrize(
    ("pools", "terms", "others", "names"),
    [
        ([BOOK], Terms(), [], ["pools"]),
        ([pair("odd", A, B, UNIT, UNIT, 30)], Terms(), [], []),
        ([replace(pair("odd", A, B, UNIT, UNIT), fee_num=1, fee_den=3)], Terms(), [], ["pools"]),
        ([], Terms(gas_value=1e-9), [], ["gas"]),
        ([], Terms(schedule=FeeSchedule(0.001)), [], ["fees"]),
        ([], Terms(max_impact_bps=500), [], ["impact"]),
        ([], Terms(), [swap(A, ELSEWHERE)], ["orders"]),
        ([], Terms(), [replace(swap(), valid_until=2**32)], ["orders"]),
    ],
)
def test_what_cannot_be_said_is_named(
    pools: list[Pool], terms: Terms, others: list[Any], names: list[str]
) -> None:
    intents = [signed(swap()), *(signed(other) for other in others)]
    found = document(snapshot(pools), intents, terms)
    chains = [*found.chains, instance.InstanceChain(2, SETTLEMENT)]
    found = replace(found, chains=chains)
    _, unsaid = cow_export.auction_of(found, "WETH")
    assert [each.name for each in unsaid] == names
    assert exported(found, tuple(names)).intents


def test_the_command(tmp_path: Path) -> None:
    order = signed(swap())
    terms = Terms({order.digest: 5})
    file = tmp_path / "batch.json"
    file.write_bytes(
        msgspec.json.encode(
            document(snapshot([pair("p", A, B, UNIT * 9, UNIT * 9)]), [order], terms)
        )
    )

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words))

    refused = run("export", str(file), "--cow", "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["code"] == "not_sayable"
    assert "fees: 1 orders pay" in refused.stderr
    assert run("export", str(file)).exit_code == 2
    assert run("export", str(file), "--cow", "--without", "prices").exit_code == 2
    nobody = run("export", str(file), "--cow", "--native", "XYZ", "--json")
    assert json.loads(nobody.stdout)["code"] == "no_native"
    done = run("export", str(file), "--cow", "--without", "fees")
    assert done.exit_code == 0, done.stderr
    auction = tmp_path / "auction.json"
    auction.write_text(done.stdout, encoding="utf-8")
    solved = run("solve", str(auction))
    assert solved.exit_code == 0, solved.stderr
    assert json.loads(solved.stdout)["solutions"][0]["trades"][0]["order"].startswith(order.digest)

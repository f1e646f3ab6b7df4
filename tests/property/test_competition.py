"""Fees and winner selection: order, ties, overlap, fairness, and fees found again."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from solver.core.fees import (
    Execution,
    FeePolicy,
    PriceImprovementFee,
    ReferenceQuote,
    SurplusFee,
    VolumeFee,
    charge,
    charged,
)
from solver.core.types import Kind
from solver.core.winners import (
    Auction,
    Bid,
    Order,
    Ranking,
    Standing,
    Trade,
    content_hash,
    select,
)

UNIT = 10**18
TOKENS = "abcde"
_AMOUNT = st.integers(1, 10**30)
_FACTOR = st.floats(0.0, 0.9)
_QUOTE = st.builds(ReferenceQuote, _AMOUNT, _AMOUNT, st.just(0))


def policies(sizes: st.SearchStrategy[float] = _FACTOR) -> st.SearchStrategy[list[FeePolicy]]:
    one: st.SearchStrategy[FeePolicy] = st.one_of(
        st.builds(SurplusFee, sizes, sizes),
        st.builds(PriceImprovementFee, sizes, sizes, _QUOTE),
        st.builds(VolumeFee, sizes),
    )
    return st.lists(one, max_size=4)


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    """A trade at its limit or better."""
    kind = draw(st.sampled_from(Kind))
    sell, buy = draw(_AMOUNT), draw(_AMOUNT)
    part, gain = draw(st.integers(1, 1000)), draw(st.integers(0, 1000))
    if kind is Kind.EXACT_IN:
        sold = max(1, sell * part // 1000)
        least = -(-sold * buy // sell)
        return Execution(kind, sell, buy, sold, least + least * gain // 1000)
    bought = max(1, buy * part // 1000)
    most = sell * bought // buy
    return Execution(kind, sell, buy, most - most * gain // 2000, bought)


@given(executions(), policies(), _FACTOR)
def test_fees_only_ever_take_what_is_there(
    execution: Execution, terms: list[FeePolicy], own: float
) -> None:
    done = charge(execution, terms, own)
    assert min((0, *done.policies, done.solver)) == 0
    assert done.execution == execution.less(done.total)
    assert len(done.policies) == len(terms)
    if not any(isinstance(policy, VolumeFee) for policy in terms):
        assert done.execution.surplus >= 0
    left = done.execution.surplus + done.solver
    assert done.execution.surplus >= min(0, left)


@given(executions(), policies(), st.integers(0, 3))
def test_a_policy_charges_nothing_that_one_before_it_charged(
    execution: Execution, terms: list[FeePolicy], cut: int
) -> None:
    whole, first = charge(execution, terms), charge(execution, terms[:cut])
    second = charge(first.execution, terms[cut:])
    assert whole.policies == first.policies + second.policies
    assert whole.execution == second.execution


@given(executions(), policies(st.floats(0.0, 0.5)))
def test_what_was_charged_is_found_again(execution: Execution, terms: list[FeePolicy]) -> None:
    """To a few units and the last digits of a double; each policy's rounding grows by 1/(1−f)."""
    done = charge(execution, terms)
    if done.execution.surplus < 0:
        return
    found = charged(done.execution, terms)
    error = abs(sum(found) - done.total)
    assert error <= 64 + execution.volume * 1e-13


@st.composite
def auctions(draw: st.DrawFn) -> tuple[Auction, list[Bid]]:
    """Few tokens, so that pairs overlap, and small gains, so that scores are often equal."""
    names = [f"order {k}" for k in range(draw(st.integers(1, 6)))]
    orders = {}
    for name in names:
        sell, buy = draw(st.lists(st.sampled_from(TOKENS), min_size=2, max_size=2, unique=True))
        orders[name] = Order(draw(st.sampled_from(Kind)), sell, buy, UNIT, UNIT)
    bids = []
    for k in range(draw(st.integers(0, 7))):
        trades = []
        for name in draw(st.lists(st.sampled_from(names), max_size=4, unique=True)):
            gain = draw(st.integers(-1, 3)) * UNIT // 10
            exact_in = orders[name].kind is Kind.EXACT_IN
            ends = (UNIT, UNIT + gain) if exact_in else (UNIT - gain, UNIT)
            trades.append(Trade(name, *ends))
        bids.append(Bid(draw(st.sampled_from("XYZ")), str(k), tuple(trades)))
    aliases = {"e": "d"} if draw(st.booleans()) else {}
    most = draw(st.integers(1, 4))
    prices = dict.fromkeys(TOKENS, 1000)
    return Auction(orders, prices, aliases, max_winners=most), bids


def shape(ranking: Ranking) -> list[tuple[str, str, Standing, int]]:
    return [
        (ranked.bid.solver, ranked.bid.id, ranked.standing, ranked.score)
        for ranked in ranking.solutions
    ]


@given(auctions(), st.randoms(use_true_random=False))
def test_the_order_of_solutions_and_trades_changes_nothing(
    given_auction: tuple[Auction, list[Bid]], random: Random
) -> None:
    auction, bids = given_auction
    shuffled = [
        replace(bid, trades=tuple(random.sample(bid.trades, len(bid.trades))))
        for bid in random.sample(bids, len(bids))
    ]
    first, second = select(auction, bids), select(auction, shuffled)
    assert shape(first) == shape(second)
    assert first.reference_scores == second.reference_scores


@given(auctions())
def test_names_and_ids_decide_only_between_equal_contents(
    given_auction: tuple[Auction, list[Bid]],
) -> None:
    auction, bids = given_auction
    if len({content_hash(bid) for bid in bids}) < len(bids):
        return
    renamed = [replace(bid, solver=f"solver of {bid.id}", id="1") for bid in bids]
    first, second = select(auction, bids), select(auction, renamed)
    assert [ranked.bid.trades for ranked in first.solutions] == [
        ranked.bid.trades for ranked in second.solutions
    ]
    assert [r.standing for r in first.solutions] == [r.standing for r in second.solutions]


@given(auctions())
def test_a_second_copy_of_every_solution_changes_no_winner(
    given_auction: tuple[Auction, list[Bid]],
) -> None:
    auction, bids = given_auction
    copies = [replace(bid, id=f"{bid.id} again") for bid in bids]
    first, second = select(auction, bids), select(auction, [*bids, *copies])
    assert [r.bid.trades for r in first.winners] == [r.bid.trades for r in second.winners]
    assert sum(r.score for r in first.winners) == sum(r.score for r in second.winners)


@given(auctions())
def test_winners_are_fair_never_overlap_and_leave_out_nothing_that_fits(
    given_auction: tuple[Auction, list[Bid]],
) -> None:
    auction, bids = given_auction
    ranking = select(auction, bids)
    winners = ranking.winners
    assert len(ranking.solutions) == len(bids)
    assert len(winners) <= auction.max_winners
    for one, other in combinations(winners, 2):
        assert not one.covers & other.covers
    for better, worse in pairwise(winners):
        assert better.score >= worse.score
    taken = frozenset().union(*(winner.covers for winner in winners))
    best: dict[tuple[str, str], int] = {}
    for ranked in ranking.fair:
        if len(ranked.pairs) == 1:
            (pair, score) = next(iter(ranked.pairs.items()))
            best[pair] = max(best.get(pair, 0), score)
    for ranked in ranking.solutions:
        assert ranked.score == sum(ranked.pairs.values())
        assert (ranked.standing is Standing.WINNER) == (not ranked.reason)
        beaten = [pair for pair, own in ranked.pairs.items() if own < best.get(pair, 0)]
        if ranked.standing is Standing.UNFAIR:
            assert beaten and len(ranked.pairs) > 1
        elif len(ranked.pairs) > 1:
            assert not beaten
        if ranked.standing is Standing.LOSER:
            assert ranked.covers & taken or len(winners) == auction.max_winners


@given(auctions())
def test_reference_scores_are_of_the_winners_without_a_solver(
    given_auction: tuple[Auction, list[Bid]],
) -> None:
    auction, bids = given_auction
    ranking = select(auction, bids)
    total = sum(winner.score for winner in ranking.winners)
    assert set(ranking.reference_scores) == {winner.bid.solver for winner in ranking.winners}
    for solver, reference in ranking.reference_scores.items():
        others = [ranked for ranked in ranking.fair if ranked.bid.solver != solver]
        assert reference <= sum(ranked.score for ranked in others)
        own = sum(r.score for r in ranking.winners if r.bid.solver == solver)
        # Whoever won beside the solver wins without it too, unless others come into the way of
        # the number of winners: the ranking begins with them.
        assert reference >= total - own


@given(auctions())
def test_where_solutions_have_one_pair_each_nobody_is_worth_less_than_nothing(
    given_auction: tuple[Auction, list[Bid]],
) -> None:
    """Then the greedy pick is the best set, and less competition cannot score more."""
    auction, bids = given_auction
    single = [bid for bid in bids if len({pair_of(auction, bid, t) for t in bid.trades}) == 1]
    ranking = select(auction, single)
    total = sum(winner.score for winner in ranking.winners)
    for reference in ranking.reference_scores.values():
        assert reference <= total


def pair_of(auction: Auction, bid: Bid, trade: Trade) -> tuple[str, str]:
    order = auction.orders[trade.order]
    alias = auction.aliases
    return alias.get(order.sell_token, order.sell_token), alias.get(
        order.buy_token, order.buy_token
    )


@settings(max_examples=20)
@given(auctions(), st.binary(min_size=1, max_size=8))
def test_the_seed_changes_nothing_but_ties(
    given_auction: tuple[Auction, list[Bid]], seed: bytes
) -> None:
    auction, bids = given_auction
    first, second = select(auction, bids), select(replace(auction, seed=seed), bids)
    assert sorted(r.score for r in first.fair) == sorted(r.score for r in second.fair)
    scores = [ranked.score for ranked in first.fair]
    if len(set(scores)) == len(scores):
        assert [r.bid for r in first.winners] == [r.bid for r in second.winners]


def test_two_solutions_of_one_solver_have_two_ids() -> None:
    bid = Bid("X", "1", ())
    with pytest.raises(ValueError, match="same id"):
        select(Auction({}, {}), [bid, bid])

"""Fee policies: worked examples, stacking, the way back, and what has no fee."""

from __future__ import annotations

import pytest

from solver.core.fees import (
    Execution,
    FeePolicy,
    PriceImprovementFee,
    ReferenceQuote,
    SurplusFee,
    Unscorable,
    VolumeFee,
    charge,
    charged,
    limits,
)
from solver.core.types import UINT256_MAX, JsonObject, Kind
from solver.wire import fees
from solver.wire.jsonio import Invalid

#: Sells 1,000 for at least 900 and got 1,000; buys 900 for at most 1,000 and paid 900.
SALE = Execution(Kind.EXACT_IN, 1_000, 900, 1_000, 1_000)
PURCHASE = Execution(Kind.EXACT_OUT, 1_000, 900, 900, 900)


def test_nothing_is_charged_without_a_policy() -> None:
    for execution in (SALE, PURCHASE):
        done = charge(execution)
        assert (done.execution, done.policies, done.solver, done.total) == (execution, (), 0, 0)


@pytest.mark.parametrize(
    ("policy", "sale", "purchase"),
    [
        (SurplusFee(0.5, 1.0), 50, 50),
        (SurplusFee(0.5, 0.01), 10, 9),
        (VolumeFee(0.01), 10, 9),
        (VolumeFee(0.0), 0, 0),
        # Half the distance to a quote of 950, or of 950 sold for 900 bought.
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(1_000, 950)), 25, None),
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(940, 900, 10)), None, 25),
        # The network fee of the quote counts as if it were sold for nothing.
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(1_000, 950, 20)), 34, None),
        # Worse than the limit: the limit is what is improved on.
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(1_000, 100)), 50, None),
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(9_000, 900)), None, 50),
        # Better than the trade: nothing is improved.
        (PriceImprovementFee(0.5, 1.0, ReferenceQuote(1_000, 1_100)), 0, None),
    ],
)
def test_one_policy(policy: FeePolicy, sale: int | None, purchase: int | None) -> None:
    if sale is not None:
        done = charge(SALE, [policy])
        assert done.policies == (sale,)
        assert (done.execution.sell, done.execution.buy) == (1_000, 1_000 - sale)
    if purchase is not None:
        done = charge(PURCHASE, [policy])
        assert done.policies == (purchase,)
        assert (done.execution.sell, done.execution.buy) == (900 + purchase, 900)


def test_policies_apply_to_what_the_ones_before_left() -> None:
    assert charge(SALE, [SurplusFee(0.5, 1.0)] * 3).policies == (50, 25, 12)
    assert charge(SALE, [VolumeFee(0.04), SurplusFee(0.5, 1.0)]).policies == (40, 30)
    assert charge(SALE, [SurplusFee(0.5, 1.0), VolumeFee(0.04)]).policies == (50, 38)


def test_a_volume_fee_may_pass_the_limit_and_the_others_may_not() -> None:
    assert charge(SALE, [VolumeFee(0.5)]).execution.buy == 500
    assert charge(SALE, [VolumeFee(0.5), SurplusFee(1.0, 1.0)]).policies == (500, 0)


def test_the_solver_comes_last_and_keeps_the_limit() -> None:
    done = charge(SALE, [SurplusFee(0.5, 1.0)], solver_factor=0.01)
    assert (done.policies, done.solver, done.execution.buy) == ((50,), 9, 941)
    assert charge(SALE, solver_factor=0.5).solver == 100
    assert charge(PURCHASE, solver_factor=0.5).execution.sell == 1_000
    assert charge(SALE, [VolumeFee(0.5)], solver_factor=0.5).solver == 0


def test_the_limit_of_a_part_is_rounded_for_the_owner() -> None:
    assert Execution(Kind.EXACT_IN, 1_000, 999, 10, 10).surplus == 0
    assert Execution(Kind.EXACT_IN, 1_000, 900, 15, 14).surplus == 0
    assert Execution(Kind.EXACT_OUT, 999, 1_000, 9, 10).surplus == 0
    assert Execution(Kind.EXACT_OUT, 999, 1_000, 10, 10).surplus == -1


@pytest.mark.parametrize(
    "wide",
    [
        Execution(Kind.EXACT_IN, 10**21, 10**20, 10**21, 10**21),
        Execution(Kind.EXACT_OUT, 10**22, 9 * 10**20, 9 * 10**20, 9 * 10**20),
    ],
)
def test_fees_are_found_again_in_the_trade(wide: Execution) -> None:
    terms: list[FeePolicy] = [SurplusFee(0.5, 0.9), VolumeFee(0.25), SurplusFee(0.5, 0.01)]
    done = charge(wide, terms)
    assert min(done.policies) > 0
    assert charged(done.execution, terms) == pytest.approx(done.policies, rel=1e-12)


def test_a_trade_below_its_limit_has_no_surplus_fee_to_find() -> None:
    short = Execution(Kind.EXACT_IN, 1_000, 900, 1_000, 899)
    assert charge(short, [SurplusFee(0.5, 1.0)]).total == 0
    with pytest.raises(Unscorable):
        charged(short, [SurplusFee(0.5, 0.9)])


@pytest.mark.parametrize("terms", [[SurplusFee(1.0, 0.5)], [VolumeFee(1.0)], [SurplusFee(0.5, 1)]])
def test_a_fee_of_everything_cannot_be_found_again(terms: list[FeePolicy]) -> None:
    with pytest.raises(Unscorable):
        charged(SALE, terms)


def test_a_cap_of_the_whole_volume_is_no_cap_for_a_purchase() -> None:
    assert charged(PURCHASE, [SurplusFee(0.5, 1.0)]) == (100,)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_factor_is_a_share(factor: float) -> None:
    for build in (
        lambda: VolumeFee(factor),
        lambda: SurplusFee(factor, 0.5),
        lambda: PriceImprovementFee(0.5, factor, ReferenceQuote(1, 1)),
        lambda: charge(SALE, solver_factor=factor),
    ):
        with pytest.raises(ValueError, match="factor"):
            build()


@pytest.mark.parametrize(
    "amounts",
    [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, -1, 1), (1, 1, 1, UINT256_MAX + 1)],
)
def test_an_execution_has_amounts_of_tokens(amounts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="amount"):
        Execution(Kind.EXACT_IN, *amounts)


@pytest.mark.parametrize(
    ("execution", "quote"),
    [
        (SALE, ReferenceQuote(0, 1)),
        (SALE, ReferenceQuote(1, 1, 2)),
        (PURCHASE, ReferenceQuote(1, 0)),
    ],
)
def test_a_quote_has_a_rate(execution: Execution, quote: ReferenceQuote) -> None:
    with pytest.raises(Unscorable):
        limits(execution, quote)


def test_a_quote_is_scaled_to_the_order_and_never_below_its_limit() -> None:
    sale = Execution(Kind.EXACT_IN, 20, 19, 20, 25)
    assert limits(sale, ReferenceQuote(21, 18, 1)) == (20, 19)
    assert limits(sale, ReferenceQuote(20, 25, 4)) == (20, 20)
    purchase = Execution(Kind.EXACT_OUT, 20, 10, 20, 10)
    assert limits(purchase, ReferenceQuote(17, 10, 1)) == (18, 10)
    assert limits(purchase, ReferenceQuote(21, 10, 1)) == (20, 10)


def test_amounts_at_the_edge_of_a_word_do_not_break_it() -> None:
    most = Execution(Kind.EXACT_IN, UINT256_MAX, 1, UINT256_MAX, UINT256_MAX)
    assert charge(most, [SurplusFee(1.0, 1.0)]).execution.buy == 1
    full = Execution(Kind.EXACT_OUT, UINT256_MAX, 1, UINT256_MAX, 1)
    with pytest.raises(Unscorable):
        charge(full, [VolumeFee(0.5)])


def test_both_spellings_of_a_policy_are_read() -> None:
    quote = {"sellAmount": "10", "buyAmount": "0x0a", "fee": "1"}
    fields = {"factor": 0.5, "maxVolumeFactor": 0.01, "quote": quote}
    read = (
        VolumeFee(0.1),
        SurplusFee(0.5, 0.01),
        PriceImprovementFee(0.5, 0.01, ReferenceQuote(10, 10, 1)),
    )
    inside: list[JsonObject] = [
        {"volume": {"factor": 0.1}},
        {"surplus": fields},
        {"priceImprovement": fields},
    ]
    beside: list[JsonObject] = [
        {"kind": "volume", "factor": 0.1},
        {"kind": "surplus", **fields},
        {"kind": "priceImprovement", **fields},
    ]
    assert fees.policies(inside, "") == fees.policies(beside, "") == read


@pytest.mark.parametrize(
    ("entry", "pointer"),
    [
        ({}, "/0"),
        ({"kind": "tip", "factor": 0.1}, "/0"),
        ({"volume": 0.1}, "/0/volume"),
        ({"kind": "volume"}, "/0/factor"),
        ({"kind": "volume", "factor": True}, "/0/factor"),
        ({"kind": "volume", "factor": 2}, "/0/factor"),
        ({"surplus": {"factor": 0.5}}, "/0/surplus/maxVolumeFactor"),
        ({"kind": "priceImprovement", "factor": 0.5, "maxVolumeFactor": 0.5}, "/0/quote"),
        (
            {
                "kind": "priceImprovement",
                "factor": 0.5,
                "maxVolumeFactor": 0.5,
                "quote": {"sellAmount": "1", "buyAmount": "-1", "fee": "0"},
            },
            "/0/quote/buyAmount",
        ),
    ],
)
def test_what_is_no_policy_is_pointed_at(entry: JsonObject, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        fees.policies([entry], "")
    assert refused.value.pointer == pointer

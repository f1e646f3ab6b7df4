"""Batches keep every account's margin: random ones, and cases where one rule decides."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks import margined
from benchmarks.batches import intent_of
from benchmarks.margined import RULE
from solver.checker import margin as checker
from solver.core.batch import Terms, solve_batch
from solver.core.intent import digest_of
from solver.core.margin import black76
from solver.core.margin.book import HEALTH_ONE, Asset, Book, Cash, Held, Perpetual
from solver.core.margin.evaluator import Evaluator
from solver.core.margin.rules import Collateral, Expiry, Market, Option
from solver.core.pools import ConstantProductPool
from solver.core.types import Intent, Kind, Solution, TokenId
from solver.core.venue import Snapshot

SPOT, DEEP = 2_000.0, 100_000.0
CASH, COIN, PERP, LOW, HIGH = (TokenId(1, f"0x{k + 1:040x}") for k in range(5))
EXPIRY = Expiry(30 * 86_400.0, SPOT, 0.0, 1.0)
LOW_CALL, HIGH_CALL = (Option(0, strike, True, 0.6, 0.0) for strike in (2_000.0, 2_400.0))
MARKET = Market(SPOT, 1.0, SPOT, 1.0, 1.0, (EXPIRY,))
ASSETS = {
    CASH: Asset(Cash(), 10**6),
    COIN: Asset(Collateral(0.0, SPOT, 1.0, 0.05, 0.05, True), 10**18),
    PERP: Asset(Perpetual(), 10**18),
    LOW: Asset(LOW_CALL, 10**18),
    HIGH: Asset(HIGH_CALL, 10**18),
}
ALICE, BOB = "0x" + "0a" * 32, "0x" + "0b" * 32
OWNER = "0x" + "11" * 20
SETTLEMENT = "0x" + "5e" * 20


def worth(token: TokenId) -> float:
    """What one instrument costs."""
    option = {LOW: LOW_CALL, HIGH: HIGH_CALL}.get(token)
    if option is None:
        return 1.0 if token == CASH else SPOT
    values = black76.prices(SPOT, option.strike, EXPIRY.years, option.vol, 1.0, True)
    return float(values)


PRICES = {token: worth(token) / asset.unit for token, asset in ASSETS.items()}
MARKETPLACE = Snapshot(
    {},
    tuple(
        ConstantProductPool(
            id=f"pool-{token.address[-1]}",
            token0=token,
            token1=CASH,
            reserve0=int(DEEP * SPOT / PRICES[token]),
            reserve1=int(DEEP * SPOT / PRICES[CASH]),
            fee_num=1,
            fee_den=10_000,
            gas=0,
        )
        for token in (COIN, PERP, LOW, HIGH)
    ),
    PRICES,
    {},
    {},
    {},
    hash="0x" + "07" * 32,
)


def order(
    sell: TokenId,
    buy: TokenId,
    amount: float,
    account: str = ALICE,
    partial: bool = True,
    health: float = 0.0,
    owner: str = OWNER,
) -> Intent:
    """So many instruments for cash, or with cash, at five per cent under their price."""
    token = buy if sell == CASH else sell
    ends = amount * ASSETS[token].unit, amount * worth(token) * ASSETS[CASH].unit
    sold, bought = ends[::-1] if sell == CASH else ends
    plain = intent_of(sell, buy, int(sold), int(bought * 0.95), Kind.EXACT_IN, partial, 0)
    floor = int(health * HEALTH_ONE)
    swap = replace(plain.swap, account=account, min_health=floor, owner=owner, receiver=owner)
    return Intent(digest_of(swap, SETTLEMENT), swap, "0x")


def book(**amounts: float) -> Book:
    """Alice with some amounts, Bob with plenty of cash."""
    names = {"cash": CASH, "coin": COIN, "perp": PERP, "low": LOW, "high": HIGH}
    held = {names[name]: int(x * ASSETS[names[name]].unit) for name, x in amounts.items()}
    plenty = Held(OWNER, {CASH: 10**15})
    return Book(RULE, MARKET, ASSETS, {ALICE: Held(OWNER, held), BOB: plenty})


def solved(accounts: Book, *intents: Intent) -> Solution:
    """The batch; no account may have too little after it."""
    solution = solve_batch(MARKETPLACE, list(intents), Terms(margin=accounts))
    assert checker.breaches(accounts, intents, solution.fills, 1e-8) == []
    return solution


def share(solution: Solution, intent: Intent) -> float:
    """How much of an exact-in order is filled."""
    sold = sum(fill.sell for fill in solution.fills if fill.digest == intent.digest)
    return sold / intent.swap.sell_amount


@pytest.mark.parametrize("seed", range(0, 120))
def test_no_account_loses_its_margin(seed: int) -> None:
    assert margined.play(seed)["wrong"] == []


def test_without_the_rows_accounts_would_lose_it() -> None:
    played = [margined.play(seed) for seed in range(20)]
    assert sum(one["without"] for one in played) >= 5


def test_a_short_is_filled_as_far_as_margin_goes() -> None:
    short = order(HIGH, CASH, 10.0)
    solution = solved(book(cash=1_000.0), short)
    assert 0.05 < share(solution, short) < 0.95
    (kept,) = solution.margin
    assert 0.0 <= kept.after.initial < 10.0  # of some 1,000: rows count on the limit's price only
    (name,) = kept.prices
    assert name.startswith(f"margin:{ALICE}:spot +") and kept.prices[name] > 0.0
    (reason,) = solution.open
    assert name in reason.binding


def test_what_is_hedged_in_the_same_batch_is_filled() -> None:
    short, hedge = order(HIGH, CASH, 10.0, partial=False), order(CASH, LOW, 10.0, partial=False)
    accounts = book(cash=1_800.0)
    refused = solved(accounts, short)
    (reason,) = refused.open
    assert refused.fills == () and reason.code == "margin"
    assert reason.binding.startswith(f"row:margin:{ALICE}:spot +18 %")
    both = solved(accounts, short, hedge)
    assert share(both, short) == share(both, hedge) == 1.0


def test_who_has_too_little_may_reduce_and_nothing_else() -> None:
    accounts = book(cash=3_000.0, high=-30.0)
    back, more = order(CASH, HIGH, 5.0), order(HIGH, CASH, 5.0)
    assert solved(accounts, more).fills == ()
    solution = solved(accounts, back)
    assert share(solution, back) == 1.0
    assert solution.margin[0].before.initial < solution.margin[0].after.initial < 0.0


def test_a_health_floor_holds_more_back_than_margin() -> None:
    accounts = book(cash=1_000.0)
    plain, careful = (order(HIGH, CASH, 10.0, health=h) for h in (0.0, 3.0))
    one, other = solved(accounts, plain), solved(accounts, careful)
    assert share(other, careful) < 0.8 * share(one, plain)
    health = other.margin[0].after.health
    assert health is not None and health >= 3.0 - 1e-6


def test_collateral_is_not_sold_short() -> None:
    sale = order(COIN, CASH, 2.0)
    solution = solved(book(cash=1e6, coin=0.5), sale)
    assert 0.2 < share(solution, sale) <= 0.25


def test_one_account_does_not_hold_another_back() -> None:
    phantom, honest = order(HIGH, CASH, 1_000.0, partial=False), order(HIGH, CASH, 5.0, BOB)
    solution = solved(book(cash=10.0), phantom, honest)
    assert share(solution, honest) == 1.0 and share(solution, phantom) == 0.0


@pytest.mark.parametrize(
    ("intent", "code"),
    [
        (order(HIGH, CASH, 1.0, "0x" + "0c" * 32), "unknown_account"),
        (order(HIGH, CASH, 1.0, owner="0x" + "22" * 20), "not_your_account"),
    ],
)
def test_a_wrong_account_costs_only_its_own_order(intent: Intent, code: str) -> None:
    honest = order(HIGH, CASH, 5.0, BOB)
    solution = solved(book(cash=1_000.0), intent, honest)
    assert [reason.code for reason in solution.open] == [code]
    assert share(solution, honest) == 1.0


def test_what_an_account_buys_stays_in_it() -> None:
    intent = order(CASH, HIGH, 1.0)
    away = replace(intent, swap=replace(intent.swap, receiver="0x" + "22" * 20))
    solution = solved(book(cash=1_000.0), away)
    assert [reason.code for reason in solution.open] == ["receiver_elsewhere"]


@pytest.mark.parametrize(
    ("intent", "code"),
    [
        (order(HIGH, CASH, 10.0, partial=False), "margin"),
        (order(HIGH, CASH, 10.0), ""),  # a part of it may be possible
        (order(CASH, HIGH, 1.0, partial=False), ""),
        (order(HIGH, CASH, 4.0, partial=False), ""),
        (order(HIGH, CASH, 4.0, partial=False, health=3.0), "margin"),
        (order(HIGH, CASH, 10.0, "0x" + "0c" * 32), "unknown_account"),
    ],
)
def test_an_order_is_admitted_if_it_could_be_filled_alone(intent: Intent, code: str) -> None:
    refused = Evaluator(book(cash=1_000.0)).admission(intent)
    assert (refused[0] if refused else "") == code


def test_an_unknown_instrument_is_refused() -> None:
    accounts = book(cash=1_000.0)
    known = {token: asset for token, asset in ASSETS.items() if token != LOW}
    solution = solved(replace(accounts, assets=known), order(CASH, LOW, 1.0))
    assert [reason.code for reason in solution.open] == ["unknown_instrument"]

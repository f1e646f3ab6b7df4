"""What every margin rule promises, on random markets and accounts."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks import margin as bench
from solver.core.margin import black76, span, tiers
from solver.core.margin.exposure import exposure
from solver.core.margin.rules import Account, Collateral, Expiry, Market, Option, Scenario, VolMove
from solver.core.margin.scenarios import Grid, Holdings, requirement

PRICE = st.floats(1.0, 1e6)
YEARS = st.floats(0.0, 3.0)
VOL = st.floats(0.0, 3.0)
SHARE = st.floats(0.5, 1.0)

GRID = tuple(
    Scenario(1.0 + step * 0.045, vol)
    for step in range(-4, 5)
    for vol in (VolMove.UP, VolMove.SAME, VolMove.DOWN)
)
RULE = replace(  # without the tilts, which are not concave
    bench.RULE,
    scenarios=(*GRID, Scenario(0.34, VolMove.UP, 0.0545), Scenario(3.0, VolMove.UP, 0.018)),
)


def random_market(rng: random.Random) -> Market:
    spot = 10 ** rng.uniform(1, 5)
    expiries = tuple(
        Expiry(rng.uniform(3_600, 3e7), spot * rng.uniform(0.97, 1.05), rng.uniform(0, 0.1), 1.0)
        for _ in range(rng.randrange(1, 4))
    )
    return Market(spot, 1.0, spot * rng.uniform(0.99, 1.01), 1.0, 1.0, expiries)


def random_account(rng: random.Random, market: Market, strikes: list[float]) -> Account:
    options = tuple(
        Option(
            rng.randrange(len(market.expiries)), rng.choice(strikes), rng.random() < 0.5,
            rng.uniform(0.2, 1.5), rng.uniform(-10, 10),
        )
        for _ in range(rng.randrange(0, 8))
    )  # fmt: skip
    collateral = (Collateral(rng.uniform(0, 5), market.spot, 1.0, 0.05, 0.05, True),)
    return Account(rng.uniform(-1, 1) * market.spot, rng.uniform(-5, 5), 0.0, options, collateral)


@given(PRICE, PRICE, YEARS, VOL, SHARE)
def test_calls_and_puts_keep_parity_and_bounds(
    f: float, k: float, years: float, vol: float, discount: float
) -> None:
    call, put = (float(black76.prices(f, k, years, vol, discount, side)) for side in (True, False))
    assert call - put == pytest.approx(discount * (f - k), rel=1e-9, abs=1e-9 * (f + k))
    assert discount * max(f - k, 0.0) <= call <= discount * f * (1 + 1e-12)
    assert discount * max(k - f, 0.0) <= put <= discount * k * (1 + 1e-12)


@given(PRICE, st.floats(0.5, 2.0), st.floats(0.05, 3.0), st.floats(0.05, 2.0), st.booleans())
def test_a_value_gives_its_volatility_back(
    f: float, moneyness: float, years: float, vol: float, call: bool
) -> None:
    k = f * moneyness
    value = black76.prices(f, k, years, vol, 0.97, call)
    found = black76.implied_vol(value, f, k, years, 0.97, call)
    again = black76.prices(f, k, years, found, 0.97, call)
    assert float(again) == pytest.approx(float(value), rel=1e-12, abs=1e-12 * f)


@given(PRICE, st.floats(0.7, 1.4), st.floats(0.1, 2.0), st.floats(0.1, 1.5), st.booleans())
def test_greeks_are_the_slopes(
    f: float, moneyness: float, years: float, vol: float, call: bool
) -> None:
    k, rate = f * moneyness, 0.03
    found = black76.greeks(f, k, years, vol, rate, call)

    def value(forward: float, time: float, sigma: float) -> float:
        return float(black76.prices(forward, k, time, sigma, np.exp(-rate * time), call))

    step = 1e-4
    slope = (value(f * (1 + step), years, vol) - value(f * (1 - step), years, vol)) / (2 * f * step)
    assert float(found.delta) == pytest.approx(slope, abs=1e-5)
    vega = (value(f, years, vol + step) - value(f, years, vol - step)) / (2 * step)
    assert float(found.vega) == pytest.approx(vega, rel=1e-4, abs=1e-5 * f)
    decay = (value(f, years - step, vol) - value(f, years + step, vol)) / (2 * step)
    assert float(found.theta) == pytest.approx(decay, rel=1e-3, abs=1e-4 * f)


@pytest.mark.parametrize(
    "inputs",
    [(0.0, 1, 1, 1, 1), (1, -1, 1, 1, 1), (1, 1, -1, 1, 1), (1, 1, 1, -1, 1), (1, 1, 1, np.nan, 1)],
)
def test_what_no_option_can_have_is_refused(inputs: tuple[float, ...]) -> None:
    forward, strike, years, vol, discount = inputs
    with pytest.raises(ValueError, match="not"):
        black76.prices(forward, strike, years, vol, discount, True)


@pytest.mark.parametrize("seed", range(60))
def test_more_collateral_never_lowers_a_balance(seed: int) -> None:
    """What does not move with the market, so that it offsets nothing that it could also add to."""
    rng = random.Random(seed)
    market = random_market(rng)
    account = random_account(rng, market, [market.spot * x for x in (0.8, 1.0, 1.2)])
    before = requirement(account, market, RULE)
    extra = Collateral(rng.uniform(0, 100), 1.0, 1.0, 0.1, 0.1, False)
    richer = replace(account, collateral=(*account.collateral, extra), cash=account.cash + 1.0)
    after = requirement(richer, market, RULE)
    assert after.initial > before.initial
    assert after.maintenance > before.maintenance
    assert before.maintenance >= before.initial


@pytest.mark.parametrize("seed", range(200))
def test_with_tilts_both_ways_the_balance_is_concave(seed: int) -> None:
    """At the midpoint of two accounts it is at least the average: netting never costs."""
    rng = random.Random(seed)
    rule = replace(bench.RULE, two_sided=True) if seed % 2 else RULE
    market = random_market(rng)
    strikes = [market.spot * x for x in (0.8, 1.0, 1.2)]
    one, two = (random_account(rng, market, strikes) for _ in range(2))
    middle = Account(
        (one.cash + two.cash) / 2,
        (one.perps + two.perps) / 2,
        0.0,
        tuple(replace(option, amount=option.amount / 2) for option in one.options + two.options),
        tuple(replace(held, amount=held.amount / 2) for held in one.collateral + two.collateral),
    )
    balances = [requirement(account, market, rule) for account in (one, two, middle)]
    room = 1e-9 * market.spot
    for name in ("initial", "maintenance"):
        first, second, between = (getattr(balance, name) for balance in balances)
        assert between >= (first + second) / 2 - room


def test_many_accounts_at_once_are_each_of_them_alone(tmp_path: Path) -> None:
    assert bench.main(["--quick", "--report", str(tmp_path / "margin.json")]) == 0
    (case,) = json.loads((tmp_path / "margin.json").read_text(encoding="utf-8"))["cases"].values()
    assert case["scenarios"] == 31
    assert case["sampleApart"] < 1e-9


def test_a_tilt_one_way_is_not_concave() -> None:
    """Why the published rule stays out of programs: a mixture of two accounts may need more."""
    tilts = tuple(Scenario(1.0, move) for move in (VolMove.SKEW, VolMove.SMILE))
    only = replace(bench.RULE, scenarios=tilts, basis_base=0.0, basis_per_year=0.0)
    broken = [0, 0]
    for seed in range(200):
        rng = random.Random(seed)
        market = random_market(rng)
        market = replace(market, expiries=market.expiries[:1])
        one, two = (_three_options(rng, market) for _ in range(2))
        halves = tuple(replace(o, amount=o.amount / 2) for o in one.options + two.options)
        accounts = (one, two, replace(one, options=halves))
        for k, rule in enumerate((only, replace(only, two_sided=True))):
            first, second, middle = (requirement(a, market, rule).initial for a in accounts)
            broken[k] += middle < (first + second) / 2 - 1e-9 * market.spot
    assert broken[0] > 0
    assert broken[1] == 0


def _three_options(rng: random.Random, market: Market) -> Account:
    strikes = [market.spot * x for x in (0.6, 1.0, 1.6)]
    options = tuple(
        Option(
            0,
            rng.choice(strikes),
            rng.random() < 0.5,
            rng.uniform(0.2, 1.5),
            rng.uniform(-10, 10),
        )
        for _ in range(3)
    )
    return Account(0.0, 0.0, 0.0, options, ())


def test_the_worst_scenario_is_named() -> None:
    market = Market(100.0, 1.0, 100.0, 1.0, 1.0, ())
    long, short = (
        requirement(Account(0.0, size, 0.0, (), ()), market, RULE) for size in (1.0, -1.0)
    )
    assert long.worst.startswith("spot -")
    assert short.worst.startswith("spot +")
    assert long.add_ons["perpetuals"] == (1.5, 0.5)


@given(st.lists(st.floats(-1e3, 1e3), min_size=16, max_size=16), st.floats(0.0, 10.0))
def test_a_spread_never_needs_more_than_its_legs(array: list[float], size: float) -> None:
    arrays = {"one": array, "two": list(reversed(array))}
    both = span.scan(arrays, {"one": size, "two": -size}).requirement
    legs = [span.scan(arrays, {name: s}).requirement for name, s in (("one", size), ("two", -size))]
    assert both <= sum(legs) + 1e-9


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_tiers_are_continuous_and_convex(one: float, two: float) -> None:
    steps = [tiers.Tier(0.0, 0.01), tiers.Tier(1e4, 0.02), tiers.Tier(1e5, 0.05)]
    middle = tiers.tiered(steps, (one + two) / 2)
    assert middle <= (tiers.tiered(steps, one) + tiers.tiered(steps, two)) / 2 + 1e-6
    for broken in ([], [tiers.Tier(1.0, 0.1)], [tiers.Tier(0.0, 0.1), tiers.Tier(0.0, 0.2)]):
        with pytest.raises(ValueError, match="begin at 0"):
            tiers.tiered(broken, one)


def test_the_examples_of_the_page_hold() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "margin.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "docs/margin.md", "exec"), {})


@given(st.integers(0, 10**9), st.booleans())
def test_slopes_bound_every_other_account(seed: int, initial: bool) -> None:
    rng = random.Random(seed)
    market = random_market(rng)
    strikes = [market.spot * factor for factor in (0.8, 1.0, 1.2)]
    one, other = (random_account(rng, market, strikes) for _ in range(2))
    rule = replace(bench.RULE, two_sided=True)
    options = (*one.options, *other.options)
    grid = Grid(market, options, one.collateral, rule)
    first, second = len(one.options), len(other.options)
    held = [
        Holdings(
            np.array([account.cash]), np.array([account.perps]), np.array([0.0]),
            np.array([[*before, *(o.amount for o in account.options), *after]]),
            np.array([[account.collateral[0].amount]]),
        )
        for account, before, after in (
            (one, (), [0.0] * second), (other, [0.0] * first, ())
        )
    ]  # fmt: skip
    slopes = grid.slopes(held[0], initial)

    def at(account: Holdings) -> float:
        return float(
            account.cash[0] * slopes.cash + account.perps[0] * slopes.perps
            + account.unsettled[0] * slopes.unsettled + account.options[0] @ slopes.options
            + account.collateral[0] @ slopes.collateral
        )  # fmt: skip

    def balance(account: Holdings) -> float:
        found = grid.balances(account)
        return float((found.initial if initial else found.maintenance)[0])

    size = market.spot * 100.0
    assert at(held[0]) == pytest.approx(balance(held[0]), abs=1e-9 * size)
    assert balance(held[1]) <= at(held[1]) + 1e-9 * size


@given(st.integers(0, 10**9))
def test_netting_saves_and_greeks_are_slopes(seed: int) -> None:
    rng = random.Random(seed)
    market = random_market(rng)
    account = random_account(rng, market, [market.spot * factor for factor in (0.8, 1.0, 1.2)])
    found = exposure(account, market, RULE)
    size = market.spot * 100.0
    assert found.used <= found.isolated + 1e-9 * size
    assert found.gross_notional >= abs(account.perps) * market.spot

    def value(spot: float = 1.0, vol: float = 0.0) -> float:
        moved = replace(
            market,
            perp=market.perp * spot,
            expiries=tuple(replace(one, forward=one.forward * spot) for one in market.expiries),
        )
        options = tuple(replace(one, vol=one.vol + vol) for one in account.options)
        coins = tuple(replace(one, price=one.price * spot) for one in account.collateral)
        part = replace(account, options=options, collateral=coins)
        return requirement(part, moved, RULE).value + account.perps * market.perp * spot

    step = 1e-5
    slope = (value(1.0 + step) - value(1.0 - step)) / (2.0 * step * market.spot)
    assert found.delta == pytest.approx(slope, rel=1e-3, abs=1e-3)
    bend = (value(1.0, step) - value(1.0, -step)) / (2.0 * step)
    assert found.vega == pytest.approx(bend, rel=1e-3, abs=1e-5 * size)

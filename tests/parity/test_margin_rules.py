"""Published margin rules of one position, scanning arrays, and estimators of variance."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from solver.core.margin import span, tiers, volatility
from tests.parity.cases import DATA, load, rows

FAMILY = "margin"
DYDX, DERIBIT, SPAN, OWN = (
    "dydx_v4_margin.json",
    "deribit_examples.json",
    "span_16.json",
    "own_reference.json",
)


def whole(name: str) -> Any:
    path = DATA / FAMILY / name
    if not path.is_file():
        pytest.skip(f"{FAMILY}/{name} is not in {DATA.name}")
    return load(path)


def tier_of(case: dict[str, Any]) -> tiers.OpenInterestTier:
    return tiers.OpenInterestTier(
        case["initial_margin_ppm"],
        case.get("maintenance_fraction_ppm", 0),
        case["oi_lower_cap"],
        case["oi_upper_cap"],
    )


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, DYDX, "initial_margin"))
def test_initial_margin_at_an_open_interest(data: Any, case: dict[str, Any]) -> None:
    notional, interest = case["notional_quote_quantums"], case["oi_notional"]
    initial, _ = tiers.open_interest_margin(tier_of(case), notional, interest)
    assert initial == case["expected_im"]


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, DYDX, "imf_ppm"))
def test_the_share_at_an_open_interest(data: Any, case: dict[str, Any]) -> None:
    tier = tiers.OpenInterestTier(case["base_ppm"], 0, case["lower"], case["upper"])
    assert tiers.open_interest_ppm(tier, case["oi"]) == case["expected_ppm"]


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, DYDX, "margin_requirements"))
def test_both_margins_of_a_position(data: Any, case: dict[str, Any]) -> None:
    places = case["exponent"] + case["atomic_resolution"] + 6
    unit = case["price"] * Fraction(10) ** places
    notional = int(abs(case["base_quantums"]) * unit)
    interest = int(case["open_interest_base_quantums"] * unit)
    found = tiers.open_interest_margin(tier_of(case), notional, interest)
    assert found == (int(case["expected_im"]), int(case["expected_mm"]))


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, DYDX, "oi_delta"))
def test_the_change_of_open_interest(data: Any, case: dict[str, Any]) -> None:
    assert tiers.open_interest_change(case["before"], case["delta"]) == case["expected"]


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, DYDX, "maintenance_ppm"))
def test_the_maintenance_share(data: Any, case: dict[str, Any]) -> None:
    tier = tiers.OpenInterestTier(case["im_ppm"], case["fraction_ppm"])
    _, maintenance = tiers.open_interest_margin(tier, 10**6, 0)
    assert maintenance in (case["expected"], case["expected"] + 1)  # shares round down, margins up


def test_the_price_of_a_liquidation() -> None:
    for case in whole(DYDX)["liquidation_fillable_price"]["cases"]:
        size, oracle = case["size_btc"], case["oracle"]
        maintenance = abs(size) * oracle * case["maintenance"]
        found = tiers.fillable_price(
            size,
            oracle,
            case["cash_usdc"] + size * oracle,
            maintenance,
            maintenance,
            case["bankruptcy_adjustment"],
            case["spread_to_mm_ratio"],
        )
        assert found == pytest.approx(case["expected_price"], rel=1e-9), case


def test_margin_that_grows_with_the_size() -> None:
    published = whole(DERIBIT)["linear_perp"]
    for case in published["examples"]:
        terms = published[case["instrument"]]
        slope = next(terms[name] for name in terms if name.startswith("slope"))
        for kind in ("im", "mm"):
            scale = tiers.SizeScale(terms[f"{kind}0"], slope)
            found = tiers.size_scaled(scale, case["size"], case["index"])
            assert found == pytest.approx(case[f"expected_{kind}"], rel=1e-12), case


def test_scanning_arrays_of_a_covered_write() -> None:
    data = whole(SPAN)
    arrays = {"future": data["long_future"], "call": data["long_call"]}
    expected = data["expected"]
    assert span.scan(arrays, {"future": 1}).requirement == expected["future_requirement"]
    assert span.scan(arrays, {"call": 1}).requirement == expected["long_call_requirement"]
    found = span.scan(arrays, {"future": 1, "call": -1})
    assert found.requirement == expected["covered_write_requirement"]
    assert found.losses == tuple(-gain for gain in data["published_covered_write"])
    assert found.worst + 1 == expected["covered_write_scenario"]
    held = {"future": 1.0, "call": -data["lp_derived"]["solution_n"]}
    assert span.scan(arrays, held).requirement == pytest.approx(expected["future_requirement"])
    array = span.future_array(10_000.0)
    assert array == pytest.approx(data["long_future"], abs=4.0)  # printed to tens


def test_variance_of_one_bar() -> None:
    said = whole(OWN)["garman_klass"]
    opened, high, low, close = (float(price) for price in said["ohlc"])
    found = {
        "variance": volatility.garman_klass(opened, high, low, close),
        "parkinson": volatility.parkinson(high, low),
        "rogers_satchell": volatility.rogers_satchell(opened, high, low, close),
    }
    for name, number in found.items():
        assert float(number) == pytest.approx(float(said[name]), rel=1e-13), name


def test_smoothed_and_forecast_variance() -> None:
    said = whole(OWN)
    smooth = said["ewma"]
    found = volatility.ewma(np.array(smooth["returns"]), smooth["lam"])
    assert found == pytest.approx([float(v) for v in smooth["variance_after_each"]], rel=1e-13)
    terms = said["garch11_forecast"]
    model = volatility.Garch(terms["omega"], terms["alpha"], terms["beta"])
    ahead = model.ahead(terms["h_next"], 10)
    assert model.long_run == pytest.approx(float(terms["long_run"]), rel=1e-12)
    assert float(ahead[-1]) == pytest.approx(float(terms["h_step_10"]), rel=1e-9)
    assert float(ahead.sum()) == pytest.approx(float(terms["sum_10"]), rel=1e-9)


def test_the_largest_position_under_tiers() -> None:
    said = whole(OWN)["lp_tier"]
    steps = [tiers.Tier(0.0, 0.1), tiers.Tier(500.0, 0.2)]
    assert tiers.tiered(steps, said["solution"]) == pytest.approx(100.0)

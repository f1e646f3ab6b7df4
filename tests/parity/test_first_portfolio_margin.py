"""Scenario margin as Derive's first portfolio margin had it."""

from __future__ import annotations

from typing import Any

import pytest

from solver.core.margin.rules import (
    Account,
    Collateral,
    Expiry,
    Market,
    Option,
    Parameters,
    Scenario,
    Tilt,
    VolMove,
)
from solver.core.margin.scenarios import requirement
from tests.parity.cases import rows

FAMILY, FILE = "margin", "derive_pmrm1_cases.json"
ONE = 10**18


def rule_of(written: dict[str, Any]) -> Parameters:
    basis, other = written["basis"], written["other"]
    margin, vol = written["margin"], written["vol"]
    return Parameters(
        scenarios=tuple(
            Scenario(1.0 + step / 20, move)
            for step in range(-3, 4)
            for move in (VolMove.UP, VolMove.SAME, VolMove.DOWN)
        ),
        tilt=Tilt(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        vol_up=vol["up"],
        vol_down=vol["down"],
        least_vol_up=0.0,
        short_power=vol["shortTermPower"],
        long_power=vol["longTermPower"],
        least_days=vol["dteFloorDays"],
        initial_factor=margin["imFactor"],
        maintenance_factor=1.0,
        long_discount=margin["baseStaticDiscount"],
        long_rate_factor=margin["rateMultScale"],
        long_rate_extra=margin["rateAddScale"],
        short_discount=1.0,
        short_rate_factor=0.0,
        short_rate_extra=0.0,
        basis_up=basis["up"],
        basis_down=basis["down"],
        basis_base=basis["add"],
        basis_per_year=basis["mult"],
        peg=other["pegLossThreshold"],
        peg_factor=other["pegLossFactor"],
        confidence=other["confThreshold"],
        confidence_factor=other["confMargin"],
        perp_maintenance=other["perpPercent"],
        perp_initial=0.0,
        option_maintenance=other["optionPercent"],
        option_initial=0.0,
        scales_add_ons=True,
    )


def read(given: dict[str, Any], base_share: float) -> tuple[Account, Market]:
    def plain(name: str) -> list[float]:
        return [number / ONE for number in given[name]]

    place = {seconds: number for number, seconds in enumerate(given["FeedExpiries"])}
    confidence = zip(plain("ForwardConfidences"), plain("RateConfidences"), strict=True)
    expiries = tuple(
        Expiry(seconds, fixed + moving, rate, min(sure), fixed, 0.0)
        for seconds, fixed, moving, rate, sure in zip(
            given["FeedExpiries"],
            plain("ForwardsFixed"),
            plain("ForwardsVariable"),
            plain("Rates"),
            confidence,
            strict=True,
        )
    )
    stable, spot = given["StablePrice"] / ONE, given["SpotPrice"] / ONE
    options = tuple(
        Option(place[expiry], strike, bool(call), vol, amount, sure)
        for expiry, strike, call, vol, amount, sure in zip(
            given["OptionExpiries"],
            plain("OptionStrikes"),
            given["OptionIsCall"],
            plain("OptionVols"),
            plain("OptionAmounts"),
            plain("OptionVolConfidences"),
            strict=True,
        )
    )
    # Its share of the base is of the value in the stable coin's unit.
    base = Collateral(given["Base"] / ONE, spot, 1.0, base_share * stable, 0.0, True)
    market = Market(
        spot,
        given["SpotConfidence"] / ONE,
        given["PerpPrice"] / ONE,
        given["PerpConfidence"] / ONE,
        stable,
        expiries,
    )
    unsettled = (given["UnrealisedPerpPNL"] + given["UnrealisedFunding"]) / ONE
    cash, perps = given["Cash"] / ONE, given["Perps"] / ONE
    return Account(cash, perps, unsettled, options, (base,)), market


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "cases"))
def test_the_published_portfolios(data: Any, case: dict[str, Any]) -> None:
    written = data["parameters"]
    account, market = read(case["Scenario"], written["other"]["basePercent"])
    report = requirement(account, market, rule_of(written))
    expected = case["Result"]
    for name, found in (
        ("InitialMarginCalc", report.initial),
        ("MaintenanceMarginCalc", report.maintenance),
    ):
        assert found == pytest.approx(expected[name] / ONE, rel=1e-6, abs=1e-6 * market.spot), name

"""Scenario margin against the worked portfolios of Derive's second portfolio margin."""

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

FAMILY, FILE = "margin", "derive_pmrm2_cases.json"
MOVES = {
    "Up": VolMove.UP,
    "Down": VolMove.DOWN,
    "None": VolMove.SAME,
    "LINEAR": VolMove.SKEW,
    "ABS": VolMove.SMILE,
}
AVERAGED_SECONDS = 1_800.0


def rule_of(written: dict[str, Any]) -> Parameters:
    skew, vol, margin = written["SkewShock"], written["VolShock"], written["Margin"]
    basis, other = written["BasisContingency"], written["OtherContingency"]
    scenarios = tuple(
        Scenario(s["SpotShock"], MOVES[str(s["VolShockDirection"])], s["DampeningFactor"])
        for s in written["Scenarios"]
    )
    return Parameters(
        scenarios=scenarios,
        tilt=Tilt(
            skew["LINEAR_SCALE_CAP"],
            skew["LINEAR_CBASE"],
            skew["ABS_SCALE_CAP"],
            skew["ABS_CBASE"],
            skew["MIN_K_STAR"],
            skew["MIN_WIDTH_SCALE"],
            skew["VOL_PARAM_STATIC"],
            skew["VOL_PARAM_SCALE"],
        ),
        vol_up=vol["VOLRANGEUP"],
        vol_down=vol["VOLRANGEDOWN"],
        least_vol_up=vol["MIN_VOL_EVAL_SHOCKED"],
        short_power=vol["SHORTTERMPOWER"],
        long_power=vol["LONGTERMPOWER"],
        least_days=vol["DTE_FLOOR"],
        initial_factor=margin["IM_LOSS_FACTOR"],
        maintenance_factor=margin["MM_LOSS_FACTOR"],
        long_discount=margin["BASE_STATIC_DISCOUNT"],
        long_rate_factor=margin["LONG_RATE_MULTSCALE"],
        long_rate_extra=margin["LONG_RATE_ADDSCALE"],
        short_discount=margin["BASE_STATIC_DISCOUNT_NEG"],
        short_rate_factor=margin["SHORT_RATE_MULTSCALE"],
        short_rate_extra=margin["SHORT_RATE_ADDSCALE"],
        basis_up=basis["SCENARIO_SPOT_UP"],
        basis_down=basis["SCENARIO_SPOT_DOWN"],
        basis_base=basis["BASIS_CONT_ADD_FACTOR"],
        basis_per_year=basis["BASIS_CONT_MULT_FACTOR"],
        peg=other["PEG_LOSS_THRESHOLD"],
        peg_factor=other["PEG_LOSS_FACTOR"],
        confidence=other["CONF_THRESHOLD"],
        confidence_factor=other["CONF_MARGIN"],
        perp_maintenance=other["MM_PERP_PERCENT"],
        perp_initial=other["IM_PERP_PERCENT"],
        option_maintenance=other["MM_OPTION_PERCENT"],
        option_initial=other["IM_OPTION_PERCENT"],
    )


def read(case: dict[str, Any]) -> tuple[Account, Market]:
    given = case["input"]
    feeds = given["OptionFeeds"]
    place = {feed["FeedExpiry"]: number for number, feed in enumerate(feeds)}
    expiries = tuple(
        Expiry(
            feed["FeedExpiry"],
            feed["Forward"],
            feed["Rate"],
            min(feed["ForwardConfidence"], feed["RateConfidence"]),
            feed["Forward"] * max(0.0, 1.0 - feed["FeedExpiry"] / AVERAGED_SECONDS),
        )
        for feed in feeds
    )
    market = Market(
        given["SpotPrice"],
        given["SpotConfidence"],
        given["PerpPrice"],
        given["PerpConfidence"],
        given["StablePrice"],
        expiries,
    )
    options = tuple(
        Option(
            place[option["Expiry"]],
            option["Strike"],
            bool(option["IsCall"]),
            option["MarkVol"],
            option["Amount"],
            feeds[place[option["Expiry"]]]["OptionVolConfidences"],
        )
        for option in given["Options"]
    )
    collateral = tuple(
        Collateral(
            one["Amount"],
            one["Price"],
            one["Confidence"],
            one["MMHaircut"],
            one["IMHaircut"],
            one["IsRiskCancelling"],
        )
        for one in given["Collaterals"]
    )
    unsettled = given["UnrealisedPerpPNL"] + given["UnrealisedFunding"]
    return Account(given["Cash"], given["NumPerps"], unsettled, options, collateral), market


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "cases"))
def test_the_published_portfolios(data: Any, case: dict[str, Any]) -> None:
    if not case["upstream_runs_it"]:
        pytest.skip("not run where it comes from: its skew rows are inconsistent")
    rule = rule_of(data["params"][case["params"]])
    account, market = read(case)
    expected, report = case["expected"], requirement(account, market, rule)
    size = sum(abs(option.amount) for option in account.options) * market.spot + abs(report.value)
    room = 1e-12 * (size + abs(account.cash))
    assert report.initial == pytest.approx(expected["IM"], rel=1e-8, abs=room)
    assert report.maintenance == pytest.approx(expected["MM"], rel=1e-8, abs=room)
    assert report.pnl == pytest.approx(expected["scenario_pnl"], rel=1e-8, abs=max(room, 1e-6))

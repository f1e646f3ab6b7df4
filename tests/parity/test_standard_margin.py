"""Standard margin against Derive's worked accounts."""

from __future__ import annotations

from typing import Any

import pytest

from solver.core.margin.standard import Expiry, Holding, Option, Rule, requirement
from tests.parity.cases import DATA, load, rows

FAMILY, FILE = "margin", "derive_srm_cases.json"
ONE = 10**18


def rule_of(written: dict[str, Any]) -> Rule:
    perp, option, base = written["perp"], written["option"], written["base"]
    return Rule(
        perp_maintenance=perp["mm"],
        perp_initial=perp["im"],
        spot_most=option["maxSpotReq"],
        spot_least=option["minSpotReq"],
        call_maintenance=option["mmCallSpotReq"],
        put_maintenance=option["mmPutSpotReq"],
        put_value_maintenance=option["MMPutMtMReq"],
        put_offset=option["mmOffsetScale"],
        unpaired_maintenance=option["unpairedMMScale"],
        unpaired_initial=option["unpairedIMScale"],
        confidence=written["oracle"]["threshold"],
        confidence_factor=written["oracle"]["OCFactor"],
        peg=written["depeg"]["threshold"],
        peg_factor=written["depeg"]["factor"],
        base_share=base["marginFactor"],
        base_initial_factor=base["IMScale"],
    )


def holding(given: dict[str, Any], name: str, place: int) -> Holding:
    mine = [k for k, under in enumerate(given["OptionUnderlying"]) if under == name]
    expiries = []
    for seconds in dict.fromkeys(given["OptionExpiries"][k] for k in mine):
        inside = [k for k in mine if given["OptionExpiries"][k] == seconds]
        options = tuple(
            Option(
                given["OptionStrikes"][k] / ONE,
                bool(given["OptionIsCall"][k]),
                given["OptionVols"][k] / ONE,
                given["OptionAmounts"][k] / ONE,
            )
            for k in inside
        )
        sure = min(
            given[field][k] / ONE
            for field in ("ForwardConfidences", "OptionVolConfidences")
            for k in inside
        )
        fixed = given[f"PercentFixed{name}"] > 0  # part of the settlement average is known
        forward = (given[f"SettlementPrice{name}"] if fixed else given["Forwards"][inside[0]]) / ONE
        expiries.append(Expiry(seconds, forward, sure, options))
    spot_confidence, perp_confidence = (c / ONE for c in given["SpotPerpConfidences"][place])
    entry = given[f"LastEntry{name}"]
    perp, size = given["PerpPrice"][place] / ONE, given[f"Perps_{name}"] / ONE
    earned = 0.0 if entry is None else size * (perp - entry / ONE)
    return Holding(
        given[f"{name}SpotPrice"] / ONE,
        spot_confidence,
        perp,
        perp_confidence,
        size,
        earned,
        given[f"w{name}"] / ONE,
        tuple(expiries),
    )


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "cases"))
def test_the_published_accounts(data: Any, case: dict[str, Any]) -> None:
    given, expected = case["Scenario"], case["Result"]
    holdings = [holding(given, name, place) for place, name in enumerate(("ETH", "BTC"))]
    cash, stable = given["Cash"] / ONE, given["USDCValue"] / ONE
    report = requirement(cash, stable, holdings, rule_of(data["parameters"]))
    assert report.initial == pytest.approx(expected["realIM"] / ONE, rel=1e-3, abs=1e-6)
    assert report.maintenance == pytest.approx(expected["realMM"] / ONE, rel=1e-3, abs=1e-6)


def test_mixing_two_accounts_may_need_more_than_both() -> None:
    """The counter-example that keeps this rule out of a linear program."""
    data, own = (DATA / FAMILY / name for name in (FILE, "own_reference.json"))
    if not data.is_file() or not own.is_file():
        pytest.skip(f"{FAMILY} is not in {DATA.name}")
    said, rule = load(own)["srm_nonconvex"], rule_of(load(data)["parameters"])
    given = load(data)["cases"]["Test10"]["Scenario"]
    (short,) = holding(given, "ETH", 0).expiries

    def balance(shorts: float, longs: float) -> float:
        sold = short.options[0]
        options = (
            Option(sold.strike, True, sold.vol, -shorts),
            Option(said.get("long_strike", 1_600.0), True, sold.vol, longs),
        )
        expiry = Expiry(short.seconds, short.forward, 1.0, options)
        held = Holding(1_500.0, 1.0, 1_505.0, 1.0, 0.0, 0.0, 0.0, (expiry,))
        return requirement(0.0, 1.0, [held], rule).initial

    alone, spread, middle = balance(1, 0), balance(1, 1), balance(1, 0.5)
    assert alone == pytest.approx(said["short_call"], rel=1e-3)
    assert spread == pytest.approx(said["spread"], rel=1e-3)
    assert middle < (alone + spread) / 2

"""Option values and Greeks against published numbers and a grid of 25 digits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from solver.core.margin import black76
from tests.parity.cases import rows

FAMILY, FILE = "margin", "black76_reference.json"


def value(case: dict[str, Any]) -> float:
    f, k, t, r, vol = (float(case[name]) for name in ("F", "K", "T", "r", "vol"))
    return float(black76.prices(f, k, t, vol, np.exp(-r * t), case["call"]))


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "published"))
def test_published_values(data: Any, case: dict[str, Any]) -> None:
    assert value(case) == pytest.approx(case["expected"], abs=case["tol"], rel=0.0)


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "own_grid"))
def test_the_grid(data: Any, case: dict[str, Any]) -> None:
    expected = float(Decimal(case["expected"]))
    assert value(case) == pytest.approx(expected, rel=1e-12, abs=1e-12 * float(case["F"]))


@pytest.mark.parametrize(("data", "case"), rows(FAMILY, FILE, "published_greeks_bsm"))
def test_published_greeks_of_a_stock(data: Any, case: dict[str, Any]) -> None:
    """On the forward of a stock: ∂V/∂S = ∂V/∂F·∂F/∂S and so on."""
    s, k, t = float(case["S"]), float(case["K"]), float(case["T"])
    carry = case["r"] - case["q"]
    grown = float(np.exp(carry * t))
    found = black76.greeks(s * grown, k, t, case["vol"], case["r"], case["type"] == "call")
    got = {
        "delta": found.delta * grown,
        "gamma": found.gamma * grown**2,
        "vega": found.vega,
        "theta_per_year": found.theta - found.delta * s * grown * carry,
        "rho": found.rho + found.delta * s * grown * t,
    }[case["kind"]]
    assert float(got) == pytest.approx(case["expected"], abs=5e-4)


def test_published_greeks_of_a_forward() -> None:
    params = rows(FAMILY, FILE, "published")
    data = params[0].values[0]
    if data is None:
        pytest.skip(f"{FAMILY}/{FILE} is not here")
    case = data["published_greeks_black76"]
    f, k, t, r, vol = (float(case[name]) for name in ("F", "K", "T", "r", "vol"))
    call, put = (black76.greeks(f, k, t, vol, r, side) for side in (True, False))
    got = {
        "delta_call": call.delta,
        "theta_call_per_day": call.theta / 365,
        "theta_put_per_day": put.theta / 365,
        "gamma": call.gamma,
        "vega_per_1pct": call.vega / 100,
        "rho_call_per_1pct": call.rho / 100,
        "rho_put_per_1pct": put.rho / 100,
    }
    for name, number in got.items():
        assert float(number) == pytest.approx(case[name], abs=case["tol"]), name

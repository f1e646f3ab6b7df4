"""The forecast of variance, its tests, and the range that follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import volatility as gates
from solver.core.margin import forecast
from solver.core.margin.forecast import ScanRange

SHARE = st.floats(1e-4, 0.5)


def test_a_regression_finds_the_weights_that_made_the_series() -> None:
    rng = np.random.default_rng(1)
    weights = np.array([-0.5, 0.3, 0.4, 0.2])
    logs = list(rng.normal(-5.0, 0.1, forecast.MONTH))
    for _ in range(20_000):
        means = [np.mean(logs[-days:]) for days in (1, forecast.WEEK, forecast.MONTH)]
        logs.append(float(weights @ [1.0, *means]) + rng.normal(0.0, 0.2))
    model = forecast.fit(np.exp(logs))
    assert model.weights == pytest.approx(weights, abs=0.08)
    assert model.left == pytest.approx(0.04, rel=0.05)


def test_a_month_is_too_short() -> None:
    with pytest.raises(ValueError, match="a regression needs 60"):
        forecast.fit(np.ones(59))


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=20), st.floats(0.1, 10.0))
def test_no_forecast_is_better_than_the_right_one(values: list[float], off: float) -> None:
    realised = np.array(values)
    assert forecast.qlike(realised, realised) == pytest.approx(0.0, abs=1e-12)
    assert np.all(forecast.qlike(realised, realised * off) >= -1e-12)


def test_forecasts_know_only_what_was_before_them() -> None:
    realised = np.exp(np.random.default_rng(2).normal(-7.0, 0.5, 200))
    changed = realised.copy()
    changed[150:] *= 50.0
    for one, other in zip(forecast.walk(realised, 100), forecast.walk(changed, 100), strict=True):
        assert np.array_equal(one[:51], other[:51])
        assert one[51] != other[51]


@pytest.mark.parametrize(
    ("hits", "total", "share", "likely"),
    [(5, 100, 0.05, 1.0), (10, 100, 0.05, 0.0426), (0, 250, 0.01, 0.0250), (7, 250, 0.01, 0.0187)],
)
def test_too_many_hits_are_unlikely(hits: int, total: int, share: float, likely: float) -> None:
    """By hand: −2·ln of the two binomial likelihoods, χ² with one degree of freedom."""
    found = np.zeros(total, bool)
    found[:hits] = True
    assert forecast.kupiec(found, share) == pytest.approx(likely, abs=5e-4)


def test_hits_that_come_together_are_not_independent() -> None:
    rng = np.random.default_rng(3)
    apart = rng.random(5_000) < 0.05
    together = np.repeat(rng.random(1_000) < 0.05, 5)
    assert forecast.christoffersen(apart) > 0.05
    assert forecast.christoffersen(together) < 1e-6


@given(st.floats(0.005, 0.5), st.floats(0.0, 1.0), st.floats(1e-4, 1.0))
def test_a_range_rises_at_once_and_falls_slowly(
    before: float, variance: float, days: float
) -> None:
    rule = ScanRange(2.8, 0.005, 0.5)
    after = rule.following(before, variance, days)
    wanted = 2.8 * float(np.sqrt(variance * days))
    assert rule.floor <= after <= rule.cap
    assert after >= min(wanted, rule.cap) and after >= 0.9 * before - 1e-15
    assert rule.following(before, variance * 2.0, days) >= after


def test_the_better_forecast_is_used_and_its_range_holds() -> None:
    returns = gates.path("garch", 11, days=1_100)
    verdict = gates.judged(np.sum(returns**2, axis=1))
    assert verdict["used"] == "har" and verdict["t"] < -3.0
    held = gates.held(returns, verdict["used"])
    assert held["kupiec"] > 0.01 and held["christoffersen"] > 0.01


def test_a_regression_on_daily_squares_does_not_pass() -> None:
    returns = gates.path("garch", 12, days=1_500).sum(axis=1)
    verdict = gates.judged(returns**2)
    assert verdict["used"] == "ewma" and verdict["t"] > 3.0


def test_a_file_of_closes_is_judged_and_a_bad_line_named(tmp_path: Path) -> None:
    file = tmp_path / "closes.csv"
    closes = 100.0 * np.exp(np.cumsum(gates.path("garch", 13, days=600)[:, :4].ravel()))
    lines = ["time,close", *(f"{k},{close:.6f}" for k, close in enumerate(closes))]
    file.write_text("\n".join(lines), encoding="utf-8")
    verdict = gates.judged(gates.of_closes(gates.named(file), 4))
    assert verdict["days"] == 99 and set(verdict["qlike"]) == {"har", "ewma"}
    file.write_text("time,close\n1,5.0\n2,none\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"closes\.csv:3: 'none' is no price"):
        gates.named(file)
    with pytest.raises(ValueError, match="530 are needed"):
        gates.of_closes(np.full(50, 5.0), 1)

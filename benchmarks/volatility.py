"""Does the forecast beat its baseline on days it has not seen, and does the scan range hold?

Log-HAR against exponential weights on realised variance, by QLIKE, with Diebold and Mariano's t;
then the range for an hour (batch, confirmation and liquidation), whose breaches are counted and
tested. Three kinds of seeded five-minute paths (GARCH, with jumps, with a change of regime), the
daily series that come with ``arch`` where that is installed, and a file of five-minute or daily
closes that the user names (one price per line, or the last column of a CSV). No claim beyond these.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import Report
from solver.core.margin import forecast
from solver.core.margin.black76 import Array
from solver.core.margin.volatility import ewma, garman_klass

_BARS = 288
_DAYS = 1_500
_WINDOW = 500
_HOUR_BARS = 12
_HALF_LIFE_BARS = 48
_SHARE = 0.995
_DAILY = ("sp500", "nasdaq", "wti", "vix")


def path(kind: str, seed: int, days: int = _DAYS) -> Array:
    """Five-minute log returns, [days, bars]: GARCH(1,1) from day to day, at 60 % a year."""
    rng = np.random.default_rng(seed)
    long_run = 0.6**2 / 365.0
    variance, found = long_run, np.zeros((days, _BARS))
    for day in range(days):
        level = variance * (4.0 if kind == "regime" and day > days * 2 // 3 else 1.0)
        found[day] = rng.normal(0.0, np.sqrt(level / _BARS), _BARS)
        if kind == "jumps" and rng.random() < 0.03:
            found[day, rng.integers(_BARS)] += rng.normal(0.0, 5.0 * np.sqrt(level))
        moved = float(np.sum(found[day])) ** 2 / (level / variance)
        variance = 0.05 * long_run + 0.08 * moved + 0.87 * variance
    return found


def judged(realised: Array) -> dict[str, Any]:
    """Both forecasts of the days after the window, and which one is to be used."""
    har, exponential = forecast.walk(realised, _WINDOW)
    seen = realised[_WINDOW:]
    losses = {"har": forecast.qlike(seen, har), "ewma": forecast.qlike(seen, exponential)}
    gap, t = forecast.difference(losses["har"], losses["ewma"])
    means = {name: float(np.mean(loss)) for name, loss in losses.items()}
    return {
        "days": len(seen),
        "qlike": {name: float(f"{mean:.5g}") for name, mean in means.items()},
        "difference": float(f"{gap:.4g}"),
        "t": round(t, 2),
        "used": "har" if means["har"] < means["ewma"] else "ewma",
    }


def held(returns: Array, used: str) -> dict[str, Any]:
    """The range for an hour over days that were not used for its quantile.

    It follows the larger of the day's forecast and of exponential weights with a half-life of four
    hours, which see a change of regime the same day.
    """
    realised = np.sum(returns**2, axis=1)
    har, exponential = forecast.walk(realised, _WINDOW)
    daily = np.repeat(har if used == "har" else exponential, _BARS // _HOUR_BARS)
    fast = ewma(returns.ravel(), 0.5 ** (1.0 / _HALF_LIFE_BARS))[_WINDOW * _BARS - 1 : -1]
    variance = np.maximum(daily, fast[::_HOUR_BARS] * _BARS)
    hours = returns[_WINDOW:].reshape(-1, _HOUR_BARS).sum(axis=1)
    days, half = _HOUR_BARS / _BARS, len(hours) // 2
    quantile = forecast.quantile_of(hours[:half], variance[:half] * days, _SHARE)
    rule = forecast.ScanRange(quantile, 0.005, 0.5, fall=1.0 - 0.9**days)
    ranges, last = np.zeros(len(hours) - half), rule.floor
    for k in range(len(ranges)):
        last = ranges[k] = rule.following(last, float(variance[half + k]), days)
    hits = np.abs(np.expm1(hours[half:])) > ranges
    return {
        "hours": len(hits),
        "breaches": int(np.count_nonzero(hits)),
        "expected": round((1.0 - _SHARE) * len(hits), 1),
        "kupiec": float(f"{forecast.kupiec(hits, 1.0 - _SHARE):.3g}"),
        "christoffersen": float(f"{forecast.christoffersen(hits):.3g}"),
        "meanRange": float(f"{np.mean(ranges):.4g}"),
        "quantile": round(quantile, 3),
    }


def daily_series() -> Iterator[tuple[str, Array]]:
    """Variances of the daily series that come with ``arch``; none where it is not installed.

    By Garman and Klass where a bar has its ends, else squared returns.
    """
    for name in _DAILY:
        try:
            frame = import_module(f"arch.data.{name}").load()
        except ModuleNotFoundError:
            continue
        if {"Open", "High", "Low", "Close"} <= set(frame):
            bars = (
                np.asarray(frame[side], dtype=float) for side in ("Open", "High", "Low", "Close")
            )
            yield f"{name}, bars", np.maximum(garman_klass(*bars), 0.0)
        closes = np.asarray(frame["Close" if "Close" in frame else frame.columns[-1]], dtype=float)
        yield f"{name}, closes", of_closes(closes, 1)


def named(file: Path) -> Array:
    """The closes of a file. Raises ValueError for a line that has no positive number."""
    closes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        text = line.rsplit(",", 1)[-1].strip()
        try:
            closes.append(float(text))
        except ValueError:
            if number:
                raise ValueError(f"{file}:{number + 1}: {text!r} is no price") from None
    prices = np.array(closes)
    if not len(prices) or not np.all(prices > 0.0):
        raise ValueError(f"{file}: a price is positive")
    return prices


def of_closes(closes: Array, bars: int) -> Array:
    """The variance of each day from closes of so many bars a day."""
    returns = np.diff(np.log(closes[np.isfinite(closes) & (closes > 0.0)]))
    days = len(returns) // bars
    if days < _WINDOW + forecast.MONTH:
        raise ValueError(f"{days} days, {_WINDOW + forecast.MONTH} are needed")
    grouped = returns[: days * bars].reshape(days, bars)
    return np.asarray(np.sum(grouped**2, axis=1))


def main(words: Sequence[str] | None = None) -> int:
    """Write reports/volatility.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one kind of path")
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("--file", type=Path, help="closes to judge as well")
    parser.add_argument("--bars", type=int, default=_BARS, help="bars a day of the file")
    options = parser.parse_args(words)
    report = Report(
        Path(f"reports/volatility{'-quick' if options.quick else ''}.json"), options.fresh
    )
    for kind in ("garch",) if options.quick else ("garch", "jumps", "regime"):
        if not report.has("simulated", kind):
            returns = path(kind, 701)
            verdict = judged(np.sum(returns**2, axis=1))
            report.put("simulated", kind, verdict | {"range": held(returns, verdict["used"])})
        print(kind, report.content["simulated"][kind], flush=True)
    for name, realised in () if options.quick else daily_series():
        report.put("daily", name, judged(realised))
        print(name, report.content["daily"][name], flush=True)
    if options.file is not None:
        report.put("named", options.file.name, judged(of_closes(named(options.file), options.bars)))
        print(options.file.name, report.content["named"][options.file.name], flush=True)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How far prices may move until a position can be closed: a forecast of variance, and a scan range.

The forecast is a regression on the logarithms of realised variance of the last day, week and month
(log-HAR); exponential weights are the baseline that it must beat on data it has not seen, by QLIKE.
The scan range is a quantile of past moves in units of what had been forecast for them, times the
forecast over batch, confirmation and liquidation together. It rises at once and falls slowly.

Sources: Corsi, "A simple approximate long-memory model of realized volatility" (2009); Patton,
"Volatility forecast comparison using imperfect volatility proxies" (2011); Kupiec (1995);
Christoffersen, "Evaluating interval forecasts" (1998).
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.special import chdtrc, xlogy

from solver.core.margin.black76 import Array

WEEK, MONTH = 7, 30  # days of a market that never closes
_LEAST = 1e-12  # a variance below it has no logarithm worth a regression
_DECAY = 0.94


class Har(Struct, frozen=True):
    """A fitted log-HAR: constant, day, week, month; and the variance of what it leaves."""

    weights: tuple[float, float, float, float]
    left: float

    def ahead(self, realised: Array) -> float:
        """The mean of the next day's variance after at least a month of realised ones."""
        mean = float(np.dot(self.weights, _regressors(realised)[-1]))
        return float(np.exp(mean + self.left / 2.0))


def fit(realised: Array) -> Har:
    """Least squares over days of realised variance. Raises ValueError for less than two months."""
    if len(realised) < 2 * MONTH:
        raise ValueError(f"{len(realised)} days, a regression needs {2 * MONTH}")
    known = _regressors(realised)[:-1]
    next_day = np.log(np.maximum(realised[MONTH:], _LEAST))
    weights, *_ = np.linalg.lstsq(known, next_day, rcond=None)
    left = next_day - known @ weights
    constant, day, week, month = (float(weight) for weight in weights)
    return Har((constant, day, week, month), float(left @ left / (len(left) - 4)))


def _regressors(realised: Array) -> Array:
    """1 and the mean logarithms of the last day, week and month, after each day from a month on."""
    logs = np.log(np.maximum(realised, _LEAST))
    sums = np.concatenate([[0.0], np.cumsum(logs)])
    end = np.arange(MONTH, len(logs) + 1)
    means = [(sums[end] - sums[end - days]) / days for days in (1, WEEK, MONTH)]
    return np.stack([np.ones(len(end)), *means], axis=1)


def walk(realised: Array, window: int, every: int = 20) -> tuple[Array, Array]:
    """Forecasts of each day from ``window`` on by what was known the day before: HAR and EWMA.

    The regression is fitted again every so many days over the last ``window``.
    """
    har, exponential = np.zeros((2, len(realised) - window))
    model = fit(realised[:window])
    level = float(np.mean(realised[: min(window, MONTH)]))
    for day in range(min(window, MONTH), window):
        level = _DECAY * level + (1.0 - _DECAY) * float(realised[day])
    for k in range(len(har)):
        day = window + k
        if k and k % every == 0:
            model = fit(realised[day - window : day])
        har[k] = model.ahead(realised[day - MONTH : day])
        exponential[k] = level
        level = _DECAY * level + (1.0 - _DECAY) * float(realised[day])
    return har, exponential


def qlike(realised: Array, forecast: Array) -> Array:
    """v/f − ln(v/f) − 1 per day: 0 where the forecast is right, and dearer below than above."""
    ratio = np.maximum(realised, _LEAST) / forecast
    found: Array = ratio - np.log(ratio) - 1.0
    return found


def difference(one: Array, other: Array, lags: int = 5) -> tuple[float, float]:
    """The mean of one − other and its t by Newey and West: Diebold and Mariano's test (1995)."""
    gap = one - other
    mean, apart = float(np.mean(gap)), gap - np.mean(gap)
    variance = float(apart @ apart) / len(gap)
    for lag in range(1, lags + 1):
        weight = 2.0 * (1.0 - lag / (lags + 1.0))
        variance += weight * float(apart[lag:] @ apart[:-lag]) / len(gap)
    return mean, mean / float(np.sqrt(max(variance, _LEAST**2) / len(gap)))


def kupiec(hits: NDArray[np.bool_], share: float) -> float:
    """How likely so many hits or stranger are if each comes with probability ``share`` (χ², 1)."""
    count, total = int(np.count_nonzero(hits)), len(hits)
    rate = count / total
    wanted = xlogy(count, share) + xlogy(total - count, 1.0 - share)
    had = xlogy(count, rate) + xlogy(total - count, 1.0 - rate)
    return float(chdtrc(1.0, max(0.0, 2.0 * (had - wanted))))


def christoffersen(hits: NDArray[np.bool_]) -> float:
    """How likely hits follow one another as they do if each is independent of the last (χ², 1)."""
    before, after = hits[:-1], hits[1:]
    cells = [[int(np.sum((before == a) & (after == b))) for b in (False, True)] for a in
             (False, True)]  # fmt: skip
    (calm, first), (last, again) = cells
    total = calm + first + last + again
    rate = (first + again) / max(total, 1)
    free = xlogy(calm + last, 1.0 - rate) + xlogy(first + again, rate)
    tied = 0.0
    for none, some in cells:
        own = some / max(none + some, 1)
        tied += xlogy(none, 1.0 - own) + xlogy(some, own)
    return float(chdtrc(1.0, max(0.0, 2.0 * (tied - free))))


class ScanRange(Struct, frozen=True):
    """How a range follows a forecast. ``quantile`` is of moves in units of what was forecast;
    ``floor`` and ``cap`` are shares of the price, ``fall`` is the most that a day takes off it.
    """

    quantile: float
    floor: float
    cap: float
    fall: float = 0.1

    def following(self, before: float, variance: float, days: float) -> float:
        """The range after one that held, for the forecast variance of a day and a time in days."""
        wanted = self.quantile * float(np.sqrt(max(0.0, variance) * days))
        return min(self.cap, max(self.floor, wanted, before * (1.0 - self.fall)))


def quantile_of(moves: Array, forecast: Array, share: float) -> float:
    """The quantile of |moves| in units of the volatility that had been forecast for each."""
    standard = np.abs(moves) / np.sqrt(np.maximum(forecast, _LEAST))
    return float(np.quantile(standard, share))

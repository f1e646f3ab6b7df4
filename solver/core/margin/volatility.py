"""Variance per period from prices: from ranges, from returns, and some steps ahead.

All functions return variances of log returns, not volatilities.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from solver.core.margin.black76 import Array, Values


def garman_klass(opened: Values, high: Values, low: Values, close: Values) -> Array:
    """From a bar without an overnight gap: ½·ln(H/L)² − (2·ln 2 − 1)·ln(C/O)² (1980)."""
    body, span = np.log(np.divide(close, opened)), np.log(np.divide(high, low))
    return np.asarray(0.5 * span**2 - (2.0 * np.log(2.0) - 1.0) * body**2)


def parkinson(high: Values, low: Values) -> Array:
    """From the range alone: ln(H/L)²/(4·ln 2) (1980)."""
    return np.asarray(np.log(np.divide(high, low)) ** 2 / (4.0 * np.log(2.0)))


def rogers_satchell(opened: Values, high: Values, low: Values, close: Values) -> Array:
    """From a bar, right with a drift: ln(H/C)·ln(H/O) + ln(L/C)·ln(L/O) (1991)."""
    up = np.log(np.divide(high, close)) * np.log(np.divide(high, opened))
    return np.asarray(up + np.log(np.divide(low, close)) * np.log(np.divide(low, opened)))


def ewma(returns: Array, decay: float) -> Array:
    """v_t = decay·v_{t−1} + (1 − decay)·r_t² after each return, from the first squared return."""
    found: Array = np.square(np.asarray(returns, dtype=float))
    for t in range(1, len(found)):
        found[t] = decay * found[t - 1] + (1.0 - decay) * found[t]
    return found


class Garch(Struct, frozen=True):
    """GARCH(1,1): h_{t+1} = ω + α·r_t² + β·h_t, stationary while α + β < 1."""

    omega: float
    alpha: float
    beta: float

    @property
    def long_run(self) -> float:
        """The variance to which forecasts return. Raises ZeroDivisionError where α + β is 1."""
        return self.omega / (1.0 - self.alpha - self.beta)

    def ahead(self, following: float, steps: int) -> Array:
        """The variances of the next steps, the first of which is known to be ``following``."""
        kept = (self.alpha + self.beta) ** np.arange(steps)
        return np.asarray(self.long_run + kept * (following - self.long_run))

"""European options on a forward: Black's formula, its Greeks and its inverse, on arrays.

    call = D·(F·N(d₁) − K·N(d₂)),   put = D·(K·N(−d₂) − F·N(−d₁)),
    d₁ = ln(F/K)/(σ√T) + σ√T/2,     d₂ = d₁ − σ√T,   D the discount factor

(F. Black, "The pricing of commodity contracts", 1976.) At zero time or volatility the value is what
exercise would give. The side out of the money is computed and parity gives the other, so that no
price leaves [D·intrinsic, D·F] or [D·intrinsic, D·K].
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.special import ndtr

Array: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Array | float
_ROOT_TWO_PI = np.sqrt(2.0 * np.pi)
_MOST_VOL = 20.0
_STEPS = 100
_NO_SPREAD = 1e-150  # of σ√T: less is none


class Greeks(Struct, frozen=True):
    """Derivatives of the value: by forward (once, twice), by volatility, per year that passes, by
    rate (of the discount alone, the forward fixed).
    """

    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array


def prices(
    forward: Values,
    strike: Values,
    years: Values,
    vol: Values,
    discount: Values,
    is_call: NDArray[np.bool_] | bool,
) -> Array:
    """Values per unit of the underlying, shapes broadcast.

    Raises ValueError for inputs that are not finite, a forward or strike that is not positive, and
    negative time, volatility or discount.
    """
    f, k, t, s, d, call = _checked(forward, strike, years, vol, discount, is_call)
    d1, d2, _ = _distances(f, k, t, s)
    sign = np.where(f >= k, -1.0, 1.0)  # +1: the call is the one out of the money
    outside = d * sign * (f * ndtr(sign * d1) - k * ndtr(sign * d2))
    outside = np.maximum(outside, 0.0)
    other = outside + d * np.abs(f - k)
    is_outside = call == (sign > 0.0)
    return np.asarray(np.where(is_outside, outside, other), dtype=float)


def greeks(
    forward: Values,
    strike: Values,
    years: Values,
    vol: Values,
    rate: Values,
    is_call: NDArray[np.bool_] | bool,
) -> Greeks:
    """The Greeks where the discount is exp(−rate·years); zero where nothing is left to happen.

    Raises ValueError as :func:`prices`.
    """
    rate = np.asarray(rate, dtype=float)
    years = np.asarray(years, dtype=float)
    discount = np.exp(-rate * years)
    f, k, t, s, d, call = _checked(forward, strike, years, vol, discount, is_call)
    d1, _, spread = _distances(f, k, t, s)
    alive = spread > _NO_SPREAD
    density = np.where(alive, np.exp(-0.5 * np.square(np.where(alive, d1, 0.0))), 0.0)
    density /= _ROOT_TWO_PI
    sign = np.where(call, 1.0, -1.0)
    delta = d * sign * ndtr(sign * d1)
    gamma = np.where(alive, d * density / np.where(alive, f * spread, 1.0), 0.0)
    vega = d * f * density * np.sqrt(t)
    value = prices(f, k, t, s, d, call)
    decay = np.where(alive, d * f * density * s / (2.0 * np.sqrt(np.where(alive, t, 1.0))), 0.0)
    return Greeks(delta, gamma, vega, rate * value - decay, -t * value)


def implied_vol(
    value: Values,
    forward: Values,
    strike: Values,
    years: Values,
    discount: Values,
    is_call: NDArray[np.bool_] | bool,
) -> Array:
    """The volatility that gives a value, by bisection to the last bit; nan where none up to 2,000 %
    does. Raises ValueError as :func:`prices`.
    """
    f, k, t, s, d, call = _checked(forward, strike, years, 0.0, discount, is_call)
    wanted, low = np.broadcast_arrays(np.asarray(value, dtype=float), s)
    low, high = np.zeros(wanted.shape), np.full(wanted.shape, _MOST_VOL)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        above = prices(f, k, t, middle, d, call) >= wanted
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    least, most = prices(f, k, t, 0.0, d, call), prices(f, k, t, _MOST_VOL, d, call)
    return np.where((wanted >= least) & (wanted <= most) & (t > 0.0), high, np.nan)


def _distances(f: Array, k: Array, t: Array, s: Array) -> tuple[Array, Array, Array]:
    """d₁, d₂ and σ√T; infinite with the sign of the moneyness where σ√T is nothing."""
    spread = s * np.sqrt(t)
    alive = spread > _NO_SPREAD
    moneyness = np.log(f / k)
    ended = np.where(moneyness > 0.0, np.inf, np.where(moneyness < 0.0, -np.inf, 0.0))
    first = np.where(alive, moneyness / np.where(alive, spread, 1.0) + 0.5 * spread, ended)
    return first, np.where(alive, first - spread, ended), spread


def _checked(
    forward: Values,
    strike: Values,
    years: Values,
    vol: Values,
    discount: Values,
    is_call: NDArray[np.bool_] | bool,
) -> tuple[Array, Array, Array, Array, Array, NDArray[np.bool_]]:
    numbers = [np.asarray(each, dtype=float) for each in (forward, strike, years, vol, discount)]
    if not all(np.all(np.isfinite(each)) for each in numbers):
        raise ValueError("an input of an option price is not a number")
    if np.any(numbers[0] <= 0.0) or np.any(numbers[1] <= 0.0):
        raise ValueError("a forward or a strike is not positive")
    if any(np.any(each < 0.0) for each in numbers[2:]):
        raise ValueError("time, volatility and discount are not negative")
    f, k, t, s, d, call = np.broadcast_arrays(*numbers, np.asarray(is_call, dtype=bool))
    return f, k, t, s, d, call

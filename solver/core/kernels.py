"""The closed forms of every curve, compiled: output f, slope f′, bend f″ and input x*(r).

A *level* is a concave curve f with f(0) = 0 on [0, capacity], given by a kind and six numbers:

    LINEAR    rate                      f = rate·x
    PRODUCT   a, b, γ                   f = b·γx/(a + γx)
    WEIGHTED  a, b, γ, w                f = b·(1 − (a/(a + γx))^w)
    STABLE    c, y₀, g, h, q, K         f = h·(y₀ − y(c + gx)), y² + (q + z)·y = K/z at z = c + gx
    LOG       a, b                      f = a·log(1 + bx); with b < 0 a cost, x below −1/b

PRODUCT also stands for one tick of concentrated liquidity on its virtual reserves. The stable form
is the invariant Ann·Σx + D = Ann·D + D^(n+1)/(n^n·Πx) solved for one coin: a quadratic, with
q = Σ others + D/Ann − D and K = D^(n+1)/(n^n·Ann·Π others).
Source of the product and weighted forms: Angeris et al., "Optimal Routing for CFMMs", §3.
"""

from __future__ import annotations

from math import expm1, inf, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from solver.core.jit import compiled

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
KindArray = NDArray[np.int8]

LINEAR, PRODUCT, WEIGHTED, STABLE, LOG = 0, 1, 2, 3, 4
WIDTH = 6
_NEWTON = 60
_TINY = 1e-300


@compiled
def stable_other(z: float, q: float, k: float) -> float:
    """y(z): the positive root of y² + (q + z)·y = K/z, without cancellation."""
    b = q + z
    root = sqrt(b * b + 4.0 * k / z)
    if b > 0.0:
        return 2.0 * k / (z * (b + root))
    return 0.5 * (root - b)


@compiled
def stable_lead(y: float, z: float, q: float, k: float) -> float:
    """y + q + z = K/(z·y) for y = y(z); each form where nothing cancels or overflows in it."""
    return y + (q + z) if q + z > 0.0 else k / (z * y)


@compiled
def stable_given(y0: float, z0: float, d: float, q: float, k: float) -> float:
    """y(z₀) − y(z₀ + d), from the difference of the two quadratics: exact for a dust d as well."""
    z = z0 + d
    y = stable_other(z, q, k)
    return d * (y0 + k / z0 / z) / (y0 + stable_lead(y, z, q, k))


@compiled
def stable_invariant(balances: Array, ann: float) -> float:
    """D of Ann·Σx + D = Ann·D + D^(n+1)/(n^n·Πx), by Newton from Σx."""
    n = len(balances)
    total = 0.0
    for balance in balances:
        total += balance
    d = total
    for _ in range(255):
        power = d
        for balance in balances:
            power *= d / (n * balance)
        following = (ann * total + n * power) * d / ((ann - 1.0) * d + (n + 1) * power)
        if abs(following - d) <= 1e-15 * d:
            return following
        d = following
    return d


@compiled
def stable_pair(balances: Array, ann: float, i: int, o: int) -> tuple[float, float]:
    """q and k of the curve between two coins; see :func:`stable_other`."""
    n = len(balances)
    d = stable_invariant(balances, ann)
    others, k = 0.0, d / ann
    for c in range(n):
        k *= d / n
        if c not in (i, o):
            others += balances[c]
            k /= balances[c]
    return others + d / ann - d, k


@compiled
def stable_numbers(
    balances: Array, ann: float, i: int, o: int, gamma_in: float, gamma_out: float
) -> tuple[float, float, float, float, float, float]:
    """The six numbers of a STABLE level from coin i to coin o; no balance may be 0."""
    q, k = stable_pair(balances, ann, i, o)
    return balances[i], stable_other(balances[i], q, k), gamma_in, gamma_out, q, k


@compiled
def level_output(kind: int, p: Array, x: float) -> float:
    """f(x)."""
    if kind == LINEAR:
        return p[0] * x
    if kind == PRODUCT:
        return p[1] * p[2] * x / (p[0] + p[2] * x)
    if kind == WEIGHTED:
        return -p[1] * expm1(-p[3] * log1p(p[2] * x / p[0]))
    if kind == LOG:
        return p[0] * log1p(p[1] * x)
    return p[3] * stable_given(p[1], p[0], p[2] * x, p[4], p[5])


@compiled
def level_slope(kind: int, p: Array, x: float) -> float:
    """f′(x)."""
    if kind == LINEAR:
        return p[0]
    if kind == PRODUCT:
        end = p[0] + p[2] * x
        return p[0] * p[1] * p[2] / (end * end)
    if kind == WEIGHTED:
        grown = p[2] * x / p[0]
        return p[1] * p[3] * p[2] / p[0] * np.exp(-(p[3] + 1.0) * log1p(grown))
    if kind == LOG:
        return p[0] * p[1] / (1.0 + p[1] * x)
    z = p[0] + p[2] * x
    y = stable_other(z, p[4], p[5])
    return p[2] * p[3] * (y + p[5] / (z * z)) / (y + stable_lead(y, z, p[4], p[5]))


@compiled
def level_bend(kind: int, p: Array, x: float) -> float:
    """f″(x) ≤ 0."""
    if kind == LINEAR:
        return 0.0
    if kind == PRODUCT:
        end = p[0] + p[2] * x
        return -2.0 * p[0] * p[1] * p[2] * p[2] / (end * end * end)
    if kind == WEIGHTED:
        grown = p[2] * x / p[0]
        share = p[2] / p[0]
        return -p[1] * p[3] * (p[3] + 1.0) * share * share * np.exp(-(p[3] + 2.0) * log1p(grown))
    if kind == LOG:
        share = p[1] / (1.0 + p[1] * x)
        return -p[0] * share * share
    z = p[0] + p[2] * x
    y = stable_other(z, p[4], p[5])
    width = y + stable_lead(y, z, p[4], p[5])
    first = -(y + p[5] / (z * z)) / width
    second = (2.0 * p[5] / (z * z * z) - 2.0 * first - 2.0 * first * first) / width
    return min(0.0, -p[3] * p[2] * p[2] * second)


@compiled
def level_jet(kind: int, p: Array, x: float) -> tuple[float, float, float]:
    """f(x), f′(x) and f″(x) at once, for the price of little more than one of them."""
    if kind == LINEAR:
        return p[0] * x, p[0], 0.0
    if kind == PRODUCT:
        end = 1.0 / (p[0] + p[2] * x)
        slope = p[0] * p[1] * p[2] * end * end
        return p[1] * p[2] * x * end, slope, -2.0 * p[2] * slope * end
    if kind == LOG:
        share = p[1] / (1.0 + p[1] * x)
        return p[0] * log1p(p[1] * x), p[0] * share, -p[0] * share * share
    if kind == WEIGHTED:
        share = p[2] / (p[0] + p[2] * x)
        loss = expm1(-p[3] * log1p(p[2] * x / p[0]))
        slope = p[1] * p[3] * share * (1.0 + loss)
        return -p[1] * loss, slope, -(p[3] + 1.0) * share * slope
    return level_output(kind, p, x), level_slope(kind, p, x), level_bend(kind, p, x)


@compiled
def level_input_at(kind: int, p: Array, capacity: float, r: float) -> float:
    """x*(r): the largest x ≤ capacity with f′(x) ≥ r; r > 0."""
    if kind == LINEAR:
        return capacity if p[0] >= r else 0.0
    if kind == PRODUCT:
        x = (sqrt(p[0] * p[1] * p[2] / r) - p[0]) / p[2]
        return min(max(x, 0.0), capacity)
    if kind == WEIGHTED:
        start = p[1] * p[3] * p[2] / p[0]
        if start <= r:
            return 0.0
        return min(p[0] / p[2] * expm1(log(start / r) / (p[3] + 1.0)), capacity)
    return _stable_input_at(p, capacity, r)


@compiled
def _stable_input_at(p: Array, capacity: float, r: float) -> float:
    if level_slope(STABLE, p, 0.0) <= r:
        return 0.0
    low, high = 0.0, max(p[0] / p[2], _TINY)
    for _ in range(200):
        if high >= capacity or level_slope(STABLE, p, high) <= r:
            break
        low, high = high, 4.0 * high
    high = min(high, capacity)
    if level_slope(STABLE, p, high) >= r:
        return high
    x = 0.5 * (low + high)
    for _ in range(_NEWTON):
        miss = level_slope(STABLE, p, x) - r
        if miss >= 0.0:
            low = x
        else:
            high = x
        bend = level_bend(STABLE, p, x)
        step = x - miss / bend if bend < 0.0 else 0.5 * (low + high)
        if not low < step < high:
            step = 0.5 * (low + high)
        if abs(step - x) <= 1e-14 * high:
            break
        x = step
    return x


@compiled
def outputs(kind: KindArray, par: Array, x: Array) -> Array:
    """f(x) per level."""
    out = np.empty(len(x))
    for k in range(len(x)):
        out[k] = level_output(kind[k], par[k], x[k])
    return out


@compiled
def slopes(kind: KindArray, par: Array, x: Array) -> Array:
    """f′(x) per level."""
    out = np.empty(len(x))
    for k in range(len(x)):
        out[k] = level_slope(kind[k], par[k], x[k])
    return out


@compiled
def inputs_at(kind: KindArray, par: Array, capacity: Array, r: Array) -> Array:
    """x*(r) per level."""
    out = np.empty(len(r))
    for k in range(len(r)):
        out[k] = level_input_at(kind[k], par[k], capacity[k], r[k])
    return out


@compiled
def gains(kind: KindArray, par: Array, capacity: Array, price_in: Array, price_out: Array) -> Array:
    """max over x of price_out·f(x) − price_in·x per level; ≥ 0."""
    out = np.zeros(len(price_in))
    for k in range(len(price_in)):
        if price_out[k] > 0.0:
            r = max(price_in[k] / price_out[k], 1e-100)
            x = level_input_at(kind[k], par[k], capacity[k], r)
            if x < inf:
                value = price_out[k] * level_output(kind[k], par[k], x) - price_in[k] * x
            elif kind[k] == LINEAR:
                value = inf
            else:  # price_in = 0: everything that the curve can ever give
                value = price_out[k] * supremum(kind[k], par[k])
            out[k] = max(value, 0.0)
    return out


@compiled
def supremum(kind: int, p: Array) -> float:
    """The limit of f without a capacity."""
    if kind == LINEAR:
        return inf
    if kind == STABLE:
        return p[3] * p[1]
    return p[1]

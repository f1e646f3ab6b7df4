"""Pools of three or more coins: one joint state behind all their pairs.

In the units of the pool's invariant let R_i be the balances, n_i the net amount that coin i gains
after the fee. A trade is possible when

    weighted   Σ w_i log(1 + n_i/R_i) ≥ 0
    stable     log(1 + Σn/E) + Σ log(1 + n_i/R_i) ≥ 0,   E = (Ann·ΣR + D − Ann·D)/Ann

the second being Ann·Σx + D − Ann·D ≥ K/Πx in logarithms. For prices ν and multipliers λ > 0 (of the
invariant) and μ > 0 (of a name for Σn) weak duality gives what any joint trade can gain at most:

    Σ_i max_n [what coin i costs or brings at ν + λ w_i log(1 + n/R_i) + μ n]
        + max_s [λ log(1 + s/E) − μ s]

Every maximum has a closed form. A sum over the pairs would count the same depth more than once.
"""

from __future__ import annotations

from math import inf, log

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, stable_other

_ROUNDS = 60


@compiled
def coin_gain(
    reserve: float, weight: float, into: float, out: float, price: float, lam: float, mu: float
) -> float:
    """max over n of one coin's term; ``into`` is units per numeraire paid in, ``out`` the reverse.

    Depositing x costs price·x and brings n = into·x; withdrawing v brings price·out·v at n = −v.
    """
    best = 0.0
    scaled = lam * weight
    cost = price / into - mu  # of one unit of n
    if cost <= 0.0:
        return inf
    n = scaled / cost - reserve
    if n > 0.0:
        best = scaled * log(scaled / (cost * reserve)) - cost * n
    worth = price * out - mu  # what one unit withdrawn brings beyond its part of Σn
    if worth > 0.0:
        v = reserve - scaled / worth
        if v > 0.0:
            best = max(best, worth * v + scaled * log(scaled / (worth * reserve)))
    return best


@compiled
def joint_gain(
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: float,
    nu: Array,
    lam: float,
    mu: float,
) -> float:
    """An upper bound on what any joint trade gains at prices ν; true for any λ, μ > 0.

    ``excess`` is E, or 0 for a weighted pool. Coins without a token (−1) do not trade.
    """
    total = 0.0
    if excess > 0.0:
        total += lam * log(lam / (mu * excess)) - lam + mu * excess
    else:
        mu = 0.0
    for c in range(len(token)):
        if token[c] >= 0:
            price = nu[token[c]]
            total += coin_gain(reserve[c], weight[c], into[c], out[c], price, lam, mu)
    return total


@compiled
def tightest(
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: float,
    nu: Array,
) -> float:
    """The least :func:`joint_gain` that a search over λ, and over μ/λ for a stable pool, finds."""
    low, high = inf, 0.0
    for c in range(len(token)):
        if token[c] >= 0 and nu[token[c]] > 0.0:
            price = nu[token[c]] / into[c]
            low = min(low, price)
            high = max(high, price)
    if high <= 0.0:
        return 0.0
    best = inf
    if excess <= 0.0:
        low, high = inf, 0.0
        for c in range(len(token)):
            if token[c] >= 0 and nu[token[c]] > 0.0:
                level = nu[token[c]] / into[c] * reserve[c] / weight[c]
                low = min(low, level)
                high = max(high, level)
        return _least_lambda(token, reserve, weight, into, out, 0.0, nu, low * 0.5, high * 2.0)
    # stable: prices per unit are nearly λ(1/R + 1/E), with a share of μ = λ/(E + s) in it
    a, b = 0.0, 0.0
    for c in range(len(token)):
        a = max(a, reserve[c])
    b = a
    for c in range(len(token)):
        b = min(b, reserve[c])
    start, end = 0.5 * low / (1.0 / b + 1.0 / excess), 2.0 * high / (1.0 / a + 1.0 / excess)
    left, right = start, max(end, start * 1.0001)
    golden = 0.6180339887498949
    x1, x2 = right - golden * (right - left), left + golden * (right - left)
    f1 = _least_mu(token, reserve, weight, into, out, excess, nu, x1, low)
    f2 = _least_mu(token, reserve, weight, into, out, excess, nu, x2, low)
    for _ in range(_ROUNDS):
        if f1 <= f2:
            right, x2, f2 = x2, x1, f1
            x1 = right - golden * (right - left)
            f1 = _least_mu(token, reserve, weight, into, out, excess, nu, x1, low)
        else:
            left, x1, f1 = x1, x2, f2
            x2 = left + golden * (right - left)
            f2 = _least_mu(token, reserve, weight, into, out, excess, nu, x2, low)
        if right - left < 1e-13 * right:
            break
    best = min(f1, f2)
    return best


@compiled
def _least_lambda(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, left: float, right: float,
) -> float:  # fmt: skip
    golden = 0.6180339887498949
    x1, x2 = right - golden * (right - left), left + golden * (right - left)
    f1 = joint_gain(token, reserve, weight, into, out, excess, nu, x1, 0.0)
    f2 = joint_gain(token, reserve, weight, into, out, excess, nu, x2, 0.0)
    for _ in range(_ROUNDS):
        if f1 <= f2:
            right, x2, f2 = x2, x1, f1
            x1 = right - golden * (right - left)
            f1 = joint_gain(token, reserve, weight, into, out, excess, nu, x1, 0.0)
        else:
            left, x1, f1 = x1, x2, f2
            x2 = left + golden * (right - left)
            f2 = joint_gain(token, reserve, weight, into, out, excess, nu, x2, 0.0)
    return min(f1, f2)


@compiled
def _least_mu(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, lam: float, most: float,
) -> float:  # fmt: skip
    golden = 0.6180339887498949
    left, right = 0.2 * lam / excess, min(5.0 * lam / excess, most)
    x1, x2 = right - golden * (right - left), left + golden * (right - left)
    f1 = joint_gain(token, reserve, weight, into, out, excess, nu, lam, x1)
    f2 = joint_gain(token, reserve, weight, into, out, excess, nu, lam, x2)
    for _ in range(_ROUNDS):
        if f1 <= f2:
            right, x2, f2 = x2, x1, f1
            x1 = right - golden * (right - left)
            f1 = joint_gain(token, reserve, weight, into, out, excess, nu, lam, x1)
        else:
            left, x1, f1 = x1, x2, f2
            x2 = left + golden * (right - left)
            f2 = joint_gain(token, reserve, weight, into, out, excess, nu, lam, x2)
        if right - left < 1e-13 * right:
            break
    return min(f1, f2)


@compiled
def stable_d(balance: Array, ann: float) -> float:
    """D of the stable invariant, by Newton from the sum of the balances."""
    n = len(balance)
    total = 0.0
    for c in range(n):
        total += balance[c]
    d = total
    for _ in range(255):
        power = d
        for c in range(n):
            power *= d / (n * balance[c])
        following = (ann * total + n * power) * d / ((ann - 1.0) * d + (n + 1) * power)
        if abs(following - d) <= 4e-16 * d:
            return following
        d = following
    return d


@compiled
def pair_output(state: Array, weight: Array, ann: float, i: int, j: int, n: float) -> float:
    """What coin j gives, in its units, for n units of coin i after the fee, at balances ``state``."""
    if ann <= 0.0:
        return -state[j] * np.expm1(-weight[i] / weight[j] * np.log1p(n / state[i]))
    count = len(state)
    d = stable_d(state, ann)
    others, constant = 0.0, d / ann
    for c in range(count):
        constant *= d / count
        if c not in (i, j):
            others += state[c]
            constant /= state[c]
    q = others + d / ann - d
    return max(0.0, stable_other(state[i], q, constant) - stable_other(state[i] + n, q, constant))

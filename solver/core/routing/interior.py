"""A primal-dual interior point for one order on a small candidate graph.

    maximise    what arrives at B
    subject to  1·[t = A] + Σ_in f(x) − Σ_out x ≥ 0 at every token t ≠ B,   0 ≤ x ≤ c

with one variable per level, flows in units of the order. A level takes ``drain``·x at its tail,
gives f(x) at its head and κ·x at a third node: drain is 1 and κ is 0 for a plain arc, and pools of
three or more coins are stars of such levels around nodes of their own. Mehrotra's
predictor–corrector on the perturbed optimality conditions; per level the bound multipliers are
eliminated, so each iteration solves one positive definite system in the token prices ν:

    Σ u·uᵀ/H dν + diag(s/ν) dν = τ/ν − C − Σ u·R/H,   u = f′ at j, −drain at i, κ at k,
    R = uᵀν + τ/x − τ/(c − x),                        H = −ν_j f″ + z/x + w/(c − x).

Source: Wright, "Primal-Dual Interior-Point Methods", ch. 10, for the predictor–corrector.
"""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import (
    Array,
    IntArray,
    KindArray,
    level_jet,
)

_TO_BOUNDARY = 0.995
_MOST_ITERATIONS = 60


@compiled
def _factor(matrix: Array, n: int, rows: IntArray, starts: IntArray, known: bool) -> bool:
    """Cholesky in place, from the last node to the first; False if not definite.

    Nodes are eliminated downwards, so that those added last, which have few neighbours, cause
    little fill. ``rows[starts[j]:starts[n + j]]`` are the neighbours of node j below it; they are
    the same in every iteration and are found in the first, unless ``known``.
    """
    place = 0
    for j in range(n - 1, -1, -1):
        pivot = matrix[j, j]
        if not pivot > 0.0:
            return False
        pivot = np.sqrt(pivot)
        matrix[j, j] = pivot
        inverse = 1.0 / pivot
        if not known:
            starts[j] = place
            for i in range(j):
                if matrix[j, i] != 0.0:
                    rows[place] = i
                    place += 1
            starts[n + j] = place
        first, after = starts[j], starts[n + j]
        for b in range(first, after):
            matrix[j, rows[b]] *= inverse
        for b in range(first, after):
            i = rows[b]
            scale = matrix[j, i]
            for c in range(first, b + 1):
                matrix[i, rows[c]] -= scale * matrix[j, rows[c]]
    return True


@compiled
def _clear(matrix: Array, n: int, rows: IntArray, starts: IntArray) -> None:
    """Zero what a factor has written."""
    for j in range(n):
        matrix[j, j] = 0.0
        for b in range(starts[j], starts[n + j]):
            matrix[j, rows[b]] = 0.0


@compiled
def _substitute(matrix: Array, n: int, rows: IntArray, starts: IntArray, rhs: Array) -> None:
    for j in range(n - 1, -1, -1):
        value = rhs[j] / matrix[j, j]
        rhs[j] = value
        for b in range(starts[j], starts[n + j]):
            rhs[rows[b]] -= matrix[j, rows[b]] * value
    for j in range(n):
        total = rhs[j]
        for b in range(starts[j], starts[n + j]):
            total -= matrix[j, rows[b]] * rhs[rows[b]]
        rhs[j] = total / matrix[j, j]


@compiled
def foresee(
    capacity: Array, target: int, x: Array, z: Array, w: Array, nu: Array, s: Array, dx: Array,
    dz: Array, dw: Array, dnu: Array, ds: Array, step_primal: float, step_dual: float,
    extra_low: Array, extra_high: Array, extra_slack: Array,
) -> float:  # fmt: skip
    """Total complementarity after the predictor; its second-order terms."""
    ahead = 0.0
    for a in range(len(x)):
        ahead += (x[a] + step_primal * dx[a]) * (z[a] + step_dual * dz[a])
        extra_low[a] = -dx[a] * dz[a]
        if capacity[a] < inf:
            room = capacity[a] - x[a]
            ahead += (room - step_primal * dx[a]) * (w[a] + step_dual * dw[a])
            extra_high[a] = dx[a] * dw[a]
    for t in range(len(nu)):
        if t != target:
            ahead += (nu[t] + step_dual * dnu[t]) * (s[t] + step_primal * ds[t])
            extra_slack[t] = -dnu[t] * ds[t]
    return ahead


@compiled
def interior_point(
    tail: IntArray,
    head: IntArray,
    third: IntArray,
    drain: Array,
    kappa: Array,
    kind: KindArray,
    par: Array,
    capacity: Array,
    source: int,
    target: int,
    x: Array,
    nu: Array,
    start_mu: float,
    tolerance: float,
) -> tuple[bool, int]:
    """Solve in place: ``x`` (flows) and ``nu`` (prices, ν at the target is 1).

    The start must be positive; it need not be feasible. True when total complementarity is within
    0.15 of the tolerance, the primal residual within a tenth of that and the dual residual within
    2e-6 on every level; the second value is the number of iterations.
    """
    m, n = len(x), len(nu)
    f, slope, bend = np.empty(m), np.empty(m), np.empty(m)
    z, w = np.empty(m), np.zeros(m)
    dx, dz, dw = np.empty(m), np.empty(m), np.zeros(m)
    rise, extra_low, extra_high = np.empty(m), np.zeros(m), np.zeros(m)
    s, ds, dnu = np.empty(n), np.zeros(n), np.zeros(n)
    balance, extra_slack, rhs = np.empty(n), np.zeros(n), np.empty(n)
    matrix = np.zeros((n, n))
    rows, starts = np.empty(n * n // 2 + n, np.int64), np.empty(2 * n, np.int64)
    for a in range(m):
        z[a] = start_mu / x[a]
        if capacity[a] < inf:
            w[a] = start_mu / (capacity[a] - x[a])
    nu[target] = 1.0
    for t in range(n):
        s[t] = start_mu / nu[t]
    for iteration in range(_MOST_ITERATIONS):
        balance[:] = 0.0
        balance[source] += 1.0
        dual_miss = 0.0
        total = 0.0
        pairs = 0
        for a in range(m):
            f[a], slope[a], bend[a] = level_jet(kind[a], par[a], x[a])
            balance[head[a]] += f[a]
            balance[tail[a]] -= drain[a] * x[a]
            balance[third[a]] += kappa[a] * x[a]
            worth = nu[head[a]] * slope[a] - drain[a] * nu[tail[a]] + kappa[a] * nu[third[a]]
            miss = worth + z[a] - w[a]
            dual_miss = max(dual_miss, abs(miss))
            total += x[a] * z[a]
            pairs += 1
            if capacity[a] < inf:
                total += (capacity[a] - x[a]) * w[a]
                pairs += 1
        primal_miss = 0.0
        for t in range(n):
            if t != target:
                total += nu[t] * s[t]
                pairs += 1
                primal_miss = max(primal_miss, abs(balance[t] - s[t]))
        if not isfinite(total):
            return False, iteration
        if total <= 0.15 * tolerance and primal_miss <= 0.015 * tolerance and dual_miss <= 2e-6:
            return True, iteration
        mu = total / pairs
        # the matrix depends on the iterate only, so predictor and corrector share its factor
        if iteration > 0:
            _clear(matrix, n, rows, starts)
        for a in range(m):
            bowed = -nu[head[a]] * bend[a] + z[a] / x[a]
            if capacity[a] < inf:
                bowed += w[a] / (capacity[a] - x[a])
            rise[a] = bowed
            i, j = tail[a], head[a]
            weight = 1.0 / bowed
            down, up = drain[a], slope[a]
            matrix[i, i] += down * down * weight
            matrix[j, j] += up * up * weight
            matrix[max(i, j), min(i, j)] -= down * up * weight
            if kappa[a] != 0.0:
                k, aside = third[a], kappa[a]
                matrix[k, k] += aside * aside * weight
                matrix[max(i, k), min(i, k)] -= down * aside * weight
                matrix[max(j, k), min(j, k)] += up * aside * weight
        for t in range(n):
            matrix[t, t] += s[t] / nu[t]
        # ν at the target is fixed: its row and column go
        for t in range(n):
            matrix[max(t, target), min(t, target)] = 0.0
        matrix[target, target] = 1.0
        if not _factor(matrix, n, rows, starts, iteration > 0):
            return False, iteration
        tau = 0.0
        extra_low[:] = 0.0
        extra_high[:] = 0.0
        extra_slack[:] = 0.0
        step_primal, step_dual = 1.0, 1.0
        for corrector in range(2):
            for t in range(n):
                rhs[t] = (tau + extra_slack[t]) / nu[t] - balance[t]
            for a in range(m):
                r = nu[head[a]] * slope[a] - drain[a] * nu[tail[a]] + kappa[a] * nu[third[a]]
                r += (tau + extra_low[a]) / x[a]
                if capacity[a] < inf:
                    r -= (tau + extra_high[a]) / (capacity[a] - x[a])
                dx[a] = r
                rhs[head[a]] -= slope[a] * r / rise[a]
                rhs[tail[a]] += drain[a] * r / rise[a]
                rhs[third[a]] -= kappa[a] * r / rise[a]
            rhs[target] = 0.0
            _substitute(matrix, n, rows, starts, rhs)
            step_primal, step_dual = 1.0, 1.0
            for t in range(n):
                if t == target:
                    dnu[t] = 0.0
                    ds[t] = 0.0
                    continue
                dnu[t] = rhs[t]
                ds[t] = (tau + extra_slack[t] - s[t] * dnu[t]) / nu[t] - s[t]
                if dnu[t] < 0.0:
                    step_dual = min(step_dual, -_TO_BOUNDARY * nu[t] / dnu[t])
                if ds[t] < 0.0:
                    step_primal = min(step_primal, -_TO_BOUNDARY * s[t] / ds[t])
            for a in range(m):
                moved = slope[a] * dnu[head[a]] - drain[a] * dnu[tail[a]]
                dx[a] = (dx[a] + moved + kappa[a] * dnu[third[a]]) / rise[a]
                dz[a] = (tau + extra_low[a] - z[a] * dx[a]) / x[a] - z[a]
                if dx[a] < 0.0:
                    step_primal = min(step_primal, -_TO_BOUNDARY * x[a] / dx[a])
                if dz[a] < 0.0:
                    step_dual = min(step_dual, -_TO_BOUNDARY * z[a] / dz[a])
                if capacity[a] < inf:
                    room = capacity[a] - x[a]
                    dw[a] = (tau + extra_high[a] + w[a] * dx[a]) / room - w[a]
                    if dx[a] > 0.0:
                        step_primal = min(step_primal, _TO_BOUNDARY * room / dx[a])
                    if dw[a] < 0.0:
                        step_dual = min(step_dual, -_TO_BOUNDARY * w[a] / dw[a])
            if corrector == 0:
                ahead = foresee(
                    capacity, target, x, z, w, nu, s, dx, dz, dw, dnu, ds, step_primal, step_dual,
                    extra_low, extra_high, extra_slack,
                )  # fmt: skip
                ratio = ahead / pairs / mu
                tau = mu * min(1.0, ratio * ratio * ratio)
        for a in range(m):
            x[a] += step_primal * dx[a]
            z[a] += step_dual * dz[a]
            w[a] += step_dual * dw[a]
        for t in range(n):
            s[t] += step_primal * ds[t]
            nu[t] += step_dual * dnu[t]
    return False, _MOST_ITERATIONS

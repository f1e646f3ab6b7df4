"""The proof of an answer: an upper bound from prices, computed without the optimiser.

For any ν ≥ 0 with ν_t ≥ p_t on the tokens that exact-in orders buy, and any λ ≥ 0, no plan of the
batch has more surplus than

    g(ν, λ) = Σ_arcs max_x [ν_out f(x) − ν_in x]
            + Σ_exact-in  Δ_i · max(0, ν_s − ℓ_i ν_t − λ·c_i/Δ_i)
            + Σ_exact-out Y_i · max(0, max(ν_s, p_s)/ℓ_i − ν_t − λ·c_i/Y_i)
            + Σ_rows λ·rhs
            − Σ_exact-in pairs (ν_t − p_t)·F_d/p_t − Σ_exact-out max(0, ν_s − p_s)·F_i/p_s,

by weak duality, where F is the surplus that every plan owes to a pair; lots, gas and uniform rates
only lower what can be had. In the case that an order is filled whole, its term counts as it is,
below zero too; in the case that it is out, not at all. A list of cases that leaves none out proves
the largest of their bounds.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from solver.core import curves
from solver.core.curves import Array
from solver.core.problem import Problem

#: Relative allowance for rounding in the sum of non-negative float terms (2⁻⁵³ per operation).
_OUTWARD = 1e-12


def bound(
    problem: Problem,
    nu: Array,
    multipliers: Array,
    whole: Collection[int] = (),
    out: Collection[int] = (),
) -> float:
    """g(ν, λ) rounded outward, in normalised units. ν is lifted to p where the proof needs it."""
    lifted = lift(problem, nu, out)
    penalty = np.zeros(len(problem.orders))
    total = 0.0
    for row, weight in zip(problem.rows, multipliers, strict=True):
        total += weight * row.rhs
        for position, coefficient in row.coefficients.items():
            penalty[position] += weight * coefficient
    total += float(np.sum(curves.arbitrage(problem.arcs, lifted)))
    for i, (order, charge) in enumerate(zip(problem.orders, penalty, strict=True)):
        if i in out:
            continue
        price_in, price_out = lifted[order.sell], lifted[order.buy]
        if order.exact_out:
            own = problem.prices[order.sell]
            gain = order.size * (max(price_in, own) / order.limit - price_out)
        else:
            gain = order.size * (price_in - order.limit * price_out)
        total += gain - charge if i in whole else max(0.0, gain - charge)
    for floor in problem.floors:
        first = problem.orders[floor.members[0]]
        node = first.sell if first.exact_out else first.buy
        price = problem.prices[node]
        total -= max(0.0, lifted[node] - price) * floor.amount / price
    return total + (abs(total) + 1.0) * _OUTWARD


def lift(problem: Problem, nu: Array, out: Collection[int] = ()) -> Array:
    """ν with ν_t ≥ p_t on every token that an exact-in order buys, those left out aside."""
    lifted = np.array(nu, dtype=float)
    for i, order in enumerate(problem.orders):
        if not order.exact_out and i not in out:
            lifted[order.buy] = max(lifted[order.buy], problem.prices[order.buy])
    return lifted

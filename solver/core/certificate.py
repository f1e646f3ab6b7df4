"""The proof of an answer: an upper bound from prices, computed without the optimiser.

For any ν ≥ 0 and any λ ≥ 0, no plan of the batch has more surplus than

    g(ν, λ) = Σ_arcs max_x [ν_out f(x) − ν_in x]
            + Σ_exact-in  Δ_i · max(0, ν_s − ℓ_i (p_t + α_t) + κ_t r_i − λ·c_i/Δ_i)
            + Σ_exact-out Y_i · max(0, (p_s + α_s)/ℓ_i − κ_s/r_i − ν_t − λ·c_i/Y_i)
            + Σ_rows λ·rhs − Σ_pairs α_t·F_d/p_t − Σ_exact-out α_s·F_i/p_s,
    α = max(0, ν − p), κ = max(0, p − ν),

by weak duality: ℓ are limits, r the caps on rates, F the surplus owed to a pair. Lots, gas and
uniform rates only lower what can be had. In the case that an order is filled whole, its term counts
as it is, below zero too; in the case that it is out, not at all. A case in which a pair cannot have
its floor has no plan in it, so that its bound is 0. A list of cases that leaves none
out proves the largest of their bounds.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from solver.core import curves
from solver.core.curves import Array
from solver.core.problem import Problem
from solver.core.routing.joint import tightest

#: Relative allowance for rounding in the sum of non-negative float terms (2⁻⁵³ per operation).
_OUTWARD = 1e-12
#: What a floor must exceed by far more than rounding to be out of reach.
_APART = 1e-9


def bound(
    problem: Problem,
    nu: Array,
    multipliers: Array,
    whole: Collection[int] = (),
    out: Collection[int] = (),
) -> float:
    """g(ν, λ) rounded outward, in normalised units."""
    penalty = np.zeros(len(problem.orders))
    total = 0.0
    for row, weight in zip(problem.rows, multipliers, strict=True):
        total += weight * row.rhs
        for position, coefficient in row.coefficients.items():
            penalty[position] += weight * coefficient
    total += _arbitrage(problem, nu)
    for i, (order, charge) in enumerate(zip(problem.orders, penalty, strict=True)):
        if i in out:
            continue
        price_in, price_out = nu[order.sell], nu[order.buy]
        own = problem.prices[order.sell if order.exact_out else order.buy]
        paid = price_in if order.exact_out else price_out
        better, worse = max(own, paid), max(0.0, own - paid)
        if order.exact_out:
            gain = order.size * (better / order.limit - worse / problem.cap(i) - price_out)
        else:
            gain = order.size * (price_in - order.limit * better + worse * problem.cap(i))
        total += gain - charge if i in whole else max(0.0, gain - charge)
    for floor in problem.floors:
        first = problem.orders[floor.members[0]]
        node = first.sell if first.exact_out else first.buy
        price = problem.prices[node]
        total -= max(0.0, nu[node] - price) * floor.amount / price
    return total + (abs(total) + 1.0) * _OUTWARD


def is_empty(problem: Problem, out: Collection[int]) -> bool:
    """Whether some pair cannot have its floor without the orders that are out.

    The others of the pair, all filled at their caps, have no more than Σ Δ_i (r_i − ℓ_i) p_t; an
    exact-out order that is out has nothing. Then no plan is in the case, and 0 bounds it.
    """
    for floor in problem.floors:
        if problem.orders[floor.members[0]].exact_out:
            most = 0.0 if floor.members[0] in out else np.inf
        else:
            most = sum(
                problem.orders[i].size
                * max(0.0, problem.cap(i) - problem.orders[i].limit)
                * float(problem.prices[problem.orders[i].buy])
                for i in floor.members
                if i not in out
            )
        if floor.amount > most * (1.0 + _APART) + _APART:
            return True
    return False


def _arbitrage(problem: Problem, nu: Array) -> float:
    """Σ over arcs of what each can gain, with a pool of several coins counted once, by what any
    joint trade can gain: pairs share its depth, and one trade may improve another pair's rate.
    """
    gains = curves.arbitrage(problem.arcs, nu)
    total = float(np.sum(gains))
    for pool in problem.joints:
        apart = float(np.sum(gains[pool.pairs]))
        if apart > 0.0:
            together = tightest(
                pool.token, pool.reserve, pool.weight, pool.into, pool.out, pool.excess, nu
            )
            total += max(together, 0.0) - apart
    return total

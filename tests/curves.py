"""The declared arcs in plain floating point, written apart from the kernels they check."""

from __future__ import annotations

from math import expm1, log1p
from typing import assert_never

from solver.core.venue import Arc, ConstantProductArc, LevelsArc, StableArc, TicksArc, WeightedArc


def weighted_out_real(arc: WeightedArc, amount: float) -> float:
    """R_o·(1 − (R_i/(R_i + γx))^w)."""
    net = (1 - arc.fee) * amount
    power = -arc.weight_in / arc.weight_out * log1p(net / arc.reserve_in)
    return -arc.reserve_out * expm1(power)


def stable_out_real(arc: StableArc, amount: float) -> float:
    """By bisection on the invariant, in a precision that the differences survive."""
    # integers of 1e-12 of a unit: floats lose the small differences of large balances
    unit = 10**12
    balances = [int(balance * unit) for balance in arc.balances]
    d = _invariant(balances, arc.ann)
    balances[arc.index_in] += int(amount * (1 - arc.fee_in) * arc.scales[arc.index_in] * unit)
    low, high = 0, balances[arc.index_out]
    while high - low > 1:
        balances[arc.index_out] = middle = (low + high) // 2
        if _excess(balances, arc.ann, d) < 0:
            low = middle
        else:
            high = middle
    taken = int(arc.balances[arc.index_out] * unit) - high
    return taken / unit / arc.scales[arc.index_out] * (1 - arc.fee_out)


def _excess(balances: list[int], ann: float, d: int) -> int:
    """Ann·Σx + D − Ann·D − D^(n+1)/(n^n·Πx), times 1e18; rises in every balance."""
    tail = d * 10**18
    for balance in balances:
        tail = tail * d // (balance * len(balances)) if balance else 10**300
    whole = int(ann * 10**6)
    return (whole * (sum(balances) - d) * 10**12) + d * 10**18 - tail


def _invariant(balances: list[int], ann: float) -> int:
    low, high = 0, 2 * sum(balances)
    while high - low > 1:
        middle = (low + high) // 2
        if _excess(balances, ann, middle) > 0:
            low = middle
        else:
            high = middle
    return low


def output_of(arc: Arc, amount: float) -> float:
    """What an arc gives for ``amount``."""
    match arc:
        case WeightedArc():
            return weighted_out_real(arc, amount)
        case StableArc():
            return stable_out_real(arc, amount)
        case ConstantProductArc():
            net = (1 - arc.fee) * amount
            return arc.reserve_out * net / (arc.reserve_in + net)
        case LevelsArc():
            given = 0.0
            for capacity, rate in arc.levels:
                used = min(amount, capacity)
                given, amount = given + used * rate, amount - used
            return given
        case TicksArc():
            raise NotImplementedError("checked beside the concentrated pool")
        case _:
            assert_never(arc)

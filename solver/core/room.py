"""More room in a problem for those whom integers gave a little less than a plan did.

Each function gives the problem back as it was where there is nothing to be mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from solver.core import graph
from solver.core.problem import Batch, Plan, Problem
from solver.core.types import TokenId

_MOST_SHORT = 0.01  # of a limit or the largest order: more than that is not rounding
_LEAST_ROOM = 2e-9  # more than floats lose
_MORE = 1.5  # times what was short
_MORE_FOR_LOTS = 3.0  # limits and floors: lots fall otherwise when the plan is another
_TRIFLE = 1e-6  # of the largest order: what sells less is not mended


def with_reserve(batch: Batch, problem: Problem, missing: Sequence[tuple[TokenId, int]]) -> Problem:
    """The problem that leaves as much more at the nodes where integers were short."""
    reserve = list(problem.reserve or (0.0,) * problem.node_count)
    for token, amount in missing:
        n = batch.graph.index[graph.Node(token)]
        reserve[n] += _MORE * amount / float(batch.unit[n]) + _LEAST_ROOM
        if reserve[n] > _MOST_SHORT:
            return problem
    return replace(problem, reserve=tuple(reserve))


def paid_by_floors(problem: Problem) -> Problem:
    """The problem in which everybody may pay for what must be left at nodes."""
    left = _MORE * sum(problem.reserve)
    floors = tuple(replace(floor, amount=floor.amount - left) for floor in problem.floors)
    rates = tuple(
        rate * max(0.0, 1.0 - left / order.size)
        for rate, order in zip(problem.rates, problem.orders, strict=False)
    )
    return replace(problem, floors=floors, rates=rates)


def with_limits(problem: Problem, plan: Plan, short: Mapping[int, float]) -> Problem:
    """The problem with tighter limits for orders that are short of theirs by some part.

    Orders of the same pair and limit get the same.
    """
    orders = list(problem.orders)
    for k, part in short.items():
        first = problem.orders[k]
        if part > _MOST_SHORT or plan.sold[k] < _TRIFLE:
            continue
        limit = first.limit * (1.0 + _MORE_FOR_LOTS * part + _LEAST_ROOM)
        for i, order in enumerate(problem.orders):
            if (order.sell, order.buy, order.limit) == (first.sell, first.buy, first.limit):
                orders[i] = replace(order, limit=max(orders[i].limit, limit))
    return replace(problem, orders=tuple(orders)) if tuple(orders) != problem.orders else problem


def with_floors(problem: Problem, short: Sequence[float]) -> Problem:
    """The problem with higher floors for pairs that are short of what they are owed."""
    if not any(0.0 < missing < _MOST_SHORT for missing in short):
        return problem
    floors = [
        replace(
            floor,
            amount=floor.amount + (_MORE_FOR_LOTS * missing + _LEAST_ROOM if missing else 0.0),
        )
        for floor, missing in zip(problem.floors, short, strict=True)
    ]
    return replace(problem, floors=tuple(floors))

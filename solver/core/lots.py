"""Books trade whole lots: what a plan sends them beyond that would stay where nobody needs it.

Programs see a book's levels as if any amount could be traded. A plan is therefore made twice: the
second time no book takes more than the whole lots that the first plan pays for.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from solver.core.pricing import sent, used_edges
from solver.core.problem import Batch, Plan, Problem
from solver.core.types import Exact
from solver.core.venue import Pool, step_of, trades_in_lots

_SAME = 1e-9  # of what is sent: no lot is lost


def in_lots(batch: Batch, plan: Plan) -> Problem | None:
    """The problem in which books take the whole lots of a plan; None where the plan has only those.

    Raises PoolFault.
    """
    caps = _caps(batch, plan)
    if not caps:
        return None
    graph, arcs = batch.graph, batch.problem.arcs
    capacity = arcs.capacity.copy()
    names = {name for _, _, name in caps}
    for position, k in enumerate(batch.kept):  # the levels of a book come best first
        if graph.source[k].id not in names:
            continue
        key = graph.nodes[graph.arcs.tail[k]], graph.nodes[graph.arcs.head[k]], graph.source[k].id
        if key in caps:
            capacity[position] = min(capacity[position], caps[key])
            caps[key] -= capacity[position]
    return replace(batch.problem, arcs=replace(arcs, capacity=capacity))


def _caps(batch: Batch, plan: Plan) -> dict[tuple[object, object, str], float]:
    """The normalised input that each book of a plan takes, where that is less than planned."""
    graph = batch.graph
    used = (graph.source[batch.kept[k]] for k in np.nonzero(plan.flow)[0])
    books = {source.id: source for source in used if trades_in_lots(source)}
    found: dict[tuple[object, object, str], float] = {}
    for (tail, head, name), amount in used_edges(batch, plan.flow).items():
        book = books.get(name)
        if isinstance(book, Pool):
            unit = float(batch.unit[graph.index[tail]])
            step = step_of(book, tail.token, head.token, sent(amount, unit), Exact.IN)
            taken = step.amount_in / unit
            if taken < amount * (1.0 - _SAME):
                found[tail, head, name] = taken
    return found

"""Plans without cycles: only these can be carried out, one leg after another.

A program may plan cycles where pools are out of line with one another. Links are closed until
what is planned has an order, and the best plan of a few heuristics is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from msgspec.structs import replace

from solver.core import pricing
from solver.core.graph import Node
from solver.core.problem import Batch, Plan, Problem

Links = Collection[tuple[Node, Node]]
Rule = Callable[[Problem], Plan | None]
"""What plans a problem whose closed links have no capacity; None where that is infeasible."""

_MAX_CYCLES = 12


def acyclic(batch: Batch, rule: Rule, sample: Plan | None = None) -> Plan | None:
    """The best plan of a rule that has no cycle, of those that some heuristics find, or None.

    One orders the tokens by the rule's own plan, cycles peeled off, and closes what runs backwards;
    one does so by ``sample``, a plan known to have an order; the last closes the weakest link of
    one cycle after another.
    """
    joint = rule(batch.problem)
    if joint is None or pricing.find_cycle(batch, joint.flow) is None:
        return joint
    orders = [joint] if sample is None else [joint, sample]
    candidates = [rule(without(batch, pricing.backward_links(batch, p.flow))) for p in orders]
    found = [
        plan
        for plan in candidates
        if plan is not None and pricing.find_cycle(batch, plan.flow) is None
    ]
    if not found:
        return _close_links(batch, rule, joint)
    return max(found, key=lambda plan: plan.value)


def _close_links(batch: Batch, rule: Rule, joint: Plan) -> Plan | None:
    closed: set[tuple[Node, Node]] = set()
    plan: Plan | None = joint
    for _ in range(_MAX_CYCLES):
        link = None if plan is None else pricing.find_cycle(batch, plan.flow)
        if link is None:
            return plan
        closed.add(link)
        plan = rule(without(batch, closed))
    return None


def without(batch: Batch, closed: Links) -> Problem:
    """The problem in which the closed links carry nothing."""
    arcs, index, count = batch.problem.arcs, batch.graph.index, batch.problem.node_count
    shut = [index[tail] * count + index[head] for tail, head in closed]
    capacity = np.where(np.isin(arcs.tail * count + arcs.head, shut), 0.0, arcs.capacity)
    return replace(batch.problem, arcs=replace(arcs, capacity=capacity))

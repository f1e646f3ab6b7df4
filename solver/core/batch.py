"""A batch from snapshot and intents to a checked, certified solution.

relax → choose (whole fills, one rate per pair) → settle → remove cycles → integers → verify. A
proposal that fails a later step costs one order, the tightest, and the rest is tried again; the
bound is always that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import certificate, graph, pricing, program
from solver.core.curves import Array
from solver.core.graph import Node
from solver.core.intent import max_fee
from solver.core.pricing import Priced
from solver.core.problem import (
    Batch,
    ExtraRow,
    Plan,
    Problem,
    buy_node,
    normalise,
    sell_node,
)
from solver.core.types import (
    BPS,
    Certificate,
    Exact,
    Fill,
    Infeasible,
    Intent,
    Kind,
    OpenReason,
    Solution,
    TokenId,
)
from solver.core.venue import Pool, Snapshot
from solver.core.verify import verify

OBJECTIVE = "sum of surplus over the limits, exact-in in the buy token, exact-out in the sell token"
_MAX_CYCLES = 12


class Terms(Struct, frozen=True):
    """What the operator adds to a batch.

    ``fees`` is the flat fee per digest in its buy token, ``gas_value`` the numeraire per unit of
    gas, ``rows`` extra linear rows over the fill shares keyed by position in the intents.
    """

    fees: dict[str, int] = {}
    gas_value: float = 0.0
    max_impact_bps: int = BPS
    capital_bps: int = 0
    rows: tuple[ExtraRow, ...] = ()


_NO_TERMS = Terms()


class _Answer(Struct, frozen=True):
    plan: Plan
    priced: Priced | None
    dropped: dict[str, str]
    stage: str


def solve_batch(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms = _NO_TERMS,
    progress: Callable[[str], None] = lambda stage: None,
) -> Solution:
    """Solve one batch. Intents that cannot be filled come back in ``open`` with their reason.

    Raises ProgramError only when not even the relaxation has a solution.
    """
    ordered = sorted(intents, key=lambda intent: intent.digest)
    refused = _refused(snapshot, ordered, terms)
    wanted = [sell_node(intent) for intent in ordered] + [buy_node(intent) for intent in ordered]
    built = graph.build(snapshot, wanted, terms.capital_bps)
    prices = graph.complete_prices(built, snapshot.prices)
    for intent in ordered:
        for token in (intent.swap.sell, intent.swap.buy):
            if token not in prices:
                refused.setdefault(intent.digest, ("no_price", f"no reference price of {token}"))
    kept = [intent for intent in ordered if intent.digest not in refused]
    if not kept:
        return _empty(snapshot, refused)
    batch = normalise(built, kept, terms.fees, prices, terms.max_impact_bps, terms.rows)
    progress("relax")
    relaxed = program.solve(batch.problem)
    progress("integers")
    answer = _to_integers(snapshot, batch, relaxed, terms)
    fills = answer.priced.fills if answer.priced else ()
    proof = _certificate(snapshot, batch, relaxed, answer, prices)
    reasons = [OpenReason(digest, *reason) for digest, reason in sorted(refused.items())]
    reasons += _reasons(batch, relaxed, fills, answer.dropped)
    return _solution(answer, fills, tuple(reasons), proof)


def _refused(
    snapshot: Snapshot, intents: Sequence[Intent], terms: Terms
) -> dict[str, tuple[str, str]]:
    refused = {}
    for intent in intents:
        fee = terms.fees.get(intent.digest, 0)
        cap = max_fee(intent.swap, intent.remaining)
        if fee > cap:
            refused[intent.digest] = ("fee_above_cap", f"gas costs {fee}, maxFee allows {cap}")
    return refused


def _to_integers(snapshot: Snapshot, batch: Batch, relaxed: Plan, terms: Terms) -> _Answer:
    """Try, drop the order in the way, try again; in the end nothing is filled."""
    pools = {pool.id: pool for pool in snapshot.pools}
    own = graph.inventories(snapshot, terms.capital_bps)
    active = [True] * len(batch.intents)
    dropped: dict[str, str] = {}
    stage = "program"
    while any(active):
        chosen = program.choose(batch.problem, relaxed, active)
        if not any(chosen):
            break
        plan = _acyclic(batch, chosen)
        if plan is None:
            _drop(batch, chosen, active, dropped, "no_plan")
            stage = "fallback"
            continue
        gas = sum(batch.graph.gas[batch.kept[k]] for k in np.nonzero(plan.flow > 1e-9)[0])
        priced = pricing.price(batch, plan, chosen, gas * terms.gas_value)
        if isinstance(priced, Infeasible):
            _drop(batch, chosen, active, dropped, priced.code, priced.detail)
            stage = "fallback"
            continue
        broken = verify(
            batch.intents,
            pools,
            own,
            priced.fills,
            priced.outcome.legs,
            priced.outcome.inventory,
            priced.clearing,
        )
        if broken is not None:
            _drop(batch, chosen, active, dropped, broken.code, broken.detail)
            stage = "fallback"
            continue
        return _Answer(plan, priced, dropped, stage)
    return _Answer(relaxed, None, dropped, "empty")


def _drop(
    batch: Batch,
    chosen: list[bool],
    active: list[bool],
    dropped: dict[str, str],
    code: str,
    digest: str = "",
) -> None:
    """Leave out the named order, or the tightest of the chosen ones."""
    named = [i for i, intent in enumerate(batch.intents) if intent.digest == digest and chosen[i]]
    candidates = named or [i for i, on in enumerate(chosen) if on]
    worst = max(candidates, key=lambda i: (batch.problem.orders[i].limit, i))
    active[worst] = False
    dropped[batch.intents[worst].digest] = code


def _acyclic(batch: Batch, chosen: list[bool]) -> Plan | None:
    """The best plan without cycles for the chosen orders that two heuristics find.

    The first orders the tokens by the joint optimum, cycles peeled off, and closes what runs
    backwards; the second closes the weakest link of one cycle after another.
    """
    joint = _settled(batch, chosen)
    if joint is None or pricing.find_cycle(batch, joint.flow) is None:
        return joint
    closed = pricing.backward_links(batch, joint.flow)
    candidates = [_settled(_without(batch, closed), chosen), _close_links(batch, chosen, joint)]
    acyclic = [
        plan
        for plan in candidates
        if plan is not None and pricing.find_cycle(batch, plan.flow) is None
    ]
    return max(acyclic, key=lambda plan: plan.value, default=None)


def _settled(batch: Batch, chosen: list[bool]) -> Plan | None:
    try:
        start = program.solve(batch.problem, chosen)
        return program.settle(batch.problem, chosen, start)
    except program.ProgramError:
        return None


def _close_links(batch: Batch, chosen: list[bool], joint: Plan) -> Plan | None:
    closed: set[tuple[Node, Node]] = set()
    plan: Plan | None = joint
    for _ in range(_MAX_CYCLES):
        link = None if plan is None else pricing.find_cycle(batch, plan.flow)
        if link is None:
            break
        closed.add(link)
        plan = _settled(_without(batch, closed), chosen)
    return plan


def _without(batch: Batch, closed: set[tuple[Node, Node]]) -> Batch:
    arcs, nodes = batch.problem.arcs, batch.graph.nodes
    capacity = arcs.capacity.copy()
    for k, (tail, head) in enumerate(zip(arcs.tail, arcs.head, strict=True)):
        if (nodes[tail], nodes[head]) in closed:
            capacity[k] = 0.0
    problem = replace(batch.problem, arcs=replace(arcs, capacity=capacity))
    return replace(batch, problem=problem)


def surplus(batch: Batch, fills: Sequence[Fill]) -> float:
    """The objective of exact fills in normalised units; the fee counts as cost."""
    by_digest = {fill.digest: fill for fill in fills}
    total = 0.0
    for intent, order in zip(batch.intents, batch.problem.orders, strict=True):
        fill = by_digest.get(intent.digest)
        if fill is None:
            continue
        swap = intent.swap
        if swap.kind is Kind.EXACT_IN:
            over = fill.buy * swap.sell_amount - fill.sell * swap.buy_amount
            total += over / swap.sell_amount / batch.unit[order.buy]
        else:
            over = fill.buy * swap.sell_amount - fill.sell * swap.buy_amount
            total += over / swap.buy_amount / batch.unit[order.sell]
    return float(total)


def _certificate(
    snapshot: Snapshot,
    batch: Batch,
    relaxed: Plan,
    answer: _Answer,
    prices: Mapping[TokenId, float],
) -> Certificate:
    problem = batch.problem
    best = min(
        (relaxed, program.duals(problem, relaxed)),
        key=lambda plan: certificate.bound(problem, plan.nu, plan.multipliers),
    )
    nu = certificate.lift(problem, best.nu)
    upper = certificate.bound(problem, nu, best.multipliers) * batch.scale
    fills = answer.priced.fills if answer.priced else ()
    value = surplus(batch, fills) * batch.scale
    floor = arbitrage_floor(snapshot, batch)
    gap = max(0.0, upper - value)
    net_gap = max(0.0, gap - floor)
    volume = sum(
        prices[intent.swap.buy] * (fill.buy + fill.fee)
        for intent in batch.intents
        for fill in fills
        if fill.digest == intent.digest
    )
    assumptions = ["continuous relaxation: whole fills, lots, gas and uniform rates only lower"]
    if batch.graph.sampled:
        assumptions.append("curves sampled, not declared: " + ", ".join(batch.graph.sampled))
    if len(prices) > len(snapshot.prices):
        assumptions.append("missing reference prices follow from pool rates")
    return Certificate(
        objective=OBJECTIVE,
        normalisation="numeraire units at the snapshot's reference prices",
        value=_decimal(value),
        bound=_decimal(upper),
        arb_floor=_decimal(floor),
        gap=_decimal(gap),
        net_gap=_decimal(net_gap),
        net_gap_bps=f"{net_gap / volume * BPS:.6f}" if volume > 0 else "0",
        prices={
            _node_name(node): _decimal(float(nu[n]) * prices[node.token])
            for n, node in enumerate(batch.graph.nodes)
            if node.token in prices
        },
        multipliers={
            row.name: _decimal(float(weight))
            for row, weight in zip(problem.rows, best.multipliers, strict=True)
        },
        snapshot_hash=snapshot.hash,
        assumptions=assumptions,
        binding=_binding(batch, answer.plan, relaxed),
    )


def arbitrage_floor(snapshot: Snapshot, batch: Batch) -> float:
    """What an exhibited plan without any input yields, in exact integers, in the numeraire.

    Cycles through the bought tokens are taken from the program without orders and replayed one
    after another with the pools' integers; 0 when none gains.
    """
    targets = sorted({order.buy for order in batch.problem.orders})
    flow = program.idle(batch.problem, targets)
    pools: dict[str, Pool] = {pool.id: pool for pool in snapshot.pools}
    used = pricing.used_edges(batch, flow)
    total = 0.0
    for target in targets:
        node = batch.graph.nodes[target]
        for _ in range(8):
            cycle = _cycle_through(node, used)
            if cycle is None:
                break
            amount = min(used[edge] for edge in cycle)
            start = int(used[cycle[0]] * batch.unit[target])
            gained = _replay_cycle(cycle, start, pools)
            total += max(0, gained) / float(batch.unit[target]) * batch.scale
            for edge in cycle:
                used[edge] -= amount
            used = {edge: left for edge, left in used.items() if left > 1e-9}
    return total


_EdgeKey = tuple[Node, Node, str]


def _cycle_through(node: Node, used: Mapping[_EdgeKey, float]) -> list[_EdgeKey] | None:
    """The shortest cycle from ``node`` back to it along used edges."""
    frontier: list[list[_EdgeKey]] = [[edge] for edge in sorted(used) if edge[0] == node]
    seen = {node}
    while frontier:
        following = []
        for path in frontier:
            if path[-1][1] == node:
                return path
            if path[-1][1] not in seen:
                seen.add(path[-1][1])
                following += [[*path, edge] for edge in sorted(used) if edge[0] == path[-1][1]]
        frontier = following
    return None


def _replay_cycle(cycle: list[_EdgeKey], start: int, pools: dict[str, Pool]) -> int:
    """End minus start of a cycle in integers; the pools move only when it gains."""
    after = dict(pools)
    amount, spent = start, start
    for position, (tail, head, name) in enumerate(cycle):
        if name not in after:
            return 0
        step = after[name].swap(tail.token, head.token, amount, Exact.IN)
        if position == 0:
            spent = step.amount_in
        after[name] = step.next_pool
        amount = step.amount_out
    if amount > spent:
        pools.update(after)
    return amount - spent


def _binding(batch: Batch, plan: Plan, relaxed: Plan) -> list[str]:
    """Names of the rows and capacities that hold the plan back."""
    names = {
        f"row:{row.name}"
        for row, weight in zip(batch.problem.rows, relaxed.multipliers, strict=True)
        if weight > 1e-9
    }
    capacity = batch.problem.arcs.capacity
    full = np.isfinite(capacity) & (capacity > 0.0) & (plan.flow >= capacity * (1.0 - 1e-9))
    for position in np.nonzero(full)[0]:
        source = batch.graph.source[batch.kept[position]].id
        kind = "impact" if position in batch.capped else "capacity"
        names.add(f"{kind}:{source}")
    return sorted(names)


def _reasons(
    batch: Batch, relaxed: Plan, fills: Sequence[Fill], dropped: Mapping[str, str]
) -> list[OpenReason]:
    filled = {fill.digest: fill for fill in fills}
    reasons = []
    binding = ", ".join(_binding(batch, relaxed, relaxed))
    for intent, order in zip(batch.intents, batch.problem.orders, strict=True):
        fill = filled.get(intent.digest)
        amount = 0
        if fill is not None:
            amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
        if amount >= intent.remaining:
            continue
        unit_rate = batch.unit[order.buy] / batch.unit[order.sell]
        limit = intent.swap.buy_amount / intent.swap.sell_amount
        best = _marginal_rate(batch.problem, relaxed.nu, order.sell, order.buy) * unit_rate
        code, detail = _explain(intent, fill is not None, limit, best, dropped)
        reasons.append(
            OpenReason(intent.digest, code, detail, f"{best:.12g}", f"{limit:.12g}", binding)
        )
    return reasons


def _explain(
    intent: Intent, partly: bool, limit: float, best: float, dropped: Mapping[str, str]
) -> tuple[str, str]:
    if partly:
        return "partly_filled", "the rest would cost more than the limit allows"
    if best <= 0.0:
        return "no_route", "no venue or order connects the two tokens"
    if best < limit:
        factor = limit / best
        return "limit_out_of_reach", f"the limit asks {factor:.6g} times the best reachable rate"
    if intent.digest in dropped:
        return "left_out", f"did not survive the exact check ({dropped[intent.digest]})"
    return "not_chosen", "filling it whole would cost other orders more than it gains"


def _marginal_rate(problem: Problem, nu: Array, sell: int, buy: int) -> float:
    """ν_s/ν_t, where both are worth something in this batch."""
    if nu[buy] <= 1e-12 or nu[sell] <= 1e-12:
        return 0.0
    return float(nu[sell] / nu[buy])


def _node_name(node: Node) -> str:
    return str(node.token) if node.stage == graph.NOW else f"{node.token}@escrow"


def _decimal(value: float) -> str:
    """A decimal string that round-trips the float."""
    return format(value, ".17g")


def _solution(
    answer: _Answer, fills: Sequence[Fill], reasons: tuple[OpenReason, ...], proof: Certificate
) -> Solution:
    priced = answer.priced
    if priced is None:
        return Solution((), (), (), {}, {}, reasons, proof, answer.stage)
    dust = {_node_name(node): amount for node, amount in priced.dust.items()}
    return Solution(
        tuple(fills),
        priced.outcome.legs,
        priced.outcome.inventory,
        priced.clearing,
        dust,
        reasons,
        proof,
        answer.stage,
    )


def _empty(snapshot: Snapshot, refused: Mapping[str, tuple[str, str]]) -> Solution:
    proof = Certificate(
        objective=OBJECTIVE,
        normalisation="numeraire units at the snapshot's reference prices",
        value="0",
        bound="0",
        arb_floor="0",
        gap="0",
        net_gap="0",
        net_gap_bps="0",
        prices={},
        multipliers={},
        snapshot_hash=snapshot.hash,
    )
    reasons = tuple(OpenReason(digest, *reason) for digest, reason in sorted(refused.items()))
    return Solution((), (), (), {}, {}, reasons, proof, "empty")

"""A batch from snapshot and intents to a checked, certified solution.

reference → relax → choose (whole fills, one rate per pair) → settle → remove cycles → integers →
verify. A proposal that fails a later step costs one order, the tightest, and the rest is tried
again; the bound is always that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import curves, graph, pricing, program, proof, reference
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
from solver.core.routing.network import Network, following
from solver.core.single import routable, solve_single
from solver.core.types import (
    BPS,
    Certificate,
    Fill,
    Infeasible,
    Intent,
    Kind,
    OpenReason,
    Solution,
    TokenId,
)
from solver.core.venue import Snapshot
from solver.core.verify import verify

_MAX_CYCLES = 12
_MOST_RATE = 1_000.0
_EXPLAINED_HOPS = 4


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


class Memory(Struct):
    """What may be kept between batches; losing it costs time only."""

    network: Network | None = None


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
    memory: Memory | None = None,
) -> Solution:
    """Solve one batch. Intents that cannot be filled come back in ``open`` with their reason.

    One order alone goes through the router, several through the joint program. ``memory`` carries
    the network from batch to batch, so that only what moved is written again. Raises ProgramError
    only when not even the relaxation has a solution.
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
        if intent.digest not in refused and is_absurd(intent, prices):
            refused[intent.digest] = ("limit_out_of_reach", "far above the reference rate")
    kept = [intent for intent in ordered if intent.digest not in refused]
    if not kept:
        return _empty(snapshot, refused)
    if len(kept) == 1 and routable(kept[0], terms.max_impact_bps, bool(terms.rows)):
        progress("route")
        network = following(memory.network if memory else None, snapshot.pools, prices)
        if memory:
            memory.network = network
        fee = terms.fees.get(kept[0].digest, 0)
        solution = solve_single(snapshot, kept[0], fee, terms.gas_value, prices, network)
        reasons = [OpenReason(digest, *reason) for digest, reason in sorted(refused.items())]
        return replace(solution, open=(*reasons, *solution.open))
    batch = normalise(built, kept, terms.fees, prices, terms.max_impact_bps, terms.rows)
    progress("reference")
    fair = reference.reference(batch, snapshot.hash)
    batch = replace(batch, problem=replace(batch.problem, floors=fair.floors, caps=fair.caps))
    progress("relax")
    relaxed = program.solve(batch.problem)
    progress("integers")
    answer = _to_integers(snapshot, batch, relaxed, fair.active, terms)
    fills = answer.priced.fills if answer.priced else ()
    certificate = proof.prove(snapshot, batch, relaxed, answer.plan, fills, prices)
    reasons = [OpenReason(digest, *reason) for digest, reason in sorted(refused.items())]
    reasons += _reasons(batch, relaxed, fills, answer.dropped)
    return _solution(answer, fills, tuple(reasons), certificate)


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


def is_absurd(intent: Intent, prices: Mapping[TokenId, float]) -> bool:
    """Whether a limit is so far from the reference rate that it would spoil the scaling of all."""
    swap = intent.swap
    asked = swap.buy_amount * prices[swap.buy]
    return asked > _MOST_RATE * swap.sell_amount * prices[swap.sell]


def _to_integers(
    snapshot: Snapshot, batch: Batch, relaxed: Plan, incumbent: Sequence[bool], terms: Terms
) -> _Answer:
    """Try, drop the order in the way, try again; in the end nothing is filled."""
    pools = {pool.id: pool for pool in snapshot.pools}
    own = graph.inventories(snapshot, terms.capital_bps)
    active = [True] * len(batch.intents)
    dropped: dict[str, str] = {}
    stage = "program"
    while any(active):
        chosen = program.choose(batch.problem, relaxed, active, incumbent)
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


def _reasons(
    batch: Batch, relaxed: Plan, fills: Sequence[Fill], dropped: Mapping[str, str]
) -> list[OpenReason]:
    filled = {fill.digest: fill for fill in fills}
    reasons = []
    held = ", ".join(proof.binding(batch, relaxed, relaxed))
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
        pools = _best_path(batch.problem, order.sell, order.buy) * unit_rate
        case = _Case(fill is not None, limit, best, pools, bool(fills), len(batch.intents) == 1)
        code, detail, binding = _explain(intent, case, held, dropped)
        reasons.append(
            OpenReason(intent.digest, code, detail, f"{best:.12g}", f"{limit:.12g}", binding)
        )
    return reasons


class _Case(Struct, frozen=True):
    """What is known of an order that is not wholly filled.

    ``best`` is its marginal rate in the batch, ``pools`` the rate of the best path of pools before
    anybody trades, both in base units.
    """

    is_partly: bool
    limit: float
    best: float
    pools: float
    others_filled: bool
    is_alone: bool


def _explain(
    intent: Intent, case: _Case, held: str, dropped: Mapping[str, str]
) -> tuple[str, str, str]:
    """Code, sentence and what binds; ``held`` names the rows and capacities at their end."""
    if case.is_partly:
        return "partly_filled", "the rest would cost more than the limit allows", held or "limit"
    if case.best <= 0.0:
        return "no_route", "no venue or order connects the two tokens", "venues"
    if case.others_filled and 0.0 < case.pools < case.limit:
        detail = f"the limit asks {case.limit / case.pools:.6g} times the pools' rate"
        if case.best > case.pools:
            detail += "; it could be filled only at the cost of other orders"
        return "limit_out_of_reach", detail, "limit"
    if case.best < case.limit:
        factor = case.limit / case.best
        detail = f"the limit asks {factor:.6g} times the best reachable rate"
        return "limit_out_of_reach", detail, "limit"
    if intent.digest in dropped:
        detail = f"did not survive the exact check ({dropped[intent.digest]})"
        return "left_out", detail, held or dropped[intent.digest]
    if case.is_alone:
        detail = "a first part would get its limit, the whole order would not"
        return "limit_out_of_reach", detail, held or "depth"
    detail = "filling it whole would cost other orders more than it gains"
    return "not_chosen", detail, held or "other orders"


def _marginal_rate(problem: Problem, nu: Array, sell: int, buy: int) -> float:
    """ν_s/ν_t where both are worth something in this batch, else the best path's rate."""
    if nu[buy] > 1e-12 and nu[sell] > 1e-12:
        return float(nu[sell] / nu[buy])
    return _best_path(problem, sell, buy)


def _best_path(problem: Problem, sell: int, buy: int) -> float:
    """The marginal rate of the best path of pools, before anybody trades."""
    arcs = problem.arcs
    slope = np.where(arcs.capacity > 0.0, curves.slope(arcs, np.zeros(len(arcs))), 0.0)
    rate = np.zeros(problem.node_count)
    rate[sell] = 1.0
    for _ in range(_EXPLAINED_HOPS):
        further = rate.copy()
        np.maximum.at(further, arcs.head, rate[arcs.tail] * slope)
        rate = further
    return float(rate[buy])


def _solution(
    answer: _Answer,
    fills: Sequence[Fill],
    reasons: tuple[OpenReason, ...],
    proven: Certificate,
) -> Solution:
    priced = answer.priced
    if priced is None:
        return Solution((), (), (), {}, {}, reasons, proven, answer.stage)
    dust = {proof.node_name(node): amount for node, amount in priced.dust.items()}
    return Solution(
        tuple(fills),
        priced.outcome.legs,
        priced.outcome.inventory,
        priced.clearing,
        dust,
        reasons,
        proven,
        answer.stage,
    )


def _empty(snapshot: Snapshot, refused: Mapping[str, tuple[str, str]]) -> Solution:
    reasons = tuple(OpenReason(digest, *reason) for digest, reason in sorted(refused.items()))
    return Solution((), (), (), {}, {}, reasons, proof.nothing(snapshot.hash), "empty")

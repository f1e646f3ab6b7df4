"""The certificate of a solved batch.

All-or-nothing orders make the relaxation's bound loose: half of an order may look better than all
of it. The proof therefore covers the cases "this order whole" and "this order out" by leaves, each
with prices of its own; the bound of the batch is the largest of its leaves.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import certificate, graph, pricing, program
from solver.core.graph import Node
from solver.core.nearby import Surroundings
from solver.core.problem import Batch, Floor, Plan, Problem
from solver.core.types import BPS, Certificate, Exact, Fill, Kind, Leaf, Leg, Row, TokenId
from solver.core.venue import Pool, Snapshot, step_of

OBJECTIVE = "sum of surplus over the limits, exact-in in the buy token, exact-out in the sell token"
ONLY_LOWER = "lots, gas and uniform rates only lower what can be had"
GENEROUS_CAPS = "no pair is paid above ten times the best of reference and limit"
SAMPLED = "curves sampled, not declared: "
DERIVED_PRICES = "missing reference prices follow from pool rates"
ROWS = "the stated rows hold; those of margin count what an order must get at least"
_MAX_LEAVES = 32
_CLOSED = 1e-9
#: What integers may miss of a floor, of the pair's volume or the largest order: by rounding, and by
#: the lots of books in large markets.
_ROUNDING, _LOTS = 3e-6, 1e-5
_PAID = 1e-9  # of a floor, for comparing it once more with what is paid


class Case(Struct, frozen=True):
    """One leaf: orders that are whole, orders that are out, prices, and the bound they prove."""

    whole: frozenset[int]
    out: frozenset[int]
    plan: Plan
    bound: float


def prove(
    snapshot: Snapshot,
    batch: Batch,
    relaxed: Plan,
    chosen: Plan,
    fills: Sequence[Fill],
    prices: Mapping[TokenId, float],
    around: Surroundings | None = None,
) -> Certificate:
    """Bound, arbitrage floor and gap of exact ``fills``, in numeraire units.

    ``around`` are the pools that the batch does not see; what they could gain is in the bound.
    """
    value = surplus(batch, fills)
    generous: Problem | None = None
    batch = _with_paid_floors(batch, fills)
    batch = _with_paid_caps(batch, fills)
    if not _keeps_caps(batch, fills, batch.problem):
        generous = _without_policy(batch, fills)
        batch = replace(batch, problem=generous)
    fair = bool(batch.problem.caps) and generous is None
    problem = batch.problem
    leaves = cover(batch, relaxed, value, around)
    worst = max(leaves, key=lambda leaf: leaf.bound)
    upper = worst.bound * batch.scale
    value *= batch.scale
    floor, cycles = arbitrage_floor(snapshot, batch)
    gap = max(0.0, upper - value)
    net_gap = max(0.0, gap - floor)
    by_digest = {intent.digest: intent for intent in batch.intents}
    volume = sum(prices[by_digest[fill.digest].swap.buy] * (fill.buy + fill.fee) for fill in fills)
    assumptions = [ONLY_LOWER]
    if problem.floors:
        assumptions.append("every pair gets the surplus of the reference outcome at least")
    if fair:
        assumptions.append("no pair is paid above the best of reference price, outcome and limit")
    else:
        assumptions.append(GENEROUS_CAPS)
        if generous is not None:
            assumptions[-1] += ", or than it is paid here"
    if batch.capped:
        assumptions.append("no flow moves a curve's marginal rate further than the impact allowed")
    if batch.graph.sampled:
        assumptions.append(SAMPLED + ", ".join(batch.graph.sampled))
    if problem.rows:
        assumptions.append(ROWS)
    if len(prices) > len(snapshot.prices):
        assumptions.append(DERIVED_PRICES)
    proven = [_leaf(batch, leaf, prices, around) for leaf in leaves]
    return Certificate(
        objective=OBJECTIVE,
        normalisation="numeraire units at the snapshot's reference prices",
        value=decimal(value),
        bound=decimal(upper),
        arb_floor=decimal(floor),
        gap=decimal(gap),
        net_gap=decimal(net_gap),
        net_gap_bps=f"{net_gap / volume * BPS:.6f}" if volume > 0 else "0",
        prices=proven[leaves.index(worst)].prices,
        multipliers=proven[leaves.index(worst)].multipliers,
        snapshot_hash=snapshot.hash,
        assumptions=assumptions,
        binding=binding(batch, chosen, relaxed),
        leaves=proven,
        floors={
            _floor_name(batch, floor): decimal(floor.amount * batch.scale)
            for floor in problem.floors
        },
        caps={
            batch.intents[i].digest: decimal(
                problem.cap(i) * batch.unit[order.buy] / batch.unit[order.sell]
            )
            for i, order in enumerate(problem.orders)
        },
        reference={
            str(token): decimal(price)
            for token, price in sorted(prices.items())
            if snapshot.prices.get(token, 0.0) <= 0.0
        },
        arbitrage=cycles,
        rows={
            row.name: Row(
                {batch.intents[i].digest: decimal(c) for i, c in sorted(row.coefficients.items())},
                decimal(row.rhs),
            )
            for row in problem.rows
        },
    )


def cover(
    batch: Batch, relaxed: Plan, value: float, around: Surroundings | None = None
) -> list[Case]:
    """Cases that together contain every batch; the loosest is split until the gap closes.

    Orders are split on where the relaxation fills them in part although they are all-or-nothing.
    """
    ticket, problem = count(), batch.problem
    first = _case(batch, around, relaxed, frozenset(), frozenset())
    heap = [(-first.bound, next(ticket), first)]
    done: list[Case] = []
    while heap and len(heap) + len(done) < _MAX_LEAVES:
        _, _, case = heapq.heappop(heap)
        split = _to_split(problem, case)
        if case.bound <= value + _CLOSED * max(1.0, abs(value)) or split is None:
            done.append(case)
            continue
        for whole, out in (
            (case.whole | {split}, case.out),
            (case.whole, case.out | {split}),
        ):
            leaf = _case(batch, around, case.plan, whole, out)
            heapq.heappush(heap, (-leaf.bound, next(ticket), leaf))
    return done + [case for _, _, case in sorted(heap, key=lambda entry: entry[:2])]


def _case(
    batch: Batch,
    around: Surroundings | None,
    start: Plan,
    whole: frozenset[int],
    out: frozenset[int],
) -> Case:
    problem = batch.problem
    if certificate.is_empty(problem, out):
        return Case(whole, out, start, 0.0)
    candidates = [start]  # any prices prove a bound
    if problem.guess is None or whole or out:  # on whole curves the relaxation has its own duals
        with suppress(program.ProgramError):
            candidates.append(program.duals(problem, start, whole, out))
    beyond = [0.0] * len(candidates)
    if around is not None:
        for k, plan in enumerate(candidates):
            lifted = around.lift(batch, plan.nu)
            candidates[k] = replace(plan, nu=lifted.nodes)
            beyond[k] = around.gains(lifted)[0] / batch.scale
    bounded = [
        (certificate.bound(problem, plan.nu, plan.multipliers, whole, out) + beyond[k], k)
        for k, plan in enumerate(candidates)
    ]
    bound, best = min(bounded)
    return Case(whole, out, candidates[best], bound)


def _to_split(problem: Problem, case: Case) -> int | None:
    """The all-or-nothing order that the case's plan fills most nearly by half, if any."""
    amounts = case.plan.sold, case.plan.bought
    fractions = {
        i: float(amounts[order.exact_out][i]) / order.size
        for i, order in enumerate(problem.orders)
        if not order.divisible and i not in case.whole | case.out
    }
    fractional = {i: x for i, x in fractions.items() if 1e-7 < x < 1.0 - 1e-7}
    return min(fractional, key=lambda i: (abs(fractional[i] - 0.5), i), default=None)


def _leaf(
    batch: Batch, case: Case, prices: Mapping[TokenId, float], around: Surroundings | None
) -> Leaf:
    nu = case.plan.nu
    named = {
        node: float(nu[n]) * prices[node.token]
        for n, node in enumerate(batch.graph.nodes)
        if node.token in prices
    }
    if around is not None:
        named = around.names(around.lift(batch, nu), prices) | named
    return Leaf(
        whole=[batch.intents[i].digest for i in sorted(case.whole)],
        out=[batch.intents[i].digest for i in sorted(case.out)],
        bound=decimal(case.bound * batch.scale),
        prices={node_name(node): decimal(worth) for node, worth in sorted(named.items())},
        multipliers={
            row.name: decimal(float(weight) * batch.scale)
            for row, weight in zip(batch.problem.rows, case.plan.multipliers, strict=True)
        },
    )


def _floor_name(batch: Batch, floor: Floor) -> str:
    swap = batch.intents[floor.members[0]].swap
    digest = batch.intents[floor.members[0]].digest
    return digest if swap.kind is Kind.EXACT_OUT else f"{swap.sell}>{swap.buy}"


def short_of_floors(batch: Batch, fills: Sequence[Fill]) -> list[float]:
    """By how much exact fills miss the floor of each pair, 0 where they pay it; normalised."""
    gained = _surpluses(batch, fills)
    missing = []
    for floor in batch.problem.floors:
        short = floor.amount - sum(gained.get(i, 0.0) for i in sorted(floor.members))
        missing.append(short if short > floor.amount * 1e-9 else 0.0)
    return missing


def missed_floors(batch: Batch, fills: Sequence[Fill]) -> list[float]:
    """As :func:`short_of_floors`, but 0 where it is as little as rounding and lots may take."""
    problem = batch.problem
    part = _ROUNDING if problem.guess is None else _LOTS
    missing = short_of_floors(batch, fills)
    for k, floor in enumerate(problem.floors):
        volume = sum(problem.orders[i].size for i in floor.members)
        if missing[k] <= part * max(1.0, volume):
            missing[k] = 0.0
    return missing


def _with_paid_floors(batch: Batch, fills: Sequence[Fill]) -> Batch:
    """The batch with floors that the fills pay: as much lower as they miss them, or none at all."""
    floors: tuple[Floor, ...] = ()
    if not any(missed_floors(batch, fills)):  # if not, nothing may be proven with floors
        missing = short_of_floors(batch, fills)
        floors = tuple(
            replace(floor, amount=(floor.amount - short) * (1.0 - _PAID)) if short else floor
            for floor, short in zip(batch.problem.floors, missing, strict=True)
        )
    kept = tuple(floor for floor in floors if floor.amount > 0.0)
    return replace(batch, problem=replace(batch.problem, floors=kept))


def _with_paid_caps(batch: Batch, fills: Sequence[Fill]) -> Batch:
    """The batch with caps as much higher as fills exceed them by rounding."""
    problem, rates = batch.problem, rates_of(batch, fills)
    caps = list(problem.caps)
    for i, rate in rates.items() if caps else ():
        if caps[i] < rate <= caps[i] * (1.0 + _ROUNDING):
            caps[i] = rate * (1.0 + _PAID)
    return replace(batch, problem=replace(problem, caps=tuple(caps)))


def rates_of(batch: Batch, fills: Sequence[Fill]) -> dict[int, float]:
    """The rate that each filled order got, fee included, in normalised units."""
    by_digest = {fill.digest: fill for fill in fills}
    rates = {}
    for i, (intent, order) in enumerate(zip(batch.intents, batch.problem.orders, strict=True)):
        fill = by_digest.get(intent.digest)
        if fill is not None:
            per_unit = float(batch.unit[order.sell] / batch.unit[order.buy])
            rates[i] = (fill.buy + fill.fee) / fill.sell * per_unit
    return rates


def _keeps_caps(batch: Batch, fills: Sequence[Fill], problem: Problem) -> bool:
    """Whether exact fills stay within the caps; if not, nothing may be proven with them."""
    rates = rates_of(batch, fills)
    return all(rate <= problem.cap(i) * (1.0 + 1e-9) for i, rate in rates.items())


def _without_policy(batch: Batch, fills: Sequence[Fill]) -> Problem:
    """No floors, and caps so generous that the answer itself is within them."""
    bare = replace(batch.problem, floors=(), caps=())
    rates = rates_of(batch, fills)
    generous = tuple(
        max(bare.cap(i), rates.get(i, 0.0) * (1.0 + 1e-9)) for i in range(len(bare.orders))
    )
    return replace(bare, caps=generous)


def surplus(batch: Batch, fills: Sequence[Fill]) -> float:
    """The objective of exact fills in normalised units; the fee counts as cost."""
    return sum(_surpluses(batch, fills).values(), 0.0)


def _surpluses(batch: Batch, fills: Sequence[Fill]) -> dict[int, float]:
    """What each filled order has beyond its limit, by its place in the batch."""
    by_digest = {fill.digest: fill for fill in fills}
    found: dict[int, float] = {}
    for i, (intent, order) in enumerate(zip(batch.intents, batch.problem.orders, strict=True)):
        fill = by_digest.get(intent.digest)
        if fill is None:
            continue
        swap = intent.swap
        over = fill.buy * swap.sell_amount - fill.sell * swap.buy_amount
        if swap.kind is Kind.EXACT_IN:
            found[i] = float(over / swap.sell_amount / batch.unit[order.buy])
        else:
            found[i] = float(over / swap.buy_amount / batch.unit[order.sell])
    return found


def arbitrage_floor(snapshot: Snapshot, batch: Batch) -> tuple[float, list[tuple[Leg, ...]]]:
    """What a plan without any input yields, in exact integers, in the numeraire; and the plan.

    Cycles through the tokens in which surplus counts are taken from the program without orders and
    replayed one after another with the pools' integers; 0 when none gains.
    """
    counted = {order.sell if order.exact_out else order.buy for order in batch.problem.orders}
    targets = sorted(n for n in counted if batch.graph.nodes[n].stage == graph.NOW)
    flow = program.idle(batch.problem, targets)
    pools: dict[str, Pool] = {pool.id: pool for pool in snapshot.pools}
    used = pricing.used_edges(batch, flow)
    total = 0.0
    exhibited: list[tuple[Leg, ...]] = []
    for target in targets:
        node = batch.graph.nodes[target]
        for _ in range(8):
            cycle = _cycle_through(node, used)
            if cycle is None:
                break
            amount = min(used[edge] for edge in cycle)
            start = int(used[cycle[0]] * batch.unit[target])
            legs = _replay_cycle(cycle, start, pools)
            if legs:
                total += sum(
                    _net(legs, batch.graph.nodes[n].token) / float(batch.unit[n]) * batch.scale
                    for n in targets
                )
                exhibited.append(legs)
            for edge in cycle:
                used[edge] -= amount
            used = {edge: left for edge, left in used.items() if left > 1e-9}
    return total, exhibited


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


def _net(legs: Sequence[Leg], token: TokenId) -> int:
    """What the legs leave of a token."""
    came = sum(leg.amount_out for leg in legs if leg.token_out == token)
    return came - sum(leg.amount_in for leg in legs if leg.token_in == token)


def _replay_cycle(cycle: list[_EdgeKey], start: int, pools: dict[str, Pool]) -> tuple[Leg, ...]:
    """The legs of a cycle in integers; none, and the pools stay, unless it gains."""
    after = dict(pools)
    legs: list[Leg] = []
    amount = start
    for tail, head, name in cycle:
        if name not in after:
            return ()
        step = step_of(after[name], tail.token, head.token, amount, Exact.IN)
        legs.append(Leg(name, tail.token, head.token, step.amount_in, step.amount_out, step.gas))
        after[name] = step.next_pool
        amount = step.amount_out
    if amount <= legs[0].amount_in:
        return ()
    pools.update(after)
    return tuple(legs)


def binding(batch: Batch, plan: Plan, relaxed: Plan) -> list[str]:
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


def node_name(node: Node) -> str:
    """``chain:address``, with ``@escrow`` where a cross-chain order's sold tokens lie."""
    return str(node.token) if node.stage == graph.NOW else f"{node.token}@escrow"


def decimal(value: float) -> str:
    """A decimal string that round-trips the float."""
    return format(value, ".17g")


def nothing(snapshot_hash: str) -> Certificate:
    """The certificate of a batch without an order that could be priced."""
    return Certificate(
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
        snapshot_hash=snapshot_hash,
    )

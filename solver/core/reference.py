"""The reference outcome: what each pair gets when pairs are served one after another.

Each directed pair in turn takes the best plan that leaves those before it what they have; in a
batch of many pairs some take their turn together. The order comes from a hash of the block that
closed the batch and of the pair, so that no client can choose it. The outcome R is feasible by
construction. The surplus and the rate of each pair in it are the least that the batch may give to
that pair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from solver.core import curves, program
from solver.core.acyclic import Rule, acyclic
from solver.core.crypto import keccak
from solver.core.problem import Batch, Floor, Plan, Problem, surplus_of
from solver.core.types import TokenId

#: Room for rounding to integers between a floor and what a plan must reach.
_ROOM = 1e-6
_MOST_VARIANTS = 6
_MOST_PAIRS, _TURNS = 16, 4
_NEAR = 1.05
_HOPS = 4
_MOST_SERVED = 12
_TINY = 1e-12


Broken = Callable[[Batch, Plan], Batch | None]
"""The batch with the rows that a plan breaks; None where it breaks none."""


class Outcome(Struct, frozen=True):
    """R: its plan, which orders it fills, and what it guarantees: floors and rates; and caps.

    ``plan`` is None where R fills nothing. ``rates`` has 0 for orders that it leaves out.
    """

    plan: Plan | None
    active: list[bool]
    floors: tuple[Floor, ...]
    rates: tuple[float, ...]
    caps: tuple[float, ...]


def reference(
    batch: Batch, seed: str, lost: Collection[int] = (), broken: Broken = lambda batch, plan: None
) -> Outcome:
    """Serve the pairs one after another; each leaves all before it their surplus and rate.

    ``lost`` are orders that get nothing here. A turn whose plan has ``broken`` rows is served again
    with them.
    """
    problem = batch.problem
    count = len(problem.orders)
    if count == 1:
        return Outcome(None, [True], (), (), ())  # nobody to be fair to
    caps = tuple(_cap(problem, i) for i in range(count))
    problem = replace(problem, caps=caps)
    reached: Plan | None = None
    active = [False] * count
    for pairs in _turns(_groups(batch, seed, lost)):
        turn = _with_takers(problem, pairs, active)
        served = _serve(replace(batch, problem=problem), turn, active) if turn else None
        for _ in range(_MOST_SERVED):
            wider = broken(replace(batch, problem=problem), served[1]) if served else None
            if wider is None:
                break
            problem = wider.problem
            served = _serve(wider, turn, active)
        if served is not None:
            members, reached = served
            active = [on or i in members for i, on in enumerate(active)]
            for group in turn:
                inside = tuple(i for i in group if i in members)
                problem = _guaranteed(problem, group, inside, reached)
    return Outcome(reached, active, problem.floors, problem.rates, caps)


def at_prices(batch: Batch, prices: Mapping[TokenId, float]) -> Outcome:
    """No outcome: nothing is owed, and rates are capped by one price per token.

    ``prices`` are in the numeraire per base unit; a token without one leaves its pairs uncapped.
    """
    caps = []
    for i, order in enumerate(batch.problem.orders):
        sell, buy = (
            prices.get(batch.graph.nodes[n].token, 0.0) * float(batch.unit[n])
            for n in (order.sell, order.buy)
        )
        cap = sell / buy * (1.0 + _ROOM) if sell > 0.0 and buy > 0.0 else batch.problem.cap(i)
        caps.append(max(cap, order.limit * (1.0 + _ROOM)))
    return Outcome(None, [], (), (), tuple(caps))


def _serve(
    batch: Batch, turn: Sequence[tuple[int, ...]], active: Sequence[bool]
) -> tuple[tuple[int, ...], Plan] | None:
    """The members of one turn's pairs to fill, and the plan; None where nobody gains."""
    best: tuple[tuple[int, ...], Plan] | None = None
    most = _ROOM
    several = len(turn) > 1
    variants = _together(batch.problem, turn, active) if several else None
    for members in _variants(batch.problem, turn[0]) if variants is None else variants:
        plan = acyclic(batch, _rule(members, active))
        if plan is not None:
            gained = surplus_of(batch.problem, members, plan)
            if gained > most:
                best, most = (members, plan), gained + _ROOM
            if several:
                break
    return best


def _together(
    problem: Problem, turn: Sequence[tuple[int, ...]], active: Sequence[bool]
) -> list[tuple[int, ...]]:
    """What of several pairs can be filled at once: what the relaxation fills, then without the
    orders that are all or nothing.
    """
    group = {i for pair in turn for i in pair}
    relaxed = program.solve(problem, [on or i in group for i, on in enumerate(active)])
    shares = program.shares_of(problem, relaxed)
    filled = [shares[i] > program.FILLED and i in group for i in range(len(problem.orders))]
    filled = program.together(problem, filled)
    whole = [on and (problem.orders[i].divisible or shares[i] > 1.0 - _ROOM) for i, on in
             enumerate(filled)]  # fmt: skip
    partial = [on and problem.orders[i].divisible for i, on in enumerate(filled)]
    variants = [tuple(i for i in sorted(group) if on[i]) for on in (whole, partial)]
    return [members for members in dict.fromkeys(variants) if members]


def _with_takers(
    problem: Problem, groups: Sequence[tuple[int, ...]], active: Sequence[bool]
) -> list[tuple[int, ...]]:
    """The pairs whose sold token is connected to the bought one by pools, by the orders that have
    something and by these themselves.

    All that another could be paid is what others leave, for tokens that nobody takes.
    """
    arcs, orders = problem.arcs, problem.orders
    usable = arcs.capacity > 0.0
    members = {i for group in groups for i in group}
    takers = [order for i, order in enumerate(orders) if active[i] or i in members]
    # An order turns what it buys into what it sells.
    tail = np.concatenate([arcs.tail[usable], [order.buy for order in takers]]).astype(int)
    head = np.concatenate([arcs.head[usable], [order.sell for order in takers]]).astype(int)
    reached: dict[int, NDArray[np.bool_]] = {}
    found = []
    for group in groups:
        order = orders[group[0]]
        if order.sell not in reached:
            reached[order.sell] = _reached_from(order.sell, tail, head, problem.node_count)
        if reached[order.sell][order.buy]:
            found.append(group)
    return found


def _reached_from(
    node: int, tail: NDArray[np.int_], head: NDArray[np.int_], count: int
) -> NDArray[np.bool_]:
    """Which nodes links lead to, the node itself included."""
    reached = np.zeros(count, dtype=bool)
    reached[node] = True
    before = 0
    while before < np.count_nonzero(reached):
        before = int(np.count_nonzero(reached))
        reached[head[reached[tail]]] = True
    return reached


def _rule(members: tuple[int, ...], active: Sequence[bool]) -> Rule:
    """What is best for the members while everybody before them keeps what they have."""
    trial = [on or i in members for i, on in enumerate(active)]

    def plan(problem: Problem) -> Plan | None:
        found = program.alone(problem, trial, members)
        if found is None:
            return None
        shared = program.at_one_rate(problem, found, set(members))
        return shared if keeps_floors(problem, shared) else None

    return plan


def _guaranteed(
    problem: Problem, group: Sequence[int], members: Sequence[int], plan: Plan
) -> Problem:
    """The problem with what a pair has got: its rate, and floors under its surplus."""
    rates = list(problem.rates or [0.0] * len(problem.orders))
    for i in members:
        if plan.sold[i] > _TINY:
            rates[i] = float(plan.bought[i] / plan.sold[i]) * (1.0 - _ROOM)
    exact_in = tuple(i for i in group if not problem.orders[i].exact_out)
    owners = [exact_in, *((i,) for i in members if problem.orders[i].exact_out)]
    floors = list(problem.floors)
    for owner in owners:
        owed = surplus_of(problem, owner, plan) * (1.0 - _ROOM) - _ROOM / 10.0
        if owed > 0.0:
            floors.append(Floor(owner, owed))
    return replace(problem, floors=tuple(floors), rates=tuple(rates))


def _cap(problem: Problem, i: int) -> float:
    """The best of the reference rate, the pools' rate for a first unit, and the limits near them.

    What pools that are out of line would yield without any order is not part of any rate: one
    small order alone must not be paid all of it.
    """
    ends = problem.orders[i].sell, problem.orders[i].buy
    reference = float(problem.prices[ends[0]] / problem.prices[ends[1]])
    fair = max(best_path(problem, *ends), reference)
    limits = [order.limit for order in problem.orders if (order.sell, order.buy) == ends]
    near = [limit for limit in limits if limit <= _NEAR * fair]
    return max([fair, *near]) * (1.0 + 10.0 * _ROOM)


def best_path(problem: Problem, sell: int, buy: int) -> float:
    """The marginal rate of the best path of pools, before anybody trades."""
    arcs = problem.arcs
    slope = np.where(arcs.capacity > 0.0, curves.slope(arcs, np.zeros(len(arcs))), 0.0)
    rate = np.zeros(problem.node_count)
    rate[sell] = 1.0
    for _ in range(_HOPS):
        further = rate.copy()
        np.maximum.at(further, arcs.head, rate[arcs.tail] * slope)
        further[sell] = 1.0
        rate = further
    return float(rate[buy])


def keeps_floors(problem: Problem, plan: Plan) -> bool:
    """Whether a plan gives every pair what it has in the reference outcome, up to rounding.

    A rate may be as much lower as those that are owed are.
    """
    return all(
        surplus_of(problem, floor.members, plan)
        >= floor.amount * (1.0 - _ROOM)
        - _ROOM * (1.0 + float(plan.bought[list(floor.members)].sum()))
        for floor in problem.floors
    )


def _groups(batch: Batch, seed: str, lost: Collection[int]) -> list[tuple[int, ...]]:
    """The orders of each directed pair; the pairs in the order of a hash of seed and pair."""
    found: dict[str, list[int]] = {}
    for i, intent in enumerate(batch.intents):
        if i in lost:
            continue
        found.setdefault(f"{intent.swap.sell}>{intent.swap.buy}", []).append(i)
    rank = {name: keccak(f"{seed}|{name}".encode()) for name in found}
    return [tuple(found[name]) for name in sorted(found, key=lambda name: rank[name])]


def _turns(groups: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """One pair after another; in a large batch a few turns of as many pairs each."""
    size = 1 if len(groups) <= _MOST_PAIRS else -(-len(groups) // _TURNS)
    return [list(groups[k : k + size]) for k in range(0, len(groups), size)]


def _variants(problem: Problem, group: Sequence[int]) -> list[tuple[int, ...]]:
    """The whole group, then without its tightest limits, one after another.

    Partial orders that ask for the same are in together, or out.
    """
    within = [i in group for i in range(len(problem.orders))]
    units = [tuple(same) for same in program.alike(problem, within)]
    paired = {i for same in units for i in same}
    units += [(i,) for i in group if i not in paired]
    loosest_first = sorted(units, key=lambda unit: (problem.orders[unit[0]].limit, unit))
    sizes = [*range(len(units), max(0, len(units) - _MOST_VARIANTS), -1), 1]
    variants = [tuple(sorted(i for unit in loosest_first[:n] for i in unit)) for n in sizes]
    return list(dict.fromkeys(variants))

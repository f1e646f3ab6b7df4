"""The reference outcome: what each pair gets when pairs are served one after another.

Each directed pair in turn takes the best plan that leaves those before it what they have. The
order comes from a hash that no client can choose. The outcome is feasible by construction; the
surplus of each pair in it is the least that the joint program may give to that pair, so that a
batch never takes from one pair to give to another.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core import program
from solver.core.crypto import keccak
from solver.core.problem import Batch, Floor, Plan, Problem

#: Room for rounding to integers between a floor and what a plan must reach.
_ROOM = 1e-6
_MOST_VARIANTS = 6
_NEAR = 1.05


class Outcome(Struct, frozen=True):
    """Which orders the reference outcome fills, the floor of every pair, the cap of every order."""

    active: list[bool]
    floors: tuple[Floor, ...]
    caps: tuple[float, ...]


def reference(batch: Batch, seed: str) -> Outcome:
    """Serve the pairs one after another."""
    problem = batch.problem
    if len(problem.orders) == 1:
        return Outcome([True], (), ())  # nobody to be fair to
    caps = [0.0] * len(problem.orders)
    active = [False] * len(problem.orders)
    floors: tuple[Floor, ...] = ()
    for group in _groups(batch, seed):
        best: Floor | None = None
        rate = 0.0
        for members in _variants(problem, group):
            trial = [on or i in members for i, on in enumerate(active)]
            plan = program.alone(replace(problem, floors=floors), trial, members)
            if plan is None or not _owes_nobody(problem, floors, plan):
                continue
            gained = surplus_of(problem, members, plan)
            if gained > (best.amount if best else 0.0) + _ROOM:
                best = Floor(members, gained)
                sold = sum(float(plan.sold[i]) for i in members)
                rate = sum(float(plan.bought[i]) for i in members) / max(sold, 1e-12)
        for i in group:
            caps[i] = _cap(problem, group, i, rate)
        if best is not None:
            floors = (*floors, Floor(best.members, best.amount * (1.0 - _ROOM) - _ROOM / 10.0))
            active = [on or i in best.members for i, on in enumerate(active)]
    owed = tuple(floor for floor in floors if floor.amount > 0.0)
    return Outcome(active, owed, tuple(caps))


def _cap(problem: Problem, group: Sequence[int], i: int, rate: float) -> float:
    """The best of reference price, reference outcome and the group's limits that are near them."""
    order = problem.orders[i]
    fair = max(rate, problem.prices[order.sell] / problem.prices[order.buy])
    limits = [problem.orders[k].limit for k in group]
    best = max(fair, *(limit for limit in limits if limit <= _NEAR * fair), 0.0)
    return float(best) * (1.0 + 10.0 * _ROOM)


def surplus_of(problem: Problem, members: Sequence[int], plan: Plan) -> float:
    """What the members get beyond their limits, at reference prices."""
    total = 0.0
    for i in members:
        order = problem.orders[i]
        over = float(plan.bought[i]) - order.limit * float(plan.sold[i])
        if order.exact_out:
            total += problem.prices[order.sell] * over / order.limit
        else:
            total += problem.prices[order.buy] * over
    return total


def _owes_nobody(problem: Problem, floors: Sequence[Floor], plan: Plan) -> bool:
    return all(
        surplus_of(problem, floor.members, plan) >= floor.amount * (1.0 - _ROOM) - _ROOM
        for floor in floors
    )


def _groups(batch: Batch, seed: str) -> list[tuple[int, ...]]:
    """The exact-in orders of each directed pair and each exact-out order, in a hashed order."""
    found: dict[str, list[int]] = {}
    for i, order in enumerate(batch.problem.orders):
        swap = batch.intents[i].swap
        name = f"{swap.sell}>{swap.buy}"
        if order.exact_out:
            name += f"={batch.intents[i].digest}"
        found.setdefault(name, []).append(i)
    rank = {name: keccak(f"{seed}|{name}".encode()) for name in found}
    return [tuple(found[name]) for name in sorted(found, key=lambda name: rank[name])]


def _variants(problem: Problem, group: Sequence[int]) -> list[tuple[int, ...]]:
    """The whole group, then without its tightest limits, one after another."""
    loosest_first = sorted(group, key=lambda i: (problem.orders[i].limit, i))
    sizes = range(len(loosest_first), max(0, len(loosest_first) - _MOST_VARIANTS), -1)
    variants = [tuple(sorted(loosest_first[:size])) for size in sizes]
    if loosest_first[:1] and (loosest_first[0],) not in variants:
        variants.append((loosest_first[0],))
    return variants

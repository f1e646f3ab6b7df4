"""The joint program of a batch.

    maximise    Σ_d p_t·(Y_d − Σ ℓ_i x_i)  +  Σ_exact-out p_s·(y_i/ℓ_i − x_i)
    subject to  at each node: what orders sell + what arcs bring ≥ what arcs take + what is paid
                output of an arc ≤ f(input), concave (segments of one column each)
                Y_d ≥ Σ ℓ_i x_i,   x_i ≤ y_i/ℓ_i,   named extra rows  Σ c_i·fill_i ≤ rhs
                all-or-nothing: x_i ∈ {0, Δ_i};   one rate per pair: x_i > 0 ⇒ Y_d ≥ ℓ_i X_d
                surplus of a pair ≥ its floor F_d, the surplus of the reference outcome

Everything inside is normalised: one unit of any token is worth the largest order of the batch at
reference prices. GLOP solves the relaxation on segments that shrink around the solution; SCIP
decides the binaries, ended by a node limit, never by a clock. The duals are only a proposal: the
proof is made by :mod:`solver.core.certificate`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.curves import Array
from solver.core.problem import Plan, Problem
from solver.core.program import optimiser
from solver.core.program.flows import Flows, breakpoints, cuts_of, flows
from solver.core.program.optimiser import Columns, ProgramError

_ROUNDS = 7
_SHRINK = 0.15
_TINY = 1e-12
#: An order with a smaller share is not filled.
FILLED = 1e-9
_REWARD = 100.0
_ASIDE = 1e-4
_ALONE_ROUNDS = 5
_NEAR_BEST = 1e-4  # of the surplus: how near the best a choice in a large market has to be


class _Model(Struct):
    """Columns plus where the parts of the batch are in them."""

    ways: Flows
    columns: Columns
    sold: list[int]
    bought: list[int]
    payout: dict[tuple[int, int], int]
    extra_row: list[int]


def solve(
    problem: Problem, active: Sequence[bool] | None = None, start: Array | None = None
) -> Plan:
    """The relaxed program on shrinking segments. Inactive orders are fixed at zero.

    Raises ProgramError when no algorithm returns a solution.
    """
    try:
        return _solve(problem, active, start)
    except ProgramError:
        if problem.guess is None:
            raise
        return _solve(replace(problem, guess=None), active, start)


def _solve(problem: Problem, active: Sequence[bool] | None, start: Array | None) -> Plan:
    flow = np.zeros(len(problem.arcs)) if start is None else start
    nu = problem.first_nu
    spread = 1.0
    best: Plan | None = None
    for _ in _rounds(problem, _ROUNDS):
        breaks = cuts_of(problem, nu, flow, spread)
        plan = _solve_once(problem, _relaxed(problem, breaks, active))
        flow, nu = plan.flow, plan.nu
        spread *= _SHRINK
        if best is None or plan.value >= best.value:
            gained = np.inf if best is None else plan.value - best.value
            best = plan
            if gained < 1e-11:
                break
    assert best is not None
    return best


def duals(
    problem: Problem,
    start: Plan,
    whole: frozenset[int] = frozenset(),
    out: frozenset[int] = frozenset(),
) -> Plan:
    """The relaxation once more, for its ν and λ.

    ``whole`` orders are pulled in by a reward, not forced, so that ν exists even where they
    cannot be filled; ``out`` orders are fixed at zero.
    """
    active = [i not in out for i in range(len(problem.orders))]
    flow, nu = start.flow, start.nu
    best = start
    for round_number in _rounds(problem, 4):
        breaks = cuts_of(problem, nu, flow, _SHRINK**round_number)
        model = _relaxed(problem, breaks, active)
        for i in whole:
            fixed = model.bought[i] if problem.orders[i].exact_out else model.sold[i]
            model.columns.cost[fixed] += _REWARD
        best = _solve_once(problem, model)
        flow, nu = best.flow, best.nu
    return best


def alone(problem: Problem, active: Sequence[bool], focus: Collection[int]) -> Plan | None:
    """The plan for exactly the active orders that is best for those in ``focus``, or None.

    All-or-nothing orders are whole, those that ask for the same are filled in proportion. Orders
    not in ``focus`` count so little that they only break ties.
    """
    flow, nu = np.zeros(len(problem.arcs)), problem.first_nu
    best: Plan | None = None
    for number in _rounds(problem, _ALONE_ROUNDS):
        breaks = cuts_of(problem, nu, flow, _SHRINK ** max(0, number - 1))
        whole = number >= _ALONE_ROUNDS - 2  # coarse secants may lie below a limit that holds
        model = _relaxed(problem, breaks, active, chosen=whole, focus=focus)
        try:
            plan = _solve_once(problem, model)
        except ProgramError:
            continue
        best = plan if whole else None
        flow, nu = plan.flow, plan.nu / max(float(np.max(plan.nu, initial=0.0)), _TINY)
    return None if best is None else _pro_rata(problem, active, best)


def choose(problem: Problem, plan: Plan, active: Sequence[bool]) -> list[bool] | None:
    """Which orders to fill when some are all-or-nothing or several limits share one rate.

    The segments of ``plan`` are kept and binaries added (SCIP). An order that the program leaves
    at zero is out. None when the program returns nothing within its node limit.
    """
    near_only = problem.guess is not None
    breaks = breakpoints(problem.arcs, plan.nu, plan.flow, _SHRINK, near_only)
    model = _relaxed(problem, breaks, active)
    binaries = _add_binaries(problem, model, active)
    answer = optimiser.run(model.columns, "scip", gap=_NEAR_BEST if near_only else 0.0)
    if answer is None:
        return None
    values, _ = answer
    chosen = [on and bool(values[binaries[i]] > 0.5) for i, on in enumerate(active)]
    return together(problem, chosen)


def together(problem: Problem, chosen: Sequence[bool]) -> list[bool]:
    """The choice with all partial orders that ask for the same as a chosen one."""
    whole = list(chosen)
    for group in alike(problem, [True] * len(whole)):
        if any(whole[i] for i in group):
            for i in group:
                whole[i] = True
    return whole


def settle(problem: Problem, active: Sequence[bool], plan: Plan) -> Plan:
    """The fills and flows of the largest total for a chosen set of orders.

    Whole where indivisible, one rate per pair. Orders that ask for the same are filled in
    proportion to their sizes, so that splitting one makes no difference. Raises ProgramError.
    """
    flow, nu = plan.flow, plan.nu
    best: Plan | None = None
    for round_number in _rounds(problem, 4):
        spread = _SHRINK ** (round_number + 1)
        breaks = cuts_of(problem, nu, flow, spread)
        model = _relaxed(problem, breaks, active, chosen=True)
        try:
            found = _solve_once(problem, model)
        except ProgramError:
            if best is None:
                continue  # coarse secants may lie below a limit that holds
            break
        flow, nu, best = found.flow, found.nu, found
    if best is None:
        raise ProgramError("the chosen orders have no plan")
    return _pro_rata(problem, active, best)


def idle(problem: Problem, targets: Sequence[int]) -> Array:
    """The flow that yields most of the target tokens, at their prices, with no order at all."""
    flow, nu = np.zeros(len(problem.arcs)), problem.first_nu
    bare = replace(problem, orders=(), rows=(), floors=())
    for round_number in _rounds(problem, 4):
        model = _relaxed(bare, cuts_of(bare, nu, flow, _SHRINK**round_number), None)
        for target in targets:
            column = model.columns.variable(float(problem.prices[target]), np.inf)
            model.columns.put(target, column, -1.0)
        try:
            plan = _solve_once(bare, model)
        except ProgramError:
            return flow
        if plan.value <= 1e-12:
            return np.zeros_like(flow)
        flow, nu = plan.flow, plan.nu
    return flow


def _rounds(problem: Problem, most: int) -> range:
    """The rounds in which segments shrink; with whole curves only the last."""
    return range(most) if problem.guess is None else range(most - 1, most)


def _relaxed(
    problem: Problem,
    breaks: Array | None,
    active: Sequence[bool] | None,
    chosen: bool = False,
    focus: Collection[int] | None = None,
) -> _Model:
    floors = _floors(problem, active)
    orders = problem.orders
    ways = flows(problem, breaks)
    columns, nodes = ways.columns, ways.nodes
    model = _Model(ways, columns, [], [], {}, [])
    shortfall: dict[tuple[int, int], list[tuple[int, float]]] = {}
    pairs: dict[tuple[int, int], list[int]] = {}
    for i, order in enumerate(orders):
        on = 1.0 if active is None or active[i] else 0.0
        weight = 1.0 if focus is None or i in focus else _ASIDE
        price_in = weight * problem.prices[order.sell]
        price_out = weight * problem.prices[order.buy]
        whole = chosen and on > 0.0 and not order.divisible
        if order.exact_out:
            sold = columns.variable(-price_in, on * order.size / order.limit)
            value = price_in / order.limit
            bought = columns.variable(value, on * order.size, order.size if whole else 0.0)
            owed = floors.get((i,), 0.0) / max(problem.prices[order.sell], _TINY)
            terms = [(bought, 1.0 / order.limit), (sold, -1.0)]
            if owed:
                terms.append((columns.variable(-_REWARD, owed), 1.0))
            columns.at_least(owed, *terms)
            columns.at_least(0.0, (sold, 1.0), (bought, -1.0 / problem.cap(i)))
            columns.put(nodes[order.buy], bought, -1.0)
        else:
            low = order.size if whole else 0.0
            sold = columns.variable(-order.limit * price_out, on * order.size, low)
            pair = (order.sell, order.buy)
            if pair not in model.payout:
                model.payout[pair] = columns.variable(price_out, np.inf)
                columns.put(nodes[order.buy], model.payout[pair], -1.0)
            bought = model.payout[pair]
            shortfall.setdefault(pair, []).append((sold, -order.limit))
            pairs.setdefault(pair, []).append(i)
        columns.put(nodes[order.sell], sold, 1.0)
        model.sold.append(sold)
        model.bought.append(bought)
    for pair, terms in shortfall.items():
        if all(columns.upper[model.sold[i]] == 0.0 for i in pairs[pair]):
            columns.upper[model.payout[pair]] = 0.0
        owed = floors.get(pair, 0.0) / max(problem.prices[pair[1]], _TINY)
        slack = [(columns.variable(-_REWARD, owed), 1.0)] if owed else []
        columns.at_least(owed, (model.payout[pair], 1.0), *terms, *slack)
        # A pair that sells nothing is paid nothing, and none is paid above its cap.
        sold_terms = [(model.sold[i], problem.cap(i)) for i in pairs[pair]]
        columns.at_least(0.0, (model.payout[pair], -1.0), *sold_terms)
    if chosen and active is not None:
        _level_rows(problem, model, active)
    for extra in problem.rows:
        terms = [
            (model.bought[i] if orders[i].exact_out else model.sold[i], -c / orders[i].size)
            for i, c in sorted(extra.coefficients.items())
        ]
        model.extra_row.append(columns.at_least(-extra.rhs, *terms))
    return model


def alike(problem: Problem, active: Sequence[bool]) -> list[list[int]]:
    """The active partial orders that ask for the same: pair, kind and limit, and no extra row."""
    bound = {i for row in problem.rows for i in row.coefficients}
    found: dict[tuple[object, ...], list[int]] = {}
    for i, order in enumerate(problem.orders):
        if active[i] and order.divisible and i not in bound:
            same = (order.sell, order.buy, order.exact_out, f"{order.limit:.12e}")
            found.setdefault(same, []).append(i)
    return [group for group in found.values() if len(group) > 1]


def _pro_rata(problem: Problem, active: Sequence[bool], plan: Plan) -> Plan:
    sold, bought = plan.sold.copy(), plan.bought.copy()
    for group in alike(problem, active):
        sizes = np.array([problem.orders[i].size for i in group])
        for amounts in (sold, bought):
            amounts[group] = float(np.sum(amounts[group])) * sizes / float(np.sum(sizes))
    return replace(plan, sold=sold, bought=bought)


def _floors(problem: Problem, active: Sequence[bool] | None) -> dict[tuple[int, ...], float]:
    """What is owed, by (sell, buy) for exact-in pairs and by (order,) for exact-out orders."""
    owed: dict[tuple[int, ...], float] = {}
    for floor in problem.floors:
        if active is None or any(active[i] for i in floor.members):
            first = problem.orders[floor.members[0]]
            key = floor.members if first.exact_out else (first.sell, first.buy)
            owed[key] = floor.amount
    return owed


def _level_rows(problem: Problem, model: _Model, active: Sequence[bool]) -> None:
    """The rate of a pair is at least every chosen order's limit and R's rate: Y_d ≥ ℓ_i·X_d."""
    strictest: dict[tuple[int, int], float] = {}
    for i, order in enumerate(problem.orders):
        if active[i]:
            pair = (order.sell, order.buy)
            strictest[pair] = max(strictest.get(pair, 0.0), order.limit, problem.least(i))
    for pair, group in _pairs(problem, active).items():
        terms = [(model.sold[i], -strictest[pair]) for i in group]
        model.columns.at_least(0.0, (model.payout[pair], 1.0), *terms)
    for i, order in enumerate(problem.orders):
        if active[i] and order.exact_out:
            rate = strictest[order.sell, order.buy]
            model.columns.at_least(0.0, (model.bought[i], 1.0), (model.sold[i], -rate))


def _pairs(problem: Problem, active: Sequence[bool]) -> dict[tuple[int, int], list[int]]:
    members: dict[tuple[int, int], list[int]] = {}
    for i, order in enumerate(problem.orders):
        if active[i] and not order.exact_out:
            members.setdefault((order.sell, order.buy), []).append(i)
    return members


def shares_of(problem: Problem, plan: Plan) -> list[float]:
    """How much of each order a plan fills, in [0, 1]."""
    return [
        float((plan.bought[i] if order.exact_out else plan.sold[i]) / order.size)
        for i, order in enumerate(problem.orders)
    ]


def needs_binaries(problem: Problem, plan: Plan) -> bool:
    """Whether the relaxed plan fills a whole order in part or leaves it out, or breaks a limit.

    Only then does the choice of the orders need integers.
    """
    shares = shares_of(problem, plan)
    if any(x < 1.0 - 1e-7 for x, o in zip(shares, problem.orders, strict=True) if not o.divisible):
        return True
    groups: dict[tuple[int, int], list[int]] = {}
    for i, order in enumerate(problem.orders):
        if shares[i] > FILLED:
            groups.setdefault((order.sell, order.buy), []).append(i)
    for group in groups.values():
        rate = sum(map(float, plan.bought[group])) / max(sum(map(float, plan.sold[group])), _TINY)
        if any(rate < problem.orders[i].limit * (1.0 - 1e-9) for i in group):
            return True
    return False


def _add_binaries(problem: Problem, model: _Model, active: Sequence[bool]) -> list[int]:
    """z_i: order i is filled, and then Y_d ≥ ℓ_i·X_d in its pair.

    The big M of a pair is what the rate can be short by: Y_d ≥ Σ ℓ_j·x_j holds anyway.
    """
    columns, orders = model.columns, problem.orders
    binaries = []
    members = _pairs(problem, active)
    for i, order in enumerate(orders):
        binary = columns.variable(0.0, 1.0 if active[i] else 0.0)
        columns.integer.append(binary)
        binaries.append(binary)
        quantity = model.bought[i] if order.exact_out else model.sold[i]
        columns.at_least(0.0, (binary, order.size), (quantity, -1.0))
        if not order.divisible:
            columns.at_least(0.0, (binary, -order.size), (quantity, 1.0))
        group = members.get((order.sell, order.buy), [])
        short = sum(max(0.0, order.limit - orders[j].limit) * orders[j].size for j in group)
        if short > 0.0:
            terms = [(model.sold[j], -order.limit) for j in group]
            payout = model.payout[(order.sell, order.buy)]
            columns.at_least(-short, (payout, 1.0), (binary, -short), *terms)
    for pair, group in members.items():
        least = max(problem.least(i) for i in group)
        if least > 0.0:
            terms = [(model.sold[j], -least) for j in group]
            columns.at_least(0.0, (model.payout[pair], 1.0), *terms)
    for i, order in enumerate(orders):
        if order.exact_out and problem.least(i) > 0.0:
            columns.at_least(0.0, (model.bought[i], 1.0), (model.sold[i], -problem.least(i)))
    return binaries


def _solve_once(problem: Problem, model: _Model) -> Plan:
    values, duals = model.ways.optimum()
    flow = model.ways.on_arcs(values, len(problem.arcs))
    sold = values[model.sold]
    bought = _bought(problem, model, values, sold)
    value = float(np.dot(model.columns.cost[: len(values)], values))
    return Plan(
        flow,
        sold,
        bought,
        np.maximum(-duals[: problem.node_count], 0.0),
        np.maximum(-duals[model.extra_row], 0.0) if model.extra_row else np.zeros(0),
        value,
    )


def _bought(problem: Problem, model: _Model, values: Array, sold: Array) -> Array:
    """What each order gets; exact-in orders of a pair share its payout in proportion."""
    totals: dict[tuple[int, int], float] = {}
    for i, order in enumerate(problem.orders):
        if not order.exact_out:
            pair = (order.sell, order.buy)
            totals[pair] = totals.get(pair, 0.0) + float(sold[i])
    bought = np.zeros(len(problem.orders))
    for i, order in enumerate(problem.orders):
        if order.exact_out:
            bought[i] = values[model.bought[i]]
        else:
            total = totals[(order.sell, order.buy)]
            bought[i] = values[model.bought[i]] * sold[i] / total if total > _TINY else 0.0
    return bought

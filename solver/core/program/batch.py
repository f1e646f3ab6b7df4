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

from solver.core import curves
from solver.core.curves import Arcs, Array
from solver.core.problem import Plan, Problem
from solver.core.program.optimiser import Columns, ProgramError, run

_GRID = np.concatenate([-np.geomspace(3.0, 0.02, 9), [0.0], np.geomspace(0.02, 3.0, 9)])
_ROUNDS = 7
_SHRINK = 0.15
_TINY = 1e-12
_REWARD = 100.0
_ASIDE = 1e-4
_ALONE_ROUNDS = 5


class _Model(Struct):
    """Columns plus where the parts of the batch are in them."""

    columns: Columns
    segment_arc: list[int]
    sold: list[int]
    bought: list[int]
    payout: dict[tuple[int, int], int]
    extra_row: list[int]


def solve(
    problem: Problem, active: Sequence[bool] | None = None, start: Array | None = None
) -> Plan:
    """The relaxed program on shrinking segments. Inactive orders are fixed at zero.

    Raises ProgramError when neither primal nor dual simplex returns a solution.
    """
    flow = np.zeros(len(problem.arcs)) if start is None else start
    nu = problem.prices
    spread = 1.0
    best: Plan | None = None
    for _ in range(_ROUNDS):
        breaks = _breakpoints(problem.arcs, nu, flow, spread)
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
    for round_number in range(4):
        breaks = _breakpoints(problem.arcs, nu, flow, _SHRINK**round_number)
        model = _relaxed(problem, breaks, active)
        for i in whole:
            fixed = model.bought[i] if problem.orders[i].exact_out else model.sold[i]
            model.columns.cost[fixed] += _REWARD
        best = _solve_once(problem, model)
        flow, nu = best.flow, best.nu
    return best


def alone(problem: Problem, active: Sequence[bool], focus: Collection[int]) -> Plan | None:
    """The plan for exactly the active orders that is best for those in ``focus``, or None.

    All-or-nothing orders are whole. The others count so little that they only break ties.
    """
    flow, nu = np.zeros(len(problem.arcs)), problem.prices
    best: Plan | None = None
    for number in range(_ALONE_ROUNDS):
        breaks = _breakpoints(problem.arcs, nu, flow, _SHRINK ** max(0, number - 1))
        whole = number >= _ALONE_ROUNDS - 2  # coarse secants may lie below a limit that holds
        model = _relaxed(problem, breaks, active, chosen=whole, focus=focus)
        try:
            plan = _solve_once(problem, model)
        except ProgramError:
            continue
        best = plan if whole else None
        flow, nu = plan.flow, plan.nu / max(float(np.max(plan.nu, initial=0.0)), _TINY)
    return best


def choose(
    problem: Problem, plan: Plan, active: Sequence[bool], incumbent: Sequence[bool]
) -> list[bool]:
    """Which orders to fill when some are all-or-nothing or several limits share one rate.

    The segments of ``plan`` are kept and binaries added (SCIP). An order that the program leaves
    at zero is out. When the MIP returns nothing, the incumbent is kept.
    """
    if not _needs_binaries(problem, plan, active):
        return list(active)
    breaks = _breakpoints(problem.arcs, plan.nu, plan.flow, _SHRINK)
    model = _relaxed(problem, breaks, active)
    binaries = _add_binaries(problem, model, active)
    answer = run(model.columns, "scip")
    if answer is None:
        return [on and kept for on, kept in zip(active, incumbent, strict=True)]
    values, _ = answer
    return [on and values[binaries[i]] > 0.5 for i, on in enumerate(active)]


def settle(problem: Problem, active: Sequence[bool], plan: Plan) -> Plan:
    """The final flows for a chosen set of orders: whole where indivisible, one rate per pair.

    First the total surplus, then, among the optima, the largest smallest rate relative to the
    reference prices, so that a surplus that could go to either side is shared.
    """
    flow, nu = plan.flow, plan.nu
    best: Plan | None = None
    for round_number in range(3):
        spread = _SHRINK ** (round_number + 1)
        breaks = _breakpoints(problem.arcs, nu, flow, spread)
        model = _relaxed(problem, breaks, active, chosen=True)
        try:
            found = _solve_once(problem, model)
        except ProgramError:
            if best is None:
                raise
            break
        flow, nu, best = found.flow, found.nu, found
    assert best is not None
    return _share(problem, active, best)


def idle(problem: Problem, targets: Sequence[int]) -> Array:
    """The flow that yields most of the target tokens, at their prices, with no order at all."""
    flow, nu = np.zeros(len(problem.arcs)), problem.prices
    bare = replace(problem, orders=(), rows=(), floors=())
    for round_number in range(4):
        model = _relaxed(bare, _breakpoints(bare.arcs, nu, flow, _SHRINK**round_number), None)
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


def _share(problem: Problem, active: Sequence[bool], plan: Plan) -> Plan:
    if sum(active) < 2:
        return plan
    breaks = _breakpoints(problem.arcs, plan.nu, plan.flow, _SHRINK**3)
    model = _relaxed(problem, breaks, active, chosen=True)
    columns = model.columns
    terms = [(k, cost) for k, cost in enumerate(columns.cost) if cost != 0.0]
    columns.at_least(plan.value - 1e-9 * abs(plan.value) - _TINY, *terms)
    columns.cost = [cost * 1e-3 for cost in columns.cost]
    level = columns.variable(1.0, 10.0)
    pairs: dict[tuple[int, int], float] = {}
    for i, order in enumerate(problem.orders):
        reference = problem.prices[order.sell] / problem.prices[order.buy]
        columns.lower[model.sold[i]] = columns.upper[model.sold[i]] = plan.sold[i]
        if order.exact_out:
            columns.lower[model.sold[i]], columns.upper[model.sold[i]] = 0.0, order.size * 10
            columns.lower[model.bought[i]] = columns.upper[model.bought[i]] = plan.bought[i]
            if plan.bought[i] > _TINY:
                cost = plan.bought[i] / reference
                columns.at_least(-2.0 * cost, (model.sold[i], -1.0), (level, -cost))
        else:
            pair = (order.sell, order.buy)
            pairs[pair] = pairs.get(pair, 0.0) + float(plan.sold[i])
    for pair, total in pairs.items():
        if total > _TINY:
            reference = problem.prices[pair[0]] / problem.prices[pair[1]]
            columns.at_least(0.0, (model.payout[pair], 1.0), (level, -reference * total))
    try:
        shared = _solve_once(problem, model)
    except ProgramError:
        return plan
    return Plan(shared.flow, shared.sold, shared.bought, plan.nu, plan.multipliers, plan.value)


def _breakpoints(arcs: Arcs, nu: Array, flow: Array, spread: float) -> Array:
    """Inputs where each arc is cut, rising along axis 1: shape (arcs, cuts)."""
    price_in = np.maximum(nu[arcs.tail], 1e-9)
    price_out = np.maximum(nu[arcs.head], 1e-9)
    ratio = np.clip(price_in / price_out, 1e-9, 1e9)
    at_prices = np.stack(
        [curves.input_at(arcs, ratio * np.exp(-h * spread)) for h in _GRID], axis=1
    )
    coarse = np.stack([curves.input_at(arcs, np.exp(-h)) for h in (-2.0, 0.0, 2.0, 6.0)], axis=1)
    around = flow[:, None] * np.exp(_GRID * spread)[None, :]
    cuts = np.concatenate([at_prices, coarse, around], axis=1)
    limit = np.where(np.isfinite(arcs.capacity), arcs.capacity, np.inf)
    return np.sort(np.minimum(cuts, limit[:, None]), axis=1)


def _segments(arcs: Arcs, breaks: Array) -> tuple[Array, Array, Array]:
    """Arc number, width and secant slope of every segment that has a width."""
    edges = np.concatenate([np.zeros((len(breaks), 1)), breaks], axis=1)
    widths = np.diff(edges, axis=1)
    shape = edges.shape
    spread = arcs.take(np.repeat(np.arange(len(arcs)), shape[1]))
    heights = np.diff(curves.output(spread, edges.ravel()).reshape(shape), axis=1)
    wide = (widths > 1e-10) & ~arcs.is_linear[:, None]
    arc, cut = np.nonzero(wide)
    linear = np.nonzero(arcs.is_linear)[0]
    slopes = heights[arc, cut] / widths[arc, cut]
    return (
        np.concatenate([arc, linear]).astype(float),
        np.concatenate([widths[arc, cut], arcs.capacity[linear]]),
        np.concatenate([slopes, arcs.par[linear, 0]]),
    )


def _relaxed(
    problem: Problem,
    breaks: Array,
    active: Sequence[bool] | None,
    chosen: bool = False,
    focus: Collection[int] | None = None,
) -> _Model:
    columns = Columns()
    floors = _floors(problem, active)
    arcs, orders = problem.arcs, problem.orders
    nodes = [columns.at_least(0.0) for _ in range(problem.node_count)]
    arc_numbers, widths, slopes = _segments(arcs, breaks)
    segment_arc = [int(number) for number in arc_numbers]
    for arc, width, gradient in zip(segment_arc, widths, slopes, strict=True):
        column = columns.variable(0.0, float(width))
        columns.put(nodes[arcs.tail[arc]], column, -1.0)
        columns.put(nodes[arcs.head[arc]], column, float(gradient))
    model = _Model(columns, segment_arc, [], [], {}, [])
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


def _floors(problem: Problem, active: Sequence[bool] | None) -> dict[tuple[int, ...], float]:
    """What is owed, by (sell, buy) for exact-in pairs and by (order,) for exact-out orders."""
    owed: dict[tuple[int, ...], float] = {}
    for floor in problem.floors:
        if active is None or all(active[i] for i in floor.members):
            first = problem.orders[floor.members[0]]
            key = floor.members if first.exact_out else (first.sell, first.buy)
            owed[key] = floor.amount
    return owed


def _level_rows(problem: Problem, model: _Model, active: Sequence[bool]) -> None:
    """The rate of a pair is at least every chosen order's limit: Y_d ≥ ℓ_i·X_d."""
    members = _pairs(problem, active)
    for pair, group in members.items():
        # Exact-out orders of the pair get the same rate, so their limits count as well.
        strictest = max(
            order.limit
            for i, order in enumerate(problem.orders)
            if i in group or (active[i] and (order.sell, order.buy) == pair)
        )
        terms = [(model.sold[i], -strictest) for i in group]
        model.columns.at_least(0.0, (model.payout[pair], 1.0), *terms)


def _pairs(problem: Problem, active: Sequence[bool]) -> dict[tuple[int, int], list[int]]:
    members: dict[tuple[int, int], list[int]] = {}
    for i, order in enumerate(problem.orders):
        if active[i] and not order.exact_out:
            members.setdefault((order.sell, order.buy), []).append(i)
    return members


def _shares(problem: Problem, plan: Plan) -> list[float]:
    return [
        float((plan.bought[i] if order.exact_out else plan.sold[i]) / order.size)
        for i, order in enumerate(problem.orders)
    ]


def _needs_binaries(problem: Problem, plan: Plan, active: Sequence[bool]) -> bool:
    shares = _shares(problem, plan)
    for i, order in enumerate(problem.orders):
        if active[i] and not order.divisible and 1e-9 < shares[i] < 1.0 - 1e-7:
            return True
    for group in _pairs(problem, active).values():
        filled = [i for i in group if shares[i] > 1e-9]
        sold = sum(float(plan.sold[i]) for i in filled)
        paid = max((float(plan.bought[i]) for i in filled), default=0.0)
        # bought[i] of an exact-in order is its share of the pair at the pair's rate.
        if any(
            paid / max(float(plan.sold[filled[0]]), _TINY) < problem.orders[i].limit * (1 - 1e-9)
            for i in filled
        ):
            return sold > 0.0
    return any(not on for on in active) or any(
        not order.divisible and shares[i] <= 1e-9 for i, order in enumerate(problem.orders)
    )


def _add_binaries(problem: Problem, model: _Model, active: Sequence[bool]) -> list[int]:
    columns = model.columns
    binaries = []
    members = _pairs(problem, active)
    for i, order in enumerate(problem.orders):
        binary = columns.variable(0.0, 1.0 if active[i] else 0.0)
        columns.integer.append(binary)
        binaries.append(binary)
        quantity = model.bought[i] if order.exact_out else model.sold[i]
        columns.at_least(0.0, (binary, order.size), (quantity, -1.0))
        if not order.divisible:
            columns.at_least(0.0, (binary, -order.size), (quantity, 1.0))
        group = members.get((order.sell, order.buy), [])
        if group and group != [i]:
            most = order.limit * sum(problem.orders[j].size for j in group)
            terms = [(model.sold[j], -order.limit) for j in group]
            payout = model.payout[(order.sell, order.buy)]
            columns.at_least(-most, (payout, 1.0), (binary, -most), *terms)
    return binaries


def _solve_once(problem: Problem, model: _Model) -> Plan:
    answer = run(model.columns, "glop", "use_preprocessing: false")
    if answer is None:
        answer = run(model.columns, "glop", "use_preprocessing: false use_dual_simplex: true")
    if answer is None:
        answer = run(model.columns, "glop")
    if answer is None:
        raise ProgramError("the linear program has no solution")
    values, duals = answer
    flow = np.zeros(len(problem.arcs))
    np.add.at(flow, model.segment_arc, values[: len(model.segment_arc)])
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

"""Who gets what: the rates of a batch whose fills are fixed (the auction's second program).

Each directed pair d has one rate τ_d, bought per sold in units of the reference rate ϱ_d = p_s/p_t.
With fills fixed everything is linear in the τ and the flows:

    at each node   what orders sell + what arcs bring ≥ what arcs take + what is paid
    exact-in       sells X_d (given) and is paid ϱ_d·X_d·τ_d
    exact-out      is paid Y_d (given) and sells Y_d/ϱ_d · 1/τ_d
    bounds         τ_d ≥ every filled limit, the pair's floor F_d, its rate in the reference outcome
                   τ_d ≤ the pair's cap

    first    maximise t,   τ_d ≥ t of every pair that can still rise; the pairs that hold t back
             keep what they have, and t rises for the others (leximin, at most a few rounds; in
             a large market one)
    then     maximise the total surplus Σ p·S, every τ_d at least what it has
    always   the total stays within a basis point of the traded volume of the largest possible

No declared limit is in the first target, so that nobody gains by stating another one (measured in
the study of batches; see docs/batches.md). 1/τ is replaced by its tangent, which lies below it, at
the τ of the round before; the sold amount that is returned is Y_d/(ϱ_d·τ_d) itself.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.curves import Array
from solver.core.problem import Plan, Problem, surplus_of
from solver.core.program.flows import Flows, cuts_of, flows
from solver.core.program.optimiser import ProgramError

#: What fairness may cost in total, of the traded volume: a basis point.
PRICE_OF_FAIRNESS = 1e-4
#: A pair below this part of the batch is less than what the optimiser sees.
_DUST = 1e-6
_TINY = 1e-12
_ROUNDS = 4
_SPREAD = 0.15**3
_LOOSE = 1e-9
_ROOM = 1e-7


class _Pair(Struct, frozen=True):
    """A directed pair with fixed fills: its members, what they sell and buy, the range of τ."""

    sell: int
    buy: int
    members: tuple[int, ...]
    sold: float
    bought: float
    unit: float
    low: float
    high: float

    @property
    def volume(self) -> float:
        """What is traded, at reference prices."""
        return self.sold + self.bought / self.unit


class _Rates(Struct, frozen=True):
    """A solution: τ per pair, flows, ν, the smallest τ, and which pairs hold it back."""

    tau: Array
    flow: Array
    nu: Array
    least: float
    holds: tuple[int, ...]


def share(problem: Problem, plan: Plan) -> Plan:
    """The plan with the same fills and fair rates; without an answer, with the rates it has.

    Exact-out orders of a pair get its one rate, so that what they sell changes with it.
    """
    most, plan = plan.value, uniform(problem, plan)
    pairs = _pairs(problem, plan)
    if len(pairs) < 2 and all(len(pair.members) < 2 for pair in pairs):
        return plan
    low = np.array([pair.low for pair in pairs])
    start = _Rates(np.maximum(low, 1.0), plan.flow, plan.nu, 0.0, ())
    try:
        if problem.guess is None or plan.value < most - _LOOSE:
            start = _best(problem, pairs, plan, low, -np.inf, start)
            most = _total(problem, plan, pairs, start.tau)
        enough = most - PRICE_OF_FAIRNESS * sum(pair.volume for pair in pairs)
        low, start = _level(problem, pairs, plan, low, enough, start)
        final = _best(problem, pairs, plan, low * (1.0 - _LOOSE), enough - _LOOSE, start)
    except ProgramError:
        return plan
    return _with_rates(problem, plan, pairs, final)


def uniform(problem: Problem, plan: Plan) -> Plan:
    """The plan with one rate per pair, the worst that an order of the pair has in it.

    Paying less and selling more than needed is always feasible, so this is.
    """
    pairs = _pairs(problem, plan)
    worst = [
        min(float(plan.bought[i] / plan.sold[i]) for i in pair.members) / pair.unit
        for pair in pairs
    ]
    return _with_rates(problem, plan, pairs, _Rates(np.array(worst), plan.flow, plan.nu, 0.0, ()))


def at_one_rate(problem: Problem, plan: Plan, focus: Set[int]) -> Plan:
    """The plan with the same fills and one rate per pair, the best for those in ``focus``.

    Others get no more than in :func:`uniform`, which is the answer where nothing is better.
    """
    worst = uniform(problem, plan)
    if worst.value >= surplus_of(problem, range(len(problem.orders)), plan) - _LOOSE:
        return worst
    pairs = _pairs(problem, worst)
    tau = np.array(
        [worst.bought[pair.members[0]] / worst.sold[pair.members[0]] / pair.unit for pair in pairs]
    )
    pairs = [
        pair if focus & set(pair.members) else replace(pair, high=max(pair.low, float(one)))
        for pair, one in zip(pairs, tau, strict=True)
    ]
    # What holds by as little as segments lose would leave no solution at all.
    low = np.minimum([pair.low for pair in pairs], tau) * (1.0 - _ROOM)
    start = _Rates(tau, worst.flow, worst.nu, 0.0, ())
    try:
        better = _with_rates(
            problem, worst, pairs, _best(problem, pairs, worst, low, -np.inf, start)
        )
    except ProgramError:
        return worst
    return better if better.value > worst.value else worst


def at_mean_rates(problem: Problem, plan: Plan) -> Problem:
    """The problem in which exact-in orders ask for the mean rate of their pair in a plan, where
    some of the pair buy exactly.

    A plan that gives all surplus to those who buy exactly could not be at one rate.
    """
    orders = list(problem.orders)
    for pair in _pairs(problem, plan):
        exact_in = [i for i in pair.members if not orders[i].exact_out]
        if len(exact_in) == len(pair.members) or not exact_in:
            continue
        members = list(pair.members)
        mean = float(plan.bought[members].sum() / plan.sold[members].sum()) * (1.0 - _LOOSE)
        for i in exact_in:
            orders[i] = replace(orders[i], limit=max(orders[i].limit, mean))
    return replace(problem, orders=tuple(orders)) if tuple(orders) != problem.orders else problem


def _pairs(problem: Problem, plan: Plan) -> list[_Pair]:
    found: dict[tuple[int, int], list[int]] = {}
    for i, order in enumerate(problem.orders):
        if min(plan.sold[i], plan.bought[i]) > _TINY:
            found.setdefault((order.sell, order.buy), []).append(i)
    return [_pair(problem, plan, members) for _, members in sorted(found.items())]


def _pair(problem: Problem, plan: Plan, members: Sequence[int]) -> _Pair:
    orders, prices = problem.orders, problem.prices
    sell, buy = orders[members[0]].sell, orders[members[0]].buy
    unit = float(prices[sell] / prices[buy])
    exact_in = [i for i in members if not orders[i].exact_out]
    sold = sum(float(plan.sold[i]) for i in exact_in)
    bought = sum(float(plan.bought[i]) for i in members if orders[i].exact_out)
    low = max(max(orders[i].limit, problem.least(i)) for i in members)
    for floor in problem.floors:
        inside = [i for i in floor.members if i in members]
        if not inside:
            continue
        if orders[inside[0]].exact_out:
            most = plan.bought[inside[0]] / orders[inside[0]].limit - floor.amount / prices[sell]
            low = max(low, float(plan.bought[inside[0]] / max(most, _TINY)))
        else:
            owed = sum(orders[i].limit * float(plan.sold[i]) for i in inside)
            low = max(low, (owed + floor.amount / float(prices[buy])) / max(sold, _TINY))
    high = max(low, min(problem.cap(i) for i in members))
    if sold + bought / unit < _DUST:
        high = max(low, min(high, unit))
    return _Pair(sell, buy, tuple(members), sold, bought, unit, low / unit, high / unit)


def _level(
    problem: Problem,
    pairs: Sequence[_Pair],
    plan: Plan,
    low: Array,
    enough: float,
    start: _Rates,
) -> tuple[Array, _Rates]:
    """Raise the smallest rate, then the smallest of those that can rise further, and so on."""
    low = low.copy()
    free = {d for d, pair in enumerate(pairs) if pair.high > pair.low and pair.volume >= _DUST}
    for _ in range(_ROUNDS if problem.guess is None else 1):
        if not free:
            break
        found = _solve(problem, pairs, plan, low, enough, start, free)
        if any(pairs[d].bought > 0.0 for d in free):  # tangents were elsewhere
            found = _solve(problem, pairs, plan, low, enough, found, free)
        for d in free:
            low[d] = max(low[d], min(found.least, pairs[d].high) * (1.0 - _LOOSE))
        start = found
        held = {d for d in free if d in found.holds or pairs[d].high <= found.least + _LOOSE}
        if not held:
            break
        free -= held
    return low, start


def _best(
    problem: Problem,
    pairs: Sequence[_Pair],
    plan: Plan,
    low: Array,
    enough: float,
    start: _Rates,
) -> _Rates:
    """The rates of the largest total; twice, so that tangents and segments are where it is."""
    first = _solve(problem, pairs, plan, low, enough, start)
    if problem.guess is not None and all(pair.bought == 0.0 for pair in pairs):
        return first  # whole curves, and nothing that a tangent stands for
    return _solve(problem, pairs, plan, low, enough, first)


def _solve(
    problem: Problem,
    pairs: Sequence[_Pair],
    plan: Plan,
    low: Array,
    enough: float,
    start: _Rates,
    free: set[int] | None = None,
) -> _Rates:
    """One linear program: the total where ``free`` is None, else the smallest τ of the free."""
    breaks = cuts_of(problem, start.nu, start.flow, _SPREAD)
    ways = flows(problem, breaks)
    columns = ways.columns
    rates = [
        columns.variable(_gain(problem, pair, tau), max(pair.high, least), float(least))
        for pair, tau, least in zip(pairs, start.tau, low, strict=True)
    ]
    for pair, tau, column in zip(pairs, start.tau, rates, strict=True):
        _put(ways, pair, float(tau), column)
    if np.isfinite(enough):
        terms = [(column, columns.cost[column]) for column in rates]
        columns.at_least(enough - _constant(problem, plan, pairs, start.tau), *terms)
    rows: dict[int, int] = {}
    smallest = -1
    if free is not None:
        columns.cost = [0.0] * len(columns.cost)
        smallest = columns.variable(1.0, min(pairs[d].high for d in free))
        rows = {d: columns.at_least(0.0, (rates[d], 1.0), (smallest, -1.0)) for d in sorted(free)}
    values, duals = ways.optimum()
    nu = start.nu if free is not None else np.maximum(-duals[: problem.node_count], 0.0)
    return _Rates(
        np.array([values[column] for column in rates]),
        ways.on_arcs(values, len(problem.arcs)),
        nu,
        float(values[smallest]) if free is not None else 0.0,
        tuple(d for d, row in rows.items() if -duals[row] > 1e-7),
    )


def _put(ways: Flows, pair: _Pair, tau: float, column: int) -> None:
    """What a pair sells and is paid, as entries of its nodes' rows."""
    columns = ways.columns
    selling, paying = ways.nodes[pair.sell], ways.nodes[pair.buy]
    columns.put(paying, column, -pair.unit * pair.sold)
    columns.row_lower[paying] += pair.bought
    tangent = pair.bought / pair.unit / tau
    columns.put(selling, column, -tangent / tau)
    columns.row_lower[selling] -= pair.sold + 2.0 * tangent


def _gain(problem: Problem, pair: _Pair, tau: float) -> float:
    """The derivative of the pair's surplus by τ."""
    paid = float(problem.prices[pair.buy]) * pair.unit * pair.sold
    return paid + float(problem.prices[pair.sell]) * pair.bought / pair.unit / tau**2


def _total(problem: Problem, plan: Plan, pairs: Sequence[_Pair], tau: Array) -> float:
    """The surplus of all orders at rates τ, at reference prices."""
    rated = _with_rates(problem, plan, pairs, _Rates(tau, plan.flow, plan.nu, 0.0, ()))
    return rated.value


def _constant(problem: Problem, plan: Plan, pairs: Sequence[_Pair], tau: Array) -> float:
    """What the linearised total is at τ = 0."""
    slopes = sum(_gain(problem, pair, t) * t for pair, t in zip(pairs, tau, strict=True))
    return _total(problem, plan, pairs, tau) - float(slopes)


def _with_rates(problem: Problem, plan: Plan, pairs: Sequence[_Pair], rates: _Rates) -> Plan:
    sold, bought = plan.sold.copy(), plan.bought.copy()
    for pair, tau in zip(pairs, rates.tau, strict=True):
        for i in pair.members:
            if problem.orders[i].exact_out:
                sold[i] = bought[i] / (pair.unit * tau)
            else:
                bought[i] = sold[i] * pair.unit * tau
    shared = replace(plan, flow=rates.flow, sold=sold, bought=bought)
    return replace(shared, value=surplus_of(problem, range(len(problem.orders)), shared))

"""The interior point over a whole network, where cycles gain and candidates would prove nothing.

The program and the method are those of :mod:`solver.core.routing.interior`, on every arc and every
joint pool at once. What differs is the linear system: its pattern is that of the network, found
once, and factorised by :mod:`solver.core.routing.sparse`. The order enters as a supply by node, so
that the same program without any supply gives what pure arbitrage yields.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isfinite

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.jit import compiled
from solver.core.kernels import LINEAR, WIDTH, Array, IntArray, KindArray, level_jet
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.extension import gaining
from solver.core.routing.flow import Mask
from solver.core.routing.interior import foresee
from solver.core.routing.joint import known_gain, tightest
from solver.core.routing.model import Stars, spread_levels, stars_of
from solver.core.routing.network import Network, Prices, Settled
from solver.core.routing.sparse import Factor, System, find_pattern

_TO_BOUNDARY = 0.995
_MOST_ITERATIONS = 80
_FAR = 1e6  # in units of the order; no flow is expected beyond
_LEAST = 1e-300
_NEAR, _WIDE = 2e-3, 1e-2  # how far from the money levels are taken, with and without prices
_ALONG = 3e-3  # the same for a part of the network
_SETTLED, _UNIT = 1e-6, 0.1  # accuracy of prices without an order, and its unit in the first gains
_COARSE = 1e-2  # of the order: a route is made feasible and improved anyway
_MOST_ROUNDS = 8
_OUTWARD = 1e-12  # of the sum of non-negative terms: what floating point may have lost
_FIXED = 1e30  # the weight that keeps ν at the target where it is


class Part(Struct, frozen=True):
    """Which arcs, and of joint pools which coins paid in and taken out, a plan may use."""

    arcs: Mask
    pays: Mask
    takes: Mask


def everything(network: Network) -> Part:
    """All of a network."""
    coins = len(network.joint.token)
    return Part(*(np.ones(count, np.bool_) for count in (network.arc_count, coins, coins)))


class Levels(Struct, frozen=True):
    """All levels with flows in units of ``amount``; the first ``plain`` are those of plain arcs."""

    amount: float
    plain: int
    arc_of: IntArray
    tail: IntArray
    head: IntArray
    third: IntArray
    drain: Array
    kappa: Array
    kind: KindArray
    par: Array
    capacity: Array
    coin: IntArray
    scale: Array
    node_nu: Array
    places: IntArray


class Point(Struct, frozen=True):
    """A primal–dual iterate: flows, their multipliers, prices and slacks by node."""

    x: Array
    z: Array
    w: Array
    nu: Array
    s: Array


def system_of(network: Network) -> System:
    """Pattern and places for a network, found when they are first asked for."""
    if network.system is None:
        network.system = _system(network)
    return network.system


def _system(network: Network) -> System:
    stars = _stars(network, 1.0, np.ones(len(network.tokens)))
    single = np.nonzero(network.joint.of_pool[network.pool] < 0)[0]
    tail, head = network.tail[single].astype(np.int64), network.head[single].astype(np.int64)
    edges = np.concatenate(
        [
            np.stack([tail, head], axis=1),
            np.stack([stars.tail, stars.head], axis=1),
            np.stack([stars.tail, stars.third], axis=1),
            np.stack([stars.head, stars.third], axis=1),
        ]
    )
    low, high = edges.min(axis=1), edges.max(axis=1)
    nodes = len(network.tokens) + len(stars.node_nu)
    pattern = find_pattern(nodes, np.unique(np.stack([low, high], axis=1), axis=0))
    place = np.zeros(network.arc_count, np.int64)
    place[single] = pattern.places(tail, head)
    star_places = np.stack(
        [
            pattern.places(stars.tail, stars.head),
            pattern.places(stars.tail, stars.third),
            pattern.places(stars.head, stars.third),
        ]
    )
    return System(nodes, pattern, single, place, star_places)


def _stars(network: Network, amount: float, nu: Array) -> Stars:
    """Every joint pool with all its coins."""
    ones = np.ones(len(network.joint.token))
    tokens = np.arange(len(network.tokens))
    joint = network.joint
    return stars_of(joint, np.arange(len(joint.ann)), ones, ones, tokens, amount, nu)


def levels_at(
    network: Network, system: System, prices: Prices, amount: float, slack: float, also: Mask,
    part: Part | None = None,
) -> Levels:  # fmt: skip
    """The levels worth their input at the given prices less ``slack``, and per token the best in
    and out, so that every price is tied to others; arcs in ``also`` are taken, and further.
    """
    nu, single = prices.nu, system.single
    tail, head = network.tail[single], network.head[single]
    paid = np.maximum(nu[tail], _LEAST)
    worth = network.spot[single] * nu[head] / paid
    best_out, best_in = np.zeros(len(nu)), np.zeros(len(nu))
    np.maximum.at(best_out, tail, worth)
    np.maximum.at(best_in, head, worth)
    least = np.minimum(np.minimum(best_out[tail], best_in[head]), 1.0 - slack)
    chosen = single[((worth >= least) | also[single]) & (worth > 0.0)]
    cost = nu[network.tail[chosen]] * np.where(also[chosen], 1.0 - _WIDE, 1.0)
    arc_of, kind, par, capacity = spread_levels(
        network, chosen, cost, nu[network.head[chosen]], amount, slack, most=inf
    )
    arc_of = chosen[arc_of]
    plain = len(arc_of)
    stars = _stars(network, amount, nu)
    places = np.zeros((3, plain + len(stars.tail)), np.int64)
    places[0, :plain] = system.place[arc_of]
    places[:, plain:] = system.stars
    tail, head = network.tail[arc_of], network.head[arc_of]
    columns = stars.behind(tail, head, kind, par, capacity)
    levels = Levels(amount, plain, arc_of, *columns, stars.coin, stars.scale, stars.node_nu, places)
    return levels if part is None else _within(levels, part)


def _within(levels: Levels, part: Part) -> Levels:
    """Only the star levels of coins that may be paid in or taken out."""
    coin = levels.coin
    place = np.maximum(np.abs(coin) - 1, 0)
    kept = np.ones(len(levels.tail), np.bool_)
    kept[levels.plain :] = np.where(coin > 0, part.pays[place], part.takes[place]) | (coin == 0)
    return replace(
        levels,
        tail=levels.tail[kept],
        head=levels.head[kept],
        third=levels.third[kept],
        drain=levels.drain[kept],
        kappa=levels.kappa[kept],
        kind=levels.kind[kept],
        par=levels.par[kept],
        capacity=levels.capacity[kept],
        coin=coin[kept[levels.plain :]],
        places=np.ascontiguousarray(levels.places[:, kept]),
    )


def _node_prices(network: Network, levels: Levels, prices: Prices) -> Array:
    """ν of every node: tokens, then λ and μ of joint pools in the units of their levels."""
    nodes = levels.node_nu.copy()
    _spread_multipliers(
        network.joint.excess, prices.lam, prices.mu, levels.scale * levels.amount, nodes
    )
    return np.concatenate([prices.nu, nodes])


@compiled
def _spread_multipliers(excess: Array, lam: Array, mu: Array, scale: Array, nodes: Array) -> None:
    node = 0
    for j in range(len(excess)):
        if lam[j] > 0.0:
            nodes[node] = lam[j] / scale[j]
        node += 1
        if excess[j] > 0.0:
            if mu[j] > 0.0:
                nodes[node] = mu[j]
            node += 1


@compiled
def _gather_multipliers(excess: Array, scale: Array, nodes: Array, lam: Array, mu: Array) -> None:
    node = 0
    for j in range(len(excess)):
        lam[j] = nodes[node] * scale[j]
        node += 1
        if excess[j] > 0.0:
            mu[j] = nodes[node]
            node += 1


def prices_of(network: Network, levels: Levels, nu: Array) -> Prices:
    """The inverse of :func:`_node_prices`."""
    tokens, count = len(network.tokens), len(network.joint.ann)
    lam, mu = np.zeros(count), np.zeros(count)
    _gather_multipliers(network.joint.excess, levels.scale * levels.amount, nu[tokens:], lam, mu)
    return Prices(nu[:tokens].copy(), lam, mu)


@compiled
def _centre(
    tail: IntArray, head: IntArray, third: IntArray, drain: Array, kappa: Array, kind: KindArray,
    par: Array, capacity: Array, nu: Array, mu: float, x: Array,
) -> None:  # fmt: skip
    """Per level the x with ν_j f′ − drain·ν_i + κ·ν_k + μ/x − μ/(c − x) = 0, within some percent.

    Newton in log x, safeguarded by bisection, from the x without μ; beyond ``_FAR`` x stays there.
    """
    for a in range(len(x)):
        price, c = nu[head[a]], capacity[a]
        constant = kappa[a] * nu[third[a]] - drain[a] * nu[tail[a]]
        low, high = 0.0, min(c, _FAR)
        v = 0.5 * c if c < 2.0 else 1.0
        if constant < 0.0:
            # one step of Newton from x = 0 for a level that pays, the pole's share for one that
            # does not
            _, up, bend = level_jet(kind[a], par[a], 0.0)
            worth = price * up + constant
            if worth < 0.0:
                v = min(v, -mu / worth)
            elif bend < 0.0:
                v = min(v, max(mu / price, -worth / (price * bend)))
        for _ in range(20):
            _, up, bend = level_jet(kind[a], par[a], v)
            r = price * up + constant + mu / v
            h = price * bend - mu / (v * v)
            if c < inf:
                r -= mu / (c - v)
                h -= mu / ((c - v) * (c - v))
            if r > 0.0:
                low = v
            else:
                high = v
            following = v * np.exp(max(-3.0, min(3.0, -r / (h * v))))
            if not low < following < high:
                following = 0.5 * (low + high) if low > 0.01 * high else 0.03 * high + 0.97 * low
            done = abs(following - v) <= 0.03 * v
            v = following
            if done:
                break
        x[a] = v


def centred(levels: Levels, nu: Array, mu: float) -> Point:
    """The point on every level's own central path at given prices: only balances are off."""
    x = np.empty(len(levels.tail))
    _centre(
        levels.tail, levels.head, levels.third, levels.drain, levels.kappa, levels.kind,
        levels.par, levels.capacity, nu, mu, x,
    )  # fmt: skip
    return begin(levels, nu, x, mu)


def begin(levels: Levels, nu: Array, x: Array, mu: float) -> Point:
    """A point at given flows and prices with complementarity ``mu``."""
    room = levels.capacity - x
    w = np.where(levels.capacity < inf, mu / room, 0.0)
    return Point(x.copy(), mu / x, w, nu.copy(), mu / nu)


@compiled
def _measure(
    tail: IntArray, head: IntArray, third: IntArray, drain: Array, kappa: Array, kind: KindArray,
    par: Array, capacity: Array, places: IntArray, diagonal: IntArray, supply: Array, target: int,
    x: Array, z: Array, w: Array, nu: Array, s: Array,
    slope: Array, rise: Array, balance: Array, values: Array,
) -> tuple[float, int, float, float]:  # fmt: skip
    """Curves, balances and the matrix at a point; total complementarity, pairs and both misses."""
    n = len(nu)
    values[:] = 0.0
    balance[:] = supply
    dual_miss, total, pairs = 0.0, 0.0, 0
    for a in range(len(x)):
        i, j = tail[a], head[a]
        f, up, bend = level_jet(kind[a], par[a], x[a])
        down = drain[a]
        slope[a] = up
        balance[j] += f
        balance[i] -= down * x[a]
        worth = nu[j] * up - down * nu[i]
        bowed = -nu[j] * bend + z[a] / x[a]
        total += x[a] * z[a]
        pairs += 1
        if capacity[a] < inf:
            room = capacity[a] - x[a]
            bowed += w[a] / room
            total += room * w[a]
            pairs += 1
        rise[a] = bowed
        weight = 1.0 / bowed
        values[diagonal[i]] += down * down * weight
        values[diagonal[j]] += up * up * weight
        if down != 0.0:
            values[places[0, a]] -= down * up * weight
        aside = kappa[a]
        if aside != 0.0:
            k = third[a]
            balance[k] += aside * x[a]
            worth += aside * nu[k]
            values[diagonal[k]] += aside * aside * weight
            values[places[1, a]] -= down * aside * weight
            values[places[2, a]] += up * aside * weight
        dual_miss = max(dual_miss, abs(worth + z[a] - w[a]))
    primal_miss = 0.0
    for t in range(n):
        values[diagonal[t]] += s[t] / nu[t]
        if t != target:
            total += nu[t] * s[t]
            pairs += 1
            primal_miss = max(primal_miss, abs(balance[t] - s[t]))
    values[diagonal[target]] += _FIXED
    return total, pairs, primal_miss, dual_miss


@compiled
def _right_side(
    tail: IntArray, head: IntArray, third: IntArray, drain: Array, kappa: Array, capacity: Array,
    target: int, x: Array, nu: Array, slope: Array, rise: Array, balance: Array, tau: float,
    extra_low: Array, extra_high: Array, extra_slack: Array, dx: Array, rhs: Array,
) -> None:  # fmt: skip
    for t in range(len(nu)):
        rhs[t] = (tau + extra_slack[t]) / nu[t] - balance[t]
    for a in range(len(x)):
        i, j = tail[a], head[a]
        r = nu[j] * slope[a] - drain[a] * nu[i] + (tau + extra_low[a]) / x[a]
        if kappa[a] != 0.0:
            r += kappa[a] * nu[third[a]]
        if capacity[a] < inf:
            r -= (tau + extra_high[a]) / (capacity[a] - x[a])
        dx[a] = r
        r /= rise[a]
        rhs[j] -= slope[a] * r
        rhs[i] += drain[a] * r
        if kappa[a] != 0.0:
            rhs[third[a]] -= kappa[a] * r
    rhs[target] = 0.0


@compiled
def _direction(
    tail: IntArray, head: IntArray, third: IntArray, drain: Array, kappa: Array, capacity: Array,
    target: int, x: Array, z: Array, w: Array, nu: Array, s: Array, slope: Array, rise: Array,
    tau: float, extra_low: Array, extra_high: Array, extra_slack: Array, dnu: Array,
    dx: Array, dz: Array, dw: Array, ds: Array,
) -> tuple[float, float]:  # fmt: skip
    """From the prices' step to all others; the longest steps that keep everything positive."""
    step_primal, step_dual = 1.0, 1.0
    dnu[target] = 0.0
    for t in range(len(nu)):
        if t == target:
            ds[t] = 0.0
            continue
        ds[t] = (tau + extra_slack[t] - s[t] * dnu[t]) / nu[t] - s[t]
        if dnu[t] < 0.0:
            step_dual = min(step_dual, -_TO_BOUNDARY * nu[t] / dnu[t])
        if ds[t] < 0.0:
            step_primal = min(step_primal, -_TO_BOUNDARY * s[t] / ds[t])
    for a in range(len(x)):
        moved = slope[a] * dnu[head[a]] - drain[a] * dnu[tail[a]]
        if kappa[a] != 0.0:
            moved += kappa[a] * dnu[third[a]]
        dx[a] = (dx[a] + moved) / rise[a]
        dz[a] = (tau + extra_low[a] - z[a] * dx[a]) / x[a] - z[a]
        if dx[a] < 0.0 and -_TO_BOUNDARY * x[a] > step_primal * dx[a]:
            step_primal = -_TO_BOUNDARY * x[a] / dx[a]
        if dz[a] < 0.0 and -_TO_BOUNDARY * z[a] > step_dual * dz[a]:
            step_dual = -_TO_BOUNDARY * z[a] / dz[a]
        if capacity[a] < inf:
            room = capacity[a] - x[a]
            dw[a] = (tau + extra_high[a] + w[a] * dx[a]) / room - w[a]
            if dx[a] > 0.0 and _TO_BOUNDARY * room < step_primal * dx[a]:
                step_primal = _TO_BOUNDARY * room / dx[a]
            if dw[a] < 0.0 and -_TO_BOUNDARY * w[a] > step_dual * dw[a]:
                step_dual = -_TO_BOUNDARY * w[a] / dw[a]
    return step_primal, step_dual


class Solver:
    """The interior point on given levels; supplies and targets may change between calls."""

    def __init__(self, system: System, levels: Levels, clock: Clock = UNLIMITED) -> None:
        self._levels, self._target, self._clock = levels, 0, clock
        self._diagonal = system.pattern.diagonal
        self._factor = Factor(system.pattern)
        m, n = len(levels.tail), system.nodes
        self._slope, self._rise = np.empty(m), np.empty(m)
        self.balance: Array = np.empty(n)
        self._dx, self._dz, self._dw, self._ds = np.empty(m), np.empty(m), np.zeros(m), np.empty(n)
        self._low, self._high, self._slack = np.zeros(m), np.zeros(m), np.zeros(n)
        self._rhs = np.empty(n)
        self._ends = (
            levels.tail, levels.head, levels.third, levels.drain, levels.kappa,
        )  # fmt: skip
        self.iterations = 0

    def solve(self, start: Point, supply: Array, target: int, tolerance: float) -> Point | None:
        """From ``start`` to complementarity within the tolerance (of the amount); None if it fails
        or the time is over.

        ν of the target stays 1.
        """
        levels = self._levels
        self._target = target
        x, z, w, nu, s = (part.copy() for part in (start.x, start.z, start.w, start.nu, start.s))
        nu[target] = 1.0
        for _ in range(_MOST_ITERATIONS):
            total, pairs, primal_miss, dual_miss = _measure(
                *self._ends, levels.kind, levels.par, levels.capacity, levels.places,
                self._diagonal, supply, target, x, z, w, nu, s, self._slope, self._rise,
                self.balance, self._factor.values,
            )  # fmt: skip
            if not isfinite(total):
                return None
            if (
                total <= 0.15 * tolerance
                and primal_miss <= 0.015 * tolerance
                and dual_miss <= max(2e-6, 0.1 * tolerance)
            ):
                return Point(x, z, w, nu, s)
            self.iterations += 1
            if not (self._clock.allows(0.0) and self._factor.factorise()):
                return None
            mu = total / pairs
            self._low[:], self._high[:], self._slack[:] = 0.0, 0.0, 0.0
            dnu, step_primal, step_dual = self._step(x, z, w, nu, s, 0.0)
            ahead = foresee(
                levels.capacity, target, x, z, w, nu, s, self._dx, self._dz, self._dw, dnu,
                self._ds, step_primal, step_dual, self._low, self._high, self._slack,
            )  # fmt: skip
            ratio = ahead / pairs / mu
            tau = mu * min(1.0, ratio**3)
            dnu, step_primal, step_dual = self._step(x, z, w, nu, s, tau)
            if not np.all(np.isfinite(self._dx)):
                return None
            x += step_primal * self._dx
            s += step_primal * self._ds
            z += step_dual * self._dz
            w += step_dual * self._dw
            nu += step_dual * dnu
        return None

    def _step(
        self, x: Array, z: Array, w: Array, nu: Array, s: Array, tau: float
    ) -> tuple[Array, float, float]:
        levels, target = self._levels, self._target
        _right_side(
            *self._ends, levels.capacity, target, x, nu, self._slope, self._rise, self.balance,
            tau, self._low, self._high, self._slack, self._dx, self._rhs,
        )  # fmt: skip
        dnu = self._factor.solve(self._rhs)
        steps = _direction(
            *self._ends, levels.capacity, target, x, z, w, nu, s, self._slope, self._rise, tau,
            self._low, self._high, self._slack, dnu, self._dx, self._dz, self._dw, self._ds,
        )  # fmt: skip
        return dnu, *steps


class Outcome(Struct, frozen=True):
    """What a solve over everything found, in numeraire.

    ``value`` is what the plan brings to the target, what it lacks elsewhere taken off at ν. Its
    input per arc that is no pair of a joint pool is ``flow``; ``paid`` and ``taken`` are what each
    coin of the joint pools takes in and gives. ``bound`` is what ``prices`` prove over every arc,
    ``unearned`` their Σ arb(ν).
    """

    prices: Prices
    bound: float
    unearned: float
    value: float
    flow: Array
    paid: Array
    taken: Array
    rounds: int


class Question(Struct, frozen=True):
    """The most that ``supply`` (numeraire by token) brings to ``target``, cycles and all.

    With ``keep`` = (token, rate) any part of that supply counts at this rate instead.
    """

    target: int
    supply: dict[int, float]
    keep: tuple[int, float] | None = None

    def paid(self, nu: Array) -> float:
        """What the supply is worth at prices ν."""
        rates = dict([self.keep]) if self.keep else {}
        return sum(max(float(nu[t]), rates.get(t, 0.0)) * x for t, x in self.supply.items())


def settle(network: Network, clock: Clock = UNLIMITED) -> Settled | None:
    """What a network's block yields without an order, paid out in the token of most arcs.

    It is remembered until the next block, whose prices are searched from those of this one. None
    where nothing gains, or the time is over.
    """
    before = network.settled
    if before is not None and before.block == network.block:
        return before
    hub = int(np.argmax(np.diff(network.out_start)))
    question = Question(hub, {})
    most = fair_yield(network)
    if not 0.0 < most < inf:
        return None
    start = before.prices if before else None
    found = solve_whole(network, question, start, _SETTLED, _UNIT * most, clock)
    if found is None or not clock.allows(0.0):  # it may not be all
        return None
    network.settled = Settled(network.block, found.prices, found.value)
    return network.settled


def fair_yield(network: Network) -> float:
    """Σ arb at the reference prices, which bounds what a block yields; kept until the next."""
    if network.fair_yield is None:
        _, network.fair_yield, _ = proven(network, _fair(network), Question(0, {}))
    return network.fair_yield


def _fair(network: Network) -> Prices:
    joints = len(network.joint.ann)
    return Prices(np.ones(len(network.tokens)), np.zeros(joints), np.zeros(joints))


def solve_whole(
    network: Network,
    question: Question,
    start: Prices | None,
    tolerance: float,
    unit: float,
    clock: Clock = UNLIMITED,
) -> Outcome | None:
    """Plan and bound for a question; None where the method fails or the time is over.

    The levels near the money at the ``start`` prices are solved, with flows in ``unit`` (what is
    earned and sold should be of its order); while the bound over all arcs and the value are further
    apart than ``tolerance``·``unit``, those near the new prices follow.
    """
    system = system_of(network)
    fair = _fair(network)
    prices = start
    best: Outcome | None = None
    also = np.zeros(network.arc_count, np.bool_)
    for number in range(_MOST_ROUNDS):
        if not clock.allows(0.0):
            break
        near = (prices or fair).at(question.target)
        slack = _WIDE if prices is None else _NEAR
        levels = levels_at(network, system, near, unit, slack, also)
        nu = _node_prices(network, levels, near)
        if question.keep is not None:
            levels = _keeping(levels, system, question)
        found, balance = _run(
            system, levels, nu, question, tolerance, known=prices is not None, clock=clock
        )
        if found is None:
            if prices is None or not clock.allows(0.0):
                break
            prices = None
            continue
        prices = prices_of(network, levels, found.nu)
        outcome, gaining_arcs = _outcome(
            network, levels, found, balance, prices, question, number + 1
        )
        also[gaining_arcs] = True
        best = outcome if best is None else _better(best, outcome)
        if best.bound - best.value <= tolerance * unit:
            break
    return best


def solve_part(
    network: Network, question: Question, near: Prices, part: Part, unit: float,
    clock: Clock = UNLIMITED,
) -> Outcome | None:  # fmt: skip
    """A plan that uses only a part of the network, for proportions; it proves nothing.

    Prices along a way that gains spread wider than in the whole, so more levels take part.
    """
    return _part(network, question, near, part, unit, _ALONG, _COARSE, known=False, clock=clock)


def solve_rest(
    network: Network, question: Question, near: Prices, part: Part, accuracy: float, unit: float
) -> Outcome | None:
    """A plan for a part that is nearly the whole, at prices near by; it proves nothing."""
    return _part(network, question, near, part, unit, _NEAR, accuracy, known=True, clock=UNLIMITED)


def _part(
    network: Network, question: Question, near: Prices, part: Part, unit: float, slack: float,
    accuracy: float, known: bool, clock: Clock,
) -> Outcome | None:  # fmt: skip
    system = system_of(network)
    seen = network.only(part.arcs)
    also = np.zeros(network.arc_count, np.bool_)
    near = near.at(question.target)
    levels = levels_at(seen, system, near, unit, slack, also, part)
    nu = _node_prices(network, levels, near)
    if question.keep is not None:
        levels = _keeping(levels, system, question)
    found, balance = _run(system, levels, nu, question, accuracy, known, clock)
    if found is None:
        return None
    prices = prices_of(network, levels, found.nu)
    return _plan(network, levels, found, balance, prices, question)


def _run(
    system: System, levels: Levels, nu: Array, question: Question, tolerance: float, known: bool,
    clock: Clock,
) -> tuple[Point | None, Array]:  # fmt: skip
    needs = np.zeros(system.nodes)
    for token, amount in question.supply.items():
        needs[token] += amount / levels.amount
    solver = Solver(system, levels, clock)
    found = None
    for start in _starts(levels, nu, known):
        found = solver.solve(start, needs, question.target, tolerance)
        if found is not None:
            break
    return found, solver.balance


def _starts(levels: Levels, nu: Array, known: bool) -> Iterator[Point]:
    """Where to begin, from the best guess to the safest."""
    if known:
        yield centred(levels, nu, 1e-4)
        yield centred(levels, nu, 1e-2)
    small = np.minimum(0.4 * levels.capacity, 0.03)
    yield begin(levels, nu, small, 1e-2 if known else 1e-3)
    yield begin(levels, nu, np.minimum(0.4 * levels.capacity, 0.3), 1e-1)
    if not known:
        yield centred(levels, nu, 1e-2)


def _keeping(levels: Levels, system: System, question: Question) -> Levels:
    """One more level, the last: from the kept token to the target at the rate.

    The target's price is fixed, so its entry in the matrix is never looked at: it lies behind it.
    """
    assert question.keep is not None
    token, rate = question.keep
    one = np.zeros((1, WIDTH))
    one[0, 0] = rate
    return replace(
        levels,
        tail=np.append(levels.tail, token),
        head=np.append(levels.head, question.target),
        third=np.append(levels.third, 0),
        drain=np.append(levels.drain, 1.0),
        kappa=np.append(levels.kappa, 0.0),
        kind=np.append(levels.kind, np.int8(LINEAR)),
        par=np.concatenate([levels.par, one]),
        capacity=np.append(levels.capacity, question.supply[token] / levels.amount),
        coin=np.append(levels.coin, 0),
        places=np.append(levels.places, np.full((3, 1), system.pattern.size), axis=1),
    )


def _outcome(
    network: Network, levels: Levels, found: Point, balance: Array, prices: Prices,
    question: Question, rounds: int,
) -> tuple[Outcome, IntArray]:  # fmt: skip
    """The answer at a point, and the arcs that gain at its prices."""
    plan = _plan(network, levels, found, balance, prices, question)
    bound, unearned, arcs = proven(network, prices, question)
    return replace(plan, bound=bound, unearned=unearned, rounds=rounds), arcs


def _plan(
    network: Network, levels: Levels, found: Point, balance: Array, prices: Prices,
    question: Question,
) -> Outcome:  # fmt: skip
    amount = levels.amount
    short = np.minimum(balance, 0.0)
    short[question.target] = 0.0
    value = float(balance[question.target] + found.nu @ short) * amount
    plain, stars = found.x[: levels.plain], found.x[levels.plain :]
    flow: Array = amount * np.bincount(
        levels.arc_of, weights=plain, minlength=network.arc_count
    ).astype(float)
    coins = len(network.joint.token)
    paid, taken = np.zeros(coins), np.zeros(coins)
    _coin_flows(levels.coin, stars, levels.kappa[levels.plain :], amount, paid, taken)
    return Outcome(prices, inf, inf, value, flow, paid, taken, 1)


@compiled
def _coin_flows(
    coin: IntArray, x: Array, kappa: Array, amount: float, paid: Array, taken: Array
) -> None:
    for k in range(len(coin)):
        if coin[k] > 0:
            paid[coin[k] - 1] += x[k] * amount
        elif coin[k] < 0:
            taken[-coin[k] - 1] += x[k] * kappa[k] * amount


def _better(one: Outcome, other: Outcome) -> Outcome:
    """The better bound with the better plan."""
    proof = one if one.bound <= other.bound else other
    plan = one if one.value >= other.value else other
    return replace(
        plan, prices=proof.prices, bound=proof.bound, unearned=proof.unearned, rounds=other.rounds
    )


def proven(network: Network, prices: Prices, question: Question) -> tuple[float, float, IntArray]:
    """The bound over every arc of the network at given prices, Σ arb(ν) in it, and what gains.

    Joint pools count by their λ and μ; where these prove nothing, better ones are searched.
    """
    joint = network.joint
    nu = prices.nu
    arcs, gains = gaining(
        np.arange(len(nu)), network.out_start, network.out_arc, network.head, network.spot, nu,
        network.kind, network.par, network.table, network.rows,
    )  # fmt: skip
    total = _gained(
        joint.of_pool[network.pool[arcs]], gains, joint.start, joint.token, joint.reserve,
        joint.weight, joint.into, joint.out, joint.excess, nu, prices.lam, prices.mu,
    )  # fmt: skip
    paid = question.paid(nu)
    unearned = total + (paid + total) * _OUTWARD
    return paid + unearned, unearned, arcs


@compiled
def _gained(
    group: IntArray, gains: Array, start: IntArray, token: IntArray, reserve: Array,
    weight: Array, into: Array, out: Array, excess: Array, nu: Array, lam: Array, mu: Array,
) -> float:  # fmt: skip
    """Σ of gains, each joint pool counted once by its joint bound."""
    total = 0.0
    some = np.zeros(len(start) - 1, np.bool_)
    for a in range(len(group)):
        if group[a] < 0:
            total += gains[a]
        else:
            some[group[a]] = True
    for j in range(len(some)):
        if not some[j]:  # no pair gains, and so no joint trade
            continue
        part = slice(start[j], start[j + 1])
        found = known_gain(
            token[part], reserve[part], weight[part], into[part], out[part], excess[j], nu,
            lam[j], mu[j],
        )  # fmt: skip
        if not found < inf:
            found = tightest(
                token[part], reserve[part], weight[part], into[part], out[part], excess[j], nu
            )
        total += max(found, 0.0)
    return total

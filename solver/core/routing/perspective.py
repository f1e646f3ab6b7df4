"""A fixed charge q per pool in compiled form: break-even prices, the hull of a curve, the bound.

With token prices ν (1 at B) a pool is worth its charge while max over x of ν_j f(x) − ν_i x ≥ q.
Let p* be the ν_i at which that gain is q, and x* the trade. The concave hull of "nothing, or f less
the charge" is the chord to x*, which pays q·x/x* at B, and f beyond x*: a model without integers
for the interior point. By duality any ν proves

    net ≤ ν_A·Δ + Σ_pools max(0, gain(ν) − q),

over all pools. The gains may be limited: a plan that is executed leg by leg and nets at least L
never holds more of a token i than M/ν_i, M = (any bound of the net) + (any bound of the gross) − L,
because what it holds is worth ν_A·Δ plus what the pools before gave, and they gave no more than the
bound plus their charges, which are at most gross − L. Without that limit the hull of a very flat
pool pays a small part of its charge.

Prices are extended over the graph as in :mod:`solver.core.routing.extension`, with p* in place of
ν_j f′(0): a token without a cap then has no arc that gains more than its charge.
"""

from __future__ import annotations

from math import inf, log, sqrt

import numpy as np
from numpy.typing import NDArray

from solver.core.jit import compiled
from solver.core.kernels import (
    LINEAR,
    LOG,
    PRODUCT,
    STABLE,
    WEIGHTED,
    Array,
    IntArray,
    KindArray,
    stable_other,
)
from solver.core.routing.arcs import IndexArray, Table, arc_best, arc_output

Mask = NDArray[np.bool_]
NONE, PLAIN, JOINT = 0, 1, 2  # which pools have a break-even price
_STARTS = (0.9999, 0.998, 0.98, 0.8, 0.3, 0.01, 1e-4, 1e-8)
_NEWTON = 60


@compiled
def break_even(
    kind: int,
    p: Array,
    place: IntArray,
    table: Table,
    spot: float,
    price_out: float,
    charge: float,
    limit: float,
) -> tuple[float, float]:
    """p* and x*: the price of the input at which the best trade gains ``charge``, and that trade.

    No trade is larger than ``limit``. p* is rounded up, so that no trade at p* gains more; (0, 0)
    when nothing gains that much.
    """
    price, x = _unlimited(kind, p, place, table, spot, price_out, charge)
    if x <= limit:
        return price, x
    value = price_out * arc_output(kind, p, place, table, limit) - charge
    if value <= 0.0:
        return 0.0, 0.0
    return min(price, value / limit * (1.0 + 1e-12)), limit


@compiled
def _unlimited(
    kind: int, p: Array, place: IntArray, table: Table, spot: float, price_out: float, charge: float
) -> tuple[float, float]:
    """p* and x* without a limit."""
    top = price_out * spot
    if top <= 0.0 or charge == inf:
        return 0.0, 0.0
    if charge <= 0.0:
        return top, 0.0
    if kind == PRODUCT:
        left = sqrt(price_out * p[1]) - sqrt(charge)
        if left <= 0.0:
            return 0.0, 0.0
        return p[2] / p[0] * left * left * (1.0 + 1e-12), p[0] / p[2] * sqrt(charge) / left
    if kind == LINEAR:
        return top, inf
    price, x, value = 0.0, 0.0, 0.0
    for share in _STARTS:
        price = top * share
        x, value = arc_best(kind, p, place, table, price, price_out)
        if value >= charge:
            break
    if value < charge:
        # the rest can be worth no more than what its input would cost at the last price
        x, most = arc_best(kind, p, place, table, 0.0, price_out)
        if most <= charge:
            return 0.0, 0.0
        return price, x if x < inf else 0.0
    for _ in range(_NEWTON):
        step = (value - charge) / x  # the gain is convex in the price, so this stays below p*
        price += step
        if step <= 1e-13 * price:
            break
        x, value = arc_best(kind, p, place, table, price, price_out)
        if x <= 0.0:
            return top, 0.0
    return min(top, price * (1.0 + 1e-11)), x


@compiled
def discounts(
    first_arc: IntArray, tail: IndexArray, head: IndexArray, spot: Array, of_pool: IntArray
) -> KindArray:
    """PLAIN for pools of which at most one arc gains at any prices, JOINT for joint ones.

    The arcs of other pools have no break-even price: what one gains says nothing about the sum.
    """
    out = np.full(len(first_arc) - 1, NONE, np.int8)
    for k in range(len(out)):
        a, count = first_arc[k], first_arc[k + 1] - first_arc[k]
        if of_pool[k] >= 0:
            out[k] = JOINT
        elif count == 1 or (
            count == 2
            and tail[a] == head[a + 1]
            and head[a] == tail[a + 1]
            and spot[a] * spot[a + 1] <= 1.0
        ):
            out[k] = PLAIN
    return out


@compiled
def extend_charged(
    in_start: IntArray,
    in_arc: IndexArray,
    in_tail: IndexArray,
    in_spot: Array,
    pool: IndexArray,
    charge: Array,
    discount: KindArray,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    cap: Array,
    limit: Array,
    floor: Array,
    part: Array,
    target: int,
    most_visits: int,
    nu: Array,
) -> bool:
    """Write ν of every token; False when a gaining cycle keeps it from ending.

    A pool whose charge is ∞ is not there. Tokens with a ``floor`` ≥ 0 are those whose arcs will be
    counted in the bound: ν is not below the floor, and their joint pools have break-even prices
    too, pair by pair, at ``part`` of the charge: several pairs of a pool gain together.
    """
    count = len(nu)
    waiting = np.zeros(count, np.bool_)
    visits = np.zeros(count, np.int32)
    queue = np.empty(count + 1, np.int64)
    first, after = 0, 0
    for t in range(count):
        nu[t] = 1.0 if t == target else max(0.0, floor[t])
        if nu[t] > 0.0:
            queue[after] = t
            after += 1
            waiting[t] = True
    while first != after:
        j = queue[first]
        first += 1
        if first > count:
            first = 0
        waiting[j] = False
        visits[j] += 1
        if visits[j] > most_visits:
            return False
        price = nu[j]
        for place in range(in_start[j], in_start[j + 1]):
            i = in_tail[place]
            if i == target:
                continue
            value = price * in_spot[place]
            if value <= nu[i] or nu[i] >= cap[i]:
                continue
            a = in_arc[place]
            k = pool[a]
            if charge[k] == inf:
                continue
            due = charge[k] if discount[k] == PLAIN else 0.0
            if discount[k] == JOINT and floor[i] >= 0.0:
                due = charge[k] * part[i]
            if due > 0.0:
                value, _ = break_even(
                    kind[a], par[a], table_of[a], table, in_spot[place], price, due, limit[i]
                )
            value = min(value, cap[i])
            if value > nu[i] * (1.0 + 1e-15):
                nu[i] = value
                if not waiting[i]:
                    waiting[i] = True
                    queue[after] = i
                    after += 1
                    if after > count:
                        after = 0
    return True


@compiled
def _coin(
    reserve: float, weight: float, into: float, out: float, price: float, limit: float,
    lam: float, mu: float,
) -> tuple[float, float, float]:  # fmt: skip
    """One coin's best n, dn/dμ and its term; see :func:`solver.core.routing.joint.coin_gain`.

    No more than ``limit`` (numeraire) is paid in or taken out.
    """
    scaled = lam * weight
    cost = price / into - mu
    n, rise = into * limit, 0.0
    if cost * (reserve + n) > scaled:
        n = scaled / cost - reserve
        rise = (reserve + n) / cost
    if n > 0.0:
        return n, rise, scaled * np.log1p(n / reserve) - cost * n
    worth = price * out - mu
    if worth * reserve > scaled:
        v, rise = limit / out, 0.0
        if worth * (reserve - v) < scaled:
            v = reserve - scaled / worth
            rise = (reserve - v) / worth
        return -v, rise, worth * v + scaled * np.log1p(-v / reserve)
    return 0.0, 0.0, 0.0


@compiled
def _limited(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, limit: Array, lam: float, mu: float,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Σ of the coins' terms, Σn, its slope in μ, and Σ w·log(1 + n/R) at the multipliers."""
    total, paid, slope, invariant = 0.0, 0.0, 0.0, 0.0
    for c in range(len(token)):
        t = token[c]
        if t >= 0:
            n, rise, gain = _coin(reserve[c], weight[c], into[c], out[c], nu[t], limit[t], lam, mu)
            total += gain
            paid += n
            slope += rise
            if n != 0.0:
                invariant += weight[c] * np.log1p(n / reserve[c])
    return total, paid, slope, invariant


@compiled
def _joint_search(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, limit: Array, charge: float,
) -> tuple[float, float, float]:  # fmt: skip
    """What a joint pool gains at most, and λ, μ; a bound below ``charge`` need not be the least."""
    middle, some = 0.0, 0
    for c in range(len(token)):
        if token[c] >= 0:
            if nu[token[c]] <= 0.0:
                return inf, 0.0, 0.0
            share = 1.0 / reserve[c] + (1.0 / excess if excess > 0.0 else 0.0)
            middle += log(nu[token[c]] / (share * weight[c]))
            some += 1
    if some == 0:
        return 0.0, 0.0, 0.0
    start = np.exp(middle / some)
    left, right = start / 64.0, start * 64.0
    lam, best = start, inf
    mu = lam / excess if excess > 0.0 else 0.0
    for _ in range(80):
        named = 0.0
        if excess > 0.0:
            # Σn = s = λ/μ − E: the difference falls in μ
            low, high = 0.0, inf
            for _ in range(60):
                total, paid, slope, invariant = _limited(
                    token, reserve, weight, into, out, excess, nu, limit, lam, mu
                )
                miss = lam / mu - excess - paid
                if miss > 0.0:
                    low = mu
                else:
                    high = mu
                following = mu + miss / (lam / (mu * mu) + slope)
                if not low < following < high:
                    following = 2.0 * mu if high == inf else 0.5 * (low + high)
                if abs(following - mu) <= 1e-14 * mu:
                    break
                mu = following
            named = lam * log(lam / (mu * excess)) - lam + mu * excess
            total, paid, slope, invariant = _limited(
                token, reserve, weight, into, out, excess, nu, limit, lam, mu
            )
            invariant += log(lam / (mu * excess))
        else:
            total, paid, slope, invariant = _limited(
                token, reserve, weight, into, out, excess, nu, limit, lam, 0.0
            )
        if not total + named >= best:
            best = total + named
        if best <= charge:
            break
        if invariant > 0.0:
            right = lam
        else:
            left = lam
        if right - left <= 1e-13 * right:
            break
        lam = sqrt(left * right)
    return best, lam, mu


@compiled
def joint_trade(
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, excess: float,
    nu: Array, limit: Array, net: Array,
) -> None:  # fmt: skip
    """Write the numeraire that each coin brings (or costs, < 0) in the pool's best joint trade."""
    _, lam, mu = _joint_search(token, reserve, weight, into, out, excess, nu, limit, -inf)
    net[:] = 0.0
    for c in range(len(token)):
        t = token[c]
        if t >= 0 and lam > 0.0:
            n, _, _ = _coin(reserve[c], weight[c], into[c], out[c], nu[t], limit[t], lam, mu)
            net[c] = -n / into[c] if n > 0.0 else -n * out[c]


@compiled
def charged_total(
    tokens: IntArray,
    out_start: IntArray,
    out_arc: IndexArray,
    head: IndexArray,
    pool: IndexArray,
    spot: Array,
    nu: Array,
    charge: Array,
    limit: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    of_pool: IntArray,
    start: IntArray,
    coin: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    out: Array,
    excess: Array,
) -> tuple[float, IntArray, Array]:
    """Σ_pools max(0, gain − charge) over arcs out of ``tokens``; gaining arcs and pool gains.

    The two arrays name every arc that gains and what its pool gains.
    """
    arcs, values = np.empty(64, np.int64), np.empty(64)
    n = 0
    gained = np.zeros(len(charge))
    for i in tokens:
        price = nu[i]
        for place in range(out_start[i], out_start[i + 1]):
            a = out_arc[place]
            onward = nu[head[a]]
            k = pool[a]
            if onward * spot[a] <= price or charge[k] == inf:
                continue
            x, value = arc_best(kind[a], par[a], table_of[a], table, price, onward)
            if x > limit[i]:
                x = limit[i]
                value = onward * arc_output(kind[a], par[a], table_of[a], table, x) - price * x
            if value > 0.0:
                if n >= len(arcs):
                    arcs = np.append(arcs, np.empty(n, np.int64))
                    values = np.append(values, np.empty(n))
                arcs[n] = a
                gained[k] += value
                n += 1
    total = 0.0
    for m in range(n):
        k = pool[arcs[m]]
        if gained[k] > 0.0:  # not counted yet
            j = of_pool[k]
            if j >= 0:
                part = slice(start[j], start[j + 1])
                gained[k] = max(0.0, _joint_search(
                    coin[part], reserve[part], weight[part], into[part], out[part], excess[j],
                    nu, limit, charge[k],
                )[0])  # fmt: skip
            total += max(0.0, gained[k] - charge[k])
            gained[k] = -gained[k]
        values[m] = -gained[k]
    return total, arcs[:n], values[:n]


@compiled
def follow_charged(
    origin: int,
    out_start: IntArray,
    out_arc: IndexArray,
    head: IndexArray,
    pool: IndexArray,
    spot: Array,
    charge: Array,
    discount: KindArray,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    nu: Array,
    ends: Array,
    limit: Array,
    target: int,
    most: int,
    found: IntArray,
) -> int:
    """The arcs from a token to a capped one or to B along which its price arose, into ``found``."""
    n = 0
    t = origin
    while t != target and ends[t] == inf and n < most:
        best, best_value = -1, 0.0
        for place in range(out_start[t], out_start[t + 1]):
            a = out_arc[place]
            value = nu[head[a]] * spot[a]
            if value > best_value and charge[pool[a]] < inf:
                if discount[pool[a]] == PLAIN:
                    value, _ = break_even(
                        kind[a],
                        par[a],
                        table_of[a],
                        table,
                        spot[a],
                        nu[head[a]],
                        charge[pool[a]],
                        limit[t],
                    )
                if value > best_value:
                    best, best_value = a, value
        if best < 0:
            break
        found[n] = best
        n += 1
        t = head[best]
    return n


@compiled
def _shift(kind: int, p: Array, x: float, q: Array) -> None:
    """Write into ``q`` the level that is left of ``p`` after its first x."""
    q[:] = p
    if kind == PRODUCT:
        q[0] = p[0] + p[2] * x
        q[1] = p[1] * p[0] / q[0]
    elif kind == WEIGHTED:
        q[0] = p[0] + p[2] * x
        q[1] = p[1] * (p[0] / q[0]) ** p[3]
    elif kind == STABLE:
        q[0] = p[0] + p[2] * x
        q[1] = stable_other(q[0], p[4], p[5])
    elif kind == LOG:
        q[0] = p[0]


@compiled
def hull(
    arcs: IntArray,
    price_out: Array,
    charge: Array,
    limit: Array,
    amount: float,
    arc_of: IntArray,
    kind: KindArray,
    par: Array,
    capacity: Array,
    arc_kind: KindArray,
    arc_par: Array,
    table_of: IntArray,
    table: Table,
    spot: Array,
    hull_arc: IntArray,
    hull_kind: KindArray,
    hull_par: Array,
    hull_capacity: Array,
    kappa: Array,
) -> int:
    """Levels (in numeraire, grouped by arc) to the levels of their hulls in units of ``amount``.

    The first level of a charged arc is the chord, with ``kappa`` < 0. ``charge`` is per arc; with ∞
    the arc is left out. Returns the number of levels written.
    """
    n, k = 0, 0
    for c in range(len(arcs)):
        a = arcs[c]
        skip, room = 0.0, limit[c]
        chord = False
        gone = charge[c] == inf
        if charge[c] > 0.0 and not gone:
            price, skip = break_even(
                arc_kind[a],
                arc_par[a],
                table_of[a],
                table,
                spot[a],
                price_out[c],
                charge[c],
                limit[c],
            )
            chord = price > 0.0 and 0.0 < skip < inf
            gone = not chord
            if gone:
                skip = 0.0
        if chord:
            hull_arc[n] = c
            hull_kind[n] = LINEAR
            hull_par[n, :] = 0.0
            hull_par[n, 0] = arc_output(arc_kind[a], arc_par[a], table_of[a], table, skip) / skip
            hull_capacity[n] = skip / amount
            kappa[n] = -charge[c] / skip
            n += 1
        while k < len(arc_of) and arc_of[k] == c:
            left = min(capacity[k], room) - skip
            if not gone and left > 1e-9 * skip:
                _shift(kind[k], par[k], skip, hull_par[n])
                hull_arc[n] = c
                hull_kind[n] = kind[k]
                if kind[k] == PRODUCT or kind[k] == WEIGHTED:
                    hull_par[n, 0] /= amount
                    hull_par[n, 1] /= amount
                elif kind[k] == STABLE:
                    hull_par[n, 2] *= amount
                    hull_par[n, 3] /= amount
                hull_capacity[n] = left / amount
                kappa[n] = 0.0
                n += 1
            skip = max(0.0, skip - capacity[k])
            room = max(0.0, room - capacity[k])
            k += 1
    return n

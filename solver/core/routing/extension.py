"""Prices for every token, the bound that they prove, and the arcs that break it.

Prices are extended backwards from B: ν_t = min(cap_t, max over arcs t→j of ν_j f′(0)). A token
without a cap then has ν_t ≥ ν_j f′(0) on each of its arcs, and f is concave with f(0) = 0, so that
ν_j f(x) − ν_t x ≤ 0: only arcs that leave capped tokens can gain. The bound over them is the bound
over the whole graph.

A joint pool that the order itself moves is another matter: what f′(0) of a pair says of a coin was
true before the move. There the coin is worth at least what paying it in is worth at the pool's λ
and μ, a floor of its own, and the pairs take no part (:func:`moved_pools`). Their coins then count
as capped ones.
"""

from __future__ import annotations

from math import inf

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, KindArray
from solver.core.routing.arcs import IndexArray, Table, arc_best


@compiled
def extend(
    in_start: IntArray,
    in_tail: IndexArray,
    in_spot: Array,
    cap: Array,
    floor: Array,
    target: int,
    most_visits: int,
    nu: Array,
) -> bool:
    """Write ν of every token; False when a gaining cycle keeps it from ending.

    ``cap`` is ∞ where a token has no cap, ``floor`` 0 where it has no floor; a cap is stronger.
    Label-correcting with a queue.
    """
    count = len(nu)
    waiting = np.zeros(count, np.bool_)
    visits = np.zeros(count, np.int32)
    queue = np.empty(count + 1, np.int64)
    first, after = 0, 0
    for t in range(count):
        nu[t] = 1.0 if t == target else min(floor[t], cap[t])
        if nu[t] > 0.0:
            waiting[t] = True
            queue[after] = t
            after += 1
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
            if value > nu[i]:
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
def moved_pools(
    moved: IntArray,
    start: IntArray,
    token: IntArray,
    reserve: Array,
    weight: Array,
    into: Array,
    lam: Array,
    mu: Array,
    pool_of: IntArray,
    first_arc: IntArray,
    in_place: IndexArray,
    in_spot: Array,
    floor: Array,
) -> tuple[IntArray, Array]:
    """Raise the floors of the coins of joint pools and take their pairs out of ``in_spot``.

    Returns where in ``in_spot`` and what was there, for the caller to put back.
    """
    count = 0
    for j in moved:
        count += first_arc[pool_of[j] + 1] - first_arc[pool_of[j]]
        for c in range(start[j], start[j + 1]):
            if token[c] >= 0:
                worth = into[c] * (lam[j] * weight[c] / reserve[c] + mu[j])
                floor[token[c]] = max(floor[token[c]], worth)
    places, spots = np.empty(count, np.int64), np.empty(count)
    n = 0
    for j in moved:
        for a in range(first_arc[pool_of[j]], first_arc[pool_of[j] + 1]):
            places[n] = in_place[a]
            spots[n] = in_spot[places[n]]
            in_spot[places[n]] = 0.0
            n += 1
    return places, spots


@compiled
def gaining(
    tokens: IntArray,
    out_start: IntArray,
    out_arc: IndexArray,
    head: IndexArray,
    spot: Array,
    nu: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
) -> tuple[IntArray, Array]:
    """The arcs out of ``tokens`` that gain at prices ν, and their gains."""
    arcs, values = np.empty(64, np.int64), np.empty(64)
    n = 0
    for i in tokens:
        price = nu[i]
        for place in range(out_start[i], out_start[i + 1]):
            a = out_arc[place]
            onward = nu[head[a]]
            if onward * spot[a] <= price:
                continue
            _, value = arc_best(kind[a], par[a], table_of[a], table, price, onward)
            if value > 0.0:
                if n >= len(arcs):
                    arcs = np.append(arcs, np.empty(n, np.int64))
                    values = np.append(values, np.empty(n))
                arcs[n] = a
                values[n] = value
                n += 1
    return arcs[:n], values[:n]


@compiled
def ways(
    arcs: IntArray,
    out_start: IntArray,
    out_arc: IndexArray,
    head: IndexArray,
    spot: Array,
    nu: Array,
    ends: Array,
    target: int,
    most: int,
) -> IntArray:
    """The arcs, and from each on the at most ``most`` arcs along which the price of its head arose.

    A way ends at a capped token (``ends`` < ∞), at B, and where the price is a floor. There the
    arcs worth more than the price, which only pairs of moved pools are, say which pools to use.
    Each arc is named once.
    """
    found = np.empty(4 * len(arcs) + 16, np.int64)
    n = 0
    seen = np.zeros(len(nu), np.bool_)
    for a in arcs:
        found[n] = a
        n += 1
        t = head[a]
        for _ in range(most):
            if t == target or ends[t] < inf or seen[t]:
                break
            seen[t] = True
            if n + len(arcs) + out_start[t + 1] - out_start[t] >= len(found):
                room = len(found) + out_start[t + 1] - out_start[t]
                found = np.append(found, np.empty(room, np.int64))
            best, best_value, above = -1, nu[t] * (1.0 - 1e-12), n
            for place in range(out_start[t], out_start[t + 1]):
                b = out_arc[place]
                value = nu[head[b]] * spot[b]
                if value > nu[t] * (1.0 + 1e-12):
                    found[above] = b
                    above += 1
                elif value > best_value:
                    best, best_value = b, value
            if best < 0:
                n = above
                break
            found[n] = best
            n += 1
            t = head[best]
    return np.unique(found[:n])

"""Prices for every token, the bound that they prove, and the arcs that break it.

Prices are extended backwards from B: ν_t = min(cap_t, max over arcs t→j of ν_j f′(0)). A token
without a cap then has ν_t ≥ ν_j f′(0) on each of its arcs, and f is concave with f(0) = 0, so that
ν_j f(x) − ν_t x ≤ 0: only arcs that leave capped tokens can gain. The bound over them is the bound
over the whole graph.
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
    target: int,
    most_visits: int,
    nu: Array,
) -> bool:
    """Write ν of every token; False when a gaining cycle keeps it from ending.

    ``cap`` is ∞ where a token has no cap. Label-correcting with a queue.
    """
    count = len(nu)
    nu[:] = 0.0
    nu[target] = 1.0
    waiting = np.zeros(count, np.bool_)
    visits = np.zeros(count, np.int32)
    queue = np.empty(count + 1, np.int64)
    first, after = 0, 1
    queue[0] = target
    waiting[target] = True
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
def follow(
    start: int,
    out_start: IntArray,
    out_arc: IndexArray,
    head: IndexArray,
    spot: Array,
    nu: Array,
    ends: Array,
    target: int,
    most: int,
    found: IntArray,
) -> int:
    """The arcs from a token to a capped one or to B along which its price arose, into ``found``."""
    n = 0
    t = start
    while t != target and ends[t] == inf and n < most:
        best, best_value = -1, 0.0
        for place in range(out_start[t], out_start[t + 1]):
            a = out_arc[place]
            value = nu[head[a]] * spot[a]
            if value > best_value:
                best, best_value = a, value
        if best < 0:
            break
        found[n] = best
        n += 1
        t = head[best]
    return n

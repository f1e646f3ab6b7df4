"""Which arcs are worth looking at: the best way through each arc within three hops.

For an order of Δ from A to B and a size s, labels F₁, F₂ are the best products of rates f(s)/s from
A within one and two hops, G₁ and G₂ those to B. The score of an arc i→j is

    rate · max(F₁(i)·G₁(j), [i = A]·G₂(j), [j = B]·F₂(i)),

the yield of the best path through it. Small sizes find the best price, large ones the depth.
"""

from __future__ import annotations

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray
from solver.core.routing.arcs import IndexArray


@compiled
def _label(
    start: IntArray, arc: IndexArray, end: IndexArray, rate: Array, origin: int, one: Array
) -> IntArray:
    """Best single arc from ``origin`` per token, into ``one``; the tokens reached."""
    found = np.empty(start[origin + 1] - start[origin] + 1, np.int64)
    n = 0
    one[origin] = 1.0
    found[n] = origin
    n += 1
    for place in range(start[origin], start[origin + 1]):
        a = arc[place]
        j = end[a]
        if rate[a] > one[j]:
            if one[j] == 0.0:
                found[n] = j
                n += 1
            one[j] = rate[a]
    return found[:n]


@compiled
def select(
    out_start: IntArray,
    out_arc: IndexArray,
    in_start: IntArray,
    in_arc: IndexArray,
    tail: IndexArray,
    head: IndexArray,
    rate: Array,
    origin: int,
    target: int,
    want: int,
    chosen: Array,
) -> Array:
    """Raise ``chosen[a]`` to the score of the best arcs, about ``want`` of them.

    Ties at the last place are all taken. Returns G₂ (or G₁) of every token, 0 where unknown.
    """
    count = len(out_start) - 1
    f1, g1 = np.zeros(count), np.zeros(count)
    f2, g2 = np.zeros(count), np.zeros(count)
    near = _label(out_start, out_arc, head, rate, origin, f1)
    last = _label(in_start, in_arc, tail, rate, target, g1)
    for i in near:
        f2[i] = max(f2[i], f1[i])
        for place in range(out_start[i], out_start[i + 1]):
            a = out_arc[place]
            j = head[a]
            value = f1[i] * rate[a]
            if value > f2[j]:
                f2[j] = value
    for j in last:
        g2[j] = max(g2[j], g1[j])
        for place in range(in_start[j], in_start[j + 1]):
            a = in_arc[place]
            i = tail[a]
            value = g1[j] * rate[a]
            if value > g2[i]:
                g2[i] = value
    room = in_start[target + 1] - in_start[target]
    for i in near:
        room += out_start[i + 1] - out_start[i]
    arcs, scores = np.empty(room, np.int64), np.empty(room)
    n = 0
    for i in near:
        for place in range(out_start[i], out_start[i + 1]):
            a = out_arc[place]
            j = head[a]
            onward = f1[i] * g1[j]
            if i == origin:
                onward = max(onward, g2[j])
            if j == target:
                onward = max(onward, f2[i])
            if onward > 0.0 and j != origin and i != target:
                arcs[n] = a
                scores[n] = rate[a] * onward
                n += 1
    for place in range(in_start[target], in_start[target + 1]):
        a = in_arc[place]
        i = tail[a]
        if f1[i] == 0.0 and f2[i] > 0.0:
            arcs[n] = a
            scores[n] = rate[a] * f2[i]
            n += 1
    least = 0.0
    if n > want:
        least = np.partition(scores[:n], n - want)[n - want] * (1.0 - 1e-12)
    for k in range(n):
        if scores[k] >= least and scores[k] > 0.0:
            chosen[arcs[k]] = max(chosen[arcs[k]], scores[k])
    return g2

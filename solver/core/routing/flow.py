"""From the interior point's flows to a route: few arcs, no dead ends, every balance used up.

Arcs below a threshold are dropped, then tokens without a way on or a way in, and the rest is walked
in topological order: each token's balance is split in the proportions of the flows. The result is
feasible by construction; an error in the proportions costs only the second order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, KindArray
from solver.core.routing.arcs import Table, arc_output
from solver.core.routing.joint import pair_output

Mask = NDArray[np.bool_]
_MOST = 1.0 - 1e-12  # of a balance that a joint pool may give


@compiled
def prune(
    tail: IntArray,
    head: IntArray,
    tokens: int,
    source: int,
    target: int,
    kept: Mask,
    whole: bool = False,
) -> None:
    """Drop, in place, arcs that no flow from source to target can use.

    Arcs into the source and out of the target go too, unless the ``whole`` is wanted.
    """
    m = len(tail)
    forward, backward = np.zeros(tokens, np.bool_), np.zeros(tokens, np.bool_)
    forward[source] = True
    backward[target] = True
    changed = True
    while changed:
        changed = False
        for a in range(m):
            if kept[a]:
                if forward[tail[a]] and not forward[head[a]]:
                    forward[head[a]] = True
                    changed = True
                if backward[head[a]] and not backward[tail[a]]:
                    backward[tail[a]] = True
                    changed = True
    for a in range(m):
        if not (forward[tail[a]] and backward[head[a]]) or head[a] == source or tail[a] == target:
            kept[a] = False


@compiled
def order_tokens(
    tail: IntArray, head: IntArray, tokens: int, source: int, kept: Mask, flow: Array
) -> IntArray:
    """Tokens in topological order over kept arcs, breaking cycles at their weakest link.

    The weakest arcs into the token that is nearest to being free are dropped from ``kept``.
    """
    m = len(tail)
    waiting = np.zeros(tokens, np.int64)
    present = np.zeros(tokens, np.bool_)
    present[source] = True
    for a in range(m):
        if kept[a]:
            waiting[head[a]] += 1
            present[tail[a]] = True
            present[head[a]] = True
    order = np.empty(tokens, np.int64)
    done = np.zeros(tokens, np.bool_)
    n, total = 0, 0
    for t in range(tokens):
        if present[t]:
            total += 1
    while n < total:
        pick = -1
        for t in range(tokens):
            if present[t] and not done[t] and waiting[t] == 0:
                pick = t
                break
        if pick < 0:
            least = np.inf
            for t in range(tokens):
                if present[t] and not done[t] and (n == 0) == (t == source):
                    owed, had = 0.0, 0.0
                    for a in range(m):
                        if kept[a] and head[a] == t:
                            if done[tail[a]]:
                                had += flow[a]
                            else:
                                owed += flow[a]
                    share = owed / (owed + had) if owed > 0.0 else 0.0
                    if share < least:
                        least = share
                        pick = t
            for a in range(m):
                if kept[a] and head[a] == pick and not done[tail[a]]:
                    kept[a] = False
        done[pick] = True
        order[n] = pick
        n += 1
        for a in range(m):
            if kept[a] and tail[a] == pick:
                waiting[head[a]] -= 1
    return order[:n]


@compiled
def push(
    order: IntArray,
    tail: IntArray,
    head: IntArray,
    kept: Mask,
    flow: Array,
    tokens: int,
    source: int,
    target: int,
    amount: float,
    arc: IntArray,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    joint: IntArray,
    start: IntArray,
    coin_in: IntArray,
    coin_out: IntArray,
    state: Array,
    weight: Array,
    ann: Array,
    into: Array,
    out: Array,
    gross: Array,
    used: Array,
) -> float:
    """Send ``amount`` through; ``used`` becomes the input of each arc, the result what arrives.

    A flow is one whole arc here, so ticks and levels are taken in order. ``joint`` names the joint
    pool of each arc or −1; ``state`` are the joint pools' balances and moves with the flow.
    """
    m = len(tail)
    balance, share = np.zeros(tokens), np.zeros(tokens)
    balance[source] = amount
    used[:] = 0.0
    for a in range(m):
        if kept[a]:
            share[tail[a]] += flow[a]
    for t in order:
        if t == target or share[t] <= 0.0:
            continue
        for a in range(m):
            if kept[a] and tail[a] == t:
                x = balance[t] * flow[a] / share[t]
                used[a] = x
                k = arc[a]
                if joint[a] < 0:
                    balance[head[a]] += arc_output(kind[k], par[k], table_of[k], table, x)
                    continue
                i, j = coin_in[a], coin_out[a]
                first, last = start[joint[a]], start[joint[a] + 1]
                given = pair_output(
                    state[first:last], weight[first:last], ann[joint[a]],
                    i - first, j - first, into[i] * x,
                )  # fmt: skip
                # what rounding calls all of a balance leaves a part of it that the next must find
                given = min(given, state[j] * _MOST)
                state[i] += gross[i] * x
                state[j] -= given
                balance[head[a]] += out[j] * given
        balance[t] = 0.0
    return balance[target]

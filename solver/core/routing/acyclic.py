"""An order of all tokens in which a fill of a graph with cycles may run, and what it then may use.

The best acyclic fill is NP-hard to find; once the tokens stand in a row and every arc runs forward,
it is a concave program again. The row is a heuristic for the feedback arc set of the joint plan:
tokens without inflow go to the front, those without outflow to the back, and where there is neither
the one with the largest share of outflow goes to the front.

Source: Eades, Lin and Smyth, "A fast and effective heuristic for the feedback arc set problem",
Inf. Process. Lett. 47 (1993).
"""

from __future__ import annotations

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray
from solver.core.pools import BookPool
from solver.core.routing.arcs import STEPS
from solver.core.routing.flow import Mask
from solver.core.routing.network import Network
from solver.core.routing.whole import Outcome, Part


def pair_flows(network: Network, plan: Outcome) -> Array:
    """Input of every arc; what joint pools are paid is spread over what they give."""
    flow = plan.flow.copy()
    joint = network.joint
    pairs = np.nonzero(joint.coin_in >= 0)[0]
    group = joint.of_pool[network.pool[pairs]]
    given = np.zeros(len(joint.ann))
    np.add.at(given, group, plan.taken[joint.coin_out[pairs]])
    # a coin is the target of one pair per other coin of its pool
    others = np.diff(joint.start) - 1
    share = plan.taken[joint.coin_out[pairs]] * others[group] / np.maximum(given[group], 1e-300)
    flow[pairs] = plan.paid[joint.coin_in[pairs]] * share
    return flow


def row_of_tokens(network: Network, flow: Array, source: int, target: int) -> IntArray:
    """The place of every token in the row; the source comes first and the target last."""
    count = len(network.tokens)
    used = np.nonzero(flow > 0.0)[0]
    keys = network.tail[used].astype(np.int64) * count + network.head[used]
    pairs, inverse = np.unique(keys, return_inverse=True)
    weight: Array = np.bincount(inverse, weights=flow[used], minlength=len(pairs)).astype(float)
    tail, head = pairs // count, pairs % count
    back = np.searchsorted(pairs, head * count + tail)
    back = np.minimum(back, max(0, len(pairs) - 1))
    if len(pairs):
        opposite = np.where(pairs[back] == head * count + tail, weight[back], 0.0)
        net = weight - opposite
        tail, head, weight = tail[net > 0.0], head[net > 0.0], net[net > 0.0]
    by_head = np.argsort(head, kind="stable")
    places = np.arange(count + 1)
    return _row(
        count, tail, head, weight, by_head, np.searchsorted(tail, places),
        np.searchsorted(head[by_head], places), source, target,
    )  # fmt: skip


@compiled
def _row(
    count: int, tail: IntArray, head: IntArray, weight: Array, by_head: IntArray,
    out_start: IntArray, in_start: IntArray, source: int, target: int,
) -> IntArray:  # fmt: skip
    leaves, comes = np.zeros(count), np.zeros(count)
    going, coming = np.zeros(count, np.int64), np.zeros(count, np.int64)
    waiting = np.ones(count, np.bool_)
    waiting[source] = False
    waiting[target] = False
    for k in range(len(tail)):
        if waiting[tail[k]] and waiting[head[k]]:
            leaves[tail[k]] += weight[k]
            comes[head[k]] += weight[k]
            going[tail[k]] += 1
            coming[head[k]] += 1
    rank = np.empty(count, np.int64)
    first, last = 1, count - 2
    rank[source], rank[target] = 0, count - 1
    for _ in range(count - 2):
        pick, best, is_last = -1, -2.0, False
        for t in range(count):
            if not waiting[t]:
                continue
            if going[t] == 0:
                pick, is_last = t, True
                break
            score = 2.0 if coming[t] == 0 else (leaves[t] - comes[t]) / (leaves[t] + comes[t])
            if score > best:
                pick, best = t, score
        waiting[pick] = False
        if is_last:
            rank[pick] = last
            last -= 1
        else:
            rank[pick] = first
            first += 1
        for k in range(out_start[pick], out_start[pick + 1]):
            if waiting[head[k]]:
                comes[head[k]] -= weight[k]
                coming[head[k]] -= 1
        for place in range(in_start[pick], in_start[pick + 1]):
            k = by_head[place]
            if waiting[tail[k]]:
                leaves[tail[k]] -= weight[k]
                going[tail[k]] -= 1
    return rank


def forward(network: Network, rank: IntArray, plan: Outcome, most_lot: float) -> Part:
    """What runs forward in a row of tokens, without pools whose lots are worth more than that.

    A joint pool takes the coins before a point in the row and gives those behind it; the point is
    the one that keeps most of what the pool does in the ``plan``.
    """
    joint = network.joint
    pays, takes = np.zeros(len(joint.token), np.bool_), np.zeros(len(joint.token), np.bool_)
    _split(joint.start, joint.token, rank, plan.paid, plan.taken, pays, takes)
    arcs = rank[network.tail] < rank[network.head]
    both = joint.coin_in >= 0
    arcs[both] = pays[joint.coin_in[both]] & takes[joint.coin_out[both]]
    arcs[_lots(network) > most_lot] = False
    return Part(arcs, pays, takes)


def _lots(network: Network) -> Array:
    """What a lot of each arc is worth in numeraire; 0 for pools without lots."""
    lot = np.zeros(network.arc_count)
    for a in np.nonzero(network.kind == STEPS)[0]:
        pool = network.pools[network.pool[a]]
        if isinstance(pool, BookPool) and pool.base in network.index:
            lot[a] = pool.lot_size / network.unit[network.index[pool.base]]
    return lot


@compiled
def _split(
    start: IntArray, token: IntArray, rank: IntArray, paid: Array, taken: Array, pays: Mask,
    takes: Mask,
) -> None:  # fmt: skip
    for j in range(len(start) - 1):
        best, point = -1.0, -1
        for c in range(start[j], start[j + 1]):
            if token[c] < 0:
                continue
            at, kept, behind = rank[token[c]], 0.0, 0
            for d in range(start[j], start[j + 1]):
                if token[d] >= 0 and rank[token[d]] <= at:
                    kept += paid[d]
                elif token[d] >= 0:
                    kept += taken[d]
                    behind += 1
            if behind > 0 and kept > best:
                best, point = kept, at
        for c in range(start[j], start[j + 1]):
            if token[c] >= 0 and point >= 0:
                pays[c] = rank[token[c]] <= point
                takes[c] = rank[token[c]] > point

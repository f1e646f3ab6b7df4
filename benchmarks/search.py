"""Path search for the baselines, compiled: the best path by layers, all paths of a small graph.

Paths have up to three arcs and repeat neither a token nor a pool. Amounts are in numeraire.
"""

from __future__ import annotations

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, KindArray
from solver.core.routing.arcs import IndexArray, Table, arc_output

MOST_HOPS = 3


@compiled
def marginal(
    a: int,
    x: float,
    prior: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
) -> float:
    """What x more gives in an arc that ``prior`` has gone through already."""
    before = prior[a]
    if before == 0.0:
        return arc_output(kind[a], par[a], table_of[a], table, x)
    return arc_output(kind[a], par[a], table_of[a], table, before + x) - arc_output(
        kind[a], par[a], table_of[a], table, before
    )


@compiled
def best_path(
    out_start: IntArray,
    out_arc: IndexArray,
    in_start: IntArray,
    in_arc: IndexArray,
    tail: IndexArray,
    head: IndexArray,
    pool: IndexArray,
    charge: Array,
    prior: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    source: int,
    target: int,
    amount: float,
    found: IntArray,
) -> tuple[int, float]:
    """The path that nets most for ``amount``: its arcs into ``found``, their number, the net.

    ``charge[a]`` is the cost of using the arc's pool, in numeraire. Labels per token and number of
    hops keep the best amount less charges; the last hop looks only at arcs into the target.
    """
    count = len(out_start) - 1
    held = np.zeros((MOST_HOPS, count))
    cost = np.zeros((MOST_HOPS, count))
    via = np.full((MOST_HOPS, count), -1, np.int64)
    held[0, source] = amount
    layer = np.empty(1, np.int64)
    layer[0] = source
    best, best_hops, best_last = -np.inf, 0, -1
    for hop in range(MOST_HOPS):
        for place in range(in_start[target], in_start[target + 1]):
            a = in_arc[place]
            i = tail[a]
            if held[hop, i] <= 0.0 or _repeats(a, target, i, hop, via, tail, pool):
                continue
            gain = marginal(a, held[hop, i], prior, kind, par, table_of, table)
            net = gain - cost[hop, i] - charge[a]
            if net > best:
                best, best_hops, best_last = net, hop + 1, a
        if hop == MOST_HOPS - 1:
            break
        reached = np.empty(count, np.int64)
        n = 0
        for i in layer:
            for place in range(out_start[i], out_start[i + 1]):
                a = out_arc[place]
                j = head[a]
                if j in (source, target) or _repeats(a, int(j), int(i), hop, via, tail, pool):
                    continue
                gain = marginal(a, held[hop, i], prior, kind, par, table_of, table)
                price = cost[hop, i] + charge[a]
                if gain > 0.0 and (
                    via[hop + 1, j] < 0 or gain - price > held[hop + 1, j] - cost[hop + 1, j]
                ):
                    if via[hop + 1, j] < 0:
                        reached[n] = j
                        n += 1
                    held[hop + 1, j] = gain
                    cost[hop + 1, j] = price
                    via[hop + 1, j] = a
        layer = reached[:n]
    if best_last < 0:
        return 0, 0.0
    a = best_last
    for hop in range(best_hops - 1, -1, -1):
        found[hop] = a
        a = via[hop, tail[a]]
    return best_hops, best


@compiled
def _repeats(
    a: int, j: int, i: int, hop: int, via: IntArray, tail: IndexArray, pool: IndexArray
) -> bool:
    """Whether arc a to token j repeats a pool or a token of the path that leads to token i."""
    t = i
    for back in range(hop, 0, -1):
        before = via[back, t]
        if pool[before] == pool[a] or tail[before] == j:
            return True
        t = tail[before]
    return False


@compiled
def all_paths(
    arcs: IntArray,
    tail: IndexArray,
    head: IndexArray,
    pool: IndexArray,
    source: int,
    target: int,
    found: IntArray,
) -> int:
    """Every path from source to target over ``arcs``, rows of ``found`` filled up with −1."""
    n = 0
    room = len(found)
    for a in arcs:
        if tail[a] != source or n >= room:
            continue
        found[n, :] = -1
        found[n, 0] = a
        if head[a] == target:
            n += 1
            continue
        for b in arcs:
            if tail[b] != head[a] or pool[b] == pool[a] or head[b] == source or n >= room:
                continue
            if head[b] == target:
                found[n, 0], found[n, 1], found[n, 2] = a, b, -1
                n += 1
                continue
            for c in arcs:
                if (
                    tail[c] == head[b]
                    and head[c] == target
                    and pool[c] != pool[a]
                    and pool[c] != pool[b]
                    and n < room
                ):
                    found[n, 0], found[n, 1], found[n, 2] = a, b, c
                    n += 1
    return n


@compiled
def path_output(
    path: IntArray,
    x: float,
    prior: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
) -> float:
    """What arrives at the end of a path."""
    for a in path:
        if a < 0:
            break
        x = marginal(a, x, prior, kind, par, table_of, table)
    return x


@compiled
def quotes(
    paths: IntArray,
    sizes: Array,
    prior: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
) -> Array:
    """The output of every path at every size."""
    out = np.empty((len(paths), len(sizes)))
    for p in range(len(paths)):
        for s in range(len(sizes)):
            out[p, s] = path_output(paths[p], sizes[s], prior, kind, par, table_of, table)
    return out


@compiled
def _free(path: IntArray, used: IntArray, count: int, pool: IndexArray) -> bool:
    for a in path:
        if a < 0:
            break
        for k in range(count):
            if used[k] == pool[a]:
                return False
    return True


@compiled
def best_grid(
    paths: IntArray, net: Array, order: IntArray, pool: IndexArray, most: int, best: IntArray
) -> float:
    """The best split on a grid: ``best`` rows (path, steps), the total net; no pool twice.

    ``net[p, s]`` is the net of path p for s + 1 steps of the grid, ``order[:, s]`` sorts the paths
    by it. Parts are taken largest first, and each part goes to the best path with free pools, where
    the first part also tries the second best.
    """
    grid = net.shape[1]
    used = np.empty(3 * most, np.int64)
    chosen = np.full((most, 2), -1, np.int64)
    taken = np.zeros(most + 1, np.int64)  # pools used before this depth
    left = np.zeros(most + 1, np.int64)
    total = np.zeros(most + 1)
    step = np.zeros(most + 1, np.int64)  # the part tried at this depth, counts down
    champion = -np.inf
    for opening in range(min(2, len(paths))):
        for first in range(grid, 0, -1):
            depth = 0
            left[0], total[0], taken[0] = grid, 0.0, 0
            step[0] = first
            while depth >= 0:
                part = step[depth]
                if part <= 0 or (depth == 0 and part != first):
                    depth -= 1
                    if depth >= 0:
                        step[depth] -= 1
                    continue
                path = -1
                if depth == 0:
                    path = order[opening, part - 1]
                else:
                    for p in order[:, part - 1]:
                        if _free(paths[p], used, taken[depth], pool):
                            path = p
                            break
                if path < 0:
                    step[depth] -= 1
                    continue
                chosen[depth, 0], chosen[depth, 1] = path, part
                value = total[depth] + net[path, part - 1]
                rest = left[depth] - part
                if rest == 0:
                    if value > champion:
                        champion = value
                        best[:] = -1
                        best[: depth + 1] = chosen[: depth + 1]
                    step[depth] -= 1
                elif depth + 1 >= most:
                    step[depth] -= 1
                else:
                    n = taken[depth]
                    for a in paths[path]:
                        if a >= 0:
                            used[n] = pool[a]
                            n += 1
                    depth += 1
                    taken[depth], left[depth], total[depth] = n, rest, value
                    step[depth] = min(part, rest)
    return champion


@compiled
def equalise(
    paths: IntArray,
    amount: float,
    prior: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    share: Array,
) -> float:
    """Split ``amount`` over paths without common pools until their marginal prices are equal.

    Bisection on the common marginal price, and inside it on each path's input; ``share`` becomes
    the inputs, the result what arrives.
    """
    n = len(paths)
    nudge = 1e-6 * amount
    high, low = 0.0, 0.0
    for p in range(n):
        high = max(high, path_output(paths[p], nudge, prior, kind, par, table_of, table) / nudge)
    for _ in range(48):
        price = 0.5 * (low + high)
        total = 0.0
        for p in range(n):
            least, most = 0.0, amount
            for _ in range(36):
                x = 0.5 * (least + most)
                after = path_output(paths[p], x + nudge, prior, kind, par, table_of, table)
                before = path_output(paths[p], x, prior, kind, par, table_of, table)
                if after - before > price * nudge:
                    least = x
                else:
                    most = x
            share[p] = 0.5 * (least + most)
            total += share[p]
        if abs(total - amount) < 1e-7 * amount:
            break
        if total > amount:
            low = price
        else:
            high = price
    total = np.sum(share)
    value = 0.0
    for p in range(n):
        share[p] *= amount / total
        value += path_output(paths[p], share[p], prior, kind, par, table_of, table)
    return value


@compiled
def split_output(
    paths: IntArray,
    share: Array,
    amount: float,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    prior: Array,
    touched: IntArray,
) -> tuple[float, int]:
    """What arrives over paths that may share arcs, one after another; arcs touched and how many.

    ``prior`` must be zero on entry; it then holds the flow of each arc, to be cleared by the
    caller over ``touched``.
    """
    value, n = 0.0, 0
    for p in range(len(paths)):
        x = share[p] * amount
        if x <= 0.0:
            continue
        for a in paths[p]:
            if a < 0:
                break
            y = marginal(a, x, prior, kind, par, table_of, table)
            prior[a] += x
            touched[n] = a
            n += 1
            x = y
        value += x
    return value, n

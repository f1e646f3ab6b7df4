"""The best single paths of an order: what every search for a split must not fall below."""

from __future__ import annotations

from math import inf

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, KindArray
from solver.core.routing.arcs import IndexArray, Table, arc_output
from solver.core.routing.network import Network

_HOPS = 4


def best_paths(
    network: Network, source: int, target: int, amount: float, charge: Array
) -> list[IntArray]:
    """The arcs of the best path with 1, 2, … arcs, up to four, for ``amount`` in numeraire.

    ``charge`` is what each pool costs, in numeraire; a pool that costs ∞ is not used.
    """
    paths = np.empty((_HOPS, _HOPS), np.int64)
    _best_paths(
        network.out_start, network.out_arc, network.tail, network.head, network.pool,
        network.spot, charge, network.kind, network.par, network.table, network.rows,
        source, target, amount, _HOPS, paths,
    )  # fmt: skip
    return [path[path >= 0] for path in paths if path[0] >= 0]


@compiled
def _best_paths(
    out_start: IntArray,
    out_arc: IndexArray,
    tail: IndexArray,
    head: IndexArray,
    pool: IndexArray,
    spot: Array,
    charge: Array,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    source: int,
    target: int,
    amount: float,
    hops: int,
    paths: IntArray,
) -> None:
    """The best single path with 1, 2, … ``hops`` arcs, net of charges, into rows of ``paths``.

    Rows are filled with −1 at the end. Labels compare what has arrived, at reference prices, less
    the charges so far; a path visits a token once.
    """
    count = len(out_start) - 1
    have = np.zeros((hops + 1, count))
    net = np.full((hops + 1, count), -inf)
    via = np.full((hops + 1, count), -1, np.int64)
    have[0, source] = amount
    net[0, source] = amount
    near = np.empty(count, np.int64)
    near[0] = source
    reached = 1
    paths[:] = -1
    for hop in range(1, hops + 1):
        following = np.empty(count, np.int64)
        found = 0
        last = hop == hops
        for m in range(reached):
            i = near[m]
            held, paid = have[hop - 1, i], have[hop - 1, i] - net[hop - 1, i]
            for place in range(out_start[i], out_start[i + 1]):
                a = out_arc[place]
                j = head[a]
                if last and j != target:
                    continue
                cost = paid + charge[pool[a]]
                if j == source or not held * spot[a] - cost > net[hop, j]:
                    continue
                if not last and j != target and held * spot[a] - cost <= 0.0:
                    continue
                seen = False
                t, back = i, hop - 1
                while back > 0 and not seen:
                    seen = t == j
                    t = tail[via[back, t]]
                    back -= 1
                if seen:
                    continue
                y = arc_output(kind[a], par[a], table_of[a], table, held)
                if y - cost > net[hop, j] and y > 0.0:
                    if net[hop, j] == -inf and j != target:
                        following[found] = j
                        found += 1
                    have[hop, j] = y
                    net[hop, j] = y - cost
                    via[hop, j] = a
        if via[hop, target] >= 0:
            t = target
            for back in range(hop, 0, -1):
                paths[hop - 1, back - 1] = via[back, t]
                t = tail[via[back, t]]
        near = following
        reached = found

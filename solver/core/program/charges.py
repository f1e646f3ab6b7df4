"""Gas as a fixed charge per pool: the master program over trades, and the choice of pools.

    master   maximise Σ λ_k (what trade k brings at B − its charge)
             subject to 1·[t = A] + Σ λ_k net_k(t) ≥ 0 at every t ≠ B,  Σ_k of a pool λ_k ≤ 1
    choose   maximise Σ y into B − Σ q_p z_p
             subject to conservation,  x ≤ X·z,  z ∈ {0, 1},
                        y ≤ f′(x_k)·x + (f(x_k) − f′(x_k)·x_k)·z

The rows of ``choose`` are perspective cuts: tangents of z·f(x/z), above f, and through 0 with z.
Amounts are in units of the order at reference prices. Either returns None when the optimiser
returns nothing, and the caller goes on without it.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from solver.core.kernels import Array, IntArray
from solver.core.program import optimiser
from solver.core.program.optimiser import Columns

_NODES = 400


class Trades(Struct, frozen=True):
    """Trades of whole pools: pool and charge of each; (trade, token, net amount) as triplets."""

    pool: IntArray
    charge: Array
    trade: IntArray
    token: IntArray
    net: Array


class Curves(Struct, frozen=True):
    """Arcs by their tangents: pool, ends, largest input; slope and height at z = 1, x = 0."""

    pool: IntArray
    tail: IntArray
    head: IntArray
    most: Array
    slope: Array
    height: Array


def master(trades: Trades, tokens: int, source: int, target: int) -> tuple[Array, Array] | None:
    """λ per trade and ν per token (ν = 1 at the target), or None."""
    columns = Columns()
    count = len(trades.pool)
    value = -trades.charge
    arrives = trades.token == target
    value = value + np.bincount(trades.trade[arrives], weights=trades.net[arrives], minlength=count)
    columns.cost = value.tolist()
    columns.lower = [0.0] * count
    columns.upper = [1.0] * count
    pools, rank = np.unique(trades.pool, return_inverse=True)
    limits = np.zeros(tokens)
    limits[source] = -1.0
    columns.row_lower = limits.tolist() + [-1.0] * len(pools)
    others = ~arrives
    columns.row = trades.token[others].tolist() + (tokens + rank).tolist()
    columns.column = trades.trade[others].tolist() + list(range(count))
    columns.entry = trades.net[others].tolist() + [-1.0] * count
    answer = optimiser.run(columns, "glop", "use_preprocessing: false")
    if answer is None:
        answer = optimiser.run(columns, "glop", "use_preprocessing: false use_dual_simplex: true")
    if answer is None:
        return None
    nu = np.maximum(-answer[1][:tokens], 0.0)
    nu[target] = 1.0
    return answer[0], nu


def choose(
    curves: Curves, charge: Array, tokens: int, source: int, target: int
) -> list[int] | None:
    """The pools of the best route by SCIP within its node limit; ``charge`` is per pool."""
    columns = Columns()
    switch = [columns.variable(-float(q), 1.0) for q in charge]
    columns.integer = list(switch)
    nodes = [columns.at_least(-1.0 if t == source else 0.0) for t in range(tokens)]
    for a in range(len(curves.pool)):
        z = switch[int(curves.pool[a])]
        x = columns.variable(0.0, float(curves.most[a]))
        y = columns.variable(1.0 if curves.head[a] == target else 0.0, np.inf)
        columns.put(nodes[curves.tail[a]], x, -1.0)
        if curves.head[a] != target:
            columns.put(nodes[curves.head[a]], y, 1.0)
        columns.at_least(0.0, (z, float(curves.most[a])), (x, -1.0))
        for slope, height in zip(curves.slope[a], curves.height[a], strict=True):
            columns.at_least(0.0, (x, float(slope)), (z, float(height)), (y, -1.0))
    answer = optimiser.run(columns, "scip", node_limit=_NODES)
    if answer is None:
        return None
    return [k for k, z in enumerate(switch) if answer[0][z] > 0.5]

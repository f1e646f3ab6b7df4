"""The arcs of a whole network, compiled: output, first slope, best trade at given prices, levels.

To the kinds of :mod:`solver.core.kernels` come two with a table of rows (start, depth, in, out):

    TICKS  start = edge in u, depth = liquidity, in/out = cumulative amounts in base units;
           numbers: u now, γ, base units in, base units out, in and out at u
    STEPS  start = input, depth = slope, in/out = cumulative amounts in numeraire

``table[a]`` is (offset, rows, piece at u). On u see
:class:`solver.core.venue.TickTable`.

"""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from solver.core.jit import compiled
from solver.core.kernels import (
    PRODUCT,
    Array,
    IntArray,
    KindArray,
    level_input_at,
    level_output,
    level_slope,
    supremum,
)

TICKS, STEPS = 5, 6
IndexArray = NDArray[np.int32]
Table = NDArray[np.float64]


@compiled
def _row(table: Table, offset: int, rows: int, column: int, value: float) -> int:
    """The last row of a table with table[row, column] ≤ value; the first row if there is none."""
    low, high = 0, rows - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if table[offset + middle, column] <= value:
            low = middle
        else:
            high = middle - 1
    return low


@compiled
def _prepare_ticks(p: Array, place: IntArray, table: Table) -> None:
    """Piece and cumulative amounts at the current price."""
    offset, rows = place[0], place[1]
    last = table[offset + rows - 1, 0]
    u = min(max(p[0], table[offset, 0]), last)
    k = min(_row(table, offset, rows, 0, u), rows - 2)
    place[2] = k
    low, depth = table[offset + k, 0], table[offset + k, 1]
    p[4] = table[offset + k, 2] + depth * (u - low)
    p[5] = table[offset + k, 3] + depth * (1.0 / low - 1.0 / u)


@compiled
def arc_output(kind: int, p: Array, place: IntArray, table: Table, x: float) -> float:
    """f(x); what is beyond the table's end gives nothing more."""
    if kind < TICKS:
        return level_output(kind, p, x)
    offset, rows = place[0], place[1]
    if kind == STEPS:
        k = _row(table, offset, rows, 0, x)
        return table[offset + k, 3] + table[offset + k, 1] * (x - table[offset + k, 0])
    piece = place[2]
    low, depth = max(table[offset + piece, 0], p[0]), table[offset + piece, 1]
    net = p[1] * x * p[2]
    if depth > 0.0 and net <= depth * (table[offset + piece + 1, 0] - low):
        return net / (low * (low + net / depth)) / p[3]
    reach = p[4] + net
    k = _row(table, offset, rows, 2, reach)
    if k >= rows - 1:
        return (table[offset + rows - 1, 3] - p[5]) / p[3]
    low, depth = table[offset + k, 0], table[offset + k, 1]
    rest = reach - table[offset + k, 2]
    part = rest / (low * (low + rest / depth)) if depth > 0.0 else 0.0
    return (table[offset + k, 3] + part - p[5]) / p[3]


@compiled
def arc_capacity(kind: int, p: Array, place: IntArray, table: Table) -> float:
    """The input beyond which f is flat."""
    if kind < TICKS:
        return inf
    last = place[0] + place[1] - 1
    if kind == STEPS:
        return table[last, 0]
    return (table[last, 2] - p[4]) / (p[1] * p[2])


@compiled
def arc_spot(kind: int, p: Array, place: IntArray, table: Table) -> float:
    """f′(0): of the first piece that has any depth."""
    if kind < TICKS:
        return level_slope(kind, p, 0.0)
    offset, rows = place[0], place[1]
    if kind == STEPS:
        return table[offset, 1] if rows > 1 else 0.0
    k = place[2]
    if p[0] >= table[offset + rows - 1, 0]:
        return 0.0
    u = max(p[0], table[offset + k, 0])
    while table[offset + k, 1] <= 0.0:
        k += 1
        if k >= rows - 1:
            return 0.0
        u = table[offset + k, 0]
    return p[1] / (u * u) * p[2] / p[3]


@compiled
def arc_best(
    kind: int, p: Array, place: IntArray, table: Table, price_in: float, price_out: float
) -> tuple[float, float]:
    """x and value of max over x of price_out·f(x) − price_in·x; value ≥ 0.

    With price_in = 0 the value is the supremum and x is the last useful input, if there is one.
    """
    if price_out <= 0.0:
        return 0.0, 0.0
    r = max(price_in / price_out, 1e-100)
    if kind < TICKS:
        x = level_input_at(kind, p, inf, r)
        if x == inf or price_in <= 0.0:
            return inf, price_out * supremum(kind, p)
        return x, max(0.0, price_out * level_output(kind, p, x) - price_in * x)
    offset, rows = place[0], place[1]
    if kind == STEPS:
        k = 0
        while k < rows - 1 and table[offset + k, 1] >= r:
            k += 1
        x, y = table[offset + k, 0], table[offset + k, 3]
        return x, max(0.0, price_out * y - price_in * x)
    u = sqrt(p[1] / r * p[2] / p[3])
    if u <= p[0]:
        return 0.0, 0.0
    u = min(u, table[offset + rows - 1, 0])
    k = min(_row(table, offset, rows, 0, u), rows - 2)
    low, depth = table[offset + k, 0], table[offset + k, 1]
    if k == place[2]:
        low = max(low, p[0])
        if u <= low:
            return 0.0, 0.0
        taken, given = depth * (u - low), depth * (u - low) / (low * u)
    else:
        taken = table[offset + k, 2] + depth * (u - low) - p[4]
        given = table[offset + k, 3] + depth * (u - low) / (low * u) - p[5]
    x = taken / (p[1] * p[2])
    return x, max(0.0, price_out * given / p[3] - price_in * x)


@compiled
def prepare(
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    changed: IntArray,
    spot: Array,
    in_spot: Array,
    in_place: IndexArray,
) -> None:
    """What follows from the rows of changed arcs: the piece of tick arcs, and f′(0) everywhere."""
    for a in changed:
        if kind[a] == TICKS:
            _prepare_ticks(par[a], table_of[a], table)
        spot[a] = arc_spot(kind[a], par[a], table_of[a], table)
        in_spot[in_place[a]] = spot[a]


@compiled
def rates(
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    changed: IntArray,
    size: float,
    out: Array,
) -> None:
    """f(s)/s of the changed arcs."""
    for a in changed:
        out[a] = arc_output(kind[a], par[a], table_of[a], table, size) / size


@compiled
def expand(
    chosen: IntArray,
    price_in: Array,
    price_out: Array,
    slack: float,
    most_input: float,
    kind: KindArray,
    par: Array,
    table_of: IntArray,
    table: Table,
    arc_of: IntArray,
    level_kind: KindArray,
    level_par: Array,
    level_capacity: Array,
) -> int:
    """The levels of the chosen arcs, written into the last four arrays; their number, or −1.

    Of a tick or step arc come the first level with depth and those whose slope at its start is
    worth more than the price of the input less ``slack``, as far as ``most_input`` can reach.
    −1 says that the arrays are too short.
    """
    n = 0
    room = len(arc_of)
    for c in range(len(chosen)):
        a = chosen[c]
        k = kind[a]
        if k < TICKS:
            if n >= room:
                return -1
            arc_of[n] = c
            level_kind[n] = k
            level_par[n] = par[a]
            level_capacity[n] = inf
            n += 1
            continue
        offset, rows = table_of[a, 0], table_of[a, 1]
        least = price_in[c] * (1.0 - slack)
        reached = 0.0
        some = False
        start = 0 if k == STEPS else table_of[a, 2]
        for row in range(start, rows - 1):
            depth = table[offset + row, 1]
            low, high = table[offset + row, 0], table[offset + row + 1, 0]
            if k == STEPS:
                width, slope = high - low, depth
            else:
                low = max(low, par[a, 0])
                slope = par[a, 1] / (low * low) * par[a, 2] / par[a, 3]
                width = depth * (high - low) / (par[a, 1] * par[a, 2])
            if some and (slope * price_out[c] < least or reached > most_input):
                break
            if width <= 0.0 or slope <= 0.0:
                continue
            if n >= room:
                return -1
            arc_of[n] = c
            level_capacity[n] = width
            if k == STEPS:
                level_kind[n] = 0
                level_par[n, 0] = slope
            else:
                level_kind[n] = PRODUCT
                level_par[n, 0] = depth * low / par[a, 2]
                level_par[n, 1] = depth / low / par[a, 3]
                level_par[n, 2] = par[a, 1]
            reached += width
            some = True
            n += 1
    return n

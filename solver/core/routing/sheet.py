"""The numbers of all arcs of a network, written where they lie, kind by kind.

What the kinds and rows mean is in :mod:`solver.core.routing.arcs`. The numbers of many arcs are
gathered in one flat list per kind, and one compiled call per kind puts them into the network's
units. A table is written over the one before while it fits; then it moves to the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from solver.core.jit import compiled
from solver.core.kernels import (
    LINEAR,
    PRODUCT,
    STABLE,
    WEIGHTED,
    WIDTH,
    Array,
    IntArray,
    KindArray,
    stable_numbers,
)
from solver.core.routing.arcs import STEPS, TICKS, Table
from solver.core.venue import (
    Arc,
    ConstantProductArc,
    LevelsArc,
    StableArc,
    TicksArc,
    TickTable,
    WeightedArc,
)

_KINDS: dict[type[Arc], int] = {
    ConstantProductArc: PRODUCT,
    WeightedArc: WEIGHTED,
    StableArc: STABLE,
    TicksArc: TICKS,
    LevelsArc: STEPS,
}
_ROOM = 4  # rows that a table may grow by before it moves


class Sheet:
    """Kind, parameters and table of every arc; ``rows``, replaced as it grows, has all tables.

    ``unit_in`` and ``unit_out`` are base units per numeraire of an arc's two tokens.
    """

    def __init__(self, unit_in: Array, unit_out: Array) -> None:
        count = len(unit_in)
        self._unit_in, self._unit_out = unit_in, unit_out
        self.kind: KindArray = np.empty(count, np.int8)
        self.par: Array = np.zeros((count, WIDTH))
        self.table: IntArray = np.zeros((count, 3), np.int64)
        self.rows: Table = np.zeros((0, 4))
        self._filled = 0
        self._room: IntArray = np.zeros(count, np.int64)
        self._ticks: dict[int, TickTable] = {}

    def takes(self, places: IntArray, arcs: Sequence[Arc]) -> bool:
        """Whether the arcs are of the kinds that were written there; no kind takes the place of an
        empty stable arc.
        """
        return bool(np.array_equal(self.kind[places], [_KINDS[type(arc)] for arc in arcs]))

    def write(self, places: Iterable[int], arcs: Iterable[Arc]) -> None:
        """Write arcs, each with its number."""
        product: list[float] = []
        weighted: list[float] = []
        stable: list[float] = []
        coins: list[float] = []
        ticks: list[float] = []
        tables: list[tuple[int, TickTable]] = []
        books: list[tuple[int, int]] = []
        levels: list[tuple[float, float]] = []
        for a, arc in zip(places, arcs, strict=True):
            if type(arc) is ConstantProductArc:
                product += (a, arc.reserve_in, arc.reserve_out, arc.fee)
            elif type(arc) is WeightedArc:
                ratio = arc.weight_in / arc.weight_out
                weighted += (a, arc.reserve_in, arc.reserve_out, arc.fee, ratio)
            elif type(arc) is TicksArc:
                ticks += (a, arc.start, arc.fee)
                if self._ticks.get(a) is not arc.table:
                    self._ticks[a] = arc.table
                    tables.append((a, arc.table))
            elif type(arc) is LevelsArc:
                books.append((a, len(arc.levels)))
                levels += arc.levels
            elif type(arc) is StableArc:
                count = len(arc.balances)
                stable += (a, arc.ann, count, arc.index_in, arc.index_out)
                stable += (arc.fee_in, arc.fee_out)
                coins += arc.balances
                coins += arc.scales
        units = self._unit_in, self._unit_out, self.kind, self.par
        if product:
            _write_products(_matrix(product, 4), *units)
        if weighted:
            _write_weighted(_matrix(weighted, 5), *units)
        if stable:
            _write_stable(_matrix(stable, 7), np.fromiter(coins, float, len(coins)), *units)
        if books:
            counts = np.array(books)
            self._place(counts[:, 0], counts[:, 1] + 1)
            flat = [number for level in levels for number in level]
            _write_steps(counts, _matrix(flat, 2), *units, self.table, self.rows)
        if ticks:
            self._place(
                np.array([a for a, _ in tables], np.int64),
                np.array([len(table.edges) for _, table in tables], np.int64),
            )
            for a, table in tables:
                edges, depth = (
                    np.ascontiguousarray(part, float) for part in (table.edges, table.liquidity)
                )
                _write_table(edges, depth, self.table[a], self.rows)
            _write_ticks(_matrix(ticks, 3), *units)

    def _place(self, a: IntArray, count: IntArray) -> None:
        """Find room for tables of ``count`` rows."""
        self.table[a, 1] = count
        large = count > self._room[a]
        if not np.any(large):
            return
        a, count = a[large], count[large]
        room = np.maximum(count + _ROOM, self._room[a] + self._room[a] // 4)
        ends = self._filled + np.cumsum(room)
        self.table[a, 0] = ends - room
        self._room[a] = room
        self._filled = int(ends[-1])
        if self._filled > len(self.rows):
            larger = np.zeros((self._filled + len(self.rows) // 4, 4))
            larger[: len(self.rows)] = self.rows
            self.rows = larger


def _matrix(numbers: list[float], columns: int) -> Array:
    return np.fromiter(numbers, float, len(numbers)).reshape(-1, columns)


@compiled
def _write_products(
    rows: Array, unit_in: Array, unit_out: Array, kind: KindArray, par: Array
) -> None:
    """Rows of arc, reserves, fee."""
    for r in range(len(rows)):
        a = int(rows[r, 0])
        kind[a] = PRODUCT
        par[a, 0] = rows[r, 1] / unit_in[a]
        par[a, 1] = rows[r, 2] / unit_out[a]
        par[a, 2] = 1.0 - rows[r, 3]


@compiled
def _write_weighted(
    rows: Array, unit_in: Array, unit_out: Array, kind: KindArray, par: Array
) -> None:
    """Rows of arc, reserves, fee, ratio of the weights."""
    _write_products(rows, unit_in, unit_out, kind, par)
    for r in range(len(rows)):
        a = int(rows[r, 0])
        kind[a] = WEIGHTED
        par[a, 3] = rows[r, 4]


@compiled
def _write_stable(
    rows: Array, coins: Array, unit_in: Array, unit_out: Array, kind: KindArray, par: Array
) -> None:
    """Rows of arc, Ann, number of coins, coin in, coin out, fees; ``coins`` balances and scales."""
    first = 0
    for r in range(len(rows)):
        a, ann, count = int(rows[r, 0]), rows[r, 1], int(rows[r, 2])
        i, o = int(rows[r, 3]), int(rows[r, 4])
        balances = coins[first : first + count]
        scales = coins[first + count : first + 2 * count]
        first += 2 * count
        if ann <= 0.0 or balances.min() <= 0.0:  # no curve: a linear arc of slope 0
            kind[a] = LINEAR
            par[a] = 0.0
            continue
        kind[a] = STABLE
        into, out = scales[i] * (1.0 - rows[r, 5]), (1.0 - rows[r, 6]) / scales[o]
        numbers = stable_numbers(balances, ann, i, o, into * unit_in[a], out / unit_out[a])
        par[a, 0], par[a, 1], par[a, 2] = numbers[0], numbers[1], numbers[2]
        par[a, 3], par[a, 4], par[a, 5] = numbers[3], numbers[4], numbers[5]


@compiled
def _write_ticks(rows: Array, unit_in: Array, unit_out: Array, kind: KindArray, par: Array) -> None:
    """Rows of arc, u now, fee."""
    for r in range(len(rows)):
        a = int(rows[r, 0])
        kind[a] = TICKS
        par[a, 0], par[a, 1] = rows[r, 1], 1.0 - rows[r, 2]
        par[a, 2], par[a, 3] = unit_in[a], unit_out[a]


@compiled
def _write_table(edges: Array, depth: Array, place: IntArray, table: Table) -> None:
    """A table of ticks with its cumulative amounts."""
    offset, last = place[0], len(edges) - 1
    taken, given = 0.0, 0.0
    for k in range(last + 1):
        row = table[offset + k]
        row[0], row[1], row[2], row[3] = edges[k], 0.0, taken, given
        if k < last:
            row[1] = depth[k]
            taken += depth[k] * (edges[k + 1] - edges[k])
            given += depth[k] * (1.0 / edges[k] - 1.0 / edges[k + 1])


@compiled
def _write_steps(
    books: IntArray, levels: Array, unit_in: Array, unit_out: Array, kind: KindArray, par: Array,
    place: IntArray, table: Table,
) -> None:  # fmt: skip
    """Rows of arc and number of levels; ``levels`` their capacities and rates, with sums."""
    first = 0
    for r in range(len(books)):
        a, count = books[r, 0], books[r, 1]
        kind[a] = STEPS
        taken, given = 0.0, 0.0
        for k in range(count + 1):
            row = table[place[a, 0] + k]
            row[0], row[1], row[2], row[3] = taken, 0.0, taken, given
            if k < count:
                width = levels[first + k, 0] / unit_in[a]
                row[1] = levels[first + k, 1] * (unit_in[a] / unit_out[a])
                taken += width
                given += width * row[1]
        first += count

"""The programs of a large batch by an interior point: curves as they are, no segments.

    maximise    c·x
    subject to  A·x + Σ f_k(x_k) at the head of curve k ≥ b,   l ≤ x ≤ u

The first columns are curves: column k has linear entries, as −1 at its tail, and brings f_k(x_k),
concave, to its head; all others are linear. Mehrotra's predictor–corrector on the perturbed
optimality conditions; columns are eliminated, so that each iteration solves one sparse positive
definite system in the rows' prices y:

    (J H⁻¹ Jᵀ + S/Y) dy = τ/y − s + r − J H⁻¹ g,   H = −y_head f″ + z/(x − l) + w/(u − x).

Source: Wright, "Primal-Dual Interior-Point Methods", ch. 10.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

import numpy as np
import scipy.sparse as sparse
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, KindArray, level_jet
from solver.core.program.optimiser import Columns
from solver.core.routing.sparse import Factor, Pattern, find_pattern

BoolArray = NDArray[np.bool_]
_MOST_ITERATIONS = 90
_TO_BOUNDARY = 0.995
_START = 0.3
_FIXED = 1e-13
_ENDED = 1e-11  # complementarity per column and row
_SHORT = 1e-10  # of the largest order, at most, a row
_DUAL = 1e-6
_CLOSE = 1e-10  # complementarity near the end
_PATIENCE = 8  # iterations there that bring nothing
_STUCK = 0.1  # of a step: second-order terms lead astray
_CENTRED = 0.3
_MOST_DAMPING = 1e-3
_ENOUGH = 1e3  # times what is wanted
_SNAP = 1e-8
MARGIN = 1e-2
_DAMPING = 1e-12  # of steps along columns that nothing holds


class Curves(Struct, frozen=True):
    """The curves of a program: the rows of their heads, and the closed forms of the kernels."""

    head: IntArray
    kind: KindArray
    par: Array


class Program(Struct, frozen=True):
    """A program: curves first, then linear columns, by columns (``start``, ``row``, ``entry``).

    The last entry of a curve is its head's, and changes with x.
    """

    curves: Curves
    start: IntArray
    row: IntArray
    entry: Array
    cost: Array
    low: Array
    high: Array
    least: Array


def program_of(columns: Columns, curves: Curves) -> Program:
    """A program from its triplets, of whose columns the first are curves."""
    count, bent = len(columns.cost), len(curves.kind)
    row, column = np.array(columns.row, np.int64), np.array(columns.column, np.int64)
    entry = np.array(columns.entry, float)
    of_curves = column < bent
    order = np.argsort(column[of_curves], kind="stable")  # heads come last
    degree = np.bincount(column[of_curves], minlength=bent)
    linear = sparse.coo_matrix(
        (entry[~of_curves], (row[~of_curves], column[~of_curves] - bent)),
        shape=(len(columns.row_lower), count - bent),
    ).tocsc()
    linear.sum_duplicates()
    end = np.cumsum(degree)
    start = np.concatenate([end - degree, np.sum(degree) + linear.indptr.astype(np.int64)])
    return Program(
        curves,
        start,
        np.concatenate([row[of_curves][order], linear.indices.astype(np.int64)]),
        np.concatenate([entry[of_curves][order], linear.data]),
        np.array(columns.cost),
        np.array(columns.lower),
        np.array(columns.upper),
        np.array(columns.row_lower),
    )


class _Places(Struct, frozen=True):
    pattern: Pattern
    diagonal: IntArray
    of_pair: IntArray


class _Point:
    """Values, prices of their bounds (z below, w above) and of rows (y), and the rows' slack s."""

    def __init__(self, columns: int, rows: int) -> None:
        self.x, self.z, self.w = np.zeros((3, columns))
        self.y, self.s = np.zeros((2, rows))

    def copy(self) -> _Point:
        """The same numbers, which stay."""
        other = _Point(len(self.x), len(self.y))
        other.x[:], other.z[:], other.w[:] = self.x, self.z, self.w
        other.y[:], other.s[:] = self.y, self.s
        return other


def maximise(program: Program, guess: Array, margin: float = MARGIN) -> tuple[Array, Array] | None:
    """Values and row prices y ≥ 0; None where it does not converge, as without a solution.

    ``guess`` are prices to begin with, one per row; ``margin`` is the least of prices and slacks,
    and of products, at the start. Values that have all but reached a bound are put on it.
    """
    solve = _Solve(program, guess, margin)
    nearest, found, idle = inf, solve.point, 0
    for _ in range(_MOST_ITERATIONS):
        missing, mispriced, mean = solve.measure()
        score = max(mean / _ENDED, missing / _SHORT)
        if score < nearest:
            nearest, found, idle = score, solve.point.copy(), 0
        idle += mean < _CLOSE
        if (score <= 1.0 and mispriced <= _DUAL) or idle > _PATIENCE or not solve.advance(mean):
            break
    return (_snapped(program, found, solve.free), found.y) if nearest <= _ENOUGH else None


class _Solve:
    """One program and its point, which :meth:`advance` moves."""

    def __init__(self, program: Program, guess: Array, margin: float) -> None:
        columns, rows = len(program.cost), len(program.least)
        self._program = program
        self._places = _places(rows, program.start.tobytes(), program.row.tobytes())
        self._factor = Factor(self._places.pattern)
        self._entry = program.entry.copy()
        self._bend, self._left, self._right, self._reduced, self._rise = np.zeros((5, columns))
        self._gradient = np.zeros(columns)
        self._value, self._short, self._rhs = np.zeros((3, rows))
        self.free = program.high - program.low > _FIXED
        self._capped = self.free & (program.high < inf)
        self._least = _attainable(program, self.free)
        self._ahead, self._way = _Point(columns, rows), _Point(columns, rows)
        self.point = _Point(columns, rows)
        self._count = float(np.sum(self.free) + np.sum(self._capped) + rows)
        self._begin(guess, margin)

    def _begin(self, guess: Array, margin: float) -> None:
        """A point whose prices are consistent; its rows need not hold."""
        program, point, free = self._program, self.point, self.free
        room = np.where(free, program.high - program.low, 1.0)
        point.x[:] = program.low + np.where(free, np.minimum(0.4 * room, _START), 0.0)
        point.y[:] = np.maximum(guess, margin)
        self.measure()
        point.s[:] = np.maximum(self._value - self._least, margin)
        below = margin / self._left + np.maximum(-self._reduced, 0.0)
        above = margin / self._right + np.maximum(self._reduced, 0.0)
        point.z[:], point.w[:] = np.where(free, below, 0.0), np.where(self._capped, above, 0.0)

    def measure(self) -> tuple[float, float, float]:
        """What is missing in a row, at most; what a column is mispriced by; complementarity."""
        program, point = self._program, self.point
        curves = program.curves
        _evaluate(
            curves.head, curves.kind, curves.par, program.start, program.row, self._entry,
            self._bend, point.x, point.y, self._value,
        )  # fmt: skip
        missing, mispriced, total = _measure(
            program.start, program.row, self._entry, program.cost, program.low, program.high,
            self._least, self.free, self._capped, self._value, point.x, point.z, point.w, point.y,
            point.s, self._left, self._right, self._reduced, self._short,
        )  # fmt: skip
        return missing, mispriced, total / self._count

    def advance(self, mean: float) -> bool:
        """A predictor and a corrector from the measured point; False where there is no step.

        Where second-order terms leave hardly a step, one towards the centre is taken without them.
        """
        if not self._factorised():
            return False
        point, ahead, way = self.point, self._ahead, self._way
        primal, dual = self._towards(0.0, ahead, ahead, 0.0)
        left = _after(
            point.z, point.w, point.y, point.s, self._left, self._right, ahead.x, ahead.z, ahead.w,
            ahead.y, ahead.s, primal, dual,
        ) / self._count  # fmt: skip
        centre = mean * min(1.0, max(left / mean, 1e-4)) ** 3
        least = 1e-3 * _ENDED
        primal, dual = self._towards(max(centre, least), ahead, way, 1.0)
        if min(primal, dual) < _STUCK:
            primal, dual = self._towards(max(_CENTRED * mean, least), ahead, way, 0.0)
        for moved, change, step in (
            (point.x, way.x, primal), (point.s, way.s, primal), (point.z, way.z, dual),
            (point.w, way.w, dual), (point.y, way.y, dual),
        ):  # fmt: skip
            moved += _TO_BOUNDARY * step * change
        return bool(np.isfinite(np.sum(point.x) + np.sum(point.y)))

    def _factorised(self) -> bool:
        """Whether the matrix has a factor, with more damping where it has none without."""
        point, values, damping = self.point, self._factor.values, _DAMPING
        while damping <= _MOST_DAMPING:
            _assemble(
                self._program.start, self._entry, self._bend, point.z, self._left, point.w,
                self._right, self.free, damping, point.s, point.y, self._places.of_pair,
                self._places.diagonal, self._rise, values,
            )  # fmt: skip
            if self._factor.factorise():
                return True
            damping *= 100.0
        return False

    def _towards(self, tau: float, before: _Point, way: _Point, part: float) -> tuple[float, float]:
        """To where all products are τ, with ``part`` of the second-order terms of a step before.

        The longest steps, primal and dual, that keep everything positive; at most 1.
        """
        program, point = self._program, self.point
        _aim(
            program.start, program.row, self._entry, self.free, self._capped, point.y, point.s,
            self._left, self._right, self._reduced, self._short, self._rise, tau, part, before.x,
            before.z, before.w, before.y, before.s, self._gradient, self._rhs,
        )  # fmt: skip
        dy = self._factor.solve(self._rhs)
        return _direct(
            program.start, program.row, self._entry, self.free, self._capped, point.z, point.w,
            point.y, point.s, self._left, self._right, self._rise, self._gradient, tau, part,
            before.x, before.z, before.w, before.y, before.s, dy, way.x, way.z, way.w, way.y, way.s,
        )  # fmt: skip


def _attainable(program: Program, free: BoolArray) -> Array:
    """What rows must have; less where no column can change that: it would leave no interior."""
    touched = np.zeros(len(program.least), np.bool_)
    touched[program.row[np.repeat(free, np.diff(program.start))]] = True
    return np.where(touched, program.least, program.least - 1.0)


def _snapped(program: Program, point: _Point, free: BoolArray) -> Array:
    """The values, with those on their bounds that have all but reached them."""
    x = point.x.copy()
    left, right = x - program.low, program.high - x
    at_low = (left < _SNAP) & (point.z > left)
    at_high = (right < _SNAP) & (point.w > right)
    x[at_low] = program.low[at_low]
    x[at_high] = program.high[at_high]
    return np.where(free, x, program.low)


@lru_cache(maxsize=8)
def _places(rows: int, start_bytes: bytes, row_bytes: bytes) -> _Places:
    """The pattern of a program's matrix, and where each pair of entries of a column lies in it."""
    start, row = np.frombuffer(start_bytes, np.int64), np.frombuffer(row_bytes, np.int64)
    one, other = _pairs(start, row)
    pattern = find_pattern(rows, np.stack([one, other], axis=1))
    return _Places(pattern, pattern.diagonal, pattern.places(one, other))


@compiled
def _pairs(start: IntArray, row: IntArray) -> tuple[IntArray, IntArray]:
    """All pairs of rows of each column, with themselves."""
    total = 0
    for j in range(len(start) - 1):
        degree = start[j + 1] - start[j]
        total += degree * (degree + 1) // 2
    one, other = np.empty(total, np.int64), np.empty(total, np.int64)
    n = 0
    for j in range(len(start) - 1):
        for p in range(start[j], start[j + 1]):
            for q in range(start[j], p + 1):
                one[n], other[n] = row[p], row[q]
                n += 1
    return one, other


@compiled
def _evaluate(
    head: IntArray, kind: KindArray, par: Array, start: IntArray, row: IntArray, entry: Array,
    bend: Array, x: Array, y: Array, value: Array,
) -> None:  # fmt: skip
    """What each row has, the curves' slopes as entries, and their bends times the head's price."""
    value[:] = 0.0
    curves = len(kind)
    for k in range(curves):
        output, slope, curvature = level_jet(kind[k], par[k], x[k])
        last = start[k + 1] - 1
        entry[last] = slope
        bend[k] = y[head[k]] * curvature
        value[head[k]] += output
        for p in range(start[k], last):
            value[row[p]] += entry[p] * x[k]
    for j in range(curves, len(start) - 1):
        for p in range(start[j], start[j + 1]):
            value[row[p]] += entry[p] * x[j]


@compiled
def _measure(
    start: IntArray, row: IntArray, entry: Array, cost: Array, low: Array, high: Array,
    least: Array, free: BoolArray, capped: BoolArray, value: Array, x: Array, z: Array, w: Array,
    y: Array, s: Array, left: Array, right: Array, reduced: Array, short: Array,
) -> tuple[float, float, float]:  # fmt: skip
    """The distances to bounds, reduced costs c + Jᵀy and shortages of rows; and their extremes."""
    missing, mispriced, total = 0.0, 0.0, 0.0
    for j in range(len(x)):
        left[j] = max(x[j] - low[j], _FIXED) if free[j] else 1.0
        right[j] = max(high[j] - x[j], _FIXED) if capped[j] else 1.0
        found = cost[j]
        for p in range(start[j], start[j + 1]):
            found += entry[p] * y[row[p]]
        reduced[j] = found
        if free[j]:
            mispriced = max(mispriced, abs(found + z[j] - w[j]))
            total += z[j] * left[j] + w[j] * right[j]
    for i in range(len(y)):
        short[i] = least[i] - value[i] + s[i]
        missing = max(missing, abs(short[i]))
        total += y[i] * s[i]
    return missing, mispriced, total


@compiled
def _assemble(
    start: IntArray, entry: Array, bend: Array, z: Array, left: Array, w: Array, right: Array,
    free: BoolArray, damping: float, s: Array, y: Array, place: IntArray, diagonal: IntArray,
    rise: Array, values: Array,
) -> None:  # fmt: skip
    """H and J H⁻¹ Jᵀ + S/Y; a fixed column has an infinite H."""
    values[:] = 0.0
    n = 0
    for j in range(len(rise)):
        if not free[j]:
            degree = start[j + 1] - start[j]
            rise[j] = inf
            n += degree * (degree + 1) // 2
            continue
        rise[j] = -bend[j] + z[j] / left[j] + w[j] / right[j] + damping
        inverse = 1.0 / rise[j]
        for p in range(start[j], start[j + 1]):
            scaled = inverse * entry[p]
            for q in range(start[j], p + 1):
                values[place[n]] += scaled * entry[q]
                n += 1
    for i in range(len(y)):
        values[diagonal[i]] += s[i] / y[i] + _DAMPING


@compiled
def _aim(
    start: IntArray, row: IntArray, entry: Array, free: BoolArray, capped: BoolArray, y: Array,
    s: Array, left: Array, right: Array, reduced: Array, short: Array, rise: Array, tau: float,
    part: float, bx: Array, bz: Array, bw: Array, by: Array, bs: Array, gradient: Array, rhs: Array,
) -> None:  # fmt: skip
    """The gradient g of the columns and the right side τ/y − s + r − J H⁻¹ g of the rows."""
    for i in range(len(y)):
        rhs[i] = (tau - part * by[i] * bs[i]) / y[i] - s[i] + short[i]
    for j in range(len(gradient)):
        gradient[j] = 0.0
        if free[j]:
            found = reduced[j] + (tau - part * bx[j] * bz[j]) / left[j]
            if capped[j]:
                found -= (tau + part * bx[j] * bw[j]) / right[j]
            gradient[j] = found
            for p in range(start[j], start[j + 1]):
                rhs[row[p]] -= entry[p] * found / rise[j]


@compiled
def _direct(
    start: IntArray, row: IntArray, entry: Array, free: BoolArray, capped: BoolArray, z: Array,
    w: Array, y: Array, s: Array, left: Array, right: Array, rise: Array, gradient: Array,
    tau: float, part: float, bx: Array, bz: Array, bw: Array, by: Array, bs: Array, dy: Array,
    dx: Array, dz: Array, dw: Array, way_y: Array, ds: Array,
) -> tuple[float, float]:  # fmt: skip
    """The whole direction from dy, and how far it can be followed; it may be where ``b`` is."""
    primal, dual = 1.0, 1.0
    for j in range(len(rise)):
        if not free[j]:
            continue
        found = gradient[j]
        for p in range(start[j], start[j + 1]):
            found += entry[p] * dy[row[p]]
        step = found / rise[j]
        below = (tau - part * bx[j] * bz[j] - z[j] * step) / left[j] - z[j]
        above = 0.0
        if capped[j]:
            above = (tau + part * bx[j] * bw[j] + w[j] * step) / right[j] - w[j]
        dx[j], dz[j], dw[j] = step, below, above
        if step < 0.0:
            primal = min(primal, -left[j] / step)
        elif capped[j] and step > 0.0:
            primal = min(primal, right[j] / step)
        if below < 0.0:
            dual = min(dual, -z[j] / below)
        if above < 0.0:
            dual = min(dual, -w[j] / above)
    for i in range(len(y)):
        slack = (tau - part * by[i] * bs[i] - s[i] * dy[i]) / y[i] - s[i]
        way_y[i], ds[i] = dy[i], slack
        if slack < 0.0:
            primal = min(primal, -s[i] / slack)
        if dy[i] < 0.0:
            dual = min(dual, -y[i] / dy[i])
    return primal, dual


@compiled
def _after(
    z: Array, w: Array, y: Array, s: Array, left: Array, right: Array, dx: Array, dz: Array,
    dw: Array, dy: Array, ds: Array, primal: float, dual: float,
) -> float:  # fmt: skip
    """Complementarity after a step."""
    total = 0.0
    for j in range(len(z)):
        total += (z[j] + dual * dz[j]) * (left[j] + primal * dx[j])
        total += (w[j] + dual * dw[j]) * (right[j] - primal * dx[j])
    for i in range(len(y)):
        total += (y[i] + dual * dy[i]) * (s[i] + primal * ds[i])
    return total

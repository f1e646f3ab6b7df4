"""The programs of a large batch by an interior point: curves as they are, no segments.

    maximise    c·x
    subject to  A·x + Σ f_k(x_k) at the head of curve k ≥ b,   l ≤ x ≤ u

The first columns are curves: column k takes x_k at its tail and brings f_k(x_k), concave, to its
head; all others are linear. Mehrotra's predictor–corrector on the perturbed optimality conditions;
columns are eliminated, so that each iteration solves one sparse positive definite system in the row
prices y, whose pattern is the same in every program of a batch:

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

_MOST_ITERATIONS = 90
_TO_BOUNDARY = 0.995
_START = 0.03
_FIXED = 1e-13
_ENDED = 1e-12  # complementarity per column and row
_SHORT = 1e-10  # of the largest order, at most, a row
_DUAL = 1e-6
_CLOSE = 1e-10  # complementarity near the end
_PATIENCE = 8  # iterations there that bring nothing
_MOST_DAMPING = 1e-3
_ENOUGH = 1e3  # times what is wanted
_SNAP = 1e-8
MARGIN = 1e-2
_DAMPING = 1e-12  # of steps along columns that nothing holds


class Curves(Struct, frozen=True):
    """The curves of a program: rows of tail and head, and the closed forms of the kernels."""

    tail: IntArray
    head: IntArray
    kind: KindArray
    par: Array


class Program(Struct, frozen=True):
    """A program: curves first, then linear columns, by columns (``start``, ``row``, ``entry``).

    A curve has two entries, its tail's −1 and its head's, which changes with x.
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
    order = np.argsort(column[of_curves], kind="stable")  # tails come before heads
    linear = sparse.coo_matrix(
        (entry[~of_curves], (row[~of_curves], column[~of_curves] - bent)),
        shape=(len(columns.row_lower), count - bent),
    ).tocsc()
    linear.sum_duplicates()
    start = np.concatenate([2 * np.arange(bent), 2 * bent + linear.indptr.astype(np.int64)])
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


class _Point(Struct):
    """Values, prices of their bounds (z below, w above) and of rows (y), and the rows' slack s."""

    x: Array
    z: Array
    w: Array
    y: Array
    s: Array


def maximise(program: Program, guess: Array, margin: float = MARGIN) -> tuple[Array, Array] | None:
    """Values and row prices y ≥ 0; None where it does not converge, as without a solution.

    ``guess`` are prices to begin with, one per row; ``margin`` is the least of prices and slacks.
    Values that have all but reached a bound are put on it.
    """
    matrix = _Matrix(program)
    free = program.high - program.low > _FIXED
    point = _begin(program, matrix, free, guess, margin)
    count = float(np.sum(point.z > 0.0) + np.sum(point.w > 0.0) + len(point.y))
    least = _attainable(program, free)
    nearest, found, idle = inf, point, 0
    for _ in range(_MOST_ITERATIONS):
        value = matrix.evaluate(point)
        step = _Step(program, matrix, point, least - value, free)
        mean = step.complementarity / count
        score = max(mean / _ENDED, step.missing / _SHORT)
        if score < nearest:
            nearest, found, idle = score, point, 0
        idle += mean < _CLOSE
        if (score <= 1.0 and step.mispriced <= _DUAL) or idle > _PATIENCE:
            break
        following = step.taken(mean, count)
        if following is None:
            break
        point = following
    return (_snapped(program, found, free), found.y) if nearest <= _ENOUGH else None


def _begin(
    program: Program, matrix: _Matrix, free: NDArray[np.bool_], guess: Array, margin: float
) -> _Point:
    """A point whose prices are consistent; its rows need not hold."""
    room = np.where(free, program.high - program.low, 1.0)
    x = program.low + np.where(free, np.minimum(0.4 * room, _START), 0.0)
    y = np.maximum(guess, margin)
    point = _Point(x, np.zeros(len(x)), np.zeros(len(x)), y, np.ones(len(y)))
    value = matrix.evaluate(point)
    reduced = program.cost + matrix.priced(y)
    point.s = np.maximum(value - _attainable(program, free), margin)
    point.z = np.where(free, margin + np.maximum(-reduced, 0.0), 0.0)
    capped = free & (program.high < inf)
    point.w = np.where(capped, margin + np.maximum(reduced, 0.0), 0.0)
    return point


class _Matrix:
    """The rows' derivatives by the columns at a point, and J H⁻¹ Jᵀ with its factor."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._places = _places(len(program.least), program.start.tobytes(), program.row.tobytes())
        self._factor = Factor(self._places.pattern)
        self._entry = program.entry.copy()
        self.bend: Array = np.zeros(len(program.cost))

    def evaluate(self, point: _Point) -> Array:
        """What each row has; slopes and bends are those of the point from here on."""
        program, value = self._program, np.empty(len(point.y))
        _evaluate(
            program.curves.head, program.curves.kind, program.curves.par, program.start,
            program.row, self._entry, self.bend, point.x, point.y, value,
        )  # fmt: skip
        return value

    def priced(self, y: Array) -> Array:
        """Jᵀy."""
        return _priced(self._program.start, self._program.row, self._entry, y)

    def gathered(self, x: Array) -> Array:
        """J·x."""
        rows = len(self._program.least)
        return _gathered(self._program.start, self._program.row, self._entry, x, rows)

    def factorise(self, rise: Array, slack: Array) -> bool:
        """J H⁻¹ Jᵀ + diag(slack); False where it is not positive definite."""
        values = self._factor.values
        values[:] = 0.0
        _assemble(self._program.start, self._entry, rise, self._places.of_pair, values)
        values[self._places.diagonal] += slack
        return self._factor.factorise()

    def solve(self, rhs: Array) -> Array:
        """The solution with the last factor."""
        return self._factor.solve(rhs)


class _Direction(Struct, frozen=True):
    dx: Array
    dz: Array
    dw: Array
    dy: Array
    ds: Array


class _Step:
    """The Newton step at one point; ``missing`` is the most that a row is short by."""

    def __init__(
        self, program: Program, matrix: _Matrix, point: _Point, short: Array,
        free: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        self._matrix, self._point, self._free = matrix, point, free
        self._capped = point.w > 0.0
        self._left = np.where(free, np.maximum(point.x - program.low, _FIXED), 1.0)
        above = np.maximum(program.high - point.x, _FIXED)
        self._right = np.where(self._capped, above, 1.0)
        self._short = short + point.s
        self._reduced = program.cost + matrix.priced(point.y)
        self.missing = float(np.max(np.abs(self._short), initial=0.0))
        over = np.where(free, self._reduced + point.z - point.w, 0.0)
        self.mispriced = float(np.max(np.abs(over), initial=0.0))
        self.complementarity = float(
            point.z @ self._left + point.w @ self._right + point.y @ point.s
        )
        self._rise = np.full(len(point.x), inf)

    def taken(self, mean: float, count: float) -> _Point | None:
        """The point after a predictor and a corrector; None where no step can be computed."""
        if not self._factorised():
            return None
        point = self._point
        none, no_row = np.zeros(len(point.x)), np.zeros(len(point.y))
        ahead = self._towards(0.0, none, none, no_row)
        left = self._ahead(ahead, *self._longest(ahead)) / count
        centre = mean * min(1.0, max(left / mean, 1e-4)) ** 3
        tau = max(centre, 1e-3 * _ENDED)
        way = self._towards(tau, ahead.dx * ahead.dz, -ahead.dx * ahead.dw, ahead.dy * ahead.ds)
        primal, dual = (_TO_BOUNDARY * length for length in self._longest(way))
        moved = _Point(
            point.x + primal * way.dx, point.z + dual * way.dz, point.w + dual * way.dw,
            point.y + dual * way.dy, point.s + primal * way.ds,
        )  # fmt: skip
        return moved if np.isfinite(np.sum(moved.x) + np.sum(moved.y)) else None

    def _factorised(self) -> bool:
        """Whether the matrix has a factor, with more damping where it has none without."""
        point, damping = self._point, _DAMPING
        held = -self._matrix.bend + point.z / self._left + point.w / self._right
        while damping <= _MOST_DAMPING:
            self._rise = np.where(self._free, held + damping, inf)
            if self._matrix.factorise(self._rise, point.s / point.y + _DAMPING):
                return True
            damping *= 100.0
        return False

    def _towards(self, tau: float, low: Array, high: Array, slack: Array) -> _Direction:
        """To where all products are τ, with second-order terms of a step before."""
        point = self._point
        at_low = np.where(self._free, (tau - low) / self._left, 0.0)
        at_high = np.where(self._capped, (tau - high) / self._right, 0.0)
        gradient = np.where(self._free, self._reduced + at_low - at_high, 0.0)
        at_slack = (tau - slack) / point.y
        moved = self._matrix.gathered(gradient / self._rise)
        dy = self._matrix.solve(at_slack - point.s + self._short - moved)
        dx = (gradient + self._matrix.priced(dy)) / self._rise
        ds = at_slack - point.s - point.s / point.y * dy
        dz = np.where(self._free, at_low - point.z - point.z / self._left * dx, 0.0)
        dw = np.where(self._capped, at_high - point.w + point.w / self._right * dx, 0.0)
        return _Direction(dx, dz, dw, dy, ds)

    def _longest(self, way: _Direction) -> tuple[float, float]:
        """The longest steps, primal and dual, that keep everything positive; at most 1."""
        point, right = self._point, np.where(self._capped, self._right, inf)
        primal = min(_reach(self._left, way.dx), _reach(right, -way.dx), _reach(point.s, way.ds))
        dual = min(_reach(point.z, way.dz), _reach(point.w, way.dw), _reach(point.y, way.dy))
        return primal, dual

    def _ahead(self, way: _Direction, primal: float, dual: float) -> float:
        """Complementarity after a step."""
        point = self._point
        low = (point.z + dual * way.dz) @ (self._left + primal * way.dx)
        high = (point.w + dual * way.dw) @ (self._right - primal * way.dx)
        rows = (point.y + dual * way.dy) @ (point.s + primal * way.ds)
        return float(low + high + rows)


def _attainable(program: Program, free: NDArray[np.bool_]) -> Array:
    """What rows must have; less where no column can change that: it would leave no interior."""
    touched = np.zeros(len(program.least), np.bool_)
    touched[program.row[np.repeat(free, np.diff(program.start))]] = True
    return np.where(touched, program.least, program.least - 1.0)


@compiled
def _reach(value: Array, change: Array) -> float:
    """How far values can change before one is 0; at most 1."""
    most = 1.0
    for j in range(len(value)):
        if change[j] < 0.0 and value[j] < -most * change[j]:
            most = -value[j] / change[j]
    return most


def _snapped(program: Program, point: _Point, free: NDArray[np.bool_]) -> Array:
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
    pattern = find_pattern(rows, np.unique(np.stack([one, other], axis=1), axis=0))
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
        entry[start[k] + 1] = slope
        bend[k] = y[head[k]] * curvature
        value[row[start[k]]] -= x[k]
        value[head[k]] += output
    for j in range(curves, len(start) - 1):
        for p in range(start[j], start[j + 1]):
            value[row[p]] += entry[p] * x[j]


@compiled
def _priced(start: IntArray, row: IntArray, entry: Array, y: Array) -> Array:
    """Jᵀy."""
    found = np.zeros(len(start) - 1)
    for j in range(len(found)):
        for p in range(start[j], start[j + 1]):
            found[j] += entry[p] * y[row[p]]
    return found


@compiled
def _gathered(start: IntArray, row: IntArray, entry: Array, x: Array, rows: int) -> Array:
    """J·x."""
    found = np.zeros(rows)
    for j in range(len(x)):
        for p in range(start[j], start[j + 1]):
            found[row[p]] += entry[p] * x[j]
    return found


@compiled
def _assemble(start: IntArray, entry: Array, rise: Array, place: IntArray, values: Array) -> None:
    """J H⁻¹ Jᵀ."""
    n = 0
    for j in range(len(rise)):
        inverse = 1.0 / rise[j]
        for p in range(start[j], start[j + 1]):
            scaled = inverse * entry[p]
            for q in range(start[j], p + 1):
                values[place[n]] += scaled * entry[q]
                n += 1

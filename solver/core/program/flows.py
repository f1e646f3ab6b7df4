"""The arcs of a program: concave curves cut into segments, one bounded column each.

A segment takes one unit at the arc's tail and brings its secant's slope at the head. Secants lie
under the curve, so that what a program plans is feasible. Cuts shrink around prices and flows.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core import curves
from solver.core.curves import Arcs, Array, IntArray
from solver.core.problem import Problem
from solver.core.program import optimiser
from solver.core.program.interior import MARGIN, Curves, maximise, program_of
from solver.core.program.optimiser import Columns, ProgramError
from solver.core.program.stars import Stars, stars

_NEAR = 0.95
_LEAST = 1e-10
_MOST = 1e4  # of the largest order: nothing takes more
_MARGINS = (MARGIN, 1.0, 1e-4)
_ROW = 0.1  # where the prices of rows that are no nodes begin
_FAR = (-2.0, 0.0, 2.0, 6.0)
_GRID = np.concatenate([-np.geomspace(3.0, 0.02, 9), [0.0], np.geomspace(0.02, 3.0, 9)])


class Flows(Struct):
    """A program with one row per node, "what arrives ≥ what leaves", and the arcs' columns.

    An arc has a column per segment; or, in a large market, one for its whole curve, and pools of
    three or more coins are stars. ``guess`` are prices of the first rows to begin with.
    """

    columns: Columns
    nodes: list[int]
    column_arc: IntArray
    curves: Curves | None
    stars: Stars | None
    guess: Array

    def on_arcs(self, values: Array, arc_count: int) -> Array:
        """The input of every arc: the sum over its segments, or its part in a star."""
        flow, plain = np.zeros(arc_count), len(self.column_arc)
        np.add.at(flow, self.column_arc, values[:plain])
        if self.stars is not None:
            flow[self.stars.pairs] = self.stars.flows(
                values[plain : plain + len(self.stars.levels.tail)]
            )
        return flow

    def optimum(self) -> tuple[Array, Array]:
        """Values, and row duals ≤ 0; raises ProgramError without an answer."""
        if self.curves is None:
            return optimum(self.columns)
        guess = np.full(len(self.columns.row_lower), _ROW)
        guess[: len(self.guess)] = self.guess
        program = program_of(self.columns, self.curves)
        for margin in _MARGINS:
            found = maximise(program, guess, margin)
            if found is not None:
                return found[0], -found[1]
        raise ProgramError("the interior point does not converge")


def flows(problem: Problem, breaks: Array | None) -> Flows:
    """The columns of all arcs and the rows of all nodes, and nothing else yet.

    Without ``breaks`` the arcs are whole curves.
    """
    columns = Columns()
    reserve = problem.reserve or (0.0,) * problem.node_count
    nodes = [columns.at_least(amount) for amount in reserve]
    if breaks is None:
        return _on_curves(problem, columns, nodes)
    arcs = problem.arcs
    of, widths, slopes = _segments(arcs, breaks)
    columns.arcs(widths, arcs.tail[of], arcs.head[of], slopes)
    return Flows(columns, nodes, of, None, None, problem.first_nu)


def _on_curves(problem: Problem, columns: Columns, nodes: list[int]) -> Flows:
    arcs, near = problem.arcs, _near_money(problem)
    pools = [pool for pool in problem.joints if np.any(near[pool.pairs])]
    around = stars(problem, pools, np.where(near, arcs.capacity, 0.0))
    levels = around.levels
    plain = near.copy()
    for pool in problem.joints:
        plain[pool.pairs] = False
    of = np.nonzero(plain)[0]
    for _ in levels.node_nu:
        columns.at_least(0.0)
    columns.arcs(
        np.minimum(arcs.capacity[of], _MOST), arcs.tail[of], arcs.head[of], np.ones(len(of))
    )
    columns.levels(
        np.minimum(levels.capacity, _MOST), levels.tail, levels.head, levels.third, levels.drain,
        levels.kappa,
    )  # fmt: skip
    bent = Curves(
        np.concatenate([arcs.head[of], levels.head]),
        np.concatenate([arcs.kind[of], levels.kind]),
        np.concatenate([arcs.par[of], levels.par]),
    )
    return Flows(
        columns, nodes, of, bent, around, np.concatenate([problem.first_nu, levels.node_nu])
    )


def cuts_of(problem: Problem, nu: Array, flow: Array, spread: float) -> Array | None:
    """Where the arcs of a problem are cut; nowhere, where a guess of ν says what is near."""
    if problem.guess is not None:
        return None
    return breakpoints(problem.arcs, nu, flow, spread)


def _near_money(problem: Problem) -> NDArray[np.bool_]:
    """Whether an arc's first unit costs little more than it brings at the guessed prices."""
    arcs, nu = problem.arcs, problem.first_nu
    brings = curves.slope(arcs, np.zeros(len(arcs))) * nu[arcs.head]
    return (brings > _NEAR * nu[arcs.tail]) & (arcs.capacity > _LEAST)


def breakpoints(
    arcs: Arcs, nu: Array, flow: Array, spread: float, near_only: bool = False
) -> Array:
    """Inputs where each arc is cut, rising along axis 1: shape (arcs, cuts).

    ``near_only`` leaves out the cuts far from prices and flows.
    """
    price_in = np.maximum(nu[arcs.tail], 1e-9)
    price_out = np.maximum(nu[arcs.head], 1e-9)
    ratio = np.clip(price_in / price_out, 1e-9, 1e9)
    at_prices = [curves.input_at(arcs, ratio * np.exp(-h * spread)) for h in _GRID]
    around = flow[:, None] * np.exp(_GRID * spread)[None, :]
    far = []
    if not near_only:
        far = [curves.input_at(arcs, np.exp(-h)) for h in _FAR]
        far.append(np.where(arcs.is_linear, arcs.capacity, 0.0))
    cuts = np.concatenate([np.stack([*at_prices, *far], axis=1), around], axis=1)
    limit = np.where(np.isfinite(arcs.capacity), arcs.capacity, np.inf)
    return np.sort(np.minimum(cuts, limit[:, None]), axis=1)


def optimum(columns: Columns) -> tuple[Array, Array]:
    """Values and row duals by GLOP; another algorithm where one returns nothing.

    Raises ProgramError when none returns an answer.
    """
    for parameters in (
        "use_preprocessing: false",
        "use_preprocessing: false use_dual_simplex: true",
        "",
    ):
        answer = optimiser.run(columns, "glop", parameters)
        if answer is not None:
            return answer
    raise ProgramError("the linear program has no solution")


def _segments(arcs: Arcs, breaks: Array) -> tuple[IntArray, Array, Array]:
    """Arc number, width and secant slope of every segment that has a width."""
    edges = np.concatenate([np.zeros((len(breaks), 1)), breaks], axis=1)
    widths = np.diff(edges, axis=1)
    shape = edges.shape
    spread = arcs.take(np.repeat(np.arange(len(arcs)), shape[1]))
    heights = np.diff(curves.output(spread, edges.ravel()).reshape(shape), axis=1)
    wide = (widths > 1e-10) & ~arcs.is_linear[:, None]
    arc, cut = np.nonzero(wide)
    linear = np.nonzero(arcs.is_linear & (breaks[:, -1] > 0.0))[0]
    slopes = heights[arc, cut] / widths[arc, cut]
    return (
        np.concatenate([arc, linear]),
        np.concatenate([widths[arc, cut], arcs.capacity[linear]]),
        np.concatenate([slopes, arcs.par[linear, 0]]),
    )

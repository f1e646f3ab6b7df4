"""The arcs of a program: concave curves cut into segments, one bounded column each.

A segment takes one unit at the arc's tail and brings its secant's slope at the head. Secants lie
under the curve, so that what a program plans is feasible. Cuts shrink around prices and flows.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from solver.core import curves
from solver.core.curves import Arcs, Array, IntArray
from solver.core.program import optimiser
from solver.core.program.optimiser import Columns, ProgramError

_GRID = np.concatenate([-np.geomspace(3.0, 0.02, 9), [0.0], np.geomspace(0.02, 3.0, 9)])


class Flows(Struct):
    """A program with one row per node, "what arrives ≥ what leaves", and the segments' columns."""

    columns: Columns
    nodes: list[int]
    segment_arc: IntArray

    def on_arcs(self, values: Array, arc_count: int) -> Array:
        """The input of every arc: the sum over its segments."""
        flow = np.zeros(arc_count)
        np.add.at(flow, self.segment_arc, values[: len(self.segment_arc)])
        return flow


def flows(arcs: Arcs, node_count: int, breaks: Array) -> Flows:
    """The columns of all segments and the rows of all nodes, and nothing else yet."""
    columns = Columns()
    nodes = [columns.at_least(0.0) for _ in range(node_count)]
    segment_arc, widths, slopes = _segments(arcs, breaks)
    columns.arcs(widths, arcs.tail[segment_arc], arcs.head[segment_arc], slopes)
    return Flows(columns, nodes, segment_arc)


def breakpoints(arcs: Arcs, nu: Array, flow: Array, spread: float) -> Array:
    """Inputs where each arc is cut, rising along axis 1: shape (arcs, cuts)."""
    price_in = np.maximum(nu[arcs.tail], 1e-9)
    price_out = np.maximum(nu[arcs.head], 1e-9)
    ratio = np.clip(price_in / price_out, 1e-9, 1e9)
    at_prices = np.stack(
        [curves.input_at(arcs, ratio * np.exp(-h * spread)) for h in _GRID], axis=1
    )
    coarse = np.stack([curves.input_at(arcs, np.exp(-h)) for h in (-2.0, 0.0, 2.0, 6.0)], axis=1)
    around = flow[:, None] * np.exp(_GRID * spread)[None, :]
    cuts = np.concatenate([at_prices, coarse, around], axis=1)
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
    linear = np.nonzero(arcs.is_linear)[0]
    slopes = heights[arc, cut] / widths[arc, cut]
    return (
        np.concatenate([arc, linear]),
        np.concatenate([widths[arc, cut], arcs.capacity[linear]]),
        np.concatenate([slopes, arcs.par[linear, 0]]),
    )

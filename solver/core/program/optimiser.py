"""The one door to the optimiser: columns and rows as sparse triplets, filled in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
from msgspec import Struct, field
from ortools.linear_solver.python import model_builder_helper as ortools

from solver.core.kernels import Array, IntArray

NODE_LIMIT = 2_000
#: Simplex steps after which GLOP gives up: on rare programs it would go round in circles.
STEP_LIMIT = 20_000


class ProgramError(Exception):
    """No algorithm returned an answer."""


class Columns(Struct):
    """A linear program under construction, as sparse triplets."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)

    def variable(self, cost: float, upper: float, lower: float = 0.0) -> int:
        """A column that maximises ``cost`` per unit between its limits; its number."""
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.cost) - 1

    def arcs(self, upper: Array, tail: IntArray, head: IntArray, gradient: Array) -> None:
        """Columns without cost: a unit leaves row ``tail``, ``gradient`` comes to row ``head``."""
        count = len(upper)
        numbers = range(len(self.cost), len(self.cost) + count)
        self.cost += [0.0] * count
        self.lower += [0.0] * count
        self.upper += upper.tolist()
        for rows, entries in ((tail, [-1.0] * count), (head, gradient.tolist())):
            self.row += rows.tolist()
            self.column += numbers
            self.entry += entries

    def levels(
        self,
        upper: Array,
        tail: IntArray,
        head: IntArray,
        third: IntArray,
        drain: Array,
        kappa: Array,
    ) -> None:
        """Columns without cost that also pay a third row; the last entry of each is its head's."""
        first = len(self.cost)
        self.cost += [0.0] * len(upper)
        self.lower += [0.0] * len(upper)
        self.upper += upper.tolist()
        for rows, entries in ((tail, -drain), (third, kappa), (head, np.ones(len(upper)))):
            there = np.nonzero(entries)[0]
            self.row += rows[there].tolist()
            self.column += (there + first).tolist()
            self.entry += entries[there].tolist()

    def at_least(self, rhs: float, *terms: tuple[int, float]) -> int:
        """A row Σ entry·column ≥ rhs; its number."""
        self.row_lower.append(rhs)
        number = len(self.row_lower) - 1
        for column, entry in terms:
            self.put(number, column, entry)
        return number

    def put(self, row: int, column: int, entry: float) -> None:
        """One more entry of a row; entries at the same place add up."""
        self.row.append(row)
        self.column.append(column)
        self.entry.append(entry)


def run(
    columns: Columns,
    name: str,
    parameters: str = "",
    node_limit: int = NODE_LIMIT,
    gap: float = 0.0,
) -> tuple[Array, Array] | None:
    """Fill and solve a model in one sparse call: values and row duals, or None.

    ``name`` is glop or scip; both end by a count of steps or nodes, never by a clock. Scip has no
    duals, and ends as well when it has proven its answer to within ``gap``, a part of its value.
    """
    model: Any = ortools.ModelBuilderHelper()
    shape = (len(columns.row_lower), len(columns.cost))
    matrix = sparse.coo_matrix((columns.entry, (columns.row, columns.column)), shape=shape)
    model.fill_model_from_sparse_data(
        np.array(columns.lower),
        np.array(columns.upper),
        np.array(columns.cost),
        np.array(columns.row_lower),
        np.full(shape[0], np.inf),
        matrix.tocsr(),
    )
    model.set_maximize(True)
    for column in columns.integer:
        model.set_var_integrality(column, True)
    solver: Any = ortools.ModelSolverHelper(name)
    if name == "scip":
        solver.set_solver_specific_parameters(f"limits/nodes = {node_limit}\nlimits/gap = {gap}")
    else:
        limit = f"max_number_of_iterations: {STEP_LIMIT}"
        solver.set_solver_specific_parameters(f"{limit} {parameters}")
    solver.solve(model)
    if solver.status() not in (ortools.SolveStatus.OPTIMAL, ortools.SolveStatus.FEASIBLE):
        return None
    values = np.array(solver.variable_values())
    if name == "scip":
        return values, np.zeros(shape[0])
    return values, np.array(solver.dual_values())

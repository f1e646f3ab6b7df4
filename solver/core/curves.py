"""Arcs as struct of arrays: one concave level each, in one system of units.

The closed forms are in :mod:`solver.core.kernels`; here they are vectorised over arcs.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core import kernels
from solver.core.kernels import LINEAR, PRODUCT, STABLE, WEIGHTED, WIDTH, Array, IntArray, KindArray
from solver.core.venue import (
    Arc,
    ConstantProductArc,
    LevelsArc,
    StableArc,
    TicksArc,
    WeightedArc,
)

__all__ = ["Arcs", "Array", "IntArray", "Level", "arbitrage", "input_at", "levels", "output"]

Level = tuple[int, tuple[float, ...], float]
"""Kind, numbers (at most WIDTH) and capacity, in base units."""


class Arcs(Struct, frozen=True):
    """One entry per arc; ``par`` has WIDTH columns whose meaning depends on ``kind``."""

    tail: IntArray
    head: IntArray
    kind: KindArray
    par: Array
    capacity: Array

    def __len__(self) -> int:
        return len(self.tail)

    @property
    def is_linear(self) -> NDArray[np.bool_]:
        """Which arcs are linear."""
        return np.equal(self.kind, LINEAR)

    def take(self, positions: IntArray | NDArray[np.bool_]) -> Arcs:
        """The arcs at ``positions``."""
        return Arcs(*(getattr(self, name)[positions] for name in self.__struct_fields__))

    def scaled(self, unit: Array) -> Arcs:
        """The same curves with flows in normalised units: ``unit[n]`` base units of node n."""
        par, capacity = rescale(
            self.kind, self.par, self.capacity, unit[self.tail], unit[self.head]
        )
        return Arcs(self.tail, self.head, self.kind, par, capacity)


def rescale(
    kind: KindArray, par: Array, capacity: Array, unit_in: Array, unit_out: Array
) -> tuple[Array, Array]:
    """Parameters and capacities when one new unit is ``unit`` old ones, in and out."""
    new = par.copy()
    linear, stable = kind == LINEAR, kind == STABLE
    pooled = ~(linear | stable)
    new[linear, 0] = par[linear, 0] * unit_in[linear] / unit_out[linear]
    new[pooled, 0] = par[pooled, 0] / unit_in[pooled]
    new[pooled, 1] = par[pooled, 1] / unit_out[pooled]
    new[stable, 2] = par[stable, 2] * unit_in[stable]
    new[stable, 3] = par[stable, 3] / unit_out[stable]
    return new, capacity / unit_in


def levels(arc: Arc) -> list[Level]:
    """The levels of an arc, best first, in base units; none where it can give nothing."""
    if isinstance(arc, ConstantProductArc):
        sizes = float(arc.reserve_in), float(arc.reserve_out)
        return [(PRODUCT, (*sizes, 1.0 - arc.fee), np.inf)]
    if isinstance(arc, LevelsArc):
        return [(LINEAR, (rate,), capacity) for capacity, rate in arc.levels]
    if isinstance(arc, WeightedArc):
        ratio = arc.weight_in / arc.weight_out
        return [(WEIGHTED, (arc.reserve_in, arc.reserve_out, 1.0 - arc.fee, ratio), np.inf)]
    if isinstance(arc, TicksArc):
        return _ticks(arc)
    numbers = stable_numbers(arc)
    return [(STABLE, numbers, np.inf)] if numbers else []


def is_sane(arc: object) -> bool:
    """Whether an arc of an adapter is one of ours and has only usable numbers."""
    if not isinstance(arc, Arc):
        return False
    if isinstance(arc, TicksArc):
        edges, depth = arc.table.edges, arc.table.liquidity
        rising = len(edges) == len(depth) + 1 and bool(np.all(np.diff(edges) > 0.0))
        return rising and bool(np.all(depth >= 0.0)) and 0.0 < arc.start < np.inf
    if isinstance(arc, LevelsArc):
        return all(0.0 <= size < np.inf and 0.0 <= rate < np.inf for size, rate in arc.levels)
    fees = (arc.fee_in, arc.fee_out) if isinstance(arc, StableArc) else (arc.fee,)
    if isinstance(arc, StableArc):
        sizes: tuple[float, ...] = (*arc.balances, *arc.scales, arc.ann)
    elif isinstance(arc, WeightedArc):
        sizes = (arc.reserve_in, arc.reserve_out, arc.weight_in, arc.weight_out)
    else:
        sizes = (arc.reserve_in, arc.reserve_out)
    return all(0.0 < size < np.inf for size in sizes) and all(0.0 <= fee < 1.0 for fee in fees)


def _ticks(arc: TicksArc) -> list[Level]:
    edges, liquidity = arc.table.edges, arc.table.liquidity
    gamma = 1.0 - arc.fee
    found: list[Level] = []
    first = max(0, int(np.searchsorted(edges, arc.start, side="right")) - 1)
    for k in range(first, len(liquidity)):
        low, high = max(float(edges[k]), arc.start), float(edges[k + 1])
        depth = float(liquidity[k])
        if depth > 0.0 and high > low:
            capacity = depth * (high - low) / gamma
            found.append((PRODUCT, (depth * low, depth / low, gamma), capacity))
    return found


def is_curved(arc: StableArc) -> bool:
    """Whether the invariant has a solution: no coin is missing."""
    return min(arc.balances) > 0.0 and arc.ann > 0.0


def stable_numbers(arc: StableArc) -> tuple[float, ...] | None:
    """The six numbers of a STABLE level, or None for a pool with an empty coin."""
    if not is_curved(arc):
        return None
    gamma_in = arc.scales[arc.index_in] * (1.0 - arc.fee_in)
    gamma_out = (1.0 - arc.fee_out) / arc.scales[arc.index_out]
    return kernels.stable_numbers(
        np.array(arc.balances), arc.ann, arc.index_in, arc.index_out, gamma_in, gamma_out
    )


def packed(rows: list[Level]) -> tuple[KindArray, Array, Array]:
    """Levels as kind, parameter and capacity arrays."""
    par = np.zeros((len(rows), WIDTH))
    for k, (_, numbers, _) in enumerate(rows):
        par[k, : len(numbers)] = numbers
    kind = np.array([row[0] for row in rows], dtype=np.int8)
    return kind, par, np.array([row[2] for row in rows], dtype=float)


def output(arcs: Arcs, x: Array) -> Array:
    """f(x)."""
    return kernels.outputs(arcs.kind, arcs.par, x)


def slope(arcs: Arcs, x: Array) -> Array:
    """f′(x)."""
    return kernels.slopes(arcs.kind, arcs.par, x)


def input_at(arcs: Arcs, marginal: Array | float) -> Array:
    """x*(r): the largest x with f′(x) ≥ r, within capacity; r > 0, one for all or one per arc."""
    wanted = np.full(len(arcs), marginal) if np.isscalar(marginal) else np.asarray(marginal)
    return kernels.inputs_at(arcs.kind, arcs.par, arcs.capacity, wanted)


def impact_capacity(arcs: Arcs, max_impact: float) -> Array:
    """The input at which the marginal rate has fallen by ``max_impact`` of its start."""
    start = slope(arcs, np.zeros(len(arcs)))
    limited = input_at(arcs, np.maximum(start * (1.0 - max_impact), np.finfo(float).tiny))
    return np.where(arcs.is_linear, arcs.capacity, limited)


def arbitrage(arcs: Arcs, nu: Array) -> Array:
    """max over x of ν_out·f(x) − ν_in·x per arc, at token prices ν (one per node); ≥ 0."""
    return kernels.gains(arcs.kind, arcs.par, arcs.capacity, nu[arcs.tail], nu[arcs.head])

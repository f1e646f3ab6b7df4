"""The coins of a pool that has one state behind more than one pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solver.core import curves
from solver.core.kernels import Array
from solver.core.types import TokenId
from solver.core.venue import Arc, StableArc, WeightedArc

Coin = list[float]
"""Token number or −1, reserve, weight, into, out, gross: see :class:`Joints`."""


def is_joint(arcs: Sequence[Arc]) -> bool:
    """Whether arcs are the pairs of a pool of three or more coins."""
    return len(arcs) > 2 and all(isinstance(arc, WeightedArc | StableArc) for arc in arcs)


def coins_of(
    arcs: Sequence[Arc], index: Mapping[TokenId, int], unit: Array
) -> tuple[list[Coin], float, float]:
    """The coins, Ann and E of a joint pool; no coins where one of them is empty.

    ``unit[t]`` is base units of token t per unit of the caller's.
    """
    first = arcs[0]
    if isinstance(first, WeightedArc):
        sides = {arc.token_in: arc for arc in arcs if isinstance(arc, WeightedArc)}
        whole = sum(arc.weight_in for arc in sides.values())
        rows = []
        for token, arc in sides.items():
            t = index[token]
            size = arc.reserve_in / float(unit[t])
            rows.append([t, size, arc.weight_in / whole, 1.0 - arc.fee, 1.0, 1.0])
        return rows, 0.0, 0.0
    assert isinstance(first, StableArc)
    if curves.stable_numbers(first) is None:
        return [], 0.0, 0.0
    places = {arc.index_in: index[arc.token_in] for arc in arcs if isinstance(arc, StableArc)}
    scales = {k: first.scales[k] * float(unit[t]) for k, t in places.items()}
    shrink = len(places) / sum(scales.values())
    d = curves.stable_invariant(first.balances, first.ann)
    rows = []
    for k, balance in enumerate(first.balances):
        gross = scales.get(k, 1.0 / shrink) * shrink
        into, out = gross * (1.0 - first.fee_in), (1.0 - first.fee_out) / gross
        rows.append([places.get(k, -1), balance * shrink, 1.0, into, out, gross])
    return rows, first.ann, (sum(first.balances) - d + d / first.ann) * shrink

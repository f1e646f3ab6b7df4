"""The coins of pools that have one state behind more than one pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from solver.core import curves
from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray, stable_invariant
from solver.core.types import TokenId
from solver.core.venue import Arc, StableArc, WeightedArc


def is_joint(arcs: Sequence[Arc]) -> bool:
    """Whether arcs are the pairs of a pool of three or more coins, none of them missing."""
    return len(arcs) > 2 and all(
        isinstance(arc, WeightedArc) or (isinstance(arc, StableArc) and curves.is_curved(arc))
        for arc in arcs
    )


class Coins:
    """Pools of three or more coins, coin by coin; see :mod:`solver.core.routing.joint`.

    j's coins are start[j]…start[j + 1]; a coin that no arc trades has the token −1. In the
    invariant's units a coin has ``reserve``; one numeraire paid in is ``gross`` units, ``into``
    after the fee; one unit taken out is ``out`` numeraire. ``excess`` is E and ``ann`` Ann, both 0
    for a weighted pool.
    """

    def __init__(
        self, pools: Sequence[Sequence[Arc]], index: Mapping[TokenId, int], unit: Array
    ) -> None:
        """``unit[t]`` is base units of token t per unit of the caller's; no coin may be empty."""
        self._index, self._unit = index, unit
        self._layouts = [self._layout(arcs) for arcs in pools]
        tokens = [coins for coins, _ in self._layouts]
        self.start: IntArray = np.cumsum([0, *map(len, tokens)])
        self.token: IntArray = np.array([t for coins in tokens for t in coins], np.int64)
        self.reserve, self.weight, self.into, self.out, self.gross = np.ones((5, len(self.token)))
        self.ann, self.excess = np.zeros((2, len(pools)))
        self.write(enumerate(pools))

    def takes(self, j: int, arcs: Sequence[Arc]) -> bool:
        """Whether the arcs are those of pool j in another state."""
        return is_joint(arcs) and self._layout(arcs) == self._layouts[j]

    def _layout(self, arcs: Sequence[Arc]) -> tuple[list[int], list[int]]:
        """The token of every coin, and for every token an arc that takes it in."""
        sides = {arc.token_in: k for k, arc in enumerate(arcs)}
        first = arcs[0]
        if not isinstance(first, StableArc):
            return [self._index[token] for token in sides], list(sides.values())
        coins = [-1] * len(first.balances)
        for k in sides.values():
            arc = arcs[k]
            assert isinstance(arc, StableArc)
            coins[arc.index_in] = self._index[arc.token_in]
        return coins, list(sides.values())

    def write(self, pools: Iterable[tuple[int, Sequence[Arc]]]) -> None:
        """The states of pools, each with its number; their coins and tokens stay."""
        numbers: list[tuple[int, float, float]] = []
        amounts: list[float] = []
        shares: list[float] = []
        fees: list[float] = []
        for j, arcs in pools:
            first = arcs[0]
            if isinstance(first, StableArc):
                numbers.append((j, first.ann, first.fee_out))
                amounts += first.balances
                shares += first.scales
                fees += [first.fee_in] * len(first.balances)
                continue
            numbers.append((j, 0.0, 0.0))
            for k in self._layouts[j][1]:
                arc = arcs[k]
                assert isinstance(arc, WeightedArc)
                amounts.append(arc.reserve_in)
                shares.append(arc.weight_in)
                fees.append(arc.fee)
        if numbers:
            _write(
                np.array(numbers), np.array(amounts), np.array(shares), np.array(fees),
                self._unit, self.start, self.token, self.reserve, self.weight, self.into,
                self.out, self.gross, self.ann, self.excess,
            )  # fmt: skip


@compiled
def _write(
    pools: Array, amount: Array, share: Array, fee: Array, unit: Array, start: IntArray,
    token: IntArray, reserve: Array, weight: Array, into: Array, out: Array, gross: Array,
    ann: Array, excess: Array,
) -> None:  # fmt: skip
    """The numbers of :class:`Coins` from rows (j, Ann, fee out) and their coins one by one.

    ``share`` is the weight or the scale; all coins of a stable pool are shrunk so that those with a
    token have a mean scale of 1.
    """
    r = 0
    for p in range(len(pools)):
        j = int(pools[p, 0])
        first, count = start[j], start[j + 1] - start[j]
        whole, traded = 0.0, 0
        for k in range(count):
            t = token[first + k]
            if t >= 0:
                whole += share[r + k] * (unit[t] if pools[p, 1] > 0.0 else 1.0)
                traded += 1
        if pools[p, 1] > 0.0:
            shrink, total = traded / whole, 0.0
            for k in range(count):
                c = first + k
                total += amount[r + k]
                reserve[c] = amount[r + k] * shrink
                gross[c] = share[r + k] * unit[token[c]] * shrink if token[c] >= 0 else 1.0
                into[c] = gross[c] * (1.0 - fee[r + k])
                out[c] = (1.0 - pools[p, 2]) / gross[c]
            d = stable_invariant(amount[r : r + count], pools[p, 1])
            ann[j] = pools[p, 1]
            excess[j] = (total - d + d / ann[j]) * shrink
        else:
            for k in range(count):
                c = first + k
                reserve[c] = amount[r + k] / unit[token[c]]
                weight[c] = share[r + k] / whole
                into[c] = 1.0 - fee[r + k]
        r += count

"""A sparse Cholesky factor whose pattern is found once: few nodes are left for a dense core.

Nodes of few neighbours are eliminated first, each time the one with the fewest (minimum degree);
where what is left is nearly full, it is factorised as a dense matrix. Pools of a market meet in
hubs, so that of 10,000 pools with 1,000 tokens a core of some 300 nodes remains.

Source: George and Liu, "The Evolution of the Minimum Degree Ordering Algorithm", SIAM Rev. 31.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from solver.core.jit import compiled
from solver.core.kernels import Array, IntArray

WordArray = NDArray[np.uint64]
_FULL = 0.5  # of the nodes that are left are neighbours: the rest is dense


class Pattern(Struct, frozen=True):
    """Where the entries of a symmetric matrix lie in one flat array.

    The first ``sparse`` nodes in elimination order have their diagonal at the front; below it come
    their columns (``start``, ``rows``), then the ``core``, row by row. ``rank[i]`` is the place of
    node i in the order, ``update`` the entries that eliminating a node changes, in order.
    """

    rank: IntArray
    sparse: int
    core: int
    start: IntArray
    rows: IntArray
    keys: IntArray
    update: IntArray

    @property
    def size(self) -> int:
        """Entries in all."""
        return self.sparse + len(self.rows) + self.core * self.core

    def places(self, one: IntArray, other: IntArray) -> IntArray:
        """Where the entries of pairs of nodes lie; the pairs must be edges of the pattern."""
        first = np.minimum(self.rank[one], self.rank[other])
        second = np.maximum(self.rank[one], self.rank[other])
        dense = self.sparse + len(self.rows)
        inside = dense + (second - self.sparse) * self.core + (first - self.sparse)
        at = np.searchsorted(self.keys, first * len(self.rank) + second)
        place = np.where(first >= self.sparse, inside, self.sparse + at)
        return np.where(first == second, self.diagonal[one], place)

    @property
    def diagonal(self) -> IntArray:
        """Where the diagonal entries of all nodes lie."""
        dense = self.sparse + len(self.rows)
        inside = dense + (self.rank - self.sparse) * (self.core + 1)
        return np.where(self.rank < self.sparse, self.rank, inside)


def find_pattern(count: int, edges: Sequence[tuple[int, int]] | IntArray) -> Pattern:
    """Elimination order and places for ``count`` nodes and undirected edges between them.

    Edges may be given more than once.
    """
    rank, start, rows = _ordered(count, np.asarray(edges, np.int64).reshape(-1, 2))
    sparse = len(start) - 1
    keys = np.repeat(np.arange(sparse), np.diff(start)) * count + rows
    core = count - sparse
    update = _updates(sparse, core, count, start, rows, keys)
    return Pattern(rank, sparse, core, start, rows, keys, update)


@compiled
def _ordered(count: int, edges: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The place of each node in the order, and the sparse columns by place; ties by number.

    Neighbours are kept as bits, so that joining those of two nodes is a few operations on words.
    """
    near = np.zeros((count, (count + 63) // 64), np.uint64)
    for e in range(len(edges)):
        i, j = edges[e, 0], edges[e, 1]
        if i != j:
            near[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
            near[j, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    degree = np.empty(count, np.int64)
    for i in range(count):
        degree[i] = _bits(near[i])
    rank, start = np.full(count, -1), np.zeros(count + 1, np.int64)
    below, filled, sparse = np.empty(16 * count + 16, np.int64), 0, 0
    while sparse < count:
        i = -1
        for j in range(count):
            if rank[j] < 0 and (i < 0 or degree[j] < degree[i]):
                i = j
        if degree[i] >= _FULL * (count - sparse - 1) and degree[i] > 1:
            break
        rank[i] = sparse
        sparse += 1
        if filled + count > len(below):
            below = np.append(below, np.empty(len(below) + count, np.int64))
        first = filled
        for j in range(count):
            if near[i, j >> 6] >> np.uint64(j & 63) & np.uint64(1):
                below[filled] = j
                filled += 1
        start[sparse] = filled
        for p in range(first, filled):
            j = below[p]
            near[j] |= near[i]
            near[j, i >> 6] &= ~(np.uint64(1) << np.uint64(i & 63))
            near[j, j >> 6] &= ~(np.uint64(1) << np.uint64(j & 63))
            degree[j] = _bits(near[j])
    last = sparse
    for i in range(count):
        if rank[i] < 0:
            rank[i] = last
            last += 1
    rows = rank[below[:filled]]
    for k in range(sparse):
        rows[start[k] : start[k + 1]].sort()
    return rank, start[: sparse + 1], rows


@compiled
def _bits(words: WordArray) -> int:
    """How many bits are set."""
    total = np.uint64(0)
    for word in words:
        n = word - (word >> np.uint64(1) & np.uint64(0x5555555555555555))
        two = np.uint64(0x3333333333333333)
        n = (n & two) + (n >> np.uint64(2) & two)
        n = n + (n >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += n * np.uint64(0x0101010101010101) >> np.uint64(56)
    return int(total)


@compiled
def _updates(
    sparse: int, core: int, count: int, start: IntArray, rows: IntArray, keys: IntArray
) -> IntArray:
    total = 0
    for j in range(sparse):
        degree = start[j + 1] - start[j]
        total += degree * (degree + 1) // 2
    update = np.empty(total, np.int64)
    dense = sparse + len(rows)
    n = 0
    for j in range(sparse):
        for b in range(start[j], start[j + 1]):
            high = rows[b]
            for c in range(start[j], b + 1):
                low = rows[c]
                if low >= sparse:
                    update[n] = dense + (high - sparse) * core + (low - sparse)
                elif low == high:
                    update[n] = low
                else:
                    update[n] = sparse + np.searchsorted(keys, low * count + high)
                n += 1
    return update


class System(Struct, frozen=True):
    """The nodes and matrix places of a network; they last as long as its set of pools.

    Nodes are the tokens, then per joint pool one for its invariant and, if stable, one for the sum.
    ``place[a]`` is the matrix entry of the two tokens of a plain arc; ``stars`` are the entries of
    the star levels (tail–head, tail–third, head–third). ``single`` are the plain arcs.
    """

    nodes: int
    pattern: Pattern
    single: IntArray
    place: IntArray
    stars: IntArray


class Factor:
    """The factor of one matrix after another of the same pattern; ``values`` is filled in place.

    The last value belongs to nothing: entries that do not matter are written there.
    """

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self.values: Array = np.zeros(pattern.size + 1)
        after = pattern.sparse + len(pattern.rows)
        self._dense: Array = self.values[after : pattern.size].reshape(pattern.core, pattern.core)
        self._core = self._dense.T

    def factorise(self) -> bool:
        """Cholesky in place; False if the matrix is not positive definite."""
        found = self._pattern
        if not _eliminate(found.sparse, found.start, found.update, self.values):
            return False
        if not found.core:
            return True
        factor, failed = dpotrf(self._dense.T, lower=0, overwrite_a=1, clean=0)
        self._core = factor
        return bool(failed == 0)

    def solve(self, rhs: Array) -> Array:
        """The solution for a right side by node."""
        found = self._pattern
        x = np.empty(len(rhs))
        x[found.rank] = rhs
        _forward(found.sparse, found.start, found.rows, self.values, x)
        if found.core:
            x[found.sparse :] = dpotrs(self._core, x[found.sparse :], lower=0)[0]
        _backward(found.sparse, found.start, found.rows, self.values, x)
        return x[found.rank]


@compiled
def _eliminate(sparse: int, start: IntArray, update: IntArray, values: Array) -> bool:
    n = 0
    for j in range(sparse):
        pivot = values[j]
        if not pivot > 0.0:
            return False
        pivot = np.sqrt(pivot)
        values[j] = pivot
        inverse = 1.0 / pivot
        first, after = sparse + start[j], sparse + start[j + 1]
        for b in range(first, after):
            scale = values[b] * inverse
            values[b] = scale
            for c in range(first, b + 1):
                values[update[n]] -= scale * values[c]
                n += 1
    return True


@compiled
def _forward(sparse: int, start: IntArray, rows: IntArray, values: Array, x: Array) -> None:
    for j in range(sparse):
        value = x[j] / values[j]
        x[j] = value
        for b in range(start[j], start[j + 1]):
            x[rows[b]] -= values[sparse + b] * value


@compiled
def _backward(sparse: int, start: IntArray, rows: IntArray, values: Array, x: Array) -> None:
    for j in range(sparse - 1, -1, -1):
        total = x[j]
        for b in range(start[j], start[j + 1]):
            total -= values[sparse + b] * x[rows[b]]
        x[j] = total / values[j]

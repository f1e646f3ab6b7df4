"""Seeded orders for the benchmarks: pairs as popular as their tokens."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from benchmarks.markets import Market
from solver.core.jit import compiled
from solver.core.kernels import IntArray
from solver.core.routing.arcs import IndexArray
from solver.core.routing.network import Network


class Pairs(Struct, frozen=True):
    """Connected pairs of network tokens; ``unreachable`` draws had no way from one to the other."""

    pairs: list[tuple[int, int]]
    unreachable: int


def draw(market: Market, network: Network, count: int, seed: int) -> Pairs:
    """``count`` connected pairs, both ends by Zipf's law over the market's tokens."""
    rng = np.random.default_rng(seed)
    tokens = list(market.prices)
    weight = 1.0 / np.arange(1, len(tokens) + 1)
    weight /= weight.sum()
    pairs: list[tuple[int, int]] = []
    unreachable = 0
    ways: dict[int, IntArray] = {}
    while len(pairs) < count:
        a, b = (network.index.get(tokens[k], -1) for k in rng.choice(len(tokens), 2, p=weight))
        if a == b:
            continue
        if a < 0 or b < 0:  # a token that no pool trades
            unreachable += 1
            continue
        if a not in ways:
            ways[a] = _reached(network.out_start, network.out_arc, network.head, a)
        if ways[a][b]:
            pairs.append((a, b))
        else:
            unreachable += 1
    return Pairs(pairs, unreachable)


@compiled
def _reached(start: IntArray, arc: IndexArray, head: IndexArray, source: int) -> IntArray:
    """1 for every token that something sold at ``source`` can become."""
    count = len(start) - 1
    seen = np.zeros(count, np.int64)
    queue = np.empty(count, np.int64)
    queue[0] = source
    seen[source] = 1
    n = 1
    k = 0
    while k < n:
        t = queue[k]
        k += 1
        for place in range(start[t], start[t + 1]):
            j = head[arc[place]]
            if not seen[j]:
                seen[j] = 1
                queue[n] = j
                n += 1
    return seen

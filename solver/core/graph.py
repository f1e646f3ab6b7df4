"""A snapshot as a graph: nodes are (token, stage), arcs are concave curves.

Within one bundle only stage NOW exists. Tokens that a cross-chain order sells lie in ESCROW,
from where only the solver's inventory leads to the destination; what a bridge sends is LATER.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import NamedTuple

import networkx as nx
import numpy as np
from msgspec import Struct

from solver.core import curves
from solver.core.curves import Arcs, Level
from solver.core.kernels import LINEAR
from solver.core.routing.coins import is_joint
from solver.core.types import BPS, Exact, TokenId
from solver.core.venue import (
    Arc,
    ConstantProductArc,
    DeclaresArcs,
    LevelsArc,
    Pool,
    Quote,
    Snapshot,
    StableArc,
    StatesRoutes,
    TicksArc,
    WeightedArc,
    step_of,
)

NOW, ESCROW, LATER = 0, 1, 2
_SAMPLES = 48
_SAMPLE_START = 10**3
_KINDS = {
    ConstantProductArc: "constantProduct",
    LevelsArc: "levels",
    WeightedArc: "weighted",
    StableArc: "stable",
    TicksArc: "ticks",
}


class Node(NamedTuple):
    """A token at a stage."""

    token: TokenId
    stage: int = NOW


class Inventory(Struct, frozen=True):
    """The solver's own tokens as an arc from escrow to the destination.

    ``amount_in`` in escrow is worth amount_in − fixed_fee − ⌈amount_in·cost_bps/1e4⌉ there.
    """

    token_in: TokenId
    token_out: TokenId
    capacity: int
    fixed_fee: int
    cost_bps: int

    @property
    def id(self) -> str:
        """The name in rows and reports."""
        return f"inventory:{self.token_in}>{self.token_out}"

    def output(self, amount_in: int) -> int:
        """What the solver pays for ``amount_in`` in escrow, rounded down, within capacity."""
        cost = -(-amount_in * self.cost_bps // BPS)
        return max(0, min(self.capacity, amount_in - self.fixed_fee - cost))


class Graph(Struct, frozen=True):
    """Arcs in base units. ``source[k]`` is the pool or inventory that arc k belongs to.

    ``joints`` has the pairs of every pool of three or more coins, by the pool's id.
    """

    nodes: tuple[Node, ...]
    index: dict[Node, int]
    arcs: Arcs
    source: tuple[Pool | Inventory, ...]
    gas: tuple[int, ...]
    sampled: tuple[str, ...]
    joints: dict[str, tuple[Arc, ...]] = {}

    def view(self) -> nx.MultiDiGraph:
        """The same graph for networkx: traversal, components, drawing."""
        drawn = nx.MultiDiGraph()
        drawn.add_nodes_from(self.nodes)
        for k, (tail, head) in enumerate(zip(self.arcs.tail, self.arcs.head, strict=True)):
            drawn.add_edge(self.nodes[tail], self.nodes[head], key=k, venue=self.source[k].id)
        return drawn


def inventories(snapshot: Snapshot, capital_bps: int) -> list[Inventory]:
    """An inventory arc for each bridge route to a token of which the solver holds some."""
    found = []
    for pool in snapshot.pools:
        if isinstance(pool, StatesRoutes):
            quote = pool.route()
            capacity = snapshot.inventory.get(quote.token_out, 0)
            if capacity > 0:
                found.append(_inventory(quote, capacity, capital_bps))
    return found


def _inventory(quote: Quote, capacity: int, capital_bps: int) -> Inventory:
    return Inventory(
        quote.token_in, quote.token_out, capacity, quote.fixed_fee, quote.fee_bps + capital_bps
    )


class Declared(Struct, frozen=True):
    """What a pool brings into a graph: its arcs' levels, and the gas of each."""

    rows: tuple[tuple[Node, Node, Level], ...]
    gas: tuple[int, ...]
    is_sampled: bool
    joint: tuple[Arc, ...] | None


def declared(pool: Pool) -> Declared:
    """The levels of a pool; none of a bridge, which the solver's inventory stands for."""
    if isinstance(pool, StatesRoutes):
        return Declared((), (), False, None)
    is_sampled = not isinstance(pool, DeclaresArcs)
    arcs = pool.arcs() if isinstance(pool, DeclaresArcs) else sample(pool)
    found = [(arc, level) for arc in arcs for level in curves.levels(arc)]
    return Declared(
        tuple((Node(arc.token_in), Node(arc.token_out), level) for arc, level in found),
        tuple(arc.gas for arc, _ in found),
        is_sampled,
        tuple(arcs) if is_joint(arcs) else None,
    )


def build(
    snapshot: Snapshot,
    wanted: Sequence[Node],
    capital_bps: int = 0,
    known: dict[str, Declared] | None = None,
) -> Graph:
    """The graph of a snapshot; ``wanted`` nodes exist even where no arc touches them.

    ``known`` keeps what pools declare from one graph of a snapshot to the next.
    """
    known = {} if known is None else known
    rows: list[tuple[Node, Node, Level]] = []
    source: list[Pool | Inventory] = []
    gas: list[int] = []
    sampled: list[str] = []
    joints: dict[str, tuple[Arc, ...]] = {}
    for pool in sorted(snapshot.pools, key=lambda pool: pool.id):
        if pool.id not in known:
            known[pool.id] = declared(pool)
        own_arcs = known[pool.id]
        rows += own_arcs.rows
        source += [pool] * len(own_arcs.rows)
        gas += own_arcs.gas
        if own_arcs.is_sampled:
            sampled.append(pool.id)
        if own_arcs.joint is not None:
            joints[pool.id] = own_arcs.joint
    for own in sorted(inventories(snapshot, capital_bps), key=lambda own: own.id):
        rate = 1.0 - own.cost_bps / BPS
        tail, head = Node(own.token_in, ESCROW), Node(own.token_out, NOW)
        rows.append((tail, head, (LINEAR, (rate,), own.capacity / rate)))
        source.append(own)
        gas.append(0)
    nodes = tuple(sorted({*wanted, *(row[0] for row in rows), *(row[1] for row in rows)}))
    index = {node: number for number, node in enumerate(nodes)}
    kind, par, capacity = curves.packed([row[2] for row in rows])
    return Graph(
        nodes,
        index,
        Arcs(
            np.array([index[row[0]] for row in rows], dtype=np.int64),
            np.array([index[row[1]] for row in rows], dtype=np.int64),
            kind,
            par,
            capacity,
        ),
        tuple(source),
        tuple(gas),
        tuple(sampled),
        joints,
    )


def directions(pool: Pool) -> list[tuple[TokenId, TokenId, str]]:
    """In which directions a pool trades, and by what kind of curve."""
    if isinstance(pool, StatesRoutes):
        quote = pool.route()
        return [(quote.token_in, quote.token_out, "bridge")]
    if isinstance(pool, DeclaresArcs):
        kinds = {(arc.token_in, arc.token_out): _KINDS[type(arc)] for arc in pool.arcs()}
        return [(*ends, kind) for ends, kind in sorted(kinds.items())]
    return [(*ends, "sampled") for ends in permutations(pool.tokens, 2)]


def sample(pool: Pool) -> list[LevelsArc]:
    """The curves of a pool that does not declare them: exact swaps on a geometric grid.

    Amounts double from a thousand base units until the output stops growing. The result is the
    concave majorant of the samples.
    """
    arcs = []
    for token_in in pool.tokens:
        for token_out in pool.tokens:
            if token_in != token_out:
                points = _points(pool, token_in, token_out)
                levels = _majorant(points)
                if levels:
                    gas = step_of(pool, token_in, token_out, points[-1][0], Exact.IN).gas
                    arcs.append(LevelsArc(token_in, token_out, levels, gas))
    return arcs


def _points(pool: Pool, token_in: TokenId, token_out: TokenId) -> list[tuple[int, int]]:
    points = [(0, 0)]
    amount = _SAMPLE_START
    for _ in range(_SAMPLES * 2):
        step = step_of(pool, token_in, token_out, amount, Exact.IN)
        if step.amount_out > points[-1][1] and step.amount_in > points[-1][0]:
            points.append((step.amount_in, step.amount_out))
            if len(points) > 2 and step.amount_out < points[-2][1] * 1.01:
                break
        elif len(points) > 1:
            break
        amount *= 2
    return points


def _majorant(points: list[tuple[int, int]]) -> tuple[tuple[float, float], ...]:
    hull: list[tuple[int, int]] = []
    for x, y in points:
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (y1 - y0) * (x - x1) > (y - y1) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return tuple((float(x1 - x0), (y1 - y0) / (x1 - x0)) for (x0, y0), (x1, y1) in pairwise(hull))


def complete_prices(graph: Graph, prices: dict[TokenId, float]) -> dict[TokenId, float]:
    """Prices of one base unit; unknown ones follow from the best marginal rate of an arc.

    A breadth-first walk from the priced tokens. A token that no arc reaches stays without.
    """
    known = {token: price for token, price in prices.items() if price > 0.0}
    view = graph.view()
    frontier = sorted(known)
    start = curves.slope(graph.arcs, np.zeros(len(graph.arcs)))
    while frontier:
        following: list[TokenId] = []
        for token in frontier:
            node = Node(token)
            if node not in view:
                continue
            for _, head, key in view.out_edges(node, keys=True):
                if head.token not in known and start[key] > 0.0:
                    known[head.token] = known[token] / float(start[key])
                    following.append(head.token)
        frontier = following
    return known

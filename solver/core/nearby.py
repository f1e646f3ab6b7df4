"""A batch in a large market: which pools its program sees, and what the others could gain.

The program sees the pools on the best ways between the tokens of its orders. Its prices are carried
to every other token, so that no first unit gains on the way out of one; what any pool outside gains
at these prices belongs to the bound. Pools that gain more than a trifle join the program, which is
solved again: column generation, with the proof over the whole market from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.graph import NOW, Node
from solver.core.kernels import Array, IntArray
from solver.core.problem import Batch
from solver.core.routing.extension import extend, gaining
from solver.core.routing.joint import joint_total
from solver.core.routing.labels import select
from solver.core.routing.network import Network
from solver.core.types import Intent, Kind, TokenId

#: A market with more pools than this is large.
MANY = 100
_SIZES = (1.0 / 64.0, 1.0 / 8.0, 1.0)  # of what a pair trades
_PER_SIZE = 24
_ADDED = 120
_VISITS = 40
_WORTHLESS = 1e-9


class Lifted(Struct, frozen=True):
    """Prices ν carried to the whole market: of the batch's nodes, and of the network's tokens."""

    nodes: Array
    tokens: Array


class Surroundings:
    """The pools of a network that a batch does not see."""

    def __init__(self, network: Network, seen: NDArray[np.bool_]) -> None:
        self._network, self._seen = network, seen.copy()
        self._all: IntArray = np.arange(len(network.tokens))

    def lift(self, batch: Batch, nu: Array) -> Lifted:
        """ν of every token: the batch's own where it has one, else what a first unit can bring.

        A token that is worth nothing in the batch and that no order touches has none of its own.
        """
        network, problem = self._network, batch.problem
        ordered = {node for order in problem.orders for node in (order.sell, order.buy)}
        places = [
            (n, network.index[node.token])
            for n, node in enumerate(batch.graph.nodes)
            if node.stage == NOW
            and node.token in network.index
            and (n in ordered or nu[n] > _WORTHLESS)
        ]
        own, outer = np.array(places, np.int64).reshape(-1, 2).T
        cap, floor = np.full(len(network.tokens), np.inf), np.zeros(len(network.tokens))
        cap[outer] = floor[outer] = nu[own]
        tokens = np.empty(len(network.tokens))
        # prices that have not settled, on a gaining cycle, prove a bound as well, if a loose one
        extend(network.in_start, network.in_tail, network.in_spot, cap, floor, -1, _VISITS, tokens)
        nodes = nu.copy()
        for n, node in enumerate(batch.graph.nodes):
            if node.stage == NOW and node.token in network.index:
                nodes[n] = tokens[network.index[node.token]]
        return Lifted(nodes, tokens)

    def gains(self, lifted: Lifted) -> tuple[float, IntArray]:
        """What the unseen pools gain at these prices (numeraire), and the pools that gain most."""
        network = self._network
        arcs, gains = gaining(
            self._all, network.out_start, network.out_arc, network.head, network.spot,
            lifted.tokens, network.kind, network.par, network.table, network.rows,
        )  # fmt: skip
        outside = ~self._seen[network.pool[arcs]]
        arcs, gains = arcs[outside], gains[outside]
        joint, pools = network.joint, network.pool[arcs]
        unknown = np.zeros(len(joint.ann))
        total = joint_total(
            joint.of_pool[pools], gains, joint.start, joint.token, joint.reserve, joint.weight,
            joint.into, joint.out, joint.excess, lifted.tokens, unknown, unknown, True,
        )  # fmt: skip
        per_pool = np.bincount(pools, weights=gains, minlength=len(network.pools))
        most = np.argsort(-per_pool, kind="stable")[:_ADDED]
        return float(total), most[per_pool[most] > 0.0]

    def names(self, lifted: Lifted, prices: Mapping[TokenId, float]) -> dict[Node, float]:
        """ν per base unit of every token of the network, in the numeraire."""
        return {
            Node(token): float(worth) * prices[token]
            for token, worth in zip(self._network.tokens, lifted.tokens, strict=True)
        }


def near(
    network: Network, intents: Sequence[Intent], prices: Mapping[TokenId, float]
) -> NDArray[np.bool_]:
    """Which pools lie on the best ways of up to three hops between the tokens of the orders."""
    chosen = np.zeros(network.arc_count)
    for (source, target), amount in sorted(_traded(network, intents, prices).items()):
        for share in _SIZES:
            select(
                network.out_start, network.out_arc, network.in_start, network.in_arc,
                network.tail, network.head, network.rates(share * amount), source, target,
                _PER_SIZE, chosen,
            )  # fmt: skip
    seen = np.zeros(len(network.pools), np.bool_)
    seen[network.pool[chosen > 0.0]] = True
    return seen


def _traded(
    network: Network, intents: Iterable[Intent], prices: Mapping[TokenId, float]
) -> dict[tuple[int, int], float]:
    """Numeraire per directed pair whose tokens both have pools."""
    found: dict[tuple[int, int], float] = {}
    for intent in intents:
        swap = intent.swap
        source, target = network.index.get(swap.sell), network.index.get(swap.buy)
        if source is not None and target is not None:
            token = swap.sell if swap.kind is Kind.EXACT_IN else swap.buy
            worth = intent.remaining * prices[token]
            found[source, target] = found.get((source, target), 0.0) + worth
    return found

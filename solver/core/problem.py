"""A batch as numbers: what the program solves and the certificate proves.

Normalised units: one unit of any token is worth ``scale`` (the largest order of the batch) at
reference prices, because base units of 1e6 … 1e18 make an LP solver return nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import curves
from solver.core.curves import Arcs, Array, IntArray
from solver.core.graph import ESCROW, NOW, Graph, Node
from solver.core.routing.coins import Coins
from solver.core.types import BPS, Intent, Kind, TokenId

MOST_RATE = 10.0


class Order(Struct, frozen=True):
    """An order in normalised units. ``limit`` is the least buy per sell; ``size`` is Δ or Y."""

    sell: int
    buy: int
    size: float
    limit: float
    exact_out: bool
    divisible: bool


class ExtraRow(Struct, frozen=True):
    """A named linear row over fills: Σ coefficient·fill ≤ rhs, fills in [0, 1] of each order."""

    name: str
    coefficients: dict[int, float]
    rhs: float


class Floor(Struct, frozen=True):
    """The surplus that a directed pair, or one exact-out order, has in the reference outcome.

    ``members`` are all exact-in orders of the pair, or the one exact-out order; ``amount`` is the
    surplus at reference prices. A plan for a batch without any of them owes nothing.
    """

    members: tuple[int, ...]
    amount: float


class JointPool(Struct, frozen=True):
    """A pool of three or more coins: its pairs among the arcs, and its coins in normalised units.

    Pair k takes coin ``coin_in[k]`` and gives ``coin_out[k]``. See
    :mod:`solver.core.routing.joint` for the numbers.
    """

    pairs: IntArray
    coin_in: IntArray
    coin_out: IntArray
    token: IntArray
    reserve: Array
    weight: Array
    into: Array
    out: Array
    excess: float


class Problem(Struct, frozen=True):
    """One batch in normalised units. ``prices`` is p per node.

    ``caps`` bounds the rate of each order's pair: surplus that only moves from one pair to another
    would otherwise look as good as surplus that is made. ``rates`` are those of the reference
    outcome, and no pair gets less than its own. ``reserve`` is what a plan must leave at each node
    for what integers lose on the way, nothing if empty. ``guess`` is a ν known to be near the right
    one: with it programs see only the levels near the money, as whole curves.
    """

    arcs: Arcs
    node_count: int
    orders: tuple[Order, ...]
    prices: Array
    rows: tuple[ExtraRow, ...] = ()
    floors: tuple[Floor, ...] = ()
    caps: tuple[float, ...] = ()
    joints: tuple[JointPool, ...] = ()
    rates: tuple[float, ...] = ()
    reserve: tuple[float, ...] = ()
    guess: Array | None = None

    @property
    def first_nu(self) -> Array:
        """Where the search for ν begins: a guess near them, or the reference prices."""
        return self.prices if self.guess is None else self.guess

    def least(self, i: int) -> float:
        """The rate of order i in the reference outcome, 0 where it is not filled there."""
        return self.rates[i] if self.rates else 0.0

    def cap(self, i: int) -> float:
        """The best rate that order i may get; without a reference outcome a generous one."""
        if self.caps:
            return self.caps[i]
        order = self.orders[i]
        reference = float(self.prices[order.sell] / self.prices[order.buy])
        return MOST_RATE * max(order.limit, reference)


class Plan(Struct, frozen=True):
    """A solved program: flow per arc, sold and bought per order, ν per node, λ per extra row."""

    flow: Array
    sold: Array
    bought: Array
    nu: Array
    multipliers: Array
    value: float


def surplus_of(problem: Problem, members: Iterable[int], plan: Plan) -> float:
    """What the members get beyond their limits, at reference prices."""
    total = 0.0
    for i in members:
        order = problem.orders[i]
        over = float(plan.bought[i]) - order.limit * float(plan.sold[i])
        if order.exact_out:
            total += float(problem.prices[order.sell]) * over / order.limit
        else:
            total += float(problem.prices[order.buy]) * over
    return total


class Batch(Struct, frozen=True):
    """A problem and the way back to base units.

    ``unit[n]`` is base units of node n per normalised unit; ``kept`` the arcs of the graph that
    the problem has; ``fees`` the flat fee per intent in its buy token.
    """

    graph: Graph
    intents: tuple[Intent, ...]
    fees: tuple[int, ...]
    problem: Problem
    kept: tuple[int, ...]
    unit: Array
    scale: float
    capped: tuple[int, ...]


def sell_node(intent: Intent) -> Node:
    """Where the sold tokens arrive."""
    return Node(intent.swap.sell, ESCROW if intent.swap.is_cross_chain else NOW)


def buy_node(intent: Intent) -> Node:
    """Where the bought tokens are paid from."""
    return Node(intent.swap.buy, NOW)


def normalise(
    graph: Graph,
    intents: Sequence[Intent],
    fees: Mapping[str, int],
    prices: Mapping[TokenId, float],
    max_impact_bps: int = BPS,
    rows: Sequence[ExtraRow] = (),
) -> Batch:
    """Scale everything. Arcs that touch a token without a price are left out.

    Every token of an intent must have a price. The flat fee tightens an order's limit as if it
    were filled whole. ``max_impact_bps`` caps how far one fill may move a pool's marginal rate.
    """
    price = np.array([prices.get(node.token, 0.0) for node in graph.nodes])
    scale = max(_worth(intent, prices) for intent in intents)
    unit = np.where(price > 0.0, scale / np.where(price > 0.0, price, 1.0), 0.0)
    usable = (unit[graph.arcs.tail] > 0.0) & (unit[graph.arcs.head] > 0.0)
    kept = np.nonzero(usable)[0]
    arcs = graph.arcs.take(kept).scaled(unit)
    capped: tuple[int, ...] = ()
    if max_impact_bps < BPS:
        limited = curves.impact_capacity(arcs, max_impact_bps / BPS)
        capped = tuple(np.nonzero(limited < arcs.capacity)[0].tolist())
        arcs = replace(arcs, capacity=limited)
    orders = tuple(_order(graph, intent, fees.get(intent.digest, 0), unit) for intent in intents)
    worth = np.where(price > 0.0, 1.0, 0.0)
    joints = () if capped else _joints(graph, kept, unit)
    problem = Problem(arcs, len(graph.nodes), orders, worth, tuple(rows), joints=joints)
    return Batch(
        graph,
        tuple(intents),
        tuple(fees.get(intent.digest, 0) for intent in intents),
        problem,
        tuple(kept.tolist()),
        unit,
        scale,
        capped,
    )


def _joints(graph: Graph, kept: IntArray, unit: Array) -> tuple[JointPool, ...]:
    """The pools of several coins all of whose tokens have a price."""
    pairs: dict[str, list[int]] = {}
    for position, k in enumerate(kept):
        if graph.source[k].id in graph.joints:
            pairs.setdefault(graph.source[k].id, []).append(position)
    index = {node.token: n for n, node in enumerate(graph.nodes) if node.stage == NOW}
    found = []
    for name, places in sorted(pairs.items()):
        arcs = graph.joints[name]
        if len(places) < len(arcs):
            continue
        coins = Coins([arcs], index, unit)
        coin_of = {int(node): c for c, node in enumerate(coins.token)}
        ends = kept[places]
        found.append(
            JointPool(
                np.array(places), _coins(coin_of, graph.arcs.tail[ends]),
                _coins(coin_of, graph.arcs.head[ends]), coins.token, coins.reserve, coins.weight,
                coins.into, coins.out, float(coins.excess[0]),
            )
        )  # fmt: skip
    return tuple(found)


def _coins(coin_of: Mapping[int, int], nodes: IntArray) -> IntArray:
    return np.array([coin_of[node] for node in nodes.tolist()], np.int64)


def _worth(intent: Intent, prices: Mapping[TokenId, float]) -> float:
    if intent.swap.kind is Kind.EXACT_IN:
        return intent.remaining * prices[intent.swap.sell]
    return intent.remaining * prices[intent.swap.buy]


def _order(graph: Graph, intent: Intent, fee: int, unit: Array) -> Order:
    swap = intent.swap
    sell, buy = graph.index[sell_node(intent)], graph.index[buy_node(intent)]
    exact_out = swap.kind is Kind.EXACT_OUT
    share = intent.remaining / swap.total
    sold, bought = swap.sell_amount * share, swap.buy_amount * share + fee
    return Order(
        sell,
        buy,
        (bought / unit[buy]) if exact_out else (sold / unit[sell]),
        (bought / unit[buy]) / (sold / unit[sell]),
        exact_out,
        swap.partial_fill,
    )

"""From a plan in floats to integers: who gives what and who gets what.

The plan decides only proportions. Legs are replayed in topological order with the pools' own
integer arithmetic; what really arrived is then paid out at one exact rate per directed pair. A
rate is a pair of integers (buy, sell): exact-in orders get ⌊rate·sold⌋, exact-out orders pay
⌈bought/rate⌉, the flat fee comes out of the bought side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import networkx as nx
import numpy as np
from msgspec import Struct

from solver.core.curves import Array
from solver.core.graph import Inventory, Node
from solver.core.intent import max_sell, min_buy
from solver.core.problem import Batch, Plan, buy_node, sell_node
from solver.core.routing.joint import payout_scale
from solver.core.types import Exact, Fill, Infeasible, InventoryUse, Kind, Leg, TokenId
from solver.core.venue import Pool, Step, step_of, trades_in_lots

_WEIGHT = 2**62
_PART_BITS = 256  # finer than any amount
_NEGLIGIBLE = 1e-10
_SHAVED = 1e-12
_LOST = 1e-11
_TRIFLE = 10**9  # the part of an amount for which no leg of its own is worth its gas


class Edge(Struct, frozen=True):
    """All flow of one pool from one node to another, with its share of the node's balance.

    A book of whole lots has an amount instead, in base units: a share that is a trifle less than
    planned would cost it a lot. A pool of several coins has what it is wanted to pay out at the
    head in all; what that leaves of an input goes to the next head.
    """

    source: Pool | Inventory
    head: Node
    weight: int
    amount: int | None = None
    wanted: int | None = None


class Route(Struct, frozen=True):
    """Nodes in topological order, their out-edges, and the weight of what stays to be paid."""

    order: tuple[Node, ...]
    edges: dict[Node, tuple[Edge, ...]]
    kept: dict[Node, int]


class Outcome(Struct, frozen=True):
    """What a replay did: legs in order, inventory used, and the balance left at every node."""

    legs: tuple[Leg, ...]
    inventory: tuple[InventoryUse, ...]
    residual: dict[Node, int]


class Priced(Struct, frozen=True):
    """Fills and rates that the residual balances cover, with what is left over.

    ``missing`` is what the plan itself brought too little of for exact purchases and limits.
    """

    fills: tuple[Fill, ...]
    outcome: Outcome
    clearing: dict[str, tuple[int, int]]
    dust: dict[Node, int]
    missing: tuple[tuple[TokenId, int], ...] = ()


def used_edges(batch: Batch, flow: Array) -> dict[tuple[Node, Node, str], float]:
    """Normalised input per (tail, head, pool)."""
    nodes = batch.graph.nodes
    used: dict[tuple[Node, Node, str], float] = {}
    for position in np.nonzero(flow > _NEGLIGIBLE)[0]:
        arc = batch.kept[position]
        key = (
            nodes[batch.graph.arcs.tail[arc]],
            nodes[batch.graph.arcs.head[arc]],
            batch.graph.source[arc].id,
        )
        used[key] = used.get(key, 0.0) + float(flow[position])
    return used


def find_cycle(batch: Batch, flow: Array) -> tuple[Node, Node] | None:
    """The token pair with the least flow on some cycle of the plan, or None if it is acyclic."""
    drawn = _pair_flows(batch, flow)
    cycle = _cycle(drawn)
    return None if cycle is None else _weakest(drawn, cycle)


def _cycle(drawn: nx.DiGraph) -> list[tuple[Node, Node]] | None:
    """Some cycle. Whether there is one is the quicker question, and mostly there is none."""
    if nx.is_directed_acyclic_graph(drawn):
        return None
    return [(tail, head) for tail, head, *_ in nx.find_cycle(drawn)]


def backward_links(batch: Batch, flow: Array) -> set[tuple[Node, Node]]:
    """The token pairs that run against the plan once its cycles are peeled off.

    Each cycle loses its least flow on every link (all flows are in the same worth); what is left
    has a topological order, and every pair against that order is returned, used or not.
    """
    drawn = _pair_flows(batch, flow)
    while (cycle := _cycle(drawn)) is not None:
        weakest = _weakest(drawn, cycle)
        least = drawn.edges[weakest]["flow"]
        for tail, head in cycle:
            drawn.edges[tail, head]["flow"] -= least
            if (tail, head) == weakest or drawn.edges[tail, head]["flow"] <= 0.0:
                drawn.remove_edge(tail, head)
    ordered = list(nx.lexicographical_topological_sort(drawn))
    nodes, arcs = batch.graph.nodes, batch.problem.arcs
    rank = np.full(len(nodes), len(ordered))
    rank[[batch.graph.index[node] for node in ordered]] = np.arange(len(ordered))
    before = rank[arcs.tail]
    backward = (before < len(ordered)) & (rank[arcs.head] <= before)
    ends = np.unique(np.stack([arcs.tail[backward], arcs.head[backward]]), axis=1)
    return {(nodes[tail], nodes[head]) for tail, head in ends.T.tolist()}


def _pair_flows(batch: Batch, flow: Array) -> nx.DiGraph:
    drawn = nx.DiGraph()
    for (tail, head, _), amount in used_edges(batch, flow).items():
        before = drawn.get_edge_data(tail, head, {"flow": 0.0})["flow"]
        drawn.add_edge(tail, head, flow=before + amount)
    return drawn


def _weakest(drawn: nx.DiGraph, cycle: list[tuple[Node, Node]]) -> tuple[Node, Node]:
    return min(cycle, key=lambda edge: (drawn.edges[edge]["flow"], edge))


def plan_route(batch: Batch, plan: Plan, sharing: Collection[int]) -> Route:
    """Proportions per node, as integers of 62 bits. The plan must be acyclic.

    ``sharing`` are the orders that are paid in proportion to what arrives. What others buy is an
    amount: :func:`replay` sets it aside.
    """
    used = used_edges(batch, plan.flow)
    wanted = _wanted(batch, plan.flow)
    sources = {source.id: source for source in batch.graph.source}
    drawn = nx.DiGraph()
    drawn.add_nodes_from(batch.graph.nodes)
    drawn.add_edges_from((tail, head) for tail, head, _ in used)
    paid: dict[Node, float] = {}
    for i in sharing:
        node = buy_node(batch.intents[i])
        paid[node] = paid.get(node, 0.0) + float(plan.bought[i])
    edges: dict[Node, tuple[Edge, ...]] = {}
    kept: dict[Node, int] = {}
    for n, node in enumerate(batch.graph.nodes):
        out = sorted((key[2], key[1], amount) for key, amount in used.items() if key[0] == node)
        total = sum(amount for _, _, amount in out) + paid.get(node, 0.0)
        if not out or total <= 0.0:
            continue
        unit = float(batch.unit[n])
        found = [
            Edge(sources[name], head, 0, sent(amount, unit))
            if trades_in_lots(sources[name])
            else Edge(
                sources[name], head, int(amount / total * _WEIGHT), None, wanted.get((name, head))
            )
            for name, head, amount in out
        ]
        # Whole-lot books first: what they cannot take goes on to the pools after them.
        edges[node] = tuple(
            sorted(found, key=lambda edge: (not trades_in_lots(edge.source), edge.source.id))
        )
        kept[node] = int(paid.get(node, 0.0) / total * _WEIGHT)
    order = tuple(nx.lexicographical_topological_sort(drawn))
    return Route(order, edges, kept)


def _wanted(batch: Batch, flow: Array) -> dict[tuple[str, Node], int]:
    """What each pool of several coins pays out at each of its heads, if it uses several pairs.

    A plan on whole curves knows only a pool's net trade. Pairs one after another would not pay it
    in these proportions if each took a fixed part of the input.
    """
    graph, found = batch.graph, dict[tuple[str, Node], int]()
    for pool in batch.problem.joints if batch.problem.guess is not None else ():
        sent_in = flow[pool.pairs]
        if np.count_nonzero(sent_in > _NEGLIGIBLE) < 2:
            continue
        paid, asked = np.zeros((2, len(pool.token)))
        np.add.at(paid, pool.coin_in, sent_in)
        np.add.at(asked, pool.coin_out, sent_in)
        t = payout_scale(pool.reserve, pool.weight, pool.excess, paid * pool.into, asked)
        name = graph.source[batch.kept[pool.pairs[0]]].id
        for c in np.nonzero(asked)[0]:
            node = int(pool.token[c])
            amount = t * float(asked[c]) * float(pool.out[c]) * float(batch.unit[node])
            found[name, graph.nodes[node]] = int(amount)
    return found


def replay(
    route: Route, supply: Mapping[Node, int], aside: Mapping[Node, int], extra: Mapping[Node, int]
) -> Outcome:
    """Send the supplies through the route in exact integers; ``aside`` stays at its node.

    ``extra`` is what supplies have beyond the plan: all of it is sent on, and so is what it brings.
    """
    balance, beyond = dict(supply), dict(extra)
    pools: dict[str, Pool] = {}
    legs: list[Leg] = []
    uses: list[InventoryUse] = []
    spent: dict[TokenId, int] = {}
    paid_out: dict[tuple[str, Node], int] = {}
    for node in route.order:
        edges = route.edges.get(node, ())
        reserved = min(aside.get(node, 0), balance.get(node, 0))
        available = balance.get(node, 0) - reserved
        if not edges or available <= 0:
            continue
        more = min(beyond.get(node, 0), available)
        planned = _planned(edges, route.kept[node], available, more)
        carried, sent_on = 0, max(1, sum(planned))
        for k, (edge, share) in enumerate(zip(edges, planned, strict=True)):
            amount = share + carried
            if isinstance(edge.source, Inventory):
                taken, brought = _use_inventory(edge.source, amount, spent, uses)
            else:
                pool = pools.get(edge.source.id, edge.source)
                step = step_of(pool, node.token, edge.head.token, amount, Exact.IN)
                follows = k + 1 < len(edges) and edges[k + 1].source is edge.source
                if edge.wanted is not None and follows:
                    left = edge.wanted - paid_out.get((pool.id, edge.head), 0)
                    step = _no_more(pool, node, edge.head, step, left)
                taken, brought = step.amount_in, step.amount_out
                if edge.wanted is not None:
                    key = pool.id, edge.head
                    paid_out[key] = paid_out.get(key, 0) + brought
                if taken:
                    pools[pool.id] = step.next_pool
                    legs.append(Leg(pool.id, node.token, edge.head.token, taken, brought, step.gas))
            carried = amount - taken
            available -= taken
            balance[edge.head] = balance.get(edge.head, 0) + brought
            beyond[edge.head] = beyond.get(edge.head, 0) + brought * more // sent_on
        balance[node] = available + reserved
    return Outcome(tuple(legs), tuple(uses), balance)


def _no_more(pool: Pool, tail: Node, head: Node, step: Step, left: int) -> Step:
    """The step, or a smaller one that pays out no more than ``left``, but for a trifle."""
    if step.amount_out - left <= left // _TRIFLE:
        return step
    if left <= 0:
        return step_of(pool, tail.token, head.token, 0, Exact.IN)
    less = step_of(pool, tail.token, head.token, left, Exact.OUT).amount_in
    if not 0 < less < step.amount_in:
        return step
    return step_of(pool, tail.token, head.token, less, Exact.IN)


def _planned(edges: Sequence[Edge], kept: int, available: int, extra: int) -> list[int]:
    """What each edge is sent: amounts first, then shares of the rest; all of it if none is kept.

    A unit is much of a small trade: shares are rounded up, but for the largest, which has what is
    left. Of ``extra`` nothing is kept.
    """
    planned = []
    left = available
    for edge in edges:
        planned.append(0 if edge.amount is None else min(edge.amount, left))
        left -= planned[-1]
    weights = {k: edge.weight for k, edge in enumerate(edges) if edge.amount is None}
    if not weights:
        planned[-1] += left if kept == 0 else 0
        return planned
    sent_on = sum(weights.values())
    whole = sent_on + kept
    more = min(extra, left) if sent_on else 0
    rest = left - more
    largest = max(weights, key=lambda k: (weights[k], -k))
    kept_is_largest = kept > weights[largest]
    if not kept_is_largest and kept > 0:
        left -= min(left, -(-rest * kept // whole))
    for k, weight in weights.items():
        if k != largest or kept_is_largest:
            share = -(-rest * weight // whole) - (-more * weight // max(sent_on, 1))
            planned[k] = min(share, left)
            left -= planned[k]
    if not kept_is_largest:
        planned[largest] = left
    return planned


def sent(amount: float, unit: float) -> int:
    """A planned amount in base units, rounded up by more than floats lose."""
    return int(amount * unit * (1.0 + _LOST)) + 1


def _exact_output_cost(route: Route, sell: Node, buy: Node, amount: int) -> int | None:
    """The input of ``amount`` at the end of a route, hop by hop from the end; None if it splits."""
    path: list[tuple[Node, Edge]] = []
    node = sell
    while node != buy:
        edges = route.edges.get(node, ())
        if len(edges) != 1 or isinstance(edges[0].source, Inventory) or route.kept[node]:
            return None
        path.append((node, edges[0]))
        node = edges[0].head
    if len({edge.source.id for _, edge in path}) != len(path):
        return None
    for tail, edge in reversed(path):
        if isinstance(edge.source, Inventory):
            return None
        step = step_of(edge.source, tail.token, edge.head.token, amount, Exact.OUT)
        if step.amount_out < amount:
            return None
        amount = step.amount_in
    return amount


def _use_inventory(
    own: Inventory, amount: int, spent: dict[TokenId, int], uses: list[InventoryUse]
) -> tuple[int, int]:
    brought = min(own.output(amount), own.capacity - spent.get(own.token_out, 0))
    if brought <= 0:
        return 0, 0
    spent[own.token_out] = spent.get(own.token_out, 0) + brought
    uses.append(InventoryUse(own.token_in, own.token_out, amount, brought))
    return amount, brought


class _Group(Struct, frozen=True):
    """The orders of one directed pair, as positions in the batch."""

    sell: Node
    buy: Node
    exact_in: tuple[int, ...]
    exact_out: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.sell.token}>{self.buy.token}"

    @property
    def scale(self) -> int:
        """Parts of a unit in which a shared rate is stated: a small order must not round it."""
        return 1 if len(self.exact_in) + len(self.exact_out) == 1 else 2**64


def price(
    batch: Batch, plan: Plan, active: Sequence[bool], gas_charge: float = 0.0
) -> Priced | Infeasible:
    """Integers for a plan: replay, then one rate per pair out of what arrived.

    ``gas_charge`` (in the numeraire) is the bundle's venue gas; it lowers the payouts in
    proportion to their worth, never below a limit. Infeasible names what to leave out, several
    digests apart by spaces where several limits are broken.
    """
    pricer = _Pricer(batch, plan, active, gas_charge)
    return pricer.run()


class _Pricer:
    """One pricing of one plan.

    ``_paid_in[g]`` is what group g's exact-out orders pay together, in the parts of its scale.
    """

    def __init__(self, batch: Batch, plan: Plan, active: Sequence[bool], gas_charge: float) -> None:
        self._batch = batch
        self._plan = plan
        self._gas_charge = gas_charge
        self._amounts = [self._amount(i) if active[i] else 0 for i in range(len(active))]
        self._groups = self._group()
        sharing = [i for group in self._groups if not group.exact_out for i in group.exact_in]
        self._route = plan_route(batch, plan, sharing)
        self._paid_in: dict[str, int] = {}
        self._missing: tuple[tuple[TokenId, int], ...] = ()

    def run(self) -> Priced | Infeasible:
        failed = self._search_paid_in()
        if failed is not None:
            return failed
        outcome = self._trimmed()
        left = dict(outcome.residual)
        rates: dict[str, tuple[int, int]] = {}
        for group in self._groups:
            if group.exact_out:
                rates[group.name] = self._rate_of(group)
                left[group.buy] = left.get(group.buy, 0) - self._need(group)
        self._share_rest(left, rates)
        fills: list[Fill] = []
        broken: dict[str, float] = {}
        for group in self._groups:
            for i in (*group.exact_in, *group.exact_out):
                fill = self._fill(i, rates[group.name])
                if not self._respects(i, fill):
                    broken[self._batch.intents[i].digest] = self._short(i, fill)
                    continue
                fills.append(fill)
                if i in group.exact_in and not group.exact_out:
                    left[group.buy] -= fill.buy + fill.fee
        if broken:
            return Infeasible("limit", " ".join(broken), tuple(broken.values()))
        for node, amount in left.items():
            if amount < 0:
                return Infeasible("short", self._worst(node))
        for i, amount in enumerate(self._amounts):
            if amount and self._plan.bought[i] > 0.0 and not self._in_fills(i, fills):
                return Infeasible("limit", self._batch.intents[i].digest)
        clearing = {name: rate for name, rate in sorted(rates.items()) if rate[0] > 0}
        dust = {node: amount for node, amount in sorted(left.items()) if amount}
        return Priced(tuple(fills), outcome, clearing, dust, self._missing)

    def _in_fills(self, i: int, fills: list[Fill]) -> bool:
        return any(fill.digest == self._batch.intents[i].digest for fill in fills)

    def _amount(self, i: int) -> int:
        """The filled amount of order i in base units: sold, or bought for exact-out."""
        intent, order = self._batch.intents[i], self._batch.problem.orders[i]
        value = self._plan.bought[i] if order.exact_out else self._plan.sold[i]
        share = float(value) / order.size
        if share > 1.0 - 1e-9 or (share > 1e-9 and not intent.swap.partial_fill):
            return intent.remaining
        if order.exact_out:
            share *= 1.0 - _SHAVED  # what arrives may be a unit less than what floats say
        return int(share * intent.remaining) if share > 1e-9 else 0

    def _group(self) -> list[_Group]:
        members: dict[tuple[Node, Node], list[int]] = {}
        for i, intent in enumerate(self._batch.intents):
            if self._amounts[i]:
                members.setdefault((sell_node(intent), buy_node(intent)), []).append(i)
        orders = self._batch.problem.orders
        return [
            _Group(
                sell,
                buy,
                tuple(i for i in group if not orders[i].exact_out),
                tuple(i for i in group if orders[i].exact_out),
            )
            for (sell, buy), group in sorted(members.items())
        ]

    def _out_total(self, group: _Group) -> int:
        return sum(self._amounts[i] + self._batch.fees[i] for i in group.exact_out)

    def _rate_of(self, group: _Group) -> tuple[int, int]:
        return self._out_total(group) * group.scale, self._paid_in[group.name]

    def _sell(self, i: int, group: _Group) -> int:
        if i in group.exact_in:
            return self._amounts[i]
        buy, sell = self._rate_of(group)
        return -(-(self._amounts[i] + self._batch.fees[i]) * sell // buy)

    def _need(self, group: _Group) -> int:
        """What a group with exact-out orders takes from its buy node."""
        buy, sell = self._rate_of(group)
        return self._out_total(group) + sum(self._amounts[i] * buy // sell for i in group.exact_in)

    def _replay(self) -> Outcome:
        supply: dict[Node, int] = {}
        aside: dict[Node, int] = {}
        extra: dict[Node, int] = {}
        for group in self._groups:
            total = sum(self._sell(i, group) for i in (*group.exact_in, *group.exact_out))
            supply[group.sell] = supply.get(group.sell, 0) + total
            if group.exact_out:
                aside[group.buy] = aside.get(group.buy, 0) + self._need(group)
                more = (self._paid_in[group.name] - self._planned(group)) // group.scale
                extra[group.sell] = extra.get(group.sell, 0) + max(more, 0)
        return replay(self._route, supply, aside, extra)

    def _trimmed(self) -> Outcome:
        """Replay; what whole lots or capacities leave of a sold token is not sold at all."""
        outcome = self._replay()
        paid = {group.buy for group in self._groups}
        for group in self._groups:
            unused = 0 if group.sell in paid else outcome.residual.get(group.sell, 0)
            for i in sorted(group.exact_in, key=lambda i: -self._amounts[i]):
                if unused > 0 and self._batch.intents[i].swap.partial_fill:
                    cut = min(unused, self._amounts[i] - 1)
                    self._amounts[i] -= cut
                    unused -= cut
                    outcome.residual[group.sell] -= cut
        return self._replay()

    def _covered(self) -> bool:
        """Whether the exact-out payouts and every exact-in limit at their nodes are covered."""
        return not self._uncovered()

    def _uncovered(self) -> dict[Node, int]:
        """What is missing of these payouts and limits, by node."""
        outcome = self._replay()
        need: dict[Node, int] = {}
        for group in self._groups:
            if group.exact_out:
                wanted = self._need(group)
            else:
                wanted = sum(
                    min_buy(self._batch.intents[i].swap, self._amounts[i]) + self._batch.fees[i]
                    for i in group.exact_in
                )
            need[group.buy] = need.get(group.buy, 0) + wanted
        missing = {n: amount - outcome.residual.get(n, 0) for n, amount in need.items()}
        return {node: amount for node, amount in missing.items() if amount > 0}

    def _search_paid_in(self) -> Infeasible | None:
        """The least input of the exact-out orders that covers them, in the plan's proportions."""
        groups = [group for group in self._groups if group.exact_out]
        if not groups:
            return None
        highest = {group.name: self._most(group) for group in groups}
        planned = {group.name: self._planned(group) for group in groups}
        for group in groups:
            if highest[group.name] <= 0:
                return Infeasible("limit", self._batch.intents[group.exact_out[0]].digest)

        def set_factor(step: int) -> None:
            for group in groups:
                scaled = planned[group.name] * (2**40 + step) // 2**40 + 1
                self._paid_in[group.name] = max(1, min(scaled, highest[group.name]))

        set_factor(0)
        missing = self._uncovered().items()
        self._missing = tuple((node.token, n) for node, n in sorted(missing))
        step = _least(0, 2**40, self._with(set_factor))
        if step is None:
            digest = self._batch.intents[groups[0].exact_out[0]].digest
            return Infeasible("limit", digest, missing=self._missing)
        set_factor(step)
        # Beside exact-in orders, what an exact-out order saves would be missing in their payouts.
        if any(group.exact_in for group in self._groups) or self._is_beyond_proof():
            return None
        covering = dict(self._paid_in)

        def set_part(part: int) -> None:
            for name, paid in covering.items():
                self._paid_in[name] = max(1, -(-paid * part // 2**_PART_BITS))

        # All in the same proportion: what is saved belongs to nobody in particular.
        part = _least(1, 2**_PART_BITS, self._with(set_part))
        set_part(2**_PART_BITS if part is None else part)
        if len(self._groups) == 1:
            self._ask_as_the_contracts_do(groups[0], highest[groups[0].name])
        return None

    def _ask_as_the_contracts_do(self, group: _Group, highest: int) -> None:
        """On a single path, the input that the contracts' exact-output calls ask for.

        It is above the least input by their rounding; with less, such a call would revert.
        """
        asked = _exact_output_cost(self._route, group.sell, group.buy, self._out_total(group))
        least = self._paid_in[group.name]
        if asked is not None and least < asked <= highest:
            self._paid_in[group.name] = asked
            if not self._covered():
                self._paid_in[group.name] = least

    def _with(self, setter: Callable[[int], None]) -> Callable[[int], bool]:
        def covered(value: int) -> bool:
            setter(value)
            return self._covered()

        return covered

    def _most(self, group: _Group) -> int:
        """The largest input of the exact-out orders that keeps every one of their limits."""
        total = self._out_total(group)
        return min(
            max_sell(self._batch.intents[i].swap, self._amounts[i])
            * group.scale
            * total
            // (self._amounts[i] + self._batch.fees[i])
            for i in group.exact_out
        )

    def _planned(self, group: _Group) -> int:
        """The exact-out orders' input at the rate of the whole group in the plan."""
        unit, index = self._batch.unit, self._batch.graph.index
        members = (*group.exact_in, *group.exact_out)
        sold = sum(float(self._plan.sold[i]) for i in members) * float(unit[index[group.sell]])
        bought = sum(float(self._plan.bought[i]) for i in members) * float(unit[index[group.buy]])
        return max(1, int(self._out_total(group) * group.scale * (sold / bought)))

    def _share_rest(self, left: dict[Node, int], rates: dict[str, tuple[int, int]]) -> None:
        """What is left at a node goes to its exact-in groups, in the plan's proportions.

        None is paid less than its limits and floor, if there is enough, and none above its cap:
        what then is left stays as dust.
        """
        charge = self._charges()
        by_node: dict[Node, list[_Group]] = {}
        for group in self._groups:
            if not group.exact_out:
                by_node.setdefault(group.buy, []).append(group)
        for node, groups in by_node.items():
            weights = [
                max(1, int(sum(float(self._plan.bought[i]) for i in group.exact_in) * _WEIGHT))
                for group in groups
            ]
            limits = [self._least_payout(group) for group in groups]
            most = [self._most_payout(group) for group in groups]
            floors = [
                max(min(self._floor_payout(group), above), limit)
                for group, above, limit in zip(groups, most, limits, strict=True)
            ]
            payouts = _shared_out(left.get(node, 0), weights, (floors, limits), most)
            for group, payout, limit in zip(groups, payouts, limits, strict=True):
                charged = max(0, min(payout - limit, charge.get(group.name, 0)))
                rates[group.name] = (payout - charged, self._sold(group))

    def _sold(self, group: _Group) -> int:
        return sum(self._amounts[i] for i in group.exact_in)

    def _most_payout(self, group: _Group) -> int:
        """What the group's cap allows, rounded down; never below its limits.

        What sampled pools give beyond their samples is in no bound, so it is not paid out either.
        """
        batch, problem = self._batch, self._batch.problem
        order = problem.orders[group.exact_in[0]]
        most = min(problem.cap(i) for i in group.exact_in)
        if self._is_beyond_proof():
            planned = sum(float(self._plan.bought[i]) for i in group.exact_in)
            most = min(most, planned / sum(float(self._plan.sold[i]) for i in group.exact_in))
        per_unit = float(batch.unit[order.buy] / batch.unit[order.sell])
        return max(int(most * per_unit * self._sold(group)), self._least_payout(group))

    def _is_beyond_proof(self) -> bool:
        """Whether pools may give more than the joint program and its bound know of."""
        return bool(self._batch.graph.sampled and self._batch.problem.caps)

    def _least_payout(self, group: _Group) -> int:
        """The smallest payout at which every exact-in order of the group keeps its limit."""
        sold = self._sold(group)
        return max(
            -(
                -(min_buy(self._batch.intents[i].swap, self._amounts[i]) + self._batch.fees[i])
                * sold
                // self._amounts[i]
            )
            for i in group.exact_in
        )

    def _floor_payout(self, group: _Group) -> int:
        """The payout at which the group has its floor beyond its limits, rounded up."""
        owed = [
            floor.amount
            for floor in self._batch.problem.floors
            if group.exact_in[0] in floor.members
        ]
        asked = self._batch.fees
        total = 0
        for i in group.exact_in:
            swap = self._batch.intents[i].swap
            total += asked[i] - (-self._amounts[i] * swap.buy_amount // swap.sell_amount)
        unit = float(self._batch.unit[self._batch.graph.index[group.buy]])
        return total + int(max(owed, default=0.0) * unit * (1.0 + _LOST)) + 1

    def _charges(self) -> dict[str, int]:
        """Venue gas per exact-in group in its buy token, rounded up."""
        if self._gas_charge <= 0.0:
            return {}
        worth = {
            group.name: sum(float(self._plan.bought[i]) for i in group.exact_in)
            for group in self._groups
        }
        total = sum(worth.values()) or 1.0
        return {
            group.name: int(
                np.ceil(
                    self._gas_charge
                    * worth[group.name]
                    / total
                    / self._batch.scale
                    * self._batch.unit[self._batch.graph.index[group.buy]]
                )
            )
            for group in self._groups
        }

    def _fill(self, i: int, rate: tuple[int, int]) -> Fill:
        intent, fee = self._batch.intents[i], self._batch.fees[i]
        buy, sell = rate
        if intent.swap.kind is Kind.EXACT_IN:
            gross = self._amounts[i] * buy // sell
            return Fill(intent.digest, self._amounts[i], gross - fee, fee)
        paid = -(-(self._amounts[i] + fee) * sell // buy)
        return Fill(intent.digest, paid, self._amounts[i], fee)

    def _respects(self, i: int, fill: Fill) -> bool:
        swap = self._batch.intents[i].swap
        if swap.kind is Kind.EXACT_IN:
            return fill.buy > 0 and fill.buy >= min_buy(swap, fill.sell)
        return 0 < fill.sell <= max_sell(swap, fill.buy)

    def _short(self, i: int, fill: Fill) -> float:
        """By which part of its limit a fill is short."""
        swap = self._batch.intents[i].swap
        if swap.kind is Kind.EXACT_IN:
            return 1.0 - fill.buy / min_buy(swap, fill.sell)
        return 1.0 - max_sell(swap, fill.buy) / max(fill.sell, 1)

    def _worst(self, node: Node) -> str:
        """The order at a node with the highest limit: the one to leave out."""
        candidates = [
            (self._batch.problem.orders[i].limit, intent.digest)
            for i, intent in enumerate(self._batch.intents)
            if self._amounts[i] and buy_node(intent) == node
        ]
        return max(candidates, default=(0.0, ""))[1]


def _shared_out(
    available: int, weights: Sequence[int], least: Sequence[Sequence[int]], most: Sequence[int]
) -> list[int]:
    """Amounts in proportion to weights, as far as some need not have more or may not have as much.

    ``least`` are what they need, the most demanding first; the first that is affordable counts.
    """
    whole = sum(weights)
    low = next((low for low in least if sum(low) <= available), [0] * len(weights))

    def at(level: int) -> list[int]:
        return [
            max(below, min(above, level * weight // whole))
            for below, above, weight in zip(low, most, weights, strict=True)
        ]

    if sum(at(available)) == sum(available * weight // whole for weight in weights):
        return at(available)
    if sum(most) <= available:
        return list(most)
    above = _least(0, max(1, available) * whole, lambda level: sum(at(level)) > available)
    return at(max(0, above - 1)) if above is not None else at(available)


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The least value in [low, high] for which a monotone condition holds."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high

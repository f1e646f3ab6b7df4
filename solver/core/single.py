"""A batch of one order: routed through the whole graph, settled and certified like any other.

The router finds the route and the prices that bound it; only the pools of the route enter the
batch, whose integers are then priced and checked in the same way as those of a joint program.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import graph, pricing, proof
from solver.core.graph import Node
from solver.core.kernels import Array
from solver.core.pricing import Priced
from solver.core.problem import MOST_RATE, Batch, Plan, buy_node, normalise, sell_node
from solver.core.routing.arbitrage import Yield, exhibit
from solver.core.routing.charges import net_of_gas
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.execution import execute
from solver.core.routing.network import Network
from solver.core.routing.orders import buy_exactly, sell_down_to
from solver.core.routing.router import ARBITRAGE, Route, fair_prices, find_route
from solver.core.types import (
    BPS,
    Certificate,
    Infeasible,
    Intent,
    Kind,
    Leaf,
    OpenReason,
    Solution,
    TokenId,
)
from solver.core.venue import Snapshot
from solver.core.verify import verify

_TOLERANCE = 1e-6
_BINDING = {"partly_filled": "limit", "limit_out_of_reach": "limit", "no_route": "venues"}
_LEAST_PRICE = 1e-100  # of the sold token: what is worth less buys nothing
_SHOW_S = 3e-5  # per arc of the network: about what it takes to exhibit its arbitrage
_OUTWARD = 1e-12  # of the order, for rounding in sums of non-negative terms
_DEPTH = 1e-9  # of the order, for rounding of prices at which pools far deeper than it gain nothing


class Ask(Struct, frozen=True):
    """The order in numeraire: Δ (exact-in) or Y with its flat fee, and the limit as a rate."""

    source: int
    target: int
    size: float
    most_input: float
    limit: float


class Found(Struct, frozen=True):
    """A route for an order, what it really sells and buys, and its bounds in numeraire.

    ``surplus_bound`` bounds the surplus of every fill; ``whole_bound`` that of filling it whole.
    """

    route: Route
    proof: Route
    sold: float
    bought: float
    surplus_bound: float
    whole_bound: float
    arbitrage: float
    scale: float


def routable(intent: Intent, max_impact_bps: int, has_rows: bool) -> bool:
    """Whether one order alone needs nothing that only the joint program has."""
    return not (intent.swap.is_cross_chain or has_rows or max_impact_bps < BPS)


def is_listed(intent: Intent, network: Network) -> bool:
    """Whether venues trade both tokens of an order."""
    return intent.swap.sell in network.index and intent.swap.buy in network.index


def solve_single(
    snapshot: Snapshot,
    intent: Intent,
    fee: int,
    gas_value: float,
    prices: Mapping[TokenId, float],
    network: Network,
    clock: Clock = UNLIMITED,
) -> Solution:
    """The order's fill, or the reason why it stays open, with its certificate."""
    ask = _ask(intent, fee, prices, network) if is_listed(intent, network) else None
    if ask is None:
        return _open(snapshot, intent, "no_route", "no venue trades one of the two tokens")
    found = _find(intent, ask, gas_value, network, clock)
    answer = _settle(snapshot, intent, fee, gas_value, prices, network, found)
    priced = None if isinstance(answer, Infeasible) else answer
    shown = _shown(intent, ask, network, found, clock)
    proven = _certificate(snapshot, intent, fee, ask, prices, network, found, priced, shown)
    reasons = _reasons(intent, ask, found, priced, answer)
    if priced is None:
        return Solution((), (), (), {}, {}, reasons, proven, "empty")
    dust = {proof.node_name(node): amount for node, amount in priced.dust.items()}
    return Solution(
        priced.fills, priced.outcome.legs, priced.outcome.inventory, priced.clearing, dust,
        reasons, proven, "route",
    )  # fmt: skip


def _ask(intent: Intent, fee: int, prices: Mapping[TokenId, float], network: Network) -> Ask:
    swap = intent.swap
    source, target = network.index[swap.sell], network.index[swap.buy]
    share = intent.remaining / swap.total
    sold = swap.sell_amount * share * prices[swap.sell]
    bought = (swap.buy_amount * share + fee) * prices[swap.buy]
    size = sold if swap.kind is Kind.EXACT_IN else bought
    return Ask(source, target, size, sold, bought / sold)


def _find(intent: Intent, ask: Ask, gas_value: float, network: Network, clock: Clock) -> Found:
    """The route for the order: whole, or as far as it pays where it may be partial."""
    ends = network, ask.source, ask.target
    if intent.swap.kind is Kind.EXACT_OUT:
        if intent.swap.partial_fill:
            sale, _ = sell_down_to(*ends, ask.most_input, ask.limit, _TOLERANCE, None, clock)
            bought = _bought(sale.route, ask, ask.most_input)
            if bought <= ask.size:
                return _purchase(intent, ask, sale.route, sale.route, bought)
        purchase, _ = buy_exactly(*ends, ask.size, ask.most_input, _TOLERANCE, None, clock)
        bought = ask.size if purchase.reached else 0.0
        return _purchase(intent, ask, purchase.route, purchase.proof, bought)
    if intent.swap.partial_fill:
        sale, _ = sell_down_to(*ends, ask.size, ask.limit, _TOLERANCE, None, clock)
        route, bound = sale.route, sale.surplus_bound
        bought = _bought(route, ask, ask.size)
        return Found(route, route, route.amount, bought, bound, bound, route.unearned, 1.0)
    route = _whole_sale(ask, intent.remaining, gas_value, network, clock)
    bound = route.bound - ask.limit * ask.size
    unearned = route.unearned
    return Found(route, route, ask.size, route.value, max(0.0, bound), bound, unearned, 1.0)


def _whole_sale(ask: Ask, amount: int, gas_value: float, network: Network, clock: Clock) -> Route:
    """What leaves most after gas when executed; without gas, or where none pays, the plain route.

    The bound is that of the plain route: gas and whole lots only lower what can be had.
    """
    ends = network, ask.source, ask.target
    if gas_value <= 0.0:
        route, warm = find_route(*ends, ask.size, _TOLERANCE, None, clock)
    else:
        found = net_of_gas(*ends, ask.size, gas_value, clock=clock)
        route, warm = found.route if len(found.arc) else found.blind, found.warm
    if len(route.arc) == 0:
        return route
    return execute(network, route, amount, gas_value, warm, clock).route


def _shown(intent: Intent, ask: Ask, network: Network, found: Found, clock: Clock) -> Yield:
    """What pools give without an order in the token in which its surplus counts, if time allows."""
    token = ask.target if intent.swap.kind is Kind.EXACT_IN else ask.source
    if found.route.note != ARBITRAGE or not clock.allows(_SHOW_S * network.arc_count):
        return Yield(token)
    return exhibit(network, token)


def _bought(route: Route, ask: Ask, most: float) -> float:
    """What a partial sale buys: its value without the worth of what it keeps."""
    return route.value - ask.limit * (most - route.amount)


def _purchase(intent: Intent, ask: Ask, route: Route, evidence: Route, bought: float) -> Found:
    """Surplus of an exact-output order in the sold token, with prices scaled so that ν_A = 1.

    Where ν_A is 0 (no way leads on from A), all that is proven is that the input is not negative.
    """
    paid = float(evidence.nu[ask.source])
    scale = 1.0 / paid if paid > _LEAST_PRICE else 1.0
    unearned = evidence.unearned
    marginal = ask.size * (1.0 / ask.limit - scale) if paid > _LEAST_PRICE else np.inf
    whole = min(ask.size / ask.limit, marginal + unearned * scale)
    bound = max(0.0, whole)
    if intent.swap.partial_fill:
        bound = min(ask.size / ask.limit, max(0.0, marginal) + unearned * scale)
        whole = bound
    return Found(route, evidence, route.amount, bought, bound, whole, unearned, scale)


def _settle(
    snapshot: Snapshot,
    intent: Intent,
    fee: int,
    gas_value: float,
    prices: Mapping[TokenId, float],
    network: Network,
    found: Found,
) -> Priced | Infeasible:
    """Integers for the route, or why there are none."""
    if len(found.route.arc) == 0:
        return Infeasible("no_route", "no venue or order connects the two tokens")
    if found.sold <= 0.0 or found.bought <= 0.0:
        return Infeasible("limit_out_of_reach", "")
    batch, plan = _as_batch(snapshot, intent, fee, prices, network, found)
    used = {pool.id: pool for pool in batch.graph.source}
    gas = sum(float(network.pool_gas[p]) for p in np.unique(network.pool[found.route.arc]))
    priced = pricing.price(batch, plan, [True], gas * gas_value)
    if isinstance(priced, Infeasible):
        return priced
    if not priced.fills:
        return Infeasible("limit_out_of_reach", "")
    pools = {pool.id: pool for pool in snapshot.pools if pool.id in used}
    broken = verify(
        [intent], pools, [], priced.fills, priced.outcome.legs, priced.outcome.inventory,
        priced.clearing,
    )  # fmt: skip
    return broken or priced


def _as_batch(
    snapshot: Snapshot,
    intent: Intent,
    fee: int,
    prices: Mapping[TokenId, float],
    network: Network,
    found: Found,
) -> tuple[Batch, Plan]:
    """The pools of the route as a batch, and the route as its plan."""
    route = found.route
    used: dict[tuple[str, TokenId, TokenId], float] = {}
    for arc, amount in zip(route.arc, route.used, strict=True):
        pool = network.pools[network.pool[arc]]
        ends = network.tokens[network.tail[arc]], network.tokens[network.head[arc]]
        used[pool.id, *ends] = used.get((pool.id, *ends), 0.0) + float(amount)
    pools = tuple(network.pools[p] for p in np.unique(network.pool[route.arc]))
    wanted = [sell_node(intent), buy_node(intent)]
    built = graph.build(replace(snapshot, pools=pools), wanted)
    batch = normalise(built, [intent], {intent.digest: fee}, prices)
    arcs = batch.problem.arcs
    flow = np.zeros(len(arcs))
    for k, place in enumerate(batch.kept):
        ends = (
            built.nodes[built.arcs.tail[place]].token,
            built.nodes[built.arcs.head[place]].token,
        )
        key = (built.source[place].id, *ends)
        taken = min(used.get(key, 0.0) / batch.scale, float(arcs.capacity[k]))
        flow[k] = taken
        used[key] = used.get(key, 0.0) - taken * batch.scale
    sold, bought = found.sold / batch.scale, found.bought / batch.scale
    nu = _local_prices(batch, network, found)
    plan = Plan(flow, np.array([sold]), np.array([bought]), nu, np.zeros(0), bought)
    return batch, plan


def _local_prices(batch: Batch, network: Network, found: Found) -> Array:
    nu = np.zeros(len(batch.graph.nodes))
    for n, node in enumerate(batch.graph.nodes):
        if node.token in network.index:
            nu[n] = found.proof.nu[network.index[node.token]] * found.scale
    return nu


def _certificate(
    snapshot: Snapshot,
    intent: Intent,
    fee: int,
    ask: Ask,
    prices: Mapping[TokenId, float],
    network: Network,
    found: Found,
    priced: Priced | None,
    shown: Yield,
) -> Certificate:
    """The router's prices as the proof of the whole graph."""
    fills = priced.fills if priced else ()
    value = 0.0
    if priced:
        batch, _ = _as_batch(snapshot, intent, fee, prices, network, found)
        value = proof.surplus(batch, fills) * batch.scale
    leaves = _leaves(intent, ask, prices, network, found)
    worst = max(leaves, key=lambda leaf: float(leaf.bound))
    per_unit = prices[intent.swap.sell] / prices[intent.swap.buy]
    upper = float(worst.bound)
    volume = sum(prices[intent.swap.buy] * (fill.buy + fill.fee) for fill in fills)
    gap = max(0.0, upper - value)
    net_gap = max(0.0, gap - shown.worth)
    assumptions = [proof.ONLY_LOWER, proof.GENEROUS_CAPS]
    if len(prices) > len(snapshot.prices):
        assumptions.append(proof.DERIVED_PRICES)
    if network.assumed:
        assumptions.append(proof.SAMPLED + ", ".join(sorted(network.assumed)))
    if len(network.joint.ann):
        assumptions.append("a pool of three or more coins trades within its joint trading set")
    if found.route.note:
        assumptions.append(found.route.note)
    return Certificate(
        objective=proof.OBJECTIVE,
        normalisation="numeraire units at the snapshot's reference prices",
        value=proof.decimal(value),
        bound=proof.decimal(upper),
        arb_floor=proof.decimal(shown.worth),
        gap=proof.decimal(gap),
        net_gap=proof.decimal(net_gap),
        net_gap_bps=f"{net_gap / volume * BPS:.6f}" if volume > 0 else "0",
        prices=worst.prices,
        multipliers={},
        snapshot_hash=snapshot.hash,
        assumptions=assumptions,
        leaves=leaves,
        caps={intent.digest: proof.decimal(MOST_RATE * max(ask.limit, 1.0) * per_unit)},
        reference={
            str(token): proof.decimal(price)
            for token, price in sorted(prices.items())
            if snapshot.prices.get(token, 0.0) <= 0.0
        },
        arbitrage=[shown.legs] if shown.legs else [],
    )


def _leaves(
    intent: Intent,
    ask: Ask,
    prices: Mapping[TokenId, float],
    network: Network,
    found: Found,
) -> list[Leaf]:
    """A partial order in one case; any other order whole, and out.

    Out, prices that nothing can beat prove that nothing is gained, unless there is arbitrage.
    """
    nu = found.proof.nu * found.scale
    if intent.swap.kind is Kind.EXACT_OUT:
        nu[ask.source] = 1.0
        # That an input is not negative, the router's prices cannot prove; zero prices do.
        if found.whole_bound >= ask.size / ask.limit * (1.0 - 1e-12):
            nu[:] = 0.0
    room = _OUTWARD * (ask.size + abs(found.whole_bound))
    named = _named(nu, prices, network)
    if intent.swap.partial_fill:
        return [Leaf([], [], proof.decimal(found.surplus_bound + room), named, {})]
    fair = fair_prices(network, ask.target)
    idle = _named(nu if fair is None else fair, prices, network)
    unearned = found.arbitrage * found.scale if fair is None else _DEPTH * ask.size
    return [
        Leaf([intent.digest], [], proof.decimal(found.whole_bound + room), named, {}),
        Leaf([], [intent.digest], proof.decimal(unearned + room), idle, {}),
    ]


def _named(nu: Array, prices: Mapping[TokenId, float], network: Network) -> dict[str, str]:
    """ν per base unit by the name of the node."""
    return {
        proof.node_name(Node(token)): proof.decimal(float(worth) * prices[token])
        for worth, token in zip(nu, network.tokens, strict=True)
    }


def _reasons(
    intent: Intent, ask: Ask, found: Found, priced: Priced | None, answer: Priced | Infeasible
) -> tuple[OpenReason, ...]:
    swap = intent.swap
    filled = 0
    if priced:
        fill = priced.fills[0]
        filled = fill.sell if swap.kind is Kind.EXACT_IN else fill.buy
    if filled >= intent.remaining:
        return ()
    per_unit = swap.buy_amount / swap.sell_amount / ask.limit
    best = found.route.value / found.route.amount if found.route.amount > 0.0 else 0.0
    if found.route.amount > 0.0 and intent.swap.partial_fill and not found.bought > 0.0:
        best = float(found.route.nu[ask.source])
    code, detail = _explain(ask, found, priced, answer, best)
    limit = swap.buy_amount / swap.sell_amount
    rates = f"{best * per_unit:.12g}", f"{limit:.12g}"
    binding = _BINDING.get(code, code)
    return (OpenReason(intent.digest, code, detail, *rates, binding),)


def _explain(
    ask: Ask, found: Found, priced: Priced | None, answer: Priced | Infeasible, best: float
) -> tuple[str, str]:
    if priced:
        return "partly_filled", "the rest would cost more than the limit allows"
    if len(found.route.arc) == 0 and found.route.note == "no_route":
        return "no_route", "no venue or order connects the two tokens"
    if found.surplus_bound <= 1e-9 * ask.size or best < ask.limit:
        factor = ask.limit / best if best > 0.0 else np.inf
        return "limit_out_of_reach", f"the limit asks {factor:.6g} times the best reachable rate"
    assert isinstance(answer, Infeasible)
    return "left_out", f"did not survive the exact check ({answer.code})"


def _open(snapshot: Snapshot, intent: Intent, code: str, detail: str) -> Solution:
    limit = intent.swap.buy_amount / intent.swap.sell_amount
    reason = OpenReason(intent.digest, code, detail, "0", f"{limit:.12g}")
    return Solution((), (), (), {}, {}, (reason,), proof.nothing(snapshot.hash), "empty")

"""The exact check of a proposal; knows nothing of how it was found.

A solution passes only if, in integers: every leg is what its pool really does in this order, no
balance is ever overdrawn, every payout is covered, every signed limit, fee cap and fill rule
holds, all fills of a directed pair have one rate, and the solver's inventory suffices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solver.core.graph import ESCROW, Inventory, Node
from solver.core.intent import max_fee, respects_limit
from solver.core.problem import buy_node, sell_node
from solver.core.types import Exact, Fill, Infeasible, Intent, InventoryUse, Kind, Leg
from solver.core.venue import Pool, step_of


def verify(
    intents: Sequence[Intent],
    pools: Mapping[str, Pool],
    inventories: Sequence[Inventory],
    fills: Sequence[Fill],
    legs: Sequence[Leg],
    uses: Sequence[InventoryUse],
    clearing: Mapping[str, tuple[int, int]],
) -> Infeasible | None:
    """None when everything holds, else the first violation."""
    known = {intent.digest: intent for intent in intents}
    if len({fill.digest for fill in fills}) != len(fills):
        return Infeasible("duplicate_fill", "an intent is filled twice in one batch")
    balance: dict[Node, int] = {}
    for fill in fills:
        intent = known.get(fill.digest)
        if intent is None:
            return Infeasible("unknown_intent", fill.digest)
        broken = _check_fill(intent, fill, clearing)
        if broken is not None:
            return broken
        node = sell_node(intent)
        balance[node] = balance.get(node, 0) + fill.sell
    moved = _move_inventory(balance, inventories, uses) or _replay(balance, pools, legs)
    if moved is not None:
        return moved
    for fill in fills:
        node = buy_node(known[fill.digest])
        balance[node] = balance.get(node, 0) - fill.buy - fill.fee
        if balance[node] < 0:
            return Infeasible("short", f"{node.token} lacks {-balance[node]}")
    return None


def _check_fill(
    intent: Intent, fill: Fill, clearing: Mapping[str, tuple[int, int]]
) -> Infeasible | None:
    swap = intent.swap
    exact_in = swap.kind is Kind.EXACT_IN
    amount = fill.sell if exact_in else fill.buy
    if fill.sell <= 0 or fill.buy <= 0 or fill.fee < 0:
        return Infeasible("nothing_filled", fill.digest)
    if amount > intent.remaining:
        return Infeasible("overfilled", fill.digest)
    if not swap.partial_fill and amount != swap.total:
        return Infeasible("partial_fill_forbidden", fill.digest)
    if not respects_limit(swap, fill.sell, fill.buy):
        return Infeasible("limit", fill.digest)
    if fill.fee > max_fee(swap, amount):
        return Infeasible("fee_above_cap", fill.digest)
    rate = clearing.get(f"{swap.sell}>{swap.buy}")
    if rate is None:
        return Infeasible("no_rate", fill.digest)
    buy, sell = rate
    gross = fill.buy + fill.fee
    at_rate = gross == fill.sell * buy // sell if exact_in else fill.sell == -(-gross * sell // buy)
    return None if at_rate else Infeasible("not_uniform", fill.digest)


def _move_inventory(
    balance: dict[Node, int], inventories: Sequence[Inventory], uses: Sequence[InventoryUse]
) -> Infeasible | None:
    arcs = {(own.token_in, own.token_out): own for own in inventories}
    spent: dict[object, int] = {}
    for use in uses:
        own = arcs.get((use.token_in, use.token_out))
        if own is None or use.amount_out > own.output(use.amount_in):
            return Infeasible("inventory_rate", f"{use.token_in} → {use.token_out}")
        spent[use.token_out] = spent.get(use.token_out, 0) + use.amount_out
        if spent[use.token_out] > own.capacity:
            return Infeasible("inventory_short", str(use.token_out))
        node, target = Node(use.token_in, ESCROW), Node(use.token_out)
        balance[node] = balance.get(node, 0) - use.amount_in
        balance[target] = balance.get(target, 0) + use.amount_out
        if balance[node] < 0:
            return Infeasible("overdrawn", f"escrow of {use.token_in}")
    return None


def _replay(
    balance: dict[Node, int], pools: Mapping[str, Pool], legs: Sequence[Leg]
) -> Infeasible | None:
    state = dict(pools)
    for leg in legs:
        pool = state.get(leg.pool)
        if pool is None:
            return Infeasible("unknown_pool", leg.pool)
        tail, head = Node(leg.token_in), Node(leg.token_out)
        if balance.get(tail, 0) < leg.amount_in:
            return Infeasible("overdrawn", f"{leg.token_in} before {leg.pool}")
        step = step_of(pool, leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
        if (step.amount_in, step.amount_out) != (leg.amount_in, leg.amount_out):
            return Infeasible("leg_mismatch", f"{leg.pool} gives {step.amount_out}")
        state[leg.pool] = step.next_pool
        balance[tail] -= leg.amount_in
        balance[head] = balance.get(head, 0) + leg.amount_out
    return None

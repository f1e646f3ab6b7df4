"""From what a batch decided to everything that follows from it, in exact integers.

A decision is what each order trades, what goes into each pool in which order, and one rate per
directed pair. The pools' outputs, the payouts, the fees and what is left over follow; no float and
no optimiser has a part in it, so that any machine derives the same to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from solver.core import graph
from solver.core.batch import Terms
from solver.core.graph import Node
from solver.core.problem import buy_node, sell_node
from solver.core.schedule import take, tightened
from solver.core.types import (
    Exact,
    Fill,
    Infeasible,
    Intent,
    InventoryUse,
    Kind,
    Leg,
    StandAlone,
    TokenId,
)
from solver.core.venue import PoolFault, Snapshot, step_of
from solver.core.verify import verify


class Draw(Struct, frozen=True):
    """An amount in escrow for which the solver's inventory pays."""

    token_in: TokenId
    token_out: TokenId
    amount_in: int


class Move(Draw, frozen=True):
    """An amount into a pool."""

    pool: str


class Decision(Struct, frozen=True):
    """``amounts`` are sold (exact-in) or bought (exact-out), by digest; rates are (buy, sell)."""

    amounts: Mapping[str, int]
    moves: tuple[Move, ...]
    draws: tuple[Draw, ...]
    rates: Mapping[str, tuple[int, int]]


class Derived(Struct, frozen=True):
    """Everything that moves, and per node what is left."""

    fills: tuple[Fill, ...]
    legs: tuple[Leg, ...]
    inventory: tuple[InventoryUse, ...]
    dust: dict[Node, int]


def derive(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms,
    decision: Decision,
    alone: Sequence[StandAlone] = (),
) -> Derived | Infeasible:
    """What follows from a decision, or what in it cannot be.

    ``alone`` is what each order would have got without the others: fees are measured by it.
    """
    signed = {intent.digest: intent for intent in intents}
    intents = tightened(intents, terms.schedule)
    known = {intent.digest: intent for intent in intents}
    fills: list[Fill] = []
    for digest, amount in decision.amounts.items():
        intent = known.get(digest)
        if intent is None:
            return Infeasible("unknown_intent", digest)
        rate = decision.rates.get(f"{intent.swap.sell}>{intent.swap.buy}", (0, 0))
        if not all(rate):
            return Infeasible("no_rate", digest)
        fills.append(_fill(intent, amount, rate, terms.fees.get(digest, 0)))
    own = graph.inventories(snapshot, terms.capital_bps)
    legs, uses = _legs(snapshot, decision.moves), _uses(own, decision.draws)
    if isinstance(legs, Infeasible):
        return legs
    if isinstance(uses, Infeasible):
        return uses
    pools = {pool.id: pool for pool in snapshot.pools}
    broken = verify(intents, pools, own, fills, legs, uses, decision.rates)
    left = _left(known, fills, legs, uses)
    net = take(fills, signed, alone, terms.schedule)
    return broken or Derived(net, legs, uses, left)


def _fill(intent: Intent, amount: int, rate: tuple[int, int], fee: int) -> Fill:
    """The order at its pair's rate: what it gets rounds down, what it pays rounds up."""
    buy, sell = rate
    if intent.swap.kind is Kind.EXACT_IN:
        return Fill(intent.digest, amount, amount * buy // sell - fee, fee)
    return Fill(intent.digest, -(-(amount + fee) * sell // buy), amount, fee)


def _legs(snapshot: Snapshot, moves: Sequence[Move]) -> tuple[Leg, ...] | Infeasible:
    """What the pools give, one move after another."""
    pools = {pool.id: pool for pool in snapshot.pools}
    legs = []
    for move in moves:
        if move.pool not in pools:
            return Infeasible("unknown_pool", move.pool)
        ends = move.token_in, move.token_out
        try:
            step = step_of(pools[move.pool], *ends, move.amount_in, Exact.IN)
        except PoolFault as fault:  # the pool does not have these tokens
            return Infeasible("leg_mismatch", str(fault))
        pools[move.pool] = step.next_pool
        legs.append(Leg(move.pool, *ends, step.amount_in, step.amount_out, step.gas))
    return tuple(legs)


def _uses(
    own: Sequence[graph.Inventory], draws: Sequence[Draw]
) -> tuple[InventoryUse, ...] | Infeasible:
    """What the inventory pays, as long as it lasts."""
    stock = {(arc.token_in, arc.token_out): arc for arc in own}
    spent: Counter[TokenId] = Counter()
    uses = []
    for draw in draws:
        ends = draw.token_in, draw.token_out
        if ends not in stock:
            return Infeasible("inventory_rate", f"{draw.token_in} → {draw.token_out}")
        arc = stock[ends]
        brought = min(arc.output(draw.amount_in), arc.capacity - spent[draw.token_out])
        spent[draw.token_out] += brought
        uses.append(InventoryUse(*ends, draw.amount_in, brought))
    return tuple(uses)


def _left(
    known: Mapping[str, Intent],
    fills: Sequence[Fill],
    legs: Sequence[Leg],
    uses: Sequence[InventoryUse],
) -> dict[Node, int]:
    left: Counter[Node] = Counter()
    for fill in fills:
        intent = known[fill.digest]
        left[sell_node(intent)] += fill.sell
        left[buy_node(intent)] -= fill.buy + fill.fee
    for leg in legs:
        left[Node(leg.token_in)] -= leg.amount_in
        left[Node(leg.token_out)] += leg.amount_out
    for use in uses:
        left[Node(use.token_in, graph.ESCROW)] -= use.amount_in
        left[Node(use.token_out)] += use.amount_out
    return {node: amount for node, amount in sorted(left.items()) if amount}

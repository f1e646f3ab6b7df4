"""What is left of a ledger when a local chain has begun anew: everything on other chains."""

from __future__ import annotations

from solver.core.journal import Book, BundleMoved, EscrowSeen, Event, Moved
from solver.core.lifecycle import BundleState, EscrowState, IntentState

_GONE = "chain_gone"


def retired(book: Book, chain: int, born_at: float, now: float) -> list[Event]:
    """The steps that end what was on ``chain`` before ``born_at``.

    An order that is locked on another chain stays in escrow there, to be refunded.
    """
    detail = f"chain {chain} has begun anew"
    events: list[Event] = []
    states = {digest: record.state for digest, record in book.intents.items()}
    for record in book.bundles.values():
        bundle = record.bundle
        is_open = record.is_pending or record.state is BundleState.BUILT
        if bundle.chain != chain or bundle.at >= born_at or not is_open:
            continue
        events.append(BundleMoved(bundle.id, BundleState.DROPPED, now, detail=detail))
        for fill in bundle.fills:
            if states[fill.digest] is IntentState.BATCHED:
                states[fill.digest] = IntentState.OPEN
                events.append(Moved(fill.digest, IntentState.OPEN, now, _GONE, detail))
    for digest, intent in book.intents.items():
        swap = intent.intent.swap
        if intent.accepted_at >= born_at or chain not in (swap.sell_chain, swap.buy_chain):
            continue
        if states[digest] is IntentState.OPEN:
            events.append(Moved(digest, IntentState.EXPIRED, now, _GONE, detail))
        elif states[digest] is IntentState.ESCROWED and swap.sell_chain == chain:
            events.append(Moved(digest, IntentState.REFUNDED, now, _GONE, detail))
    for order, escrow in book.escrows.items():
        accepted_at = book.intents[escrow.payment.digest].accepted_at
        if escrow.payment.origin == chain and accepted_at < born_at:
            events.append(EscrowSeen(order, EscrowState.MISSING, now))
    return events

"""A local chain begins anew; what the ledger knows of other chains must stay."""

from __future__ import annotations

from solver.core.journal import Accepted, Book, Bundled, BundleMoved, Moved, Payment
from solver.core.lifecycle import BundleState, IntentState
from solver.core.rebirth import retired
from solver.core.types import Fill, TokenId
from tests.make import UNIT, A, B, signed, swap

FAR_A, FAR_B = TokenId(2, A.address), TokenId(2, B.address)


def test_only_the_chain_that_is_gone_loses_its_orders() -> None:
    book = Book()
    orders = {
        "here": swap(A, B, nonce=1),
        "sending": swap(A, B, nonce=2),
        "far": swap(FAR_A, FAR_B, nonce=3),
        "locked here": swap(A, FAR_B, nonce=4),
        "locked far": swap(FAR_A, B, nonce=5),
        "new": swap(A, B, nonce=6),
    }
    digests = {}
    for name, order in orders.items():
        intent = signed(order)
        digests[name] = intent.digest
        at = 200.0 if name == "new" else 1.0
        book.apply(Accepted(intent.digest, intent.swap, intent.signature, at))
    for name in ("sending", "locked here", "locked far"):
        origin = orders[name].sell_chain
        fill = Fill(digests[name], UNIT, UNIT, 0)
        payment = Payment(
            digests[name], f"order {name}", "0x", origin, 3 - origin, "0x", "0x", 1, 1, 2, fill
        )
        locks = () if name == "sending" else (payment,)
        book.apply(Moved(digests[name], IntentState.BATCHED, 2.0))
        book.apply(
            Bundled(name, "batch", "settle", origin, "0x", "0x", 0, 9, 2.0, (fill,), locks=locks)
        )
        book.apply(BundleMoved(name, BundleState.SENDING, 2.0, 0, "0x", "0x"))
        if locks:
            book.apply(BundleMoved(name, BundleState.CONFIRMED, 3.0))
            book.apply(Moved(digests[name], IntentState.ESCROWED, 3.0))
    events = retired(book, 1, 100.0, 101.0)
    book.check(events)
    for event in events:
        book.apply(event)
    states = {name: book.intents[digest].state.value for name, digest in digests.items()}
    assert states == {
        "here": "expired",
        "sending": "expired",
        "far": "open",
        "locked here": "refunded",
        "locked far": "escrowed",
        "new": "open",
    }
    assert list(book.escrows) == ["order locked far"]
    assert book.pending_bundles() == []
    assert retired(book, 1, 100.0, 102.0) == []

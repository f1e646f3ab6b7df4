"""The transition tables of an intent and of a bundle; the ledger refuses everything else."""

from __future__ import annotations

from enum import Enum


class IntentState(str, Enum):
    """Where an intent is. ``open`` includes partly filled; the last five are final.

    ``refused``: bundles failed because of it more often than the operator bears.
    """

    OPEN = "open"
    BATCHED = "batched"
    ESCROWED = "escrowed"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUNDED = "refunded"
    REFUSED = "refused"


class BundleState(str, Enum):
    """Where a bundle's transaction is. ``sending`` is stored before the bytes leave."""

    BUILT = "built"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    DROPPED = "dropped"


INTENT_TRANSITIONS: dict[IntentState, frozenset[IntentState]] = {
    IntentState.OPEN: frozenset(
        {
            IntentState.BATCHED,
            IntentState.CANCELLED,
            IntentState.EXPIRED,
            IntentState.REFUSED,
        }
    ),
    IntentState.BATCHED: frozenset(
        {
            IntentState.OPEN,
            IntentState.ESCROWED,
            IntentState.SETTLED,
        }
    ),
    IntentState.ESCROWED: frozenset({IntentState.OPEN, IntentState.SETTLED, IntentState.REFUNDED}),
    IntentState.SETTLED: frozenset(),
    IntentState.CANCELLED: frozenset(),
    IntentState.EXPIRED: frozenset(),
    IntentState.REFUNDED: frozenset(),
    IntentState.REFUSED: frozenset(),
}

BUNDLE_TRANSITIONS: dict[BundleState, frozenset[BundleState]] = {
    BundleState.BUILT: frozenset({BundleState.SENDING, BundleState.DROPPED}),
    BundleState.SENDING: frozenset(
        {BundleState.SENT, BundleState.CONFIRMED, BundleState.REVERTED, BundleState.DROPPED}
    ),
    BundleState.SENT: frozenset({BundleState.CONFIRMED, BundleState.REVERTED, BundleState.DROPPED}),
    BundleState.CONFIRMED: frozenset(),
    BundleState.REVERTED: frozenset(),
    BundleState.DROPPED: frozenset(),
}

FINAL_INTENT_STATES = frozenset(
    state for state, following in INTENT_TRANSITIONS.items() if not following
)


class EscrowState(str, Enum):
    """What a chain says about an escrow, apart from what our own bundles did to it."""

    PAID = "paid"
    UNPAID = "unpaid"
    CLAIMED = "claimed"
    REFUNDED = "refunded"
    MISSING = "missing"


class TransitionError(Exception):
    """A bug: somebody asked for a transition that the table does not have."""


def check_intent(before: IntentState, after: IntentState) -> None:
    """Raise TransitionError unless the table allows the step."""
    if after not in INTENT_TRANSITIONS[before]:
        raise TransitionError(f"intent: {before.value} → {after.value}")


def check_bundle(before: BundleState, after: BundleState) -> None:
    """Raise TransitionError unless the table allows the step."""
    if after not in BUNDLE_TRANSITIONS[before]:
        raise TransitionError(f"bundle: {before.value} → {after.value}")

"""What happened, as events, and the state that follows from them.

The ledger stores events and nothing else; :class:`Book` is the fold over them. A restart replays
the same events into the same state.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from solver.core.lifecycle import (
    FINAL_INTENT_STATES,
    BundleState,
    IntentState,
    check_bundle,
    check_intent,
)
from solver.core.types import Fill, Intent, Kind, OpenReason, Solution, Swap


class Accepted(Struct, frozen=True, tag="accepted"):
    """A signed intent was admitted."""

    digest: str
    swap: Swap
    signature: str
    at: float


class Moved(Struct, frozen=True, tag="moved"):
    """An intent changed state; ``fill`` is what the chain confirmed with this step."""

    digest: str
    state: IntentState
    at: float
    code: str = ""
    detail: str = ""
    fill: Fill | None = None
    bundle: str = ""


class Explained(Struct, frozen=True, tag="explained"):
    """Why an intent was not, or not wholly, filled by the last batch it was in."""

    digest: str
    reason: OpenReason
    at: float


class Cancelling(Struct, frozen=True, tag="cancelling"):
    """The owner's signature for the cancellation of an intent; moves nothing by itself."""

    digest: str
    signature: str
    at: float


class Batched(Struct, frozen=True, tag="batch"):
    """A batch was solved. ``seconds`` is the time the solver took.

    ``profit`` is what the solver expects to keep (fees, rounding, bridge margin) less the gas that
    the bundles are expected to cost, in the numeraire as a decimal string.
    """

    id: str
    at: float
    digests: tuple[str, ...]
    solution: Solution
    blocks: dict[str, tuple[int, str]]
    seconds: float
    profit: str = "0"


class Payment(Struct, frozen=True):
    """A cross-chain payment, and the escrow on chain ``origin`` that it opens to the solver."""

    digest: str
    order: str
    fill_hash: str
    origin: int
    target: int
    token: str
    receiver: str
    amount: int
    fill_deadline: int
    refund_after: int
    fill: Fill


class Bundled(Struct, frozen=True, tag="bundle"):
    """A transaction to send. ``fills`` are those whose sold tokens it moves (role ``settle``).

    Roles: ``settle``, and ``claim`` or ``refund`` for the end of an escrow, whose id is ``order``.
    ``locks`` are the escrows that it opens, ``payments`` what it pays on the buy chain; ``needs``
    is the bundle that must be confirmed before this one may be sent. ``profit`` is the solver's on
    this chain, in the numeraire: what it keeps less expected gas. A lock counts where the sold
    tokens are, its payment where it is made.
    """

    id: str
    batch: str
    role: str
    chain: int
    to: str
    data: str
    gas: int
    deadline: int
    at: float
    fills: tuple[Fill, ...] = ()
    locks: tuple[Payment, ...] = ()
    payments: tuple[Payment, ...] = ()
    order: str = ""
    needs: str = ""
    profit: str = "0"


class BundleMoved(Struct, frozen=True, tag="bundleMoved"):
    """A bundle changed state. ``raw`` is stored with ``sending``, before the bytes leave."""

    id: str
    state: BundleState
    at: float
    nonce: int = -1
    raw: str = ""
    tx_hash: str = ""
    block: int = 0
    gas_used: int = 0
    cost_wei: int = 0
    detail: str = ""


Event = Accepted | Moved | Explained | Cancelling | Batched | Bundled | BundleMoved


class FillRecord(Struct, frozen=True):
    """A confirmed fill and the bundle that made it."""

    bundle: str
    sell: int
    buy: int
    fee: int


class IntentRecord(Struct, frozen=True):
    """An intent and its history in short."""

    number: int
    intent: Intent
    state: IntentState
    accepted_at: float
    updated_at: float
    code: str = ""
    detail: str = ""
    reason: OpenReason | None = None
    fills: tuple[FillRecord, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state in FINAL_INTENT_STATES

    @property
    def sold(self) -> int:
        """Sold so far, in base units."""
        return sum(fill.sell for fill in self.fills)

    @property
    def bought(self) -> int:
        """Received so far, in base units, net of fees."""
        return sum(fill.buy for fill in self.fills)


class BundleRecord(Struct, frozen=True):
    """A bundle and where its transaction is."""

    bundle: Bundled
    state: BundleState
    updated_at: float
    nonce: int = -1
    raw: str = ""
    tx_hash: str = ""
    block: int = 0
    gas_used: int = 0
    cost_wei: int = 0
    detail: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether the chain still has to say what became of it."""
        return self.state in (BundleState.SENDING, BundleState.SENT)


class Book(Struct):
    """The state of everything, in the order of acceptance."""

    intents: dict[str, IntentRecord] = field(default_factory=dict)
    batches: dict[str, Batched] = field(default_factory=dict)
    bundles: dict[str, BundleRecord] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Fold one event. Raises TransitionError for a step that the tables do not have."""
        match event:
            case Accepted():
                self._accept(event)
            case Moved():
                self._move(event)
            case Explained():
                record = self.intents[event.digest]
                self.intents[event.digest] = replace(record, reason=event.reason)
            case Cancelling():
                pass
            case Batched():
                self.batches[event.id] = event
            case Bundled():
                self.bundles[event.id] = BundleRecord(event, BundleState.BUILT, event.at)
            case BundleMoved():
                self._move_bundle(event)

    def open_intents(self) -> Iterator[IntentRecord]:
        """Intents that a batch may take."""
        return (record for record in self.intents.values() if record.state is IntentState.OPEN)

    def pending_bundles(self) -> list[BundleRecord]:
        """Bundles whose fate the chain knows better than the ledger."""
        return [record for record in self.bundles.values() if record.is_pending]

    def _accept(self, event: Accepted) -> None:
        if event.digest in self.intents:
            return
        self.intents[event.digest] = IntentRecord(
            len(self.intents) + 1,
            Intent(event.digest, event.swap, event.signature),
            IntentState.OPEN,
            event.at,
            event.at,
        )

    def _move(self, event: Moved) -> None:
        record = self.intents[event.digest]
        check_intent(record.state, event.state)
        intent, fills = record.intent, record.fills
        if event.fill is not None:
            exact_in = intent.swap.kind is Kind.EXACT_IN
            amount = event.fill.sell if exact_in else event.fill.buy
            intent = replace(intent, filled=intent.filled + amount)
            made = FillRecord(event.bundle, event.fill.sell, event.fill.buy, event.fill.fee)
            fills = (*fills, made)
        self.intents[event.digest] = replace(
            record,
            intent=intent,
            fills=fills,
            state=event.state,
            updated_at=event.at,
            code=event.code,
            detail=event.detail,
        )

    def _move_bundle(self, event: BundleMoved) -> None:
        record = self.bundles[event.id]
        check_bundle(record.state, event.state)
        self.bundles[event.id] = replace(
            record,
            state=event.state,
            updated_at=event.at,
            nonce=event.nonce if event.nonce >= 0 else record.nonce,
            raw=event.raw or record.raw,
            tx_hash=event.tx_hash or record.tx_hash,
            block=event.block or record.block,
            gas_used=event.gas_used or record.gas_used,
            cost_wei=event.cost_wei or record.cost_wei,
            detail=event.detail,
        )

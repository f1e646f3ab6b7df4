"""What happened, as events, and the state that follows from them.

The ledger stores events and nothing else; :class:`Book` is the fold over them. A restart replays
the same events into the same state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from solver.core.lifecycle import (
    FINAL_INTENT_STATES,
    BundleState,
    EscrowState,
    IntentState,
    TransitionError,
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


class Replaced(Struct, frozen=True, tag="replaced"):
    """A transaction with the same nonce and higher fees takes the place of a stuck one.

    It does the same, or with ``cancels`` nothing at all. Stored before the bytes leave; the earlier
    ones may still be mined instead.
    """

    id: str
    raw: str
    tx_hash: str
    at: float
    cancels: bool = False


class EscrowSeen(Struct, frozen=True, tag="escrowSeen"):
    """The chains say something about an escrow that no bundle of ours explains."""

    order: str
    state: EscrowState
    at: float


class Undone(Struct, frozen=True, tag="undone"):
    """A reorg took back the payment of a cross-chain fill: the order is in escrow again.

    The one step that goes backwards, so it is not in the table of the intent's transitions.
    """

    digest: str
    fill: Fill
    at: float


class Offered(Struct, frozen=True):
    """A solution offered for somebody else's auction: its id there, its orders, its document."""

    id: int
    orders: tuple[str, ...]
    document: str


class Auctioned(Struct, frozen=True, tag="auctioned"):
    """An auction of CoW Protocol was answered. ``left_out`` says what made no sense in it."""

    auction: str
    solutions: tuple[Offered, ...]
    left_out: tuple[str, ...]
    seconds: float
    at: float


class Notified(Struct, frozen=True, tag="notified"):
    """A driver says what became of solutions. ``auction`` is empty for a quote.

    ``body`` is all that it said, as it came: the protocol does not promise what belongs to a kind.
    """

    auction: str
    solutions: tuple[int, ...]
    kind: str
    body: str
    at: float


Event = (
    Accepted
    | Moved
    | Explained
    | Cancelling
    | Batched
    | Bundled
    | BundleMoved
    | Replaced
    | EscrowSeen
    | Undone
    | Auctioned
    | Notified
)

_KEPT_AUCTIONS = 1_000
_KEPT_NOTICES = 100


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
    earlier: tuple[str, ...] = ()
    cancelling: tuple[str, ...] = ()

    @property
    def is_pending(self) -> bool:
        """Whether the chain still has to say what became of it."""
        return self.state in (BundleState.SENDING, BundleState.SENT)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of all transactions with its nonce, the latest first; one of them may be mined."""
        return (self.tx_hash, *reversed(self.earlier))


class EscrowRecord(Struct, frozen=True):
    """An escrow that is neither claimed nor refunded, and whether the receiver is paid."""

    payment: Payment
    is_paid: bool = False


class AuctionRecord(Struct, frozen=True):
    """What was offered last in an auction of CoW Protocol, and what the driver said since."""

    auction: str
    answer: Auctioned | None = None
    notices: tuple[Notified, ...] = ()


class Book(Struct):
    """The state of everything, in the order of acceptance.

    Of ``auctions`` it has the latest, the one that was heard of last at the end; all are on disk.
    """

    intents: dict[str, IntentRecord] = field(default_factory=dict)
    batches: dict[str, Batched] = field(default_factory=dict)
    bundles: dict[str, BundleRecord] = field(default_factory=dict)
    escrows: dict[str, EscrowRecord] = field(default_factory=dict)
    auctions: dict[str, AuctionRecord] = field(default_factory=dict)

    def check(self, events: Sequence[Event]) -> None:
        """Raise TransitionError unless all of the events can be applied, one after another."""
        intents: dict[str, IntentState] = {}
        bundles: dict[str, BundleState] = {}
        for event in events:
            match event:
                case Accepted():
                    intents.setdefault(event.digest, self._intent_state(event.digest))
                case Moved():
                    before = intents.get(event.digest) or self._intent_state(event.digest, True)
                    check_intent(before, event.state)
                    intents[event.digest] = event.state
                case Explained():
                    if event.digest not in intents:
                        self._intent_state(event.digest, True)
                case Bundled():
                    bundles[event.id] = BundleState.BUILT
                case BundleMoved():
                    at = bundles.get(event.id) or self._bundle_state(event.id)
                    check_bundle(at, event.state)
                    bundles[event.id] = event.state
                case Replaced():
                    self._bundle_state(event.id)
                case Undone():
                    before = intents.get(event.digest) or self._intent_state(event.digest, True)
                    if before not in (IntentState.SETTLED, IntentState.OPEN):
                        raise TransitionError(f"intent: {before.value} is not undone")
                    intents[event.digest] = IntentState.ESCROWED
                case _:
                    pass

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
            case Replaced():
                self._replace(event)
            case EscrowSeen():
                self._see_escrow(event)
            case Undone():
                self._undo(event)
            case Auctioned() | Notified():
                self._hear(event)

    def open_intents(self) -> Iterator[IntentRecord]:
        """Intents that a batch may take."""
        return (record for record in self.intents.values() if record.state is IntentState.OPEN)

    def pending_bundles(self) -> list[BundleRecord]:
        """Bundles whose fate the chain knows better than the ledger."""
        return [record for record in self.bundles.values() if record.is_pending]

    def _intent_state(self, digest: str, must_exist: bool = False) -> IntentState:
        record = self.intents.get(digest)
        if record is None and must_exist:
            raise TransitionError(f"no intent {digest}")
        return record.state if record else IntentState.OPEN

    def _bundle_state(self, identity: str) -> BundleState:
        record = self.bundles.get(identity)
        if record is None:
            raise TransitionError(f"no bundle {identity}")
        return record.state

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

    def _undo(self, event: Undone) -> None:
        record, fill = self.intents[event.digest], event.fill
        amounts = [(made.sell, made.buy, made.fee) for made in record.fills]
        taken = amounts.index((fill.sell, fill.buy, fill.fee))
        exact_in = record.intent.swap.kind is Kind.EXACT_IN
        filled = record.intent.filled - (fill.sell if exact_in else fill.buy)
        self.intents[event.digest] = replace(
            record,
            intent=replace(record.intent, filled=filled),
            fills=(*record.fills[:taken], *record.fills[taken + 1 :]),
            state=IntentState.ESCROWED,
            updated_at=event.at,
            code="payment_undone",
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
        if event.state is BundleState.CONFIRMED:
            self._note_escrows(record.bundle)

    def _replace(self, event: Replaced) -> None:
        record = self.bundles[event.id]
        self.bundles[event.id] = replace(
            record,
            raw=event.raw,
            tx_hash=event.tx_hash,
            earlier=(*record.earlier, record.tx_hash),
            cancelling=(*record.cancelling, event.tx_hash) if event.cancels else record.cancelling,
        )

    def _note_escrows(self, bundle: Bundled) -> None:
        for payment in bundle.locks:
            self.escrows[payment.order] = EscrowRecord(payment)
        for payment in bundle.payments:
            if payment.order in self.escrows:
                self.escrows[payment.order] = EscrowRecord(payment, is_paid=True)
        if bundle.role in ("claim", "refund"):
            self.escrows.pop(bundle.order, None)

    def _hear(self, event: Auctioned | Notified) -> None:
        record = self.auctions.pop(event.auction, None) or AuctionRecord(event.auction)
        if isinstance(event, Auctioned):
            record = replace(record, answer=event)
        else:
            record = replace(record, notices=(*record.notices, event)[-_KEPT_NOTICES:])
        self.auctions[event.auction] = record
        if len(self.auctions) > _KEPT_AUCTIONS:
            del self.auctions[next(iter(self.auctions))]

    def _see_escrow(self, event: EscrowSeen) -> None:
        record = self.escrows.get(event.order)
        if record is None:
            return
        if event.state in (EscrowState.PAID, EscrowState.UNPAID):
            is_paid = event.state is EscrowState.PAID
            self.escrows[event.order] = EscrowRecord(record.payment, is_paid)
        else:
            del self.escrows[event.order]


def filled_by(record: IntentRecord, fill: Fill, bundle: str, at: float) -> Moved:
    """The step of an intent whose receiver was paid: settled, or open again for the rest."""
    intent = record.intent
    amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
    whole = intent.filled + amount >= intent.swap.total
    state = IntentState.SETTLED if whole else IntentState.OPEN
    return Moved(fill.digest, state, at, "" if whole else "partly_filled", "", fill, bundle)

"""The HTTP API, version 1: what clients send and what they get. Amounts are decimal strings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import asdict

from solver.core.graph import directions
from solver.core.journal import Batched, Book, BundleRecord, IntentRecord
from solver.core.types import (
    BPS,
    NO_CHARGES,
    Charges,
    JsonObject,
    Kind,
    Solution,
    Swap,
    TokenId,
)
from solver.core.venue import Snapshot
from solver.wire.jsonio import (
    Address,
    Amount,
    Asset,
    Digest,
    OptionalAddress,
    OptionalAmount,
    Signature,
    Uint64,
)
from solver.wire.solution import (
    AloneDocument,
    CertificateDocument,
    ReasonDocument,
    alone_document,
    certificate_document,
    charges_document,
    reason_document,
)
from solver.wire.swap import SwapDocument, swap_document

#: In place of a pool: the solver paid from its own, or orders matched and none was needed.
INVENTORY, MATCHED = "inventory", "orders"

#: The decimals of the tokens that are traded here.
Decimals = Mapping[TokenId, int]

_SlippageBps = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": BPS - 1})]
_Lifetime = Annotated[int, Meta(extra_json_schema={"minimum": 1})]


class SubmitRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A signed order. ``signature`` is 65 bytes in hex: r ‖ s ‖ v, v in {27, 28}."""

    swap: SwapDocument
    signature: Signature


class CancelRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The owner's EIP-712 signature over ``Cancel(bytes32 digest)``."""

    signature: Signature


class Draft(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An order before it is signed; what is left out is filled in.

    For ``exactIn`` give ``sellAmount``, for ``exactOut`` ``buyAmount``; the other side is the hard
    limit. When it is missing, ``slippageBps`` turns the reference price into it. Only an empty
    string is missing: ``"0"`` is zero, which no limit can be.
    """

    owner: Asset
    sell_chain: Uint64
    sell_asset: Asset
    buy_chain: Uint64
    buy_asset: Asset
    kind: Kind
    sell_amount: OptionalAmount = ""
    buy_amount: OptionalAmount = ""
    slippage_bps: _SlippageBps = 50
    partial_fill: bool = False
    receiver: OptionalAddress = ""
    nonce: OptionalAmount = ""
    lifetime_seconds: _Lifetime = 600
    max_fee: OptionalAmount = ""


class TypedData(Struct, frozen=True, rename="camel"):
    """What a wallet signs (``eth_signTypedData_v4``), and the id that the intent will have."""

    id: Digest
    swap: SwapDocument
    typed_data: JsonObject
    cancel_typed_data: JsonObject


class LegView(Struct, frozen=True, rename="camel"):
    """One use of a pool."""

    pool: str
    token_in: str
    token_out: str
    amount_in: Amount
    amount_out: Amount


class FeesView(Struct, frozen=True, rename="camel"):
    """Each fee that a fill pays, by the kinds of ``[fees]`` in the config.

    ``gas`` is in the bought token, the others in the order's surplus token: the bought one for
    exactIn, the sold one for exactOut. A surplus is over the limit of the order or question.
    """

    gas: Amount
    volume: Amount = "0"
    surplus: Amount = "0"
    improvement: Amount = "0"
    solver: Amount = "0"


class QuoteView(Struct, frozen=True, rename="camel"):
    """What the order would get now, alone, and the proof of how good that is."""

    filled: bool
    sell: Amount
    buy: Amount
    fee: Amount
    fees: FeesView
    legs: list[LegView]
    certificate: CertificateDocument
    reason: ReasonDocument | None = None


class FillView(Struct, frozen=True, rename="camel"):
    """One confirmed fill. ``sell`` and ``buy`` are what left and reached the owner; ``fee`` was
    kept for gas, in the buy token, and ``fees`` has everything that was taken.
    """

    bundle: str
    chain: Uint64
    transaction: str
    sell: Amount
    buy: Amount
    fee: Amount
    fees: FeesView


class HopView(Struct, frozen=True, rename="camel"):
    """A step between the two tokens of an order in the batch of its last fill.

    ``pool`` is ``inventory`` where the solver paid from its own, ``orders`` where orders matched
    and no pool was needed.
    """

    token_in: str
    token_out: str
    pool: str


class IntentView(Struct, frozen=True, rename="camel"):
    """An intent and what became of it. ``surplusBps`` is over the limit of what was filled."""

    id: Digest
    state: str
    swap: SwapDocument
    filled: Amount
    sold: Amount
    bought: Amount
    surplus_bps: str
    accepted_at: float
    updated_at: float
    code: str
    detail: str
    reason: ReasonDocument | None
    fills: list[FillView]
    net_gap_bps: str = ""
    route: list[HopView] = []


class IntentPage(Struct, frozen=True, rename="camel"):
    """Intents in the order of acceptance; ``next`` is the cursor of the following page."""

    intents: list[IntentView]
    next: str = ""


class VenueView(Struct, frozen=True, rename="camel"):
    """A venue at the last snapshot. ``reason`` says why it was left out."""

    name: str
    kind: str
    chain: int
    pools: int
    milliseconds: float
    failures: int
    reason: str


class BlockView(Struct, frozen=True, rename="camel"):
    """The block that a chain was read at."""

    chain: int
    number: int
    hash: str
    timestamp: int


class PoolView(Struct, frozen=True, rename="camel"):
    """A pool of the graph and the tokens it joins."""

    id: str
    tokens: list[str]


class ArcView(Struct, frozen=True, rename="camel"):
    """One direction of a pool.

    ``kind`` is the form of its declared curve, ``sampled`` where none is declared, ``bridge`` where
    what is bought arrives later.
    """

    venue: str
    pool: str
    token_in: str
    token_out: str
    kind: str


class GraphView(Struct, frozen=True, rename="camel"):
    """The venue-liquidity graph of the current snapshot."""

    snapshot_hash: str
    blocks: list[BlockView]
    tokens: list[str]
    pools: list[PoolView]
    arcs: list[ArcView]
    prices: dict[str, str]
    excluded: dict[str, str]


class BundleView(Struct, frozen=True, rename="camel"):
    """One transaction and where it is."""

    id: str
    batch: str
    role: str
    chain: Uint64
    state: str
    transaction: str
    nonce: int
    block: int
    gas_used: int
    cost_wei: Amount
    profit: str
    intents: list[str]
    detail: str


class BatchView(Struct, frozen=True, rename="camel"):
    """A solved batch. ``kept`` is what rounding left with the solver per token.

    ``stage`` is where the fills come from; ``alone`` what each order would have got by itself, and
    ``paradoxes`` the orders that got nothing although their limit allows their pair's rate.
    """

    id: str
    at: float
    intents: list[str]
    seconds: float
    stage: str
    pools: list[str]
    clearing: dict[str, str]
    kept: dict[str, str]
    profit: str
    certificate: CertificateDocument
    bundles: list[BundleView]
    alone: list[AloneDocument]
    paradoxes: list[ReasonDocument]


class BatchPage(Struct, frozen=True, rename="camel"):
    """Batches, the newest first; ``next`` is the cursor of the following page."""

    batches: list[BatchView]
    next: str = ""


class Health(Struct, frozen=True, rename="camel"):
    """``status`` is ``ok``, or ``degraded`` with the reasons."""

    status: str
    reasons: list[str]


class TokenView(Struct, frozen=True, rename="camel"):
    """A token that can be traded here."""

    symbol: str
    chain: Uint64
    address: Address
    decimals: int


class ChainView(Struct, frozen=True, rename="camel"):
    """A chain, the contract that settles on it and the contract that owners approve."""

    chain: Uint64
    name: str
    settlement: Address
    holder: Address
    local: bool


class Info(Struct, frozen=True, rename="camel"):
    """What this daemon serves."""

    version: str
    chains: list[ChainView]
    tokens: list[TokenView]


def intent_view(record: IntentRecord, book: Book, decimals: Decimals) -> IntentView:
    """The public face of a record."""
    fills = []
    for fill in record.fills:
        bundle = book.bundles[fill.bundle]
        fills.append(
            FillView(
                fill.bundle,
                bundle.bundle.chain,
                bundle.tx_hash,
                str(fill.sell),
                str(fill.buy),
                str(fill.fee),
                _fees_view(fill.fee, _charges(record.intent.digest, bundle.bundle.batch, book)),
            )
        )
    gaps = [
        book.batches[book.bundles[fill.bundle].bundle.batch].solution.certificate.net_gap_bps
        for fill in record.fills
        if book.bundles[fill.bundle].bundle.batch in book.batches
    ]
    swap = record.intent.swap
    return IntentView(
        record.intent.digest,
        record.state.value,
        swap_document(swap),
        str(record.intent.filled),
        str(record.sold),
        str(record.bought),
        surplus_bps(swap, record.sold, record.bought),
        record.accepted_at,
        record.updated_at,
        record.code,
        record.detail,
        None if record.reason is None else reason_document(record.reason, _ends(swap, decimals)),
        fills,
        gaps[-1] if gaps else "",
        _route(record, book),
    )


def _ends(swap: Swap, decimals: Decimals) -> tuple[int, int] | None:
    if swap.sell not in decimals or swap.buy not in decimals:
        return None
    return decimals[swap.sell], decimals[swap.buy]


def _route(record: IntentRecord, book: Book) -> list[HopView]:
    """The legs of the last fill's batch that lie between the order's two tokens."""
    if not record.fills:
        return []
    batch = book.batches.get(book.bundles[record.fills[-1].bundle].bundle.batch)
    if batch is None:
        return []
    sell, buy = record.intent.swap.sell, record.intent.swap.buy
    steps = [(leg.token_in, leg.token_out, leg.pool) for leg in batch.solution.legs]
    steps += [(use.token_in, use.token_out, INVENTORY) for use in batch.solution.inventory]
    ahead, behind = {sell}, {buy}
    for _ in steps:
        ahead |= {head for tail, head, _ in steps if tail in ahead}
        behind |= {tail for tail, head, _ in steps if head in behind}
    hops = [
        HopView(str(tail), str(head), pool)
        for tail, head, pool in steps
        if tail in ahead and head in behind and head != sell and tail != buy
    ]
    return hops or [HopView(str(sell), str(buy), MATCHED)]


def surplus_bps(swap: Swap, sold: int, bought: int) -> str:
    """How much better than the signed limit a fill is, in basis points; empty without a fill."""
    if not sold or not bought:
        return ""
    over = bought * swap.sell_amount - sold * swap.buy_amount
    return f"{over * BPS / (sold * swap.buy_amount):.2f}"


def _fees_view(gas: int, charges: Charges) -> FeesView:
    return FeesView(str(gas), **asdict(charges_document(charges)))


def _charges(digest: str, batch: str, book: Book) -> Charges:
    """What was taken from an order's fill in a batch, as far as the book still has the batch."""
    fills = book.batches[batch].solution.fills if batch in book.batches else ()
    return next((fill.charges for fill in fills if fill.digest == digest), NO_CHARGES)


def quote_view(swap: Swap, digest: str, solution: Solution, decimals: Decimals) -> QuoteView:
    """A solution of one order as a quote."""
    fill = next((fill for fill in solution.fills if fill.digest == digest), None)
    reason = next((reason for reason in solution.open if reason.digest == digest), None)
    return QuoteView(
        fill is not None,
        str(fill.sell if fill else 0),
        str(fill.buy if fill else 0),
        str(fill.fee if fill else 0),
        _fees_view(fill.fee, fill.charges) if fill else FeesView("0"),
        [
            LegView(
                leg.pool,
                str(leg.token_in),
                str(leg.token_out),
                str(leg.amount_in),
                str(leg.amount_out),
            )
            for leg in solution.legs
        ],
        certificate_document(solution.certificate),
        None if reason is None else reason_document(reason, _ends(swap, decimals)),
    )


def graph_view(snapshot: Snapshot, venue_of: Callable[[str], str]) -> GraphView:
    """The snapshot as a graph; ``venue_of`` names the venue that a pool came from."""
    tokens = sorted({str(token) for pool in snapshot.pools for token in pool.tokens})
    return GraphView(
        snapshot.hash,
        [
            BlockView(block.chain, block.number, block.hash, block.timestamp)
            for block in snapshot.blocks.values()
        ],
        tokens,
        [PoolView(pool.id, [str(token) for token in pool.tokens]) for pool in snapshot.pools],
        [
            ArcView(venue_of(pool.id), pool.id, str(token_in), str(token_out), kind)
            for pool in snapshot.pools
            for token_in, token_out, kind in directions(pool)
        ],
        {str(token): format(price, ".17g") for token, price in snapshot.prices.items()},
        snapshot.excluded,
    )


def bundle_view(record: BundleRecord) -> BundleView:
    """The public face of a bundle; the raw transaction stays inside."""
    bundle = record.bundle
    digests = [fill.digest for fill in bundle.fills]
    digests += [payment.digest for payment in bundle.payments]
    return BundleView(
        bundle.id,
        bundle.batch,
        bundle.role,
        bundle.chain,
        record.state.value,
        record.tx_hash,
        record.nonce,
        record.block,
        record.gas_used,
        str(record.cost_wei),
        bundle.profit,
        digests,
        record.detail,
    )


def batch_view(batch: Batched, bundles: Iterable[BundleRecord]) -> BatchView:
    """A batch with its bundles."""
    solution = batch.solution
    return BatchView(
        batch.id,
        batch.at,
        list(batch.digests),
        batch.seconds,
        solution.stage,
        sorted({leg.pool for leg in solution.legs}),
        {pair: f"{rate[0]}/{rate[1]}" for pair, rate in solution.clearing.items()},
        {token: str(amount) for token, amount in solution.dust.items()},
        batch.profit,
        certificate_document(solution.certificate),
        [bundle_view(record) for record in bundles],
        alone_document(solution.alone),
        [reason_document(reason) for reason in solution.open if reason.paradox],
    )

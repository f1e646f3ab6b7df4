"""Solutions that compete: ``thalweg.competition/1`` and the documents of CoW Protocol, ranked.

A competition file has the auction and any number of solutions; further files add solutions. The
auction may also be a CoW auction, and a further file the answer of any CoW solver engine to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from solver.core.types import JsonObject, Kind, Rejection
from solver.core.winners import MAX_WINNERS, Auction, Bid, Order, Ranked, Ranking, Trade
from solver.wire import fees, jsonio
from solver.wire.jsonio import Amount, Invalid, integer

FORMAT = "thalweg.competition/1"
_KINDS = {"sell": Kind.EXACT_IN, "buy": Kind.EXACT_OUT}

T = TypeVar("T")


class OrderDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An order; ``kind`` is ``sell`` (sold amount fixed) or ``buy``. The amounts are the limit."""

    kind: str
    sell_token: str
    buy_token: str
    sell_amount: Amount
    buy_amount: Amount
    fee_policies: list[JsonObject] = []
    owner: str = ""


class TradeDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What left and reached the owner of an order, all fees taken."""

    order: str
    sell_amount: Amount
    buy_amount: Amount


class BidDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A solution. ``ownOrders`` are orders that it brings itself and that the auction has not."""

    solver: str
    id: str
    trades: list[TradeDocument]
    own_orders: dict[str, OrderDocument] = {}


class CompetitionDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An auction with solutions, or solutions alone.

    ``prices`` are native wei per 10^18 base units; ``aliases`` name tokens that count as one with
    another; orders of a solution's own score if their owner is among ``surplusOwners``; ``seed`` is
    what equal scores are decided with, as hex.
    """

    format: str
    orders: dict[str, OrderDocument] | None = None
    prices: dict[str, Amount] = {}
    aliases: dict[str, str] = {}
    surplus_owners: list[str] = []
    max_winners: Annotated[int, Meta(ge=1, le=10**6)] = MAX_WINNERS
    seed: str = "0x"
    solutions: list[BidDocument] = []


class StandingDocument(Struct, frozen=True, rename="camel"):
    """A solution with its score in wei, in all and per directed pair."""

    solver: str
    id: str
    standing: str
    score: Amount
    pairs: dict[str, Amount]
    reason: str


class RankingDocument(Struct, frozen=True, rename="camel"):
    """The answer of ``thalweg winners``, best solutions first; scores in wei."""

    winners: list[StandingDocument]
    others: list[StandingDocument]
    score: Amount
    reference_scores: dict[str, Amount]


class _CowToken(Struct, rename="camel"):
    reference_price: Any = None


class _CowOrder(Struct, rename="camel"):
    uid: str
    sell_token: str
    buy_token: str
    sell_amount: Any
    buy_amount: Any
    kind: str
    owner: str = ""
    full_sell_amount: Any = None
    full_buy_amount: Any = None
    fee_policies: list[JsonObject] | None = None


class _CowAuction(Struct, rename="camel"):
    tokens: dict[str, _CowToken]
    orders: list[_CowOrder]
    owners: list[str] = field(default_factory=list, name="surplusCapturingJitOrderOwners")


class _CowTrade(Struct, rename="camel"):
    kind: str
    order: Any
    executed_amount: Any
    fee: Any = None


class _CowSolution(Struct, rename="camel"):
    id: int | str
    prices: dict[str, Any]
    trades: list[_CowTrade]


class _CowAnswer(Struct, rename="camel"):
    solutions: list[_CowSolution]


class _CowOwnOrder(Struct, rename="camel"):
    sell_token: str
    buy_token: str
    sell_amount: Any
    buy_amount: Any
    kind: str


def read_auction(body: bytes, max_bytes: int) -> tuple[Auction, list[Bid]]:
    """The auction of the first file with the solutions in it. Raises Invalid."""
    probe = _decode(body, dict, max_bytes)
    if "format" not in probe:
        return _cow_auction(_decode(body, _CowAuction, max_bytes)), []
    document = _decode(body, CompetitionDocument, max_bytes)
    _check_format(document)
    if document.orders is None:
        raise Invalid("invalid_field", "the first file needs the auction's orders", "/orders")
    auction = Auction(
        {
            name: _order(order, f"/orders/{jsonio.escape(name)}")
            for name, order in document.orders.items()
        },
        {
            token.lower(): jsonio.whole(price, f"/prices/{jsonio.escape(token)}")
            for token, price in document.prices.items()
        },
        {token.lower(): other.lower() for token, other in document.aliases.items()},
        frozenset(owner.lower() for owner in document.surplus_owners),
        document.max_winners,
        _seed(document.seed),
    )
    return auction, _bids(document)


def read_bids(body: bytes, solver: str, auction: Auction, max_bytes: int) -> list[Bid]:
    """The solutions of a further file; ``solver`` is who answered, where that is not in it.

    Raises Invalid.
    """
    probe = _decode(body, dict, max_bytes)
    if "format" not in probe:
        return _cow_bids(_decode(body, _CowAnswer, max_bytes), solver, auction)
    document = _decode(body, CompetitionDocument, max_bytes)
    _check_format(document)
    if document.orders is not None:
        raise Invalid("second_auction", "the first file has the auction already", "/orders")
    return _bids(document)


def ranking_document(ranking: Ranking) -> RankingDocument:
    """The document of a ranking."""
    winners = ranking.winners
    return RankingDocument(
        [_standing(ranked) for ranked in winners],
        [_standing(ranked) for ranked in ranking.solutions[len(winners) :]],
        str(sum(ranked.score for ranked in winners)),
        {solver: str(score) for solver, score in ranking.reference_scores.items()},
    )


def _standing(ranked: Ranked) -> StandingDocument:
    return StandingDocument(
        ranked.bid.solver,
        ranked.bid.id,
        ranked.standing.value,
        str(ranked.score),
        {f"{sell}>{buy}": str(score) for (sell, buy), score in sorted(ranked.pairs.items())},
        ranked.reason,
    )


def _decode(body: bytes, shape: type[T], max_bytes: int) -> T:
    read = jsonio.decode(body, shape, max_bytes)
    if isinstance(read, Rejection):
        raise Invalid(read.code, read.detail, read.pointer)
    return read


def _check_format(document: CompetitionDocument) -> None:
    if document.format != FORMAT:
        raise Invalid("unknown_format", f"{document.format[:60]!r} is not {FORMAT}", "/format")


def _seed(text: str) -> bytes:
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise Invalid("bad_hex", "not 0x and pairs of hex digits", "/seed")


def _kind(kind: str, place: str) -> Kind:
    if kind not in _KINDS:
        raise Invalid("invalid_field", f"{kind[:40]!r} is neither sell nor buy", f"{place}/kind")
    return _KINDS[kind]


def _order(order: OrderDocument, place: str) -> Order:
    return Order(
        _kind(order.kind, place),
        order.sell_token.lower(),
        order.buy_token.lower(),
        jsonio.positive(order.sell_amount, f"{place}/sellAmount"),
        jsonio.positive(order.buy_amount, f"{place}/buyAmount"),
        fees.policies(order.fee_policies, f"{place}/feePolicies"),
        order.owner.lower(),
    )


def _bids(document: CompetitionDocument) -> list[Bid]:
    bids = []
    for k, solution in enumerate(document.solutions):
        place = f"/solutions/{k}"
        trades = tuple(
            Trade(
                trade.order,
                jsonio.whole(trade.sell_amount, f"{place}/trades/{n}/sellAmount"),
                jsonio.whole(trade.buy_amount, f"{place}/trades/{n}/buyAmount"),
            )
            for n, trade in enumerate(solution.trades)
        )
        own = {
            name: _order(order, f"{place}/ownOrders/{jsonio.escape(name)}")
            for name, order in solution.own_orders.items()
        }
        bids.append(Bid(solution.solver, solution.id, trades, own))
    return bids


def _cow_auction(auction: _CowAuction) -> Auction:
    """Policies are on an order only where the engine is to charge them itself.

    The limit is what was signed: the full amounts of an order that is partly filled already.
    """
    orders = {}
    for k, order in enumerate(auction.orders):
        place = f"/orders/{k}"
        if order.uid in orders:
            raise Invalid("duplicate_order", f"a second order {order.uid[:80]}", f"{place}/uid")
        sell, buy = (
            _positive(order.sell_amount, f"{place}/sellAmount")
            if order.full_sell_amount is None
            else _positive(order.full_sell_amount, f"{place}/fullSellAmount"),
            _positive(order.buy_amount, f"{place}/buyAmount")
            if order.full_buy_amount is None
            else _positive(order.full_buy_amount, f"{place}/fullBuyAmount"),
        )
        orders[order.uid] = Order(
            _kind(order.kind, place),
            order.sell_token.lower(),
            order.buy_token.lower(),
            sell,
            buy,
            fees.policies(order.fee_policies or [], f"{place}/feePolicies"),
            order.owner.lower(),
        )
    prices = {
        token.lower(): integer(
            entry.reference_price, f"/tokens/{jsonio.escape(token)}/referencePrice"
        )
        for token, entry in auction.tokens.items()
        if entry.reference_price is not None
    }
    owners = frozenset(owner.lower() for owner in auction.owners)
    return Auction(orders, prices, surplus_owners=owners)


def _cow_bids(answer: _CowAnswer, solver: str, auction: Auction) -> list[Bid]:
    """What a settlement at the clearing prices gives.

    A sale gets ⌈executed·p_sell/p_buy⌉ and gives its fee on top of what is executed, a purchase
    costs ⌊executed·p_buy/p_sell⌋ and its fee. An order of a solution's own has no owner here, so it
    takes its directed pair and scores nothing.
    """
    bids = []
    for k, solution in enumerate(answer.solutions):
        prices = {
            token.lower(): _price(price, f"/solutions/{k}/prices/{jsonio.escape(token)}")
            for token, price in solution.prices.items()
        }
        trades, own = [], {}
        for n, trade in enumerate(solution.trades):
            place = f"/solutions/{k}/trades/{n}"
            name = trade.order
            if trade.kind == "jit":
                name = f"own order {n}"
                own[name] = _own_order(trade.order, f"{place}/order")
            elif trade.kind != "fulfillment":
                raise Invalid("unknown_trade", trade.kind[:40], f"{place}/kind")
            order = own.get(name) or auction.orders.get(name) if isinstance(name, str) else None
            if order is None:
                raise Invalid("unknown_order", "the auction has no such order", f"{place}/order")
            trades.append(_trade(name, order, trade, prices, place))
        bids.append(Bid(solver, str(solution.id), tuple(trades), own))
    return bids


def _trade(
    name: str, order: Order, trade: _CowTrade, prices: Mapping[str, int], place: str
) -> Trade:
    for token in (order.sell_token, order.buy_token):
        if token not in prices:
            raise Invalid("no_rate", f"no clearing price of {token}", place)
    price_sell, price_buy = prices[order.sell_token], prices[order.buy_token]
    executed = integer(trade.executed_amount, f"{place}/executedAmount")
    fee = 0 if trade.fee is None else integer(trade.fee, f"{place}/fee")
    if order.kind is Kind.EXACT_IN:
        return Trade(name, executed + fee, -(-executed * price_sell // price_buy))
    return Trade(name, executed * price_buy // price_sell + fee, executed)


def _own_order(entry: object, place: str) -> Order:
    try:
        order = msgspec.convert(entry, _CowOwnOrder)
    except msgspec.ValidationError as error:
        raise Invalid("invalid_field", str(error), place) from error
    return Order(
        _kind(order.kind, place),
        order.sell_token.lower(),
        order.buy_token.lower(),
        _positive(order.sell_amount, f"{place}/sellAmount"),
        _positive(order.buy_amount, f"{place}/buyAmount"),
    )


def _positive(value: object, place: str) -> int:
    amount = integer(value, place)
    if amount == 0:
        raise Invalid("zero_amount", "must be positive", place)
    return amount


def _price(value: object, place: str) -> int:
    """A clearing price; ours are exact and may be longer than 256 bits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 4_000:
        price = int(value)
    else:
        price = integer(value, place)
    if price == 0:
        raise Invalid("bad_rate", "a clearing price of zero", place)
    return price

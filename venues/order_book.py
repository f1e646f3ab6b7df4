"""An on-chain order book of price levels, followed by its events.

The adapter keeps the levels and applies ``LevelChanged``. Each event has the next sequence
number; when one is missing, or the contract's number at the pinned block is another, the whole
book is read again and the gap is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from solver.core.abi import decode_answer, encode_call, topic
from solver.core.pools import BookPool, Level
from solver.core.types import BPS, Call, Leg, TokenId
from solver.core.venue import EventLog, Pool, Reader
from venues import settings as read

TAKE_GAS = 95_000
LEVEL_GAS = 18_000
LEVEL_CHANGED = topic("LevelChanged(uint64,bool,uint256,uint256)")


class Market(Struct, frozen=True):
    """What never changes about a book."""

    base: TokenId
    quote: TokenId
    lot_size: int
    taker_fee_bps: int


class Book(Struct, frozen=True):
    """Levels as of one sequence number, read or followed up to ``block`` (with its hash)."""

    sequence: int
    bids: dict[int, int]
    asks: dict[int, int]
    block: int
    block_hash: str


class ListedBook(BookPool, frozen=True, kw_only=True):
    """One book contract."""

    address: str

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Take whole lots with the exact amounts as the limit."""
        selling = leg.token_in == self.base
        base_amount = leg.amount_in if selling else leg.amount_out
        data = encode_call(
            "take(bool,uint256,uint256,address)",
            not selling,
            base_amount // self.lot_size,
            leg.amount_out if selling else leg.amount_in,
            leg.receiver,
        )
        return (Call(self.address, data, (leg.token_in.address, leg.amount_in)),)


class SequenceGap(Exception):
    """An event is missing."""


def apply_events(book: Book, events: Sequence[EventLog], block: int, block_hash: str) -> Book:
    """The book after the events; raises SequenceGap unless their numbers continue the book's."""
    bids, asks, sequence = dict(book.bids), dict(book.asks), book.sequence
    for event in events:
        number = int(event.topics[1], 16)
        if number <= book.sequence:
            continue
        if number != sequence + 1:
            raise SequenceGap(f"expected {sequence + 1}, got {number}")
        is_bid, price, lots = decode_answer(["bool", "uint256", "uint256"], event.data)
        side = bids if is_bid else asks
        if lots:
            side[price] = lots
        else:
            side.pop(price, None)
        sequence = number
    return Book(sequence, bids, asks, block, block_hash)


class OrderBook:
    """Options: ``book`` (address), ``gas``, ``gas_per_level``. ``gaps`` counts full re-reads."""

    def __init__(self, name: str, chain: int, options: Mapping[str, object]) -> None:
        read.refuse_unknown(options, {"book", "gas", "gas_per_level"})
        self.name = name
        self.chain = chain
        self.gaps = 0
        self._address = read.address(options, "book")
        self._gas = read.integer(options, "gas", TAKE_GAS)
        self._gas_per_level = read.integer(options, "gas_per_level", LEVEL_GAS)
        self._market: Market | None = None
        self._book: Book | None = None

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        """The book at the pinned block."""
        if self._market is None:
            self._market = await self._read_market(reader)
        self._book = await self._follow(reader)
        return [self._pool(self._market, self._book)]

    async def _follow(self, reader: Reader) -> Book:
        book = self._book
        if book is None or book.block > reader.block.number:
            return await self._read_book(reader)
        if book.block_hash == reader.block.hash:
            return book
        (answer,) = await reader.call([(self._address, encode_call("sequence()"))])
        (sequence,) = decode_answer(["uint64"], answer)
        # The block of the last reading is included: a reorganised one shows as a gap.
        events = await reader.logs(self._address, LEVEL_CHANGED, book.block)
        try:
            followed = apply_events(book, events, reader.block.number, reader.block.hash)
            if followed.sequence != sequence:
                raise SequenceGap(f"followed to {followed.sequence}, the book is at {sequence}")
        except SequenceGap:
            self.gaps += 1
            return await self._read_book(reader)
        return followed

    async def _read_market(self, reader: Reader) -> Market:
        names = ("base()", "quote()", "lotSize()", "takerFeeBps()")
        answers = await reader.call([(self._address, encode_call(name)) for name in names])
        base, quote = (decode_answer(["address"], answer)[0] for answer in answers[:2])
        lot_size, fee_bps = (decode_answer(["uint256"], answer)[0] for answer in answers[2:])
        if lot_size == 0 or fee_bps >= BPS:
            raise ValueError(
                f"{self._address} states lots of {lot_size} and a fee of {fee_bps} bps"
            )
        return Market(TokenId(self.chain, base), TokenId(self.chain, quote), lot_size, fee_bps)

    async def _read_book(self, reader: Reader) -> Book:
        (answer,) = await reader.call([(self._address, encode_call("book()"))])
        sequence, bid_prices, bid_lots, ask_prices, ask_lots = decode_answer(
            ["uint64", "uint256[]", "uint256[]", "uint256[]", "uint256[]"], answer
        )
        return Book(
            sequence,
            dict(zip(bid_prices, bid_lots, strict=True)),
            dict(zip(ask_prices, ask_lots, strict=True)),
            reader.block.number,
            reader.block.hash,
        )

    def _pool(self, market: Market, book: Book) -> ListedBook:
        return ListedBook(
            id=f"{self.name}:{self.chain}:{self._address}",
            base=market.base,
            quote=market.quote,
            lot_size=market.lot_size,
            taker_fee_bps=market.taker_fee_bps,
            bids=tuple(Level(price, book.bids[price]) for price in sorted(book.bids, reverse=True)),
            asks=tuple(Level(price, book.asks[price]) for price in sorted(book.asks)),
            gas=self._gas,
            gas_per_level=self._gas_per_level,
            address=self._address,
        )

"""An order book of price levels and whole lots."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.base import NotExecutable
from solver.core.types import BPS, Call, Exact, Leg, TokenId
from solver.core.venue import Arc, LevelsArc, Step


class Level(Struct, frozen=True):
    """A price level: ``price`` quote units per lot, ``lots`` available."""

    price: int
    lots: int


class BookPool(Struct, frozen=True, kw_only=True):
    """An order book: whole lots of base, levels best first, the taker fee rounded up per call."""

    id: str
    base: TokenId
    quote: TokenId
    lot_size: int
    taker_fee_bps: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    gas: int
    gas_per_level: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Base, then quote."""
        return (self.base, self.quote)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """Only whole lots trade.

        Exact IN takes the most lots that ``amount`` pays for; exact OUT the fewest that bring at
        least ``amount``. Both saturate at the depth of the book.
        """
        selling = (token_in, token_out) == (self.base, self.quote)
        if not selling and (token_in, token_out) != (self.quote, self.base):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        side = self.bids if selling else self.asks
        lots = self._lots(side, amount, exact, selling)
        if lots <= 0:
            return Step(0, 0, 0, self)
        gross, rest, levels = _walk(side, lots)
        quote = self._with_fee(gross, selling)
        if quote <= 0:
            return Step(0, 0, 0, self)
        base = lots * self.lot_size
        after = replace(self, bids=rest) if selling else replace(self, asks=rest)
        gas = self.gas + self.gas_per_level * levels
        return Step(base, quote, gas, after) if selling else Step(quote, base, gas, after)

    def arcs(self) -> Sequence[Arc]:
        """Both sides, prices net of the fee, lots ignored: an outer bound of what can be done."""
        fee, lot = self.taker_fee_bps / BPS, self.lot_size
        net, gross = 1 - fee, 1 + fee
        sell = tuple([(float(level.lots * lot), level.price * net / lot) for level in self.bids])
        buy = tuple(
            [(level.lots * level.price * gross, lot / (level.price * gross)) for level in self.asks]
        )
        gas = self.gas + self.gas_per_level
        arcs = (
            LevelsArc(self.base, self.quote, sell, gas),
            LevelsArc(self.quote, self.base, buy, gas),
        )
        return tuple(arc for arc in arcs if arc.levels)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A book of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")

    def _with_fee(self, gross: int, selling: bool) -> int:
        fee = -(-gross * self.taker_fee_bps // BPS)
        return gross - fee if selling else gross + fee

    def _lots(self, side: tuple[Level, ...], amount: int, exact: Exact, selling: bool) -> int:
        depth = sum(level.lots for level in side)
        if amount <= 0:
            return 0
        if (exact is Exact.IN) == selling:  # the amount is in base
            lots = amount // self.lot_size if selling else -(-amount // self.lot_size)
            return min(lots, depth)
        low, high = 0, depth  # the amount is in quote: the net quote rises with the lots
        if selling:  # fewest lots that bring at least ``amount``
            while low < high:
                middle = (low + high) // 2
                enough = self._with_fee(_walk(side, middle)[0], selling) >= amount
                low, high = (low, middle) if enough else (middle + 1, high)
            return low
        while low < high:  # most lots that cost at most ``amount``
            middle = (low + high + 1) // 2
            affordable = self._with_fee(_walk(side, middle)[0], selling) <= amount
            low, high = (middle, high) if affordable else (low, middle - 1)
        return low


def _walk(side: tuple[Level, ...], lots: int) -> tuple[int, tuple[Level, ...], int]:
    """Take ``lots`` (at most the depth): quote units, the levels left, levels touched."""
    gross, touched = 0, 0
    for index, level in enumerate(side):
        if lots == 0:
            return gross, side[index:], touched
        taken = min(lots, level.lots)
        gross += taken * level.price
        lots -= taken
        touched += 1
        if taken < level.lots:
            rest = (Level(level.price, level.lots - taken), *side[index + 1 :])
            return gross, rest, touched
    return gross, (), touched

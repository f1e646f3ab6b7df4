"""Exact integer pools: the arithmetic that a contract does, as pure values.

An adapter inherits one of these and adds only how to call its contract. Every
output rounds down and every input rounds up, to the unit as the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.types import BPS, Call, Exact, Leg, TokenId
from solver.core.venue import Arc, ConstantProductArc, LevelsArc, Quote, Step


class NotExecutable(Exception):
    """A pool of an instance file has no contract behind it; it can be solved, not settled."""


def constant_product_out(
    amount_in: int, reserve_in: int, reserve_out: int, fee_num: int, fee_den: int
) -> int:
    """Uniswap v2 ``getAmountOut`` for any rational fee, rounded down."""
    net = amount_in * (fee_den - fee_num)
    return net * reserve_out // (reserve_in * fee_den + net)


def constant_product_in(
    amount_out: int, reserve_in: int, reserve_out: int, fee_num: int, fee_den: int
) -> int:
    """Uniswap v2 ``getAmountIn``: rounded down and one added, as the library does.

    ``amount_out`` must be below ``reserve_out``.
    """
    cost = reserve_in * amount_out * fee_den
    return cost // ((reserve_out - amount_out) * (fee_den - fee_num)) + 1


class ConstantProductPool(Struct, frozen=True, kw_only=True):
    """x·y = k with a fee of ``fee_num``/``fee_den`` on the input."""

    id: str
    token0: TokenId
    token1: TokenId
    reserve0: int
    reserve1: int
    fee_num: int
    fee_den: int
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Both tokens, in the contract's order."""
        return (self.token0, self.token1)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`; an output of the whole reserve saturates."""
        forward = (token_in, token_out) == (self.token0, self.token1)
        if not forward and (token_in, token_out) != (self.token1, self.token0):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        x, y = (self.reserve0, self.reserve1) if forward else (self.reserve1, self.reserve0)
        if amount <= 0 or x <= 0 or y <= 1:
            return Step(0, 0, 0, self)
        if exact is Exact.IN:
            amount_in = amount
            amount_out = constant_product_out(amount, x, y, self.fee_num, self.fee_den)
        else:
            amount_out = min(amount, y - 1)
            amount_in = constant_product_in(amount_out, x, y, self.fee_num, self.fee_den)
        if amount_out == 0:
            return Step(0, 0, 0, self)
        x, y = x + amount_in, y - amount_out
        after = replace(self, reserve0=x if forward else y, reserve1=y if forward else x)
        return Step(amount_in, amount_out, self.gas, after)

    def arcs(self) -> Sequence[Arc]:
        """One exact arc per direction; none for an empty pool."""
        if self.reserve0 <= 0 or self.reserve1 <= 0:
            return ()
        fee = self.fee_num / self.fee_den
        return (
            ConstantProductArc(
                self.token0, self.token1, self.reserve0, self.reserve1, fee, self.gas
            ),
            ConstantProductArc(
                self.token1, self.token0, self.reserve1, self.reserve0, fee, self.gas
            ),
        )

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")


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
        fee = self.taker_fee_bps / BPS
        sell = tuple(
            (float(level.lots * self.lot_size), level.price * (1 - fee) / self.lot_size)
            for level in self.bids
        )
        buy = tuple(
            (level.lots * level.price * (1 + fee), self.lot_size / (level.price * (1 + fee)))
            for level in self.asks
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


class LimitOrderPool(Struct, frozen=True, kw_only=True):
    """A foreign limit order (0x style): up to ``maker_amount`` for ``taker_amount``, pro rata."""

    id: str
    maker_token: TokenId
    taker_token: TokenId
    maker_amount: int
    taker_amount: int
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """What it takes, then what it gives."""
        return (self.taker_token, self.maker_token)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """Pro rata of what is left; output rounds down, input up."""
        if (token_in, token_out) != (self.taker_token, self.maker_token):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        if amount <= 0 or self.taker_amount <= 0 or self.maker_amount <= 0:
            return Step(0, 0, 0, self)
        if exact is Exact.IN:
            amount_in = min(amount, self.taker_amount)
            amount_out = amount_in * self.maker_amount // self.taker_amount
        else:
            amount_out = min(amount, self.maker_amount)
            amount_in = -(-amount_out * self.taker_amount // self.maker_amount)
        if amount_out == 0:
            return Step(0, 0, 0, self)
        after = replace(
            self,
            maker_amount=self.maker_amount - amount_out,
            taker_amount=self.taker_amount - amount_in,
        )
        return Step(amount_in, amount_out, self.gas, after)

    def arcs(self) -> Sequence[Arc]:
        """One linear arc."""
        if self.taker_amount <= 0:
            return ()
        level = (float(self.taker_amount), self.maker_amount / self.taker_amount)
        return (LevelsArc(self.taker_token, self.maker_token, (level,), self.gas),)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A foreign order of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")


class RoutePool(Struct, frozen=True, kw_only=True):
    """A bridge of an instance file: its price list, without a contract behind it."""

    id: str
    quote: Quote

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Source, then destination."""
        return (self.quote.token_in, self.quote.token_out)

    def route(self) -> Quote:
        """The price list."""
        return self.quote

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """Nothing: what a bridge delivers exists in no bundle of the file."""
        return Step(0, 0, 0, self)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """Raises NotExecutable."""
        raise NotExecutable(self.id)

"""x·y = k with a fee on the input, to the unit as Uniswap v2."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.base import NotExecutable
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, ConstantProductArc, Step


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

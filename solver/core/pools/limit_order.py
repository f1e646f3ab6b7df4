"""A foreign limit order as a pool."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.base import NotExecutable
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, LevelsArc, Step


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

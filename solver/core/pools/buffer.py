"""An ERC-4626 vault as a pool: wrap the underlying token, unwrap the share, at the vault's rate."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.base import NotExecutable
from solver.core.pools.fixed_point import ONE
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, LevelsArc, Step

MINIMUM_WRAP = 1000  # Balancer V3's vault refuses less, of the amount that is named


class BufferPool(Struct, frozen=True, kw_only=True):
    """``rate`` is what 1e18 units of the share are worth in units of the underlying token.

    ``wrapped_left`` and ``underlying_left`` are the most that can come out of it. Conversions round
    as previewDeposit, previewMint, previewRedeem and previewWithdraw do: output down, input up.
    """

    id: str
    wrapped: TokenId
    underlying: TokenId
    rate: int
    wrapped_left: int
    underlying_left: int
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """The share, then the underlying token."""
        return (self.wrapped, self.underlying)

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`; saturates at what can come out."""
        wrapping = (token_in, token_out) == (self.underlying, self.wrapped)
        if not wrapping and (token_in, token_out) != (self.wrapped, self.underlying):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        left = self.wrapped_left if wrapping else self.underlying_left
        above, below = (ONE, self.rate) if wrapping else (self.rate, ONE)  # output per input
        if amount < MINIMUM_WRAP or self.rate <= 0 or left <= 0:
            return Step(0, 0, 0, self)
        if exact is Exact.IN:
            amount_in = min(amount, left * below // above)
            amount_out = amount_in * above // below
        else:
            amount_out = min(amount, left)
            amount_in = -(-amount_out * below // above)
        if amount_out <= 0 or (amount_in if exact is Exact.IN else amount_out) < MINIMUM_WRAP:
            return Step(0, 0, 0, self)
        if wrapping:
            shares, assets = self.wrapped_left - amount_out, self.underlying_left + amount_in
        else:
            shares, assets = self.wrapped_left + amount_in, self.underlying_left - amount_out
        after = replace(self, wrapped_left=shares, underlying_left=assets)
        return Step(amount_in, amount_out, self.gas, after)

    def arcs(self) -> Sequence[Arc]:
        """One linear arc per direction."""
        if self.rate <= 0:
            return ()
        rate = self.rate / ONE
        wrap = LevelsArc(
            self.underlying, self.wrapped, ((self.wrapped_left * rate, 1 / rate),), self.gas
        )
        unwrap = LevelsArc(
            self.wrapped, self.underlying, ((self.underlying_left / rate, rate),), self.gas
        )
        return tuple(arc for arc in (wrap, unwrap) if arc.levels[0][0] > 0)

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")

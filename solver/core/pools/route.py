"""A bridge of an instance file."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from solver.core.pools.base import NotExecutable
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Quote, Step


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

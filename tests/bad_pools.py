"""Pools that break the protocol where the market's probe does not look: above a large amount.

A module of its own, because the solver's process has to import the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from solver.core.pools import ConstantProductPool
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Step
from tests.make import UNIT, A, B, pair

THRESHOLD = 10**19


class BadPool(Struct, frozen=True):
    """A pool whose ``swap`` is sound up to ``threshold`` and does ``act`` above."""

    act: str
    id: str = "bad"
    pool: ConstantProductPool = pair("bad", A, B, 100 * UNIT, 110 * UNIT)
    threshold: int = THRESHOLD

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        return self.pool.tokens

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        step = self.pool.swap(token_in, token_out, amount, exact)
        out: Any = step.amount_out
        if amount >= self.threshold:
            if self.act == "raise":
                raise RuntimeError("boom")
            while self.act == "loop":
                pass
            out = {"float": float(out), "negative": -out}.get(self.act, out)
        return Step(step.amount_in, out, step.gas, self)

    def encode(self, leg: Leg) -> Sequence[Call]:
        return ()


class Declaring(BadPool, frozen=True):
    """The same with an arc of its own, so that only the replay swaps in it."""

    def arcs(self) -> Any:
        return self.pool.arcs()

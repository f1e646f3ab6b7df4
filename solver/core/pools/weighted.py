"""Π balance^weight = const (Balancer), 2 to 8 tokens, to the unit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import permutations

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.balancer import Scale, Side, quote_v2, quote_v3, saturate, upscaled
from solver.core.pools.base import NotExecutable
from solver.core.pools.fixed_point import (
    ONE,
    Reverts,
    complement,
    div_down,
    div_up,
    mul_down,
    mul_up,
    pow_down,
    pow_up,
    sub,
)
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, Step, WeightedArc

MAX_RATIO = 3 * ONE // 10  # of the balance that one swap may bring in or take out


class WeightedVersion(Enum):
    """Whose rounding: the first V2 pools, those since V2's third version, or V3."""

    V0 = "v0"
    V3_PLUS = "v3Plus"
    BALANCER_V3 = "balancerV3"


def weighted_out(
    balance_in: int, weight_in: int, balance_out: int, weight_out: int, amount_in: int, fast: bool
) -> int:
    """``calcOutGivenIn``: b_o·(1 − (b_i/(b_i + a))^(w_i/w_o)), rounded down; all of 18 digits.

    ``fast``: whole powers by multiplication. Raises Reverts above 30 % of the input balance.
    """
    if amount_in > mul_down(balance_in, MAX_RATIO):
        raise Reverts("MAX_IN_RATIO")
    base = div_up(balance_in, balance_in + amount_in)
    factor = pow_up(base, div_down(weight_in, weight_out), fast)
    return mul_down(balance_out, complement(factor))


def weighted_in(
    balance_in: int, weight_in: int, balance_out: int, weight_out: int, amount_out: int, fast: bool
) -> int:
    """``calcInGivenOut``: b_i·((b_o/(b_o − a))^(w_o/w_i) − 1), rounded up; all of 18 digits.

    ``fast``: whole powers by multiplication. Raises Reverts above 30 % of the output balance.
    """
    if amount_out > mul_down(balance_out, MAX_RATIO):
        raise Reverts("MAX_OUT_RATIO")
    base = div_up(balance_out, balance_out - amount_out)
    factor = pow_up(base, div_up(weight_out, weight_in), fast)
    return mul_up(balance_in, sub(factor, ONE))


def weighted_invariant(weights: Sequence[int], balances: Sequence[int], fast: bool) -> int:
    """Π balance^weight, rounded down; all of 18 digits."""
    invariant = ONE
    for weight, balance in zip(weights, balances, strict=True):
        invariant = mul_down(invariant, pow_down(balance, weight, fast))
    if invariant == 0:
        raise Reverts("ZERO_INVARIANT")
    return invariant


def moved_weight(start: int, end: int, start_time: int, end_time: int, now: int) -> int:
    """A weight on its way from one value to another (bootstrapping pools), in 18 digits.

    The share of the time that has passed and the change are both rounded down, as in
    ``GradualValueChange.sol``.
    """
    if now >= end_time:
        return end
    if now <= start_time:
        return start
    passed = div_down(now - start_time, end_time - start_time)
    change = mul_down(passed, abs(end - start))
    return start + change if end > start else start - change


class WeightedPool(Struct, frozen=True, kw_only=True):
    """A weighted pool. ``balances`` in base units; ``weights``, ``rates`` and ``fee`` in 18 digits;
    ``scaling`` multiplies a base unit to 18 decimals. ``trade_limit``, below one, is the share of
    either balance, in 18 digits, that one swap may move (QuantAMM).
    """

    id: str
    coins: tuple[TokenId, ...]
    balances: tuple[int, ...]
    weights: tuple[int, ...]
    scaling: tuple[int, ...]
    rates: tuple[int, ...]
    fee: int
    version: WeightedVersion
    gas: int
    trade_limit: int = ONE

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """All coins, in the contract's order."""
        return self.coins

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`; saturates at 30 % of a balance."""
        if token_in == token_out or not {token_in, token_out} <= set(self.coins):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        i, o = self.coins.index(token_in), self.coins.index(token_out)
        if amount <= 0 or self.balances[i] <= 0 or self.balances[o] <= 0:
            return Step(0, 0, 0, self)
        side = Side(self._scale(i), self._scale(o), self.fee)
        fast = self.version is not WeightedVersion.V0
        quote = quote_v3 if self.version is WeightedVersion.BALANCER_V3 else quote_v2
        ends = (
            upscaled(self.balances[i], side.token_in),
            self.weights[i],
            upscaled(self.balances[o], side.token_out),
            self.weights[o],
        )

        def other(given: int) -> int:
            return quote(
                side,
                lambda a: self._limited(ends, a, weighted_out(*ends, a, fast))[1],
                lambda a: self._limited(ends, weighted_in(*ends, a, fast), a)[0],
                given,
                exact,
            )

        share = min(MAX_RATIO, self.trade_limit)
        most = mul_down(self.balances[i if exact is Exact.IN else o], share) + 2
        if exact is Exact.IN and self.fee < ONE:
            most = most * ONE // (ONE - self.fee) + 2
        given, answer = saturate(other, amount, most)
        if answer <= 0:
            return Step(0, 0, 0, self)
        amount_in, amount_out = (given, answer) if exact is Exact.IN else (answer, given)
        balances = list(self.balances)
        balances[i] += amount_in
        balances[o] -= amount_out
        after = replace(self, balances=tuple(balances))
        return Step(amount_in, amount_out, self.gas, after)

    def arcs(self) -> Sequence[Arc]:
        """One arc per ordered pair; scaling and rates cancel in the ratios of one token's amounts.

        The limit of 30 % of a balance per swap is not in them: they are an outer bound beyond it.
        """
        fee = self.fee / ONE
        if fee >= 1.0:
            return ()
        coins = [
            (token, float(balance), weight / ONE)
            for token, balance, weight in zip(self.coins, self.balances, self.weights, strict=True)
            if balance > 0 and weight > 0
        ]
        return tuple(
            [
                WeightedArc(a, b, sold, bought, weight_a, weight_b, fee, self.gas)
                for (a, sold, weight_a), (b, bought, weight_b) in permutations(coins, 2)
            ]
        )

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")

    def _limited(
        self, ends: tuple[int, int, int, int], amount_in: int, amount_out: int
    ) -> tuple[int, int]:
        balance_in, _, balance_out, _ = ends
        if amount_in > mul_down(balance_in, self.trade_limit) and self.trade_limit < ONE:
            raise Reverts("MAX_TRADE_SIZE")
        if amount_out > mul_down(balance_out, self.trade_limit):
            raise Reverts("MAX_TRADE_SIZE")
        return amount_in, amount_out

    def _scale(self, index: int) -> Scale:
        return Scale(self.scaling[index], self.rates[index])

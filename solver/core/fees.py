"""Fees that are taken from what a trade earns its owner: protocol policies and the solver's own.

A fee is in the order's *surplus token*: the bought token of an exact-in (sell) order, which then
gets less, and the sold token of an exact-out (buy) order, which then pays more. Policies apply in
order, each to the trade that the ones before it left:

- ``SurplusFee``: factor·(surplus over the limit), at most max_volume_factor·volume;
- ``PriceImprovementFee``: the same over a reference quote, or over the limit where that is better
  for the owner;
- ``VolumeFee``: factor·volume. Unlike the others it may take a trade below its limit: who executes
  it has to leave room.

Volume is what is bought (exact-in) or sold (exact-out), before the fee. Amounts are integers. The
limit of a partial fill is rounded towards the owner (⌈bought⌉, ⌊sold⌋), every fee down.

These are the definitions of CoW Protocol (CIP-38 and its fee policies), including the arithmetic of
factors: a factor is a double as in its auctions, used as the integer nearest to factor·10^18.
Products are not limited to 256 bits here; the reference gives up on those that are larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from solver.core.types import UINT256_MAX, Kind

#: Factors are used as integers of this many parts.
PARTS = 10**18


class Unscorable(ValueError):
    """A trade for which surplus or fees are not defined, with the reason."""


class Execution(Struct, frozen=True):
    """What was traded for an order, and the order's limit; base units.

    ``limit_sell`` and ``limit_buy`` are the signed amounts of the whole order, ``sell`` and ``buy``
    what left and reached its owner. Raises ValueError for amounts that no token has or a limit with
    a zero in it.
    """

    kind: Kind
    limit_sell: int
    limit_buy: int
    sell: int
    buy: int

    def __post_init__(self) -> None:
        amounts = (self.limit_sell, self.limit_buy, self.sell, self.buy)
        if not all(0 <= amount <= UINT256_MAX for amount in amounts):
            raise ValueError("an amount is not an unsigned integer of 256 bits")
        if not self.limit_sell or not self.limit_buy:
            raise ValueError("the signed amounts of an order are positive")

    @property
    def volume(self) -> int:
        """What is exchanged, in the surplus token."""
        return self.buy if self.kind is Kind.EXACT_IN else self.sell

    def surplus_over(self, sell: int, buy: int) -> int:
        """How much better than the rate buy/sell it went, in the surplus token; may be negative."""
        if self.kind is Kind.EXACT_IN:
            return self.buy - -(-self.sell * buy // sell)
        return sell * self.buy // buy - self.sell

    @property
    def surplus(self) -> int:
        """How much better than the limit it went, in the surplus token; negative is worse."""
        return self.surplus_over(self.limit_sell, self.limit_buy)

    def less(self, fee: int) -> Execution:
        """The same after a fee in the surplus token; a negative one is given back.

        Raises Unscorable when that leaves no amount of a token.
        """
        exact_in = self.kind is Kind.EXACT_IN
        left = self.buy - fee if exact_in else self.sell + fee
        if not 0 <= left <= UINT256_MAX:
            raise Unscorable("the fee exceeds the trade")
        return replace(self, buy=left) if exact_in else replace(self, sell=left)


class ReferenceQuote(Struct, frozen=True):
    """The best quote when the order was made; base units, ``fee`` (network) in the sold token."""

    sell: int
    buy: int
    fee: int = 0


class SurplusFee(Struct, frozen=True):
    """A share of the surplus over the limit. Raises ValueError for a factor outside [0, 1]."""

    factor: float
    max_volume_factor: float

    def __post_init__(self) -> None:
        _check(self.factor, self.max_volume_factor)


class PriceImprovementFee(Struct, frozen=True):
    """A share of the surplus over a quote. Raises ValueError for a factor outside [0, 1]."""

    factor: float
    max_volume_factor: float
    quote: ReferenceQuote

    def __post_init__(self) -> None:
        _check(self.factor, self.max_volume_factor)


class VolumeFee(Struct, frozen=True):
    """A share of the volume. Raises ValueError for a factor outside [0, 1]."""

    factor: float

    def __post_init__(self) -> None:
        _check(self.factor)


FeePolicy = SurplusFee | PriceImprovementFee | VolumeFee


class Charged(Struct, frozen=True):
    """A trade after fees. ``policies`` has one fee per policy, in their order; surplus token."""

    execution: Execution
    policies: tuple[int, ...]
    solver: int

    @property
    def total(self) -> int:
        """All fees together, in the surplus token."""
        return sum(self.policies) + self.solver


def charge(
    execution: Execution, policies: Sequence[FeePolicy] = (), solver_factor: float = 0.0
) -> Charged:
    """Take the policies' fees one after another, then the solver's own.

    The solver's fee is ⌊volume·solver_factor⌋ of what the policies left, but never more than the
    surplus that is still there: it takes nobody below the limit. Raises ValueError for a factor
    outside [0, 1], Unscorable for a reference quote without a rate.
    """
    _check(solver_factor)
    fees = []
    for policy in policies:
        fee = _fee(execution, policy)
        fees.append(fee)
        execution = execution.less(fee)
    own = min(_part(execution.volume, solver_factor), max(0, execution.surplus))
    return Charged(execution.less(own), tuple(fees), own)


def charged(execution: Execution, policies: Sequence[FeePolicy]) -> tuple[int, ...]:
    """The fees that a trade has already paid, one per policy, in the surplus token.

    The reverse of :func:`charge`, as the protocol scores trades: the last policy is undone first.
    A share f of the surplus or of the bought volume *before* the fee is f/(1−f) of it *after* the
    fee, of the sold volume f/(1+f); these quotients are doubles, used to 18 digits. So the two
    agree up to rounding of about 10⁻¹⁶ of the volume for the quotient, and one unit per fee.

    Raises Unscorable where the trade is worse than its limit under a surplus policy, or where
    f/(1−f) is not finite.
    """
    fees: list[int] = []
    before = execution
    for policy in reversed(policies):
        fees.append(_paid(before, policy))
        # Always from what was really traded, so that nothing but the sum carries over.
        before = execution.less(-sum(fees))
    return tuple(reversed(fees))


def limits(execution: Execution, quote: ReferenceQuote) -> tuple[int, int]:
    """The rate (sold, bought) of a quote net of its network fee, for the order's signed amount.

    It is never worse for the owner than the order's own limit. Rounded down throughout, as the
    reference does. Raises Unscorable for a quote without a rate or with a fee beyond its amount.
    """
    if execution.kind is Kind.EXACT_IN:
        if not quote.sell or quote.fee * quote.buy // quote.sell > quote.buy:
            raise Unscorable("the reference quote sells nothing")
        net = quote.buy - quote.fee * quote.buy // quote.sell
        scaled = net * execution.limit_sell // quote.sell
        return execution.limit_sell, max(execution.limit_buy, scaled)
    if not quote.buy:
        raise Unscorable("the reference quote buys nothing")
    scaled = (quote.sell + quote.fee) * execution.limit_buy // quote.buy
    return min(execution.limit_sell, scaled), execution.limit_buy


def _fee(execution: Execution, policy: FeePolicy) -> int:
    """The fee of one policy on a trade that has not paid it."""
    if isinstance(policy, VolumeFee):
        return _part(execution.volume, policy.factor)
    sell, buy = execution.limit_sell, execution.limit_buy
    if isinstance(policy, PriceImprovementFee):
        sell, buy = limits(execution, policy.quote)
    # A trade below its limit is no business of fees; it fails elsewhere.
    gained = max(0, execution.surplus_over(sell, buy))
    return min(_part(gained, policy.factor), _part(execution.volume, policy.max_volume_factor))


def _paid(execution: Execution, policy: FeePolicy) -> int:
    """The fee of one policy that is part of a trade."""
    if isinstance(policy, VolumeFee):
        return _part(execution.volume, _of_the_rest(execution.kind, policy.factor))
    if isinstance(policy, PriceImprovementFee):
        gained = max(0, execution.surplus_over(*limits(execution, policy.quote)))
    else:
        gained = execution.surplus
        if gained < 0:
            raise Unscorable("the trade is worse than its limit")
    cap = _of_the_rest(execution.kind, policy.max_volume_factor)
    return min(
        _part(gained, _of_the_rest(Kind.EXACT_IN, policy.factor)), _part(execution.volume, cap)
    )


def _of_the_rest(kind: Kind, factor: float) -> float:
    """A share of the amount before a fee as a share of the amount after it."""
    rest = 1.0 - factor if kind is Kind.EXACT_IN else 1.0 + factor
    if rest == 0.0:
        raise Unscorable("a fee of everything leaves nothing to see it by")
    return factor / rest


def _part(amount: int, factor: float) -> int:
    """⌊amount·factor⌋, the factor as the nearest integer of 10^-18, halves up.

    The sum is a sum of doubles, because the reference's is: it moves the last digit of some factors
    between 2⁵² and 2⁵³ of these parts.
    """
    return amount * parts_of(factor) // PARTS


def parts_of(factor: float) -> int:
    """A factor in parts, halves up."""
    return int(factor * PARTS + 0.5)


def _check(*factors: float) -> None:
    for factor in factors:
        if not (math.isfinite(factor) and 0.0 <= factor <= 1.0):
            raise ValueError(f"a fee factor is between 0 and 1, not {factor}")

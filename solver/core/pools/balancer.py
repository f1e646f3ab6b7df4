"""What Balancer's vaults do around a curve: scaling, rates, fee, and where each of them rounds.

A balance of ``b`` base units is b·scaling·rate/1e18 in the curve's 18 digits. V2 (and the solver
engine of CoW) takes the fee from the input in base units and scales afterwards; V3 scales first,
rounds the rate of the output token up, and refuses amounts below 1e6 of the scaled unit.
Sources: ``BasePool.sol`` of V2, ``Vault.sol`` and ``ScalingHelpers.sol`` of V3.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from solver.core.pools.fixed_point import (
    ONE,
    Reverts,
    complement,
    div_down,
    div_up,
    mul_down,
    mul_up,
    sub,
)
from solver.core.types import Exact

MINIMUM_TRADE = 10**6
_BUMPS = 6

Curve = Callable[[int], int]
Hook = Callable[[int, int], int]


class Scale(Struct, frozen=True):
    """How a token is scaled: an integer multiplier to 18 decimals and a rate of 18 digits."""

    scaling: int
    rate: int

    @property
    def factor(self) -> int:
        """The curve's units per base unit, in 18 digits."""
        return self.scaling * self.rate

    @property
    def factor_up(self) -> int:
        """The same with the rate rounded up unless it is a whole number (V3, output token)."""
        return self.scaling * (self.rate + (self.rate % ONE != 0))


class Side(Struct, frozen=True):
    """One direction of a pool: what the vault needs to know besides the curve."""

    token_in: Scale
    token_out: Scale
    fee: int


def subtract_fee(amount: int, fee: int) -> int:
    """What is left of an input; the fee rounds up."""
    return sub(amount, mul_up(amount, fee))


def add_fee(amount: int, fee: int) -> int:
    """The input of which ``amount`` is left; rounds up."""
    return div_up(amount, complement(fee))


def upscaled(balance: int, scale: Scale) -> int:
    """A balance in the curve's units, rounded down."""
    return mul_down(balance, scale.factor)


def quote_v2(side: Side, out: Curve, cost: Curve, amount: int, exact: Exact) -> int:
    """The other amount of a swap in V2. Raises Reverts where the contract reverts.

    An exact output is answered with an input that brings at least as much when it is *sold*,
    because the two formulas disagree by rounding: up to six tries with tenfold bumps, as the
    solver engine of CoW does.
    """

    def sold(amount_in: int) -> int:
        net = subtract_fee(amount_in, side.fee)
        return div_down(out(mul_down(net, side.token_in.factor)), side.token_out.factor)

    if exact is Exact.IN:
        return sold(amount)
    net = div_up(cost(mul_down(amount, side.token_out.factor)), side.token_in.factor)
    amount_in = add_fee(net, side.fee)
    brought = sold(amount_in)
    if brought >= amount:
        return amount_in
    bump = max(1, -(-(amount - brought) * amount_in // max(1, brought)))
    for _ in range(_BUMPS):
        if sold(amount_in + bump) >= amount:
            return amount_in + bump
        bump *= 10
    raise Reverts("NO_CONVERGENCE")


def quote_v3(
    side: Side, out: Curve, cost: Curve, amount: int, exact: Exact, hook: Hook | None = None
) -> int:
    """The other amount of a swap in V3. Raises Reverts where the contract reverts.

    ``hook`` gives the fee of a swap of so much in and out, both scaled and without a fee.
    """
    if exact is Exact.IN:
        given = mul_down(amount, side.token_in.factor)
        fee = side.fee if hook is None else hook(given, out(given))
        given = _tradable(sub(given, mul_up(given, fee)))
        return div_down(_tradable(out(given)), side.token_out.factor_up)
    wanted = _tradable(mul_up(amount, side.token_out.factor_up))
    net = _tradable(cost(wanted))
    fee = side.fee if hook is None else hook(net, wanted)
    if fee >= ONE:
        raise Reverts("ZERO_DIVISION")
    gross = net - (-net * fee // complement(fee))
    return div_up(gross, side.token_in.factor)


def saturate(quote: Curve, amount: int, hint: int) -> tuple[int, int]:
    """(amount, quote) for the largest amount up to ``amount`` that does not revert, else (0, 0).

    ``hint`` is a guess of that amount from above; the search gallops down from it.
    """
    answer = _attempt(quote, amount)
    if answer is not None:
        return amount, answer
    high, low, step = min(amount, max(1, hint)), 0, 1
    best = (0, 0)
    while high - step > 0:
        answer = _attempt(quote, high - step)
        if answer is not None:
            low = high - step
            best = (low, answer)
            break
        high -= step
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        answer = _attempt(quote, middle)
        if answer is None:
            high = middle
        else:
            low = middle
            best = (middle, answer)
    return best


def _attempt(quote: Curve, amount: int) -> int | None:
    try:
        return quote(amount)
    except Reverts:
        return None


def _tradable(amount: int) -> int:
    if amount < MINIMUM_TRADE:
        raise Reverts("TRADE_AMOUNT_TOO_SMALL")
    return amount

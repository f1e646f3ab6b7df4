"""The stable invariant as Curve computes it: get_D, get_y and their variants, fee on the output.

Source: the public Vyper contracts of Curve's plain pools. Their deployments differ in how D's
product is rounded, whether A carries a precision, and where that precision enters y.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import permutations

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.balancer import saturate
from solver.core.pools.base import NotExecutable
from solver.core.pools.fixed_point import ONE, Reverts
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, StableArc, Step

FEE_DENOMINATOR = 10**10
A_PRECISION = 100
_ROUNDS = 255
_WORD = 2**256


class DVariant(Enum):
    """How a deployment steps to D: with or without A's precision, and its product of balances."""

    STANDARD = 1
    PLAIN_A = 2  # A without precision
    PLAIN_A_GUARDED = 3  # and one added below, against a zero balance
    GUARDED = 4
    TWO_COINS = 5  # the product of the first two balances over n²
    TWO_COINS_POWER = 6  # the same over n^n


class YVariant(Enum):
    """Whether A's precision enters y (STANDARD) or A is plain (both others)."""

    STANDARD = 1
    PLAIN_A = 2
    PLAIN_A_TOO = 3


_PLAIN_D = frozenset({DVariant.PLAIN_A, DVariant.PLAIN_A_GUARDED})
_GUARDED_D = frozenset({DVariant.PLAIN_A_GUARDED, DVariant.GUARDED})


class CurveVariant(Enum):
    """A family of deployments.

    PRECISE: A given times 100, precision in D and y. PLAIN: A as it is, in both (3pool and other
    early pools). GUARDED: PRECISE with one added below the product of D.
    """

    PRECISE = "precise"
    PLAIN = "plain"
    GUARDED = "guarded"


_RULES = {
    CurveVariant.PRECISE: (DVariant.STANDARD, YVariant.STANDARD, A_PRECISION),
    CurveVariant.PLAIN: (DVariant.PLAIN_A, YVariant.PLAIN_A, 1),
    CurveVariant.GUARDED: (DVariant.GUARDED, YVariant.STANDARD, A_PRECISION),
}


def curve_d(balances: Sequence[int], amp: int, precision: int, variant: DVariant) -> int:
    """D by Newton, each division rounded down. Raises Reverts without convergence."""
    count, total = len(balances), sum(balances)
    if total == 0:
        return 0
    ann, d = amp * count, total
    for _ in range(_ROUNDS):
        product = _product(balances, d, variant)
        previous = d
        if variant in _PLAIN_D:
            above = _word((ann * total + product * count) * d)
            d = _over(above, (ann - 1) * d + (count + 1) * product)
        else:
            above = _word((ann * total // precision + product * count) * d)
            d = _over(above, (ann - precision) * d // precision + (count + 1) * product)
        if abs(d - previous) <= 1:
            return d
    raise Reverts("D_DID_NOT_CONVERGE")


def _product(balances: Sequence[int], d: int, variant: DVariant) -> int:
    """D^(n+1)/(n^n·Πx), as the variant rounds it."""
    count = len(balances)
    if variant in (DVariant.TWO_COINS, DVariant.TWO_COINS_POWER):
        power = 2 if variant is DVariant.TWO_COINS else count
        halves = _over(_over(_word(d * d), balances[0]) * d, balances[1])
        return halves // int(count**power)
    guard = 1 if variant in _GUARDED_D else 0
    product = d
    for balance in balances:
        product = _over(_word(product * d), balance * count + guard)
    return product


def curve_y(
    index_in: int,
    index_out: int,
    x: int,
    balances: Sequence[int],
    d: int,
    amp: int,
    precision: int,
    variant: YVariant,
) -> int:
    """The balance of one coin when another is ``x`` and D stays; Newton, rounded down."""
    moved = list(balances)
    moved[index_in] = x
    precise = variant is YVariant.STANDARD
    return curve_y_of_d(index_out, moved, d, amp, precision, precise)


def curve_y_of_d(
    index: int, balances: Sequence[int], d: int, amp: int, precision: int, precise: bool
) -> int:
    """The balance of one coin, given the others and D; Newton, rounded down.

    ``precise``: A carries ``precision``.
    """
    count = len(balances)
    c, others = d, 0
    for k, balance in enumerate(balances):
        if k != index:
            others += balance
            c = _over(_word(c * d), balance * count)
    ann = amp * count
    if precise:
        c = _over(_word(c * d * precision), ann * count)
        b = others + _over(d * precision, ann)
    else:
        c = _over(_word(c * d), ann * count)
        b = others + _over(d, ann)
    y = d
    for _ in range(_ROUNDS):
        previous = y
        y = _over(_word(y * y + c), 2 * y + b - d)
        if abs(y - previous) <= 1:
            return y
    raise Reverts("Y_DID_NOT_CONVERGE")


class CurvePool(Struct, frozen=True, kw_only=True):
    """A plain Curve pool. ``balances`` in base units; ``rates`` bring a base unit to the common
    unit when multiplied and divided by 1e18 (1e18 for 18 decimals, 1e30 for 6); ``fee`` of 1e10,
    taken from the output; ``amp`` as the variant holds it.
    """

    id: str
    coins: tuple[TokenId, ...]
    balances: tuple[int, ...]
    amp: int
    rates: tuple[int, ...]
    fee: int
    variant: CurveVariant
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """All coins, in the contract's order."""
        return self.coins

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`.

        The plain pools have only exact input on chain; exact output is the least input that
        brings at least ``amount``, found from the invariant and corrected by exact swaps.
        """
        if token_in == token_out or not {token_in, token_out} <= set(self.coins):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        i, o = self.coins.index(token_in), self.coins.index(token_out)
        if amount <= 0 or min(self.balances) <= 0:
            return Step(0, 0, 0, self)
        try:
            balances, d = self._state()
        except Reverts:
            return Step(0, 0, 0, self)

        def sold(given: int) -> int:
            return self._dy(balances, d, i, o, given)

        if exact is Exact.IN:
            given, answer = saturate(sold, amount, amount)
        else:
            most = min(amount, self.balances[o])
            wanted, given = saturate(lambda out: self._dx(balances, d, i, o, out), most, most)
            answer = min(wanted, sold(given)) if given > 0 else 0
        if answer <= 0:
            return Step(0, 0, 0, self)
        after = list(self.balances)
        after[i] += given
        after[o] -= answer
        return Step(given, answer, self.gas, replace(self, balances=tuple(after)))

    def arcs(self) -> Sequence[Arc]:
        """One arc per ordered pair; none where the contract finds no invariant."""
        if self.fee >= FEE_DENOMINATOR or min(self.balances) <= 0:
            return ()
        try:
            balances, _ = self._state()
        except Reverts:
            return ()
        units = tuple(float(balance) for balance in balances)
        scales = tuple(rate / ONE for rate in self.rates)
        ann = self.amp * len(self.coins) / _RULES[self.variant][2]
        fee = self.fee / FEE_DENOMINATOR
        return tuple(
            StableArc(self.coins[i], self.coins[o], i, o, units, scales, ann, 0.0, fee, self.gas)
            for i, o in permutations(range(len(self.coins)), 2)
        )

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")

    def _state(self) -> tuple[tuple[int, ...], int]:
        rule, _, precision = _RULES[self.variant]
        pairs = zip(self.balances, self.rates, strict=True)
        balances = tuple(balance * rate // ONE for balance, rate in pairs)
        if min(balances) <= 0:
            raise Reverts("ZERO_DIVISION")
        return balances, curve_d(balances, self.amp, precision, rule)

    def _dy(self, balances: Sequence[int], d: int, i: int, o: int, amount: int) -> int:
        """``get_dy``: one unit less than y leaves, minus the fee, scaled down; all rounded down."""
        _, rule, precision = _RULES[self.variant]
        x = balances[i] + amount * self.rates[i] // ONE
        y = curve_y(i, o, x, balances, d, self.amp, precision, rule)
        gross = balances[o] - y - 1
        if gross < 0:
            raise Reverts("SUB_OVERFLOW")
        net = gross - gross * self.fee // FEE_DENOMINATOR
        return _over(net * ONE, self.rates[o])

    def _dx(self, balances: Sequence[int], d: int, i: int, o: int, amount: int) -> int:
        """The least input whose ``get_dy`` is at least ``amount``."""
        _, rule, precision = _RULES[self.variant]
        net = -(-amount * self.rates[o] // ONE)
        gross = _over(net * FEE_DENOMINATOR, FEE_DENOMINATOR - self.fee, up=True)
        if gross + 1 >= balances[o]:
            raise Reverts("SUB_OVERFLOW")
        y = balances[o] - gross - 1
        x = curve_y(o, i, y, balances, d, self.amp, precision, rule)
        high, step = _over(max(1, x - balances[i] + 1) * ONE, self.rates[i], up=True), 1
        low = high
        while self._dy(balances, d, i, o, high) < amount:
            low, high, step = high, high + step, step * 2
        while low == high or (low > 0 and self._dy(balances, d, i, o, low) >= amount):
            high, low, step = low, max(0, low - step), step * 2
        while high - low > 1:
            middle = (low + high) // 2
            enough = self._dy(balances, d, i, o, middle) >= amount
            low, high = (low, middle) if enough else (middle, high)
        return high


def _over(a: int, b: int, up: bool = False) -> int:
    """a/b; zero or less below reverts."""
    if b <= 0:
        raise Reverts("ZERO_DIVISION")
    return -(-a // b) if up else a // b


def _word(value: int) -> int:
    if value >= _WORD:
        raise Reverts("MUL_OVERFLOW")
    return value

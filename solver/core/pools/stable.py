"""The stable invariant as Balancer computes it (V2, composable V2 without its own token, V3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import permutations

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.balancer import Scale, Side, quote_v2, quote_v3, saturate, upscaled
from solver.core.pools.base import NotExecutable
from solver.core.pools.fixed_point import ONE, Reverts, complement, div_down, mul_down, sub
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, StableArc, Step

Vector = tuple[int, int]

AMP_PRECISION = 1000
_ROUNDS = 255
_WORD = 2**256


class StableVersion(Enum):
    """Whose rounding: V2 with the invariant rounded down, the first V2 pools that round it up
    (StablePool and MetaStablePool as deployed), or V3.
    """

    BALANCER_V2 = "balancerV2"
    BALANCER_V2_ROUND_UP = "balancerV2RoundUp"
    BALANCER_V3 = "balancerV3"


def stable_invariant(amp: int, balances: Sequence[int]) -> int:
    """D of A·n·Σx + D = A·n·D + D^(n+1)/(n^n·Πx) by Newton, rounded down (``amp`` = 1000·A).

    Raises Reverts where the contract does: a zero balance, 256 bits, no convergence.
    """
    count, total = len(balances), sum(balances)
    if total == 0:
        return 0
    ann, d = amp * count, total
    for _ in range(_ROUNDS):
        power = d
        for balance in balances:
            power = _over(_word(power * d), balance * count)
        previous = d
        above = _word((_word(ann * total) // AMP_PRECISION + power * count) * d)
        below = (ann - AMP_PRECISION) * d // AMP_PRECISION + (count + 1) * power
        d = _over(above, below)
        if abs(d - previous) <= 1:
            return d
    raise Reverts("STABLE_INVARIANT_DIDNT_CONVERGE")


def stable_invariant_rounded(amp: int, balances: Sequence[int], up: bool) -> int:
    """The same by way of P = n^n·Πx/D^(n−1), every division rounded up (or down)."""
    count, total = len(balances), sum(balances)
    if total == 0:
        return 0
    ann, d = amp * count, total
    for _ in range(_ROUNDS):
        product = balances[0] * count
        for balance in balances[1:]:
            product = _over(_word(product * balance * count), d, up)
        previous = d
        above = count * d * d + _over(_word(ann * total * product), AMP_PRECISION, up)
        below = (count + 1) * d + _over((ann - AMP_PRECISION) * product, AMP_PRECISION, not up)
        d = _over(_word(above), below, up)
        if abs(d - previous) <= 1:
            return d
    raise Reverts("STABLE_INVARIANT_DIDNT_CONVERGE")


def stable_balance(amp: int, balances: Sequence[int], d: int, index: int, v3: bool) -> int:
    """The balance of one token that the invariant asks for, given the others; rounded up.

    V2 divides D² and D by A·n before it multiplies with the precision of A, V3 afterwards.
    """
    count = len(balances)
    ann = amp * count
    product = balances[0] * count
    for balance in balances[1:]:
        product = _over(_word(product * balance * count), d)
    others = sum(balances) - balances[index]
    square = _word(d * d)
    if v3:
        c = _over(_word(square * AMP_PRECISION), ann * product, True) * balances[index]
        b = others + _over(d * AMP_PRECISION, ann)
    else:
        c = _over(square, ann * product, True) * AMP_PRECISION * balances[index]
        b = others + _over(d, ann) * AMP_PRECISION
    y = _over(square + _word(c), d + b, True)
    for _ in range(_ROUNDS):
        previous = y
        y = _over(_word(y * y + c), 2 * y + b - d, True)
        if abs(y - previous) <= 1:
            return y
    raise Reverts("STABLE_GET_BALANCE_DIDNT_CONVERGE")


def stable_out(
    amp: int,
    balances: Sequence[int],
    index_in: int,
    index_out: int,
    amount_in: int,
    d: int,
    v3: bool,
) -> int:
    """``calcOutGivenIn``, rounded down, one unit less than the rounded-up balance leaves."""
    moved = list(balances)
    moved[index_in] += amount_in
    return balances[index_out] - stable_balance(amp, moved, d, index_out, v3) - 1


def stable_in(
    amp: int,
    balances: Sequence[int],
    index_in: int,
    index_out: int,
    amount_out: int,
    d: int,
    v3: bool,
) -> int:
    """``calcInGivenOut``, rounded up, one unit more than the rounded-up balance asks."""
    if amount_out >= balances[index_out]:
        raise Reverts("SUB_OVERFLOW")
    moved = list(balances)
    moved[index_out] -= amount_out
    amount_in = stable_balance(amp, moved, d, index_in, v3) - balances[index_in] + 1
    if amount_in < 0:
        raise Reverts("SUB_OVERFLOW")
    return amount_in


class Surge(Struct, frozen=True):
    """Balancer V3's StableSurge hook: a fee that rises to ``most`` as a swap unbalances the pool
    beyond ``threshold``; both of 18 digits.
    """

    threshold: int
    most: int


def surge_fee(
    fee: int, surge: Surge, before: Sequence[int], index_in: int, index_out: int, swap: Vector
) -> int:
    """The fee of a swap of (in, out), given the scaled balances before it; 18 digits, rounded
    down. It stays at ``fee`` where the imbalance falls or keeps below the threshold.
    """
    after = list(before)
    after[index_in] += swap[0]
    after[index_out] -= swap[1]
    imbalance = _imbalance(after)
    if imbalance <= max(surge.threshold, _imbalance(before)):
        return fee
    excess = div_down(imbalance - surge.threshold, complement(surge.threshold))
    return fee + mul_down(sub(surge.most, fee), excess)


def _imbalance(balances: Sequence[int]) -> int:
    """Σ|x − median| over Σx."""
    ordered, middle = sorted(balances), len(balances) // 2
    median = ordered[middle]
    if len(balances) % 2 == 0:
        median = (ordered[middle - 1] + median) // 2
    return div_down(sum(abs(balance - median) for balance in balances), sum(balances))


class StablePool(Struct, frozen=True, kw_only=True):
    """A stable pool. ``balances`` in base units, ``amp`` = 1000·A, ``rates`` and ``fee`` in 18
    digits; ``scaling`` multiplies a base unit to 18 decimals. A composable pool is given without
    its own token. ``surge`` is for V3 only; arcs leave it out, as it only raises the fee.
    """

    id: str
    coins: tuple[TokenId, ...]
    balances: tuple[int, ...]
    amp: int
    scaling: tuple[int, ...]
    rates: tuple[int, ...]
    fee: int
    version: StableVersion
    gas: int
    surge: Surge | None = None

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """All coins, in the contract's order."""
        return self.coins

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`; saturates where the contract's arithmetic ends."""
        if token_in == token_out or not {token_in, token_out} <= set(self.coins):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        i, o = self.coins.index(token_in), self.coins.index(token_out)
        if amount <= 0 or min(self.balances) <= 0:
            return Step(0, 0, 0, self)
        try:
            balances, d = self._state()
        except Reverts:
            return Step(0, 0, 0, self)
        side = Side(self._scale(i), self._scale(o), self.fee)
        v3, surge = self.version is StableVersion.BALANCER_V3, self.surge

        def out(a: int) -> int:
            return stable_out(self.amp, balances, i, o, a, d, v3)

        def cost(a: int) -> int:
            return stable_in(self.amp, balances, i, o, a, d, v3)

        def other(given: int) -> int:
            if not v3:
                return quote_v2(side, out, cost, given, exact)
            if surge is None:
                return quote_v3(side, out, cost, given, exact)
            return quote_v3(
                side,
                out,
                cost,
                given,
                exact,
                lambda a, b: surge_fee(self.fee, surge, balances, i, o, (a, b)),
            )

        given, answer = saturate(other, amount, amount if exact is Exact.IN else self.balances[o])
        if answer <= 0:
            return Step(0, 0, 0, self)
        amount_in, amount_out = (given, answer) if exact is Exact.IN else (answer, given)
        after = list(self.balances)
        after[i] += amount_in
        after[o] -= amount_out
        return Step(amount_in, amount_out, self.gas, replace(self, balances=tuple(after)))

    def arcs(self) -> Sequence[Arc]:
        """One arc per ordered pair; none where the contract finds no invariant."""
        fee = self.fee / ONE
        if fee >= 1.0 or min(self.balances) <= 0:
            return ()
        try:
            balances, _ = self._state()
        except Reverts:
            return ()
        units = tuple(float(balance) for balance in balances)
        coins = self.coins
        scales = tuple([s * rate / ONE for s, rate in zip(self.scaling, self.rates, strict=True)])
        ann = self.amp * len(coins) / AMP_PRECISION
        return tuple(
            [
                StableArc(coins[i], coins[o], i, o, units, scales, ann, fee, 0.0, self.gas)
                for i, o in permutations(range(len(coins)), 2)
            ]
        )

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")

    def _scale(self, index: int) -> Scale:
        return Scale(self.scaling[index], self.rates[index])

    def _state(self) -> tuple[tuple[int, ...], int]:
        balances = tuple(
            upscaled(balance, self._scale(k)) for k, balance in enumerate(self.balances)
        )
        if min(balances) <= 0:
            raise Reverts("ZERO_DIVISION")
        if self.version is StableVersion.BALANCER_V2_ROUND_UP:
            return balances, stable_invariant_rounded(self.amp, balances, True)
        return balances, stable_invariant(self.amp, balances)


def _over(a: int, b: int, up: bool = False) -> int:
    """a/b; zero or less below reverts."""
    if b <= 0:
        raise Reverts("ZERO_DIVISION")
    return -(-a // b) if up else a // b


def _word(value: int) -> int:
    if value >= _WORD:
        raise Reverts("MUL_OVERFLOW")
    return value

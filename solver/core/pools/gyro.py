"""Gyroscope's elliptic pool (E-CLP) on Balancer V3, to the unit.

Source: the formulas of Gyroscope's E-CLP paper and the public ``GyroECLPMath.sol``. Amounts have 18
digits, derived parameters 38. Each product says which way it rounds, by magnitude; signed division
truncates towards zero as in the EVM. The pool declares no arcs: it is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from msgspec import Struct
from msgspec.structs import replace

from solver.core.pools.balancer import Scale, Side, quote_v3, saturate, upscaled
from solver.core.pools.base import NotExecutable
from solver.core.pools.fixed_point import ONE, Reverts
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Step

_XP = 10**38
_HALF_XP = 10**19
_MAX_BALANCES = 10**34
_MAX_INVARIANT = 3 * 10**37
_ROOT_TOLERANCE = 5

Vector = tuple[int, int]


class EclpParameters(Struct, frozen=True):
    """The ellipse: rotation (c, s) and stretch λ in 18 digits; τ(α), τ(β), u, v, w, z and d² in 38
    digits, derived off chain and stored with the pool.
    """

    c: int
    s: int
    stretch: int
    tau_alpha: Vector
    tau_beta: Vector
    u: int
    v: int
    w: int
    z: int
    d_sq: int


class GyroPool(Struct, frozen=True, kw_only=True):
    """Two coins on an ellipse. ``balances`` in base units, ``rates`` and ``fee`` in 18 digits,
    ``scaling`` multiplies a base unit to 18 decimals.
    """

    id: str
    coins: tuple[TokenId, TokenId]
    balances: tuple[int, int]
    parameters: EclpParameters
    scaling: tuple[int, int]
    rates: tuple[int, int]
    fee: int
    gas: int

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        """Both coins, in the contract's order."""
        return self.coins

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        """See :class:`solver.core.venue.Pool`; saturates at the end of the ellipse's arc."""
        if {token_in, token_out} != set(self.coins):
            raise ValueError(f"{self.id} does not trade {token_in} for {token_out}")
        i = self.coins.index(token_in)
        o = 1 - i
        if amount <= 0 or max(self.balances) <= 0:
            return Step(0, 0, 0, self)
        scales = tuple(map(Scale, self.scaling, self.rates))
        side = Side(scales[i], scales[o], self.fee)
        balances = upscaled(self.balances[0], scales[0]), upscaled(self.balances[1], scales[1])
        try:
            invariant = eclp_invariant(balances, self.parameters)
        except Reverts:
            return Step(0, 0, 0, self)

        def other(given: int) -> int:
            return quote_v3(
                side,
                lambda a: eclp_out(balances, a, i, self.parameters, invariant),
                lambda a: eclp_in(balances, a, i, self.parameters, invariant),
                given,
                exact,
            )

        given, answer = saturate(other, amount, amount if exact is Exact.IN else self.balances[o])
        amount_in, amount_out = (given, answer) if exact is Exact.IN else (answer, given)
        if amount_in <= 0 or not 0 < amount_out <= self.balances[o]:
            return Step(0, 0, 0, self)
        if i == 0:
            after = self.balances[0] + amount_in, self.balances[1] - amount_out
        else:
            after = self.balances[0] - amount_out, self.balances[1] + amount_in
        return Step(amount_in, amount_out, self.gas, replace(self, balances=after))

    def encode(self, leg: Leg) -> Sequence[Call]:
        """A pool of an instance file cannot be called."""
        raise NotExecutable(f"{self.id}: {leg.amount_in} in has no contract to go to")


def eclp_out(
    balances: Vector, amount_in: int, index_in: int, p: EclpParameters, invariant: Vector
) -> int:
    """``calcOutGivenIn``, rounded down; ``invariant`` from :func:`eclp_invariant`."""
    balance = balances[index_in] + amount_in
    _check_bound(p, invariant, balance, index_in)
    amount_out = balances[1 - index_in] - _other_balance(balance, index_in, p, invariant)
    if amount_out < 0:
        raise Reverts("SUB_OVERFLOW")
    return amount_out


def eclp_in(
    balances: Vector, amount_out: int, index_in: int, p: EclpParameters, invariant: Vector
) -> int:
    """``calcInGivenOut``, rounded up; ``invariant`` from :func:`eclp_invariant`."""
    index_out = 1 - index_in
    if amount_out > balances[index_out]:
        raise Reverts("ASSET_BOUNDS_EXCEEDED")
    balance = _other_balance(balances[index_out] - amount_out, index_out, p, invariant)
    _check_bound(p, invariant, balance, index_in)
    if balance < balances[index_in]:
        raise Reverts("SUB_OVERFLOW")
    return balance - balances[index_in]


def eclp_invariant(balances: Vector, p: EclpParameters) -> Vector:
    """The invariant r, over- and underestimated, as a swap uses it."""
    x, y = balances
    if x + y > _MAX_BALANCES:
        raise Reverts("MAX_ASSETS_EXCEEDED")
    root, error = _discriminant(x, y, p)
    error = _div_up(error + 1, 2 * root) if root > 0 else (_root(error) if error > 0 else 10**9)
    error = (_mul_up(p.stretch, x + y) // _XP + error + 1) * 20
    inverse = _div_xp(_XP, _chi_squared(p) - _XP)
    r = _np_down(_at_chi(x, y, p) + root - error, inverse)
    error = _np_up(error, inverse)
    squares = p.stretch * p.stretch // 10**36
    error += _quotient(_np_up(r, inverse) * squares * 40, _XP) + 1
    if r + error > _MAX_INVARIANT:
        raise Reverts("MAX_INVARIANT_EXCEEDED")
    return r + 2 * error, r


def _at_chi(x: int, y: int, p: EclpParameters) -> int:
    """(A·t)·(A·χ), rounded down."""
    d4 = _mul_xp(p.d_sq, p.d_sq)
    value = _np_down(
        _mul_down(x, p.c) - _mul_down(y, p.s),
        _div_xp(_div_down(_div_down(p.w, p.stretch) + p.z, p.stretch), d4),
    )
    stretched = _mul_down(_mul_down(x, p.stretch), p.s) + _mul_down(_mul_down(y, p.stretch), p.c)
    value += _np_down(stretched, _div_xp(p.u, d4))
    return value + _np_down(_mul_down(x, p.s) + _mul_down(y, p.c), _div_xp(p.v, d4))


def _chi_squared(p: EclpParameters) -> int:
    """(A·χ)·(A·χ) in 38 digits, rounded up."""
    d6 = _mul_xp(_mul_xp(p.d_sq, p.d_sq), p.d_sq)
    value = _mul_up(p.stretch, _div_xp(_mul_xp(2 * p.u, p.v), d6))
    u_squared = _div_xp(_mul_xp(p.u + 1, p.u + 1), d6)
    value += _mul_up(_mul_up(u_squared, p.stretch), p.stretch)
    value += _div_xp(_mul_xp(p.v, p.v), d6)
    term = _div_up(p.w, p.stretch) + p.z
    return value + _div_xp(_mul_xp(term, term), d6)


def _discriminant(x: int, y: int, p: EclpParameters) -> Vector:
    """The root in the invariant's formula, and the error under it."""
    d8 = _mul_xp(_mul_xp(_mul_xp(p.d_sq, p.d_sq), p.d_sq), p.d_sq)
    below = _div_xp(_XP, p.d_sq)
    stretch = p.stretch

    across = _mul_up(_mul_up(_mul_up(x, x), p.c), p.c) + _mul_up(_mul_up(_mul_up(y, y), p.s), p.s)
    across -= _mul_down(_mul_down(_mul_down(x, y), p.c * 2), p.s)
    term = _mul_xp(p.u, p.u) + _div_down(_mul_xp(2 * p.u, p.v), stretch)
    term += _div_down(_div_down(_mul_xp(p.v, p.v), stretch), stretch)
    value = _np_down(-across, _div_xp(term, d8))
    value += _np_down(_div_down(_div_down(across - 9, stretch), stretch), below)

    mixed = _mul_down(_mul_down(_mul_down(x, x) - _mul_up(y, y), 2 * p.c), p.s)
    xy = _mul_down(y, 2 * x)
    mixed += _mul_down(_mul_down(xy, p.c), p.c) - _mul_down(_mul_down(xy, p.s), p.s)
    term = _mul_xp(p.z, p.u) + _div_down(_div_down(_mul_xp(p.w, p.v), stretch), stretch)
    term += _div_down(_mul_xp(p.w, p.u) + _mul_xp(p.z, p.v), stretch)
    value += _np_down(mixed, _div_xp(term, d8))

    along = _mul_up(_mul_up(_mul_up(x, x), p.s), p.s) + _mul_up(_mul_up(_mul_up(y, y), p.c), p.c)
    along += _mul_up(_mul_up(_mul_up(x, y), p.s * 2), p.c)
    term = _mul_xp(p.z, p.z) + _div_down(_div_down(_mul_xp(p.w, p.w), stretch), stretch)
    term += _div_down(_mul_xp(2 * p.z, p.w), stretch)
    value += _np_down(-along, _div_xp(term, d8)) + _np_down(along - 9, below)

    error = (_mul_up(x, x) + _mul_up(y, y)) // _XP
    return (_root(value) if value > 0 else 0), error


def _offsets(p: EclpParameters, r: Vector) -> Vector:
    """The centre of the ellipse (a, b), rounded up."""
    above, below = r
    (ax, ay), (bx, by) = p.tau_alpha, p.tau_beta
    term = _div_xp(bx, p.d_sq)
    if bx > 0:
        a = _np_up(_mul_up(_mul_up(above, p.stretch), p.c), term)
    else:
        a = _np_up(_mul_down(_mul_down(below, p.stretch), p.c), term)
    a += _np_up(_mul_up(above, p.s), _div_xp(by, p.d_sq))
    term = _div_xp(ax, p.d_sq)
    if ax < 0:
        b = _np_up(_mul_up(_mul_up(above, p.stretch), p.s), -term)
    else:
        b = _np_up(_mul_down(_mul_down(-below, p.stretch), p.s), term)
    return a, b + _np_up(_mul_up(above, p.c), _div_xp(ay, p.d_sq))


def _check_bound(p: EclpParameters, r: Vector, balance: int, index: int) -> None:
    """The ellipse's arc ends where one coin is used up."""
    above, below = r
    (ax, ay), (bx, by) = p.tau_alpha, p.tau_beta
    side, rise = (p.c, by - ay) if index == 0 else (p.s, ay - by)
    across = p.s if index == 0 else p.c
    rise = _div_xp(rise, p.d_sq)
    most = _np_down(
        _mul_down(_mul_down(below, p.stretch), side), _div_xp(bx - ax, p.d_sq)
    ) + _np_down(_mul_down(below, across) if rise > 0 else _mul_up(above, across), rise)
    if balance > _MAX_BALANCES or balance > most:
        raise Reverts("ASSET_BOUNDS_EXCEEDED")


def _other_balance(balance: int, index: int, p: EclpParameters, r: Vector) -> int:
    """The other coin's balance on the ellipse, rounded up: y of x for index 0, x of y for 1."""
    a, b = _offsets(p, r)
    if index == 0:
        return _solve(balance, p.s, p.c, r, (a, b), p.tau_beta, p)
    mirrored = -p.tau_alpha[0], p.tau_alpha[1]
    return _solve(balance, p.c, p.s, r, (b, a), mirrored, p)


def _solve(
    x: int, s: int, c: int, r: Vector, centre: Vector, tau: Vector, p: EclpParameters
) -> int:
    """The root of the quadratic through x, rounded up."""
    stretch, d_sq = p.stretch, p.d_sq
    upper = _XP - _div_down(_div_down(_XP, stretch), stretch)
    lower = _XP - _div_up(_div_up(_XP, stretch), stretch)
    shifted = x - centre[0]
    if shifted > 0:
        slope = _np_up(_mul_down(_mul_down(-shifted, s), c), _div_xp(lower, d_sq))
    else:
        slope = _np_up(_mul_up(_mul_up(-shifted, s), c), _div_xp(upper, d_sq) + 1)
    term_up = _XP - _div_xp(_mul_down(_mul_down(lower, s), s), d_sq)
    term_down = _XP - (_div_xp(_mul_up(_mul_up(upper, s), s), d_sq + 1) + 1)
    under = -_shifted_squared(x, r, s, c, tau, p)
    under += _np_down(_mul_down(r[1], r[1]), term_down)
    difference = slope - (_root(under) if under > 0 else 0)
    if difference > 0:
        solved = _np_up(difference, _div_xp(_XP, term_down) + 1)
    else:
        solved = _np_up(difference, _div_xp(_XP, term_up))
    return solved + centre[1]


def _shifted_squared(x: int, r: Vector, s: int, c: int, tau: Vector, p: EclpParameters) -> int:
    """((x − a)/λ)² in the rotated frame, rounded up."""
    above, below = r
    tx, ty = tau
    d4 = _mul_xp(p.d_sq, p.d_sq)
    square = _mul_up(above, above)
    term = _div_xp(_mul_xp(tx, ty), d4)
    if term > 0:
        value = _np_up(_mul_up(_mul_up(square, 2 * s), c), term + 7)
    else:
        value = _np_up(_mul_down(_mul_down(_mul_down(below, below), 2 * s), c), term)
    if tx < 0:
        value += _np_up(_mul_up(_mul_up(above, x), 2 * c), -_div_xp(tx, p.d_sq) + 3)
    else:
        value += _np_up(_mul_down(_mul_down(-below, x), 2 * c), _div_xp(tx, p.d_sq))
    inner = _np_up(_mul_up(_mul_up(square, s), s), _div_xp(_mul_xp(ty, ty), d4) + 7)
    inner += _np_up(_mul_down(_mul_down(-below, x), 2 * s), _div_xp(ty, p.d_sq))
    inner += _mul_up(x, x)
    value += _div_away(inner, p.stretch)
    value = _div_away(value, p.stretch)
    return value + _np_up(_mul_up(_mul_up(square, c), c), _div_xp(_mul_xp(tx, tx), d4) + 7)


def _div_away(a: int, b: int) -> int:
    """a/b rounded up: away from zero above it, towards it below."""
    return _div_up(a, b) if a > 0 else _div_down(a, b)


def _root(x: int) -> int:
    """√x in 18 digits: seven Newton steps, and the contract's own test of the result."""
    if x >= ONE:
        guess = ONE << (((x // ONE).bit_length() - 1) // 2)
    elif x > 10**17:
        guess = x
    else:
        guess = isqrt(10 ** (len(str(x - 1)) + 18)) if x > 10 else 3162277660
    for _ in range(7):
        guess = (guess + x * ONE // guess) // 2
    room = _mul_up(guess, _ROOT_TOLERANCE)
    if not x - room <= guess * guess // ONE <= x + room:
        raise Reverts("SQRT_FAILED")
    return guess


def _quotient(a: int, b: int) -> int:
    """a/b towards zero; zero below reverts."""
    if b == 0:
        raise Reverts("ZERO_DIVISION")
    magnitude = abs(a) // abs(b)
    return magnitude if (a < 0) == (b < 0) else -magnitude


def _away(a: int, b: int) -> int:
    """a/b away from zero."""
    if b == 0:
        raise Reverts("ZERO_DIVISION")
    magnitude = -(-abs(a) // abs(b))
    return magnitude if (a < 0) == (b < 0) else -magnitude


def _mul_down(a: int, b: int) -> int:
    return _quotient(a * b, ONE)


def _mul_up(a: int, b: int) -> int:
    return _away(a * b, ONE)


def _div_down(a: int, b: int) -> int:
    return _quotient(a * ONE, b)


def _div_up(a: int, b: int) -> int:
    return _away(a * ONE, b)


def _mul_xp(a: int, b: int) -> int:
    return _quotient(a * b, _XP)


def _div_xp(a: int, b: int) -> int:
    return _quotient(a * _XP, b)


def _np_parts(a: int, b: int) -> Vector:
    """a·b of 18 and 38 digits as a·(b/1e19) and a·(b mod 1e19), as the contract splits it."""
    high = _quotient(b, _HALF_XP)
    return a * high, a * (b - high * _HALF_XP)


def _np_down(a: int, b: int) -> int:
    """The product in 18 digits, rounded down (not only by magnitude)."""
    first, second = _np_parts(a, b)
    total = first + _quotient(second, _HALF_XP)
    if first >= 0 and second >= 0:
        return _quotient(total, _HALF_XP)
    return _quotient(total + 1, _HALF_XP) - 1


def _np_up(a: int, b: int) -> int:
    """The product in 18 digits, rounded up (not only by magnitude)."""
    first, second = _np_parts(a, b)
    total = first + _quotient(second, _HALF_XP)
    if first <= 0 and second <= 0:
        return _quotient(total, _HALF_XP)
    return _quotient(total - 1, _HALF_XP) + 1

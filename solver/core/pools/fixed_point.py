"""Balancer's 18-digit fixed point and its logarithm, exponential and power, to the unit.

Sources: the public ``FixedPoint.sol`` and ``LogExpMath.sol`` of Balancer V2 and V3. Values are
integers of 1e-18 unless a name says 36. Signed division truncates towards zero as in the EVM.
Where the contract reverts, :class:`Reverts` carries the name of its error.
"""

from __future__ import annotations

ONE = 10**18
TWO = 2 * ONE
FOUR = 4 * ONE
MAX_POW_RELATIVE_ERROR = 10_000  # 1e-14, what pow may be wrong by

_WORD = 2**256
_ONE_20 = 10**20
_ONE_36 = 10**36
_MAX_NATURAL_EXPONENT = 130 * ONE
_MIN_NATURAL_EXPONENT = -41 * ONE
_LN_36_LOWER = ONE - 10**17
_LN_36_UPPER = ONE + 10**17
_MILD_EXPONENT_BOUND = 2**254 // _ONE_20

# e^(2^7) and e^(2^6) as plain integers, for arguments of 18 digits.
_LARGE_POWERS = (
    (128 * ONE, 38877084059945950922200000000000000000000000000000000000),
    (64 * ONE, 6235149080811616882910000000),
)
# (x, e^x) in 20 digits for x = 2^5, 2^4 … 2^-4, as the contract lists them.
_POWERS = (
    (32 * _ONE_20, 7896296018268069516100000000000000),
    (16 * _ONE_20, 888611052050787263676000000),
    (8 * _ONE_20, 298095798704172827474000),
    (4 * _ONE_20, 5459815003314423907810),
    (2 * _ONE_20, 738905609893065022723),
    (_ONE_20, 271828182845904523536),
    (_ONE_20 // 2, 164872127070012814685),
    (_ONE_20 // 4, 128402541668774148407),
    (_ONE_20 // 8, 113314845306682631683),
    (_ONE_20 // 16, 106449445891785942956),
)
_EXP_POWERS = _POWERS[:8]  # the contract's exp stops at 2^-2


class Reverts(ArithmeticError):
    """The contract would revert here; the argument is the name of its error."""


def add(a: int, b: int) -> int:
    """a + b in 256 bits."""
    if a + b >= _WORD:
        raise Reverts("ADD_OVERFLOW")
    return a + b


def sub(a: int, b: int) -> int:
    """a − b; below zero reverts."""
    if b > a:
        raise Reverts("SUB_OVERFLOW")
    return a - b


def mul_down(a: int, b: int) -> int:
    """a·b, rounded down. A product above 256 bits is not refused here: balances of 112 bits and
    factors of 18 digits cannot reach it.
    """
    return a * b // ONE


def mul_up(a: int, b: int) -> int:
    """a·b, rounded up."""
    if a * b >= _WORD:
        raise Reverts("MUL_OVERFLOW")
    return -(-a * b // ONE)


def div_down(a: int, b: int) -> int:
    """a/b, rounded down."""
    if b == 0:
        raise Reverts("ZERO_DIVISION")
    if a * ONE >= _WORD:
        raise Reverts("DIV_INTERNAL")
    return a * ONE // b


def div_up(a: int, b: int) -> int:
    """a/b, rounded up."""
    if b == 0:
        raise Reverts("ZERO_DIVISION")
    if a * ONE >= _WORD:
        raise Reverts("DIV_INTERNAL")
    return -(-a * ONE // b)


def complement(x: int) -> int:
    """1 − x, or 0 above one."""
    return max(0, ONE - x)


def pow_down(x: int, y: int, fast: bool) -> int:
    """x^y, not above the true value. ``fast``: y = 1, 2 and 4 by multiplication (v3Plus, V3)."""
    if fast and y == ONE:
        return x
    if fast and y == TWO:
        return mul_down(x, x)
    if fast and y == FOUR:
        return mul_down(mul_down(x, x), mul_down(x, x))
    raw = power(x, y)
    return max(0, raw - mul_up(raw, MAX_POW_RELATIVE_ERROR) - 1)


def pow_up(x: int, y: int, fast: bool) -> int:
    """x^y, not below the true value. ``fast``: y = 1, 2 and 4 by multiplication (v3Plus, V3)."""
    if fast and y == ONE:
        return x
    if fast and y == TWO:
        return mul_up(x, x)
    if fast and y == FOUR:
        return mul_up(mul_up(x, x), mul_up(x, x))
    raw = power(x, y)
    return add(raw, mul_up(raw, MAX_POW_RELATIVE_ERROR) + 1)


def power(x: int, y: int) -> int:
    """x^y = e^(y·ln x), with ln in 36 digits for x within a tenth of one."""
    if y == 0:
        return ONE
    if x == 0:
        return 0
    if x >= _WORD // 2:
        raise Reverts("X_OUT_OF_BOUNDS")
    if y >= _MILD_EXPONENT_BOUND:
        raise Reverts("Y_OUT_OF_BOUNDS")
    if _LN_36_LOWER < x < _LN_36_UPPER:
        whole = _quotient(_ln_36(x), ONE)
        rest = _ln_36(x) - whole * ONE  # of the sign of ln x, as the EVM's remainder
        product = whole * y + _quotient(rest * y, ONE)
    else:
        product = _ln(x) * y
    product = _quotient(product, ONE)
    if not _MIN_NATURAL_EXPONENT <= product <= _MAX_NATURAL_EXPONENT:
        raise Reverts("PRODUCT_OUT_OF_BOUNDS")
    return exp(product)


def exp(x: int) -> int:
    """e^x for x in [−41, 130]."""
    if not _MIN_NATURAL_EXPONENT <= x <= _MAX_NATURAL_EXPONENT:
        raise Reverts("INVALID_EXPONENT")
    if x < 0:
        return ONE * ONE // exp(-x)
    large = 1
    for exponent, value in _LARGE_POWERS:
        if x >= exponent:
            x, large = x - exponent, value
            break
    x *= 100
    product = _ONE_20
    for exponent, value in _EXP_POWERS:
        if x >= exponent:
            x -= exponent
            product = product * value // _ONE_20
    series, term = _ONE_20 + x, x
    for n in range(2, 13):  # Taylor, each term rounded twice as the contract does
        term = term * x // _ONE_20 // n
        series += term
    return product * series // _ONE_20 * large // 100


def ln(x: int) -> int:
    """The natural logarithm of x > 0."""
    if x <= 0:
        raise Reverts("OUT_OF_BOUNDS")
    if _LN_36_LOWER < x < _LN_36_UPPER:
        return _quotient(_ln_36(x), ONE)
    return _ln(x)


def log(x: int, base: int) -> int:
    """The logarithm of x to a base."""
    above, below = (
        _ln_36(value) if _LN_36_LOWER < value < _LN_36_UPPER else _ln(value) * ONE
        for value in (x, base)
    )
    return _quotient(above * ONE, below)


def _ln(a: int) -> int:
    """By the decomposition a = Π a_n·rest and the series of atanh for the rest."""
    if a < ONE:
        return -_ln(ONE * ONE // a)
    total = 0
    for exponent, value in _LARGE_POWERS:
        if a >= value * ONE:
            a //= value
            total += exponent
    total *= 100
    a *= 100
    for exponent, value in _POWERS:
        if a >= value:
            a = a * _ONE_20 // value
            total += exponent
    return (total + _atanh_series(a, _ONE_20, 11)) // 100


def _ln_36(x: int) -> int:
    return _atanh_series(x * ONE, _ONE_36, 15)


def _atanh_series(a: int, one: int, last: int) -> int:
    """ln a = 2·(z + z³/3 + … + z^last/last), z = (a − 1)/(a + 1)."""
    z = _quotient((a - one) * one, a + one)
    square = z * z // one
    series = term = z
    for n in range(3, last + 1, 2):
        term = _quotient(term * square, one)
        series += _quotient(term, n)
    return 2 * series


def _quotient(a: int, b: int) -> int:
    """a/b towards zero."""
    return -(-a // b) if (a < 0) != (b < 0) and a else a // b

"""Numbers rounded outward: decimals of 60 digits with the direction in the name, exact roots."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

_DIGITS = 60
UP = Context(prec=_DIGITS, rounding=ROUND_CEILING, Emin=MIN_EMIN, Emax=MAX_EMAX)
DOWN = Context(prec=_DIGITS, rounding=ROUND_FLOOR, Emin=MIN_EMIN, Emax=MAX_EMAX)


def up(value: Fraction) -> Decimal:
    """Not below ``value``."""
    return UP.divide(Decimal(value.numerator), Decimal(value.denominator))


def down(value: Fraction) -> Decimal:
    """Not above ``value``."""
    return DOWN.divide(Decimal(value.numerator), Decimal(value.denominator))


def total_up(values: Iterable[Decimal]) -> Decimal:
    """Not below the sum."""
    total = Decimal(0)
    for value in values:
        total = UP.add(total, value)
    return total


def root_down(value: Fraction, degree: int) -> Fraction:
    """The largest multiple of a tiny step whose power is at most ``value``; 60 digits or more."""
    if value <= 0:
        return Fraction(0)
    digits = value.numerator.bit_length() - value.denominator.bit_length()
    places = max(0, _DIGITS * 10 // 3 - digits // degree) + 2
    scaled = (value.numerator << (degree * places)) // value.denominator
    low, high = 0, 1 << (scaled.bit_length() // degree + 1)
    guess = high
    while guess > low:  # Newton from above on integers ends at the floor of the root
        low = guess
        following = ((degree - 1) * guess + scaled // guess ** (degree - 1)) // degree
        if following >= guess:
            break
        guess, low = following, 0
    return Fraction(guess, 1 << places)


def ln_down(value: Fraction) -> Decimal:
    """Not above ln(value); the decimal module's ln is within half a unit of the last place."""
    return DOWN.next_minus(DOWN.ln(down(value)))


def ln_up(value: Fraction) -> Decimal:
    """Not below ln(value)."""
    return UP.next_plus(UP.ln(up(value)))


def exp_down(value: Decimal) -> Decimal:
    """Not above exp(value)."""
    return DOWN.next_minus(DOWN.exp(value))

"""Scanning risk: sixteen scenarios of price and volatility, as clearing houses publish them.

A contract has an array with what a long position gains in each scenario. A portfolio's array is the
sum of its contracts', and its requirement is the largest loss. That is linear per scenario, so in a
program it is one row each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

#: Price moves as parts of the scan range, in order; each with volatility up and down.
_PRICES = (0.0, 1 / 3, -1 / 3, 2 / 3, -2 / 3, 1.0, -1.0)


class Extreme(Struct, frozen=True):
    """The last two scenarios: a move of so many ranges, of which only a part counts.

    Twice and 35 %, or thrice and 33 %, as the clearing house chooses.
    """

    ranges: float = 2.0
    counts: float = 0.35


class Scan(Struct, frozen=True):
    """The requirement, the place of the scenario that sets it, and the losses of all."""

    requirement: float
    worst: int
    losses: tuple[float, ...]


_TWICE = Extreme()


def scan(arrays: Mapping[str, Sequence[float]], positions: Mapping[str, float]) -> Scan:
    """The requirement of positions (negative is sold); never below zero.

    Raises KeyError for a contract without an array, ValueError for arrays of different lengths.
    """
    held = {name: size for name, size in positions.items() if size}
    if not held:
        return Scan(0.0, 0, ())
    gains = np.zeros(len(arrays[next(iter(held))]))
    for name, size in held.items():
        gains = gains + size * np.asarray(arrays[name], dtype=float)
    worst = int(np.argmin(gains))
    return Scan(max(0.0, -float(gains[worst])), worst, tuple((0.0 - gains).tolist()))


def future_array(scan_range: float, extreme: Extreme = _TWICE) -> tuple[float, ...]:
    """What one long future gains per scenario; ``scan_range`` is the largest ordinary move."""
    ordinary = [price * scan_range for price in _PRICES for _ in range(2)]
    beyond = extreme.ranges * extreme.counts * scan_range
    return (*ordinary, beyond, -beyond)

"""Margin of one perpetual position that grows with its size or with the market's open interest.

Three published rules. Amounts of :func:`open_interest_margin` are integers as on its chain; the
others are in the unit of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

_PPM = 1_000_000


class OpenInterestTier(Struct, frozen=True):
    """dYdX v4: shares in parts per million, caps on open interest in quote units; 0 is no cap."""

    initial_ppm: int
    maintenance_fraction_ppm: int
    lower_cap: int = 0
    upper_cap: int = 0


def open_interest_ppm(tier: OpenInterestTier, open_interest: int) -> int:
    """The initial share at an open interest: linear from the base at the lower cap to all of it at
    the upper one, rounded down.
    """
    base, low, high = tier.initial_ppm, tier.lower_cap, tier.upper_cap
    if not high or open_interest <= low:
        return base
    if open_interest >= high:
        return _PPM
    return base + (_PPM - base) * (open_interest - low) // (high - low)


def open_interest_margin(
    tier: OpenInterestTier, notional: int, open_interest: int
) -> tuple[int, int]:
    """Initial and maintenance margin of a notional, rounded up, against the account.

    Open interest does not move the maintenance margin, so that others cannot liquidate anybody.
    """
    base = -(-abs(notional) * tier.initial_ppm // _PPM)
    scaled = -(-abs(notional) * open_interest_ppm(tier, open_interest) // _PPM)
    return scaled, -(-base * tier.maintenance_fraction_ppm // _PPM)


def open_interest_change(before: Sequence[int], change: Sequence[int]) -> int:
    """By how much Σ max(position, 0) grows when positions change."""
    return sum(
        max(held + delta, 0) - max(held, 0) for held, delta in zip(before, change, strict=True)
    )


def fillable_price(
    size: float,
    oracle_price: float,
    net_collateral: float,
    position_maintenance: float,
    account_maintenance: float,
    adjustment: float,
    spread: float,
) -> float:
    """dYdX v4: the worst price at which a position may be liquidated.

    (notional − a·spread·maintenance)/size, where a is how far the account is under its maintenance
    margin, times ``adjustment``, between 0 and 1; ``spread`` is a share of the position's
    maintenance margin. A part of the position has the same price. Raises ZeroDivisionError for no
    position, or an account without a maintenance margin.
    """
    under = adjustment * (1.0 - net_collateral / account_maintenance)
    given = min(max(under, 0.0), 1.0) * spread * position_maintenance
    return (size * oracle_price - given) / size


def is_liquidatable(net_collateral: float, maintenance: float) -> bool:
    """dYdX v4: below its maintenance margin, and with one."""
    return maintenance > 0.0 and maintenance > net_collateral


class SizeScale(Struct, frozen=True):
    """Deribit: the share of the notional is ``base`` + ``slope``·|size|, size in the underlying."""

    base: float
    slope: float


def size_scaled(scale: SizeScale, size: float, price: float) -> float:
    """Margin that grows with the square of the size; convex."""
    return (scale.base + scale.slope * abs(size)) * abs(size) * price


class Tier(Struct, frozen=True):
    """Hyperliquid: from a notional on, its share of what is above."""

    lower_bound: float
    share: float


def tiered(tiers: Sequence[Tier], notional: float) -> float:
    """Margin over tiers in the order of their bounds, each share for what is inside its tier.

    That is share·notional less a constant deduction per tier: continuous, and convex where shares
    grow. Raises ValueError where bounds do not grow from 0.
    """
    bounds = [tier.lower_bound for tier in tiers]
    if not bounds or bounds[0] != 0.0 or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("tiers begin at 0 and grow")
    ends = [*bounds[1:], float("inf")]
    return sum(
        tier.share * max(0.0, min(abs(notional), end) - tier.lower_bound)
        for tier, end in zip(tiers, ends, strict=True)
    )

"""The scenario rule, a market and an account as data; :mod:`.scenarios` computes with them."""

from __future__ import annotations

import math
from enum import Enum

from msgspec import Struct

YEAR_SECONDS = 365.0 * 86_400.0


class VolMove(str, Enum):
    """What a scenario does to volatilities: by a factor, or by a tilt over strikes."""

    UP = "up"
    SAME = "same"
    DOWN = "down"
    SKEW = "skew"
    SMILE = "smile"

    @property
    def is_tilt(self) -> bool:
        """Whether it moves strikes apart."""
        return self in (VolMove.SKEW, VolMove.SMILE)


class Scenario(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """``spot`` is a factor on the spot price; the P&L counts ``damping`` of itself."""

    spot: float
    vol: VolMove
    damping: float = 1.0

    @property
    def name(self) -> str:
        """Readable and unique within a grid."""
        damped = "" if self.damping == 1.0 else f" ×{self.damping:.3g}"
        return f"spot {100.0 * (self.spot - 1.0):+.4g} %, vol {self.vol.value}{damped}"


class Tilt(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Volatility factor 1 ± min(cap, cap·k/k*) at log-moneyness k, the cap changing with √T;
    k* = max(``least_width``, ``width``·√T·(``vol`` + ``vol_per_root_year``·√T)).
    """

    skew_cap: float
    skew_per_root_year: float
    smile_cap: float
    smile_per_root_year: float
    least_width: float
    width: float
    vol: float
    vol_per_root_year: float


class Parameters(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The whole rule. Shares and factors, not percent; rates per year; what is initial comes on top
    of maintenance, but for the factors of the loss. Where it ``scales_add_ons``, the initial factor
    is on the maintenance add-ons as well. Where it is ``two_sided``, a tilt is valued both ways and
    the worse counts, expiry by expiry; if not, minus what it moves one way, which is not concave.
    """

    scenarios: tuple[Scenario, ...]
    tilt: Tilt
    vol_up: float
    vol_down: float
    least_vol_up: float
    short_power: float
    long_power: float
    least_days: float
    initial_factor: float
    maintenance_factor: float
    long_discount: float
    long_rate_factor: float
    long_rate_extra: float
    short_discount: float
    short_rate_factor: float
    short_rate_extra: float
    basis_up: float
    basis_down: float
    basis_base: float
    basis_per_year: float
    peg: float
    peg_factor: float
    confidence: float
    confidence_factor: float
    perp_maintenance: float
    perp_initial: float
    option_maintenance: float
    option_initial: float
    scales_add_ons: bool = False
    two_sided: bool = False


class Expiry(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The market of one expiry. ``fixed`` of the forward no longer moves: in the last half hour the
    settlement average is partly known. Options are priced at ``pricing_rate``, by default the rate.
    """

    seconds: float
    forward: float
    rate: float
    confidence: float
    fixed: float = 0.0
    pricing_rate: float | None = None

    @property
    def years(self) -> float:
        """Time to expiry."""
        return self.seconds / YEAR_SECONDS

    @property
    def discount(self) -> float:
        """What a unit at expiry is worth now; a negative rate counts as none."""
        rate = self.rate if self.pricing_rate is None else self.pricing_rate
        return math.exp(-max(rate, 0.0) * self.years)


class Market(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Prices in the unit of account and how sure their oracles are, in [0, 1]."""

    spot: float
    spot_confidence: float
    perp: float
    perp_confidence: float
    stable: float
    expiries: tuple[Expiry, ...]


class Option(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """So much of one option; negative is sold. ``expiry`` counts the market's."""

    expiry: int
    strike: float
    is_call: bool
    vol: float
    amount: float
    confidence: float = 1.0


class Collateral(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """``price`` is in the stable coin's unit. What ``moves`` with the spot price offsets risk."""

    amount: float
    price: float
    confidence: float
    maintenance_haircut: float
    initial_haircut: float
    moves: bool


class Account(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Everything in one account. ``unsettled`` is what the perpetual position has earned."""

    cash: float
    perps: float
    unsettled: float
    options: tuple[Option, ...]
    collateral: tuple[Collateral, ...]

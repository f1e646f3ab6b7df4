"""Scenario portfolio margin: what an account has left in the worst of many moves of the market.

    balance = value + cash + factor·min(worst scenario, basis) − add-ons      (ok while ≥ 0)

A scenario moves the spot price and the volatilities; its loss may be damped. Options of one expiry
are revalued together, then discounted (what is owned counts less, what is owed more). Two tilts
move the volatilities by strike. The basis part assumes that an expiry's forward moves apart from
the others. Add-ons are shares of notional: perpetuals, net short options per strike, collateral
haircuts, and everything whose oracle is unsure.

With :class:`Parameters` as published this is the second portfolio margin of Derive, whose worked
cases ``tests/parity`` recomputes. One underlying, one account. All amounts in the unit of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.margin import black76
from solver.core.margin.black76 import YEAR_SECONDS, Array

_MONTH_SECONDS = 30.0 * 86_400.0
_DAY_SECONDS = 86_400.0
BASIS = "basis"


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


class Scenario(Struct, frozen=True):
    """``spot`` is a factor on the spot price; the P&L counts ``damping`` of itself."""

    spot: float
    vol: VolMove
    damping: float = 1.0

    @property
    def name(self) -> str:
        """Readable and unique within a grid."""
        damped = "" if self.damping == 1.0 else f" ×{self.damping:.3g}"
        return f"spot {100.0 * (self.spot - 1.0):+.4g} %, vol {self.vol.value}{damped}"


class Tilt(Struct, frozen=True):
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


class Parameters(Struct, frozen=True):
    """The whole rule. Shares and factors, not percent; rates per year; what is initial comes on top
    of maintenance, but for the factors of the loss. Where it ``scales_add_ons``, the initial factor
    is on the maintenance add-ons as well.
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


class Expiry(Struct, frozen=True):
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
        return float(np.exp(-max(rate, 0.0) * self.years))


class Market(Struct, frozen=True):
    """Prices in the unit of account and how sure their oracles are, in [0, 1]."""

    spot: float
    spot_confidence: float
    perp: float
    perp_confidence: float
    stable: float
    expiries: tuple[Expiry, ...]


class Option(Struct, frozen=True):
    """So much of one option; negative is sold. ``expiry`` counts the market's."""

    expiry: int
    strike: float
    is_call: bool
    vol: float
    amount: float
    confidence: float = 1.0


class Collateral(Struct, frozen=True):
    """``price`` is in the stable coin's unit. What ``moves`` with the spot price offsets risk."""

    amount: float
    price: float
    confidence: float
    maintenance_haircut: float
    initial_haircut: float
    moves: bool


class Account(Struct, frozen=True):
    """Everything in one account. ``unsettled`` is what the perpetual position has earned."""

    cash: float
    perps: float
    unsettled: float
    options: tuple[Option, ...]
    collateral: tuple[Collateral, ...]


class Report(Struct, frozen=True):
    """Both balances, the value, each scenario's P&L, the name of the worst, and the add-ons by name
    as (maintenance, initial on top of it).
    """

    initial: float
    maintenance: float
    value: float
    pnl: tuple[float, ...]
    worst: str
    basis: float
    add_ons: dict[str, tuple[float, float]]


def requirement(account: Account, market: Market, rule: Parameters) -> Report:
    """The margin of an account. Raises ValueError for inputs that no option can have."""
    books = [
        _Book(expiry, [o for o in account.options if o.expiry == number], rule)
        for number, expiry in enumerate(market.expiries)
    ]
    held = [one for one in account.collateral if one.amount]
    values = [one.amount * one.price / market.stable for one in held]
    moving = sum(v for v, one in zip(values, held, strict=True) if one.moves)
    pnl = tuple(
        _pnl(scenario, account.perps * market.perp + moving, books) for scenario in rule.scenarios
    )
    basis = sum(book.basis() for book in books)
    worst = min(range(len(pnl)), key=lambda s: pnl[s], default=-1)
    least = min(basis, pnl[worst]) if pnl else basis
    name = BASIS if not pnl or basis <= pnl[worst] else rule.scenarios[worst].name
    value = account.unsettled + sum(book.value for book in books) + sum(values)
    add_ons = _add_ons(account, market, rule, held, values)
    maintenance = sum(one for one, _ in add_ons.values())
    initial = maintenance + sum(two for _, two in add_ons.values())
    factor = rule.initial_factor + rule.peg_factor * max(0.0, rule.peg - market.stable)
    if rule.scales_add_ons:
        initial += (factor - 1.0) * maintenance
    assets = value + account.cash
    return Report(
        assets + factor * least - initial,
        assets + rule.maintenance_factor * least - maintenance,
        value,
        pnl,
        name,
        basis,
        add_ons,
    )


def _pnl(scenario: Scenario, moving: float, books: Sequence[_Book]) -> float:
    """A tilt counts against the account whichever way it goes, expiry by expiry."""
    total = moving * (scenario.spot - 1.0) * scenario.damping
    for book in books:
        gained = book.gain(scenario) * scenario.damping
        total += -abs(gained) if scenario.vol.is_tilt else gained
    return total


class _Book:
    """The options of one expiry, revalued together."""

    def __init__(self, expiry: Expiry, options: Sequence[Option], rule: Parameters) -> None:
        self._expiry, self._rule = expiry, rule
        self._strike = np.array([option.strike for option in options], dtype=float)
        self._vol = np.array([option.vol for option in options], dtype=float)
        self._amount = np.array([option.amount for option in options], dtype=float)
        self._call: NDArray[np.bool_] = np.array([o.is_call for o in options], dtype=bool)
        self.value = self._worth(1.0, self._vol)
        days = max(expiry.seconds, rule.least_days * _DAY_SECONDS)
        power = rule.short_power if expiry.seconds <= _MONTH_SECONDS else rule.long_power
        self._shock = (_MONTH_SECONDS / days) ** power

    def gain(self, scenario: Scenario) -> float:
        """What the book gains in a scenario, after the discount, without damping."""
        if scenario.vol.is_tilt:
            shocked = self._worth(1.0, self._vol * self._tilted(scenario.vol))
        else:
            shocked = self._worth(scenario.spot, self._shocked(scenario.vol))
        return shocked * self._discount(shocked) - self.value

    def basis(self) -> float:
        """The worse of two moves of this forward alone, the further the later; never above 0."""
        rule = self._rule
        moves = (rule.basis_up, rule.basis_down)
        worst = min(0.0, *(self._worth(move, self._vol) - self.value for move in moves))
        return worst * (rule.basis_base + rule.basis_per_year * self._expiry.years)

    def _worth(self, spot: float, vol: Array) -> float:
        if not len(self._strike):
            return 0.0
        expiry = self._expiry
        forward = expiry.fixed + (expiry.forward - expiry.fixed) * spot
        each = black76.prices(forward, self._strike, expiry.years, vol, expiry.discount, self._call)
        return float(np.dot(each, self._amount))

    def _shocked(self, move: VolMove) -> Array:
        rule = self._rule
        if move is VolMove.UP:
            raised: Array = self._vol * (1.0 + rule.vol_up * self._shock)
            return np.maximum(rule.least_vol_up, raised)
        factor = max(0.0, 1.0 - rule.vol_down * self._shock) if move is VolMove.DOWN else 1.0
        lowered: Array = self._vol * factor
        return lowered

    def _tilted(self, move: VolMove) -> Array:
        tilt, root = self._rule.tilt, float(np.sqrt(self._expiry.years))
        k = np.log(self._strike / self._expiry.forward)
        if move is VolMove.SKEW:
            cap = tilt.skew_cap + tilt.skew_per_root_year * root
        else:
            k, cap = np.abs(k), tilt.smile_cap + tilt.smile_per_root_year * root
        width = max(
            tilt.least_width, tilt.width * root * (tilt.vol + tilt.vol_per_root_year * root)
        )
        moved = k * cap / width
        factor = 1.0 + np.where(k >= 0.0, np.minimum(cap, moved), np.maximum(-cap, moved))
        return np.maximum(0.0, factor)

    def _discount(self, value: float) -> float:
        """What is owned counts less the later it is, what is owed more, at most undiscounted."""
        rule, years, rate = self._rule, self._expiry.years, max(self._expiry.rate, 0.0)
        if value >= 0.0:
            shocked = rate * rule.long_rate_factor + rule.long_rate_extra
            return rule.long_discount * float(np.exp(-years * shocked))
        shocked = rate * rule.short_rate_factor + rule.short_rate_extra
        return min(
            1.0 / self._expiry.discount, rule.short_discount * float(np.exp(years * shocked))
        )


def _add_ons(
    account: Account,
    market: Market,
    rule: Parameters,
    held: Sequence[Collateral],
    values: Sequence[float],
) -> dict[str, tuple[float, float]]:
    """By name: for maintenance, and what initial margin has on top."""
    sure = market.spot_confidence
    if account.perps:
        sure = min(sure, market.perp_confidence)
    perps = abs(account.perps) * market.spot
    shorts = market.spot * sum(
        _net_short([o for o in account.options if o.expiry == number])
        for number in range(len(market.expiries))
    )
    unsure = _unsure(rule, sure, perps)
    for number, expiry in enumerate(market.expiries):
        mine = [option for option in account.options if option.expiry == number]
        if mine:
            least = min(sure, expiry.confidence, *(option.confidence for option in mine))
            notional = market.spot * sum(abs(option.amount) for option in mine)
            unsure += _unsure(rule, least, notional)
    for one, worth in zip(held, values, strict=True):
        unsure += _unsure(rule, min(sure, one.confidence), worth)
    pairs = list(zip(values, held, strict=True))
    return {
        "perpetuals": (perps * rule.perp_maintenance, perps * rule.perp_initial),
        "short options": (shorts * rule.option_maintenance, shorts * rule.option_initial),
        "haircuts": (
            sum(worth * one.maintenance_haircut for worth, one in pairs),
            sum(worth * one.initial_haircut for worth, one in pairs),
        ),
        "confidence": (0.0, unsure),
    }


def _unsure(rule: Parameters, confidence: float, notional: float) -> float:
    if confidence >= rule.confidence:
        return 0.0
    return (1.0 - confidence) * rule.confidence_factor * notional


def _net_short(options: Sequence[Option]) -> float:
    """Σ over strikes of what is sold more than bought, calls and puts together."""
    net: dict[float, float] = {}
    for option in options:
        net[option.strike] = net.get(option.strike, 0.0) + option.amount
    return sum(max(0.0, -amount) for amount in net.values())

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
from itertools import groupby

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
        return float(np.exp(-max(rate, 0.0) * self.years))


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


class Report(Struct, frozen=True, rename="camel"):
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
    grid = Grid(market, account.options, account.collateral, rule)
    held = Holdings(
        np.array([account.cash]),
        np.array([account.perps]),
        np.array([account.unsettled]),
        np.array([[option.amount for option in account.options]]).reshape(1, -1),
        np.array([[one.amount for one in account.collateral]]).reshape(1, -1),
    )
    found = grid.balances(held)
    worst = int(found.worst[0])
    return Report(
        float(found.initial[0]),
        float(found.maintenance[0]),
        float(found.value[0]),
        tuple(found.pnl[0].tolist()),
        BASIS if worst < 0 else rule.scenarios[worst].name,
        float(found.basis[0]),
        {name: (float(one[0]), float(two[0])) for name, (one, two) in found.add_ons.items()},
    )


class Holdings(Struct, frozen=True):
    """N accounts over the instruments of one grid: cash, perpetuals and what they have earned [N],
    option amounts [N, options], collateral amounts [N, kinds].
    """

    cash: Array
    perps: Array
    unsettled: Array
    options: Array
    collateral: Array


class Balances(Struct, frozen=True):
    """As :class:`Report`, for N accounts. ``pnl`` is [N, scenarios]; ``worst`` the place of the
    worst scenario, −1 where the basis is worse.
    """

    initial: Array
    maintenance: Array
    value: Array
    pnl: Array
    worst: NDArray[np.intp]
    basis: Array
    add_ons: dict[str, tuple[Array, Array]]


class Grid:
    """Every instrument valued once per scenario; then any number of accounts are sums of products.

    Amounts of the given options and collateral are not read. Raises ValueError for inputs that no
    option can have.
    """

    def __init__(
        self,
        market: Market,
        options: Sequence[Option],
        collateral: Sequence[Collateral],
        rule: Parameters,
    ) -> None:
        self._market, self._rule = market, rule
        self._collateral = tuple(collateral)
        places = sorted(
            range(len(options)), key=lambda k: (options[k].expiry, options[k].strike, k)
        )
        self._order = np.array(places, dtype=np.intp)
        ordered = [options[k] for k in places]
        self._books = []
        start = 0
        for number, inside in groupby(ordered, key=lambda option: option.expiry):
            book = _Book(market.expiries[number], tuple(inside), rule, start)
            self._books.append(book)
            start += len(book.options)

    def balances(self, held: Holdings) -> Balances:
        """Both balances of every account."""
        rule, market = self._rule, self._market
        amounts = held.options[:, self._order]
        worth = held.collateral * np.array(
            [one.price / market.stable for one in self._collateral], dtype=float
        )
        moves = np.array([one.moves for one in self._collateral], dtype=bool)
        moving = held.perps * market.perp + worth[:, moves].sum(axis=1)
        shift = np.array([(s.spot - 1.0) * s.damping for s in rule.scenarios])
        pnl: Array = moving[:, None] * shift
        basis, value = np.zeros(len(held.cash)), held.unsettled + worth.sum(axis=1)
        for book in self._books:
            mine = amounts[:, book.columns]
            value = value + mine @ book.value
            basis = basis + book.basis(mine)
            pnl += book.gains(mine)
        least, worst = basis, np.full(len(basis), -1, dtype=np.intp)
        if rule.scenarios:
            lowest = pnl.min(axis=1)
            worst = np.where(lowest < basis, pnl.argmin(axis=1), -1)
            least = np.minimum(basis, lowest)
        add_ons = self._add_ons(held, amounts, worth)
        maintenance = sum((one for one, _ in add_ons.values()), np.zeros(len(basis)))
        initial = sum((two for _, two in add_ons.values()), maintenance)
        factor = rule.initial_factor + rule.peg_factor * max(0.0, rule.peg - market.stable)
        if rule.scales_add_ons:
            initial = initial + (factor - 1.0) * maintenance
        assets = value + held.cash
        return Balances(
            assets + factor * least - initial,
            assets + rule.maintenance_factor * least - maintenance,
            value,
            pnl,
            worst,
            basis,
            add_ons,
        )

    def _add_ons(
        self, held: Holdings, amounts: Array, worth: Array
    ) -> dict[str, tuple[Array, Array]]:
        """By name: for maintenance, and what initial margin has on top."""
        rule, market = self._rule, self._market
        perps = np.abs(held.perps) * market.spot
        shorts = np.zeros(len(perps))
        for book in self._books:
            shorts = shorts + market.spot * book.net_short(amounts[:, book.columns])
        kept, extra = (
            np.array([getattr(one, name) for one in self._collateral], dtype=float)
            for name in ("maintenance_haircut", "initial_haircut")
        )
        return {
            "perpetuals": (perps * rule.perp_maintenance, perps * rule.perp_initial),
            "short options": (shorts * rule.option_maintenance, shorts * rule.option_initial),
            "haircuts": (worth @ kept, worth @ extra),
            "confidence": (np.zeros(len(perps)), self._unsure(held, amounts, worth, perps)),
        }

    def _unsure(self, held: Holdings, amounts: Array, worth: Array, perps: Array) -> Array:
        """The least confidence of what an account has decides; most of the time none is low."""
        rule, market = self._rule, self._market

        def extra(sure: Array, notional: Array) -> Array:
            share = (1.0 - sure) * rule.confidence_factor
            return np.where(sure < rule.confidence, share * notional, 0.0)

        least = min(market.spot_confidence, market.perp_confidence)
        sure = np.where(held.perps != 0.0, least, market.spot_confidence)
        total = extra(sure, perps)
        for book in self._books:
            mine = amounts[:, book.columns]
            inside = np.minimum(sure, book.confidence(mine))
            total = total + extra(inside, market.spot * np.abs(mine).sum(axis=1))
        for k, one in enumerate(self._collateral):
            total = total + extra(np.minimum(sure, one.confidence), worth[:, k])
        return total


class _Book:
    """The options of one expiry, in the order of their strikes, from a column on."""

    def __init__(
        self, expiry: Expiry, options: tuple[Option, ...], rule: Parameters, start: int
    ) -> None:
        self.options, self.columns = options, slice(start, start + len(options))
        self._expiry, self._rule = expiry, rule
        self._strike = np.array([option.strike for option in options], dtype=float)
        self._vol = np.array([option.vol for option in options], dtype=float)
        self._call: NDArray[np.bool_] = np.array([o.is_call for o in options], dtype=bool)
        self._sure = np.array([option.confidence for option in options], dtype=float)
        self._starts = np.flatnonzero(np.diff(self._strike, prepend=-np.inf))
        days = max(expiry.seconds, rule.least_days * _DAY_SECONDS)
        power = rule.short_power if expiry.seconds <= _MONTH_SECONDS else rule.long_power
        self._shock = (_MONTH_SECONDS / days) ** power
        spots = np.array([1.0, rule.basis_up, rule.basis_down, *(s.spot for s in rule.scenarios)])
        moved = [self._shocked(s.vol) for s in rule.scenarios]
        grid = self._worth(spots[:, None], np.array([self._vol] * 3 + moved))
        self.value: Array = grid[0]
        self._apart, self._grid = grid[1:3], grid[3:]
        self._damping = np.array([s.damping for s in rule.scenarios])
        self._tilts: NDArray[np.bool_] = np.array([s.vol.is_tilt for s in rule.scenarios], bool)
        back = [np.maximum(0.0, 2.0 * self._vol - vol) for vol in np.array(moved)[self._tilts]]
        self._back = self._worth(spots[3:][self._tilts][:, None], np.array(back)) if back else None

    def gains(self, amounts: Array) -> Array:
        """What the book adds to each scenario of each account, [N, scenarios].

        A tilt counts against the account whichever way it goes.
        """
        gained = self._gained(amounts, self._grid)
        if self._back is not None:
            one = gained[:, self._tilts]
            other = self._gained(amounts, self._back) if self._rule.two_sided else -one
            gained[:, self._tilts] = np.minimum(one, other)
        gained *= self._damping
        return gained

    def _gained(self, amounts: Array, grid: Array) -> Array:
        """What the book gains over now at the values of a grid, after the discount."""
        shocked = amounts @ grid.T
        factor = np.where(shocked >= 0.0, self._owned(), self._owed())
        gained: Array = shocked * factor - (amounts @ self.value)[:, None]
        return gained

    def basis(self, amounts: Array) -> Array:
        """The worse of two moves of this forward alone, the further the later; never above 0."""
        rule = self._rule
        apart = (amounts @ (self._apart - self.value).T).min(axis=1)
        share = rule.basis_base + rule.basis_per_year * self._expiry.years
        return np.asarray(np.minimum(0.0, apart) * share)

    def net_short(self, amounts: Array) -> Array:
        """Σ over strikes of what is sold more than bought, calls and puts together."""
        net = np.add.reduceat(amounts, self._starts, axis=1)
        return np.asarray(np.maximum(0.0, -net).sum(axis=1))

    def confidence(self, amounts: Array) -> Array:
        """The least confidence of the expiry and of the options that an account has in it."""
        held = np.where(amounts != 0.0, self._sure, np.inf)
        least = held.min(axis=1)
        sure: Array = np.minimum(least, self._expiry.confidence)
        return np.where(np.isfinite(least), sure, np.inf)

    def _worth(self, spot: Array, vol: Array) -> Array:
        expiry = self._expiry
        forward = expiry.fixed + (expiry.forward - expiry.fixed) * spot
        years, discount = expiry.years, expiry.discount
        return black76.prices(forward, self._strike, years, vol, discount, self._call)

    def _shocked(self, move: VolMove) -> Array:
        rule = self._rule
        if move.is_tilt:
            tilted: Array = self._vol * self._tilted(move)
            return tilted
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

    def _owned(self) -> float:
        """What is owned counts less the later it is."""
        rule, rate = self._rule, max(self._expiry.rate, 0.0)
        shocked = rate * rule.long_rate_factor + rule.long_rate_extra
        return rule.long_discount * float(np.exp(-self._expiry.years * shocked))

    def _owed(self) -> float:
        """What is owed counts more the later it is, at most undiscounted."""
        rule, rate = self._rule, max(self._expiry.rate, 0.0)
        shocked = rate * rule.short_rate_factor + rule.short_rate_extra
        owed = rule.short_discount * float(np.exp(self._expiry.years * shocked))
        return min(1.0 / self._expiry.discount, owed)

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
from itertools import groupby

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from solver.core.margin import black76
from solver.core.margin.black76 import Array
from solver.core.margin.rules import (
    Account,
    Collateral,
    Expiry,
    Market,
    Option,
    Parameters,
    VolMove,
)

_MONTH_SECONDS = 30.0 * 86_400.0
_DAY_SECONDS = 86_400.0
BASIS, NONE = "basis", "none"


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


class Slopes(Struct, frozen=True):
    """What a balance of one account gains per unit of each holding, where it is; the place of the
    scenario that decides, −1 for the basis. ``options`` and ``collateral`` as in the account.
    """

    cash: float
    perps: float
    unsettled: float
    options: Array
    collateral: Array
    worst: int


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
        sure = [market.spot_confidence, market.perp_confidence]
        sure += [expiry.confidence for expiry in market.expiries]
        sure += [option.confidence for option in options]
        sure += [one.confidence for one in collateral]
        self._is_sure = min(sure) >= rule.confidence
        self._price = np.array([one.price / market.stable for one in collateral], dtype=float)
        self._moves: NDArray[np.bool_] = np.array([one.moves for one in collateral], dtype=bool)
        self._shift = np.array([(s.spot - 1.0) * s.damping for s in rule.scenarios])
        self._factor = rule.initial_factor + rule.peg_factor * max(0.0, rule.peg - market.stable)
        self._haircuts = tuple(
            np.array([getattr(one, name) for one in collateral], dtype=float)
            for name in ("maintenance_haircut", "initial_haircut")
        )

    def balances(self, held: Holdings) -> Balances:
        """Both balances of every account."""
        rule, market = self._rule, self._market
        amounts = held.options[:, self._order]
        worth = held.collateral * self._price
        moving = held.perps * market.perp + worth[:, self._moves].sum(axis=1)
        pnl: Array = moving[:, None] * self._shift
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
        if rule.scales_add_ons:
            initial = initial + (self._factor - 1.0) * maintenance
        assets = value + held.cash
        return Balances(
            assets + self._factor * least - initial,
            assets + rule.maintenance_factor * least - maintenance,
            value,
            pnl,
            worst,
            basis,
            add_ons,
        )

    def slopes(self, held: Holdings, initial: bool) -> Slopes:
        """A supergradient of the initial, or of the maintenance balance of one account.

        With a rule that is concave, no account has a larger balance than the sum of its holdings
        times these slopes: balances are homogeneous. How sure oracles are counts as it does here.
        """
        rule, market = self._rule, self._market
        found = self.balances(held)
        amounts = held.options[:, self._order]
        worst = int(found.worst[0])
        factor = self._factor if initial else rule.maintenance_factor
        shift = factor * float(self._shift[worst]) if worst >= 0 else 0.0
        options = np.zeros(amounts.shape[1])
        for book in self._books:
            mine = amounts[:, book.columns]
            lost = book.basis_slope(mine) if worst < 0 else book.gain_slope(mine, worst)
            options[book.columns] = book.value + factor * lost
        own = self._add_on_slopes(held, amounts, initial)
        options -= own.options
        back = np.empty_like(options)
        back[self._order] = options
        return Slopes(
            1.0,
            market.perp * shift - own.perps,
            1.0,
            back,
            self._price * (1.0 + np.where(self._moves, shift, 0.0)) - own.collateral,
            worst,
        )

    def _add_on_slopes(self, held: Holdings, amounts: Array, initial: bool) -> Slopes:
        """What add-ons grow by; of a kink its middle. Options in the order of the books."""
        rule, market = self._rule, self._market
        grown = self._factor if initial and rule.scales_add_ons else 1.0
        also = 1.0 if initial else 0.0
        side = float(np.sign(held.perps[0]))
        perps = side * market.spot * (grown * rule.perp_maintenance + also * rule.perp_initial)
        kept, extra = self._haircuts
        collateral = self._price * (grown * kept + also * extra)
        options = np.zeros(amounts.shape[1])
        short = market.spot * (grown * rule.option_maintenance + also * rule.option_initial)
        least = min(market.spot_confidence, market.perp_confidence)
        sure = least if held.perps[0] != 0.0 else market.spot_confidence
        perps += also * side * market.spot * self._doubt(sure)
        for book in self._books:
            mine = amounts[:, book.columns]
            doubt = self._doubt(min(sure, float(book.confidence(mine)[0])))
            options[book.columns] = short * book.net_short_slope(mine)
            options[book.columns] += also * market.spot * doubt * np.sign(mine[0])
        for k, one in enumerate(self._collateral):
            collateral[k] += also * self._price[k] * self._doubt(min(sure, one.confidence))
        return Slopes(0.0, perps, 0.0, options, collateral, -1)

    def _doubt(self, sure: float) -> float:
        """The share of notional that an unsure oracle costs."""
        rule = self._rule
        return (1.0 - sure) * rule.confidence_factor if sure < rule.confidence else 0.0

    def _add_ons(
        self, held: Holdings, amounts: Array, worth: Array
    ) -> dict[str, tuple[Array, Array]]:
        """By name: for maintenance, and what initial margin has on top."""
        rule, market = self._rule, self._market
        perps = np.abs(held.perps) * market.spot
        shorts = np.zeros(len(perps))
        for book in self._books:
            shorts = shorts + market.spot * book.net_short(amounts[:, book.columns])
        kept, extra = self._haircuts
        return {
            "perpetuals": (perps * rule.perp_maintenance, perps * rule.perp_initial),
            "short options": (shorts * rule.option_maintenance, shorts * rule.option_initial),
            "haircuts": (worth @ kept, worth @ extra),
            "confidence": (np.zeros(len(perps)), self._unsure(held, amounts, worth, perps)),
        }

    def _unsure(self, held: Holdings, amounts: Array, worth: Array, perps: Array) -> Array:
        """The least confidence of what an account has decides; most of the time none is low."""
        rule, market = self._rule, self._market
        if self._is_sure:
            return np.zeros(len(perps))

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

    def gain_slope(self, amounts: Array, scenario: int) -> Array:
        """What one account gains in a scenario per unit of each option, [options]."""
        slope, gained = self._slope(amounts, self._grid[scenario])
        if self._tilts[scenario]:
            slope, gained = self._worse_slope(amounts, scenario, slope, gained)
        return slope * float(self._damping[scenario])

    def _worse_slope(
        self, amounts: Array, scenario: int, slope: Array, gained: float
    ) -> tuple[Array, float]:
        """Of a tilt, the side that costs more."""
        assert self._back is not None
        if not self._rule.two_sided:
            return (slope, gained) if gained <= 0.0 else (-slope, -gained)
        place = int(np.count_nonzero(self._tilts[:scenario]))
        other, lost = self._slope(amounts, self._back[place])
        return (slope, gained) if gained <= lost else (other, lost)

    def _slope(self, amounts: Array, values: Array) -> tuple[Array, float]:
        shocked = float(amounts[0] @ values)
        factor = self._owned() if shocked >= 0.0 else self._owed()
        slope: Array = values * factor - self.value
        return slope, float(amounts[0] @ slope)

    def basis_slope(self, amounts: Array) -> Array:
        """What one account's basis part grows by per unit of each option, [options]."""
        rule = self._rule
        moves = self._apart - self.value
        apart = moves @ amounts[0]
        worse = int(np.argmin(apart))
        share = rule.basis_base + rule.basis_per_year * self._expiry.years
        found: Array = moves[worse] * share if apart[worse] < 0.0 else np.zeros(len(self.options))
        return found

    def net_short_slope(self, amounts: Array) -> Array:
        """−1 for the options of strikes of which one account has sold more, else 0, [options]."""
        net = np.add.reduceat(amounts[0], self._starts)
        per_strike = np.where(net < 0.0, -1.0, 0.0)
        counts = np.diff(self._starts, append=len(self.options))
        return np.repeat(per_strike, counts)

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

"""Margin once more, one number after another: the scenario rule as its page states it.

Shares no code with :mod:`solver.core.margin`, which computes with arrays; only the data are the
same. What is asked of a batch: no account's balance may be below zero, or, where it was already,
below what it was.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from solver.checker.document import Claim, Row, Violation
from solver.core.margin.book import HEALTH_ONE, Book, Cash, Perpetual
from solver.core.margin.rules import Collateral, Expiry, Option, Scenario, VolMove
from solver.core.types import ZERO_BYTES32, Fill, Intent, TokenId

_MONTH_DAYS = 30.0
_DAY_SECONDS = 86_400.0


_ROOM = 1e-8  # of an account's gross worth
_TRIALS = 64


class Breach(Struct, frozen=True):
    """A balance that a batch lowered below zero, or further below it."""

    account: str
    what: str
    before: float
    after: float


class _Sums(Struct):
    """What one account has: assets, and both balances."""

    assets: float
    initial: float
    maintenance: float


def violations(book: Book, intents: Sequence[Intent], claim: Claim) -> Iterator[Violation]:
    """Accounts that the fills, after all fees, leave with too little, and rows that are not theirs.

    A row is tried out where each order is filled alone, all together and at random: no fills that
    keep the account's margin may break it. That finds false rows; it does not prove true ones.
    """
    for breach in breaches(book, intents, claim.fills, _ROOM):
        detail = f"{breach.what} is {breach.after:.9g}, was {breach.before:.9g}"
        yield Violation("margin", f"/margin/{breach.account}", detail)
    accounts = {intent.digest: intent.swap.account for intent in intents}
    for name, row in claim.rows.items():
        place = f"/certificate/rows/{name}"
        owners = {accounts.get(digest, "") for digest in row.coefficients}
        if len(owners) != 1 or not owners <= book.accounts.keys():
            yield Violation("unknown_row", place, "a row is about the orders of one account")
        elif _is_false(book, owners.pop(), intents, row):
            yield Violation("false_row", place, "it forbids fills that keep the margin")


def _is_false(book: Book, account: str, intents: Sequence[Intent], row: Row) -> bool:
    own = [intent for intent in intents if intent.swap.account == account]
    rng = random.Random(account)
    trials = [[float(k == i) for k in range(len(own))] for i in range(len(own))]
    trials += [[1.0] * len(own)]
    trials += [[rng.random() ** 2 for _ in own] for _ in range(_TRIALS)]
    for shares in trials:
        taken = sum(
            float(row.coefficients.get(intent.digest, 0)) * share
            for intent, share in zip(own, shares, strict=True)
        )
        if taken <= float(row.rhs) * (1.0 + _ROOM) + _ROOM:
            continue
        after = dict(book.accounts[account].amounts)
        for intent, share in zip(own, shares, strict=True):
            swap, part = intent.swap, share * intent.remaining / intent.swap.total
            after[swap.sell] = after.get(swap.sell, 0) - int(swap.sell_amount * part)
            after[swap.buy] = after.get(swap.buy, 0) + int(swap.buy_amount * part)
        if not list(_compared(book, account, book.accounts[account].amounts, after, own, -_ROOM)):
            return True
    return False


def breaches(
    book: Book, intents: Sequence[Intent], fills: Sequence[Fill], room: float
) -> list[Breach]:
    """What fills violate, beyond ``room`` of the gross worth that an account holds and orders."""
    found: list[Breach] = []
    by_digest = {fill.digest: fill for fill in fills}
    for name in sorted({intent.swap.account for intent in intents} - {ZERO_BYTES32}):
        own = [intent for intent in intents if intent.swap.account == name]
        filled = [intent for intent in own if intent.digest in by_digest]
        if not filled:
            continue
        if name not in book.accounts:
            found.append(Breach(name, "unknown account", 0.0, 0.0))
            continue
        before = dict(book.accounts[name].amounts)
        after = dict(before)
        for intent in filled:
            swap, fill = intent.swap, by_digest[intent.digest]
            after[swap.sell] = after.get(swap.sell, 0) - fill.sell
            after[swap.buy] = after.get(swap.buy, 0) + fill.buy
        found += _compared(book, name, before, after, own, room)
    return found


def _compared(
    book: Book,
    name: str,
    before: Mapping[TokenId, int],
    after: Mapping[TokenId, int],
    own: Sequence[Intent],
    room: float,
) -> Iterator[Breach]:
    for token, left in after.items():
        start = before.get(token, 0)
        if isinstance(book.assets[token].instrument, Collateral) and left < min(0, start):
            yield Breach(name, f"balance of {token}", float(start), float(left))
    was, now = _sums(book, before), _sums(book, after)
    spare = room * (_gross(book, before) + sum(_gross(book, _moved(intent)) for intent in own) + 1)
    figures = [("initial", was.initial, now.initial)]
    for floor in sorted({intent.swap.min_health for intent in own} - {0}):
        h = floor / HEALTH_ONE
        had, has = ((1 - h) * one.assets + h * one.maintenance for one in (was, now))
        figures.append((f"health {h:g}", had, has))
    for what, had, has in figures:
        if has < min(0.0, had) - spare:
            yield Breach(name, what, had, has)


def _moved(intent: Intent) -> dict[TokenId, int]:
    return {intent.swap.sell: intent.swap.sell_amount, intent.swap.buy: intent.swap.buy_amount}


def _gross(book: Book, amounts: Mapping[TokenId, int]) -> float:
    market, total = book.market, 0.0
    for token, amount in amounts.items():
        asset = book.assets[token]
        kind, price = asset.instrument, 1.0
        if isinstance(kind, Perpetual):
            price = market.perp
        elif isinstance(kind, Collateral):
            price = kind.price / market.stable
        elif isinstance(kind, Option):
            price = market.expiries[kind.expiry].forward
        total += abs(amount) / asset.unit * price
    return total


def _sums(book: Book, amounts: Mapping[TokenId, int]) -> _Sums:
    rule, market = book.rule, book.market
    cash = perps = 0.0
    options: dict[int, list[tuple[Option, float]]] = {}
    collateral: list[tuple[Collateral, float]] = []
    for token, amount in sorted(amounts.items()):
        asset = book.assets[token]
        held, kind = amount / asset.unit, asset.instrument
        if isinstance(kind, Cash):
            cash += held
        elif isinstance(kind, Perpetual):
            perps += held
        elif isinstance(kind, Option):
            options.setdefault(kind.expiry, []).append((kind, held))
        else:
            collateral.append((kind, held))
    worth = [(kind, held * kind.price / market.stable) for kind, held in collateral]
    assets = cash + perps * market.perp + sum(value for _, value in worth)
    moving = perps * market.perp + sum(value for kind, value in worth if kind.moves)
    least = 0.0
    books = [_Expiry(book, market.expiries[k], held) for k, held in sorted(options.items())]
    assets += sum(one.now for one in books)
    least = sum(one.basis() for one in books)
    for scenario in rule.scenarios:
        gained = moving * (scenario.spot - 1.0) * scenario.damping
        gained += sum(one.gained(scenario) for one in books)
        least = min(least, gained)
    shorts = sum(one.net_short() for one in books)
    notional = abs(perps) * market.spot
    maintenance = notional * rule.perp_maintenance + shorts * rule.option_maintenance
    initial = notional * rule.perp_initial + shorts * rule.option_initial
    maintenance += sum(value * kind.maintenance_haircut for kind, value in worth)
    initial += sum(value * kind.initial_haircut for kind, value in worth)
    factor = rule.initial_factor + rule.peg_factor * max(0.0, rule.peg - market.stable)
    grown = factor if rule.scales_add_ons else 1.0
    initial += _unsure(book, perps, worth, books)
    return _Sums(
        assets,
        assets + factor * least - grown * maintenance - initial,
        assets + rule.maintenance_factor * least - maintenance,
    )


def _unsure(
    book: Book,
    perps: float,
    worth: Sequence[tuple[Collateral, float]],
    books: Sequence[_Expiry],
) -> float:
    rule, market = book.rule, book.market

    def extra(sure: float, notional: float) -> float:
        return (1.0 - sure) * rule.confidence_factor * notional if sure < rule.confidence else 0.0

    sure = market.spot_confidence
    if perps:
        sure = min(sure, market.perp_confidence)
    total = extra(sure, abs(perps) * market.spot)
    for one in books:
        held = [option for option, amount in one.held if amount]
        if held:
            inside = min(sure, one.expiry.confidence, *(option.confidence for option in held))
            total += extra(inside, market.spot * sum(abs(amount) for _, amount in one.held))
    return total + sum(extra(min(sure, kind.confidence), value) for kind, value in worth)


class _Expiry:
    """The options that an account has in one expiry."""

    def __init__(self, book: Book, expiry: Expiry, held: Sequence[tuple[Option, float]]) -> None:
        self.expiry, self.held = expiry, held
        self._rule, self._spot = book.rule, book.market.spot
        self.now = self._worth(1.0, [option.vol for option, _ in held])

    def net_short(self) -> float:
        """What is sold more than bought, strike by strike, at the spot price."""
        strikes: dict[float, float] = {}
        for option, amount in self.held:
            strikes[option.strike] = strikes.get(option.strike, 0.0) + amount
        return self._spot * sum(max(0.0, -net) for net in strikes.values())

    def basis(self) -> float:
        """The worse of two moves of the forward alone."""
        rule = self._rule
        vols = [option.vol for option, _ in self.held]
        moves = [self._worth(by, vols) - self.now for by in (rule.basis_up, rule.basis_down)]
        share = rule.basis_base + rule.basis_per_year * self.expiry.years
        return min(0.0, *moves) * share

    def gained(self, scenario: Scenario) -> float:
        """What they gain in a scenario; a tilt counts in the worse of its two directions."""
        vols = [self._shocked(scenario.vol, option) for option, _ in self.held]
        gained = self._discounted(self._worth(scenario.spot, vols)) - self.now
        if scenario.vol.is_tilt and self._rule.two_sided:
            back = [
                max(0.0, 2.0 * option.vol - vol)
                for (option, _), vol in zip(self.held, vols, strict=True)
            ]
            other = self._discounted(self._worth(scenario.spot, back)) - self.now
            gained = min(gained, other)
        elif scenario.vol.is_tilt:
            gained = -abs(gained)
        return gained * scenario.damping

    def _worth(self, by: float, vols: Sequence[float]) -> float:
        expiry = self.expiry
        forward = expiry.fixed + (expiry.forward - expiry.fixed) * by
        return sum(
            amount * _black(forward, option, expiry, vol)
            for (option, amount), vol in zip(self.held, vols, strict=True)
        )

    def _discounted(self, value: float) -> float:
        rule, years, rate = self._rule, self.expiry.years, max(self.expiry.rate, 0.0)
        if value >= 0.0:
            shocked = rate * rule.long_rate_factor + rule.long_rate_extra
            kept: float = rule.long_discount * math.exp(-years * shocked)
            return value * kept
        shocked = rate * rule.short_rate_factor + rule.short_rate_extra
        owed: float = rule.short_discount * math.exp(years * shocked)
        return value * min(1.0 / self.expiry.discount, owed)

    def _shocked(self, move: VolMove, option: Option) -> float:
        rule, days = self._rule, self.expiry.seconds / _DAY_SECONDS
        power = rule.short_power if days <= _MONTH_DAYS else rule.long_power
        shock: float = (_MONTH_DAYS / max(days, rule.least_days)) ** power
        if move is VolMove.UP:
            return max(rule.least_vol_up, option.vol * (1.0 + rule.vol_up * shock))
        if move is VolMove.DOWN:
            return option.vol * max(0.0, 1.0 - rule.vol_down * shock)
        return option.vol * self._tilted(move, option) if move.is_tilt else option.vol

    def _tilted(self, move: VolMove, option: Option) -> float:
        tilt, root = self._rule.tilt, math.sqrt(self.expiry.years)
        k = math.log(option.strike / self.expiry.forward)
        if move is VolMove.SKEW:
            cap = tilt.skew_cap + tilt.skew_per_root_year * root
        else:
            k, cap = abs(k), tilt.smile_cap + tilt.smile_per_root_year * root
        width = tilt.width * root * (tilt.vol + tilt.vol_per_root_year * root)
        moved = k * cap / max(tilt.least_width, width)
        return max(0.0, 1.0 + (min(cap, moved) if k >= 0.0 else max(-cap, moved)))


def _black(forward: float, option: Option, expiry: Expiry, vol: float) -> float:
    """Black-76; without time or volatility what the option would pay."""
    sign = 1.0 if option.is_call else -1.0
    spread = vol * math.sqrt(expiry.years)
    if spread <= 0.0 or forward <= 0.0:
        return expiry.discount * max(0.0, sign * (forward - option.strike))
    one = math.log(forward / option.strike) / spread + spread / 2.0
    paid = forward * _normal(sign * one) - option.strike * _normal(sign * (one - spread))
    return expiry.discount * sign * paid


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))

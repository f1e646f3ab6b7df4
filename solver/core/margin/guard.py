"""Margin accounts in a batch: tokens as positions, and rows that keep every account's margin.

Derivatives are tokens here: who buys an option pays for it and owns it, who sells one that he does
not have is short. A perpetual is bought at its price like anything else, and is worth its mark. A
fill then moves an account's positions q by what it sells and buys, and balances are functions of q:

    E(q) = assets + factor·min(worst scenario, basis) − add-ons          (initial margin)
    H(q) = (1 − h)·assets + h·(maintenance balance),  for a health floor h:  assets ≥ h·requirement

What must hold of both is E(q) ≥ min(0, E(q₀)): who does nothing, or only reduces his risk, always
may. E is concave and homogeneous, so that E(q) ≤ g·q with the slopes g anywhere; the batch gets the
rows g·q ≥ min(0, E(q₀)) of the places where plans go, the worst violated first. Rows count what an
order must get at least. Exact fills are looked at once more, and what fails is solved again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from solver.core.curves import Array
from solver.core.margin.book import (
    HEALTH_ONE,
    Book,
    Cash,
    Held,
    Instrument,
    Perpetual,
)
from solver.core.margin.rules import Collateral, Option
from solver.core.margin.scenarios import BASIS, NONE, Balances, Grid, Holdings, Slopes
from solver.core.problem import ExtraRow
from solver.core.types import ZERO_BYTES32, Fill, Intent, MarginKept, MarginState, TokenId

_SAME = 1e-9  # of what an account holds and orders: what floats may differ by
_SPARE = 1.5  # times what integers missed, which the next plan must leave


class Breach(Struct, frozen=True):
    """An account that fills would leave with less margin than it may have."""

    account: str
    name: str
    missing: float


class Cut(Struct, frozen=True):
    """A row of one account: Σ coefficient·share ≤ ``most``, both in ``scale`` units of account."""

    account: str
    name: str
    coefficients: dict[str, float]
    most: float
    scale: float

    def row(self, place: Mapping[str, int]) -> ExtraRow:
        """Over the positions of digests; orders that are not there count as not filled."""
        found = {place[d]: c for d, c in sorted(self.coefficients.items()) if d in place}
        return ExtraRow(self.name, found, self.most)


class Guard:
    """The rows of one batch, which grow with the plans that are looked at."""

    def __init__(self, book: Book, intents: Iterable[Intent]) -> None:
        self._book = book
        self._tokens = sorted(book.assets)
        self._place = {token: k for k, token in enumerate(self._tokens)}
        self._unit = np.array([float(book.assets[token].unit) for token in self._tokens])
        kinds = [book.assets[token].instrument for token in self._tokens]
        self._cash = _places(kinds, Cash)
        self._perps = _places(kinds, Perpetual)
        self._options = _places(kinds, Option)
        self._collateral = _places(kinds, Collateral)
        self._grid = Grid(
            book.market,
            [kind for kind in kinds if isinstance(kind, Option)],
            [kind for kind in kinds if isinstance(kind, Collateral)],
            book.rule,
        )
        each = [self._held(one) for one in np.eye(len(kinds))]
        self._worth = np.array([_assets(one, self._grid.balances(one)) for one in each])
        self.refused: dict[str, tuple[str, str]] = {}
        self._intents: dict[str, list[Intent]] = {}
        for intent in intents:
            self._admit(intent)
        self._moves = {
            intent.digest: self._move(intent) for own in self._intents.values() for intent in own
        }
        self._start = {name: self._amounts(book.accounts[name]) for name in self._intents}
        self._slack: dict[tuple[str, float], float] = {}
        self.cuts: dict[tuple[object, ...], Cut] = {}
        for name, own in self._intents.items():
            self._first_cuts(name, own)

    def rows(self, intents: Sequence[Intent]) -> tuple[ExtraRow, ...]:
        """The rows so far, over positions in ``intents``."""
        place = {intent.digest: k for k, intent in enumerate(intents)}
        return tuple(
            cut.row(place) for cut in self.cuts.values() if place.keys() & cut.coefficients
        )

    def look(self, shares: Mapping[str, float]) -> bool:
        """Add the rows that a plan violates; whether there are new ones."""
        before = dict(self.cuts)
        for name in self._intents:
            amounts = self._start[name] + self._moved(name, shares)
            for health in self._floors(name):
                if self._short(name, amounts, health) > 0.0:
                    self._cut(name, amounts, health)
        return self.cuts != before

    def breaches(self, fills: Sequence[Fill]) -> list[Breach]:
        """What exact fills violate; the rows get as much more room, and the new rows."""
        found = []
        for name in self._intents:
            amounts = self._after(name, fills)
            if amounts is self._start[name]:
                continue
            for token, units in self._overdrawn(name, fills).items():
                found.append(
                    Breach(name, f"balance:{name}:{token}", units / self._book.assets[token].unit)
                )
            for health in self._floors(name):
                missing = self._short(name, amounts, health)
                if missing > 0.0:
                    key = name, health
                    self._slack[key] = self._slack.get(key, 0.0) + _SPARE * missing
                    cut = self._cut(name, amounts, health)
                    found.append(Breach(name, cut.name, missing))
        return found

    def kept(self, fills: Sequence[Fill], prices: Mapping[str, float]) -> tuple[MarginKept, ...]:
        """Every account of the batch before and after; ``prices`` are those of rows, by name."""
        cuts = {cut.name: cut for cut in self.cuts.values()}
        found = []
        for name in sorted(self._intents):
            binding = {
                row: price / cuts[row].scale
                for row, price in sorted(prices.items())
                if price > 0.0 and row in cuts and cuts[row].account == name
            }
            after = self._after(name, fills)
            found.append(
                MarginKept(name, self._state(self._start[name]), self._state(after), binding)
            )
        return tuple(found)

    def digests_of(self, account: str) -> list[str]:
        """The account's orders in this batch."""
        return [intent.digest for intent in self._intents.get(account, ())]

    def _admit(self, intent: Intent) -> None:
        swap = intent.swap
        if swap.account == ZERO_BYTES32:
            return
        held = self._book.accounts.get(swap.account)
        strange = [token for token in (swap.sell, swap.buy) if token not in self._place]
        if held is None:
            self.refused[intent.digest] = "unknown_account", f"no margin account {swap.account}"
        elif held.owner.lower() != swap.owner.lower():
            self.refused[intent.digest] = "not_your_account", f"{swap.account} is another's"
        elif strange:
            detail = f"{strange[0]} is no instrument of this market"
            self.refused[intent.digest] = "unknown_instrument", detail
        else:
            self._intents.setdefault(swap.account, []).append(intent)

    def _amounts(self, held: Held) -> Array:
        found = np.zeros(len(self._tokens))
        for token, amount in held.amounts.items():
            k = self._place[token]
            found[k] = amount / self._unit[k]
        return found

    def _move(self, intent: Intent) -> Array:
        """What the whole order does to the account, at its limit."""
        swap, moved = intent.swap, np.zeros(len(self._tokens))
        share = intent.remaining / swap.total
        sell, buy = self._place[swap.sell], self._place[swap.buy]
        moved[sell] -= swap.sell_amount * share / self._unit[sell]
        moved[buy] += swap.buy_amount * share / self._unit[buy]
        return moved

    def _moved(self, name: str, shares: Mapping[str, float]) -> Array:
        moved = np.zeros(len(self._tokens))
        for intent in self._intents[name]:
            moved += shares.get(intent.digest, 0.0) * self._moves[intent.digest]
        return moved

    def _after(self, name: str, fills: Sequence[Fill]) -> Array:
        known = {intent.digest: intent.swap for intent in self._intents[name]}
        amounts = self._start[name]
        for fill in fills:
            swap = known.get(fill.digest)
            if swap is not None:
                amounts = amounts.copy()
                sell, buy = self._place[swap.sell], self._place[swap.buy]
                amounts[sell] -= fill.sell / self._unit[sell]
                amounts[buy] += fill.buy / self._unit[buy]
        return amounts

    def _floors(self, name: str) -> list[float]:
        """0 for initial margin, and every health that one of the account's orders asks for."""
        asked = {intent.swap.min_health / HEALTH_ONE for intent in self._intents[name]}
        return sorted({0.0} | asked)

    def _held(self, amounts: Array) -> Holdings:
        perps = amounts[self._perps].sum()
        return Holdings(
            np.array([amounts[self._cash].sum()]),
            np.array([perps]),
            np.array([perps * self._book.market.perp]),
            amounts[None, self._options],
            amounts[None, self._collateral],
        )

    def _balance(self, amounts: Array, health: float) -> float:
        held = self._held(amounts)
        found = self._grid.balances(held)
        if health == 0.0:
            return float(found.initial[0])
        return (1.0 - health) * _assets(held, found) + health * float(found.maintenance[0])

    def _slopes(self, amounts: Array, health: float) -> tuple[Array, str]:
        """What the balance gains per instrument, and what decides."""
        held = self._held(amounts)
        slopes = self._grid.slopes(held, health == 0.0)
        found = self._by_token(slopes)
        if health > 0.0:
            found = (1.0 - health) * self._worth + health * found
        rule = self._book.rule
        return found, BASIS if slopes.worst < 0 else rule.scenarios[slopes.worst].name

    def _by_token(self, slopes: Slopes) -> Array:
        found = np.zeros(len(self._tokens))
        found[self._cash] = slopes.cash
        found[self._perps] = slopes.perps + slopes.unsettled * self._book.market.perp
        found[self._options] = slopes.options
        found[self._collateral] = slopes.collateral
        return found

    def _least(self, name: str, health: float) -> float:
        """What the balance must be at least."""
        return min(0.0, self._balance(self._start[name], health))

    def _short(self, name: str, amounts: Array, health: float) -> float:
        """By how much a balance is below what it must be, beyond what floats differ by."""
        missing = self._least(name, health) - self._balance(amounts, health)
        size = self._size(name)
        return missing if missing > _SAME * size else 0.0

    def _size(self, name: str) -> float:
        """The gross worth of what an account holds and orders."""
        moves = [self._moves[intent.digest] for intent in self._intents[name]]
        gross: Array = abs(self._start[name]) + np.sum(np.abs(moves), axis=0)
        return float(self._worth @ gross) + 1.0

    def _overdrawn(self, name: str, fills: Sequence[Fill]) -> dict[TokenId, int]:
        """What nobody can owe: collateral that is sold beyond what there is, in base units."""
        known = {intent.digest: intent.swap for intent in self._intents[name]}
        left: dict[TokenId, int] = {}
        held = self._book.accounts[name].amounts
        for fill in fills:
            swap = known.get(fill.digest)
            for token, moved in ((swap.sell, -fill.sell), (swap.buy, fill.buy)) if swap else ():
                left[token] = left.get(token, held.get(token, 0)) + moved
        return {
            token: min(0, held.get(token, 0)) - amount
            for token, amount in sorted(left.items())
            if amount < min(0, held.get(token, 0))
            and isinstance(self._book.assets[token].instrument, Collateral)
        }

    def _first_cuts(self, name: str, own: Sequence[Intent]) -> None:
        """Where the account is, where all its orders lead together, and where each does alone."""
        start = self._start[name]
        alone = [start + self._moves[intent.digest] for intent in own]
        together = start + self._moved(name, dict.fromkeys(self._moves, 1.0))
        for health in self._floors(name):
            for amounts in (start, together, *alone):
                self._cut(name, amounts, health)
        for token in sorted({intent.swap.sell for intent in own}):
            if isinstance(self._book.assets[token].instrument, Collateral):
                k = self._place[token]
                most = max(0.0, float(start[k])) * (1.0 - _SAME)
                self._row(name, f"balance:{name}:{token}", np.eye(len(start))[k], most, k)

    def _cut(self, name: str, amounts: Array, health: float) -> Cut:
        slopes, worst = self._slopes(amounts, health)
        spare = float(slopes @ self._start[name]) - self._least(name, health)
        most = max(0.0, spare - self._slack.get((name, health), 0.0))
        kind = f"health {health:g}" if health else "margin"
        return self._row(name, f"{kind}:{name}:{worst}", slopes, most, health)

    def _row(self, name: str, called: str, slopes: Array, most: float, kind: object) -> Cut:
        """The row of some slopes; of rows that differ on the right side only the tightest."""
        costs = {i.digest: -float(slopes @ self._moves[i.digest]) for i in self._intents[name]}
        scale = max((abs(cost) for cost in costs.values()), default=0.0) or 1.0
        coefficients = {digest: cost / scale for digest, cost in costs.items()}
        key = name, kind, tuple(f"{c:.9e}" for c in coefficients.values())
        known = self.cuts.get(key)
        if known is not None and known.most <= most / scale:
            return known
        taken = {cut.name for other, cut in self.cuts.items() if other != key}
        number, first = 2, called
        while called in taken:
            called, number = f"{first} #{number}", number + 1
        cut = Cut(name, called, coefficients, most / scale, scale)
        self.cuts[key] = cut
        return cut

    def _state(self, amounts: Array) -> MarginState:
        held = self._held(amounts)
        found = self._grid.balances(held)
        worst = int(found.worst[0])
        name = BASIS if found.basis[0] < 0.0 else NONE
        return MarginState(
            _assets(held, found),
            float(found.initial[0]),
            float(found.maintenance[0]),
            name if worst < 0 else self._book.rule.scenarios[worst].name,
        )


def _places(kinds: Sequence[Instrument], kind: type) -> list[int]:
    return [k for k, one in enumerate(kinds) if isinstance(one, kind)]


def _assets(held: Holdings, found: Balances) -> float:
    return float(held.cash[0] + found.value[0])

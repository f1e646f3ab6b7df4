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
from solver.core.margin.book import HEALTH_ONE, Book
from solver.core.margin.evaluator import SAME, Evaluator
from solver.core.problem import ExtraRow
from solver.core.types import ZERO_BYTES32, Fill, Intent, MarginKept, TokenId

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
        self._of = Evaluator(book)
        self.refused: dict[str, tuple[str, str]] = {}
        self._intents: dict[str, list[Intent]] = {}
        for intent in intents:
            self._admit(intent)
        self._moves = {
            intent.digest: self._of.move(intent) for own in self._intents.values() for intent in own
        }
        self._start = {name: self._of.amounts(book.accounts[name]) for name in self._intents}
        self._floors = {name: _floors(own) for name, own in self._intents.items()}
        self._size = {
            name: self._of.size(self._start[name], [self._moves[intent.digest] for intent in own])
            for name, own in self._intents.items()
        }
        self._least = {
            (name, health): min(0.0, self._of.balance(self._start[name], health))
            for name, floors in self._floors.items()
            for health in floors
        }
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
            for health in self._floors[name]:
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
                    Breach(
                        name, f"balance:{name}:{token}", units / self._of.book.assets[token].unit
                    )
                )
            for health in self._floors[name]:
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
                MarginKept(name, self._of.state(self._start[name]), self._of.state(after), binding)
            )
        return tuple(found)

    def digests_of(self, account: str) -> list[str]:
        """The account's orders in this batch."""
        return [intent.digest for intent in self._intents.get(account, ())]

    def _admit(self, intent: Intent) -> None:
        swap = intent.swap
        if swap.account == ZERO_BYTES32:
            return
        refused = self._of.refusal(swap)
        if refused is not None:
            self.refused[intent.digest] = refused
        else:
            self._intents.setdefault(swap.account, []).append(intent)

    def _moved(self, name: str, shares: Mapping[str, float]) -> Array:
        moved = np.zeros(len(self._of.tokens))
        for intent in self._intents[name]:
            moved += shares.get(intent.digest, 0.0) * self._moves[intent.digest]
        return moved

    def _after(self, name: str, fills: Sequence[Fill]) -> Array:
        known = {intent.digest: intent.swap for intent in self._intents[name]}
        amounts = self._start[name]
        for fill in fills:
            swap = known.get(fill.digest)
            if swap is not None:
                amounts = amounts + self._of.moved(swap, fill.sell, fill.buy)
        return amounts

    def _short(self, name: str, amounts: Array, health: float) -> float:
        """By how much a balance is below what it must be, beyond what floats differ by."""
        missing = self._least[name, health] - self._of.balance(amounts, health)
        return missing if missing > SAME * self._size[name] else 0.0

    def _overdrawn(self, name: str, fills: Sequence[Fill]) -> dict[TokenId, int]:
        """What nobody can owe: collateral that is sold beyond what there is, in base units."""
        known = {intent.digest: intent.swap for intent in self._intents[name]}
        left: dict[TokenId, int] = {}
        held = self._of.book.accounts[name].amounts
        for fill in fills:
            swap = known.get(fill.digest)
            for token, moved in ((swap.sell, -fill.sell), (swap.buy, fill.buy)) if swap else ():
                left[token] = left.get(token, held.get(token, 0)) + moved
        return {
            token: min(0, held.get(token, 0)) - amount
            for token, amount in sorted(left.items())
            if amount < min(0, held.get(token, 0)) and not self._of.can_be_owed(token)
        }

    def _first_cuts(self, name: str, own: Sequence[Intent]) -> None:
        """Where the account is, where all its orders lead together, and where each does alone."""
        start = self._start[name]
        alone = [start + self._moves[intent.digest] for intent in own]
        together = start + self._moved(name, dict.fromkeys(self._moves, 1.0))
        for health in self._floors[name]:
            for amounts in (start, together, *alone):
                self._cut(name, amounts, health)
        for token in sorted({intent.swap.sell for intent in own}):
            if not self._of.can_be_owed(token):
                k = self._of.place[token]
                most = max(0.0, float(start[k])) * (1.0 - SAME)
                self._row(name, f"balance:{name}:{token}", np.eye(len(start))[k], most, k)

    def _cut(self, name: str, amounts: Array, health: float) -> Cut:
        slopes, worst = self._of.slopes(amounts, health)
        spare = float(slopes @ self._start[name]) - self._least[name, health]
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


def _floors(own: Sequence[Intent]) -> list[float]:
    """0 for initial margin, and every health that one of an account's orders asks for."""
    return sorted({0.0} | {intent.swap.min_health / HEALTH_ONE for intent in own})

"""What an account has left, as a function of its positions: exact, and its slopes.

Everything that does not depend on the account is made once per book; an account is then a product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from solver.core.curves import Array
from solver.core.margin.book import HEALTH_ONE, Book, Cash, Held, Instrument, Perpetual
from solver.core.margin.rules import Collateral, Option
from solver.core.margin.scenarios import BASIS, NONE, Grid, Holdings, Slopes
from solver.core.types import ZERO_BYTES32, Intent, MarginState, Swap, TokenId

#: Of what an account holds and orders: what floats may differ by.
SAME = 1e-9


class Evaluator:
    """Balances of a book's accounts. Amounts are arrays over ``tokens``, in whole instruments."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.tokens = sorted(book.assets)
        self.place = {token: k for k, token in enumerate(self.tokens)}
        self._unit = [float(book.assets[token].unit) for token in self.tokens]
        kinds = [book.assets[token].instrument for token in self.tokens]
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
        each = self._held(np.eye(len(kinds)))
        self._worth = np.asarray(each.cash + self._grid.balances(each).value)

    def refusal(self, swap: Swap) -> tuple[str, str] | None:
        """Why an order may not name its account, as code and sentence."""
        held = self.book.accounts.get(swap.account)
        if held is None:
            return "unknown_account", f"no margin account {swap.account}"
        if held.owner.lower() != swap.owner.lower():
            return "not_your_account", f"{swap.account} is another's"
        if swap.receiver.lower() != swap.owner.lower():
            return "receiver_elsewhere", "what an account buys stays in it: receiver is the owner"
        for token in (swap.sell, swap.buy):
            if token not in self.place:
                return "unknown_instrument", f"{token} is no instrument of this market"
        return None

    def admission(self, intent: Intent) -> tuple[str, str] | None:
        """Why an order has no place in a batch: as :meth:`refusal`, or, where it is all or nothing,
        because its account would have too little after it alone.
        """
        swap = intent.swap
        if swap.account == ZERO_BYTES32:
            return None
        refused = self.refusal(swap)
        if refused is not None or swap.partial_fill:
            return refused
        start, move = self.amounts(self.book.accounts[swap.account]), self.move(intent)
        health = swap.min_health / HEALTH_ONE
        both = np.stack([start, start + move])
        for floor in {0.0, health}:
            before, after = self._balances(both, floor).tolist()
            missing = min(0.0, before) - after
            if missing > SAME * self.size(start, [move]):
                return "margin", f"alone it would leave its account {missing:.6g} short"
        return None

    def amounts(self, held: Held) -> Array:
        """What an account holds."""
        found = np.zeros(len(self.tokens))
        for token, amount in held.amounts.items():
            k = self.place[token]
            found[k] = amount / self._unit[k]
        return found

    def move(self, intent: Intent) -> Array:
        """What the whole order does to the account, at its limit."""
        swap = intent.swap
        share = intent.remaining / swap.total
        return self.moved(swap, swap.sell_amount * share, swap.buy_amount * share)

    def moved(self, swap: Swap, sold: float, bought: float) -> Array:
        """What amounts in base units, sold and bought, do to the account."""
        found = np.zeros(len(self.tokens))
        sell, buy = self.place[swap.sell], self.place[swap.buy]
        found[sell] -= sold / self._unit[sell]
        found[buy] += bought / self._unit[buy]
        return found

    def size(self, start: Array, moves: Iterable[Array]) -> float:
        """The gross worth of what an account holds and orders."""
        gross: Array = abs(start) + sum((abs(move) for move in moves), np.zeros(len(start)))
        return float(self._worth @ gross) + 1.0

    def balance(self, amounts: Array, health: float) -> float:
        """What is left beyond initial margin; or, for a health, of assets beyond so many times the
        maintenance requirement.
        """
        return float(self._balances(amounts[None, :], health)[0])

    def _balances(self, amounts: Array, health: float) -> Array:
        held = self._held(amounts)
        found = self._grid.balances(held)
        if health == 0.0:
            return found.initial
        assets = held.cash + found.value
        return np.asarray((1.0 - health) * assets + health * found.maintenance)

    def slopes(self, amounts: Array, health: float) -> tuple[Array, str]:
        """What the balance gains per instrument, and what decides."""
        held = self._held(amounts[None, :])
        slopes = self._grid.slopes(held, health == 0.0)
        found = self._by_token(slopes)
        if health > 0.0:
            found = (1.0 - health) * self._worth + health * found
        rule = self.book.rule
        return found, BASIS if slopes.worst < 0 else rule.scenarios[slopes.worst].name

    def state(self, amounts: Array) -> MarginState:
        """Assets, both balances and what decides."""
        held = self._held(amounts[None, :])
        found = self._grid.balances(held)
        worst = int(found.worst[0])
        name = BASIS if found.basis[0] < 0.0 else NONE
        return MarginState(
            float(held.cash[0] + found.value[0]),
            float(found.initial[0]),
            float(found.maintenance[0]),
            name if worst < 0 else self.book.rule.scenarios[worst].name,
        )

    def can_be_owed(self, token: TokenId) -> bool:
        """Whether an account may sell more of a token than it has; not of collateral."""
        return not isinstance(self.book.assets[token].instrument, Collateral)

    def _held(self, amounts: Array) -> Holdings:
        """Accounts [N, tokens] as the rule sees them."""
        perps = amounts[:, self._perps].sum(axis=1)
        return Holdings(
            amounts[:, self._cash].sum(axis=1),
            perps,
            perps * self.book.market.perp,
            amounts[:, self._options],
            amounts[:, self._collateral],
        )

    def _by_token(self, slopes: Slopes) -> Array:
        found = np.zeros(len(self.tokens))
        found[self._cash] = slopes.cash
        found[self._perps] = slopes.perps + slopes.unsettled * self.book.market.perp
        found[self._options] = slopes.options
        found[self._collateral] = slopes.collateral
        return found


def _places(kinds: Sequence[Instrument], kind: type) -> list[int]:
    return [k for k, one in enumerate(kinds) if isinstance(one, kind)]

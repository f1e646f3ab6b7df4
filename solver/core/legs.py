"""Orders that belong together: all are filled to the same share of what remains of them, or none.

In the programs that is two rows per neighbours, so that the certificate has their prices; in exact
integers the shares are compared once more, within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from solver.core.problem import ExtraRow
from solver.core.types import Fill, Intent, Kind

Group = tuple[str, ...]
"""The digests of orders that belong together."""

_SAME = 1e-6  # of an order: what rounding and lots may part shares by
_UNITS = 2


def rows_of(groups: Sequence[Group], intents: Sequence[Intent]) -> tuple[ExtraRow, ...]:
    """Rows over positions in ``intents``. A leg that is not among them keeps the others out."""
    place = {intent.digest: k for k, intent in reversed(list(enumerate(intents)))}
    rows = []
    for group in groups:
        for one, two in pairwise(group):
            for first, second in ((one, two), (two, one)):
                signs = [(first, 1.0), (second, -1.0)]
                coefficients = {place[name]: sign for name, sign in signs if name in place}
                rows.append(ExtraRow(f"legs:{first}:{second}", coefficients, 0.0))
    return tuple(rows)


def broken(
    groups: Sequence[Group], intents: Sequence[Intent], fills: Sequence[Fill]
) -> Group | None:
    """The first group whose legs are not filled to the same share."""
    known = {intent.digest: intent for intent in intents}
    shares = {fill.digest: _share(known[fill.digest], fill) for fill in fills}
    for group in groups:
        found = [shares.get(digest, (0.0, 0.0)) for digest in group]
        low, high = min(share for share, _ in found), max(share for share, _ in found)
        if high - low > _SAME + sum(grain for _, grain in found):
            return group
    return None


def _share(intent: Intent, fill: Fill) -> tuple[float, float]:
    """How much of what remains is filled, and what a unit is of that."""
    amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
    return amount / intent.remaining, _UNITS / intent.remaining

"""What a batch leaves the solver, per chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solver.core.types import Intent, Solution, TokenId


def per_chain(
    intents: Sequence[Intent],
    solution: Solution,
    prices: Mapping[TokenId, float],
    gas: Mapping[int, int],
    gas_value: Mapping[int, float],
) -> dict[int, float]:
    """Everything the solver keeps less what it pays for gas, in the numeraire.

    Per token: sold + leg outputs + inventory margin − leg inputs − bought; fees stay inside.
    ``prices`` and ``gas_value`` are numeraire per base unit and per unit of ``gas``; what has none
    counts as nothing.
    """
    swaps = {intent.digest: intent.swap for intent in intents}
    kept: dict[TokenId, int] = {}

    def add(token: TokenId, amount: int) -> None:
        kept[token] = kept.get(token, 0) + amount

    for fill in solution.fills:
        add(swaps[fill.digest].sell, fill.sell)
        add(swaps[fill.digest].buy, -fill.buy)
    for leg in solution.legs:
        add(leg.token_in, -leg.amount_in)
        add(leg.token_out, leg.amount_out)
    profits = {chain: -units * gas_value.get(chain, 0.0) for chain, units in gas.items()}
    for token, amount in kept.items():
        income = prices.get(token, 0.0) * amount
        profits[token.chain] = profits.get(token.chain, 0.0) + income
    return profits

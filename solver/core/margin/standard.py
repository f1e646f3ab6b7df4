"""Standard margin: each option by itself, or the worst settlement of its expiry if that is milder.

Derive's rule for accounts without a portfolio. Per underlying and expiry the balance is

    max(Σ isolated margins,  worst payoff at a strike or zero − scale·forward·unpaired short calls)

which is *not concave*: mixing two accounts may need more than both. In a program a branch has to be
fixed per expiry; :class:`Report` says which one holds. All amounts in the unit of account.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from solver.core.margin import black76
from solver.core.margin.rules import YEAR_SECONDS


class Rule(Struct, frozen=True):
    """Shares of notional, and factors. A confidence of 0 is no threshold."""

    perp_maintenance: float
    perp_initial: float
    spot_most: float
    spot_least: float
    call_maintenance: float
    put_maintenance: float
    put_value_maintenance: float
    put_offset: float
    unpaired_maintenance: float
    unpaired_initial: float
    confidence: float
    confidence_factor: float
    peg: float
    peg_factor: float
    base_share: float
    base_initial_factor: float


class Option(Struct, frozen=True):
    """So much of one option; negative is sold."""

    strike: float
    is_call: bool
    vol: float
    amount: float


class Expiry(Struct, frozen=True):
    """Options of one expiry; ``confidence`` is the least of the forward's and the volatilities'."""

    seconds: float
    forward: float
    confidence: float
    options: tuple[Option, ...]


class Holding(Struct, frozen=True):
    """Everything of one underlying: perpetuals with what they have earned, the base, options."""

    spot: float
    spot_confidence: float
    perp: float
    perp_confidence: float
    perps: float
    unsettled: float
    base: float
    expiries: tuple[Expiry, ...]


class Report(Struct, frozen=True):
    """Both balances (ok while ≥ 0), and per holding and expiry whether the worst settlement is the
    milder rule, for initial margin.
    """

    initial: float
    maintenance: float
    bounded: tuple[tuple[bool, ...], ...]


def requirement(cash: float, stable: float, holdings: Sequence[Holding], rule: Rule) -> Report:
    """The margin of an account. Raises ValueError for inputs that no option can have."""
    off_peg = rule.peg_factor * max(0.0, rule.peg - stable)
    initial = cash + sum(_balance(held, rule, True) for held in holdings)
    initial -= off_peg * sum(held.spot * _exposed(held) for held in holdings)
    maintenance = cash + sum(_balance(held, rule, False) for held in holdings)
    bounded = tuple(
        tuple(_options(held, expiry, rule, True)[1] for expiry in held.expiries)
        for held in holdings
    )
    return Report(initial, maintenance, bounded)


def _balance(held: Holding, rule: Rule, initial: bool) -> float:
    share = rule.perp_initial if initial else rule.perp_maintenance
    total = held.unsettled - share * abs(held.perps) * held.perp
    scale = rule.base_initial_factor if initial else 1.0
    total += scale * rule.base_share * held.base * held.spot
    total += sum(_options(held, expiry, rule, initial)[0] for expiry in held.expiries)
    return total - _unsure(held, rule) if initial else total


def _options(held: Holding, expiry: Expiry, rule: Rule, initial: bool) -> tuple[float, bool]:
    """The balance of one expiry, and whether the worst settlement sets it."""
    isolated = sum(_isolated(held.spot, expiry, option, rule, initial) for option in expiry.options)
    prices = [0.0, *(option.strike for option in expiry.options)]
    worst = min(0.0, *(_payoff(expiry.options, price) for price in prices), 0.0)
    unpaired = min(0.0, sum(option.amount for option in expiry.options if option.is_call))
    scale = rule.unpaired_initial if initial else rule.unpaired_maintenance
    worst += scale * expiry.forward * unpaired
    return max(isolated, worst), worst > isolated


def _isolated(spot: float, expiry: Expiry, option: Option, rule: Rule, initial: bool) -> float:
    """What one sold option needs, as a negative balance; a bought one needs and gives nothing."""
    if option.amount > 0.0:
        return 0.0
    years = expiry.seconds / YEAR_SECONDS
    price = black76.prices(expiry.forward, option.strike, years, option.vol, 1.0, option.is_call)
    value = float(price) * option.amount
    moneyness = (option.strike - spot) if option.is_call else (spot - option.strike)
    share = max(rule.spot_least, rule.spot_most - max(0.0, moneyness) / spot)
    if option.is_call:
        taken = share if initial else rule.call_maintenance
        return taken * spot * option.amount + value
    least = rule.put_maintenance * spot * option.amount
    maintenance = min(least, rule.put_value_maintenance * value) + value
    if not initial:
        return maintenance
    return min(share * spot * option.amount + value, rule.put_offset * maintenance)


def _payoff(options: Sequence[Option], price: float) -> float:
    return sum(
        option.amount * max(0.0, price - option.strike if option.is_call else option.strike - price)
        for option in options
    )


def _shorts(expiry: Expiry) -> float:
    return sum(-option.amount for option in expiry.options if option.amount < 0.0)


def _exposed(held: Holding) -> float:
    """What loses when the stable coin does: perpetuals either way, and sold options."""
    return abs(held.perps) + sum(_shorts(expiry) for expiry in held.expiries)


def _unsure(held: Holding, rule: Rule) -> float:
    """What initial margin has on top where oracles are unsure."""

    def extra(confidence: float, size: float) -> float:
        if confidence >= rule.confidence:
            return 0.0
        return (1.0 - confidence) * rule.confidence_factor * held.spot * size

    total = extra(min(held.spot_confidence, held.perp_confidence), abs(held.perps))
    total += extra(held.spot_confidence, held.base) if rule.base_share else 0.0
    for expiry in held.expiries:
        total += extra(min(held.spot_confidence, expiry.confidence), _shorts(expiry))
    return total

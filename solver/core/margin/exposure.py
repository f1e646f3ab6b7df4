"""What an account is exposed to, and what netting saves it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from solver.core.margin import black76
from solver.core.margin.rules import Account, Market, Parameters
from solver.core.margin.scenarios import requirement


class Exposure(Struct, frozen=True, rename="camel"):
    """``gross_notional`` is perpetuals and options at the spot price, whichever side; ``used`` the
    initial margin of the account, ``isolated`` the sum of its positions' own, each alone;
    ``netting_gain`` is 1 − used/isolated, None where nothing is used. Greeks by one unit of
    the spot price, of volatility (1 is 100 points), and by a day that passes.
    """

    gross_notional: float
    used: float
    isolated: float
    netting_gain: float | None
    delta: float
    gamma: float
    vega: float
    theta: float


def exposure(account: Account, market: Market, rule: Parameters) -> Exposure:
    """The exposure of one account. Raises ValueError for inputs that no option can have."""
    used = _used(account, market, rule)
    isolated = sum(_used(part, market, rule) for part in _parts(account))
    sizes = [abs(account.perps), *(abs(option.amount) for option in account.options)]
    moving = sum(
        one.amount * one.price / market.stable / market.spot
        for one in account.collateral
        if one.moves
    )
    delta, gamma, vega, theta = account.perps * market.perp / market.spot + moving, 0.0, 0.0, 0.0
    for option in account.options:
        expiry = market.expiries[option.expiry]
        rate = expiry.rate if expiry.pricing_rate is None else expiry.pricing_rate
        found = black76.greeks(
            expiry.forward, option.strike, expiry.years, option.vol, max(rate, 0.0), option.is_call
        )
        share = (expiry.forward - expiry.fixed) / market.spot
        delta += option.amount * float(found.delta) * share
        gamma += option.amount * float(found.gamma) * share**2
        vega += option.amount * float(found.vega)
        theta += option.amount * float(found.theta) / 365.0
    return Exposure(
        market.spot * sum(sizes),
        used,
        isolated,
        1.0 - used / isolated if isolated > 0.0 else None,
        delta,
        gamma,
        vega,
        theta,
    )


def _used(account: Account, market: Market, rule: Parameters) -> float:
    """Initial margin: what assets have beyond what is left."""
    report = requirement(account, market, rule)
    return report.value + account.cash - report.initial


def _parts(account: Account) -> Iterator[Account]:
    """Every position as an account of its own."""
    bare = replace(account, cash=0.0, perps=0.0, unsettled=0.0, options=(), collateral=())
    if account.perps:
        yield replace(bare, perps=account.perps)
    for option in account.options:
        yield replace(bare, options=(option,))
    for one in account.collateral:
        yield replace(bare, collateral=(one,))

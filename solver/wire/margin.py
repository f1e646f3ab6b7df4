"""An account, its market and a margin rule as one file, for `thalweg margin`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec import Struct

from solver.core.margin.rules import Account, Market, Parameters
from solver.core.types import Rejection
from solver.wire.jsonio import Invalid, decode

FORMAT = "thalweg.margin/1"
_MOST = 1e15  # of any amount or price: beyond it floats no longer count cents
_MOST_SCENARIOS, _MOST_POSITIONS = 1_000, 10_000


class MarginFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; see `docs/margin.md` for every field."""

    format: str
    rule: Parameters
    market: Market
    account: Account


def read(body: bytes, max_bytes: int) -> MarginFile:
    """The file, if a margin can be computed from it. Raises Invalid with the place."""
    found = decode(body, MarginFile, max_bytes)
    if isinstance(found, Rejection):
        raise Invalid(found.code, found.detail, found.pointer)
    if found.format != FORMAT:
        raise Invalid("wrong_format", f"format is {found.format!r}, expected {FORMAT!r}", "/format")
    check(found.rule, found.market, found.account)
    return found


def check(rule: Parameters, market: Market, account: Account, place: str = "") -> None:
    """Whether a margin can be computed. Raises Invalid with what is in the way, below a place."""
    for code, detail, pointer in _mistakes(rule, market, account):
        raise Invalid(code, detail, place + pointer)


def check_size(amount: float, pointer: str) -> None:
    """Whether floats still count cents of an amount. Raises Invalid."""
    for code, detail, where in _size(amount, pointer):
        raise Invalid(code, detail, where)


def _mistakes(rule: Parameters, market: Market, account: Account) -> Iterator[tuple[str, str, str]]:
    if not 0 < len(rule.scenarios) <= _MOST_SCENARIOS:
        yield (
            "bad_rule",
            f"1 to {_MOST_SCENARIOS} scenarios, not {len(rule.scenarios)}",
            "/rule/scenarios",
        )
    for name in ("spot", "stable"):
        if not 0.0 < getattr(market, name) <= _MOST:
            yield "no_price", "not a positive price", f"/market/{name}"
    if account.perps and not 0.0 < market.perp <= _MOST:
        yield "no_price", "perpetuals without a price", "/market/perp"
    for name in ("cash", "perps", "unsettled"):
        yield from _size(getattr(account, name), f"/account/{name}")
    if len(account.options) + len(account.collateral) > _MOST_POSITIONS:
        yield "too_many", f"more than {_MOST_POSITIONS} positions", "/account"
    for k, expiry in enumerate(market.expiries):
        if not 0.0 < expiry.forward <= _MOST or not math.isfinite(expiry.rate):
            yield "no_price", "an expiry without a forward", f"/market/expiries/{k}"
    for k, option in enumerate(account.options):
        place = f"/account/options/{k}"
        if not 0 <= option.expiry < len(market.expiries):
            yield "unknown_instrument", f"the market has no expiry {option.expiry}", place
        elif market.expiries[option.expiry].seconds <= 0.0:
            yield "expired_option", "it is not an option any more", place
        if not 0.0 < option.strike <= _MOST:
            yield "unknown_instrument", "a strike is positive", f"{place}/strike"
        if not 0.0 < option.vol <= _MOST:
            yield "bad_volatility", "a volatility is positive", f"{place}/vol"
        yield from _size(option.amount, f"{place}/amount")
    for k, one in enumerate(account.collateral):
        place = f"/account/collateral/{k}"
        if not 0.0 <= one.price <= _MOST or one.amount < 0.0:
            yield "no_price", "collateral has an amount and a price", place
        yield from _size(one.amount, f"{place}/amount")


def _size(amount: float, pointer: str) -> Iterator[tuple[str, str, str]]:
    if not abs(amount) <= _MOST:
        yield "too_large", f"beyond {_MOST:.0e}", pointer

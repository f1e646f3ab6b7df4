"""Margin accounts as data: which tokens are which instruments, who holds what, and the rule."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from solver.core.margin.rules import Collateral, Market, Option, Parameters
from solver.core.types import TokenId

#: What a health floor is stated in.
HEALTH_ONE = 10**18


class Cash(Struct, frozen=True):
    """The unit of account itself."""


class Perpetual(Struct, frozen=True):
    """A perpetual future on the market's underlying."""


Instrument = Cash | Perpetual | Option | Collateral
"""What a token is to an account; the amounts of options and collateral are not read."""


class Asset(Struct, frozen=True):
    """An instrument and how many base units are one of it."""

    instrument: Instrument
    unit: int


class Held(Struct, frozen=True):
    """What an account holds in base units; negative is sold or owed."""

    owner: str
    amounts: Mapping[TokenId, int]


class Book(Struct, frozen=True):
    """The accounts of one underlying, its market and the rule, which must be concave: its tilts
    count ``two_sided``.
    """

    rule: Parameters
    market: Market
    assets: Mapping[TokenId, Asset]
    accounts: Mapping[str, Held]

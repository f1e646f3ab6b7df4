"""Margin accounts in an instance file: the rule, the market, and which token is what."""

from __future__ import annotations

from msgspec import Struct

from solver.core.margin.book import Asset, Book, Cash, Held, Instrument, Perpetual
from solver.core.margin.rules import Account, Collateral, Market, Option, Parameters
from solver.core.types import MarginKept, MarginState, TokenId
from solver.wire import margin
from solver.wire.jsonio import Amount, Invalid, escape, positive

_MOST_ACCOUNTS = 10_000


class CashDocument(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag="cash"
):
    """The unit of account. ``unit`` base units are one."""

    unit: Amount


class PerpetualDocument(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind",
    tag="perpetual",
):  # fmt: skip
    """A perpetual future on the underlying."""

    unit: Amount


class OptionDocument(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind", tag="option"
):
    """A European option; ``expiry`` counts the market's."""

    unit: Amount
    expiry: int
    strike: float
    is_call: bool
    vol: float
    confidence: float = 1.0


class CollateralDocument(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, tag_field="kind",
    tag="collateral",
):  # fmt: skip
    """What counts with a haircut, and offsets risk where it ``moves`` with the spot price."""

    unit: Amount
    price: float
    maintenance_haircut: float
    initial_haircut: float
    moves: bool
    confidence: float = 1.0


AssetDocument = CashDocument | PerpetualDocument | OptionDocument | CollateralDocument


class HeldDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Who owns an account, and what it holds of each token in base units; may be negative."""

    owner: str
    amounts: dict[str, str] = {}


class MarginDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The section ``margin`` of an instance file."""

    rule: Parameters
    market: Market
    assets: dict[str, AssetDocument]
    accounts: dict[str, HeldDocument]


class StateDocument(Struct, frozen=True, rename="camel"):
    """An account in its unit: assets, what is left beyond both margins, the scenario that decides,
    and assets over maintenance requirement, null where nothing is required.
    """

    assets: float
    initial: float
    maintenance: float
    worst: str
    health: float | None


class KeptDocument(Struct, frozen=True, rename="camel"):
    """An account before and after a batch. ``prices`` are of the rows that held it back: what one
    more unit of margin would have brought, in the numeraire.
    """

    account: str
    before: StateDocument
    after: StateDocument
    prices: dict[str, float]


def to_core(section: MarginDocument) -> Book:
    """The accounts, if margin can be computed of them. Raises Invalid."""
    assets = {
        _token(name, f"/margin/assets/{escape(name)}"): Asset(
            _instrument(asset), positive(asset.unit, f"/margin/assets/{escape(name)}/unit")
        )
        for name, asset in section.assets.items()
    }
    if not section.rule.two_sided:
        detail = "with one-sided tilts a rule is not concave, and batches need it to be"
        raise Invalid("bad_rule", detail, "/margin/rule/twoSided")
    margin.check(section.rule, section.market, Account(0.0, 0.0, 0.0, (), ()), "/margin")
    for name, asset in zip(section.assets, assets.values(), strict=True):
        _check(section, asset.instrument, f"/margin/assets/{escape(name)}")
    if len(section.accounts) > _MOST_ACCOUNTS:
        raise Invalid("too_many", f"more than {_MOST_ACCOUNTS} accounts", "/margin/accounts")
    accounts = {
        name: _held(held, assets, f"/margin/accounts/{escape(name)}")
        for name, held in section.accounts.items()
    }
    return Book(section.rule, section.market, assets, accounts)


def _check(section: MarginDocument, kind: Instrument, place: str) -> None:
    """Whether an instrument alone can be valued. Raises Invalid with its place."""
    account = Account(
        0.0,
        float(isinstance(kind, Perpetual)),
        0.0,
        (kind,) if isinstance(kind, Option) else (),
        (kind,) if isinstance(kind, Collateral) else (),
    )
    try:
        margin.check(section.rule, section.market, account)
    except Invalid as error:
        is_market = error.pointer.startswith("/market/")
        within = error.pointer if is_market else error.pointer.partition("/0")[2]
        whole = "/margin" if is_market else place
        raise Invalid(error.code, error.detail, whole + within) from error


def from_core(book: Book) -> MarginDocument:
    """The section of some accounts."""
    return MarginDocument(
        book.rule,
        book.market,
        {str(token): _asset(asset) for token, asset in book.assets.items()},
        {
            name: HeldDocument(
                held.owner, {str(token): str(amount) for token, amount in held.amounts.items()}
            )
            for name, held in book.accounts.items()
        },
    )


def kept_document(kept: MarginKept) -> KeptDocument:
    """The document of an account that a batch touched."""
    return KeptDocument(kept.account, _state(kept.before), _state(kept.after), kept.prices)


def _state(state: MarginState) -> StateDocument:
    return StateDocument(state.assets, state.initial, state.maintenance, state.worst, state.health)


def _instrument(asset: AssetDocument) -> Instrument:
    if isinstance(asset, CashDocument):
        return Cash()
    if isinstance(asset, PerpetualDocument):
        return Perpetual()
    if isinstance(asset, OptionDocument):
        return Option(asset.expiry, asset.strike, asset.is_call, asset.vol, 0.0, asset.confidence)
    return Collateral(
        0.0, asset.price, asset.confidence, asset.maintenance_haircut, asset.initial_haircut,
        asset.moves,
    )  # fmt: skip


def _asset(asset: Asset) -> AssetDocument:
    kind, unit = asset.instrument, str(asset.unit)
    if isinstance(kind, Cash):
        return CashDocument(unit)
    if isinstance(kind, Perpetual):
        return PerpetualDocument(unit)
    if isinstance(kind, Option):
        return OptionDocument(
            unit, kind.expiry, kind.strike, kind.is_call, kind.vol, kind.confidence
        )
    return CollateralDocument(
        unit, kind.price, kind.maintenance_haircut, kind.initial_haircut, kind.moves,
        kind.confidence,
    )  # fmt: skip


def _held(held: HeldDocument, assets: dict[TokenId, Asset], place: str) -> Held:
    amounts: dict[TokenId, int] = {}
    for name, text in held.amounts.items():
        pointer = f"{place}/amounts/{escape(name)}"
        token = _token(name, pointer)
        if token not in assets:
            raise Invalid("unknown_instrument", f"{name} is not among the assets", pointer)
        amount = positive(text.removeprefix("-"), pointer) if text.strip("-0") else 0
        amounts[token] = -amount if text.startswith("-") else amount
        margin.check_size(amount / assets[token].unit, pointer)
    return Held(held.owner, amounts)


def _token(name: str, pointer: str) -> TokenId:
    try:
        return TokenId.parse(name)
    except ValueError as error:
        raise Invalid("bad_token", str(error), pointer) from error

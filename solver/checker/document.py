"""The answer as it was printed, decoded into one form: exact integers and fractions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from solver.core.types import UINT256_MAX, Charges, Fill, InventoryUse, Leg, StandAlone, TokenId

_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,77})(?:\.\d{1,60})?(?:e[+-]?\d{1,3})?", re.ASCII)
_TOKEN = re.compile(r"(0|[1-9]\d{0,19}):(0x[0-9a-f]{40})", re.ASCII)
_INTEGER = re.compile(r"0|[1-9]\d{0,77}", re.ASCII)
T = TypeVar("T")


class Violation(Struct, frozen=True):
    """One clause that does not hold; ``pointer`` is a JSON pointer into the solution."""

    code: str
    pointer: str
    detail: str


class Malformed(Exception):
    """A field that is missing or has the wrong form."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.detail)
        self.violation = violation


class Case(Struct, frozen=True):
    """A leaf of the proof, exact."""

    whole: frozenset[str]
    out: frozenset[str]
    bound: Fraction
    prices: dict[str, Fraction]
    multipliers: dict[str, Fraction]


class Row(Struct, frozen=True):
    """Σ coefficient·(filled share) ≤ rhs over intents by digest."""

    coefficients: dict[str, Fraction]
    rhs: Fraction


class Claim(Struct, frozen=True):
    """Everything that an answer claims. ``dust`` and ``internal`` are None where its form has no
    such field.
    """

    fills: tuple[Fill, ...]
    legs: tuple[Leg, ...]
    uses: tuple[InventoryUse, ...]
    clearing: dict[str, tuple[int, int]]
    dust: dict[str, int] | None
    internal: tuple[bool, ...] | None
    figures: dict[str, Fraction]
    prices: dict[str, Fraction]
    multipliers: dict[str, Fraction]
    leaves: tuple[Case, ...]
    floors: dict[str, Fraction]
    caps: dict[str, Fraction]
    reference: dict[str, Fraction]
    arbitrage: tuple[tuple[Leg, ...], ...]
    assumptions: tuple[str, ...]
    alone: tuple[StandAlone, ...] = ()
    rows: dict[str, Row] = {}


class _Leaf(Struct):
    whole: list[str]
    out: list[str]
    bound: str
    prices: dict[str, str]
    multipliers: dict[str, str]


class _Leg(Struct, rename="camel"):
    pool: str
    token_in: str
    token_out: str
    amount_in: str
    amount_out: str
    gas: int


class _Use(Struct, rename="camel"):
    token_in: str
    token_out: str
    amount_in: str
    amount_out: str


class _Row(Struct):
    coefficients: dict[str, str]
    most: str


class _Certificate(Struct, rename="camel"):
    value: str
    bound: str
    arb_floor: str
    gap: str
    net_gap: str
    net_gap_bps: str
    prices: dict[str, str]
    multipliers: dict[str, str]
    leaves: list[_Leaf]
    floors: dict[str, str]
    caps: dict[str, str]
    reference: dict[str, str]
    arbitrage: list[list[_Leg]]
    assumptions: list[str]
    rows: dict[str, _Row] = {}


class _Charges(Struct, frozen=True):
    volume: str = "0"
    surplus: str = "0"
    improvement: str = "0"
    solver: str = "0"


class _Fill(Struct):
    digest: str
    sell: str
    buy: str
    fee: str
    charges: _Charges = _Charges()


class _Alone(Struct):
    digest: str
    sell: str
    buy: str
    value: str
    bound: str


class _Native(Struct):
    fills: list[_Fill]
    legs: list[_Leg]
    inventory: list[_Use]
    clearing: dict[str, tuple[str, str]]
    dust: dict[str, str]
    certificate: _Certificate
    alone: list[_Alone] = []


class _Trade(Struct, rename="camel"):
    kind: str
    order: str
    executed_amount: str


class _Interaction(Struct, rename="camel"):
    kind: str
    internalize: bool
    id: str
    input_token: str
    output_token: str
    input_amount: str
    output_amount: str


class _CowSolution(Struct):
    prices: dict[str, str]
    trades: list[_Trade]
    interactions: list[_Interaction]


class _Cow(Struct):
    certificate: _Certificate
    solutions: list[_CowSolution] = field(default_factory=list)


FIGURES = ("value", "bound", "arbFloor", "gap", "netGap", "netGapBps")


def read_native(document: object) -> Claim:
    """A claim of ``thalweg solve --json`` for an instance file. Raises Malformed."""
    answer = _convert(document, _Native)
    fills = tuple(_fill(fill, f"/fills/{k}") for k, fill in enumerate(answer.fills))
    alone = tuple(_alone(one, f"/alone/{k}") for k, one in enumerate(answer.alone))
    clearing = {}
    for name, rate in answer.clearing.items():
        bought, sold = (integer(part, f"/clearing/{name}/{k}") for k, part in enumerate(rate))
        if not bought or not sold:
            raise _malformed("bad_rate", f"/clearing/{name}", f"{rate} is no rate")
        clearing[name] = (bought, sold)
    return _claim(
        answer.certificate,
        fills=fills,
        legs=tuple(_leg(leg, f"/legs/{k}") for k, leg in enumerate(answer.legs)),
        uses=tuple(_use(use, f"/inventory/{k}") for k, use in enumerate(answer.inventory)),
        clearing=clearing,
        dust={name: integer(text, f"/dust/{name}") for name, text in answer.dust.items()},
        internal=None,
        alone=alone,
    )


def _fill(fill: _Fill, pointer: str) -> Fill:
    sell, buy, fee = _integers(pointer, sell=fill.sell, buy=fill.buy, fee=fill.fee)
    taken = msgspec.structs.asdict(fill.charges)
    return Fill(fill.digest, sell, buy, fee, Charges(*_integers(f"{pointer}/charges", **taken)))


def _alone(answer: _Alone, pointer: str) -> StandAlone:
    sell, buy = _integers(pointer, sell=answer.sell, buy=answer.buy)
    return StandAlone(answer.digest, sell, buy, answer.value, answer.bound)


def _integers(pointer: str, **texts: str) -> Iterator[int]:
    return (integer(text, f"{pointer}/{name}") for name, text in texts.items())


def read_cow(
    document: object,
    chain: int,
    orders: Mapping[str, tuple[TokenId, TokenId, bool]],
    pools: Mapping[str, Sequence[TokenId]],
) -> Claim:
    """A claim in the form of CoW's solver engine. Raises Malformed.

    ``orders`` has sold token, bought token and whether the sold amount is fixed; ``pools`` the
    tokens of each pool by its id in the core. Executed amounts and prices give the fills: a sale
    brings ⌊amount·p_sell/p_buy⌋, a purchase costs ⌈amount·p_buy/p_sell⌉.
    """
    answer = _convert(document, _Cow)
    if len(answer.solutions) > 1:
        raise _malformed("many_solutions", "/solutions", "one solution can be checked, not several")
    fills: list[Fill] = []
    legs: list[Leg] = []
    internal: list[bool] = []
    clearing: dict[str, tuple[int, int]] = {}
    for solution in answer.solutions:
        for k, trade in enumerate(solution.trades):
            place = f"/solutions/0/trades/{k}"
            amount = integer(trade.executed_amount, f"{place}/executedAmount")
            if trade.kind != "fulfillment":
                raise _malformed("unknown_trade", f"{place}/kind", trade.kind)
            if trade.order not in orders:
                raise _malformed("unknown_intent", f"{place}/order", trade.order)
            sell, buy, exact_in = orders[trade.order]
            rate = tuple(_price(solution.prices, token) for token in (sell, buy))
            clearing[f"{sell}>{buy}"] = (rate[0], rate[1])
            other = amount * rate[0] // rate[1] if exact_in else -(-amount * rate[1] // rate[0])
            sold, bought = (amount, other) if exact_in else (other, amount)
            fills.append(Fill(trade.order, sold, bought, 0))
        for k, item in enumerate(solution.interactions):
            place = f"/solutions/0/interactions/{k}"
            if item.kind != "liquidity":
                raise _malformed("unknown_interaction", f"{place}/kind", item.kind)
            ends = TokenId(chain, item.input_token), TokenId(chain, item.output_token)
            named = [n for n, coins in pools.items() if n.rpartition("#")[0] == item.id]
            fit = [name for name in named if set(ends) <= set(pools[name])]
            if len(fit) != 1:
                raise _malformed("unknown_pool", f"{place}/id", f"{len(fit)} pools fit {item.id!r}")
            amounts = (
                integer(item.input_amount, f"{place}/inputAmount"),
                integer(item.output_amount, f"{place}/outputAmount"),
            )
            legs.append(Leg(fit[0], *ends, *amounts, -1))
            internal.append(item.internalize)
    return _claim(
        answer.certificate,
        fills=tuple(fills),
        legs=tuple(legs),
        uses=(),
        clearing=clearing,
        dust=None,
        internal=tuple(internal),
    )


def _price(prices: Mapping[str, str], token: TokenId) -> int:
    place = f"/solutions/0/prices/{token.address}"
    if token.address not in prices:
        raise _malformed("no_rate", place, f"no clearing price of {token}")
    price = integer(prices[token.address], place, most=None)
    if price == 0:
        raise _malformed("bad_rate", place, "a clearing price of zero")
    return price


def _claim(certificate: _Certificate, **rest: Any) -> Claim:
    place = "/certificate"
    arbitrage = tuple(
        tuple(_leg(leg, f"{place}/arbitrage/{k}/{j}") for j, leg in enumerate(cycle))
        for k, cycle in enumerate(certificate.arbitrage)
    )
    leaves = tuple(
        Case(
            frozenset(leaf.whole),
            frozenset(leaf.out),
            decimal(leaf.bound, f"{place}/leaves/{k}/bound"),
            _decimals(leaf.prices, f"{place}/leaves/{k}/prices"),
            _decimals(leaf.multipliers, f"{place}/leaves/{k}/multipliers"),
        )
        for k, leaf in enumerate(certificate.leaves)
    )
    values = msgspec.to_builtins(certificate)
    return Claim(
        figures={name: decimal(values[name], f"{place}/{name}") for name in FIGURES},
        leaves=leaves,
        arbitrage=arbitrage,
        assumptions=tuple(certificate.assumptions),
        prices=_decimals(certificate.prices, f"{place}/prices"),
        multipliers=_decimals(certificate.multipliers, f"{place}/multipliers"),
        floors=_decimals(certificate.floors, f"{place}/floors"),
        caps=_decimals(certificate.caps, f"{place}/caps"),
        reference=_decimals(certificate.reference, f"{place}/reference"),
        rows={name: _row(row, f"{place}/rows/{name}") for name, row in certificate.rows.items()},
        **rest,
    )


def _row(row: _Row, pointer: str) -> Row:
    coefficients = {
        digest: decimal(text, f"{pointer}/coefficients/{digest}")
        for digest, text in row.coefficients.items()
    }
    return Row(coefficients, decimal(row.most, f"{pointer}/most"))


def _decimals(values: Mapping[str, str], pointer: str) -> dict[str, Fraction]:
    """Prices, multipliers, floors, caps: none of them may be negative."""
    found = {}
    for name, text in values.items():
        found[name] = decimal(text, f"{pointer}/{name}")
        if found[name] < 0:
            raise _malformed("negative", f"{pointer}/{name}", text)
    return found


def decimal(text: str, pointer: str) -> Fraction:
    """A decimal string of bounded length and exponent, exactly."""
    if not _DECIMAL.fullmatch(text):
        raise _malformed("bad_number", pointer, f"{text[:40]!r} is not a decimal number")
    return Fraction(text)


def integer(text: str, pointer: str, most: int | None = UINT256_MAX) -> int:
    """A canonical non-negative integer; clearing prices of CoW may be longer than 256 bits."""
    plain = _INTEGER.fullmatch(text) if most else re.fullmatch(r"[1-9]\d{0,4000}|0", text, re.ASCII)
    if not plain or (most and int(text) > most):
        raise _malformed("bad_amount", pointer, f"{text[:40]!r} is not an amount")
    return int(text)


def _leg(leg: _Leg, pointer: str) -> Leg:
    return Leg(leg.pool, *_ends(leg, pointer), *_amounts(leg, pointer), leg.gas)


def _use(use: _Use, pointer: str) -> InventoryUse:
    return InventoryUse(*_ends(use, pointer), *_amounts(use, pointer))


def _ends(item: _Leg | _Use, pointer: str) -> tuple[TokenId, TokenId]:
    return _token(item.token_in, f"{pointer}/tokenIn"), _token(
        item.token_out, f"{pointer}/tokenOut"
    )


def _amounts(item: _Leg | _Use, pointer: str) -> tuple[int, int]:
    taken = integer(item.amount_in, f"{pointer}/amountIn")
    return taken, integer(item.amount_out, f"{pointer}/amountOut")


def _token(text: str, pointer: str) -> TokenId:
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise _malformed("bad_token", pointer, f"{text[:60]!r} is not chain:address")
    return TokenId(int(found.group(1)), found.group(2))


def _convert(document: object, shape: type[T]) -> T:
    try:
        return msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        pointer = path.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/")
        raise _malformed("invalid_field", pointer, reason) from error


def _malformed(code: str, pointer: str, detail: str) -> Malformed:
    return Malformed(Violation(code, pointer, detail))

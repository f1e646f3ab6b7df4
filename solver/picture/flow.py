"""What flows in a batch: orders give to tokens, pools carry from token to token, tokens pay orders.

Amounts are exact. At every token what comes in goes out: to pools, to orders, or to the solver
(gas, fees and what rounding left). Widths are worths at reference prices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from solver.core.types import Intent, Solution, Token, TokenId

_MOST_ORDERS = 12  # on each side; the smaller ones are drawn together, by token
_SOLVER = "solver"


class Role(str, Enum):
    """What a box stands for."""

    SELLER = "seller"
    TOKEN = "token"
    BUYER = "buyer"
    SOLVER = "solver"


class Band(Struct, frozen=True):
    """A flow from one box to another, in base units; a pool takes one token and gives another.

    ``name`` is the pool's, empty where none is in between.
    """

    source: str
    target: str
    token_in: TokenId
    amount_in: int
    token_out: TokenId
    amount_out: int
    name: str = ""


class Box(Struct, frozen=True):
    """An order's side, a token, or the solver. Columns count from the left."""

    name: str
    role: Role
    column: int
    label: str


class Flow(Struct, frozen=True):
    """Boxes and bands of one solution."""

    boxes: tuple[Box, ...]
    bands: tuple[Band, ...]


class Tokens(Struct, frozen=True):
    """Symbols, decimals and reference prices, as far as they are known."""

    known: Mapping[TokenId, Token]
    prices: Mapping[TokenId, float]

    def symbol(self, token: TokenId) -> str:
        """The symbol, or the beginning of the address."""
        known = self.known.get(token)
        return known.symbol if known and known.symbol else f"{token.address[:8]}…"

    def text(self, token: TokenId, amount: int) -> str:
        """An amount in whole tokens, four digits of it."""
        known = self.known.get(token)
        whole = amount / 10 ** (known.decimals if known else 0)
        digits = f"{whole:,.0f}" if whole >= 1_000 else f"{whole:.4g}"
        return f"{digits} {self.symbol(token)}"

    def worth(self, token: TokenId, amount: int) -> float:
        """In the numeraire; 0 where there is no price."""
        return amount * self.prices.get(token, 0.0)


def flow_of(intents: Sequence[Intent], solution: Solution, tokens: Tokens) -> Flow:
    """The flow of a solution. What of a token is left in the end goes to the solver."""
    swaps = {intent.digest: intent.swap for intent in intents}
    sold = [_plain(f"sell {f.digest}", "", swaps[f.digest].sell, f.sell) for f in solution.fills]
    paid = [_plain("", f"buy {f.digest}", swaps[f.digest].buy, f.buy) for f in solution.fills]
    carried = [
        Band(str(leg.token_in), str(leg.token_out), leg.token_in, leg.amount_in, leg.token_out,
             leg.amount_out, leg.pool)
        for leg in solution.legs
    ] + [
        Band(str(use.token_in), str(use.token_out), use.token_in, use.amount_in, use.token_out,
             use.amount_out, "inventory")
        for use in solution.inventory
    ]  # fmt: skip
    bands = [
        *_grouped(sold, tokens, lambda band, name: replace(band, source=name)),
        *_merged(carried),
        *_grouped(paid, tokens, lambda band, name: replace(band, target=name)),
    ]
    bands += _kept(bands)
    return Flow(_boxes(bands, tokens), tuple(bands))


def _plain(source: str, target: str, token: TokenId, amount: int) -> Band:
    """A band between an order and its token; the empty end is the token."""
    name = str(token)
    return Band(source or name, target or name, token, amount, token, amount)


def _merged(bands: Sequence[Band]) -> list[Band]:
    """One band for all that flows between the same ends through the same pool."""
    found: dict[tuple[str, str, str], Band] = {}
    for band in bands:
        key = band.source, band.target, band.name
        other = found.get(key)
        if other is not None:
            band = replace(
                band,
                amount_in=band.amount_in + other.amount_in,
                amount_out=band.amount_out + other.amount_out,
            )
        found[key] = band
    return list(found.values())


def _grouped(
    bands: Sequence[Band], tokens: Tokens, renamed: Callable[[Band, str], Band]
) -> list[Band]:
    """The largest bands, and one for each token's others; the largest first."""
    ordered = sorted(
        bands,
        key=lambda band: (-tokens.worth(band.token_in, band.amount_in), band.source, band.target),
    )
    if len(ordered) <= _MOST_ORDERS:
        return ordered
    shown, rest = ordered[: _MOST_ORDERS - 1], ordered[_MOST_ORDERS - 1 :]
    counts = Counter(band.token_in for band in rest)
    side = "sell" if rest[0].target == str(rest[0].token_in) else "buy"
    return shown + _merged(
        [renamed(band, f"{side} {counts[band.token_in]} others {band.token_in}") for band in rest]
    )


def _kept(bands: Sequence[Band]) -> list[Band]:
    """What stays at each token: gas, fees and rounding."""
    left: Counter[TokenId] = Counter()
    for band in bands:
        if band.target == str(band.token_out):
            left[band.token_out] += band.amount_out
        if band.source == str(band.token_in):
            left[band.token_in] -= band.amount_in
    return [_plain("", _SOLVER, token, amount) for token, amount in sorted(left.items()) if amount]


def _boxes(bands: Sequence[Band], tokens: Tokens) -> tuple[Box, ...]:
    """Every end of a band; tokens in the columns in which pools reach them."""
    columns: dict[str, int] = {}
    named: dict[str, TokenId] = {}
    for band in bands:
        for name, token in ((band.source, band.token_in), (band.target, band.token_out)):
            if name == str(token):
                columns.setdefault(name, 1)
                named[name] = token
    for band in bands:  # legs come in an order in which what they take is there
        if band.name and columns[band.target] <= columns[band.source]:
            columns[band.target] = columns[band.source] + 1
    last = max(columns.values(), default=0) + 1
    found: dict[str, Box] = {}
    for band in bands:
        for name in (band.source, band.target):
            if name in named:
                box = Box(name, Role.TOKEN, columns[name], tokens.symbol(named[name]))
            elif name == _SOLVER:
                box = Box(name, Role.SOLVER, last, "gas, fees, rounding")
            else:
                box = _order_box(name, band, last, tokens)
            found.setdefault(name, box)
    return tuple(found.values())


def _order_box(name: str, band: Band, last: int, tokens: Tokens) -> Box:
    side, _, rest = name.partition(" ")
    text = tokens.text(band.token_in, band.amount_in)
    if "others" in rest:
        text = f"{rest.partition(' ')[0]} others: {text}"
    if side == "sell":
        return Box(name, Role.SELLER, 0, text)
    return Box(name, Role.BUYER, last, text)

"""The CoW Protocol solver-engine documents: auction in, solutions out.

Source: the engine's openapi.yml and data-transfer types; where they disagree both spellings are
read and the code's form is written. Addresses are lower case in the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from solver.core.pools import (
    ConcentratedPool,
    ConstantProductPool,
    LimitOrderPool,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.types import (
    ZERO_BYTES32,
    Intent,
    JsonObject,
    Kind,
    Leg,
    Solution,
    Swap,
    Token,
    TokenId,
)
from solver.core.venue import Pool, Snapshot, described
from solver.wire import jsonio
from solver.wire.jsonio import Invalid, integer
from solver.wire.solution import certificate_document

SETTLEMENT_GAS = 106_391
HOP_GAS = 60_000
LIMIT_ORDER_GAS = 66_358
WEIGHTED_GAS = 100_000
STABLE_GAS = 183_520
CONCENTRATED_GAS = 110_000
TICK_GAS = 24_000
_ONE = 10**18
_AMP_PRECISION = 1000
_PIPS = 10**6
# The engine does not say the spacing of ticks; the factories of Uniswap tie it to the fee.
_SPACINGS = {100: 1, 500: 10, 2500: 50, 3000: 60, 10_000: 200}
_PRICE_ATOMS = 10**18
_PAIR = 2
_UID = re.compile(r"0x[0-9a-fA-F]{112}", re.ASCII)
_CLASSES = ("market", "limit")
_DECIMAL = re.compile(r"[0-9]{1,80}(\.[0-9]{1,80})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


# What the description says of a field; the checks are below, with codes of their own.
_Whole = Annotated[
    str | int,
    Meta(extra_json_schema={"pattern": "^(0x[0-9a-fA-F]{1,64}|0|[1-9][0-9]{0,76})$", "minimum": 0}),
]
_Address = Annotated[str, Meta(extra_json_schema={"pattern": "^0x[0-9a-fA-F]{40}$"})]
_Uid = Annotated[str, Meta(extra_json_schema={"pattern": "^0x[0-9a-fA-F]{112}$"})]
_Kind = Annotated[str, Meta(extra_json_schema={"enum": ["sell", "buy"]})]
_Class = Annotated[str, Meta(extra_json_schema={"enum": ["market", "limit"]})]
_Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Number = Annotated[
    str | int | None,
    Meta(
        extra_json_schema={"pattern": "^(0|[1-9][0-9]{0,17})$", "minimum": 0, "maximum": 2**63 - 1}
    ),
]


class AuctionToken(Struct, frozen=True, rename="camel"):
    """``reference_price`` is native wei per 10¹⁸ atoms."""

    decimals: int | None = None
    symbol: str | None = None
    reference_price: _Whole | None = None
    available_balance: _Whole = "0"
    trusted: bool = False


class AuctionOrder(Struct, frozen=True, rename="camel"):
    """Amounts are what remains; the full amounts are what was signed."""

    uid: _Uid
    sell_token: _Address
    buy_token: _Address
    sell_amount: _Whole
    buy_amount: _Whole
    kind: _Kind
    partially_fillable: bool
    owner: _Address = "0x" + "00" * 20
    valid_to: int = 0
    full_sell_amount: _Whole | None = None
    full_buy_amount: _Whole | None = None
    order_class: _Class = field(default="market", name="class")
    wrappers: list[JsonObject] | None = None
    flashloan_hint: JsonObject | None = None

    @property
    def pays_for_gas(self) -> bool:
        """Whether the solver sets a fee, in the sold token, that pays for the gas."""
        return self.order_class == "limit"


class Auction(Struct, frozen=True, rename="camel"):
    """The body of ``POST /solve``."""

    tokens: dict[str, AuctionToken]
    orders: list[AuctionOrder]
    liquidity: list[JsonObject]
    effective_gas_price: _Whole
    deadline: _Moment | None = None
    id: Number = None


def checked(auction: Auction) -> Auction:
    """The auction, if its orders are such as a driver sends. Raises Invalid."""
    for number, order in enumerate(auction.orders):
        if not _UID.fullmatch(order.uid):
            raise Invalid("bad_hex", "not 0x and 112 hex digits", f"/orders/{number}/uid")
        if order.order_class not in _CLASSES:
            detail = f"{order.order_class[:40]!r} is none of {', '.join(_CLASSES)}"
            raise Invalid("invalid_field", detail, f"/orders/{number}/class")
    return auction


def tokens_of(auction: Auction, chain: int) -> dict[TokenId, Token]:
    """What the auction says of its tokens; one without decimals counts in base units."""
    ids = {name: TokenId(chain, name.lower()) for name in auction.tokens}
    return {
        ids[name]: Token(ids[name], token.symbol or "", token.decimals or 0)
        for name, token in auction.tokens.items()
    }


class Problem(Struct, frozen=True):
    """An auction in the core's words, and what was left out of it.

    ``orders`` are those of the intents, one by one; ``wei`` the reference prices as they are given;
    ``buffers`` is what the settlement has, by address, and ``trusted`` the tokens that it takes.
    """

    auction: Auction
    snapshot: Snapshot
    intents: tuple[Intent, ...]
    warnings: tuple[str, ...]
    unit: str
    orders: tuple[AuctionOrder, ...]
    wei: Mapping[TokenId, int]
    gas_price: int
    buffers: Mapping[str, int]
    trusted: frozenset[str]


def to_core(auction: Auction, chain: int, snapshot_hash: str, lenient: bool = False) -> Problem:
    """Raises Invalid, which names the place, when a value has the wrong form.

    What has the right form and makes no sense (liquidity that contradicts itself, an order of
    nothing, a uid that comes twice) is the same, or with ``lenient`` is left out with a warning:
    one bad entry must not cost a whole auction.
    """
    warnings: list[str] = []

    def refuse(reason: Invalid) -> None:
        if not lenient:
            raise reason
        warnings.append(f"{reason.pointer}: {reason.detail}")

    pools = _pools(auction, chain, warnings, refuse)
    wei: dict[TokenId, int] = {}
    buffers: dict[str, int] = {}
    for address, token in auction.tokens.items():
        place = f"/tokens/{jsonio.escape(address)}"
        if token.reference_price is not None:
            price = integer(token.reference_price, f"{place}/referencePrice")
            wei[TokenId(chain, address.lower())] = price
        buffers[address.lower()] = integer(token.available_balance, f"{place}/availableBalance")
    trusted = frozenset(name.lower() for name, token in auction.tokens.items() if token.trusted)
    prices = {token: price / _PRICE_ATOMS for token, price in wei.items() if price}
    unit = "native wei at the auction's reference prices"
    if not prices and auction.orders:
        # A scale is enough for one connected auction: the pools' rates give the other prices.
        numeraire = TokenId(chain, auction.orders[0].sell_token.lower())
        prices[numeraire] = 1.0
        unit = f"base units of {numeraire}, because the auction has no reference prices"
    snapshot = Snapshot({}, tuple(pools), prices, {}, {}, {}, "auction", snapshot_hash)
    orders, intents = _orders(auction, chain, refuse)
    gas_price = integer(auction.effective_gas_price, "/effectiveGasPrice")
    return Problem(
        auction, snapshot, intents, tuple(warnings), unit, orders, wei, gas_price, buffers, trusted
    )


def _pools(
    auction: Auction, chain: int, warnings: list[str], refuse: Callable[[Invalid], None]
) -> list[Pool]:
    pools: list[Pool] = []
    for number, entry in enumerate(auction.liquidity):
        kind = str(entry.get("kind"))
        build = _KINDS.get(kind.lower())
        if build is None:
            warnings.append(f"liquidity {entry.get('id')!r} of kind {kind!r} is not supported")
            continue
        try:
            pools.append(_sound(build(entry, chain, f"{entry['id']}#{len(pools)}")))
        except _Unsupported as reason:
            warnings.append(f"liquidity {entry['id']!r} of kind {kind!r} is left out: {reason}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            missing = isinstance(error, KeyError)
            said = f"{error} is missing" if missing else described(error)
            detail = f"liquidity of kind {kind!r}: {said}"
            refuse(Invalid("bad_pool", detail, f"/liquidity/{number}"))
    return pools


def pool_of(entry: JsonObject, chain: int) -> Pool | None:
    """The pool that an entry of an auction's liquidity says, or None."""
    build = _KINDS.get(str(entry.get("kind")).lower())
    try:
        return None if build is None else _sound(build(entry, chain, str(entry["id"])))
    except (_Unsupported, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _orders(
    auction: Auction,
    chain: int,
    refuse: Callable[[Invalid], None],
) -> tuple[tuple[AuctionOrder, ...], tuple[Intent, ...]]:
    """The orders that make sense and their intents. Raises Invalid for a wrong form."""
    orders: dict[str, AuctionOrder] = {}
    intents: list[Intent] = []
    for number, order in enumerate(auction.orders):
        place = f"/orders/{number}"
        uid = order.uid.lower()
        intent = _intent(order, chain, place)
        if uid in orders:
            refuse(Invalid("duplicate_order", f"a second order {uid}"[:160], f"{place}/uid"))
        elif isinstance(intent, Invalid):
            refuse(intent)
        else:
            orders[uid] = order
            intents.append(intent)
    return tuple(orders.values()), tuple(intents)


def _sound(pool: Pool) -> Pool:
    """The pool, unless what it says of itself cannot be. Raises ValueError."""
    for token in pool.tokens:
        if not _ADDRESS.fullmatch(token.address):
            raise ValueError(f"{token.address[:44]!r} is no address")
    if len(set(pool.tokens)) != len(pool.tokens) or len(pool.tokens) < _PAIR:
        raise ValueError("it needs two tokens or more, each once")
    match pool:
        case ConstantProductPool() if pool.fee_num >= pool.fee_den:
            raise ValueError("a fee of everything")
        case WeightedPool() | StablePool() if pool.fee >= _ONE:
            raise ValueError("a fee of everything")
        case WeightedPool() | StablePool() if not all(pool.rates):
            raise ValueError("a scaling factor of zero")
        case WeightedPool() if not all(pool.weights):
            raise ValueError("a weight of zero")
        case WeightedPool() if abs(sum(pool.weights) - _ONE) > len(pool.weights):
            raise ValueError("the weights are not one together")
        case StablePool() if pool.amp < _AMP_PRECISION:
            raise ValueError("an amplification below one")
        case LimitOrderPool() if not (pool.maker_amount and pool.taker_amount):
            raise ValueError("an order that gives or takes nothing")
        case _:
            return pool


def _decimal(value: object) -> Fraction:
    """A decimal that is not negative and has a sane number of digits. Raises ValueError."""
    text = str(value)
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a decimal")
    return Fraction(text)


class _Unsupported(Exception):
    """Liquidity of a known kind that cannot be priced exactly, with the reason."""


def _tokens(entry: JsonObject) -> list[tuple[str, JsonObject]]:
    """Address and state of each token, in the order of the addresses as the contracts have it."""
    tokens = entry["tokens"]
    if isinstance(tokens, Mapping):
        return sorted((address.lower(), state) for address, state in tokens.items())
    return sorted((item["address"].lower(), item) for item in tokens)


def _constant_product(entry: JsonObject, chain: int, name: str) -> Pool:
    (token0, state0), (token1, state1) = _tokens(entry)
    fee = _decimal(entry["fee"])
    return ConstantProductPool(
        id=name,
        token0=TokenId(chain, token0),
        token1=TokenId(chain, token1),
        reserve0=integer(state0["balance"]),
        reserve1=integer(state1["balance"]),
        fee_num=fee.numerator,
        fee_den=fee.denominator,
        gas=HOP_GAS,
    )


def _limit_order(entry: JsonObject, chain: int, name: str) -> Pool:
    spelt_otherwise = entry.get("taker_token_fee_amount", "0")
    fee = integer(entry.get("takerTokenFeeAmount", spelt_otherwise))
    return LimitOrderPool(
        id=name,
        maker_token=TokenId(chain, str(entry["makerToken"]).lower()),
        taker_token=TokenId(chain, str(entry["takerToken"]).lower()),
        maker_amount=integer(entry["makerAmount"]),
        taker_amount=integer(entry["takerAmount"]) + fee,
        gas=LIMIT_ORDER_GAS,
    )


def _weighted(entry: JsonObject, chain: int, name: str) -> Pool:
    spelling = str(entry.get("version", "v0")).lower()
    versions = {"v0": WeightedVersion.V0, "v3plus": WeightedVersion.V3_PLUS}
    if spelling not in versions:
        raise _Unsupported(f"version {entry['version']!r}")
    tokens = _tokens(entry)
    return WeightedPool(
        id=name,
        coins=tuple(TokenId(chain, address) for address, _ in tokens),
        balances=tuple(integer(state["balance"]) for _, state in tokens),
        weights=tuple(_digits18(state["weight"]) for _, state in tokens),
        scaling=(1,) * len(tokens),
        rates=tuple(_scaling(state) for _, state in tokens),
        fee=_digits18(entry["fee"]),
        version=versions[spelling],
        gas=WEIGHTED_GAS,
    )


def _stable(entry: JsonObject, chain: int, name: str) -> Pool:
    """A composable pool lists its own token, at its own address; swaps do not count it."""
    own = str(entry.get("address", "")).lower()
    tokens = [(address, state) for address, state in _tokens(entry) if address != own]
    spelt_otherwise = entry.get("amplification_parameter")
    amp = _decimal(entry.get("amplificationParameter", spelt_otherwise))
    return StablePool(
        id=name,
        coins=tuple(TokenId(chain, address) for address, _ in tokens),
        balances=tuple(integer(state["balance"]) for _, state in tokens),
        amp=int(amp * _AMP_PRECISION),
        scaling=(1,) * len(tokens),
        rates=tuple(_scaling(state) for _, state in tokens),
        fee=_digits18(entry["fee"]),
        version=StableVersion.BALANCER_V2,
        gas=STABLE_GAS,
    )


def _concentrated(entry: JsonObject, chain: int, name: str) -> Pool:
    """Ticks that are initialised with a net of zero are not in the document; each would round once
    more, by a unit.
    """
    token0, token1 = sorted(str(token).lower() for token in entry["tokens"])
    fee = _decimal(entry["fee"]) * _PIPS
    spacing = _SPACINGS.get(int(fee)) if fee.denominator == 1 else None
    if spacing is None:
        raise _Unsupported(f"no factory ties a tick spacing to the fee {entry['fee']}")
    nets = {int(tick): int(net) for tick, net in entry["liquidityNet"].items()}
    try:
        return ConcentratedPool(
            id=name,
            token0=TokenId(chain, token0),
            token1=TokenId(chain, token1),
            fee_pips=int(fee),
            tick_spacing=spacing,
            sqrt_price_x96=integer(entry["sqrtPrice"]),
            tick=int(entry["tick"]),
            liquidity=integer(entry["liquidity"]),
            ticks=TickMap.of(nets, spacing),
            gas=CONCENTRATED_GAS,
            gas_per_tick=TICK_GAS,
        )
    except ValueError as error:
        raise _Unsupported(str(error)) from error


def _digits18(decimal: object) -> int:
    return int(_decimal(decimal) * _ONE)


def _scaling(state: JsonObject) -> int:
    """The factor to the pool's unit, decimals and rate in one, as a rate of 18 digits."""
    spelt_otherwise = state.get("scaling_factor", "1")
    return _digits18(state.get("scalingFactor", spelt_otherwise))


_KINDS: dict[str, Callable[[JsonObject, int, str], Pool]] = {
    "constantproduct": _constant_product,
    "weightedproduct": _weighted,
    "stable": _stable,
    "concentratedliquidity": _concentrated,
    "limitorder": _limit_order,
}


def _intent(order: AuctionOrder, chain: int, pointer: str) -> Intent | Invalid:
    """The intent of an order, or why it makes no sense. Raises Invalid for a wrong form."""
    sell = integer(order.sell_amount, f"{pointer}/sellAmount")
    buy = integer(order.buy_amount, f"{pointer}/buyAmount")
    for name, address in (("sellToken", order.sell_token), ("buyToken", order.buy_token)):
        if not _ADDRESS.fullmatch(address):
            raise Invalid("bad_hex", "not 0x and 40 hex digits", f"{pointer}/{name}")
    if order.kind not in ("sell", "buy"):
        raise Invalid("invalid_field", f"{order.kind!r} is no kind", f"{pointer}/kind")
    for name, amount in (("sellAmount", sell), ("buyAmount", buy)):
        if not amount:
            return Invalid("zero_amount", "must be positive", f"{pointer}/{name}")
    swap = Swap(
        owner=order.owner.lower(),
        account=ZERO_BYTES32,
        receiver=order.owner.lower(),
        sell_chain=chain,
        sell_asset="0x" + "00" * 12 + order.sell_token.lower()[2:],
        buy_chain=chain,
        buy_asset="0x" + "00" * 12 + order.buy_token.lower()[2:],
        sell_amount=sell,
        buy_amount=buy,
        kind=Kind.EXACT_IN if order.kind == "sell" else Kind.EXACT_OUT,
        partial_fill=order.partially_fillable,
        nonce=0,
        valid_from=0,
        valid_until=order.valid_to,
        fill_deadline=0,
        refund_after=0,
        max_fee=0,
        min_health=0,
        extension=ZERO_BYTES32,
    )
    return Intent(order.uid, swap, "0x")


def from_core(problem: Problem, solution: Solution) -> JsonObject:
    """The engine's response with a ``certificate`` and the reasons of open orders beside it."""
    certificate = solution.certificate
    answer: JsonObject = {
        "solutions": [_solution(problem, solution)] if solution.fills else [],
        "certificate": {
            **msgspec.to_builtins(certificate_document(certificate)),
            "unit": problem.unit,
        },
        "open": [
            {
                "order": reason.digest,
                "code": reason.code,
                "reason": reason.detail,
                "bestRate": reason.best_rate,
                "limitRate": reason.limit_rate,
            }
            for reason in solution.open
        ],
    }
    if problem.warnings:
        answer["warnings"] = list(problem.warnings)
    return answer


def _solution(problem: Problem, solution: Solution) -> JsonObject:
    exact_in = {intent.digest: intent.swap.kind is Kind.EXACT_IN for intent in problem.intents}
    return {
        "id": 0,
        "prices": _prices(solution.clearing),
        "trades": [
            {
                "kind": "fulfillment",
                "order": fill.digest,
                "executedAmount": str(fill.sell if exact_in[fill.digest] else fill.buy),
            }
            for fill in solution.fills
        ],
        "preInteractions": [],
        "interactions": _interactions(problem, solution),
        "postInteractions": [],
        "gas": SETTLEMENT_GAS + sum(leg.gas for leg in solution.legs),
    }


def liquidity_uses(problem: Problem, legs: Sequence[Leg]) -> list[dict[str, Any]]:
    """Legs as liquidity interactions, field by field.

    They are internalised where the sold token is trusted and the settlement's buffer still covers
    what is bought.
    """
    spent: Counter[str] = Counter()
    uses: list[dict[str, Any]] = []
    for leg in legs:
        source, target = leg.token_in.address, leg.token_out.address
        left = problem.buffers.get(target, 0) - spent[target]
        internal = source in problem.trusted and left >= leg.amount_out
        if internal:
            spent[target] += leg.amount_out
        uses.append(
            {
                "kind": "liquidity",
                "internalize": internal,
                "id": leg.pool.rpartition("#")[0],
                "input_token": source,
                "output_token": target,
                "input_amount": str(leg.amount_in),
                "output_amount": str(leg.amount_out),
            }
        )
    return uses


def _interactions(problem: Problem, solution: Solution) -> list[JsonObject]:
    return [
        {jsonio.camel(name): value for name, value in use.items()}
        for use in liquidity_uses(problem, solution.legs)
    ]


def _prices(clearing: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """One price per token from the rates: price(sell)/price(buy) = bought/sold.

    The first pair of a connected group has its plain amounts as prices; the others are scaled to
    it as exact fractions and multiplied up to integers.
    """
    known: dict[str, Fraction] = {}
    waiting = sorted(clearing.items())
    while waiting:
        pair, (bought, sold) = _next_pair(waiting, known)
        waiting.remove((pair, (bought, sold)))
        sell, buy = (side.partition(":")[2] for side in pair.split(">"))
        if buy in known:
            known.setdefault(sell, known[buy] * bought / sold)
        elif sell in known:
            known[buy] = known[sell] * sold / bought
        else:
            known[sell], known[buy] = Fraction(bought), Fraction(sold)
    factor = lcm(*(price.denominator for price in known.values())) if known else 1
    return {token: str(int(price * factor)) for token, price in sorted(known.items())}


def _next_pair(
    waiting: Sequence[tuple[str, tuple[int, int]]], known: Mapping[str, Fraction]
) -> tuple[str, tuple[int, int]]:
    """A pair that touches a known token if there is one."""
    for entry in waiting:
        if any(side.partition(":")[2] in known for side in entry[0].split(">")):
            return entry
    return waiting[0]

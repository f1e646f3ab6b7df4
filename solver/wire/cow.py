"""The CoW Protocol solver-engine documents: auction in, solutions out.

Source: the engine's openapi.yml and data-transfer types; where they disagree both spellings are
read and the code's form is written. Addresses are lower case in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm

import msgspec
from msgspec import Struct, field

from solver.core.pools import ConstantProductPool, LimitOrderPool
from solver.core.types import (
    ZERO_BYTES32,
    Intent,
    JsonObject,
    Kind,
    Solution,
    Swap,
    TokenId,
)
from solver.core.venue import Pool, Snapshot

SETTLEMENT_GAS = 106_391
HOP_GAS = 60_000
_PRICE_ATOMS = 10**18


class AuctionToken(Struct, frozen=True, rename="camel"):
    """``reference_price`` is native wei per 10¹⁸ atoms."""

    decimals: int | None = None
    symbol: str | None = None
    reference_price: str | None = None
    available_balance: str = "0"
    trusted: bool = False


class AuctionOrder(Struct, frozen=True, rename="camel"):
    """Amounts are what remains; the full amounts are what was signed."""

    uid: str
    sell_token: str
    buy_token: str
    sell_amount: str
    buy_amount: str
    kind: str
    partially_fillable: bool
    owner: str = "0x" + "00" * 20
    valid_to: int = 0
    full_sell_amount: str | None = None
    full_buy_amount: str | None = None
    order_class: str = field(default="market", name="class")


class Auction(Struct, frozen=True, rename="camel"):
    """The body of ``POST /solve``."""

    tokens: dict[str, AuctionToken]
    orders: list[AuctionOrder]
    liquidity: list[JsonObject]
    effective_gas_price: str
    deadline: str = ""
    id: str | int | None = None


class Problem(Struct, frozen=True):
    """An auction in the core's words, and what was left out of it."""

    auction: Auction
    snapshot: Snapshot
    intents: tuple[Intent, ...]
    warnings: tuple[str, ...]


def integer(text: object) -> int:
    """Decimal or hex, as the engine accepts both."""
    if isinstance(text, int):
        return text
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not an integer")
    return int(text, 16) if text.startswith("0x") else int(text)


def to_core(auction: Auction, chain: int, snapshot_hash: str) -> Problem:
    """Raises ValueError or KeyError with the field when a value has the wrong form."""
    warnings: list[str] = []
    pools: list[Pool] = []
    for entry in auction.liquidity:
        kind = str(entry.get("kind"))
        if kind in ("constantProduct", "constantproduct"):
            pools.append(_constant_product(entry, chain, len(pools)))
        elif kind in ("limitOrder", "limitorder"):
            pools.append(_limit_order(entry, chain, len(pools)))
        else:
            warnings.append(f"liquidity {entry.get('id')!r} of kind {kind!r} is not supported")
    prices: dict[TokenId, float] = {}
    for address, token in auction.tokens.items():
        if token.reference_price:
            wei = integer(token.reference_price)
            prices[TokenId(chain, address.lower())] = wei / _PRICE_ATOMS
    snapshot = Snapshot({}, tuple(pools), prices, {}, {}, {}, "auction", snapshot_hash)
    intents = tuple(_intent(order, chain) for order in auction.orders)
    return Problem(auction, snapshot, intents, tuple(warnings))


def _tokens(entry: JsonObject) -> list[tuple[str, int]]:
    tokens = entry["tokens"]
    if isinstance(tokens, Mapping):
        return [(address.lower(), integer(value["balance"])) for address, value in tokens.items()]
    return [(item["address"].lower(), integer(item["balance"])) for item in tokens]


def _constant_product(entry: JsonObject, chain: int, number: int) -> ConstantProductPool:
    (token0, reserve0), (token1, reserve1) = _tokens(entry)
    fee = Fraction(str(entry["fee"]))
    return ConstantProductPool(
        id=f"{entry['id']}#{number}",
        token0=TokenId(chain, token0),
        token1=TokenId(chain, token1),
        reserve0=reserve0,
        reserve1=reserve1,
        fee_num=fee.numerator,
        fee_den=fee.denominator,
        gas=HOP_GAS,
    )


def _limit_order(entry: JsonObject, chain: int, number: int) -> LimitOrderPool:
    spelt_otherwise = entry.get("taker_token_fee_amount", "0")
    fee = integer(entry.get("takerTokenFeeAmount", spelt_otherwise))
    return LimitOrderPool(
        id=f"{entry['id']}#{number}",
        maker_token=TokenId(chain, str(entry["makerToken"]).lower()),
        taker_token=TokenId(chain, str(entry["takerToken"]).lower()),
        maker_amount=integer(entry["makerAmount"]),
        taker_amount=integer(entry["takerAmount"]) + fee,
        gas=HOP_GAS,
    )


def _intent(order: AuctionOrder, chain: int) -> Intent:
    sell, buy = integer(order.sell_amount), integer(order.buy_amount)
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
            "value": certificate.value,
            "bound": certificate.bound,
            "arbFloor": certificate.arb_floor,
            "netGap": certificate.net_gap,
            "netGapBps": certificate.net_gap_bps,
            "prices": certificate.prices,
            "unit": "native wei at the auction's reference prices",
            "leaves": msgspec.to_builtins(certificate.leaves),
            "assumptions": certificate.assumptions,
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
        "gas": SETTLEMENT_GAS + HOP_GAS * len(solution.legs),
    }


def _interactions(problem: Problem, solution: Solution) -> list[JsonObject]:
    """Legs as liquidity interactions; internalised where buffers of trusted tokens cover them."""
    tokens = {address.lower(): token for address, token in problem.auction.tokens.items()}
    buffers = {name: integer(token.available_balance) for name, token in tokens.items()}
    interactions: list[JsonObject] = []
    for leg in solution.legs:
        source, target = leg.token_in.address, leg.token_out.address
        trusted = source in tokens and tokens[source].trusted
        internal = trusted and buffers.get(target, 0) >= leg.amount_out
        if internal:
            buffers[target] -= leg.amount_out
        interactions.append(
            {
                "kind": "liquidity",
                "internalize": internal,
                "id": leg.pool.rpartition("#")[0],
                "inputToken": source,
                "outputToken": target,
                "inputAmount": str(leg.amount_in),
                "outputAmount": str(leg.amount_out),
            }
        )
    return interactions


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

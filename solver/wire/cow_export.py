"""A recorded batch as an auction of CoW Protocol.

The auction's form has one chain, no flat fees, no operator's terms and fewer kinds of pools. What
it cannot say is named (:class:`Unsaid`), and a caller decides whether to go without it. An order's
uid begins with its digest, so that the answers of both forms can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from typing import Any

import msgspec
from msgspec import Struct

from solver.core.batch import Terms
from solver.core.pools import (
    ConcentratedPool,
    ConstantProductPool,
    LimitOrderPool,
    StablePool,
    WeightedPool,
)
from solver.core.schedule import NO_FEES
from solver.core.types import BPS, ZERO_ADDRESS, ZERO_BYTES32, Intent, JsonObject, Kind
from solver.core.venue import Pool, StatesRoutes
from solver.wire import cow, instance
from solver.wire.instance import Instance
from solver.wire.jsonio import Invalid

NAMES = ("orders", "pools", "fees", "gas", "impact")
#: A batch has no deadline of its own; this one is never over.
DEADLINE = "2106-01-01T00:00:00Z"
_ONE = _ATOMS = 10**18
_AMP_PRECISION = 1000
_PIPS = 10**6
_UNTRADED = ("id", "gas", "gas_per_tick")
_LAST_SECOND = 2**32 - 1


class Unsaid(Struct, frozen=True):
    """Something of the batch that an auction cannot say; ``name`` is one of NAMES."""

    name: str
    detail: str


def auction_of(
    document: Instance, native: str, without: Collection[str] = ()
) -> tuple[JsonObject, list[Unsaid]]:
    """The auction, and what of the batch it does not say, other than what it is to go without.

    ``native`` is the symbol of the asset in whose price reference prices are stated. Raises
    Invalid where the batch has no order, or prices but none for ``native``.
    """
    snapshot, intents, _ = instance.to_core(document)
    if not intents:
        raise Invalid("no_orders", "a batch without orders has no chain", "/intents")
    chain = intents[0].swap.sell_chain
    unsaid = _unsaid_terms(instance.terms_to_core(document))
    orders: list[JsonObject] = []
    for intent in intents:
        swap = intent.swap
        if swap.sell_chain != chain or swap.buy_chain != chain:
            unsaid.append(Unsaid("orders", f"{intent.digest} is not on chain {chain} alone"))
        elif swap.valid_until > _LAST_SECOND:
            unsaid.append(Unsaid("orders", f"{intent.digest} is valid beyond 32 bits"))
        else:
            orders.append(_order(intent))
    pools = [pool for pool in snapshot.pools if _is_on(chain, pool)]
    entries: list[JsonObject] = []
    for number, pool in enumerate(pools):
        entry = _entry(pool, str(number))
        if entry is None:
            detail = f"{pool.id} ({type(pool).__name__}) has no equal there"
            unsaid.append(Unsaid("pools", detail))
        else:
            entries.append(entry)
    auction = {
        "id": None,
        "tokens": _tokens(document, chain, native, pools, intents),
        "orders": orders,
        "liquidity": entries,
        "effectiveGasPrice": str(snapshot.gas_price_wei.get(chain, 0)),
        "deadline": DEADLINE,
        "surplusCapturingJitOrderOwners": [],
    }
    return auction, [each for each in unsaid if each.name not in without]


def _unsaid_terms(terms: Terms) -> list[Unsaid]:
    found = []
    charged = sum(1 for fee in terms.fees.values() if fee)
    if charged:
        found.append(Unsaid("fees", f"{charged} orders pay a flat fee in the bought token"))
    if terms.schedule != NO_FEES:
        found.append(Unsaid("fees", "the operator takes shares of volume, surplus or improvement"))
    if terms.gas_value > 0.0:
        found.append(Unsaid("gas", "payouts are lowered by the gas of the pools"))
    if terms.max_impact_bps < BPS:
        detail = f"a fill may move a pool's rate by {terms.max_impact_bps} basis points at most"
        found.append(Unsaid("impact", detail))
    return found


def _is_on(chain: int, pool: Pool) -> bool:
    """Whether orders of this chain can use the pool; a bridge leads away from it."""
    on_chain = all(token.chain == chain for token in pool.tokens)
    return on_chain and not isinstance(pool, StatesRoutes)


def _order(intent: Intent) -> JsonObject:
    """What remains of the order; its other amount rounds up, as its limit asks."""
    swap, left = intent.swap, intent.remaining
    exact_in = swap.kind is Kind.EXACT_IN
    if exact_in:
        sell, buy = left, -(-swap.buy_amount * left // swap.sell_amount)
    else:
        sell, buy = swap.sell_amount * left // swap.buy_amount, left
    return {
        "uid": intent.digest + swap.owner[2:] + f"{swap.valid_until:08x}",
        "sellToken": swap.sell.address,
        "buyToken": swap.buy.address,
        "sellAmount": str(sell),
        "buyAmount": str(buy),
        "fullSellAmount": str(swap.sell_amount),
        "fullBuyAmount": str(swap.buy_amount),
        "validTo": swap.valid_until,
        "kind": "sell" if exact_in else "buy",
        "receiver": swap.receiver,
        "owner": swap.owner,
        "partiallyFillable": swap.partial_fill,
        "preInteractions": [],
        "postInteractions": [],
        "sellTokenSource": "erc20",
        "buyTokenDestination": "erc20",
        "class": "market",
        "appData": ZERO_BYTES32,
        "signingScheme": "eip712",
        "signature": intent.signature,
    }


def _tokens(
    document: Instance, chain: int, native: str, pools: Sequence[Pool], intents: Sequence[Intent]
) -> JsonObject:
    """Every token of the chain, with its price in the native one's where it has a price."""
    assets = {a.address.lower(): a for a in document.assets if a.chain_id == chain}
    prices = {address: Fraction(a.price) for address, a in assets.items() if a.price}
    named = (prices.get(address) for address, a in assets.items() if a.symbol == native)
    unit = next((price for price in named if price), None)
    if prices and unit is None:
        detail = f"no asset {native!r} of chain {chain} has a price; name another with --native"
        raise Invalid("no_native", detail, "/assets")
    ends = (token for intent in intents for token in (intent.swap.sell, intent.swap.buy))
    known = {token for pool in pools for token in pool.tokens} | set(ends)
    addresses = {token.address for token in known if token.chain == chain} | assets.keys()
    tokens: JsonObject = {}
    for address in sorted(addresses):
        tokens[address] = {"availableBalance": "0", "trusted": False}
        if address in assets:
            tokens[address] |= {"decimals": assets[address].decimals}
            tokens[address] |= {"symbol": assets[address].symbol} if assets[address].symbol else {}
        if unit and prices.get(address):
            tokens[address]["referencePrice"] = str(round(prices[address] / unit * _ATOMS))
    return tokens


def _entry(pool: Pool, name: str) -> JsonObject | None:
    """The pool as liquidity, if reading it there gives the very same pool."""
    write = _WRITERS.get(type(pool))
    if write is None:
        return None
    entry = {"id": name, "address": ZERO_ADDRESS, **write(pool)}
    read = cow.pool_of(entry, pool.tokens[0].chain)
    return entry if read is not None and _bare(read) == _bare(pool) else None


def _bare(pool: Pool) -> JsonObject:
    """What a pool trades by: neither its name nor its gas, and a fee in lowest terms."""
    if isinstance(pool, ConstantProductPool):
        sides = {pool.token0: pool.reserve0, pool.token1: pool.reserve1}
        return {"sides": sides, "fee": Fraction(pool.fee_num, pool.fee_den)}
    assert isinstance(pool, Struct)
    fields = msgspec.structs.asdict(pool)
    return {name: value for name, value in fields.items() if name not in _UNTRADED}


def _constant_product(pool: ConstantProductPool) -> JsonObject:
    sides = ((pool.token0, pool.reserve0), (pool.token1, pool.reserve1))
    return {
        "kind": "constantProduct",
        "gasEstimate": str(pool.gas),
        "router": ZERO_ADDRESS,
        "fee": _decimal(Fraction(pool.fee_num, pool.fee_den)),
        "tokens": {token.address: {"balance": str(reserve)} for token, reserve in sides},
    }


def _limit_order(pool: LimitOrderPool) -> JsonObject:
    return {
        "kind": "limitOrder",
        "gasEstimate": str(pool.gas),
        "hash": ZERO_BYTES32,
        "makerToken": pool.maker_token.address,
        "takerToken": pool.taker_token.address,
        "makerAmount": str(pool.maker_amount),
        "takerAmount": str(pool.taker_amount),
        "takerTokenFeeAmount": "0",
    }


def _weighted(pool: WeightedPool) -> JsonObject:
    states = _states(pool)
    for state, weight in zip(states.values(), pool.weights, strict=True):
        state["weight"] = _decimal(Fraction(weight, _ONE))
    return {
        "kind": "weightedProduct",
        "gasEstimate": str(pool.gas),
        "balancerPoolId": ZERO_BYTES32,
        "version": pool.version.value,
        "fee": _decimal(Fraction(pool.fee, _ONE)),
        "tokens": states,
    }


def _stable(pool: StablePool) -> JsonObject:
    return {
        "kind": "stable",
        "gasEstimate": str(pool.gas),
        "balancerPoolId": ZERO_BYTES32,
        "amplificationParameter": _decimal(Fraction(pool.amp, _AMP_PRECISION)),
        "fee": _decimal(Fraction(pool.fee, _ONE)),
        "tokens": _states(pool),
    }


def _states(pool: WeightedPool | StablePool) -> JsonObject:
    """Balance and scaling factor by token."""
    return {
        coin.address: {
            "balance": str(balance),
            "scalingFactor": _decimal(Fraction(rate, _ONE)),
        }
        for coin, balance, rate in zip(pool.coins, pool.balances, pool.rates, strict=True)
    }


def _concentrated(pool: ConcentratedPool) -> JsonObject:
    ticks = zip(pool.ticks.ticks, pool.ticks.nets, strict=True)
    return {
        "kind": "concentratedLiquidity",
        "gasEstimate": str(pool.gas),
        "router": ZERO_ADDRESS,
        "fee": _decimal(Fraction(pool.fee_pips, _PIPS)),
        "tokens": [pool.token0.address, pool.token1.address],
        "sqrtPrice": str(pool.sqrt_price_x96),
        "liquidity": str(pool.liquidity),
        "tick": pool.tick,
        "liquidityNet": {str(tick): str(net) for tick, net in ticks},
    }


_WRITERS: dict[type, Callable[[Any], JsonObject]] = {
    ConstantProductPool: _constant_product,
    LimitOrderPool: _limit_order,
    WeightedPool: _weighted,
    StablePool: _stable,
    ConcentratedPool: _concentrated,
}


def _decimal(value: Fraction) -> str:
    """As many digits as it takes; twenty where there is no end, which reading it back shows."""
    digits = 0
    while digits < 20 and (value * 10**digits).denominator != 1:
        digits += 1
    whole, rest = divmod(int(value * 10**digits), 10**digits)
    return f"{whole}.{rest:0{digits}d}" if digits else str(whole)

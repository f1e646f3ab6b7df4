"""The baseline: each order alone, on the best single path, as CoW Protocol's reference engine.

For one order of A for B every sequence A → base tokens → B of at most ``max_hops`` tokens in
between is a candidate. Along a path the best pool of each pair is taken hop by hop: forwards by the
most output (sell orders), backwards by the least input (buy orders). The best path wins; if it
fails the order's limit and the order is partially fillable, half of the amount is tried, and so on.

Orders of class *limit* pay for their gas in the sold token, f = gas·gas price·10^18/price, where
``price`` is wei per 10^18 atoms; without a reference price it is what buying a given amount of the
wrapped native token costs. A sell order swaps all it may and keeps f out of what counts as sold; a
buy order sells f more.

Written from the behaviour of the reference (cowprotocol/services, ``crates/solvers``), 256-bit
arithmetic included: an order whose products do not fit has no answer. All amounts are integers in
base units; every quotient rounds down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from solver.core.pools import ConcentratedPool, ConstantProductPool, LimitOrderPool
from solver.core.types import UINT256_MAX, Exact, Intent, Kind, Leg, TokenId
from solver.core.venue import Pool

PRICE_ATOMS = 10**18
_MAX_RESERVE = 2**112 - 1
_MOST_SOLD = 2**144  # when native token is priced; a v2 pool times this still fits 256 bits


class Rules(Struct, frozen=True):
    """How the engine searches. ``native_amount`` (wei) is what prices a token without a price."""

    native: TokenId
    base_tokens: tuple[TokenId, ...] = ()
    max_hops: int = 0
    max_partial_attempts: int = 1
    native_amount: int = 10**17
    overhead_gas: int = 106_391


class Single(Struct, frozen=True):
    """One order on its path: the clearing price of each token, and what it is said to execute.

    ``executed`` is sold without the fee (sell orders) or bought; ``fee``, in the sold token, is
    None for orders that pay none of their own.
    """

    index: int
    digest: str
    prices: Mapping[TokenId, int]
    executed: int
    fee: int | None
    legs: tuple[Leg, ...]
    gas: int


class Market:
    """The pools by pair, the reference prices in wei per 10^18 atoms, and the gas price in wei.

    Concentrated pools are left out: the reference quotes them on a node, which it has not by
    default.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        prices: Mapping[TokenId, int],
        gas_price: int,
        rules: Rules,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.prices = prices
        self.gas_price = gas_price
        self.rules = rules
        self.stop = stop
        self._by_pair: dict[frozenset[TokenId], list[Pool]] = {}
        for pool in pools:
            if isinstance(pool, ConcentratedPool):
                continue
            tokens = pool.tokens
            for number, first in enumerate(tokens):
                for second in tokens[number + 1 :]:
                    self._by_pair.setdefault(frozenset((first, second)), []).append(pool)

    def between(self, first: TokenId, second: TokenId) -> Sequence[Pool]:
        """The pools that trade a pair, in the order in which they were given."""
        return self._by_pair.get(frozenset((first, second)), ())


class _Overflow(ArithmeticError):
    """A number that does not fit in 256 bits, or a quotient of zero."""


def solve(market: Market, intents: Sequence[Intent], charged: Sequence[bool]) -> Iterator[Single]:
    """The answer to each order that has one, until the market says stop.

    ``charged`` tells, order by order, whether it pays a fee of its own (class limit).
    """
    for index, (intent, pays) in enumerate(zip(intents, charged, strict=True)):
        if market.stop():
            return
        try:
            found = _solve_one(market, index, intent, pays)
        except _Overflow:
            continue
        if found is not None:
            yield found


def moved(found: Single, intent: Intent) -> tuple[int, int]:
    """All that the owner sells, fee included, and gets."""
    sell, buy = found.prices[intent.swap.sell], found.prices[intent.swap.buy]
    fee = found.fee or 0
    if intent.swap.kind is Kind.EXACT_IN:
        return found.executed + fee, -(-found.executed * sell // buy)
    return found.executed * buy // sell + fee, found.executed


def native_price(market: Market, token: TokenId) -> int | None:
    """Wei per 10^18 atoms: given, one for the native token, routed, or so much that no fee remains.

    None where a route gives a price outside of [1, 2²⁵⁶). The routed price is a double, as in the
    reference, rounded to the nearest integer.
    """
    if token in market.prices:
        return market.prices[token]
    rules = market.rules
    if token == rules.native:
        return PRICE_ATOMS
    legs = _route(market, token, rules.native, _MOST_SOLD, rules.native_amount, Kind.EXACT_OUT)
    if legs is None:
        return UINT256_MAX
    price = 1e18 * (_double(rules.native_amount) / _double(legs[0].amount_in))
    return int(price + 0.5) if 1.0 <= price < 2.0**256 else None


def fee_of(market: Market, token: TokenId, gas: int) -> int | None:
    """What gas costs in a token, in base units; None where it has no price that could say."""
    price = native_price(market, token)
    if not price:
        return None
    try:
        return _word(_word(gas * market.gas_price) * PRICE_ATOMS) // price
    except _Overflow:
        return None


def _solve_one(market: Market, index: int, intent: Intent, pays: bool) -> Single | None:
    swap = intent.swap
    price = native_price(market, swap.sell)
    if price is None:
        return None
    attempts = market.rules.max_partial_attempts if swap.partial_fill else 1
    for attempt in range(attempts):
        sell, buy = swap.sell_amount >> attempt, swap.buy_amount >> attempt
        if not sell or not buy or market.stop():
            return None
        try:
            found = _attempt(market, index, intent, sell, buy, price, pays)
        except _Overflow:
            continue
        if found is not None:
            return found
    return None


def _attempt(
    market: Market, index: int, intent: Intent, sell: int, buy: int, price: int, pays: bool
) -> Single | None:
    """The order with these amounts in place of its own, or None."""
    swap = intent.swap
    exact_in = swap.kind is Kind.EXACT_IN
    if swap.sell == swap.buy:
        # The owner's own tokens are the liquidity; the whole order, whatever part was asked.
        legs: tuple[Leg, ...] = ()
        given = received = swap.sell_amount if exact_in else swap.buy_amount
    else:
        routed = _route(market, swap.sell, swap.buy, sell, buy, swap.kind)
        if routed is None:
            return None
        legs = routed
        given, received = legs[0].amount_in, legs[-1].amount_out
        if not exact_in:
            received = min(received, swap.buy_amount)
    gas = sum(leg.gas for leg in legs) + market.rules.overhead_gas
    cost = _over(_word(_word(gas * market.gas_price) * PRICE_ATOMS), price)
    fee = cost if pays else 0
    sold = _word(given + fee)
    bought = received
    if exact_in:
        sold = min(sold, swap.sell_amount)
        bought = _over(_word(_minus(sold, fee) * received), given)
    if _word(swap.sell_amount * bought) < _word(swap.buy_amount * sold):
        return None
    executed, whole = (sold - fee, swap.sell_amount) if exact_in else (bought, swap.buy_amount)
    filled = sold if exact_in else bought
    if filled > whole or (filled != whole and not swap.partial_fill):
        return None
    prices = {swap.sell: bought}
    prices[swap.buy] = sold - fee
    return Single(index, intent.digest, prices, executed, fee if pays else None, legs, gas)


def _route(
    market: Market, source: TokenId, target: TokenId, sell: int, buy: int, kind: Kind
) -> tuple[Leg, ...] | None:
    """The best path that sells exactly ``sell`` for ``buy`` or more, or buys ``buy`` for less."""
    best: tuple[Leg, ...] | None = None
    for path in _paths(market.rules, source, target):
        if market.stop():
            break
        if kind is Kind.EXACT_IN:
            legs = _forwards(market, path, sell)
            if legs is None or legs[-1].amount_out < buy:
                continue
            # Of equals the later path, as a maximum is taken there.
            if best is None or legs[-1].amount_out >= best[-1].amount_out:
                best = legs
        else:
            legs = _backwards(market, path, buy)
            if legs is None or legs[0].amount_in > sell or legs[-1].amount_out < buy:
                continue
            if best is None or legs[0].amount_in < best[0].amount_in:
                best = legs
    return best


def _paths(rules: Rules, source: TokenId, target: TokenId) -> Iterator[tuple[TokenId, ...]]:
    """All candidates, the direct one first."""
    through = sorted({rules.native, *rules.base_tokens} - {target})
    prefixes: list[tuple[TokenId, ...]] = [(source,)]
    for _ in range(rules.max_hops + 1):
        yield from ((*prefix, target) for prefix in prefixes)
        prefixes = [
            (*prefix, token) for prefix in prefixes for token in through if token not in prefix
        ]


def _forwards(market: Market, path: Sequence[TokenId], amount: int) -> tuple[Leg, ...] | None:
    """The path with the pool that gives most at each hop; of equals the last."""
    legs: list[Leg] = []
    for source, target in pairwise(path):
        best: Leg | None = None
        for pool in market.between(source, target):
            leg = _sold(pool, source, target, amount)
            if leg is not None and (best is None or leg.amount_out >= best.amount_out):
                best = leg
        if best is None:
            return None
        legs.append(best)
        amount = best.amount_out
    return tuple(legs)


def _backwards(market: Market, path: Sequence[TokenId], amount: int) -> tuple[Leg, ...] | None:
    """The path with the pool that asks least at each hop, of equals the first; then sold forwards.

    What is sold may bring a little more than was asked at a hop, and all of it goes on.
    """
    used: list[Pool] = []
    for source, target in zip(path[-2::-1], path[:0:-1], strict=True):
        cheapest: tuple[int, Pool] | None = None
        for pool in market.between(source, target):
            asked = _bought(pool, source, target, amount)
            if asked is not None and (cheapest is None or asked < cheapest[0]):
                cheapest = asked, pool
        if cheapest is None:
            return None
        amount = cheapest[0]
        used.append(cheapest[1])
    legs: list[Leg] = []
    for pool, source, target in zip(reversed(used), path, path[1:], strict=False):
        leg = _sold(pool, source, target, amount)
        if leg is None:
            return None
        legs.append(leg)
        amount = leg.amount_out
    return tuple(legs)


def _sold(pool: Pool, source: TokenId, target: TokenId, amount: int) -> Leg | None:
    """Exactly this input, or None."""
    if not _sells(pool, source):
        return None
    step = pool.swap(source, target, amount, Exact.IN)
    if step.amount_in != amount or not step.amount_out or not _fits(step.next_pool):
        return None
    return Leg(pool.id, source, target, amount, step.amount_out, step.gas)


def _bought(pool: Pool, source: TokenId, target: TokenId, amount: int) -> int | None:
    """The input for exactly this output, or None."""
    if not _sells(pool, source):
        return None
    step = pool.swap(source, target, amount, Exact.OUT)
    if step.amount_out < amount or not step.amount_in or not _fits(step.next_pool):
        return None
    return step.amount_in


def _sells(pool: Pool, source: TokenId) -> bool:
    """Whether a pool takes this token; a foreign limit order takes only one."""
    return not isinstance(pool, LimitOrderPool) or pool.taker_token == source


def _fits(pool: Pool) -> bool:
    """Whether a pair's reserves still fit its contract."""
    if not isinstance(pool, ConstantProductPool):
        return True
    return max(pool.reserve0, pool.reserve1) <= _MAX_RESERVE


def _word(value: int) -> int:
    if value > UINT256_MAX:
        raise _Overflow
    return value


def _minus(value: int, other: int) -> int:
    if other > value:
        raise _Overflow
    return value - other


def _over(value: int, divisor: int) -> int:
    if not divisor:
        raise _Overflow
    return value // divisor


def _double(value: int) -> float:
    """A 256-bit integer as a double by way of its leading 64 bits, as the reference has it."""
    shift = max(0, value.bit_length() - 64)
    return float(value >> shift) * 2.0**shift

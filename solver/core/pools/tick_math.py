"""Prices and amounts of concentrated liquidity in the contract's integers (Uniswap v3).

√P² is token1 per token0 in base units; √P is a Q64.96 fixed-point integer, 1.0001^(t/2) at tick t.
Formulas from the Uniswap v3 white paper, §6; roundings as the public libraries TickMath,
SqrtPriceMath and SwapMath do them. All functions are pure and total on valid prices.
"""

from __future__ import annotations

import math
from functools import lru_cache

MIN_TICK = -887_272
MAX_TICK = 887_272
MIN_SQRT_PRICE = 4_295_128_739  # at MIN_TICK
MAX_SQRT_PRICE = 1_461_446_703_485_210_103_287_273_052_203_988_822_378_723_970_342  # at MAX_TICK
PIPS = 1_000_000  # a fee is in millionths of the input
_Q96 = 1 << 96
_Q128 = 1 << 128
_UINT256 = (1 << 256) - 1
_LOG_OF_TICK = math.log(1.0001) / 2
_CACHED_TICKS = 1 << 17


def _factors() -> tuple[int, ...]:
    """1.0001^(−2^i/2) for i = 0…19 as Q128, each rounded to nearest: what the contract multiplies.

    Worked out at 512 fractional bits; a squaring at most doubles the error, so 490 are good.
    """
    bits = 512
    factor = math.isqrt((10_000 << 2 * bits) // 10_001)
    found = []
    for _ in range(20):
        found.append((factor + (1 << (bits - 129))) >> (bits - 128))
        factor = factor * factor >> bits
    return tuple(found)


_FACTORS = _factors()


@lru_cache(maxsize=_CACHED_TICKS)
def sqrt_price_at(tick: int) -> int:
    """√P of a tick, rounded up; raises ValueError outside MIN_TICK…MAX_TICK."""
    distance = abs(tick)
    if distance > MAX_TICK:
        raise ValueError(f"tick {tick} is outside ±{MAX_TICK}")
    ratio, index = _Q128, 0
    while distance:
        if distance & 1:
            ratio = ratio * _FACTORS[index] >> 128
        distance >>= 1
        index += 1
    if tick > 0:
        ratio = _UINT256 // ratio
    return -(-ratio >> 32)


def tick_at(sqrt_price: int) -> int:
    """The greatest tick whose √P is at most this; raises ValueError for no valid price."""
    if not MIN_SQRT_PRICE <= sqrt_price < MAX_SQRT_PRICE:
        raise ValueError(f"√P {sqrt_price} is outside {MIN_SQRT_PRICE}…{MAX_SQRT_PRICE}")
    # The logarithm is good to about 1e-9 ticks: at most one step to correct.
    tick = min(math.floor(math.log(sqrt_price / _Q96) / _LOG_OF_TICK), MAX_TICK - 1)
    if tick < MIN_TICK or sqrt_price_at(tick) > sqrt_price:
        return max(tick - 1, MIN_TICK)
    return tick + 1 if sqrt_price_at(tick + 1) <= sqrt_price else tick


def amount0_between(lower: int, upper: int, liquidity: int, round_up: bool) -> int:
    """Token0 of ``liquidity`` between two √P, lower ≤ upper: L·(1/√P_lower − 1/√P_upper).

    Rounded twice in the same direction, as the contract divides by one price after the other.
    """
    product = (liquidity << 96) * (upper - lower)
    if round_up:
        return -(-product // upper // lower)
    return product // upper // lower


def amount1_between(lower: int, upper: int, liquidity: int, round_up: bool) -> int:
    """Token1 of ``liquidity`` between two √P, lower ≤ upper: L·(√P_upper − √P_lower)."""
    product = liquidity * (upper - lower)
    return -(-product >> 96) if round_up else product >> 96


def price_after_input(sqrt_price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """√P after ``amount`` came in, net of the fee; rounded so that the price moves less.

    ``liquidity`` must be positive.
    """
    if not zero_for_one:
        return sqrt_price + (amount << 96) // liquidity
    numerator = liquidity << 96
    denominator = numerator + amount * sqrt_price
    if denominator <= _UINT256:
        return -(-numerator * sqrt_price // denominator)
    # Beyond 256 bits the contract divides first.
    return -(-numerator // (numerator // sqrt_price + amount))


def price_after_output(sqrt_price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """√P after ``amount`` went out; rounded so that the price moves more.

    ``amount`` must be less than what ``liquidity`` holds on that side.
    """
    if zero_for_one:
        return sqrt_price - -(-(amount << 96) // liquidity)
    numerator = liquidity << 96
    return -(-numerator * sqrt_price // (numerator - amount * sqrt_price))


def step_within(
    sqrt_price: int, target: int, liquidity: int, amount: int, fee_pips: int, exact_in: bool
) -> tuple[int, int, int, int]:
    """One step at constant liquidity towards ``target``: √P after, in, out, fee.

    ``amount`` is what is left to be paid in, fee included, or to be taken out. The input is without
    the fee and rounds up, as does the fee; the output rounds down. Where an exact input ends before
    the target, the fee is all that the price did not take. ``target`` below or at the price sells
    token0.
    """
    zero_for_one = sqrt_price >= target
    lower, upper = (target, sqrt_price) if zero_for_one else (sqrt_price, target)
    paid, taken = (
        (amount0_between, amount1_between) if zero_for_one else (amount1_between, amount0_between)
    )
    if exact_in:
        net = amount * (PIPS - fee_pips) // PIPS
        amount_in = paid(lower, upper, liquidity, True)
        after = target
        if net < amount_in:
            after = price_after_input(sqrt_price, liquidity, net, zero_for_one)
            lower, upper = (after, sqrt_price) if zero_for_one else (sqrt_price, after)
        if after != target:
            amount_in = paid(lower, upper, liquidity, True)
            return after, amount_in, taken(lower, upper, liquidity, False), amount - amount_in
        amount_out = taken(lower, upper, liquidity, False)
    else:
        amount_out = taken(lower, upper, liquidity, False)
        after = target
        if amount < amount_out:
            after = price_after_output(sqrt_price, liquidity, amount, zero_for_one)
            lower, upper = (after, sqrt_price) if zero_for_one else (sqrt_price, after)
            if after != target:
                amount_out = min(taken(lower, upper, liquidity, False), amount)
            amount_out = min(amount_out, amount)
        amount_in = paid(lower, upper, liquidity, True)
    fee = -(-amount_in * fee_pips // (PIPS - fee_pips))
    return after, amount_in, amount_out, fee

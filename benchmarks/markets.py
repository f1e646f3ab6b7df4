"""Synthetic markets: one generator for benchmarks and property tests.

50 % constant product, 15 % concentrated (20 to 2,000 ticks, log-uniform), 15 % weighted, 10 %
stable (2 to 4 coins), 10 % order books. Token popularity follows Zipf's law, four hubs take part in
most pools, depth is lognormal, decimals go from 6 to 18. In a *clean* market every pool's price is
within its own fee of the reference prices, so nothing can be earned without an order; in a *noisy*
one it is off by 30 basis points whatever the fee.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log2

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import curves, kernels
from solver.core.pools import (
    BookPool,
    ConcentratedPool,
    ConstantProductPool,
    Level,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.pools.tick_math import tick_at
from solver.core.types import Exact, TokenId
from solver.core.venue import DeclaresArcs, Pool

CHAIN = 1
_ONE = 10**18
_FEES_BPS = (5, 30, 30, 30, 100)
_FEES_BPS_OF = {3: (1, 4), 4: (5,)}
_SPACING = {5: 10, 30: 60, 100: 200}
_NOISE = 0.003


class Market(Struct, frozen=True):
    """Pools and the true price of one base unit of each token, in USD."""

    pools: tuple[Pool, ...]
    prices: dict[TokenId, float]
    seed: int
    noisy: bool

    @property
    def hubs(self) -> list[TokenId]:
        """The most traded tokens."""
        return list(self.prices)[:4]


class Shape(Struct, frozen=True):
    """How large a market is; ``tokens`` = 0 takes a tenth of the pools."""

    pools: int
    tokens: int = 0
    noisy: bool = False
    hub_share: float = 0.6
    median_depth_usd: float = 2e5
    spread_of_depth: float = 1.8


def generate(shape: Shape, seed: int) -> Market:
    """A market; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    count = shape.tokens or max(5, shape.pools // 10)
    tokens = [TokenId(CHAIN, f"0x{k + 1:040x}") for k in range(count)]
    decimals = rng.choice([6, 8, 18], count, p=[0.15, 0.1, 0.75])
    usd = np.exp(rng.normal(0.0, 3.0, count))
    usd[0], usd[1] = 1.0, 2000.0
    price = usd / 10.0**decimals
    popularity = 1.0 / np.arange(1, count + 1)
    popularity /= popularity.sum()
    kinds = rng.choice(5, shape.pools, p=[0.5, 0.15, 0.15, 0.1, 0.1])
    pools = []
    for number, kind in enumerate(kinds):
        chosen = _tokens(rng, shape, count, popularity, _coins(rng, int(kind)))
        depth = exp(rng.normal(log(shape.median_depth_usd), shape.spread_of_depth))
        fee_bps = int(rng.choice(_FEES_BPS_OF.get(int(kind), _FEES_BPS)))
        maker = _MAKERS[kind]
        off = [_noise(rng, shape, fee_bps) for _ in chosen]
        pools.append(
            maker(
                rng,
                f"{_NAMES[kind]}:{number}",
                [tokens[t] for t in chosen],
                [float(price[t]) * exp(o) for t, o in zip(chosen, off, strict=True)],
                [int(decimals[t]) for t in chosen],
                depth,
                fee_bps,
            )
        )
    return Market(tuple(pools), dict(zip(tokens, price.tolist(), strict=True)), seed, shape.noisy)


def _coins(rng: np.random.Generator, kind: int) -> int:
    if kind == 3:
        return int(rng.choice([2, 3, 4], p=[0.5, 0.3, 0.2]))
    return int(rng.choice([2, 3, 4], p=[0.8, 0.15, 0.05])) if kind == 2 else 2


def _noise(rng: np.random.Generator, shape: Shape, fee_bps: int) -> float:
    """A token's mispricing inside a pool; two of them together stay inside a clean pool's fee."""
    width = _NOISE / 2.0 if shape.noisy else 0.45 * fee_bps / 1e4
    return float(rng.uniform(-width, width))


def _tokens(
    rng: np.random.Generator,
    shape: Shape,
    count: int,
    popularity: np.ndarray[tuple[int], np.dtype[np.float64]],
    coins: int,
) -> list[int]:
    first = int(rng.integers(0, min(4, count))) if rng.random() < shape.hub_share else None
    chosen = [] if first is None else [first]
    while len(chosen) < coins:
        pick = (
            int(rng.choice(count, p=popularity))
            if rng.random() < 0.5
            else int(rng.integers(0, count))
        )
        if pick not in chosen:
            chosen.append(pick)
    return chosen


def _product(
    rng: np.random.Generator, name: str, tokens: Sequence[TokenId], prices: Sequence[float],
    decimals: Sequence[int], depth: float, fee_bps: int,
) -> Pool:  # fmt: skip
    x, y = (max(2, int(depth / 2.0 / price)) for price in prices)
    return ConstantProductPool(
        id=name, token0=tokens[0], token1=tokens[1], reserve0=x, reserve1=y,
        fee_num=fee_bps, fee_den=10_000, gas=90_000,
    )  # fmt: skip


def _concentrated(
    rng: np.random.Generator, name: str, tokens: Sequence[TokenId], prices: Sequence[float],
    decimals: Sequence[int], depth: float, fee_bps: int,
) -> Pool:  # fmt: skip
    spacing = _SPACING[fee_bps]
    root = (prices[0] / prices[1]) ** 0.5
    sqrt_price = int(root * 2**96)
    tick = tick_at(sqrt_price)
    wanted = round(2.0 ** rng.uniform(log2(20), log2(2000)))
    # positions around the price, wide ones shallow and narrow ones deep
    base = depth / 2.0 / (prices[1] * root)
    nets: dict[int, int] = {}
    widths = np.unique(np.round(np.exp(rng.uniform(0.0, log(400.0), wanted))).astype(int))
    shifts = rng.integers(-2, 3, wanted)
    centre = tick // spacing
    for k in range(wanted // 2):
        width = int(widths[k % len(widths)]) + k // len(widths)
        low = max((centre - width + int(shifts[k])) * spacing, -880_000 // spacing * spacing)
        high = min((centre + 1 + width) * spacing, 880_000 // spacing * spacing)
        amount = int(base * 8.0 / wanted * (0.2 + rng.random()))
        if low < high and amount > 0:
            nets[low] = nets.get(low, 0) + amount
            nets[high] = nets.get(high, 0) - amount
    ticks = TickMap.of({k: v for k, v in nets.items() if v}, spacing)
    return ConcentratedPool(
        id=name, token0=tokens[0], token1=tokens[1], fee_pips=fee_bps * 100, tick_spacing=spacing,
        sqrt_price_x96=sqrt_price, tick=tick, liquidity=ticks.liquidity_at(tick), ticks=ticks,
        gas=110_000, gas_per_tick=20_000,
    )  # fmt: skip


def _weighted(
    rng: np.random.Generator, name: str, tokens: Sequence[TokenId], prices: Sequence[float],
    decimals: Sequence[int], depth: float, fee_bps: int,
) -> Pool:  # fmt: skip
    n = len(tokens)
    percent = [80, 20] if n == 2 else [100 // n] * (n - 1) + [100 - 100 // n * (n - 1)]
    return WeightedPool(
        id=name, coins=tuple(tokens),
        balances=tuple(
            max(2, int(depth * w / 100 / price)) for w, price in zip(percent, prices, strict=True)
        ),
        weights=tuple(w * _ONE // 100 for w in percent),
        scaling=tuple(10 ** (18 - d) for d in decimals), rates=(_ONE,) * n,
        fee=fee_bps * _ONE // 10_000, version=WeightedVersion.V3_PLUS, gas=120_000,
    )  # fmt: skip


def _stable(
    rng: np.random.Generator, name: str, tokens: Sequence[TokenId], prices: Sequence[float],
    decimals: Sequence[int], depth: float, fee_bps: int,
) -> Pool:  # fmt: skip
    n = len(tokens)
    # rates bring the coins to one value, so that the balanced pool trades at the prices
    per_base = [price * 10**d for price, d in zip(prices, decimals, strict=True)]
    rates = tuple(max(1, int(value * _ONE)) for value in per_base)
    scale = [1e-18 * 10 ** (18 - d) * rate for d, rate in zip(decimals, rates, strict=True)]
    share = depth / n * _ONE
    return StablePool(
        id=name, coins=tuple(tokens),
        balances=tuple(max(2, int(share / s)) for s in scale),
        amp=int(rng.choice([50, 200, 1000])) * 1000,
        scaling=tuple(10 ** (18 - d) for d in decimals), rates=rates,
        fee=fee_bps * _ONE // 10_000, version=StableVersion.BALANCER_V2, gas=180_000,
    )  # fmt: skip


def _book(
    rng: np.random.Generator, name: str, tokens: Sequence[TokenId], prices: Sequence[float],
    decimals: Sequence[int], depth: float, fee_bps: int,
) -> Pool:  # fmt: skip
    base, quote = prices
    lot = max(1, int(0.01 * depth / 1000 / base), int(1e5 * quote / base))
    middle = base / quote * lot
    bids: list[Level] = []
    asks: list[Level] = []
    for k in range(10):
        size = max(1, int(depth / 20 / (base * lot) * (0.5 + rng.random())))
        away = 0.0005 + 0.0008 * k
        bid, ask = int(middle * (1 - away)), int(middle * (1 + away)) + 1
        if bid > 0 and (not bids or bid < bids[-1].price):
            bids.append(Level(bid, size))
        if not asks or ask > asks[-1].price:
            asks.append(Level(ask, size))
    return BookPool(
        id=name, base=tokens[0], quote=tokens[1], lot_size=lot, taker_fee_bps=5,
        bids=tuple(bids), asks=tuple(asks), gas=95_000, gas_per_level=18_000,
    )  # fmt: skip


_NAMES = ("product", "ticks", "weighted", "stable", "book")
_MAKERS = (_product, _concentrated, _weighted, _stable, _book)


def move(market: Market, seed: int, share: float = 0.05) -> tuple[Market, list[Pool]]:
    """The next block: a share of the pools has traded; in a clean market each stays in its fee.

    Returns the market and the moved pools, in the order of the market.
    """
    rng = np.random.default_rng(seed)
    pools = list(market.pools)
    moved = []
    for number in np.nonzero(rng.random(len(pools)) < share)[0]:
        pool = pools[number]
        tokens = list(pool.tokens)
        i, j = rng.choice(len(tokens), 2, replace=False)
        for ends in ((i, j), (j, i)):
            after = _nudged(pool, rng, tokens[ends[0]], tokens[ends[1]])
            if after is not pool and (market.noisy or _is_clean(after, market.prices)):
                pools[number] = after
                moved.append(after)
                break
    return replace(market, pools=tuple(pools)), moved


def _is_clean(pool: Pool, prices: dict[TokenId, float]) -> bool:
    """Whether nobody gains at the true prices by a first unit in any direction."""
    assert isinstance(pool, DeclaresArcs)
    for arc in pool.arcs():
        kind, par, _ = curves.packed(curves.levels(arc)[:1])
        rate = kernels.slopes(kind, par, np.zeros(len(kind)))
        if np.any(rate * prices[arc.token_out] > prices[arc.token_in]):
            return False
    return True


def _nudged(pool: Pool, rng: np.random.Generator, token_in: TokenId, token_out: TokenId) -> Pool:
    """A small trade, a few basis points of the pool's price."""
    if isinstance(pool, BookPool):
        side = pool.bids if token_in == pool.base else pool.asks
        if not side:
            return pool
        first = Level(side[0].price, max(1, int(side[0].lots * rng.uniform(0.5, 1.5))))
        moved = (first, *side[1:])
        return replace(pool, bids=moved) if token_in == pool.base else replace(pool, asks=moved)
    if isinstance(pool, ConstantProductPool):
        size = pool.reserve0 if token_in == pool.token0 else pool.reserve1
    elif isinstance(pool, ConcentratedPool):
        worth = pool.liquidity * pool.sqrt_price_x96 / 2**96
        size = int(worth if token_in == pool.token1 else worth / (pool.sqrt_price_x96 / 2**96) ** 2)
    else:
        assert isinstance(pool, WeightedPool | StablePool)
        size = pool.balances[pool.coins.index(token_in)]
    amount = int(size * rng.uniform(0.0, 0.0003))
    step = pool.swap(token_in, token_out, amount, Exact.IN)
    return step.next_pool if step.amount_out else pool

"""Random small batches over every pool kind, as the files that ``thalweg solve`` reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from solver.core.batch import Terms
from solver.core.intent import digest_of, max_fee
from solver.core.pools import (
    BookPool,
    BufferPool,
    ConcentratedPool,
    ConstantProductPool,
    CurvePool,
    CurveVariant,
    EclpParameters,
    GyroPool,
    Level,
    LimitOrderPool,
    RoutePool,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.pools.tick_math import tick_at
from solver.core.schedule import NO_FEES, FeeSchedule
from solver.core.types import ZERO_BYTES32, Intent, Kind, Swap, Token, TokenId
from solver.core.venue import BlockRef, Pool, Quote, Snapshot
from solver.wire import instance

ONE = 10**18
SETTLEMENT = "0x" + "5e" * 20
_OWNER = "0x" + "11" * 20
# A quarter turn, prices of 0.9985 to 1.0002, stretched 4000 times.
_ELLIPSE = EclpParameters(
    c=707106781186547524,
    s=707106781186547524,
    stretch=4000 * ONE,
    tau_alpha=(-94861212813096057289512505574275160547, 31644119574235279926451292677567331630),
    tau_beta=(37142269533113549537591131345643981951, 92846388265400743995957747409218517601),
    u=66001741173104803338721745994955553010,
    v=62245253919818011890633399060291020887,
    w=30601134345582732000058913853921008022,
    z=-28859471639991253843240999485797747790,
    d_sq=99999999999999999886624093342106115200,
)


class _World:
    """Tokens with decimals and true prices, in which pools and intents are drawn."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        count = rng.randrange(3, 6)
        self.tokens = [TokenId(1, f"0x{k + 1:040x}") for k in range(count)]
        self.decimals = [rng.choice([6, 8, 18, 18, 18]) for _ in self.tokens]
        worth = [10 ** rng.uniform(-2, 3.5) for _ in self.tokens]
        self.prices = [usd / 10**k for usd, k in zip(worth, self.decimals, strict=True)]

    def amount(self, token: int, low: float, high: float) -> int:
        """Worth 10^low to 10^high dollars."""
        return int(10 ** self.rng.uniform(low, high) / self.prices[token]) + 2

    def off(self) -> float:
        """A pool's price beside the true one: mostly within a fee, now and then arbitrage."""
        return self.rng.choice([0.0, 0.0, 1.0]) * self.rng.uniform(-0.01, 0.01)


def random_instance(rng: random.Random) -> bytes:
    """One instance file: 3 to 5 tokens of 6 to 18 decimals, up to 7 pools, up to 6 intents."""
    world = _World(rng)
    count = len(world.tokens)
    pools = [_pool(world, f"pool-{k}") for k in range(rng.randrange(1, 8))]
    inventory = {}
    if rng.random() < 0.2:  # a second chain, behind a bridge and the solver's inventory
        far = TokenId(2, world.tokens[0].address)
        inventory[far] = world.amount(0, 2, 5)
        pools.append(RoutePool(id="bridge", quote=Quote(world.tokens[0], far, 5, 4, 2**100, 60)))
        world.tokens.append(far)
        world.prices.append(world.prices[0])
        world.decimals.append(world.decimals[0])
    intents, fees = [], {}
    for nonce in range(rng.randrange(1, 7)):
        ends = rng.sample(range(count), 2)
        if inventory and rng.random() < 0.4:
            ends = [0, count]
        swap = _swap(world, ends[0], ends[1], nonce)
        divided = swap.partial_fill and rng.random() < 0.2
        filled = swap.total // rng.randrange(2, 9) if divided else 0
        intent = Intent(digest_of(swap, SETTLEMENT), swap, "0x", filled)
        intents.append(intent)
        if rng.random() < 0.3:
            fees[intent.digest] = rng.randrange(max(1, max_fee(swap, intent.remaining)))
    prices = dict(zip(world.tokens, world.prices, strict=True))
    if rng.random() < 0.15:
        del prices[rng.choice(world.tokens)]
    blocks = {token.chain: BlockRef(token.chain, 1, "", 1) for token in world.tokens}
    snapshot = Snapshot(blocks, tuple(pools), prices, inventory, {}, {}, "", _seed(rng))
    impact = rng.choice([10_000] * 9 + [500])
    terms = Terms(fees, max_impact_bps=impact, schedule=_schedule(rng))
    names = [
        Token(token, f"T{k}", places)
        for k, (token, places) in enumerate(zip(world.tokens, world.decimals, strict=True))
    ]
    settlements = {token.chain: SETTLEMENT for token in world.tokens}
    document = instance.from_core(
        snapshot, intents, terms, settlements, {token.id: token for token in names}
    )
    return msgspec.json.encode(document)


def _schedule(rng: random.Random) -> FeeSchedule:
    """No fees beside gas as a rule, sometimes all kinds."""
    if rng.random() < 0.8:
        return NO_FEES
    return FeeSchedule(0.001, rng.random(), 0.01, rng.random(), 0.01, 0.0005)


def _seed(rng: random.Random) -> str:
    return "0x" + sha256(str(rng.random()).encode()).hexdigest()


def _swap(world: _World, sell: int, buy: int, nonce: int) -> Swap:
    rng = world.rng
    sold = world.amount(sell, 0.5, 4.5)
    bought = int(sold * world.prices[sell] / world.prices[buy] * rng.uniform(0.85, 1.01)) + 1
    one, two = world.tokens[sell], world.tokens[buy]
    crosses = one.chain != two.chain
    return Swap(
        owner=_OWNER,
        account=ZERO_BYTES32,
        receiver=_OWNER,
        sell_chain=one.chain,
        sell_asset="0x" + "00" * 12 + one.address[2:],
        buy_chain=two.chain,
        buy_asset="0x" + "00" * 12 + two.address[2:],
        sell_amount=sold,
        buy_amount=bought,
        kind=rng.choice([Kind.EXACT_IN, Kind.EXACT_IN, Kind.EXACT_OUT]),
        partial_fill=rng.random() < 0.6,
        nonce=nonce,
        valid_from=0,
        valid_until=2_000_000_000,
        fill_deadline=2_000_000_000 if crosses else 0,
        refund_after=2_000_001_000 if crosses else 0,
        max_fee=bought // 200,
        min_health=0,
        extension=ZERO_BYTES32,
    )


def _pool(world: _World, name: str) -> Pool:
    rng = world.rng
    kind = rng.choice(
        ["product", "product", "weighted", "stable", "curve", "ticks", "book", "limit"]
        + ["buffer", "gyro"] * (rng.random() < 0.5)
    )
    coins = rng.randrange(2, 5) if kind in ("weighted", "stable", "curve") else 2
    chosen = rng.sample(range(len(world.tokens)), min(coins, len(world.tokens)))
    depth = rng.uniform(2.5, 6)
    ids = tuple(world.tokens[k] for k in chosen)
    prices = [world.prices[k] for k in chosen]
    sizes = tuple(int(10**depth / p * (1.0 + world.off())) + 2 for p in prices)
    fee = rng.choice([0, 5, 30, 100])
    if kind == "product":
        return ConstantProductPool(
            id=name, token0=ids[0], token1=ids[1], reserve0=sizes[0], reserve1=sizes[1],
            fee_num=fee, fee_den=10_000, gas=90_000,
        )  # fmt: skip
    if kind == "weighted":
        return _weighted(rng, name, ids, sizes, fee)
    if kind in ("stable", "curve", "gyro"):
        return _pegged(world, kind, name, chosen, sizes, fee)
    if kind == "ticks":
        return _ticks(world, name, ids, prices, depth, fee)
    if kind == "book":
        return _book(world, name, ids, prices, depth)
    if kind == "limit":
        return LimitOrderPool(
            id=name, maker_token=ids[0], taker_token=ids[1], maker_amount=sizes[0],
            taker_amount=sizes[1], gas=1,
        )  # fmt: skip
    rate = max(1, int(prices[0] / prices[1] * ONE))
    return BufferPool(
        id=name, wrapped=ids[0], underlying=ids[1], rate=rate, wrapped_left=sizes[0],
        underlying_left=sizes[1], gas=1,
    )  # fmt: skip


def _weighted(
    rng: random.Random, name: str, ids: tuple[TokenId, ...], sizes: Sequence[int], fee: int
) -> Pool:
    parts = [rng.randrange(1, 9) for _ in ids]
    first = [part * ONE // sum(parts) for part in parts[1:]]
    weights = (ONE - sum(first), *first)
    return WeightedPool(
        id=name,
        coins=ids,
        balances=tuple(size * w // ONE + 10**4 for size, w in zip(sizes, weights, strict=True)),
        weights=weights,
        scaling=(1,) * len(ids),
        rates=(ONE,) * len(ids),
        fee=fee * 10**14,
        version=rng.choice([WeightedVersion.V0, WeightedVersion.V3_PLUS]),
        gas=1,
    )


def _pegged(
    world: _World, kind: str, name: str, chosen: list[int], sizes: Sequence[int], fee: int
) -> Pool:
    """Rates bring every coin to dollars, so that coins of any price are pegged to one another."""
    rng = world.rng
    ids = tuple(world.tokens[k] for k in chosen)
    scaling = tuple(10 ** (18 - world.decimals[k]) for k in chosen)
    rates = tuple(max(1, int(world.prices[k] * 10 ** world.decimals[k] * ONE)) for k in chosen)
    balances = tuple(int(size * rng.uniform(0.4, 1.6)) + 2 for size in sizes)
    amp = rng.choice([1, 20, 200, 2000])
    if kind == "gyro":
        return GyroPool(
            id=name, coins=(ids[0], ids[1]), balances=(balances[0], balances[1]),
            parameters=_ELLIPSE, scaling=(scaling[0], scaling[1]), rates=(rates[0], rates[1]),
            fee=fee * 10**14, gas=1,
        )  # fmt: skip
    if kind == "curve":
        variant = rng.choice(list(CurveVariant))
        return CurvePool(
            id=name, coins=ids, balances=balances,
            amp=amp if variant is CurveVariant.PLAIN else 100 * amp,
            rates=tuple(s * r for s, r in zip(scaling, rates, strict=True)),
            fee=fee * 10**5, variant=variant, gas=1,
        )  # fmt: skip
    return StablePool(
        id=name, coins=ids, balances=balances, amp=1000 * amp, scaling=scaling, rates=rates,
        fee=fee * 10**14, version=rng.choice(list(StableVersion)), gas=1,
    )  # fmt: skip


def _ticks(
    world: _World, name: str, ids: tuple[TokenId, ...], prices: Sequence[float], depth: float,
    fee: int,
) -> Pool:  # fmt: skip
    rng = world.rng
    root = (prices[0] / prices[1]) ** 0.5 * (1.0 + world.off())
    spacing = 60
    price = int(root * 2**96)
    tick = tick_at(price)
    nets: dict[int, int] = {}
    for _ in range(rng.randrange(1, 6)):
        low = (tick // spacing - rng.randrange(-2, 60)) * spacing
        high = low + rng.randrange(1, 90) * spacing
        amount = int(10**depth / prices[1] / root * rng.uniform(0.2, 3)) + 1
        nets[low] = nets.get(low, 0) + amount
        nets[high] = nets.get(high, 0) - amount
    ticks = TickMap.of(nets, spacing)
    return ConcentratedPool(
        id=name, token0=ids[0], token1=ids[1], fee_pips=fee * 100, tick_spacing=spacing,
        sqrt_price_x96=price, tick=tick, liquidity=ticks.liquidity_at(tick), ticks=ticks,
        gas=100_000, gas_per_tick=20_000,
    )  # fmt: skip


def _book(
    world: _World, name: str, ids: tuple[TokenId, ...], prices: Sequence[float], depth: float
) -> Pool:
    rng = world.rng
    lot = max(1, int(10 ** (depth - rng.uniform(2, 4)) / prices[0]))
    mid = lot * prices[0] / prices[1]
    bids, asks = (
        tuple(
            Level(max(1, int(mid * (1 + sign * 0.001 * (k + 1)))), rng.randrange(1, 200))
            for k in range(rng.randrange(0, 5))
        )
        for sign in (-1, 1)
    )
    return BookPool(
        id=name, base=ids[0], quote=ids[1], lot_size=lot, taker_fee_bps=5, bids=bids, asks=asks,
        gas=0, gas_per_level=0,
    )  # fmt: skip

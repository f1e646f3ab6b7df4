"""Strategies: pools of every curved kind with balances as real pools have them."""

from __future__ import annotations

from hypothesis import strategies as st

from solver.core.pools import (
    BufferPool,
    ConcentratedPool,
    CurvePool,
    CurveVariant,
    EclpParameters,
    GyroPool,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.types import TokenId

ONE = 10**18
COINS = tuple(TokenId(1, "0x" + f"{k:040x}") for k in range(1, 9))
FEES = st.sampled_from([0, 10**12, 10**14, 3 * 10**15, 10**16, 10**17])
# A quarter turn, prices of 0.9985 to 1.0002, stretched 4000 times.
ELLIPSE = EclpParameters(
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


@st.composite
def scales(draw: st.DrawFn, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    scaling = tuple(10 ** (18 - draw(st.sampled_from([6, 8, 18]))) for _ in range(count))
    rates = tuple(draw(st.sampled_from([ONE, 1238765561700857944, ONE + 1])) for _ in range(count))
    return scaling, rates


@st.composite
def weighted_pools(draw: st.DrawFn) -> WeightedPool:
    count = draw(st.integers(2, 8))
    parts = [draw(st.integers(1, 99)) for _ in range(count)]
    scaling, rates = draw(scales(count))
    return WeightedPool(
        id="weighted",
        coins=COINS[:count],
        balances=tuple(
            draw(st.integers(10**20, 10**27)) // multiplier + 10**6 for multiplier in scaling
        ),
        weights=tuple(part * ONE // sum(parts) for part in parts),
        scaling=scaling,
        rates=rates,
        fee=draw(FEES),
        version=draw(st.sampled_from(WeightedVersion)),
        gas=1,
        trade_limit=draw(st.sampled_from([ONE, ONE * 29 // 100])),
    )


@st.composite
def stable_pools(draw: st.DrawFn) -> StablePool:
    count = draw(st.integers(2, 8))
    scaling, rates = draw(scales(count))
    size = draw(st.integers(10**20, 10**26))
    return StablePool(
        id="stable",
        coins=COINS[:count],
        balances=tuple(
            size * draw(st.integers(20, 300)) // 100 // multiplier for multiplier in scaling
        ),
        amp=1000 * draw(st.sampled_from([1, 10, 100, 2000, 5000])),
        scaling=scaling,
        rates=rates,
        fee=draw(FEES),
        version=draw(st.sampled_from(StableVersion)),
        gas=1,
    )


@st.composite
def curve_pools(draw: st.DrawFn) -> CurvePool:
    pool = draw(stable_pools())
    variant = draw(st.sampled_from(CurveVariant))
    precision = 1 if variant is CurveVariant.PLAIN else 100
    return CurvePool(
        id="curve",
        coins=pool.coins,
        balances=pool.balances,
        amp=max(1, pool.amp // 1000) * precision,
        rates=tuple(s * r for s, r in zip(pool.scaling, pool.rates, strict=True)),
        fee=draw(st.sampled_from([0, 10**6, 4 * 10**6, 10**8])),
        variant=variant,
        gas=1,
    )


@st.composite
def gyro_pools(draw: st.DrawFn) -> GyroPool:
    (first, second), (rate0, rate1) = draw(scales(2))
    size = draw(st.integers(10**18, 10**25))
    return GyroPool(
        id="gyro",
        coins=(COINS[0], COINS[1]),
        balances=(
            size * draw(st.integers(1, 100)) // 100 // first + 1,
            size * draw(st.integers(1, 100)) // 100 // second + 1,
        ),
        parameters=ELLIPSE,
        scaling=(first, second),
        rates=(rate0, rate1),
        fee=draw(FEES),
        gas=1,
    )


@st.composite
def buffer_pools(draw: st.DrawFn) -> BufferPool:
    return BufferPool(
        id="buffer",
        wrapped=COINS[0],
        underlying=COINS[1],
        rate=draw(st.integers(10**6, 2 * ONE)),
        wrapped_left=draw(st.integers(0, 10**27)),
        underlying_left=draw(st.integers(0, 10**27)),
        gas=1,
    )


@st.composite
def concentrated_pools(draw: st.DrawFn) -> ConcentratedPool:
    """At the price one, inside its only position; a second one ends far away."""
    reach, liquidity = draw(st.integers(1, 50)) * 60, draw(st.integers(10**6, 10**24))
    nets = {-reach: liquidity, reach: -liquidity, 6000: 5, 6060: -5}
    return ConcentratedPool(
        id="concentrated",
        token0=COINS[0],
        token1=COINS[1],
        fee_pips=3000,
        tick_spacing=60,
        sqrt_price_x96=2**96,
        tick=0,
        liquidity=liquidity,
        ticks=TickMap.of(nets, 60),
        gas=1,
        gas_per_tick=2,
    )

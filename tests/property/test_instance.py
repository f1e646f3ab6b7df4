"""What the instance file holds comes back as it was, whatever the kind."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.core.batch import Terms
from solver.core.pools import BookPool, Level, LimitOrderPool, StablePool, StableVersion, Surge
from solver.core.venue import Pool
from solver.wire import instance
from tests.make import A, B, pair, snapshot
from tests.property.pools import (
    buffer_pools,
    concentrated_pools,
    curve_pools,
    gyro_pools,
    stable_pools,
    weighted_pools,
)

OTHERS: list[Pool] = [
    StablePool(
        id="surge",
        coins=(A, B),
        balances=(1, 2),
        amp=1000,
        scaling=(1, 1),
        rates=(1, 1),
        fee=1,
        version=StableVersion.BALANCER_V3,
        gas=1,
        surge=Surge(10**17, 5 * 10**16),
    ),
    pair("pair", A, B, 2**112, 1),
    LimitOrderPool(id="limit", maker_token=A, taker_token=B, maker_amount=5, taker_amount=7, gas=1),
    BookPool(
        id="book",
        base=A,
        quote=B,
        lot_size=10**15,
        taker_fee_bps=3,
        bids=(Level(2, 3),),
        asks=(),
        gas=1,
        gas_per_level=2,
    ),
]
POOLS = st.one_of(
    weighted_pools(),
    stable_pools(),
    curve_pools(),
    gyro_pools(),
    buffer_pools(),
    concentrated_pools(),
    st.sampled_from(OTHERS),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(POOLS, max_size=3))
def test_pools_round_trip(pools: list[Pool]) -> None:
    written = instance.from_core(snapshot(pools), (), Terms({}, 0.0), {}, {})
    text = msgspec.json.encode(written)
    read, _, warnings = instance.to_core(msgspec.json.decode(text, type=instance.Instance))
    assert warnings == ()
    assert list(read.pools) == pools
    assert instance.omitted_pools(snapshot(pools)) == []

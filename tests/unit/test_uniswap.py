"""The Uniswap adapters without a chain: conformance, wrong options, answers that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from solver.core.abi import encode_call, selector
from solver.core.pools.tick_math import sqrt_price_at
from solver.core.types import Exact, Leg
from solver.core.venue import ReadError
from tests.make import UNIT, A, B
from venues.pool_reader import ADDRESS as READER
from venues.testing import FixedReader, check_venue
from venues.uniswap_v2 import UniswapV2, V2Pair
from venues.uniswap_v3 import UniswapV3, V3Pool

POOL, SWAPPER = "0x" + "ad" * 20, "0x" + "5a" * 20
V3 = {"swapper": SWAPPER, "pools": [POOL]}


def _words(*values: int) -> str:
    return "0x" + "".join(f"{value % 2**256:064x}" for value in values)


def _ask(name: str) -> tuple[str, str]:
    return READER, encode_call("ask(address[],bytes4)", [POOL], selector(name))


def _v3_answers(state: str) -> dict[tuple[str, str], str]:
    return {
        _ask("token0()"): _words(int(A.address, 16)),
        _ask("token1()"): _words(int(B.address, 16)),
        _ask("fee()"): _words(3_000),
        _ask("tickSpacing()"): _words(60),
        (READER, encode_call("concentrated(address[],uint256)", [POOL], 1)): state,
    }


def _state(tick: int, liquidity: int, nets: dict[int, int]) -> str:
    ticks = [at << 128 | net % 2**128 for at, net in nets.items()]
    head = sqrt_price_at(tick) + 1 | tick << 160
    return _words(head, liquidity | len(nets) << 128, *ticks)


@pytest.mark.parametrize("tick", [-30_721, -90, 7, 30_719])
async def test_pools_conform_and_end_with_what_was_read(tick: int) -> None:
    """One tick was found, at the price; the position's other end is far outside of the window."""
    nets = {tick // 60 * 60 - 60: UNIT}
    venue = UniswapV3("v3", 1, V3 | {"words": 1})
    (pool,) = await check_venue(venue, FixedReader(_v3_answers(_state(tick, UNIT, nets))))
    assert isinstance(pool, V3Pool)
    word = tick // 60 // 256
    assert pool.ticks.ticks == (min(nets), (word + 2) * 256 * 60)
    huge = pool.swap(B, A, 2**100, Exact.IN)
    assert isinstance(huge.next_pool, V3Pool)
    assert 0 < huge.amount_in < 2**100
    assert huge.next_pool.liquidity == 0
    (call,) = pool.encode(_leg(pool))
    assert (call.target, call.approve) == (SWAPPER, (A.address, 1_000))


def _leg(pool: V3Pool) -> Leg:
    return Leg(pool.id, A, B, 1_000, 900, pool.gas, SWAPPER)


async def test_a_pair_conforms() -> None:
    answers = {
        _ask("token0()"): _words(int(A.address, 16)),
        _ask("token1()"): _words(int(B.address, 16)),
        (READER, encode_call("reserves(address[])", [POOL])): _words(UNIT | 3 * UNIT << 112),
    }
    venue = UniswapV2("v2", 1, {"pairs": [POOL], "fee_bps": 25})
    (pair,) = await check_venue(venue, FixedReader(answers))
    assert isinstance(pair, V2Pair)
    assert (pair.reserve0, pair.reserve1, pair.fee_num) == (UNIT, 3 * UNIT, 25)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("0x", "0 of 1"),
        ("0x12", "no words"),
        ("hello", "hello"),
        (_words(1), "cut off"),
        (_words(1, 5 << 128), "cut off"),
        (_words(2**256 - 1, 2**256 - 1), "2 of 1"),
        (_words(2**256 - 1), "no Uniswap v3 pool"),
    ],
)
async def test_answers_without_sense_are_read_errors(state: str, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        await UniswapV3("v3", 1, V3 | {"words": 1}).pools(FixedReader(_v3_answers(state)))


async def test_a_pool_that_contradicts_itself_is_named() -> None:
    state = _words(sqrt_price_at(100) + 1, UNIT)  # the tick is said to be 0
    with pytest.raises(ValueError, match=f"{POOL}: tick 0 is not"):
        await UniswapV3("v3", 1, V3 | {"words": 1}).pools(FixedReader(_v3_answers(state)))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (UniswapV2, {}, "exactly one of pairs and factory"),
        (UniswapV2, {"pairs": [POOL], "factory": POOL}, "exactly one"),
        (UniswapV2, {"pairs": []}, "pairs must be a list"),
        (UniswapV2, {"pairs": [POOL], "fee_bps": 10_000}, "fee_bps"),
        (UniswapV2, {"factory": POOL, "max_pairs": 0}, "max_pairs"),
        (UniswapV2, {"pairs": [POOL], "router": POOL}, "unknown option"),
        (UniswapV2, {"factory": POOL, "tokens": [POOL]}, "two tokens"),
        (UniswapV3, {"pools": [POOL]}, "swapper"),
        (UniswapV3, {"swapper": POOL}, "exactly one of pools and factory"),
        (UniswapV3, {"swapper": POOL, "factory": POOL}, "tokens must be a list"),
        (UniswapV3, {"swapper": POOL, "factory": POOL, "tokens": [POOL]}, "two tokens"),
        (
            UniswapV3,
            {"swapper": POOL, "factory": POOL, "tokens": [POOL, SWAPPER], "fees": "30"},
            "fees must be a list",
        ),
        (UniswapV3, V3 | {"words": -1}, "words"),
        (UniswapV3, V3 | {"words": True}, "words"),
    ],
)
def test_wrong_options_are_named(kind: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind("name", 1, options)

"""The questions that a solver's process answers before anybody's: they compile the kernels.

Machine code is made at the first use of a function and kept on disk. Compiling takes longer than a
batch may, and a process that is killed for it would begin again at the next batch. So the market
here has every kind of pool and prices that are off, and its orders are of every kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from solver.core import nearby
from solver.core.batch import Terms
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
from solver.core.types import ZERO_BYTES32, Call, Exact, Intent, Kind, Leg, Swap, TokenId
from solver.core.venue import Pool, Snapshot, Step

Question = tuple[Snapshot, tuple[Intent, ...], Terms]
_UNIT = 10**18
_ONE = 10**18  # of the pools' fixed point
_GAS = 100_000
_GAS_VALUE = 1e-8  # a swap costs 0.001 of the numeraire
_TOKENS = tuple(TokenId(1, f"0x{number + 1:040x}") for number in range(24))
_PAIRS = 120
_CHAIN = 6


def questions() -> Iterator[Question]:
    """Sales whole, partial and large, an exact purchase, two orders, two orders of a large market
    for different coins of one pool; with gas and without.

    Between the ends of the chain labels see only the poor direct pair, and in the broken chain
    nothing at all: the rest is found by prices, and hop by hop.
    """
    market, chain = _snapshot(_market()), _snapshot(_chain())
    broken = _snapshot(_chain()[1:])
    pair = _snapshot([_pair("pair", _TOKENS[0], _TOKENS[1], 100, 1.0)])
    one_pool = _snapshot(_one_pool())
    first, second, last = _TOKENS[0], _TOKENS[1], _TOKENS[_CHAIN]
    whole = _order(0, first, second, _UNIT)
    for terms in (Terms(), Terms(gas_value=_GAS_VALUE)):
        yield market, (whole,), terms
        yield market, (_order(1, first, second, 200 * _UNIT),), terms
        yield market, (_order(2, first, second, _UNIT, partial=True),), terms
        yield market, (_order(3, first, second, _UNIT, kind=Kind.EXACT_OUT),), terms
        yield chain, (_order(4, first, last, _UNIT),), terms
        yield broken, (_order(5, first, last, _UNIT),), terms
        yield pair, (whole, _order(6, first, second, _UNIT, partial=True)), terms
        yield one_pool, (whole, _order(7, first, _TOKENS[2], _UNIT)), terms


def _snapshot(pools: Sequence[Pool]) -> Snapshot:
    return Snapshot({}, tuple(pools), dict.fromkeys(_TOKENS, 1.0 / _UNIT), {}, {}, {})


def _market() -> list[Pool]:
    """Pairs that disagree by some per cent, so that more than one round is needed."""
    chance = random.Random(1)
    pools: list[Pool] = []
    for number in range(_PAIRS):
        first, second = _TOKENS[:2] if number < 4 else chance.sample(_TOKENS, 2)
        pools.append(
            _pair(
                f"pair{number}",
                first,
                second,
                chance.randint(50, 5_000),
                chance.uniform(0.93, 1.07),
            )
        )
    coins, half = (_TOKENS[0], _TOKENS[1], _TOKENS[2]), 5_000 * _UNIT
    pools += [_weighted("weighted", coins), _stable("stable", coins), _stable("two", coins[:2])]
    pools.append(
        ConcentratedPool(
            id="ticks",
            token0=coins[0],
            token1=coins[1],
            fee_pips=500,
            tick_spacing=10,
            sqrt_price_x96=2**96,
            tick=0,
            liquidity=2 * half,
            ticks=TickMap.of(
                {
                    -600: 5_000 * _UNIT,
                    -100: 5_000 * _UNIT,
                    100: -5_000 * _UNIT,
                    600: -5_000 * _UNIT,
                },
                10,
            ),
            gas=_GAS,
            gas_per_tick=_GAS // 10,
        )
    )
    pools.append(
        BookPool(
            id="book",
            base=coins[0],
            quote=coins[1],
            lot_size=_UNIT // 10,
            taker_fee_bps=2,
            bids=tuple(Level(_UNIT // 10 * price // 1_000, 5) for price in (1_004, 1_002, 999)),
            asks=tuple(Level(_UNIT // 10 * price // 1_000, 5) for price in (1_006, 1_009)),
            gas=_GAS,
            gas_per_level=_GAS // 10,
        )
    )
    pools.append(_Sampled(_pair("sampled", coins[0], coins[1], 300, 1.01)))
    return pools


def _chain() -> list[Pool]:
    """A poor direct pair, and links that give more, each a pair and a pool of three coins."""
    pools: list[Pool] = [_pair("direct", _TOKENS[0], _TOKENS[_CHAIN], 1_000, 0.7)]
    for number, ends in enumerate(pairwise(_TOKENS[: _CHAIN + 1])):
        pools.append(_pair(f"link{number}", *ends, 1_000, 1.0))
        pools.append(_weighted(f"joint{number}", (*ends, _TOKENS[_CHAIN + 1 + number])))
    return pools


def _one_pool() -> list[Pool]:
    """Three coins in one pool, and so many other pairs that the market is a large one."""
    pools = [
        _pair(f"other{number}", _TOKENS[3], _TOKENS[4], 1_000, 1.0) for number in range(nearby.MANY)
    ]
    return [*pools, _weighted("coins", (_TOKENS[0], _TOKENS[1], _TOKENS[2]))]


def _weighted(name: str, coins: tuple[TokenId, TokenId, TokenId]) -> Pool:
    return WeightedPool(
        id=name,
        coins=coins,
        balances=(1_000 * _UNIT, 1_020 * _UNIT, 2_000 * _UNIT),
        weights=(_ONE // 4, _ONE // 4, _ONE // 2),
        scaling=(1,) * len(coins),
        rates=(_ONE,) * len(coins),
        fee=_ONE // 1_000,
        version=WeightedVersion.V0,
        gas=_GAS,
    )


def _stable(name: str, coins: tuple[TokenId, ...]) -> Pool:
    return StablePool(
        id=name,
        coins=coins,
        balances=(1_000 * _UNIT, 1_500 * _UNIT, 900 * _UNIT)[: len(coins)],
        amp=200_000,
        scaling=(1,) * len(coins),
        rates=(_ONE,) * len(coins),
        fee=_ONE // 2_000,
        version=StableVersion.BALANCER_V2,
        gas=_GAS,
    )


def _pair(name: str, token0: TokenId, token1: TokenId, depth: int, price: float) -> Pool:
    return ConstantProductPool(
        id=name,
        token0=token0,
        token1=token1,
        reserve0=depth * _UNIT,
        reserve1=int(depth * price * 1_000) * _UNIT // 1_000,
        fee_num=3,
        fee_den=1_000,
        gas=_GAS,
    )


class _Sampled(Struct, frozen=True):
    """A pair that declares no arcs."""

    pair: Pool

    @property
    def id(self) -> str:
        return self.pair.id

    @property
    def tokens(self) -> tuple[TokenId, ...]:
        return self.pair.tokens

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        step = self.pair.swap(token_in, token_out, amount, exact)
        return replace(step, next_pool=_Sampled(step.next_pool))

    def encode(self, leg: Leg) -> Sequence[Call]:
        return self.pair.encode(leg)


def _order(
    number: int,
    sold: TokenId,
    bought: TokenId,
    amount: int,
    partial: bool = False,
    kind: Kind = Kind.EXACT_IN,
) -> Intent:
    owner = "0x" + "01" * 20
    exact_in = kind is Kind.EXACT_IN
    swap = Swap(
        owner=owner,
        account=ZERO_BYTES32,
        receiver=owner,
        sell_chain=sold.chain,
        sell_asset="0x" + sold.address[2:].rjust(64, "0"),
        buy_chain=bought.chain,
        buy_asset="0x" + bought.address[2:].rjust(64, "0"),
        sell_amount=amount if exact_in else 2 * amount,
        buy_amount=amount // 2 if exact_in else amount,
        kind=kind,
        partial_fill=partial,
        nonce=number,
        valid_from=0,
        valid_until=0,
        fill_deadline=0,
        refund_after=0,
        max_fee=0,
        min_health=0,
        extension=ZERO_BYTES32,
    )
    return Intent(f"0x{number:064x}", swap, "0x")

"""The unmodified Uniswap v2 and v3 contracts: what our pools quote is what they do, to the unit."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import requests
from eth_utils.address import to_checksum_address
from web3.contract.contract import Contract

from solver.chain import Chain as RpcChain
from solver.chain import PinnedReader, Rpc
from solver.core.abi import selector
from solver.core.crypto import keccak
from solver.core.pools.tick_math import MAX_SQRT_PRICE, MIN_SQRT_PRICE, sqrt_price_at
from solver.core.types import ZERO_ADDRESS, Call, Exact, JsonObject, Leg, TokenId
from solver.core.venue import BlockRef, EventLog, Reader, ReadError, Step
from tests.chain.evm import (
    ROOT,
    Actor,
    Chain,
    World,
    anvil,
    asset,
    build_world,
    call,
    events,
    lower,
    refusal,
)
from venues.testing import check_pool
from venues.uniswap_v2 import UniswapV2, V2Pair
from venues.uniswap_v3 import UniswapV3, V3Pool

CHAIN = 31_337
PACKAGES = ROOT / "node_modules" / "@uniswap"
TIERS = ((100, 1), (500, 10), (3_000, 60), (10_000, 200))  # fee in pips, tick spacing
WHOLE = 4_000  # words of the bitmap on each side: all of any pool


def package_artifact(path: str) -> JsonObject:
    """An artifact as Uniswap published it."""
    loaded: JsonObject = json.loads((PACKAGES / path).read_text(encoding="utf-8"))
    return loaded


V3 = "v3-core/artifacts/contracts/{0}.sol/{0}.json"
V2 = "v2-core/build/{0}.json"


@dataclass
class Uniswap:
    """Both factories with pools of the world's two tokens, and hands to work them."""

    world: World
    factory2: Contract
    factory3: Contract
    trader: Contract
    swapper: Contract
    pools: dict[int, Contract] = field(default_factory=dict)  # by fee

    @property
    def ids(self) -> tuple[TokenId, TokenId]:
        """The tokens as pools know them."""
        first, second = self.tokens
        return self.id_of(first), self.id_of(second)

    @property
    def tokens(self) -> tuple[Contract, Contract]:
        """In the contracts' order."""
        first, second = sorted((self.world.sell, self.world.buy), key=lower)
        return first, second

    def id_of(self, token: Contract) -> TokenId:
        return TokenId(self.world.chain.id, lower(token))

    def open(self, fee: int, tick: int) -> Contract:
        """A new pool at the price of a tick."""
        world, tokens = self.world, [token.address for token in self.tokens]
        world.chain.send(self.factory3, "createPool", *tokens, fee, sender=world.admin)
        address = world.chain.view(self.factory3, "getPool", *tokens, fee)
        abi = package_artifact(V3.format("UniswapV3Pool"))["abi"]
        pool = world.chain.w3.eth.contract(to_checksum_address(address), abi=abi)
        world.chain.send(pool, "initialize", sqrt_price_at(tick) + 1, sender=world.admin)
        self.pools[fee] = pool
        return pool

    def provide(self, pool: Contract, lower_tick: int, upper_tick: int, liquidity: int) -> None:
        """One position."""
        args = (pool.address, lower_tick, upper_tick, liquidity)
        self.world.chain.send(self.trader, "mint", *args, sender=self.world.admin)

    def venue3(self, **options: object) -> UniswapV3:
        """The adapter on all pools."""
        pools = [pool.address for pool in self.pools.values()]
        given = {"swapper": lower(self.swapper), "pools": pools, "words": WHOLE} | options
        return UniswapV3("v3", self.world.chain.id, given)


def build(chain: Chain) -> Uniswap:
    """Deploy the published artifacts; the trader holds 10⁶⁰ of both tokens."""
    world = build_world(chain)
    admin = world.admin
    uniswap = Uniswap(
        world=world,
        factory2=chain.deploy_code(
            "factory", package_artifact(V2.format("UniswapV2Factory")), admin.address, sender=admin
        ),
        factory3=chain.deploy_code(
            "factory", package_artifact(V3.format("UniswapV3Factory")), sender=admin
        ),
        trader=chain.deploy("MockTrader", sender=admin),
        swapper=chain.deploy("V3Swapper", sender=admin),
    )
    chain.send(uniswap.factory3, "enableFeeAmount", 100, 1, sender=admin)
    for token in uniswap.tokens:
        chain.send(token, "mint", uniswap.trader.address, 10**60, sender=admin)
    return uniswap


@pytest.fixture(scope="module")
def deployed() -> Iterator[Uniswap]:
    with anvil(CHAIN) as chain:
        uniswap = build(chain)
        rng = random.Random(3)
        for fee, spacing in TIERS:
            pool = uniswap.open(fee, rng.randint(-500, 500))
            last = 887_272 // spacing
            uniswap.provide(pool, -last * spacing, last * spacing, 10**15)
            for _ in range(12):  # where the price is, up to some words of the bitmap away
                reach = rng.choice((10, 100, 800))
                low = rng.randint(-reach, reach - 1)
                high = rng.randint(low + 1, reach)
                size = int(10 ** rng.uniform(14, 19))
                uniswap.provide(pool, low * spacing, high * spacing, size)
        yield uniswap


@pytest.fixture
def uniswap(deployed: Uniswap) -> Iterator[Uniswap]:
    with deployed.world.chain.rewound():
        yield deployed


@asynccontextmanager
async def reading(chain: Chain) -> AsyncIterator[PinnedReader]:
    """A reader of the daemon, pinned to the latest block."""
    url = str(chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]  # an HTTPProvider
    async with aiohttp.ClientSession() as session:
        yield await RpcChain(chain.id, Rpc(url, session, 30.0)).reader()


class Counting:
    """A reader that remembers which functions of the pool reader were called."""

    def __init__(self, reader: Reader) -> None:
        self.block: BlockRef = reader.block
        self.selectors: list[str] = []
        self._reader = reader

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        assert code is not None
        self.selectors += [data[:10] for _, data in calls]
        return await self._reader.call(calls, code)

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        raise AssertionError("no events are needed")

    def count(self, signature: str) -> int:
        return self.selectors.count("0x" + selector(signature).hex())


CONCENTRATED = "concentrated(address[],uint256)"


async def read_v3(uniswap: Uniswap, **options: object) -> dict[str, V3Pool]:
    """The adapter's pools by address."""
    async with reading(uniswap.world.chain) as reader:
        found = await uniswap.venue3(**options).pools(reader)
    return {pool.address: pool for pool in found if isinstance(pool, V3Pool)}


# --- v3 -----------------------------------------------------------------------------------------


def executed(uniswap: Uniswap, pool: Contract, amounts: tuple[bool, int, int]) -> dict[str, Any]:
    """What the pool's event says about a swap with these arguments."""
    trade = (uniswap.trader, "swap", pool.address, *amounts)
    receipt = uniswap.world.chain.send(*trade, sender=uniswap.world.admin)
    (event,) = events(pool, receipt, "Swap")
    return event


async def test_quotes_are_what_the_contract_does(uniswap: Uniswap) -> None:
    """Random swaps, one after another on each pool, each from the state that ours ended in."""
    rng = random.Random(11)
    states = await read_v3(uniswap)
    tokens = uniswap.ids
    ticks = edges = partial = 0
    swaps = dict.fromkeys(Exact, 0)
    for fee, spacing in TIERS:
        contract = uniswap.pools[fee]
        pool = states[lower(contract)]
        for _ in range(40):
            down = rng.random() < (0.8 if pool.tick > 0 else 0.2)
            token_in, token_out = tokens if down else tokens[::-1]
            exact = rng.choice(list(Exact))
            amount = int(10 ** rng.uniform(3, 19))
            limit = MIN_SQRT_PRICE + 1 if down else MAX_SQRT_PRICE - 1
            step: Step
            # With spacing 1 a swap to the end of all prices needs more gas than a block has.
            if spacing == 1 or rng.random() < 0.4:
                target = pool.tick - rng.randint(1, 2_000) * (1 if down else -1) * spacing // 2
                limit = sqrt_price_at(max(min(target, 80_000), -80_000)) + rng.randint(0, 10**9)
                if (limit >= pool.sqrt_price_x96) == down:
                    continue
                amount *= 10**3
                step = pool.swap_to(token_in, amount, exact, limit)
            else:
                step = pool.swap(token_in, token_out, amount, exact)
                if step.amount_out == 0:
                    continue
            signed = amount if exact is Exact.IN else -amount
            event = executed(uniswap, contract, (down, signed, limit))
            moved = (step.amount_in, -step.amount_out)
            assert (event["amount0"], event["amount1"]) == (moved if down else moved[::-1])
            after = step.next_pool
            assert isinstance(after, V3Pool)
            assert after.sqrt_price_x96 == event["sqrtPriceX96"]
            assert (after.tick, after.liquidity) == (event["tick"], event["liquidity"])
            ticks += (step.gas - pool.gas) // pool.gas_per_tick
            words = (after.tick // spacing >> 8) - (pool.tick // spacing >> 8)
            edges += abs(words)
            partial += (step.amount_in if exact is Exact.IN else step.amount_out) < amount
            swaps[exact] += 1
            pool = after
        fresh = await read_v3(uniswap)
        assert fresh[lower(contract)] == pool  # the state itself, ticks included
    assert ticks >= 100
    assert edges >= 100
    assert partial >= 10
    assert min(swaps.values()) >= 50


async def test_a_window_of_ticks_is_exact_inside_and_saturates_at_its_ends(
    uniswap: Uniswap,
) -> None:
    """With few words of the bitmap read, a swap is the contract's until it reaches the end."""
    rng = random.Random(12)
    tokens = uniswap.ids
    whole = await read_v3(uniswap)
    inside = 0
    for words in (0, 1, 2):
        for address, pool in (await read_v3(uniswap, words=words)).items():
            assert len(pool.ticks.ticks) <= len(whole[address].ticks.ticks) + 2
            check_pool(pool, samples=8)
            for _ in range(10):
                sold, bought = tokens[:: rng.choice((1, -1))]
                amount = int(10 ** rng.uniform(10, 17))
                ours, full = (
                    state.swap(sold, bought, amount, Exact.IN) for state in (pool, whole[address])
                )
                assert ours.amount_in <= amount
                if ours.amount_in == amount:
                    assert (ours.amount_out, ours.gas) == (full.amount_out, full.gas)
                    inside += 1
    assert inside >= 50


async def test_unchanged_ticks_are_the_same_object_in_the_next_block(uniswap: Uniswap) -> None:
    venue = uniswap.venue3()
    async with reading(uniswap.world.chain) as reader:
        before = await venue.pools(reader)
    moved, grown = list(uniswap.pools.values())[1:3]
    executed(uniswap, moved, (True, 10**9, MIN_SQRT_PRICE + 1))
    uniswap.provide(grown, -60, 60, 10**15)
    async with reading(uniswap.world.chain) as reader:
        after = await venue.pools(reader)
    for one, two in zip(before, after, strict=True):
        assert isinstance(one, V3Pool) and isinstance(two, V3Pool)
        assert (one == two) == (one.address not in (lower(moved), lower(grown)))
        assert (one.ticks is two.ticks) == (one.address != lower(grown))


async def test_pools_are_found_through_the_factory(uniswap: Uniswap) -> None:
    tokens = [token.address for token in uniswap.tokens]
    stranger = "0x" + "12" * 20
    options: dict[str, object] = {
        "swapper": lower(uniswap.swapper),
        "factory": uniswap.factory3.address,
        "tokens": [*tokens, stranger],
        "fees": [100, 500, 2_500, 3_000],
    }
    venue = UniswapV3("v3", CHAIN, options)
    async with reading(uniswap.world.chain) as reader:
        found = await venue.pools(reader)
    wanted = {f"v3:{CHAIN}:{lower(uniswap.pools[fee])}" for fee in (100, 500, 3_000)}
    assert {pool.id for pool in found} == wanted
    # A pool that has no price yet is left out; one that is no pool is named.
    uniswap.world.chain.send(uniswap.factory3, "enableFeeAmount", 2_500, 50, sender=admin(uniswap))
    uniswap.world.chain.send(uniswap.factory3, "createPool", *tokens, 2_500, sender=admin(uniswap))
    async with reading(uniswap.world.chain) as reader:
        assert len(await venue.pools(reader)) == 3
        for wrong in (lower(uniswap.factory3), tokens[0], stranger):
            with pytest.raises(ReadError, match=f"{wrong.lower()} is no Uniswap v3 pool"):
                await uniswap.venue3(pools=[wrong]).pools(reader)
        with pytest.raises(ReadError, match="no factory"):
            await UniswapV3("v3", CHAIN, options | {"factory": stranger}).pools(reader)


def admin(uniswap: Uniswap) -> Actor:
    return uniswap.world.admin


# --- v3 through the settlement ------------------------------------------------------------------


def interaction(done: Call) -> tuple[Any, ...]:
    """A call of a pool as an interaction of a bundle."""
    assert done.approve is not None
    token, amount = done.approve
    return (
        to_checksum_address(done.target),
        bytes.fromhex(done.data[2:]),
        to_checksum_address(token),
        amount,
    )


async def test_a_bundle_executes_through_the_swapper(uniswap: Uniswap) -> None:
    """Alice's order is filled by two pools in both directions of the pair; nothing is left over."""
    world = uniswap.world
    ends = (uniswap.id_of(world.sell), uniswap.id_of(world.buy))
    world.fund(world.buy, world.alice, 10**24, world.holder)
    for sold, bought in (ends, ends[::-1]):
        states = await read_v3(uniswap)
        interactions, total, amount = [], 0, 10**12
        for fee in (500, 3_000):
            pool = states[lower(uniswap.pools[fee])]
            step = pool.swap(sold, bought, amount, Exact.IN)
            leg = Leg(
                pool.id, sold, bought, amount, step.amount_out, step.gas, lower(world.settlement)
            )
            (made,) = pool.encode(leg)
            interactions.append(interaction(made))
            total += step.amount_out
        swap = world.order(
            sell_asset=asset(sold.address),
            buy_asset=asset(bought.address),
            sell_amount=2 * amount,
            buy_amount=total,
        )
        before = balances(uniswap, world.alice)
        world.settle(trades=[world.trade(swap, 2 * amount, total)], interactions=interactions)
        change = [
            now - was for now, was in zip(balances(uniswap, world.alice), before, strict=True)
        ]
        gained = {world.sell: -2 * amount, world.buy: total}
        if sold != ends[0]:
            gained = {world.sell: total, world.buy: -2 * amount}
        assert change == [gained[token] for token in uniswap.tokens]
        for holder in (uniswap.swapper, world.settlement):
            assert balances(uniswap, holder) == [0, 0]
        for token in uniswap.tokens:
            assert world.allowance(token, world.settlement, uniswap.swapper) == 0


def balances(uniswap: Uniswap, who: Actor | Contract) -> list[int]:
    return [uniswap.world.balance(token, who) for token in uniswap.tokens]


async def test_the_swapper_keeps_nothing_and_gas_is_as_stated(uniswap: Uniswap) -> None:
    """Anybody may use it for himself; what a pool cannot take stays with the caller."""
    world, chain = uniswap.world, uniswap.world.chain
    rng = random.Random(13)
    states = await read_v3(uniswap)
    for token in uniswap.tokens:
        world.fund(token, world.bob, 10**30, uniswap.swapper)
    before = balances(uniswap, world.bob)
    for fee, spacing in TIERS[1:]:
        pool = states[lower(uniswap.pools[fee])]
        for turn in range(8):
            down = turn % 2 == 0
            sold, bought = uniswap.tokens[:: 1 if down else -1]
            amount = int(10 ** rng.uniform(8, 17)) if turn < 7 else 10**26
            ends = (uniswap.id_of(sold), uniswap.id_of(bought))
            step = pool.swap(*ends, amount, Exact.IN)
            address = to_checksum_address(pool.address)
            args = (address, sold.address, bought.address, amount)
            short = chain.refused(
                uniswap.swapper, "swap", *args, step.amount_out + 1, world.bob.address,
                sender=world.bob,
            )  # fmt: skip
            least = (step.amount_out, step.amount_out + 1)
            assert short == refusal("TooLittleReceived", *least)
            receipt = chain.send(
                uniswap.swapper, "swap", *args, step.amount_out, world.bob.address,
                sender=world.bob,
            )  # fmt: skip
            after = step.next_pool
            assert isinstance(after, V3Pool)
            if after.tick // spacing >> 8 == pool.tick // spacing >> 8:
                # Each edge of a word costs gas as well, which is not stated. 21,000 and calldata
                # are the transaction's; the settlement's approvals come on top.
                assert 0.5 * step.gas < receipt["gasUsed"] - 23_000 < 1.1 * step.gas
            moved = (-step.amount_in, step.amount_out)
            now = balances(uniswap, world.bob)
            change = [new - old for new, old in zip(now, before, strict=True)]
            assert change == list(moved if down else moved[::-1])
            assert balances(uniswap, uniswap.swapper) == [0, 0]
            before, pool = now, after


@pytest.fixture
def hostile(uniswap: Uniswap) -> Contract:
    """A false pool; Bob has approved all he holds to the swapper."""
    world, (_, bought) = uniswap.world, uniswap.tokens
    pool = world.chain.deploy("HostilePool", bought.address, sender=world.mallory)
    for token in uniswap.tokens:
        world.fund(token, world.bob, 10**6, uniswap.swapper)
    world.chain.send(bought, "mint", pool.address, 10**6, sender=world.admin)
    return pool


def test_a_false_pool_takes_no_more_than_was_offered(uniswap: Uniswap, hostile: Contract) -> None:
    world, (sold, bought) = uniswap.world, uniswap.tokens
    swapper, bob = uniswap.swapper, world.bob

    def swap(least: int) -> tuple[Any, ...]:
        tokens = (sold.address, bought.address)
        return (swapper, "swap", hostile.address, *tokens, 1_000, least, bob.address)

    def plan(asked: int, times: int, paid: int, both: bool = False) -> None:
        world.chain.send(hostile, "plan", asked, times, paid, both, sender=world.mallory)

    # No time but the swap's own, nobody but its pool, once, and never another one's tokens.
    stranger = refusal("NotTheExpectedPool", lower(hostile))
    plan(1, 1, 0)
    again = (hostile, "again", swapper.address)
    assert world.chain.refused(*again, sender=world.mallory) == stranger
    callback = (swapper, "uniswapV3SwapCallback", 1, 0, b"")
    mallory = refusal("NotTheExpectedPool", lower(world.mallory))
    assert world.chain.refused(*callback, sender=world.mallory) == mallory
    for asked, times, paid, both, least, reason in (
        (1_001, 1, 500, False, 500, refusal("TooMuchAsked", 1_001, 1_000)),
        (500, 2, 500, False, 500, stranger),
        (1_000, 1, 499, False, 500, refusal("TooLittleReceived", 499, 500)),
        (0, 0, 0, False, 1, refusal("TooLittleReceived", 0, 1)),
    ):
        plan(asked, times, paid, both)
        assert world.chain.refused(*swap(least), sender=bob) == reason
        assert balances(uniswap, bob) == [10**6, 10**6]
    plan(900, 1, 500, both=True)  # both sides at once: still only the offered token, once
    world.chain.send(*swap(500), sender=bob)
    assert balances(uniswap, bob) == [10**6 - 900, 10**6 + 500]
    assert balances(uniswap, swapper) == [0, 0]
    too_much = (*swap(0)[:5], 2**255, 0, bob.address)
    assert world.chain.refused(*too_much, sender=bob) == refusal("TooMuchAsked", 2**255, 2**255 - 1)


def test_a_pool_that_did_not_call_back_may_not_do_so_later(
    uniswap: Uniswap, hostile: Contract
) -> None:
    """In one transaction, while an approval of the settlement would still stand."""
    world, (sold, bought) = uniswap.world, uniswap.tokens
    swapper = uniswap.swapper
    world.chain.send(hostile, "plan", 10, 0, 5, False, sender=world.mallory)
    args = (hostile.address, sold.address, bought.address, 1_000, 5, world.settlement.address)
    swap = call(swapper, "swap", *args, approve=(sold, 1_000))
    late = call(hostile, "again", swapper.address)
    refused = world.refuse(interactions=[swap, late])
    assert refused == refusal("NotTheExpectedPool", lower(hostile))
    world.settle(interactions=[swap])


# --- v2 -----------------------------------------------------------------------------------------


def open_pair(uniswap: Uniswap, reserves: tuple[int, int]) -> Contract:
    """The factory's pair of the two tokens with these reserves."""
    world, tokens = uniswap.world, [token.address for token in uniswap.tokens]
    world.chain.send(uniswap.factory2, "createPair", *tokens, sender=world.admin)
    address = world.chain.view(uniswap.factory2, "getPair", *tokens)
    abi = package_artifact(V2.format("UniswapV2Pair"))["abi"]
    pair = world.chain.w3.eth.contract(to_checksum_address(address), abi=abi)
    for token, amount in zip(uniswap.tokens, reserves, strict=True):
        world.chain.send(token, "mint", pair.address, amount, sender=world.admin)
    world.chain.send(pair, "mint", world.admin.address, sender=world.admin)
    return pair


async def read_v2(uniswap: Uniswap, **options: object) -> list[V2Pair]:
    venue = UniswapV2("v2", CHAIN, options)
    async with reading(uniswap.world.chain) as reader:
        return [pool for pool in await venue.pools(reader) if isinstance(pool, V2Pair)]


async def test_pairs_do_what_they_quote_and_no_unit_more(uniswap: Uniswap) -> None:
    world, rng = uniswap.world, random.Random(14)
    contract = open_pair(uniswap, (10**12, 3 * 10**15))
    (pair,) = await read_v2(uniswap, pairs=[contract.address])
    for turn in range(30):
        ends = uniswap.ids[:: rng.choice((1, -1))]
        sold = next(token for token in uniswap.tokens if uniswap.id_of(token) == ends[0])
        if turn % 2:
            step = pair.swap(ends[0], ends[1], int(10 ** rng.uniform(5, 13)), Exact.IN)
        else:
            step = pair.swap(ends[0], ends[1], int(10 ** rng.uniform(5, 11)), Exact.OUT)
        assert step.amount_out > 0
        world.chain.send(sold, "mint", contract.address, step.amount_in, sender=world.admin)
        leg = Leg(
            pair.id, ends[0], ends[1], step.amount_in, step.amount_out, step.gas, lower(world.bob)
        )
        pay, take = pair.encode(leg)
        assert (pay.target, take.target) == (ends[0].address, pair.address)
        forward = ends[0] == pair.token0
        more = (0, step.amount_out + 1) if forward else (step.amount_out + 1, 0)
        if turn % 2:
            refused = world.chain.refused(
                contract, "swap", *more, world.bob.address, b"", sender=world.admin
            )
            assert refused == refusal("Error", "UniswapV2: K")
        before = balances(uniswap, world.bob)
        outputs = (0, step.amount_out) if forward else (step.amount_out, 0)
        swap = (contract, "swap", *outputs, world.bob.address, b"")
        world.chain.send(*swap, sender=world.admin)
        change = [n - b for n, b in zip(balances(uniswap, world.bob), before, strict=True)]
        assert change == list(outputs)
        assert isinstance(step.next_pool, V2Pair)
        pair = step.next_pool
    assert await read_v2(uniswap, pairs=[contract.address]) == [pair]
    check_pool(pair)


async def test_a_bundle_executes_through_a_pair(uniswap: Uniswap) -> None:
    world = uniswap.world
    contract = open_pair(uniswap, (10**12, 3 * 10**15))
    (pair,) = await read_v2(uniswap, pairs=[contract.address])
    ends = (uniswap.id_of(world.sell), uniswap.id_of(world.buy))
    step = pair.swap(*ends, 10**9, Exact.IN)
    leg = Leg(pair.id, *ends, 10**9, step.amount_out, step.gas, lower(world.settlement))
    calls = [
        (to_checksum_address(made.target), bytes.fromhex(made.data[2:]), ZERO_ADDRESS, 0)
        for made in pair.encode(leg)
    ]
    swap = world.order(sell_amount=10**9, buy_amount=step.amount_out)
    world.settle(trades=[world.trade(swap, 10**9, step.amount_out)], interactions=calls)
    assert world.balance(world.buy, world.alice) == step.amount_out
    assert await read_v2(uniswap, pairs=[contract.address]) == [step.next_pool]


async def test_pairs_are_found_through_the_factory(uniswap: Uniswap) -> None:
    factory = lower(uniswap.factory2)
    assert await read_v2(uniswap, factory=factory) == []
    contract = open_pair(uniswap, (10**9, 10**9))
    tokens = [token.address for token in uniswap.tokens]
    by_address = await read_v2(uniswap, pairs=[contract.address, lower(contract)])
    assert len(by_address) == 1
    assert await read_v2(uniswap, factory=factory) == by_address
    assert await read_v2(uniswap, factory=factory, tokens=[*tokens, factory]) == by_address
    other = uniswap.world.chain.deploy("TestToken", "C", "C", 18, sender=admin(uniswap))
    create = (uniswap.factory2, "createPair", other.address, tokens[0])
    uniswap.world.chain.send(*create, sender=admin(uniswap))
    assert len(await read_v2(uniswap, factory=factory)) == 2  # the new one is empty
    with pytest.raises(ReadError, match="lists 2 pairs, max_pairs is 1"):
        await read_v2(uniswap, factory=factory, max_pairs=1)
    for wrong in (tokens[0], factory, "0x" + "12" * 20):
        with pytest.raises(ReadError, match=f"{wrong.lower()} is no pair"):
            await read_v2(uniswap, pairs=[wrong])
    with pytest.raises(ReadError, match="no factory"):
        await read_v2(uniswap, factory=tokens[0])


async def test_a_pair_takes_no_more_than_its_reserves_can_hold(uniswap: Uniswap) -> None:
    most = 2**112 - 1
    contract = open_pair(uniswap, (most - 1_000, 10**20))
    (pair,) = await read_v2(uniswap, pairs=[contract.address])
    for exact, amount in ((Exact.IN, 10**30), (Exact.OUT, 10**19)):
        step = pair.swap(*uniswap.ids, amount, exact)
        assert (step.amount_in, step.amount_out) == (0, 0)  # 1,000 units buy nothing here
    back = pair.swap(uniswap.ids[1], uniswap.ids[0], 10**30, Exact.IN)
    assert back.amount_in == 10**30
    check_pool(pair)


# --- a thousand in one call ---------------------------------------------------------------------

THOUSAND = 1_000


def clone(chain: Chain, source: Contract, slots: Sequence[Mapping[int, int]]) -> list[str]:
    """Contracts with the runtime code of ``source`` and this storage, put in place directly."""
    code = chain.rpc("eth_getCode", source.address, "latest")
    addresses = [f"0x{0xC10E << 144 | number:040x}" for number in range(len(slots))]
    batches: list[list[dict[str, Any]]] = [[]]
    for address, storage in zip(addresses, slots, strict=True):
        calls = [("anvil_setCode", [address, code])]
        calls += [
            ("anvil_setStorageAt", [address, f"0x{slot:064x}", f"0x{value:064x}"])
            for slot, value in storage.items()
        ]
        batches[-1] += [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        if len(batches[-1]) > 80:  # below the node's limit on the size of a request
            batches.append([])
    url = str(chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]
    with requests.Session() as session:
        for batch in filter(None, batches):
            answers = session.post(url, json=batch, timeout=30).json()
            assert [answer for answer in answers if "error" in answer] == []
    chain.rpc("anvil_mine", "0x1")
    return addresses


async def test_a_thousand_pairs_in_one_call(uniswap: Uniswap) -> None:
    """Copies of a real pair with reserves of their own."""
    rng = random.Random(15)
    world = uniswap.world
    original = open_pair(uniswap, (10**9, 10**9))
    wanted = [(rng.randrange(2**112), rng.randrange(2**112)) for _ in range(THOUSAND)]
    tokens = [int(lower(token), 16) for token in uniswap.tokens]
    addresses = clone(
        world.chain,
        original,
        [
            {6: tokens[0], 7: tokens[1], 8: reserve0 | reserve1 << 112}
            for reserve0, reserve1 in wanted
        ],
    )
    venue = UniswapV2("v2", CHAIN, {"pairs": addresses})
    async with reading(world.chain) as pinned:
        reader = Counting(pinned)
        first = await venue.pools(reader)
        again = await venue.pools(reader)
    assert [(pool.reserve0, pool.reserve1) for pool in first if isinstance(pool, V2Pair)] == wanted
    assert first == again
    assert {pool.tokens for pool in first} == {uniswap.ids}
    assert reader.count("reserves(address[])") == 2  # one a reading
    assert len(reader.selectors) == 4  # and the tokens, once


def position_storage(
    tick: int, low: int, high: int, liquidity: int, spacing: int
) -> dict[int, int]:
    """The storage of a pool with one position; mappings by the layout of the published source."""

    def at(key: int, slot: int) -> int:
        return int.from_bytes(keccak((key % 2**256).to_bytes(32, "big") + slot.to_bytes(32, "big")))

    price = sqrt_price_at(tick) + 1
    inside = low <= tick < high
    storage = {0: price | (tick % 2**24) << 160 | 1 << 240, 4: liquidity if inside else 0}
    for end, net in ((low, liquidity), (high, -liquidity)):
        word, bit = divmod(end // spacing, 256)
        storage[at(end, 5)] = liquidity | (net % 2**128) << 128
        storage[at(word, 6)] = storage.get(at(word, 6), 0) | 1 << bit
    return storage


async def test_a_thousand_pools_in_one_call(uniswap: Uniswap) -> None:
    """Copies of a real pool, each with a price and a position of its own."""
    rng = random.Random(16)
    world, fee, spacing = uniswap.world, 3_000, 60
    wanted = []
    for _ in range(THOUSAND):
        tick = rng.randint(-50_000, 50_000)
        low = (tick // spacing - rng.randint(-5, 300)) * spacing
        high = low + rng.randint(1, 600) * spacing
        wanted.append((tick, low, high, rng.randrange(1, 2**100)))
    storage = [position_storage(*position, spacing) for position in wanted]
    addresses = clone(world.chain, uniswap.pools[fee], storage)
    venue = uniswap.venue3(pools=addresses, words=4)
    async with reading(world.chain) as pinned:
        reader = Counting(pinned)
        first = await venue.pools(reader)
        again = await venue.pools(reader)
        # An endpoint that grants little gas is asked more often and gives the same pools.
        meagre = Counting(Meagre(pinned, uniswap.world.chain, 3_000_000))
        assert await venue.pools(meagre) == first
        starving = Counting(Meagre(pinned, uniswap.world.chain, 200_000))
        with pytest.raises(ReadError, match="gas"):
            await venue.pools(starving)
    assert first == again
    assert reader.count(CONCENTRATED) == 2  # one a reading
    assert len(reader.selectors) == 6  # and what never changes, once
    assert 10 < meagre.count(CONCENTRATED) < 100
    for pool, (tick, low, high, liquidity) in zip(first, wanted, strict=True):
        assert isinstance(pool, V3Pool)
        assert (pool.fee_pips, pool.tick_spacing, pool.tick) == (fee, spacing, tick)
        assert pool.liquidity == (liquidity if low <= tick < high else 0)
        nets = dict(zip(pool.ticks.ticks, pool.ticks.nets, strict=True))
        assert nets == {low: liquidity, high: -liquidity}


class Meagre:
    """An endpoint that grants a call no more than ``gas``."""

    def __init__(self, reader: PinnedReader, chain: Chain, gas: int) -> None:
        self.block = reader.block
        self._chain = chain
        self._gas = gas

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        override = {place: {"code": body} for place, body in (code or {}).items()}
        return [
            str(
                self._chain.rpc(
                    "eth_call", {"to": to, "data": data, "gas": hex(self._gas)}, "latest", override
                )
            )
            for to, data in calls
        ]

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        raise AssertionError("no events are needed")

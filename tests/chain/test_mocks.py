"""The local venues to the unit, the settlement that uses them, and a token that means harm."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from web3.contract.contract import Contract

from solver.core import crypto
from solver.core.types import ZERO_ADDRESS
from tests.chain.evm import (
    MAX,
    OTHER_CHAIN,
    ROOT,
    Actor,
    Revert,
    World,
    anvil,
    asset,
    build_world,
    call,
    calldata,
    events,
    lower,
    refusal,
)

CHAIN = 31_339


@pytest.fixture(scope="module")
def deployed() -> Iterator[World]:
    with anvil(CHAIN) as chain:
        yield build_world(chain)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    with deployed.chain.rewound():
        yield deployed


def mint(world: World, token: Contract, to: Actor | Contract, amount: int) -> None:
    world.chain.send(token, "mint", to.address, amount, sender=world.admin)


def holdings(world: World, *parties: Actor | Contract) -> list[int]:
    return [world.balance(token, who) for token in (world.sell, world.buy) for who in parties]


def test_only_the_deployer_mints(world: World) -> None:
    minting = (world.buy, "mint", world.mallory.address, 1)
    refused = world.chain.refused(*minting, sender=world.mallory)
    assert refused == refusal("OnlyMinter", lower(world.mallory))
    assert world.chain.view(world.buy, "decimals") == 6


# --- the pair ---------------------------------------------------------------------------------


def pair_of(world: World, reserves: tuple[int, int], fee_bps: int) -> Contract:
    tokens = (world.sell, world.buy)
    args = (world.sell.address, world.buy.address, fee_bps)
    pair = world.chain.deploy("MockPair", *args, sender=world.admin)
    for token, amount in zip(tokens, reserves, strict=True):
        mint(world, token, pair, amount)
    receipt = world.chain.send(pair, "sync", sender=world.mallory)
    reserve0, reserve1 = reserves
    assert events(pair, receipt, "Sync") == [{"reserve0": reserve0, "reserve1": reserve1}]
    return pair


def most_out(amount_in: int, reserve_in: int, reserve_out: int, fee_bps: int) -> int:
    """The largest output that keeps x·y, from the invariant and not from the usual formula."""
    grown = reserve_in + Fraction(amount_in * (10_000 - fee_bps), 10_000)
    return reserve_out - math.ceil(reserve_in * reserve_out / grown)


def test_a_pair_pays_the_most_that_keeps_its_product_and_no_unit_more(world: World) -> None:
    rng = random.Random(5)
    for index in range(12):
        zero_for_one = index % 2 == 0
        reserves = (rng.randint(10**6, 10 ** rng.randint(7, 24)), rng.randint(10**6, 10**20))
        fee_bps = rng.choice((0, 1, 5, 30, 100, 9_999))
        pair = pair_of(world, reserves, fee_bps)
        before, after = reserves if zero_for_one else reserves[::-1]
        amount_in = rng.randint(before // 100, 2 * before)
        most = most_out(amount_in, before, after, fee_bps)
        token_in, token_out = (world.sell, world.buy)[:: 1 if zero_for_one else -1]
        mint(world, token_in, pair, amount_in)

        def outputs(amount: int, *, forward: bool = zero_for_one) -> tuple[int, int, str]:
            pay = (0, amount) if forward else (amount, 0)
            return (*pay, world.bob.address)

        over = world.chain.refused(pair, "swap", *outputs(most + 1), sender=world.mallory)
        name = "ProductFell" if most + 1 < after else "InsufficientLiquidity"
        assert over == refusal(name)
        held = world.balance(token_out, world.bob)
        receipt = world.chain.send(pair, "swap", *outputs(most), sender=world.mallory)
        assert world.balance(token_out, world.bob) == held + most
        ends = (before + amount_in, after - most)
        new = ends if zero_for_one else ends[::-1]
        assert tuple(world.chain.view(pair, "getReserves")[:2]) == new
        (swapped,) = events(pair, receipt, "Swap")
        ins = (amount_in, 0) if zero_for_one else (0, amount_in)
        assert (swapped["amount0In"], swapped["amount1In"]) == ins
        assert (swapped["amount0Out"], swapped["amount1Out"]) == outputs(most)[:2]


def test_a_pair_refuses_empty_and_unpaid_swaps(world: World) -> None:
    pair, to = pair_of(world, (10_000, 20_000), 30), world.bob.address
    for outputs, error in (
        ((0, 0), "InsufficientOutput"),
        ((10_000, 0), "InsufficientLiquidity"),
        ((0, 20_000), "InsufficientLiquidity"),
        ((0, 1), "InsufficientInput"),
        ((1, 0), "InsufficientInput"),
    ):
        refused = world.chain.refused(pair, "swap", *outputs, to, sender=world.mallory)
        assert refused == refusal(error)


def test_a_bundle_swaps_through_a_pair(world: World) -> None:
    pair = pair_of(world, (1_000, 4_000), 0)
    bought = 2_000  # 2,000 · 2,000 is the product again: equal is enough
    swap = world.order(buy_amount=bought)
    parts: dict[str, Any] = {"trades": [world.trade(swap, 1_000, bought)]}
    transfer = call(world.sell, "transfer", pair.address, 1_000)
    to = world.settlement.address
    greedy = [transfer, call(pair, "swap", 0, bought + 1, to)]
    assert world.refuse(interactions=greedy, **parts) == refusal("ProductFell")
    world.settle(interactions=[transfer, call(pair, "swap", 0, bought, to)], **parts)
    assert world.balance(world.buy, world.alice) == bought


# --- the order book ---------------------------------------------------------------------------

LOT, TICK, FEE_BPS = 50, 5, 7


class BookModel:
    """The book in plain Python: dictionaries of price → lots and a running sequence number."""

    def __init__(self) -> None:
        self.sides: dict[bool, dict[int, int]] = {True: {}, False: {}}  # True: bids
        self.sequence = 0

    def best_first(self, is_bid: bool) -> list[tuple[int, int]]:
        return sorted(self.sides[is_bid].items(), reverse=is_bid)

    def set(self, is_bid: bool, price: int, lots: int) -> dict[str, Any]:
        self.sequence += 1
        self.sides[is_bid].pop(price, None)
        if lots:
            self.sides[is_bid][price] = lots
        return {"sequence": self.sequence, "isBid": is_bid, "price": price, "lots": lots}

    def take(self, buy_base: bool, lots: int) -> tuple[int, list[dict[str, Any]]]:
        gross, changes = 0, []
        for price, there in self.best_first(not buy_base):
            taken = min(there, lots)
            if taken:
                gross, lots = gross + taken * price, lots - taken
                changes.append(self.set(not buy_base, price, there - taken))
        assert lots == 0
        fee = math.ceil(Fraction(gross * FEE_BPS, 10_000))
        return (gross + fee if buy_base else gross - fee), changes

    def columns(self) -> list[Any]:
        sides = [self.best_first(True), self.best_first(False)]
        return [self.sequence, *([level[i] for level in side] for side in sides for i in (0, 1))]


@pytest.fixture
def book(world: World) -> Contract:
    """Sell token as base, buy token as quote; both rich, and the solver may take."""
    args = (world.sell.address, world.buy.address, LOT, TICK, FEE_BPS)
    book = world.chain.deploy("MockOrderBook", *args, sender=world.admin)
    for token in (world.sell, world.buy):
        mint(world, token, book, 10**12)
        world.fund(token, world.solver, 10**12, book)
    return book


def set_level(world: World, book: Contract, is_bid: bool, price: int, lots: int) -> Any:
    return world.chain.send(book, "setLevel", is_bid, price, lots, sender=world.admin)


def take_refused(world: World, book: Contract, *args: Any) -> Revert:
    return world.chain.refused(book, "take", *args, world.bob.address, sender=world.solver)


def test_takes_on_both_sides_follow_the_model_to_the_unit(world: World, book: Contract) -> None:
    rng, model, taken = random.Random(6), BookModel(), {True: 0, False: 0}
    for _ in range(45):
        side = rng.random() < 0.5
        depth = sum(model.sides[not side].values())
        if rng.random() < 0.55 or depth == 0:
            price = TICK * (rng.randint(180, 199) if side else rng.randint(201, 220))
            lots = rng.choice((0, *range(1, 9)))
            receipt = set_level(world, book, side, price, lots)
            changes = [model.set(side, price, lots)]
        else:
            lots = rng.randint(1, depth)
            quote, changes = model.take(side, lots)
            before = [
                world.balance(t, w) for t in (world.sell, world.buy) for w in (world.bob, book)
            ]
            limit = quote - 1 if side else quote + 1
            unmet = refusal("LimitExceeded", quote, limit)
            assert take_refused(world, book, side, lots, limit) == unmet
            take = (book, "take", side, lots, quote, world.bob.address)
            receipt = world.chain.send(*take, sender=world.solver)
            (event,) = events(book, receipt, "Taken")
            assert event["quoteAmount"] == quote
            after = [
                world.balance(t, w) for t in (world.sell, world.buy) for w in (world.bob, book)
            ]
            moved = [now - then for now, then in zip(after, before, strict=True)]
            base = lots * LOT
            assert moved == ([base, -base, 0, quote] if side else [0, base, quote, -quote])
            taken[side] += 1
        assert events(book, receipt, "LevelChanged") == changes  # each with the next number
        assert world.chain.view(book, "book") == model.columns()
    assert min(taken.values()) >= 5


def test_the_fee_is_rounded_up_once_per_call(world: World, book: Contract) -> None:
    for is_bid, price in ((False, 1_570), (False, 1_575), (True, 1_565), (True, 1_560)):
        set_level(world, book, is_bid, price, 1)
    # ⌈3145·0.0007⌉ = ⌈2.2⌉ = 3, where ⌈1.099⌉ + ⌈1.1025⌉ would be 4; likewise for the sale.
    assert take_refused(world, book, True, 2, 3_147) == refusal("LimitExceeded", 3_148, 3_147)
    assert take_refused(world, book, False, 2, 3_123) == refusal("LimitExceeded", 3_122, 3_123)


def test_a_book_refuses_what_it_cannot_mean(world: World, book: Contract) -> None:
    refused, admin = world.chain.refused, world.admin
    assert take_refused(world, book, True, 0, MAX) == refusal("NothingTaken")
    set_level(world, book, False, 1_000, 3)
    set_level(world, book, True, 990, 2)
    assert take_refused(world, book, True, 5, MAX) == refusal("NotEnoughLots", 2)
    assert take_refused(world, book, False, 3, 0) == refusal("NotEnoughLots", 1)
    for args, expected in (
        ((True, 1_000, 1), refusal("Crossed", 1_000)),
        ((False, 990, 1), refusal("Crossed", 990)),
        ((True, 991, 1), refusal("OffTick", 991)),
        ((True, 0, 1), refusal("OffTick", 0)),
    ):
        assert refused(book, "setLevel", *args, sender=admin) == expected
    stranger = refused(book, "setLevel", True, 985, 1, sender=world.mallory)
    assert stranger == refusal("OnlyMaker", lower(world.mallory))
    assert world.chain.view(book, "sequence") == 2  # what is refused takes no number


# --- the bridge -------------------------------------------------------------------------------


def bridge_of(world: World, *terms: int) -> Contract:
    """A bridge for the sold token; terms are fixed fee, fee in bps, capacity and delay."""
    bridge = world.chain.deploy("MockBridge", sender=world.admin)
    route = (world.sell.address, OTHER_CHAIN, (world.buy.address, *(terms or (0, 0, 10**6, 0))))
    world.chain.send(bridge, "setRoute", *route, sender=world.admin)
    refused = world.chain.refused(bridge, "setRoute", *route, sender=world.mallory)
    assert refused == refusal("OnlyRelayer", lower(world.mallory))
    return bridge


def sending(world: World, bridge: Contract, amount: int) -> tuple[Any, ...]:
    return (bridge, "send", world.sell.address, OTHER_CHAIN, amount, world.bob.address)


def test_a_bridge_takes_its_fees_and_capacity_to_the_unit(world: World) -> None:
    rng, capacity = random.Random(8), 10**9
    fixed, bps, delay = 137, 9, 30
    bridge = bridge_of(world, fixed, bps, capacity, delay)
    world.fund(world.sell, world.solver, 2 * capacity, bridge)
    for number in range(1, 13):
        amount = rng.randint(200, 10 ** rng.randint(3, 7))
        out = amount - fixed - math.ceil(Fraction(amount * bps, 10_000))
        receipt = world.chain.send(*sending(world, bridge, amount), sender=world.solver)
        identity = [CHAIN, bridge.address, number]
        encoded = encode(["uint256", "address", "uint256"], identity)
        (sent,) = events(bridge, receipt, "Sent")
        assert sent["id"] == "0x" + crypto.keccak(encoded).hex()
        assert (sent["amount"], sent["amountOut"]) == (amount, out)
        assert (sent["destChain"], sent["destToken"]) == (OTHER_CHAIN, lower(world.buy))
        assert sent["notBefore"] == world.chain.time + delay
        capacity -= amount
        terms = world.chain.view(bridge, "route", world.sell.address, OTHER_CHAIN)
        assert terms[3] == capacity
        assert world.balance(world.sell, bridge) == 10**9 - capacity
    above = world.chain.refused(*sending(world, bridge, capacity + 1), sender=world.solver)
    assert above == refusal("AboveCapacity", capacity)
    world.chain.send(*sending(world, bridge, capacity), sender=world.solver)


def test_a_bridge_sends_nothing_below_its_fee(world: World) -> None:
    bridge = bridge_of(world, 100, 100, 10**6, 0)
    world.fund(world.sell, world.solver, 1_000, bridge)
    refused = world.chain.refused(*sending(world, bridge, 102), sender=world.solver)
    assert refused == refusal("BelowFee", 102)  # 102 − 100 − ⌈1.02⌉ = 0
    receipt = world.chain.send(*sending(world, bridge, 103), sender=world.solver)
    assert events(bridge, receipt, "Sent")[0]["amountOut"] == 1


def test_a_bridge_delivers_once_and_for_its_relayer(world: World) -> None:
    bridge = bridge_of(world)
    mint(world, world.buy, bridge, 100)
    delivery = (bridge, "deliver", b"\7" * 32, world.buy.address, world.bob.address, 40)
    stranger = world.chain.refused(*delivery, sender=world.mallory)
    assert stranger == refusal("OnlyRelayer", lower(world.mallory))
    world.chain.send(*delivery, sender=world.admin)
    again = world.chain.refused(*delivery, sender=world.admin)
    assert again == refusal("AlreadyDelivered", b"\7" * 32)
    assert world.balance(world.buy, world.bob) == 40


# --- interactions -----------------------------------------------------------------------------


def test_approvals_are_exact_and_end_with_the_call(world: World) -> None:
    bridge, swap = bridge_of(world), world.order()
    send = (world.sell.address, OTHER_CHAIN, 1_000, world.solver.address)
    parts: dict[str, Any] = {"trades": [world.trade(swap, 1_000, 2_000)]}
    parts["funding"] = [(world.buy, 2_000)]
    scant = call(bridge, "send", *send, approve=(world.sell, 999))
    insufficient = refusal("ERC20InsufficientAllowance", lower(bridge), 999, 1_000)
    assert world.refuse(interactions=[scant], **parts) == insufficient
    insufficient = refusal("ERC20InsufficientAllowance", lower(bridge), 0, 1_000)
    assert world.refuse(interactions=[call(bridge, "send", *send)], **parts) == insufficient
    ample = call(bridge, "send", *send, approve=(world.sell, 5_000))
    receipt = world.settle(interactions=[ample], **parts)
    approval = {"owner": lower(world.settlement), "spender": lower(bridge)}
    expected = [approval | {"value": value} for value in (5_000, 0)]
    assert events(world.sell, receipt, "Approval") == expected
    for token in (world.sell, world.buy):
        for spender in (bridge, world.holder, world.escrow):
            assert world.allowance(token, world.settlement, spender) == 0
        assert world.balance(token, world.settlement) == 0


def test_the_reason_of_a_failed_interaction_is_passed_on(world: World) -> None:
    unknown = ("send", world.buy.address, OTHER_CHAIN, 1, world.solver.address)
    send = call(bridge_of(world), *unknown)
    no_route = refusal("NoRoute", lower(world.buy), OTHER_CHAIN)
    assert world.refuse(interactions=[send]) == no_route
    nobody = (world.mallory.address, b"\1\2\3\4", ZERO_ADDRESS, 0)
    assert world.refuse(interactions=[nobody]) == refusal("AddressEmptyCode", lower(world.mallory))


# --- all or nothing, and dust -----------------------------------------------------------------


def test_an_unmet_output_undoes_everything(world: World) -> None:
    good, unmet = world.order(), world.order(buy_amount=3_000)
    parties = (world.alice, world.solver, world.settlement)
    before = holdings(world, *parties)
    parts: dict[str, Any] = {
        "trades": [world.trade(good, 1_000, 2_000), world.trade(unmet, 1_000, 3_000)],
        "interactions": [call(world.sell, "transfer", world.solver.address, 2_000)],
        "batch": 99,
    }
    short = refusal("ERC20InsufficientBalance", lower(world.settlement), 2_999, 3_000)
    assert world.refuse(funding=[(world.buy, 4_999)], **parts) == short
    assert holdings(world, *parties) == before
    assert world.filled(good) == world.filled(unmet) == 0
    world.settle(funding=[(world.buy, 5_000)], **parts)  # the batch id is still free
    assert world.filled(good) == world.filled(unmet) == 1_000


def test_one_payment_does_not_serve_two_orders(world: World) -> None:
    trades = [world.trade(world.order(), 1_000, 2_000) for _ in range(2)]
    refused = world.refuse(trades=trades, funding=[(world.buy, 2_000)])
    assert refused == refusal("ERC20InsufficientBalance", lower(world.settlement), 0, 2_000)


def test_dust_goes_to_the_fee_recipient(world: World) -> None:
    trades = [world.trade(world.order(), 1_000, 2_000)]
    world.settle(trades=trades, funding=[(world.buy, 2_007)], sweep=[world.sell, world.buy])
    assert world.balance(world.sell, world.dust) == 1_000
    assert world.balance(world.buy, world.dust) == 7
    assert world.balance(world.sell, world.settlement) == 0
    world.settle(sweep=[world.sell])  # nothing left is no error
    world.chain.send(world.settlement, "setFeeRecipient", world.bob.address, sender=world.admin)
    world.settle(funding=[(world.buy, 3)], sweep=[world.buy])
    assert [world.balance(world.buy, who) for who in (world.bob, world.dust)] == [3, 7]


# --- a hostile token --------------------------------------------------------------------------


@pytest.fixture
def hostile(world: World) -> Contract:
    """Alice and the solver hold it, and it may settle: only the lock can stop its callbacks."""
    token = world.chain.deploy("HostileToken", sender=world.mallory)
    world.fund(token, world.alice, 10_000, world.holder)
    world.fund(token, world.solver, 10_000, world.holder)
    world.chain.send(world.settlement, "setSolver", token.address, True, sender=world.admin)
    return token


def test_a_token_that_keeps_a_part_is_refused_on_both_sides(
    world: World, hostile: Contract
) -> None:
    sells = world.order(sell_asset=asset(hostile))
    buys = world.order(buy_asset=asset(hostile))
    now = world.chain.time
    times = {"fill_deadline": now + 1_000, "refund_after": now + 2_000}
    crosses = world.order(sell_asset=asset(hostile), buy_chain=OTHER_CHAIN, **times)
    sell_side, buy_side, cross_side = (
        {"trades": [world.trade(swap, 1_000, 2_000)]} for swap in (sells, buys, crosses)
    )
    fill_side = {"fills": [(b"\5" * 32, hostile.address, world.bob.address, 700, now + 1_000)]}
    mint(world, world.buy, world.settlement, 2_000)
    mint(world, hostile, world.settlement, 2_700)
    world.chain.send(hostile, "setKept", 100, sender=world.mallory)
    for parts, expected in (
        (sell_side, refusal("SoldTokenShort", world.digest(sells), 990)),
        (buy_side, refusal("BoughtTokenShort", world.digest(buys), 1_980)),
        (cross_side, refusal("SoldTokenShort", world.digest(crosses), 990)),
        (fill_side, refusal("BoughtTokenShort", b"\5" * 32, 693)),
    ):
        assert world.refuse(**parts) == expected
    world.chain.send(hostile, "setKept", 0, sender=world.mallory)
    for parts in (sell_side, buy_side, cross_side, fill_side):
        world.settle(**parts)  # the kept part was the only thing wrong


@pytest.mark.parametrize("side", ["sell_asset", "buy_asset"])
def test_a_token_cannot_settle_again_from_within(
    world: World, hostile: Contract, side: str
) -> None:
    inner = calldata(world.settlement, "settle", *world.bundle(batch=777))
    callback = (hostile, "setCallback", world.settlement.address, inner)
    world.chain.send(*callback, sender=world.mallory)
    swap = world.order(**{side: asset(hostile)})
    bought = hostile if side == "buy_asset" else world.buy
    world.settle(trades=[world.trade(swap, 1_000, 2_000)], funding=[(bought, 2_000)])
    settled = (world.settlement, "settledBatches", hostile.address, (777).to_bytes(32, "big"))
    assert world.chain.view(hostile, "callbackSucceeded") is False
    assert world.chain.view(*settled) is False
    # Outside of a settlement the very same callback goes through: it was the lock.
    world.chain.send(hostile, "transfer", world.bob.address, 1, sender=world.solver)
    assert world.chain.view(hostile, "callbackSucceeded") is True
    assert world.chain.view(*settled) is True


def test_a_callback_cannot_steal_through_the_holder(world: World, hostile: Contract) -> None:
    pull = (world.sell.address, world.alice.address, world.mallory.address, 1)
    callback = (world.holder.address, calldata(world.holder, "pull", *pull))
    world.chain.send(hostile, "setCallback", *callback, sender=world.mallory)
    mint(world, hostile, world.settlement, 1)
    receipt = world.settle(interactions=[call(hostile, "transfer", world.bob.address, 1)])
    assert len(events(hostile, receipt, "Transfer")) == 1  # the callback was reached
    assert world.chain.view(hostile, "callbackSucceeded") is False
    assert world.balance(world.sell, world.mallory) == 0
    as_token = Actor(b"", str(hostile.address))
    refused = world.chain.try_call(world.holder, "pull", *pull, sender=as_token)
    assert refused == refusal("OnlySettlement", lower(hostile))


# --- the committed artifacts ------------------------------------------------------------------


def build_check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(folder / "build.mjs"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_the_committed_artifacts_match_their_sources() -> None:
    done = build_check(ROOT / "contracts")
    assert done.returncode == 0, done.stderr


def test_the_build_check_notices_changed_sources_and_leftovers(tmp_path: Path) -> None:
    folder = tmp_path / "contracts"
    for name in ("build.mjs", "src/mocks/TestToken.sol", "artifacts/TestToken.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "contracts" / name, folder / name)
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    assert build_check(folder).returncode == 0
    (folder / "artifacts" / "Gone.json").write_text("{}")
    assert "differ from the sources: Gone.json;" in build_check(folder).stderr
    (folder / "artifacts" / "Gone.json").unlink()
    source = folder / "src" / "mocks" / "TestToken.sol"
    source.write_text(source.read_text().replace("_mint(to, amount)", "_mint(to, amount + 1)"))
    done = build_check(folder)
    assert done.returncode == 1
    assert "TestToken.json" in done.stderr

"""Cross-chain orders whose payment bundle fails: paid late from inventory, or refunded in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from solver import devnet
from solver.core.intent import digest_of
from solver.core.journal import Bundled, BundleRecord, IntentRecord
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Kind, Swap, TokenId
from solver.daemon import Daemon
from solver.intake import blank_swap
from solver.startup import running
from tests.e2e.make import config_in

pytestmark = pytest.mark.xdist_group("daemon")
HERE, THERE = 31337, 31338
SOLD = 2 * 10**18


async def _balance(daemon: Daemon, symbol: str, chain: int, owner: str) -> int:
    token = daemon.deployments[chain].addresses[symbol]
    amount = await daemon.chain(chain).read(token, "balanceOf(address)", ["uint256"], owner)
    return int(amount)


async def _locked(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> IntentRecord:
    """An intent in escrow whose payment bundle was given up."""
    wallet = devnet.user(0)
    ends = (daemon.deployments[HERE].addresses["WETH"], daemon.deployments[THERE].addresses["USDC"])
    blank = blank_swap(
        wallet.address, wallet.address, TokenId(HERE, ends[0]), TokenId(THERE, ends[1]),
        Kind.EXACT_IN, SOLD, 0, False, 1, 0,
    )  # fmt: skip
    swap = daemon.intake.complete(blank, 120, 300)
    assert isinstance(swap, Swap), swap
    digest = digest_of(swap, daemon.world.contracts[HERE].settlement)
    signature = "0x" + wallet.sign_digest(bytes.fromhex(digest[2:])).hex()
    outcome = await daemon.intake.submit(swap, signature)
    assert isinstance(outcome, tuple), outcome
    execute = daemon.settler.execute

    async def without_payment(identity: str) -> BundleRecord:
        bundle: Bundled = daemon.ledger.book.bundles[identity].bundle
        if bundle.payments:
            return await daemon.settler.drop(identity, "given up by the test")
        return await execute(identity)

    with monkeypatch.context() as patch:
        patch.setattr(daemon.settler, "execute", without_payment)
        await daemon.tick()
    record = daemon.ledger.book.intents[digest]
    assert record.state is IntentState.ESCROWED
    escrow = daemon.world.contracts[HERE].escrow
    assert await _balance(daemon, "WETH", HERE, escrow) == SOLD
    return record


async def _later(daemon: Daemon, seconds: int) -> None:
    for number in (HERE, THERE):
        await daemon.chain(number).rpc.call("evm_increaseTime", hex(seconds))
        await daemon.chain(number).rpc.call("evm_mine")


async def test_a_lost_payment_is_made_from_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        user, solver = devnet.user(0).address, devnet.account(devnet.SOLVER).address
        before = await _balance(daemon, "USDC", THERE, user)
        inventory = await _balance(daemon, "WETH", HERE, solver)
        record = await _locked(daemon, monkeypatch)
        await daemon.escrows.tend()
        paid = daemon.ledger.book.intents[record.intent.digest]
        assert paid.state is IntentState.SETTLED
        assert await _balance(daemon, "USDC", THERE, user) == before + paid.bought
        await daemon.escrows.tend()
        assert daemon.escrows.count == 0
        assert await _balance(daemon, "WETH", HERE, solver) == inventory + SOLD


async def test_an_unpaid_order_is_refunded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(config_in(tmp_path)) as daemon:
        user = devnet.user(0).address
        before = await _balance(daemon, "WETH", HERE, user)
        record = await _locked(daemon, monkeypatch)
        swap = record.intent.swap
        await _later(daemon, 300)  # past fillDeadline: too late to pay, too early to refund
        await daemon.escrows.tend()
        state = daemon.ledger.book.intents[record.intent.digest].state
        assert state is IntentState.ESCROWED
        await _later(daemon, swap.refund_after - swap.fill_deadline)
        await daemon.escrows.tend()
        ended = daemon.ledger.book.intents[record.intent.digest]
        assert (ended.state, ended.sold, ended.bought) == (IntentState.REFUNDED, 0, 0)
        assert await _balance(daemon, "WETH", HERE, user) == before
        assert daemon.escrows.count == 0


async def test_a_restart_pays_what_a_crash_left_in_escrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second daemon knows the escrow from the ledger alone."""
    monkeypatch.setattr(devnet, "stop", lambda _: None)  # the chains outlive the first daemon
    async with running(config_in(tmp_path)) as daemon:
        record = await _locked(daemon, monkeypatch)
        deployments = daemon.deployments
    monkeypatch.undo()
    try:
        async with running(config_in(tmp_path)) as again:
            await again.settler.recover()
            assert again.escrows.count == 1
            for _ in range(2):
                await again.escrows.tend()
            paid = again.ledger.book.intents[record.intent.digest]
            assert paid.state is IntentState.SETTLED
            assert again.escrows.count == 0
            bundles = again.ledger.book.bundles.values()
            ended = [b.bundle.role for b in bundles if b.state is BundleState.CONFIRMED]
            assert ended == ["settle", "settle", "claim"]
    finally:
        devnet.stop(deployments)


async def test_opposite_directions_do_not_share_a_batch(tmp_path: Path) -> None:
    async with running(config_in(tmp_path)) as daemon:
        addresses = {chain: d.addresses for chain, d in daemon.deployments.items()}
        for number, (sell, buy) in enumerate(((HERE, THERE), (THERE, HERE))):
            wallet = devnet.user(number)
            blank = blank_swap(
                wallet.address, wallet.address, TokenId(sell, addresses[sell]["USDC"]),
                TokenId(buy, addresses[buy]["USDC"]), Kind.EXACT_IN, 10**9, 0, False, 1, 0,
            )  # fmt: skip
            swap = daemon.intake.complete(blank, 120, 300)
            assert isinstance(swap, Swap), swap
            digest = digest_of(swap, daemon.world.contracts[sell].settlement)
            signature = "0x" + wallet.sign_digest(bytes.fromhex(digest[2:])).hex()
            assert isinstance(await daemon.intake.submit(swap, signature), tuple)
        for _ in range(4):
            await daemon.tick()
        states = [record.state for record in daemon.ledger.book.intents.values()]
        assert states == [IntentState.SETTLED] * 2
        assert len(daemon.ledger.book.batches) == 2
        assert daemon.escrows.count == 0

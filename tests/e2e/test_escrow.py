"""Escrows: paid late, refunded in time, and what becomes of them when others or the network act."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from solver import devnet
from solver.chain import Receipt
from solver.core import bundle as bundles
from solver.core.abi import encode_call
from solver.core.journal import Bundled, BundleRecord, IntentRecord
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Fill
from solver.daemon import Daemon
from solver.startup import running
from tests.e2e.make import (
    HERE,
    THERE,
    balance,
    config_in,
    later,
    record_of,
    states_of,
    submit,
    ticks,
    transact,
)

pytestmark = pytest.mark.xdist_group("daemon")
SOLD = 2 * 10**18
USER, SOLVER = devnet.user(0).address, devnet.account(devnet.SOLVER).address


async def _cross(daemon: Daemon, lifetime_seconds: int = 120, partial: bool = False) -> str:
    ends = ("WETH", HERE), ("USDC", THERE)
    return await submit(daemon, 0, *ends, SOLD, partial=partial, lifetime_seconds=lifetime_seconds)


async def _locked(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, lifetime_seconds: int = 120
) -> IntentRecord:
    """An intent in escrow whose payment bundle was given up."""
    digest = await _cross(daemon, lifetime_seconds)
    execute = daemon.settler.execute

    async def without_payment(identity: str) -> BundleRecord:
        bundle: Bundled = daemon.ledger.book.bundles[identity].bundle
        if bundle.payments:
            return await daemon.settler.drop(identity, "given up by the test")
        return await execute(identity)

    with monkeypatch.context() as patch:
        patch.setattr(daemon.settler, "execute", without_payment)
        await daemon.tick()
    record = record_of(daemon, digest)
    assert record.state is IntentState.ESCROWED
    escrow = daemon.world.contracts[HERE].escrow
    assert await balance(daemon, "WETH", HERE, escrow) == SOLD
    return record


async def test_a_lost_payment_is_made_from_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        before = await balance(daemon, "USDC", THERE, USER)
        inventory = await balance(daemon, "WETH", HERE, SOLVER)
        record = await _locked(daemon, monkeypatch)
        await daemon.escrows.tend()
        paid = daemon.ledger.book.intents[record.intent.digest]
        assert paid.state is IntentState.SETTLED
        assert await balance(daemon, "USDC", THERE, USER) == before + paid.bought
        await daemon.escrows.tend()
        assert daemon.escrows.count == 0
        assert await balance(daemon, "WETH", HERE, SOLVER) == inventory + SOLD


async def test_an_unpaid_order_is_refunded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(config_in(tmp_path)) as daemon:
        before = await balance(daemon, "WETH", HERE, USER)
        record = await _locked(daemon, monkeypatch)
        swap = record.intent.swap
        await later(daemon, 300)  # past fillDeadline: too late to pay, too early to refund
        await daemon.escrows.tend()
        state = daemon.ledger.book.intents[record.intent.digest].state
        assert state is IntentState.ESCROWED
        await later(daemon, swap.refund_after - swap.fill_deadline)
        await daemon.escrows.tend()
        ended = daemon.ledger.book.intents[record.intent.digest]
        assert (ended.state, ended.sold, ended.bought) == (IntentState.REFUNDED, 0, 0)
        assert await balance(daemon, "WETH", HERE, USER) == before
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
        for number, (sell, buy) in enumerate(((HERE, THERE), (THERE, HERE))):
            await submit(daemon, number, ("USDC", sell), ("USDC", buy), 10**9)
        await ticks(daemon, 4)
        states = [record.state for record in daemon.ledger.book.intents.values()]
        assert states == [IntentState.SETTLED] * 2
        assert len(daemon.ledger.book.batches) == 2
        assert daemon.escrows.count == 0


async def test_a_receipt_that_comes_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint counts the nonce at one block and knows the receipts of an older one."""
    async with running(config_in(tmp_path)) as daemon:
        before = await balance(daemon, "USDC", THERE, USER)
        digest, chain = await _cross(daemon), daemon.chain(THERE)
        receipt, left = chain.receipt, [14]

        async def lagging(tx_hash: str) -> Receipt | None:
            left[0] -= 1
            return None if left[0] >= 0 else await receipt(tx_hash)

        monkeypatch.setattr(chain, "receipt", lagging)
        await daemon.tick()
        record = record_of(daemon, digest)
        assert record.state is IntentState.SETTLED
        assert await balance(daemon, "USDC", THERE, USER) == before + record.bought


async def test_a_payment_that_was_taken_for_lost_is_neither_repeated_nor_refunded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint denies receipt and batch; the payment itself is what counts in the end."""
    async with running(config_in(tmp_path, lost_answers=2)) as daemon:
        dollars = await balance(daemon, "USDC", THERE, USER)
        ether = await balance(daemon, "WETH", HERE, SOLVER)
        digest, chain = await _cross(daemon), daemon.chain(THERE)
        read = chain.read

        async def no_receipt(tx_hash: str) -> None:
            return None

        async def no_batch(target: str, signature: str, *rest: Any, **options: Any) -> Any:
            if signature.startswith("settledBatches"):
                return False
            return await read(target, signature, *rest, **options)

        with monkeypatch.context() as patch:
            patch.setattr(chain, "receipt", no_receipt)
            patch.setattr(chain, "read", no_batch)
            await daemon.tick()
        lost = list(daemon.ledger.book.bundles.values())[-1]
        assert (lost.state, bool(lost.bundle.payments)) == (BundleState.DROPPED, True)
        await later(daemon, 5_000)
        await daemon.escrows.tend()
        record = record_of(daemon, digest)
        assert (record.state, record.fills[0].bundle) == (IntentState.SETTLED, lost.bundle.id)
        assert await balance(daemon, "USDC", THERE, USER) == dollars + record.bought
        await daemon.escrows.tend()
        assert daemon.escrows.count == 0
        assert await balance(daemon, "WETH", HERE, SOLVER) == ether + SOLD


@pytest.mark.parametrize("at", ["plan", "payment"])
async def test_only_the_lock_that_was_planned_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Another solver fills a part in between, or the lock is not there when it is to be paid."""
    async with running(config_in(tmp_path)) as daemon:
        admin, rival = devnet.account(devnet.ADMIN).address, devnet.user(4).address
        settlement = daemon.world.contracts[HERE].settlement
        allow = encode_call("setSolver(address,bool)", rival, True)
        await transact(daemon, HERE, admin, settlement, allow)
        digest = await _cross(daemon, partial=True)
        intent = record_of(daemon, digest).intent
        dollars = await balance(daemon, "USDC", THERE, USER)
        execute, read = daemon.settler.execute, daemon.chain(HERE).read

        async def rival_fills() -> None:
            trade = bundles.Trade(intent, Fill(digest, 10**12, 3_000, 0))
            part = bundles.Bundle(HERE, (trade,), (), (), (), (), 0)
            data = bundles.encode(part, "0x" + "11" * 32, int(time.time()) + 1_000)
            await transact(daemon, HERE, rival, settlement, data)

        async def raced(identity: str) -> BundleRecord:
            if daemon.ledger.book.bundles[identity].bundle.locks and at == "plan":
                await rival_fills()
            return await execute(identity)

        async def no_lock(*arguments: Any, **options: Any) -> Any:
            if arguments[1] == "locks(bytes32)":
                zero, nobody = bytes(32), "0x" + "00" * 20
                return (zero, zero, 0, 0, nobody, nobody, nobody, 0, 0)
            return await read(*arguments, **options)

        monkeypatch.setattr(daemon.settler, "execute", raced)
        if at == "payment":
            monkeypatch.setattr(daemon.chain(HERE), "read", no_lock)
        await daemon.tick()
        await daemon.escrows.tend()
        assert await balance(daemon, "USDC", THERE, USER) == dollars
        if at == "plan":
            assert daemon.escrows.count == 0
            reason = record_of(daemon, digest).reason
            assert reason is not None
            assert reason.code == "filled_elsewhere"


@pytest.mark.parametrize("ending", ["refund", "claim"])
async def test_an_escrow_that_somebody_else_ended_is_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        record = await _locked(daemon, monkeypatch)
        digest, escrow = record.intent.digest, daemon.world.contracts[HERE].escrow
        (order,) = daemon.ledger.book.escrows
        stranger = devnet.user(5).address
        if ending == "refund":
            await later(daemon, 5_000)
            data = encode_call("refund(bytes32)", bytes.fromhex(order[2:]))
            await transact(daemon, HERE, stranger, escrow, data)
            await daemon.escrows.tend()
            assert states_of(daemon, digest) == ["refunded"]
        else:
            claims: list[str] = []
            check = daemon.settler.check

            async def overtaken(bundle: Bundled) -> Any:
                if bundle.role == "claim":
                    claims.append(bundle.data)
                    await transact(daemon, HERE, stranger, escrow, bundle.data)
                return await check(bundle)

            monkeypatch.setattr(daemon.settler, "check", overtaken)
            for _ in range(3):
                await daemon.escrows.tend()
            assert (len(claims), states_of(daemon, digest)) == (1, ["settled"])
        assert daemon.escrows.count == 0


async def test_idle_chains_refund_when_our_own_clock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody makes blocks, so the heads stay where they are."""
    async with running(config_in(tmp_path)) as daemon:
        record = await _locked(daemon, monkeypatch)
        for number in (HERE, THERE):
            await daemon.chain(number).rpc.call("evm_increaseTime", hex(5_000))
        await asyncio.sleep(2.1)
        await daemon.escrows.tend()
        assert states_of(daemon, record.intent.digest) == ["refunded"]


async def test_a_claim_waits_for_the_confirmations_of_the_payment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        await _locked(daemon, monkeypatch)
        await daemon.escrows.tend()
        daemon.escrows.confirmations = 3
        await daemon.escrows.tend()
        assert daemon.escrows.count == 1
        for _ in range(2):
            await daemon.chain(THERE).mine()
        await daemon.escrows.tend()
        assert daemon.escrows.count == 0


async def test_a_lone_late_payment_has_no_deadline_but_the_orders_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        record = await _locked(daemon, monkeypatch)
        await ticks(daemon, 2)
        late, claim = list(daemon.ledger.book.bundles.values())[-2:]
        assert late.bundle.deadline == record.intent.swap.fill_deadline
        assert (claim.bundle.role, claim.bundle.deadline) == ("claim", 0)


async def test_a_payment_that_a_reorg_took_back_is_made_again(tmp_path: Path) -> None:
    async with running(config_in(tmp_path)) as daemon:
        before = await balance(daemon, "USDC", THERE, USER)
        rpc = daemon.chain(THERE).rpc
        snapshot = await rpc.call("evm_snapshot")
        digest = await _cross(daemon)
        await daemon.tick()
        assert states_of(daemon, digest) == ["settled"]
        await rpc.call("evm_revert", snapshot)
        assert await balance(daemon, "USDC", THERE, USER) == before
        seen = set()
        for _ in range(12):
            await daemon.escrows.tend()
            seen.update(states_of(daemon, digest))
        record = record_of(daemon, digest)
        assert (seen, daemon.escrows.count) == ({"settled", "escrowed"}, 0)
        assert (len(record.fills), record.sold) == (1, SOLD)
        assert await balance(daemon, "USDC", THERE, USER) == before + record.bought

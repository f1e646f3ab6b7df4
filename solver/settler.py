"""Sends bundles and finds out what became of them; the only user of the solver's nonces.

A bundle's signed transaction is durable before its bytes leave, and so is each one that replaces
it. After a crash the same bytes are sent again, so a bundle can be mined once at most; the contract
refuses it after its deadline. Each outcome of a bundle and the steps of its intents are one write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog
from msgspec import Struct

from solver.chain import Chain, FeeAboveCap, Receipt, Refusal, RpcError, Unreachable, Wallet
from solver.core import bundle as bundles
from solver.core.abi import AbiError, decode_answer, selector
from solver.core.bundle import CrossFill
from solver.core.journal import (
    Bundled,
    BundleMoved,
    BundleRecord,
    Event,
    Moved,
    Payment,
    Replaced,
    filled_by,
)
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Fill, Swap
from solver.ledger import Ledger

_GAS_MARGIN_PERCENT = 130
_LOCAL_POLL_SECONDS = 0.05
_LOCAL_PATIENCE_POLLS = 40
_RESEND_POLLS = 5
#: Errors of the settlement contract that carry the digest, or the order id, of whom they are about.
_BLAMES = {
    selector(f"{name}({types})").hex(): name
    for types, names in {
        "bytes32": (
            "OrderCancelled",
            "OutsideValidity",
            "Overfilled",
            "BadSignature",
            "BadTimes",
            "PartialFillForbidden",
            "LimitViolated",
            "FeeAboveCap",
            "NothingFilled",
            "InvalidAddress",
            "Unsupported",
            "FillTooLate",
            "AlreadyFilled",
        ),
        "bytes32,uint256": (
            "SoldTokenShort",
            "BoughtTokenShort",
            "FilledElsewhere",
            "WrongChain",
        ),
    }.items()
    for name in names
}
#: Errors of tokens and libraries: the name, and what its arguments are.
_KNOWN = {
    selector(f"{name}({','.join(types)})").hex(): (name, types)
    for name, types in {
        "Error": ("string",),
        "Panic": ("uint256",),
        "ERC20InsufficientBalance": ("address", "uint256", "uint256"),
        "ERC20InsufficientAllowance": ("address", "uint256", "uint256"),
        "ERC20InvalidSender": ("address",),
        "ERC20InvalidReceiver": ("address",),
        "SafeERC20FailedOperation": ("address",),
        "AddressEmptyCode": ("address",),
        "FailedCall": (),
        "FailedInnerCall": (),
        "BundleExpired": ("uint256",),
        "BatchAlreadySettled": ("bytes32",),
        "NotSolver": ("address",),
        "ForbiddenTarget": ("address",),
        "ForbiddenCall": ("bytes4",),
    }.items()
}
_CODES = {"OrderCancelled": "cancelled_on_chain", "FilledElsewhere": "filled_elsewhere"}

log = structlog.get_logger("thalweg.settler")


class Contracts(Struct, frozen=True):
    """Our contracts on one chain."""

    settlement: str
    holder: str
    escrow: str
    verifier: str


class Blame(Struct, frozen=True):
    """Why a bundle would fail; ``digest`` is empty when no single intent is at fault."""

    reason: str
    digest: str = ""
    code: str = "simulation_failed"


class Pace(Struct, frozen=True):
    """How patiently bundles are watched; see ``[batch]`` of the config."""

    confirmations: int
    watch_seconds: float
    poll_seconds: float
    bump_seconds: float
    lost_answers: int


class _Watch(Struct):
    """What this process has seen of a pending bundle's transaction; a restart begins anew."""

    signed_at: float
    sent_at: float = 0.0
    asked_at: float = 0.0
    nulls: int = 0
    patience: int = _LOCAL_PATIENCE_POLLS
    refusal: str = ""


class Settler:
    """Executes bundles on every chain, one at a time per chain."""

    def __init__(
        self, ledger: Ledger, chains: Mapping[int, Chain], wallet: Wallet, pace: Pace
    ) -> None:
        self.address = wallet.address
        #: Set when the daemon is told to stop: what is pending then is for the next start.
        self.stop = asyncio.Event()
        self._ledger = ledger
        self._chains = dict(chains)
        self._wallet = wallet
        self._pace = pace
        self._turns = {chain: asyncio.Lock() for chain in chains}
        self._watches: dict[str, _Watch] = {}

    async def recover(self) -> None:
        """Drop what was never sent, and watch what a crash left open for as long as a tick may."""
        for record in list(self._ledger.book.bundles.values()):
            if record.state is BundleState.BUILT:
                await self._finish(record, BundleState.DROPPED, "the daemon stopped before sending")
        pending = self._ledger.book.pending_bundles()
        for record in pending:
            log.info("bundle_recovered", bundle=record.bundle.id, state=record.state.value)
        await asyncio.gather(*(self._watch(record.bundle.id) for record in pending))

    def is_busy(self, chain: int) -> bool:
        """Whether a transaction of ours is on its way there; a second one would need its nonce."""
        return any(r.bundle.chain == chain for r in self._ledger.book.pending_bundles())

    async def check(self, bundle: Bundled) -> Blame | int:
        """The gas that a bundle needs now, or why it would fail."""
        answer = await self._chains[bundle.chain].estimate(self.address, bundle.to, bundle.data)
        return blame_of(answer, bundle) if isinstance(answer, Refusal) else answer

    async def execute(self, identity: str) -> BundleRecord:
        """Simulate, sign, write, send and watch one bundle that the ledger knows as built.

        It may still be pending afterwards; :meth:`follow` then finds out what becomes of it.
        """
        record = self._ledger.book.bundles[identity]
        bundle, chain = record.bundle, self._chains[record.bundle.chain]
        async with self._turns[chain.id]:
            if self.is_busy(chain.id):
                reason = "another transaction is on its way"
                return await self._finish(record, BundleState.DROPPED, reason)
            try:
                gas = await self.check(bundle)
                if isinstance(gas, Blame):
                    return await self._finish(record, BundleState.DROPPED, gas.reason)
                nonce = await chain.nonce(self.address)
                limit = gas * _GAS_MARGIN_PERCENT // 100
                signed = await chain.prepare(self._wallet, bundle.to, bundle.data, limit, nonce)
            except (RpcError, Unreachable, FeeAboveCap) as error:
                # Nothing has left; else the intents would wait for a bundle that nobody sends.
                return await self._finish(record, BundleState.DROPPED, str(error))
            await self._ledger.append(
                BundleMoved(
                    identity, BundleState.SENDING, time.time(), nonce, signed.raw, signed.tx_hash
                )
            )
            return await self._watch(identity)

    async def drop(self, identity: str, reason: str) -> BundleRecord:
        """Give up a bundle that was never sent."""
        return await self._finish(self._ledger.book.bundles[identity], BundleState.DROPPED, reason)

    async def follow(self) -> list[BundleRecord]:
        """One look at each pending bundle, chains side by side; returns those that have ended."""
        looks = [self._look_safely(record) for record in self._ledger.book.pending_bundles()]
        return [record for record in await asyncio.gather(*looks) if not record.is_pending]

    async def _watch(self, identity: str) -> BundleRecord:
        """Look until the chain has decided, the patience is at its end, or the daemon stops."""
        give_up = time.monotonic() + self._pace.watch_seconds
        while True:
            record = await self._look_safely(self._ledger.book.bundles[identity])
            if not record.is_pending or self.stop.is_set() or time.monotonic() > give_up:
                return record
            await asyncio.sleep(self._poll_seconds(self._chains[record.bundle.chain]))

    async def _look_safely(self, record: BundleRecord) -> BundleRecord:
        try:
            return await self._look(record)
        except (Unreachable, RpcError) as error:
            log.warning("chain_unreachable", chain=record.bundle.chain, reason=str(error))
        except FeeAboveCap as error:
            log.warning("fee_above_cap", bundle=record.bundle.id, reason=str(error))
        return self._ledger.book.bundles[record.bundle.id]

    async def _look(self, record: BundleRecord) -> BundleRecord:
        """Ask what became of a pending bundle and do what is due: send again, replace, give up."""
        chain, now = self._chains[record.bundle.chain], time.monotonic()
        watch = self._watches.setdefault(record.bundle.id, _Watch(now))
        mined = await self._mined(chain, record)
        if mined is not None:
            tx_hash, receipt = mined
            if await self._is_deep(chain, receipt):
                return await self._ended(record, tx_hash, receipt)
            return record
        if now - watch.asked_at >= self._poll_seconds(chain) * 0.9:
            watch.asked_at, watch.nulls = now, watch.nulls + 1
        is_sure = watch.nulls >= self._pace.lost_answers
        if await chain.nonce(self.address) > record.nonce:
            # An endpoint may be behind itself: the count of one block, the receipts of another.
            if is_sure and not await self._has_run(chain, record.bundle):
                reason = watch.refusal or "another transaction used its nonce"
                return await self._finish(record, BundleState.DROPPED, reason)
            return record
        deadline = record.bundle.deadline
        is_late = bool(deadline) and (await chain.head()).timestamp > deadline
        if is_late and record.state is BundleState.SENDING and watch.refusal and is_sure:
            # No node has taken it, and from now on the contract would refuse it.
            return await self._finish(record, BundleState.DROPPED, watch.refusal)
        is_broke = "insufficient funds" in watch.refusal.lower()  # higher fees would not help
        is_stuck = now - watch.signed_at >= self._pace.bump_seconds and not is_broke
        if (is_late and not record.cancelling) or is_stuck:
            watch.signed_at = now
            record = await self._replace(chain, record, bool(record.cancelling) or is_late)
            watch.sent_at = 0.0
        return await self._send(chain, record, watch)

    async def _mined(self, chain: Chain, record: BundleRecord) -> tuple[str, Receipt] | None:
        for tx_hash in record.hashes:
            receipt = await chain.receipt(tx_hash)
            if receipt is not None:
                return tx_hash, receipt
        return None

    async def _is_deep(self, chain: Chain, receipt: Receipt) -> bool:
        head = await chain.head()
        if head.number - receipt.block + 1 >= self._pace.confirmations:
            return True
        await chain.mine()  # a local chain has nobody else who makes blocks
        return False

    async def _has_run(self, chain: Chain, bundle: Bundled) -> bool:
        """Whether the contract remembers the bundle, whatever the receipts say."""
        batch = bundles.batch_of(bundle.data)
        if not batch:
            return False
        signature = "settledBatches(address,bytes32)"
        ran = await chain.read(
            bundle.to, signature, ["bool"], self.address, bytes.fromhex(batch[2:])
        )
        return bool(ran)

    async def _replace(self, chain: Chain, record: BundleRecord, cancels: bool) -> BundleRecord:
        signed = await chain.replacement(self._wallet, record.raw, cancels)
        await self._ledger.append(
            Replaced(record.bundle.id, signed.raw, signed.tx_hash, time.time(), cancels)
        )
        log.info("transaction_replaced", bundle=record.bundle.id, cancels=cancels)
        return self._ledger.book.bundles[record.bundle.id]

    async def _send(self, chain: Chain, record: BundleRecord, watch: _Watch) -> BundleRecord:
        """Send the stored bytes again when it is time: nodes forget transactions."""
        now = time.monotonic()
        pause = 0.0 if chain.is_local else self._pace.poll_seconds * _RESEND_POLLS
        if watch.sent_at and now - watch.sent_at < pause:
            return record
        watch.patience -= 1
        if watch.patience == 0:
            watch.patience = _LOCAL_PATIENCE_POLLS
            await chain.forget(record.tx_hash)
        watch.sent_at = now
        watch.refusal = await chain.send(record.raw)
        if "underpriced" in watch.refusal.lower():
            watch.signed_at = 0.0  # the node keeps an older one; outbid it at the next look
        if not watch.refusal and record.state is BundleState.SENDING:
            await self._ledger.append(BundleMoved(record.bundle.id, BundleState.SENT, time.time()))
        return self._ledger.book.bundles[record.bundle.id]

    def _poll_seconds(self, chain: Chain) -> float:
        return _LOCAL_POLL_SECONDS if chain.is_local else self._pace.poll_seconds

    async def _ended(self, record: BundleRecord, tx_hash: str, receipt: Receipt) -> BundleRecord:
        if tx_hash in record.cancelling:
            detail = "not mined in time; its nonce was used up"
            return await self._finish(record, BundleState.DROPPED, detail)
        state = BundleState.CONFIRMED if receipt.succeeded else BundleState.REVERTED
        return await self._finish(record, state, "", tx_hash, receipt)

    async def _finish(
        self,
        record: BundleRecord,
        state: BundleState,
        detail: str,
        tx_hash: str = "",
        receipt: Receipt | None = None,
    ) -> BundleRecord:
        now = time.time()
        block, gas_used, cost_wei = (
            (receipt.block, receipt.gas_used, receipt.cost_wei) if receipt else (0, 0, 0)
        )
        moved = BundleMoved(
            record.bundle.id,
            state,
            now,
            tx_hash=tx_hash,
            block=block,
            gas_used=gas_used,
            cost_wei=cost_wei,
            detail=detail,
        )
        self._watches.pop(record.bundle.id, None)
        await self._ledger.append(moved, *self._consequences(record.bundle, state, detail, now))
        log.info(
            "bundle_finished",
            bundle=record.bundle.id,
            role=record.bundle.role,
            chain=record.bundle.chain,
            state=state.value,
            detail=detail,
        )
        return self._ledger.book.bundles[record.bundle.id]

    def _consequences(
        self, bundle: Bundled, state: BundleState, detail: str, now: float
    ) -> list[Event]:
        book = self._ledger.book
        locked = {payment.digest for payment in bundle.locks}
        if state is not BundleState.CONFIRMED:
            return [
                Moved(fill.digest, IntentState.OPEN, now, "bundle_failed", detail)
                for fill in bundle.fills
                if book.intents[fill.digest].state is IntentState.BATCHED
            ]
        if bundle.role == "refund":
            escrow = book.escrows.get(bundle.order)
            if escrow is None or not self._is_escrowed(escrow.payment.digest):
                return []
            digest = escrow.payment.digest
            return [Moved(digest, IntentState.REFUNDED, now, "refunded", bundle=bundle.id)]
        steps: list[Event] = []
        for fill in bundle.fills:
            if fill.digest in locked:
                steps.append(Moved(fill.digest, IntentState.ESCROWED, now, bundle=bundle.id))
            else:
                steps.append(filled_by(book.intents[fill.digest], fill, bundle.id, now))
        steps += [
            filled_by(book.intents[payment.digest], payment.fill, bundle.id, now)
            for payment in bundle.payments
            if self._is_escrowed(payment.digest)
        ]
        return steps

    def _is_escrowed(self, digest: str) -> bool:
        return self._ledger.book.intents[digest].state is IntentState.ESCROWED


def payment_of(fill: CrossFill, swap: Swap, filled: Fill) -> Payment:
    """The record of a cross-chain payment of an order."""
    return Payment(
        filled.digest,
        fill.order_id,
        "0x" + bundles.fill_hash(fill, swap.buy_chain).hex(),
        swap.sell_chain,
        swap.buy_chain,
        fill.token,
        fill.receiver,
        fill.amount,
        fill.fill_deadline,
        swap.refund_after,
        filled,
    )


def blame_of(refusal: Refusal, bundle: Bundled) -> Blame:
    """The settlement's own error where there is one: its name and whom it is about."""
    data = refusal.data.removeprefix("0x")
    name = _BLAMES.get(data[:8])
    if name is None or len(data) < 72:
        return Blame(f"{refusal.reason} {_decoded(data)}".strip()[:300])
    (key,) = decode_answer(["bytes32"], data[8:72])
    named = "0x" + key.hex()
    orders = {payment.order: payment.digest for payment in bundle.payments}
    code = _CODES.get(name, "refused_by_contract")
    return Blame(name, orders.get(named, named), code)


def _decoded(data: str) -> str:
    """Revert data as ``Name(arguments)`` where the error is known, else as it is."""
    name, types = _KNOWN.get(data[:8], ("", ()))
    if not name:
        return f"0x{data}" if data else ""
    try:
        values = decode_answer(types, data[8:])
    except AbiError:
        return f"0x{data}"
    words = ("0x" + value.hex() if isinstance(value, bytes) else str(value) for value in values)
    return f"{name}({', '.join(words)})"

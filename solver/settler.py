"""Sends bundles and finds out what became of them; the only user of the solver's nonces.

A bundle's signed transaction is durable before its bytes leave. After a crash the same bytes are
sent again, so a bundle can be mined once at most; the contract refuses it after its deadline.
Each outcome of a bundle and the steps of its intents are one write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct

from solver.chain import Chain, Receipt, Refusal, RpcError, Unreachable, Wallet
from solver.core import bundle as bundles
from solver.core import crypto
from solver.core.abi import decode_answer, encode_call, selector
from solver.core.bundle import CrossFill
from solver.core.journal import Bundled, BundleMoved, BundleRecord, Event, Moved, Payment
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import Fill, Kind, Swap
from solver.ledger import Ledger

_ATTESTATION = crypto.keccak(b"Attestation(uint256 fillChain,bytes32 orderId,bytes32 fillHash)")
_GAS_MARGIN_PERCENT = 130
_POLL_SECONDS = 0.05
_LOCAL_PATIENCE_POLLS = 40
#: Errors of the settlement contract that carry the digest of the order at fault.
_BLAMES = {
    selector(f"{name}(bytes32)").hex(): name
    for name in (
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
    )
}

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


class Settler:
    """Executes bundles on every chain, one at a time per chain."""

    def __init__(
        self,
        ledger: Ledger,
        chains: Mapping[int, Chain],
        contracts: Mapping[int, Contracts],
        wallet: Wallet,
        attester: Wallet | None,
        confirmations: int,
        bundle_lifetime_seconds: int,
    ) -> None:
        self._ledger = ledger
        self._chains = dict(chains)
        self._contracts = dict(contracts)
        self._wallet = wallet
        self._attester = attester
        self._confirmations = confirmations
        self._lifetime_seconds = bundle_lifetime_seconds
        #: Escrows that are locked and neither claimed nor refunded, by order id.
        self._escrows: dict[str, Payment] = {}
        self._paid: set[str] = set()
        for record in ledger.book.bundles.values():
            self._note(record)

    async def recover(self) -> None:
        """Ask the chain about every bundle that a crash left open, and settle its intents."""
        for record in list(self._ledger.book.bundles.values()):
            if record.state is BundleState.BUILT:
                await self._finish(record, BundleState.DROPPED, "the daemon stopped before sending")
            elif record.is_pending:
                log.info("bundle_recovered", bundle=record.bundle.id, state=record.state.value)
                await self._watch(record.bundle.id)

    async def check(self, bundle: Bundled) -> Blame | int:
        """The gas that a bundle needs now, or why it would fail."""
        answer = await self._chains[bundle.chain].estimate(
            self._wallet.address, bundle.to, bundle.data
        )
        return _blame(answer) if isinstance(answer, Refusal) else answer

    async def execute(self, identity: str) -> BundleRecord:
        """Simulate, sign, write, send and watch one bundle that the ledger knows as built."""
        record = self._ledger.book.bundles[identity]
        bundle, chain = record.bundle, self._chains[record.bundle.chain]
        try:
            gas = await self.check(bundle)
            if isinstance(gas, Blame):
                return await self._finish(record, BundleState.DROPPED, gas.reason)
            nonce = await chain.nonce(self._wallet.address)
            limit = gas * _GAS_MARGIN_PERCENT // 100
            signed = await chain.prepare(self._wallet, bundle.to, bundle.data, limit, nonce)
        except (RpcError, Unreachable) as error:
            # Nothing has left; without this the intents would wait for a bundle that nobody sends.
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

    async def tend_escrows(self) -> None:
        """For every open escrow: pay late, claim, or refund, whatever is due now."""
        for order, payment in list(self._escrows.items()):
            state = self._ledger.book.intents[payment.digest].state
            try:
                if order in self._paid:
                    await self._claim(payment)
                elif state is IntentState.ESCROWED:
                    await self._pay_or_refund(payment)
            except Unreachable as error:
                log.warning("escrow_waits", order=order, reason=str(error))

    @property
    def open_escrows(self) -> int:
        """How many escrows wait for their claim or refund."""
        return len(self._escrows)

    async def _watch(self, identity: str) -> BundleRecord:
        """Send the stored bytes until the chain has decided; returns the final record."""
        patience = _LOCAL_PATIENCE_POLLS
        while True:
            record = self._ledger.book.bundles[identity]
            chain = self._chains[record.bundle.chain]
            try:
                receipt = await chain.receipt(record.tx_hash)
                if receipt is not None:
                    if await self._is_deep(chain, receipt):
                        return await self._mined(record, receipt)
                else:
                    patience -= 1
                    if patience == 0:
                        await chain.forget(record.tx_hash)
                        patience = _LOCAL_PATIENCE_POLLS
                    refusal = await chain.send(record.raw)
                    if refusal and await self._is_lost(chain, record):
                        return await self._finish(record, BundleState.DROPPED, refusal)
                    if not refusal and record.state is BundleState.SENDING:
                        await self._ledger.append(
                            BundleMoved(identity, BundleState.SENT, time.time())
                        )
            except Unreachable as error:
                log.warning("chain_unreachable", chain=chain.id, reason=str(error))
                await asyncio.sleep(_POLL_SECONDS * 10)
            await asyncio.sleep(_POLL_SECONDS)

    async def _is_deep(self, chain: Chain, receipt: Receipt) -> bool:
        head = await chain.head()
        return head.number - receipt.block + 1 >= self._confirmations

    async def _is_lost(self, chain: Chain, record: BundleRecord) -> bool:
        """Whether a refused transaction can never be mined: its nonce or its time has passed."""
        if await chain.receipt(record.tx_hash) is not None:
            return False
        if await chain.nonce(self._wallet.address) > record.nonce:
            # The receipt may have come between the two questions.
            return await chain.receipt(record.tx_hash) is None
        head = await chain.head()
        return bool(record.bundle.deadline) and head.timestamp > record.bundle.deadline

    async def _mined(self, record: BundleRecord, receipt: Receipt) -> BundleRecord:
        state = BundleState.CONFIRMED if receipt.succeeded else BundleState.REVERTED
        return await self._finish(record, state, "", receipt)

    async def _finish(
        self,
        record: BundleRecord,
        state: BundleState,
        detail: str,
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
            block=block,
            gas_used=gas_used,
            cost_wei=cost_wei,
            detail=detail,
        )
        await self._ledger.append(moved, *self._consequences(record.bundle, state, detail, now))
        after = self._ledger.book.bundles[record.bundle.id]
        self._note(after)
        log.info(
            "bundle_finished",
            bundle=record.bundle.id,
            role=record.bundle.role,
            chain=record.bundle.chain,
            state=state.value,
            detail=detail,
        )
        return after

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
            digest = self._escrows[bundle.order].digest
            return [Moved(digest, IntentState.REFUNDED, now, "refunded", bundle=bundle.id)]
        steps: list[Event] = []
        for fill in bundle.fills:
            if fill.digest in locked:
                steps.append(Moved(fill.digest, IntentState.ESCROWED, now, bundle=bundle.id))
            else:
                steps.append(self._filled(fill, bundle.id, now))
        steps += [self._filled(payment.fill, bundle.id, now) for payment in bundle.payments]
        return steps

    def _filled(self, fill: Fill, bundle: str, now: float) -> Moved:
        intent = self._ledger.book.intents[fill.digest].intent
        amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
        whole = intent.filled + amount >= intent.swap.total
        state = IntentState.SETTLED if whole else IntentState.OPEN
        return Moved(fill.digest, state, now, "" if whole else "partly_filled", "", fill, bundle)

    def _note(self, record: BundleRecord) -> None:
        """Keep the list of open escrows in step with a confirmed bundle."""
        if record.state is not BundleState.CONFIRMED:
            return
        bundle = record.bundle
        self._escrows.update((payment.order, payment) for payment in bundle.locks)
        self._paid.update(payment.order for payment in bundle.payments)
        if bundle.role in ("claim", "refund"):
            self._escrows.pop(bundle.order, None)
            self._paid.discard(bundle.order)

    async def _pay_or_refund(self, payment: Payment) -> None:
        there = self._chains[payment.target]
        if (await there.head()).timestamp <= payment.fill_deadline:
            await self._pay_late(payment)
            return
        here = self._chains[payment.origin]
        if (await here.head()).timestamp > payment.refund_after:
            data = encode_call("refund(bytes32)", bytes.fromhex(payment.order[2:]))
            await self._run(
                "refund", payment.origin, self._contracts[payment.origin].escrow, data, payment
            )

    async def _pay_late(self, payment: Payment) -> None:
        """Pay from inventory alone, because the bundle with the payment did not make it."""
        fill = CrossFill(
            payment.order, payment.token, payment.receiver, payment.amount, payment.fill_deadline
        )
        lone = bundles.Bundle(
            payment.target,
            (),
            ((payment.token, payment.amount),),
            (),
            (fill,),
            (payment.token,),
            0,
        )
        batch = "0x" + crypto.keccak(f"late {payment.order} {time.time_ns()}".encode()).hex()
        data = bundles.encode(lone, batch, payment.fill_deadline)
        contract = self._contracts[payment.target].settlement
        await self._run("settle", payment.target, contract, data, payment, paying=True)

    async def _claim(self, payment: Payment) -> None:
        """Show the escrow the attester's word that the payment was made, and take the tokens."""
        if self._attester is None:
            return
        paid = await self._chains[payment.target].read(
            self._contracts[payment.target].settlement,
            "fills(bytes32)",
            ["bool"],
            bytes.fromhex(payment.fill_hash[2:]),
        )
        if not paid:
            log.error("payment_not_found", order=payment.order, chain=payment.target)
            return
        separator = crypto.domain_separator(
            "Thalweg Attestation", "1", payment.origin, self._contracts[payment.origin].verifier
        )
        body = crypto.keccak(
            _ATTESTATION
            + crypto.word(payment.target)
            + crypto.word(payment.order)
            + crypto.word(payment.fill_hash)
        )
        proof = self._attester.sign_digest(crypto.typed_digest(separator, body))
        data = encode_call("claim(bytes32,bytes)", bytes.fromhex(payment.order[2:]), proof)
        await self._run(
            "claim", payment.origin, self._contracts[payment.origin].escrow, data, payment
        )

    async def _run(
        self, role: str, chain: int, to: str, data: str, payment: Payment, paying: bool = False
    ) -> None:
        now = time.time()
        identity = crypto.keccak(f"{role} {payment.order} {time.time_ns()}".encode())[:16].hex()
        built = Bundled(
            identity,
            "",
            role,
            chain,
            to,
            data,
            0,
            int(now) + self._lifetime_seconds,
            now,
            payments=(payment,) if paying else (),
            order="" if paying else payment.order,
        )
        blame = await self.check(built)
        if isinstance(blame, Blame):
            log.warning("escrow_waits", role=role, order=payment.order, reason=blame.reason)
            return
        await self._ledger.append(built)
        await self.execute(identity)


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


def _blame(refusal: Refusal) -> Blame:
    """The settlement's own error where there is one: its name and the digest it carries."""
    data = refusal.data.removeprefix("0x")
    name = _BLAMES.get(data[:8])
    if name is None or len(data) < 72:
        return Blame(f"{refusal.reason} {refusal.data}".strip()[:300])
    (digest,) = decode_answer(["bytes32"], data[8:72])
    code = "cancelled_on_chain" if name == "OrderCancelled" else "refused_by_contract"
    return Blame(name, "0x" + digest.hex(), code)


def batch_identity(digests: Sequence[str], snapshot_hash: str, at_ns: int) -> str:
    """The id of a batch: what it is about and when, as 32 bytes."""
    seed = "|".join([*sorted(digests), snapshot_hash, str(at_ns)])
    return "0x" + crypto.keccak(seed.encode()).hex()

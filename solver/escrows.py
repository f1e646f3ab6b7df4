"""Tends the escrows of cross-chain orders: pays late, claims, refunds, whatever is due.

What the chains say decides. A payment that is recorded is never made again, whatever became of the
transaction that made it; a lock that somebody else ended is booked as what it became. Anybody may
claim or refund, so our own bundles are only one of the ways in which an escrow ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct

from solver.chain import Chain, Unreachable, Wallet
from solver.core import bundle as bundles
from solver.core import crypto
from solver.core.abi import encode_call
from solver.core.bundle import CrossFill
from solver.core.journal import (
    Bundled,
    EscrowRecord,
    EscrowSeen,
    Event,
    Moved,
    Payment,
    Undone,
    filled_by,
)
from solver.core.lifecycle import BundleState, EscrowState, IntentState
from solver.ledger import Ledger
from solver.settler import Blame, Contracts, Settler

_ATTESTATION = crypto.keccak(b"Attestation(uint256 fillChain,bytes32 orderId,bytes32 fillHash)")
_LOCK = "(bytes32,bytes32,uint256,uint256,address,address,address,uint64,uint8)"
_NONE, _LOCKED, _CLAIMED, _REFUNDED = range(4)
_ENDED = {_CLAIMED: EscrowState.CLAIMED, _REFUNDED: EscrowState.REFUNDED}
#: A late payment needs time to be claimed before anybody may refund.
_CLAIM_MARGIN_SECONDS = 300
_DENIALS = 8

log = structlog.get_logger("thalweg.escrows")


class _Lock(Struct, frozen=True):
    """What the escrow holds for an order id: the parts that a payment depends on."""

    fill_hash: str
    solver: str
    state: int


class Escrows:
    """Every escrow that the ledger knows as open."""

    def __init__(
        self,
        ledger: Ledger,
        chains: Mapping[int, Chain],
        contracts: Mapping[int, Contracts],
        settler: Settler,
        attester: Wallet | None,
        confirmations: int,
    ) -> None:
        self._ledger = ledger
        self._chains = dict(chains)
        self._contracts = dict(contracts)
        self._settler = settler
        self._attester = attester
        self.confirmations = confirmations
        #: How often in a row an endpoint denied a payment that the ledger knows as made.
        self._denials: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many escrows wait for their claim or refund."""
        return len(self._ledger.book.escrows)

    async def tend(self) -> None:
        """For every open escrow: pay late, claim, or refund; pairs of chains side by side."""
        pairs: dict[tuple[int, int], list[EscrowRecord]] = {}
        for record in self._ledger.book.escrows.values():
            pair = (record.payment.origin, record.payment.target)
            pairs.setdefault(pair, []).append(record)
        await asyncio.gather(*(self._tend_pair(records) for records in pairs.values()))

    async def objection(self, payments: Sequence[Payment]) -> str:
        """Why a bundle with these payments must not be sent; empty when it may.

        The solver gets only what is locked: under this order id, for exactly this payment, for us.
        """
        for payment in payments:
            if await self._is_paid(payment):
                return f"{payment.order} is paid already"
            lock = await self._lock(payment)
            if not self._is_ours(lock, payment):
                return f"no escrow of ours is locked as {payment.order}"
        return ""

    async def _tend_pair(self, records: Sequence[EscrowRecord]) -> None:
        for record in records:
            try:
                await self._tend(record)
            except Unreachable as error:
                log.warning("escrow_waits", order=record.payment.order, reason=str(error))
                return

    async def _tend(self, record: EscrowRecord) -> None:
        payment = record.payment
        lock = await self._lock(payment)
        if lock.state in _ENDED:
            await self._book_end(record, _ENDED[lock.state])
        elif record.is_paid:
            await self._claim(payment)
        elif self._state(payment) is IntentState.ESCROWED:
            await self._pay_or_refund(payment, lock)

    async def _book_end(self, record: EscrowRecord, state: EscrowState) -> None:
        """Somebody else ended the escrow, or a transaction of ours that was believed lost."""
        payment, now = record.payment, time.time()
        steps: list[Event] = []
        if state is EscrowState.CLAIMED:
            # The escrow was shown that the receiver is paid, so the order is filled.
            steps += self._fill(payment, now)
        elif self._state(payment) is IntentState.ESCROWED:
            steps.append(Moved(payment.digest, IntentState.REFUNDED, now, "refunded"))
        else:
            log.error("paid_escrow_lost", order=payment.order, state=state.value)
        log.info("escrow_ended_elsewhere", order=payment.order, state=state.value)
        await self._ledger.append(*steps, EscrowSeen(payment.order, state, now))

    async def _pay_or_refund(self, payment: Payment, lock: _Lock) -> None:
        if await self._is_paid(payment):
            log.warning("payment_found", order=payment.order, chain=payment.target)
            now = time.time()
            seen = EscrowSeen(payment.order, EscrowState.PAID, now)
            await self._ledger.append(*self._fill(payment, now), seen)
            return
        if self._is_being_paid(payment):
            return
        here, there = self._chains[payment.origin], self._chains[payment.target]
        now_here, now_there = await here.clock(), await there.clock()
        in_time = now_there <= payment.fill_deadline
        claimable = now_here < payment.refund_after - _CLAIM_MARGIN_SECONDS
        if in_time and claimable and self._is_ours(lock, payment):
            await self._pay_late(payment)
        elif now_here > payment.refund_after and not in_time:
            if lock.state == _NONE:
                # A reorg took the lock, or it has another id: nothing of this order is held.
                log.error("lock_missing", order=payment.order, chain=payment.origin)
                await self._book_end(EscrowRecord(payment), EscrowState.MISSING)
                return
            data = encode_call("refund(bytes32)", bytes.fromhex(payment.order[2:]))
            to = self._contracts[payment.origin].escrow
            await self._run("refund", payment.origin, to, data, payment, deadline=0)

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
        # The order's own deadline, because the contract knows no other for this payment.
        data = bundles.encode(lone, batch, payment.fill_deadline)
        to, deadline = self._contracts[payment.target].settlement, payment.fill_deadline
        await self._run("settle", payment.target, to, data, payment, deadline)

    async def _claim(self, payment: Payment) -> None:
        """Show the escrow the attester's word that the payment was made, and take the tokens."""
        if self._attester is None:
            return
        there = self._chains[payment.target]
        final = (await there.head()).number - self.confirmations + 1
        if not await self._is_paid(payment, max(final, 0)):
            if not await self._is_paid(payment):
                await self._denied(payment)
            return
        self._denials.pop(payment.order, None)
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
        to = self._contracts[payment.origin].escrow
        await self._run("claim", payment.origin, to, data, payment, deadline=0)

    async def _denied(self, payment: Payment) -> None:
        """The payment is gone: after a few more denials believe that a reorg took it."""
        denials = self._denials[payment.order] = self._denials.get(payment.order, 0) + 1
        undoable = self._state(payment) in (IntentState.SETTLED, IntentState.OPEN)
        if denials < _DENIALS or not undoable:
            return
        log.error("payment_undone", order=payment.order, chain=payment.target)
        del self._denials[payment.order]
        now = time.time()
        await self._ledger.append(
            Undone(payment.digest, payment.fill, now),
            EscrowSeen(payment.order, EscrowState.UNPAID, now),
        )

    async def _run(
        self, role: str, chain: int, to: str, data: str, payment: Payment, deadline: int
    ) -> None:
        """One transaction for one escrow. ``deadline`` is one that the contract enforces, or 0."""
        if self._settler.is_busy(chain):
            return
        gas_price_wei = await self._chains[chain].gas_price_wei()
        if gas_price_wei > self._chains[chain].max_fee_wei:
            log.warning("escrow_waits", role=role, order=payment.order, gas_price_wei=gas_price_wei)
            return
        now, paying = time.time(), role == "settle"
        identity = crypto.keccak(f"{role} {payment.order} {time.time_ns()}".encode())[:16].hex()
        built = Bundled(
            identity,
            "",
            role,
            chain,
            to,
            data,
            0,
            deadline,
            now,
            payments=(payment,) if paying else (),
            order="" if paying else payment.order,
        )
        blame = await self._settler.check(built)
        if isinstance(blame, Blame):
            log.warning("escrow_waits", role=role, order=payment.order, reason=blame.reason)
            return
        await self._ledger.append(built)
        await self._settler.execute(identity)

    async def _is_paid(self, payment: Payment, block: int | None = None) -> bool:
        paid = await self._chains[payment.target].read(
            self._contracts[payment.target].settlement,
            "fills(bytes32)",
            ["bool"],
            bytes.fromhex(payment.fill_hash[2:]),
            block=block,
        )
        return bool(paid)

    async def _lock(self, payment: Payment) -> _Lock:
        lock = await self._chains[payment.origin].read(
            self._contracts[payment.origin].escrow,
            "locks(bytes32)",
            [_LOCK],
            bytes.fromhex(payment.order[2:]),
        )
        return _Lock("0x" + lock[1].hex(), lock[5], lock[8])

    def _is_ours(self, lock: _Lock, payment: Payment) -> bool:
        return (
            lock.state == _LOCKED
            and lock.fill_hash == payment.fill_hash
            and lock.solver == self._settler.address
        )

    def _is_being_paid(self, payment: Payment) -> bool:
        return any(
            payment.order in {other.order for other in record.bundle.payments}
            for record in self._ledger.book.pending_bundles()
        )

    def _fill(self, payment: Payment, now: float) -> list[Event]:
        """The step of the order that this payment fills, unless it was made already."""
        if self._state(payment) is not IntentState.ESCROWED:
            return []
        record = self._ledger.book.intents[payment.digest]
        return [filled_by(record, payment.fill, self._payer(payment), now)]

    def _payer(self, payment: Payment) -> str:
        """The latest bundle that was meant to make the payment."""
        found = [
            record.bundle.id
            for record in self._ledger.book.bundles.values()
            if record.state in (BundleState.DROPPED, BundleState.REVERTED)
            and payment.order in {other.order for other in record.bundle.payments}
        ]
        return found[-1] if found else ""

    def _state(self, payment: Payment) -> IntentState:
        return self._ledger.book.intents[payment.digest].state

"""Which intents the next batch is about.

Only what can be settled now: open, valid, covered by its owner's approved balance, on chains that
answer and where no transaction of ours is on its way. Whoever was tried longest ago goes first, so
that orders which rest out of reach cannot keep others out of a full batch for ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from solver.chain import Chain, Unreachable
from solver.config import Config
from solver.core.intent import max_sell
from solver.core.journal import IntentRecord, Moved
from solver.core.lifecycle import IntentState
from solver.core.types import Intent, Kind, OpenReason, Swap, TokenId
from solver.core.venue import Snapshot
from solver.holds import Holds
from solver.intake import World
from solver.ledger import Ledger
from solver.reasons import Reasons
from solver.settler import Settler

_CLOCK_SLACK_SECONDS = 2
_Direction = tuple[int, int]


class Selection:
    """Chooses candidates, and tells everybody else why they are none."""

    def __init__(
        self,
        config: Config,
        world: World,
        ledger: Ledger,
        chains: Mapping[int, Chain],
        settler: Settler,
        holds: Holds,
        reasons: Reasons,
    ) -> None:
        self._config = config
        self._world = world
        self._ledger = ledger
        self._chains = dict(chains)
        self._settler = settler
        self._holds = holds
        self._reasons = reasons
        self._round = 0
        self._tried: dict[str, int] = {}
        self._went: dict[_Direction, int] = {}

    async def suspects(self, snapshot: Snapshot) -> list[IntentRecord]:
        """The next group of suspects, as far as it can be tried now."""
        return await self._take(snapshot, frozenset(self._holds.next_group()))

    async def candidates(self, snapshot: Snapshot) -> list[IntentRecord]:
        """Everybody who is no suspect, up to the size of a batch."""
        return await self._take(snapshot, None)

    async def _take(self, snapshot: Snapshot, only: frozenset[str] | None) -> list[IntentRecord]:
        if only == frozenset():
            return []
        if not snapshot.prices:
            detail = snapshot.excluded.get("prices", "there are none")
            records = self._ledger.book.open_intents()
            await self._reasons.tell(
                [OpenReason(r.intent.digest, "prices_stale", detail) for r in records]
            )
            return []
        now, suspects = time.time(), self._holds.suspects
        ready = [
            record
            for record in self._ledger.book.open_intents()
            if record.intent.swap.valid_from <= now - _clock_slack(record)
            and not self._holds.is_held(record.intent.digest, now)
            and (
                record.intent.digest not in suspects
                if only is None
                else record.intent.digest in only
            )
        ]
        closed = self._closed(snapshot)
        ready = await self._on_open_chains(ready, closed)
        ready = await self._without_cancelled(ready, closed)
        ready.sort(key=lambda record: (self._tried.get(record.intent.digest, 0), record.number))
        free = await self._spendable(ready, closed)
        taken = await self._fitting(ready, free, now)
        self._round += 1
        open_digests = {record.intent.digest for record in self._ledger.book.open_intents()}
        self._tried = {d: n for d, n in self._tried.items() if d in open_digests}
        self._tried.update((record.intent.digest, self._round) for record in taken)
        # A cancellation may have come in while the chains were asked.
        return [record for record in taken if self._is_open(record)]

    def _closed(self, snapshot: Snapshot) -> dict[int, tuple[str, str]]:
        """Chains on which nothing can be settled now: a code and the reason."""
        closed: dict[int, tuple[str, str]] = {}
        for number, chain in self._chains.items():
            price_wei = snapshot.gas_price_wei.get(number, 0)
            if number not in snapshot.blocks:
                closed[number] = ("chain_unreachable", f"chain {number} does not answer")
            elif self._settler.is_busy(number):
                reason = f"a transaction on chain {number} is not final yet"
                closed[number] = ("chain_busy", reason)
            elif price_wei > chain.max_fee_wei:
                reason = f"gas on chain {number} costs {price_wei} wei"
                closed[number] = ("gas_price_above_cap", reason)
        return closed

    async def _on_open_chains(
        self, records: Sequence[IntentRecord], closed: Mapping[int, tuple[str, str]]
    ) -> list[IntentRecord]:
        kept, reasons = [], []
        for record in records:
            swap = record.intent.swap
            where = next((c for c in (swap.sell_chain, swap.buy_chain) if c in closed), None)
            if where is None:
                kept.append(record)
            else:
                reasons.append(OpenReason(record.intent.digest, *closed[where]))
        await self._reasons.tell(reasons)
        return kept

    async def _without_cancelled(
        self, records: Sequence[IntentRecord], closed: dict[int, tuple[str, str]]
    ) -> list[IntentRecord]:
        """Leave out, and mark, what the owner cancelled on chain or another solver filled."""
        kept: list[IntentRecord] = []
        for chain_id, chain in self._chains.items():
            here = [r for r in records if r.intent.swap.sell_chain == chain_id]
            if not here:
                continue
            contract = self._world.contracts[chain_id].settlement
            asked = [(r.intent.swap.owner, r.intent.digest) for r in here]
            try:
                flags = await chain.orders(contract, asked)
            except Unreachable as error:
                closed[chain_id] = ("chain_unreachable", str(error))
                continue
            for record, (cancelled, filled) in zip(here, flags, strict=True):
                digest = record.intent.digest
                if not self._is_open(record):
                    continue
                if cancelled:
                    await self._ledger.append(
                        Moved(digest, IntentState.CANCELLED, time.time(), "cancelled_on_chain")
                    )
                elif filled != record.intent.filled:
                    detail = f"the contract counts {filled}, the ledger {record.intent.filled}"
                    await self._reasons.tell([OpenReason(digest, "filled_elsewhere", detail)])
                else:
                    kept.append(record)
        return kept

    async def _spendable(
        self, records: Sequence[IntentRecord], closed: dict[int, tuple[str, str]]
    ) -> dict[tuple[str, TokenId], int]:
        purses = {(r.intent.swap.owner, r.intent.swap.sell) for r in records}
        found: dict[tuple[str, TokenId], int] = {}
        for chain_id, chain in self._chains.items():
            here = sorted(purse for purse in purses if purse[1].chain == chain_id)
            wanted = [(token.address, owner) for owner, token in here]
            holder = self._world.contracts[chain_id].holder
            try:
                amounts = await chain.balances(wanted, holder) if wanted else []
            except Unreachable as error:
                closed[chain_id] = ("chain_unreachable", str(error))
                continue
            found.update(zip(here, amounts, strict=True))
        return found

    async def _fitting(
        self, ready: Sequence[IntentRecord], free: dict[tuple[str, TokenId], int], now: float
    ) -> list[IntentRecord]:
        """Those whose owners can pay, in one direction across chains, up to the limit."""
        direction = self._next_direction(ready, now)
        if direction is not None:
            self._went[direction] = self._round + 1
        taken: list[IntentRecord] = []
        reasons: list[OpenReason] = []
        for record in ready:
            swap, purse = record.intent.swap, (record.intent.swap.owner, record.intent.swap.sell)
            if purse not in free:
                continue  # its chain went silent just now
            need, digest = _most_sold(record.intent), record.intent.digest
            short = need > free[purse]
            if short and swap.partial_fill and (covered := _covered(swap, free[purse])) > 0:
                detail = f"its balance covers {free[purse]} of {need}; that part takes part"
                reasons.append(OpenReason(digest, "insufficient_balance", detail))
                record = replace(record, intent=replace(record.intent, covered=covered))
                need, short = _most_sold(record.intent), False
            if swap.is_cross_chain and self._is_late(record, now):
                reasons.append(_too_late(record))
            elif swap.is_cross_chain and (swap.sell_chain, swap.buy_chain) != direction:
                detail = "the opposite direction goes first; each would wait for the other's escrow"
                reasons.append(OpenReason(digest, "other_direction", detail))
            elif short:
                detail = f"needs {need}, {free[purse]} are approved and not promised elsewhere"
                reasons.append(OpenReason(digest, "insufficient_balance", detail))
            elif len(taken) == self._config.batch.max_intents:
                detail = f"a batch takes {len(taken)}; those tried longest ago go first"
                reasons.append(OpenReason(digest, "batch_full", detail))
            else:
                free[purse] -= need
                taken.append(record)
        await self._reasons.tell(reasons)
        return taken

    def _next_direction(self, ready: Sequence[IntentRecord], now: float) -> _Direction | None:
        """The direction across chains that was tried longest ago."""
        wanted = [
            (record.intent.swap.sell_chain, record.intent.swap.buy_chain)
            for record in ready
            if record.intent.swap.is_cross_chain and not self._is_late(record, now)
        ]
        return min(wanted, key=lambda direction: self._went.get(direction, 0), default=None)

    def _is_late(self, record: IntentRecord, now: float) -> bool:
        return record.intent.swap.fill_deadline < now + self._config.batch.min_fill_seconds

    def _is_open(self, record: IntentRecord) -> bool:
        state = self._ledger.book.intents[record.intent.digest].state
        return state is IntentState.OPEN


def _clock_slack(record: IntentRecord) -> int:
    """The chain's clock may be behind ours; a validity that starts later waits that long."""
    return _CLOCK_SLACK_SECONDS if record.intent.swap.valid_from else 0


def _too_late(record: IntentRecord) -> OpenReason:
    return OpenReason(
        record.intent.digest,
        "fill_deadline_near",
        "there is too little time left to be sure of the payment, and a lock would last until "
        "refundAfter",
    )


def _covered(swap: Swap, purse: int) -> int:
    """How much of an order a purse pays for at its limit, in the unit of its total."""
    return purse if swap.kind is Kind.EXACT_IN else purse * swap.buy_amount // swap.sell_amount


def _most_sold(intent: Intent) -> int:
    """The most that filling the rest may pull from the owner."""
    swap = intent.swap
    return intent.remaining if swap.kind is Kind.EXACT_IN else max_sell(swap, intent.remaining)

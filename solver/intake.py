"""What a client may ask for: submit, cancel, quote, draft. Decides and writes; never settles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import asdict, replace

from solver.config import Config
from solver.core.batch import Terms
from solver.core.intent import (
    MIN_CLAIM_WINDOW_SECONDS,
    Admission,
    cancel_digest,
    check_signature,
    check_swap,
    check_terms,
    digest_of,
    limit_from_price,
)
from solver.core.journal import Accepted, Book, Cancelling, IntentRecord, Moved
from solver.core.lifecycle import IntentState
from solver.core.schedule import FeeSchedule
from solver.core.types import (
    BPS,
    UINT256_MAX,
    ZERO_BYTES32,
    Intent,
    Kind,
    Rejection,
    Solution,
    Swap,
    Token,
    TokenId,
)
from solver.core.venue import Snapshot
from solver.ledger import Ledger
from solver.market import Market
from solver.settler import Contracts
from solver.worker import PoolFailed, SolverFailed, Worker

FILL_GAS = 140_000
_PARTS = 100
_MAX_SIGNATURE_HEX = 2 + 2 * 65


class World(Struct, frozen=True):
    """What this daemon serves: contracts and tokens, and the tokens that gas is valued by."""

    contracts: dict[int, Contracts]
    tokens: dict[TokenId, Token]
    natives: dict[int, TokenId]
    cross_chain: bool


def gas_values(snapshot: Snapshot, world: World) -> dict[int, float]:
    """The numeraire value of one unit of gas per chain; 0 where the native token has no price."""
    values = {}
    for chain, price_wei in snapshot.gas_price_wei.items():
        native = world.natives.get(chain)
        values[chain] = price_wei * snapshot.prices.get(native, 0.0) if native else 0.0
    return values


def fee_of(swap: Swap, snapshot: Snapshot, gas_value: Mapping[int, float]) -> int:
    """The flat gas share of one fill, in the buy token, rounded up; 0 when it cannot be valued."""
    chains = (swap.sell_chain, swap.buy_chain) if swap.is_cross_chain else (swap.sell_chain,)
    cost = sum(FILL_GAS * gas_value.get(chain, 0.0) for chain in chains)
    price = snapshot.prices.get(swap.buy, 0.0)
    return int(cost / price) + 1 if price > 0.0 and cost > 0.0 else 0


def terms_of(
    intents: tuple[Intent, ...], snapshot: Snapshot, world: World, config: Config
) -> Terms:
    """The operator's terms for a batch."""
    values = gas_values(snapshot, world)
    return Terms(
        fees={intent.digest: fee_of(intent.swap, snapshot, values) for intent in intents},
        gas_value=max(values.values(), default=0.0),
        max_impact_bps=config.batch.max_impact_bps,
        capital_bps=config.batch.capital_bps,
        schedule=FeeSchedule(**asdict(config.fees)),
    )


class Intake:
    """The client's side of the daemon."""

    def __init__(
        self, config: Config, world: World, ledger: Ledger, market: Market, worker: Worker
    ) -> None:
        self.world = world
        self._config = config
        self._ledger = ledger
        self._market = market
        self._worker = worker

    @property
    def book(self) -> Book:
        """The state of the ledger."""
        return self._ledger.book

    async def submit(self, swap: Swap, signature: str) -> tuple[IntentRecord, bool] | Rejection:
        """The durable record of an intent and whether it is new."""
        raw = _signature(signature)
        if isinstance(raw, Rejection):
            return raw
        if swap.sell_chain not in self.world.contracts:
            return Rejection(
                "wrong_chain", f"chain {swap.sell_chain} is not served here", "/swap/sellChain"
            )
        digest = digest_of(swap, self.world.contracts[swap.sell_chain].settlement)
        known = self.book.intents.get(digest)
        refusal = check_signature(swap, digest, raw)
        if refusal is None and known is None:
            refusal = self._admit(swap)
        if refusal is not None:
            return refusal
        if known is None:
            await self._ledger.append(Accepted(digest, swap, signature.lower(), time.time()))
        else:
            await self._ledger.durable()
        return self.book.intents[digest], known is None

    async def cancel(self, digest: str, signature: str) -> IntentRecord | Rejection:
        """Cancel an open intent on its owner's word. A batched one is on its way to the chain."""
        record = self.book.intents.get(digest)
        if record is None:
            return Rejection("not_found", f"no intent {digest}")
        raw = _signature(signature)
        if isinstance(raw, Rejection):
            return raw
        swap = record.intent.swap
        settlement = self.world.contracts[swap.sell_chain].settlement
        asked = cancel_digest(digest, swap.sell_chain, settlement)
        refusal = check_signature(swap, "0x" + asked.hex(), raw)
        if refusal is not None:
            return refusal
        if record.state is IntentState.CANCELLED:
            await self._ledger.durable()
            return record
        if record.state is not IntentState.OPEN:
            return Rejection("wrong_state", f"the intent is {record.state.value}")
        now = time.time()
        await self._ledger.append(
            Cancelling(digest, signature.lower(), now),
            Moved(digest, IntentState.CANCELLED, now, "cancelled_by_owner"),
        )
        return self.book.intents[digest]

    async def quote(self, swap: Swap) -> Solution | Rejection:
        """What the order would get now, alone."""
        snapshot = self._market.snapshot
        if snapshot is None:
            return Rejection("not_ready", "there is no snapshot of the market yet")
        refusal = self._check_world(swap)
        if refusal is not None:
            return refusal
        intents = (self.probe(swap),)
        terms = terms_of(intents, snapshot, self.world, self._config)
        while True:
            try:
                return await self._worker.quote(
                    snapshot, intents, terms, self._config.batch.solve_timeout_seconds
                )
            except PoolFailed as error:
                # Left out of this answer only: a client must not be able to pause a venue by asking
                # for an amount that it cannot take.
                pools = tuple(pool for pool in snapshot.pools if pool.id != error.pool)
                if len(pools) == len(snapshot.pools):
                    return Rejection("solver_failed", str(error))
                snapshot = replace(snapshot, pools=pools)
            except SolverFailed as error:
                return Rejection("solver_failed", str(error))

    def probe(self, swap: Swap) -> Intent:
        """The order as an intent without a signature."""
        settlement = self.world.contracts[swap.sell_chain].settlement
        return Intent(digest_of(swap, settlement), swap, "0x")

    def complete(
        self,
        swap: Swap,
        lifetime_seconds: int,
        slippage_bps: int,
        stated: frozenset[str] = frozenset(),
    ) -> Swap | Rejection:
        """A draft with times, nonce, fee cap and hard limit, ready to be signed.

        Of the amounts, ``nonce`` and ``max_fee``, those that are zero and not ``stated`` are filled
        in. The limit comes from the reference prices, never from a pool, less twice the flat fee,
        and is rounded towards the owner. What could not be submitted is refused here already.
        """
        refusal = self._check_world(swap)
        if refusal is not None:
            return refusal
        if not 0 <= slippage_bps < BPS:
            return Rejection("bad_slippage", f"not in [0, {BPS})", "/slippageBps")
        longest = self._config.limits.max_lifetime_seconds
        if lifetime_seconds < 1:
            return Rejection("bad_times", "not positive", "/lifetimeSeconds")
        if lifetime_seconds > longest:
            return Rejection("too_long_lived", f"at most {longest} s", "/lifetimeSeconds")
        now = int(time.time())
        until = now + lifetime_seconds
        fields = {name: getattr(swap, name) for name in Swap.__struct_fields__}
        fields["valid_until"] = until
        if swap.is_cross_chain:
            fields["fill_deadline"] = until
            fields["refund_after"] = until + MIN_CLAIM_WINDOW_SECONDS
        if not swap.nonce and "nonce" not in stated:
            fields["nonce"] = secrets.randbits(64)
        snapshot = self._market.snapshot
        if snapshot is None:
            return Rejection("not_ready", "there is no snapshot of the market yet")
        if not swap.max_fee and "max_fee" not in stated:
            flat = fee_of(swap, snapshot, gas_values(snapshot, self.world))
            # Every partial fill carries the flat fee, within its share of the cap.
            fields["max_fee"] = flat * (_PARTS if swap.partial_fill else 2)
        limited = self._limit(Swap(**fields), slippage_bps, stated, snapshot)
        if isinstance(limited, Rejection):
            return limited
        refusal = check_terms(limited, self._policy(limited))
        return limited if refusal is None else _in_draft(refusal)

    def _limit(
        self, swap: Swap, slippage_bps: int, stated: frozenset[str], snapshot: Snapshot
    ) -> Swap | Rejection:
        exact_in = swap.kind is Kind.EXACT_IN
        given, bound = ("sell_amount", "buy_amount") if exact_in else ("buy_amount", "sell_amount")
        amount = getattr(swap, given)
        if amount <= 0:
            return Rejection(
                "zero_amount", f"{_camel(given)} must be positive", f"/{_camel(given)}"
            )
        if getattr(swap, bound) > 0:
            return swap
        if bound in stated:
            detail = "zero is no limit; leave it out to get one from slippageBps"
            return Rejection("zero_amount", detail, f"/{_camel(bound)}")
        price_in, price_out = snapshot.prices.get(swap.sell), snapshot.prices.get(swap.buy)
        if not price_in or not price_out:
            return Rejection("no_price", "no reference price to turn slippage into a limit")
        limit = limit_from_price(swap.kind, amount, price_in, price_out, slippage_bps, swap.max_fee)
        blamed = "/maxFee" if "max_fee" in stated else f"/{_camel(given)}"
        if limit <= 0:
            return Rejection("below_gas", "fee and slippage leave nothing of its worth", blamed)
        if limit > UINT256_MAX or swap.max_fee > UINT256_MAX:
            detail = "the limit that follows from it does not fit into 256 bits"
            return Rejection("amount_too_large", detail, blamed)
        fields = {name: getattr(swap, name) for name in Swap.__struct_fields__}
        fields[bound] = limit
        return Swap(**fields)

    def _check_world(self, swap: Swap) -> Rejection | None:
        for side, token in (("sell", swap.sell), ("buy", swap.buy)):
            if token.chain not in self.world.contracts:
                detail = f"chain {token.chain} is not served here"
                return Rejection("wrong_chain", detail, f"/{side}Chain")
            if token not in self.world.tokens:
                return Rejection("unknown_asset", f"{token} is not known", f"/{side}Asset")
        if swap.is_cross_chain and not self.world.cross_chain:
            return Rejection("cross_chain_disabled", "this daemon has no attester", "/buyChain")
        return None

    def _admit(self, swap: Swap) -> Rejection | None:
        if swap.is_cross_chain and not self.world.cross_chain:
            return Rejection(
                "cross_chain_disabled", "this daemon has no attester", "/swap/buyChain"
            )
        return check_swap(swap, self._policy(swap))

    def _policy(self, swap: Swap) -> Admission:
        contracts = self.world.contracts.values()
        value, least = self._worth(swap)
        open_records = [record for record in self.book.intents.values() if not record.is_final]
        limits = self._config.limits
        return Admission(
            settlements={chain: c.settlement for chain, c in self.world.contracts.items()},
            forbidden_receivers=frozenset(
                address for c in contracts for address in (c.settlement, c.holder, c.escrow)
            ),
            tokens=frozenset((token.chain, token.address) for token in self.world.tokens),
            now=int(time.time()),
            max_lifetime_seconds=limits.max_lifetime_seconds,
            max_open_per_owner=limits.max_open_per_owner,
            max_open_total=limits.max_open_total,
            open_of_owner=sum(record.intent.swap.owner == swap.owner for record in open_records),
            open_total=len(open_records),
            value=value,
            min_value=least,
        )

    def _worth(self, swap: Swap) -> tuple[float | None, float]:
        """The order's value and the least it must have; no value while there is no price.

        Exact-in it is worth what it sells: the limit is a floor and may be as low as its owner
        likes. Exact-out it is worth the less of what it buys and what it may pay for it: an order
        that asks for a fortune and offers nothing would otherwise be a large one.
        """
        snapshot = self._market.snapshot
        if snapshot is None:
            return None, 0.0
        sides = [(swap.sell, swap.sell_amount)]
        if swap.kind is Kind.EXACT_OUT:
            sides.append((swap.buy, swap.buy_amount))
        prices = snapshot.prices
        values = [amount * prices[token] for token, amount in sides if token in prices]
        gas = FILL_GAS * gas_values(snapshot, self.world).get(swap.sell_chain, 0.0)
        least = gas + self._config.limits.min_value_usd
        return min(values, default=None), least


def blank_swap(
    owner: str,
    receiver: str,
    sell: TokenId,
    buy: TokenId,
    kind: Kind,
    sell_amount: int,
    buy_amount: int,
    partial_fill: bool,
    nonce: int,
    max_fee: int,
) -> Swap:
    """A swap with the fields of later versions and the times still zero."""
    return Swap(
        owner=owner,
        account=ZERO_BYTES32,
        receiver=receiver,
        sell_chain=sell.chain,
        sell_asset="0x" + sell.address[2:].rjust(64, "0"),
        buy_chain=buy.chain,
        buy_asset="0x" + buy.address[2:].rjust(64, "0"),
        sell_amount=sell_amount,
        buy_amount=buy_amount,
        kind=kind,
        partial_fill=partial_fill,
        nonce=nonce,
        valid_from=0,
        valid_until=0,
        fill_deadline=0,
        refund_after=0,
        max_fee=max_fee,
        min_health=0,
        extension=ZERO_BYTES32,
    )


def cancel_typed_data(digest: str, chain: int, settlement: str) -> dict[str, object]:
    """The EIP-712 document with which an owner cancels."""
    return {
        "domain": {
            "name": "Thalweg",
            "version": "1",
            "chainId": chain,
            "verifyingContract": settlement,
        },
        "primaryType": "Cancel",
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Cancel": [{"name": "digest", "type": "bytes32"}],
        },
        "message": {"digest": digest},
    }


def _signature(text: str) -> bytes | Rejection:
    if len(text) != _MAX_SIGNATURE_HEX or not text.startswith("0x"):
        return Rejection("bad_signature", "not 0x and 130 hex digits", "/signature")
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        return Rejection("bad_signature", "not hex", "/signature")


def _in_draft(refusal: Rejection) -> Rejection:
    """A refusal of the completed order as one of the draft: the lifetime makes its times."""
    field = refusal.pointer.removeprefix("/swap/")
    return Rejection(
        refusal.code, refusal.detail, "/lifetimeSeconds" if field == "validUntil" else f"/{field}"
    )


def _camel(name: str) -> str:
    first, _, rest = name.partition("_")
    return first + rest.title()

"""A solution as ordered contract calls: one bundle per chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from solver.core.abi import encode_call, selector
from solver.core.crypto import keccak, word
from solver.core.types import ZERO_ADDRESS, Call, Fill, Intent, Kind, Leg, Solution, Swap, TokenId
from solver.core.venue import Pool

_SWAP_TUPLE = (
    "(address,bytes32,address,uint256,bytes32,uint256,bytes32,uint256,uint256,uint8,bool,uint256,"
    "uint64,uint64,uint64,uint64,uint256,uint256,bytes32)"
)
SETTLE = (
    "settle(bytes32,uint256,"
    f"({_SWAP_TUPLE},bytes,uint256,uint256,uint256,uint256)[],"
    "(address,uint256)[],"
    "(address,bytes,address,uint256)[],"
    "(bytes32,address,address,uint256,uint64)[],"
    "address[])"
)
_TRADE_GAS, _BASE_GAS = 140_000, 90_000


class CrossFill(Struct, frozen=True):
    """A payment on the buy chain for an order whose sold tokens are in escrow."""

    order_id: str
    token: str
    receiver: str
    amount: int
    fill_deadline: int


class Trade(Struct, frozen=True):
    """One fill with what the contract needs to check it."""

    intent: Intent
    fill: Fill


class Bundle(Struct, frozen=True):
    """Everything that one ``settle`` call carries on one chain."""

    chain: int
    trades: tuple[Trade, ...]
    funding: tuple[tuple[str, int], ...]
    calls: tuple[Call, ...]
    cross_fills: tuple[CrossFill, ...]
    sweep: tuple[str, ...]
    gas: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send on this chain."""
        return not (self.trades or self.cross_fills)


def order_id(digest: str, filled_before: int) -> str:
    """The contract's id of one cross-chain fill: keccak(abi.encode(digest, filledBefore))."""
    return "0x" + keccak(word(digest) + word(filled_before)).hex()


def fill_hash(fill: CrossFill, chain: int) -> bytes:
    """The contract's hash of a payment: what an attester signs and the escrow demands."""
    return keccak(
        word(fill.order_id)
        + word(chain)
        + word(fill.token)
        + word(fill.receiver)
        + word(fill.amount)
        + word(fill.fill_deadline)
    )


def build(
    solution: Solution,
    intents: Mapping[str, Intent],
    pools: Mapping[str, Pool],
    settlements: Mapping[int, str],
) -> list[Bundle]:
    """One bundle per chain that has something to do, the locking chain first.

    Legs keep their order; each sends its output back to the settlement contract.
    """
    chains = sorted({token.chain for fill in solution.fills for token in _ends(intents, fill)})
    bundles = [_bundle(chain, solution, intents, pools, settlements) for chain in chains]
    bundles.sort(key=lambda bundle: (bool(bundle.cross_fills), bundle.chain))
    return [bundle for bundle in bundles if not bundle.is_empty]


def encode(bundle: Bundle, batch_id: str, deadline: int) -> str:
    """The calldata of ``Settlement.settle``."""
    return encode_call(
        SETTLE,
        _bytes(batch_id),
        deadline,
        [
            (
                _swap_words(trade.intent.swap),
                _bytes(trade.intent.signature),
                trade.fill.sell,
                trade.fill.buy,
                trade.fill.fee,
                trade.intent.filled,
            )
            for trade in bundle.trades
        ],
        list(bundle.funding),
        [
            (call.target, _bytes(call.data), *(call.approve or (ZERO_ADDRESS, 0)))
            for call in bundle.calls
        ],
        [
            (_bytes(fill.order_id), fill.token, fill.receiver, fill.amount, fill.fill_deadline)
            for fill in bundle.cross_fills
        ],
        list(bundle.sweep),
    )


def batch_of(data: str) -> str:
    """The batch id in the calldata of ``settle``; empty for any other call."""
    digits = data.removeprefix("0x")
    is_settle = digits[:8] == selector(SETTLE).hex() and len(digits) >= 72
    return "0x" + digits[8:72] if is_settle else ""


def _ends(intents: Mapping[str, Intent], fill: Fill) -> tuple[TokenId, TokenId]:
    swap = intents[fill.digest].swap
    return swap.sell, swap.buy


def _bundle(
    chain: int,
    solution: Solution,
    intents: Mapping[str, Intent],
    pools: Mapping[str, Pool],
    settlements: Mapping[int, str],
) -> Bundle:
    trades = tuple(
        Trade(intents[fill.digest], fill)
        for fill in solution.fills
        if intents[fill.digest].swap.sell_chain == chain
    )
    arriving = tuple(
        cross_fill(intents[fill.digest], fill.buy)
        for fill in solution.fills
        if intents[fill.digest].swap.is_cross_chain and intents[fill.digest].swap.buy_chain == chain
    )
    funding: dict[str, int] = {}
    for use in solution.inventory:
        if use.token_out.chain == chain:
            token = use.token_out.address
            funding[token] = funding.get(token, 0) + use.amount_out
    legs = [leg for leg in solution.legs if leg.token_in.chain == chain]
    calls = [call for leg in legs for call in _calls(leg, pools[leg.pool], settlements[chain])]
    touched = {token.address for leg in legs for token in (leg.token_in, leg.token_out)}
    for trade in trades:
        swap = trade.intent.swap
        if not swap.is_cross_chain:
            touched |= {swap.sell.address, swap.buy.address}
    gas = _BASE_GAS + _TRADE_GAS * (len(trades) + len(arriving)) + sum(leg.gas for leg in legs)
    return Bundle(
        chain,
        trades,
        tuple(sorted(funding.items())),
        tuple(calls),
        arriving,
        tuple(sorted(touched | set(funding))),
        gas,
    )


def cross_fill(intent: Intent, amount: int) -> CrossFill:
    """The payment that a lock of this intent demands, before the lock changed ``filled``."""
    swap = intent.swap
    return CrossFill(
        order_id(intent.digest, intent.filled),
        swap.buy.address,
        swap.receiver,
        amount,
        swap.fill_deadline,
    )


def _calls(leg: Leg, pool: Pool, settlement: str) -> Sequence[Call]:
    return pool.encode(
        Leg(
            leg.pool,
            leg.token_in,
            leg.token_out,
            leg.amount_in,
            leg.amount_out,
            leg.gas,
            settlement,
        )
    )


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def _swap_words(swap: Swap) -> tuple[object, ...]:
    return (
        swap.owner,
        _bytes(swap.account),
        swap.receiver,
        swap.sell_chain,
        _bytes(swap.sell_asset),
        swap.buy_chain,
        _bytes(swap.buy_asset),
        swap.sell_amount,
        swap.buy_amount,
        0 if swap.kind is Kind.EXACT_IN else 1,
        swap.partial_fill,
        swap.nonce,
        swap.valid_from,
        swap.valid_until,
        swap.fill_deadline,
        swap.refund_after,
        swap.max_fee,
        swap.min_health,
        _bytes(swap.extension),
    )

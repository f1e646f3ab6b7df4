"""Builders that every test family uses: tokens, intents, pools, snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from solver.core import crypto
from solver.core.intent import digest_of
from solver.core.pools import ConstantProductPool
from solver.core.types import ZERO_BYTES32, Intent, Kind, Swap, TokenId
from solver.core.venue import Pool, Snapshot

UNIT = 10**18
SETTLEMENT = "0x" + "5e" * 20
KEY = (7).to_bytes(32, "big")
OWNER = crypto.address_from_key(KEY)
A, B, C, D = (TokenId(1, "0x" + letter * 40) for letter in "abcd")
PRICES = dict.fromkeys((A, B, C, D), 1e-18)


def asset(token: TokenId) -> str:
    return "0x" + "00" * 12 + token.address[2:]


def swap(
    sell: TokenId = A,
    buy: TokenId = B,
    sell_amount: int = UNIT,
    buy_amount: int = UNIT // 2,
    kind: Kind = Kind.EXACT_IN,
    partial: bool = True,
    nonce: int = 0,
    max_fee: int = 0,
) -> Swap:
    cross = sell.chain != buy.chain
    return Swap(
        owner=OWNER,
        account=ZERO_BYTES32,
        receiver=OWNER,
        sell_chain=sell.chain,
        sell_asset=asset(sell),
        buy_chain=buy.chain,
        buy_asset=asset(buy),
        sell_amount=sell_amount,
        buy_amount=buy_amount,
        kind=kind,
        partial_fill=partial,
        nonce=nonce,
        valid_from=0,
        valid_until=2_000_000_000,
        fill_deadline=2_000_000_000 if cross else 0,
        refund_after=2_000_001_000 if cross else 0,
        max_fee=max_fee,
        min_health=0,
        extension=ZERO_BYTES32,
    )


def signed(order: Swap, key: bytes = KEY, settlement: str = SETTLEMENT) -> Intent:
    order = replace(order, owner=crypto.address_from_key(key))
    digest = digest_of(order, settlement)
    signature = crypto.sign(bytes.fromhex(digest[2:]), key)
    return Intent(digest, order, "0x" + signature.hex())


def pair(
    name: str, token0: TokenId, token1: TokenId, reserve0: int, reserve1: int, fee_bps: int = 30
) -> ConstantProductPool:
    return ConstantProductPool(
        id=name,
        token0=token0,
        token1=token1,
        reserve0=reserve0,
        reserve1=reserve1,
        fee_num=fee_bps,
        fee_den=10_000,
        gas=0,
    )


def snapshot(
    pools: Sequence[Pool],
    prices: dict[TokenId, float] | None = None,
    inventory: dict[TokenId, int] | None = None,
) -> Snapshot:
    return Snapshot({}, tuple(pools), prices or PRICES, inventory or {}, {}, {})

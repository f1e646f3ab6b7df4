"""Digest, signature and the rounding of partial fills."""

from __future__ import annotations

import random
from fractions import Fraction
from math import ceil, floor

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from msgspec.structs import replace

from solver.core import crypto
from solver.core.intent import (
    Admission,
    check_signature,
    check_swap,
    digest_of,
    limit_from_slippage,
    max_fee,
    max_sell,
    min_buy,
    typed_data,
)
from solver.core.types import Kind, Swap
from tests.make import KEY, OWNER, SETTLEMENT, A, B, signed, swap

POLICY = Admission(
    settlements={1: SETTLEMENT},
    forbidden_receivers=frozenset({SETTLEMENT}),
    tokens=frozenset({(1, A.address), (1, B.address)}),
    now=1_900_000_000,
    max_lifetime_seconds=10**9,
    max_open_per_owner=5,
    max_open_total=10,
    open_of_owner=0,
    open_total=0,
    value=100.0,
    min_value=1.0,
)


def test_digest_and_signature_agree_with_eth_account() -> None:
    order = swap(kind=Kind.EXACT_OUT, nonce=2**255)
    message = encode_typed_data(full_message=typed_data(order, SETTLEMENT))
    oracle = Account.sign_message(message, KEY)
    assert digest_of(order, SETTLEMENT) == "0x" + bytes(oracle.message_hash).hex()
    assert signed(order).signature == "0x" + bytes(oracle.signature).hex()
    assert check_signature(order, digest_of(order, SETTLEMENT), bytes(oracle.signature)) is None


@pytest.mark.parametrize("field", [name for name in Swap.__struct_fields__ if name != "kind"])
def test_every_field_changes_the_digest(field: str) -> None:
    order = swap()
    value = getattr(order, field)
    changed: object
    if isinstance(value, bool):
        changed = not value
    elif isinstance(value, int):
        changed = value + 1
    else:
        changed = value[:-1] + ("1" if value[-1] != "1" else "2")
    other = replace(order, **{field: changed})
    assert digest_of(other, SETTLEMENT) != digest_of(order, SETTLEMENT)


def test_partial_fills_round_against_the_solver() -> None:
    rng = random.Random(7)
    for _ in range(2_000):
        sell, buy = rng.randrange(1, 10**30), rng.randrange(1, 10**30)
        order = swap(sell_amount=sell, buy_amount=buy, max_fee=rng.randrange(10**20))
        part = rng.randrange(1, sell + 1)
        assert min_buy(order, part) == ceil(Fraction(part * buy, sell))
        assert max_fee(order, part) == floor(Fraction(order.max_fee * part, sell))
        bought = rng.randrange(1, buy + 1)
        assert max_sell(order, bought) == floor(Fraction(bought * sell, buy))


def test_slippage_becomes_a_limit_rounded_towards_the_user() -> None:
    assert limit_from_slippage(1001, 50, Kind.EXACT_IN) == 996  # 995.995 up
    assert limit_from_slippage(1001, 50, Kind.EXACT_OUT) == 1006  # 1006.005 down


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sell_amount": 0}, "zero_amount"),
        ({"buy_amount": 2**256}, "zero_amount"),
        ({"receiver": "0x" + "00" * 20}, "zero_address"),
        ({"receiver": SETTLEMENT}, "bad_receiver"),
        ({"account": "0x" + "01" * 32}, "unsupported_field"),
        ({"min_health": 1}, "unsupported_field"),
        ({"buy_asset": swap().sell_asset}, "same_asset"),
        ({"sell_chain": 2}, "wrong_chain"),
        ({"buy_asset": "0x" + "00" * 12 + "99" * 20}, "unknown_asset"),
        ({"buy_asset": "0x" + "01" * 12 + B.address[2:]}, "unknown_asset"),
        ({"valid_until": 1_899_999_999}, "expired"),
        ({"valid_from": 2_000_000_001}, "bad_times"),
        ({"valid_until": 2_900_000_001}, "too_long_lived"),
        ({"fill_deadline": 2_000_000_000}, "bad_times"),
    ],
)
def test_admission_refuses(change: dict[str, object], code: str) -> None:
    assert check_swap(swap(), POLICY) is None
    refusal = check_swap(replace(swap(), **change), POLICY)
    assert refusal is not None
    assert refusal.code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"open_of_owner": 5}, "owner_quota"),
        ({"open_total": 10}, "queue_full"),
        ({"value": 0.5}, "below_gas"),
    ],
)
def test_admission_applies_the_quotas(change: dict[str, object], code: str) -> None:
    refusal = check_swap(swap(), replace(POLICY, **change))
    assert refusal is not None
    assert refusal.code == code


def test_malformed_and_foreign_signatures_are_refused() -> None:
    intent = signed(swap())
    digest, good = intent.digest, bytes.fromhex(intent.signature[2:])
    order = int.from_bytes(b"\xff" * 16, "big") << 128 | 0xBAAEDCE6AF48A03BBFD25E8CD0364141
    order = order - (1 << 128)  # n of secp256k1: the first half ends in …fe
    high_s = order - int.from_bytes(good[32:64], "big")
    malleable = good[:32] + high_s.to_bytes(32, "big") + bytes([good[64] ^ 7])
    for bad in (good[:64], good + b"\0", good[:64] + b"\0", malleable, b"\0" * 65):
        refusal = check_signature(intent.swap, digest, bad)
        assert refusal is not None
        assert refusal.code == "bad_signature"
    other = signed(swap(), key=(8).to_bytes(32, "big"))
    refusal = check_signature(intent.swap, digest, bytes.fromhex(other.signature[2:]))
    assert refusal is not None
    assert OWNER in refusal.detail


def test_recover_accepts_only_what_the_oracle_made() -> None:
    rng = random.Random(3)
    for _ in range(50):
        key = rng.randbytes(32)
        digest = rng.randbytes(32)
        assert crypto.recover(digest, crypto.sign(digest, key)) == crypto.address_from_key(key)
        assert crypto.address_from_key(key) == Account.from_key(key).address.lower()

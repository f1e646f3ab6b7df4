"""The settlement on a real Anvil: what it pays out, what it refuses, and to the unit.

A refusal is compared with the custom error's name and arguments, never with "it failed".
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from msgspec.structs import replace

from solver.core import crypto, intent
from solver.core.types import ZERO_ADDRESS, Kind, Swap
from tests.chain.evm import (
    MAX,
    OTHER_CHAIN,
    SWAP_FIELDS,
    World,
    anvil,
    asset,
    build_world,
    call,
    events,
    lower,
    refusal,
    signable,
    struct_of,
    unit,
)

CHAIN = 31_337
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def deployed() -> Iterator[World]:
    with anvil(CHAIN) as chain:
        yield build_world(chain)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    with deployed.chain.rewound():
        yield deployed


def paid(
    world: World, swap: Swap, sold: int = 1_000, bought: int = 2_000, **trade: Any
) -> dict[str, Any]:
    """A fill for which the solver brings exactly what is paid."""
    return {
        "trades": [world.trade(swap, sold, bought, **trade)],
        "funding": [(world.buy, bought)],
    }


def batch_id(number: int) -> str:
    return f"0x{number:064x}"


# --- the digest -------------------------------------------------------------------------------


def random_swap(world: World, rng: random.Random) -> Swap:
    """Any value that fits each field, sensible or not."""

    def draw(kind: str) -> Any:
        bits = {"address": 160, "uint64": 64}.get(kind, 256)
        number = rng.getrandbits(rng.randint(1, bits))
        if kind == "string":
            return rng.choice(list(Kind))
        if kind == "bool":
            return bool(number % 2)
        return number if kind.startswith("uint") else f"0x{number:0{bits // 4}x}"

    values = [draw(entry["type"]) for entry in SWAP_FIELDS]
    return replace(Swap(*values), sell_chain=world.chain.id)


def test_digest_agrees_with_eth_account_and_with_the_solver(world: World) -> None:
    rng = random.Random(712)
    kinds = set()
    for _ in range(40):
        swap = random_swap(world, rng)
        kinds.add(swap.kind)
        on_chain = world.chain.view(world.settlement, "digestOf", struct_of(swap))
        oracle = signable(swap, world.settlement)
        by_eth_account = crypto.keccak(b"\x19" + oracle.version + oracle.header + oracle.body)
        assert on_chain == by_eth_account
        assert "0x" + on_chain.hex() == world.digest(swap)
    assert kinds == set(Kind)


def test_domain_separator_agrees_with_the_solver(world: World) -> None:
    expected = crypto.domain_separator("Thalweg", "1", CHAIN, lower(world.settlement))
    assert world.chain.view(world.settlement, "domainSeparator") == expected


def test_an_unknown_kind_has_no_digest(world: World) -> None:
    struct = struct_of(world.order(), kind=2)
    refused = world.chain.try_call(world.settlement, "digestOf", struct, sender=world.mallory)
    assert refused == refusal("UnknownKind", 2)
    trade = (struct, world.sign(world.order()), 1_000, 2_000, 0, 0)
    assert world.refuse(trades=[trade]) == refusal("UnknownKind", 2)


# --- whole fills ------------------------------------------------------------------------------


def test_exact_in_pays_both_sides(world: World) -> None:
    swap = world.order(receiver=lower(world.bob), max_fee=30)
    before = world.balance(world.sell, world.alice), world.balance(world.buy, world.solver)
    receipt = world.settle(
        trades=[world.trade(swap, 1_000, 2_005, fee=30)],
        funding=[(world.buy, 2_005)],
        interactions=[call(world.sell, "transfer", world.solver.address, 1_000)],
        batch=77,
    )
    after = world.balance(world.sell, world.alice), world.balance(world.buy, world.solver)
    assert after == (before[0] - 1_000, before[1] - 2_005)
    assert world.balance(world.buy, world.bob) == 2_005
    assert world.balance(world.sell, world.solver) == 1_000
    assert world.filled(swap) == 1_000
    settled = ("settledBatches", world.solver.address, (77).to_bytes(32, "big"))
    assert world.chain.view(world.settlement, *settled)
    names = {"digest": world.digest(swap), "owner": lower(world.alice), "batchId": batch_id(77)}
    amounts = {"sellFill": 1_000, "buyFill": 2_005, "fee": 30}
    assert events(world.settlement, receipt, "Filled") == [names | amounts]
    assert events(world.settlement, receipt, "Settled") == [
        {"batchId": batch_id(77), "solver": lower(world.solver)}
    ]


def test_exact_out_pays_both_sides(world: World) -> None:
    swap = world.order(kind=Kind.EXACT_OUT)
    before = world.balance(world.sell, world.alice)
    world.settle(
        trades=[world.trade(swap, 990, 2_000)], funding=[(world.buy, 2_000)], sweep=[world.sell]
    )
    assert world.balance(world.sell, world.alice) == before - 990
    assert world.balance(world.buy, world.alice) == 2_000
    assert world.filled(swap) == 2_000  # counted in what is bought


def test_two_owners_can_pay_each_other_without_funding(world: World) -> None:
    world.fund(world.buy, world.bob, 2_100, world.holder)
    one = world.order()
    other = world.order(
        owner=lower(world.bob),
        receiver=lower(world.bob),
        sell_asset=asset(world.buy),
        buy_asset=asset(world.sell),
        sell_amount=2_100,
        buy_amount=900,
    )
    signed = world.sign(other, world.bob)
    world.settle(
        trades=[world.trade(one, 1_000, 2_050), world.trade(other, 2_100, 1_000, signature=signed)],
        sweep=[world.buy],
    )
    assert world.balance(world.buy, world.alice) == 2_050
    assert world.balance(world.sell, world.bob) == 1_000
    assert world.balance(world.buy, world.dust) == 50


# --- rounding of partial fills ----------------------------------------------------------------


@pytest.fixture
def rich(world: World) -> World:
    """Enough of both tokens that products of two amounts exceed 256 bits."""
    world.fund(world.sell, world.alice, 2**201, world.holder)
    world.fund(world.buy, world.solver, 2**201, world.holder)
    return world


def random_order(world: World, rng: random.Random, kind: Kind) -> tuple[Swap, int]:
    def amount() -> int:
        return rng.randint(1, 2 ** rng.choice((4, 16, 64, 130, 200)))

    swap = world.order(
        sell_amount=amount(),
        buy_amount=amount(),
        kind=kind,
        partial_fill=True,
        max_fee=amount() - 1,
    )
    return swap, rng.randint(1, swap.total)


def test_exact_in_must_buy_the_share_rounded_up(rich: World) -> None:
    rng, named = random.Random(1), 0
    for _ in range(30):
        swap, sold = random_order(rich, rng, Kind.EXACT_IN)
        least = math.ceil(Fraction(sold * swap.buy_amount, swap.sell_amount))
        assert intent.min_buy(swap, sold) == least
        assert rich.would(**paid(rich, swap, sold, least)) is None
        short = rich.would(**paid(rich, swap, sold, least - 1))
        name = "LimitViolated" if least > 1 else "NothingFilled"
        assert short == refusal(name, rich.digest(swap))
        assert intent.respects_limit(swap, sold, least)
        assert not intent.respects_limit(swap, sold, least - 1)
        named += least > 1
    assert named > 15  # most draws must reach the limit itself


def test_exact_out_may_sell_the_share_rounded_down(rich: World) -> None:
    rng, named = random.Random(2), 0
    for _ in range(30):
        swap, bought = random_order(rich, rng, Kind.EXACT_OUT)
        most = math.floor(Fraction(bought * swap.sell_amount, swap.buy_amount))
        assert intent.max_sell(swap, bought) == most
        over = rich.would(**paid(rich, swap, most + 1, bought))
        assert over == refusal("LimitViolated", rich.digest(swap))
        assert not intent.respects_limit(swap, most + 1, bought)
        at_limit = rich.would(**paid(rich, swap, most, bought))
        expected = None if most > 0 else refusal("NothingFilled", rich.digest(swap))
        assert at_limit == expected
        named += most > 0
    assert named > 15


@pytest.mark.parametrize("kind", list(Kind))
def test_fee_cap_is_the_share_rounded_down(rich: World, kind: Kind) -> None:
    rng, checked = random.Random(3), 0
    while checked < 15:
        swap, fill = random_order(rich, rng, kind)
        exact_in = kind is Kind.EXACT_IN
        other = intent.min_buy(swap, fill) if exact_in else intent.max_sell(swap, fill)
        if other == 0:
            continue
        sold, bought = (fill, other) if exact_in else (other, fill)
        cap = math.floor(Fraction(swap.max_fee * fill, swap.total))
        assert intent.max_fee(swap, fill) == cap
        assert rich.would(**paid(rich, swap, sold, bought, fee=cap)) is None
        above = rich.would(**paid(rich, swap, sold, bought, fee=cap + 1))
        assert above == refusal("FeeAboveCap", rich.digest(swap))
        checked += 1


@pytest.mark.parametrize("kind", list(Kind))
def test_parts_add_up_to_the_whole_and_no_further(world: World, kind: Kind) -> None:
    rng = random.Random(4)
    swap = world.order(sell_amount=7_919, buy_amount=12_347, kind=kind, partial_fill=True)
    signature, sold_in_all, bought_in_all = world.sign(swap), 0, 0
    start = world.balance(world.sell, world.alice)
    while (left := swap.total - world.filled(swap)) > 0:
        fill = min(left, rng.randint(500, 3_000))
        if kind is Kind.EXACT_IN:
            sold, bought = fill, math.ceil(Fraction(fill * 12_347, 7_919))
        else:
            sold, bought = math.floor(Fraction(fill * 7_919, 12_347)), fill
        trade = world.trade(swap, sold, bought, signature=signature, before=swap.total - left)
        world.settle(trades=[trade], funding=[(world.buy, bought)], sweep=[world.sell])
        sold_in_all, bought_in_all = sold_in_all + sold, bought_in_all + bought
        assert world.filled(swap) == (sold_in_all if kind is Kind.EXACT_IN else bought_in_all)
    assert start - world.balance(world.sell, world.alice) == sold_in_all <= 7_919
    assert world.balance(world.buy, world.alice) == bought_in_all >= 12_347
    one_more = world.trade(swap, 1, 2, signature=signature, before=swap.total)
    assert world.refuse(trades=[one_more]) == refusal("Overfilled", world.digest(swap))


def test_one_order_twice_in_a_bundle_counts_twice(world: World) -> None:
    swap = world.order(partial_fill=True)
    parts = [world.trade(swap, 400, 800), world.trade(swap, 601, 1_202, before=400)]
    refused = world.refuse(trades=parts, funding=[(world.buy, 2_002)])
    assert refused == refusal("Overfilled", world.digest(swap))
    parts[1] = world.trade(swap, 600, 1_200, before=400)
    world.settle(trades=parts, funding=[(world.buy, 2_000)])
    assert world.balance(world.buy, world.alice) == 2_000


@pytest.mark.parametrize(
    ("changes", "sold", "bought", "error"),
    [
        ({}, 999, 2_000, "PartialFillForbidden"),
        ({"kind": Kind.EXACT_OUT}, 900, 1_999, "PartialFillForbidden"),
        ({}, 1_001, 2_002, "Overfilled"),
        ({"kind": Kind.EXACT_OUT}, 1_000, 2_001, "Overfilled"),
        ({"partial_fill": True}, 0, 1, "NothingFilled"),
        ({"partial_fill": True}, 1, 0, "NothingFilled"),
        ({"sell_amount": 0}, 0, 2_000, "NothingFilled"),
        ({"sell_amount": 0}, 1, 2_000, "Overfilled"),
        ({"kind": Kind.EXACT_OUT, "buy_amount": 0}, 1, 0, "NothingFilled"),
        ({}, 1_000, 1_999, "LimitViolated"),
        ({"kind": Kind.EXACT_OUT}, 1_001, 2_000, "LimitViolated"),
        ({"partial_fill": True}, MAX, MAX, "Overfilled"),
    ],
)
def test_fills_outside_the_order_are_refused(
    world: World, changes: dict[str, Any], sold: int, bought: int, error: str
) -> None:
    swap = world.order(**changes)
    refused = world.refuse(trades=[world.trade(swap, sold, bought)], funding=[(world.buy, 5_000)])
    assert refused == refusal(error, world.digest(swap))


# --- replay, signatures, cancellation ---------------------------------------------------------


def test_a_batch_id_works_once(world: World) -> None:
    world.settle(batch=5)
    assert world.refuse(batch=5) == refusal("BatchAlreadySettled", batch_id(5))
    world.settle(batch=6)


def test_an_order_cannot_be_replayed_in_another_batch(world: World) -> None:
    swap = world.order()
    parts = paid(world, swap)
    world.settle(**parts)
    digest = world.digest(swap)
    assert world.refuse(**parts) == refusal("FilledElsewhere", digest, 1_000)
    again = paid(world, swap, before=1_000)
    assert world.refuse(**again) == refusal("Overfilled", digest)


def test_a_fill_in_between_makes_a_plan_fail(world: World) -> None:
    """The id of a lock depends on what was filled before; a solver pays only the one it planned."""
    swap = world.order(partial_fill=True)
    planned = paid(world, swap, 400, 800)
    world.settle(**paid(world, swap, 1, 2))
    assert world.refuse(**planned) == refusal("FilledElsewhere", world.digest(swap), 1)
    world.settle(**paid(world, swap, 400, 800, before=1))


TAMPERINGS: dict[str, Callable[[World], dict[str, Any]]] = {
    "owner": lambda world: {"owner": lower(world.bob)},
    "receiver": lambda world: {"receiver": lower(world.mallory)},
    "sell_asset": lambda world: {"sell_asset": asset(lower(world.verifier))},
    "buy_asset": lambda world: {"buy_asset": asset(lower(world.verifier))},
    "buy_chain": lambda world: {
        "buy_chain": OTHER_CHAIN,
        "fill_deadline": world.chain.time + 1_000,
        "refund_after": world.chain.time + 1_600,
    },
    "sell_amount": lambda _: {"sell_amount": 999},
    "buy_amount": lambda _: {"buy_amount": 1_999},
    "kind": lambda _: {"kind": Kind.EXACT_OUT},
    "partial_fill": lambda _: {"partial_fill": True},
    "nonce": lambda _: {"nonce": 10**9},
    "valid_from": lambda _: {"valid_from": 1},
    "valid_until": lambda world: {"valid_until": world.chain.time + 20_000},
    "max_fee": lambda _: {"max_fee": 1},
}


@pytest.mark.parametrize("field", TAMPERINGS)
def test_a_tampered_order_is_not_signed(world: World, field: str) -> None:
    swap = world.order()
    signature = world.sign(swap)
    parts: dict[str, Any] = {"funding": [(world.buy, 2_000)]}
    original = world.trade(swap, 1_000, 2_000, signature=signature)
    assert world.would(trades=[original], **parts) is None
    tampered = replace(swap, **TAMPERINGS[field](world))
    refused = world.refuse(
        trades=[world.trade(tampered, 1_000, 2_000, signature=signature)], **parts
    )
    assert refused == refusal("BadSignature", world.digest(tampered))


def test_a_signature_counts_only_for_the_named_owner(world: World) -> None:
    swap = world.order()
    refused = world.refuse(**paid(world, swap, signature=world.sign(swap, world.mallory)))
    assert refused == refusal("BadSignature", world.digest(swap))


def high_s(signature: bytes) -> bytes:
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "high s": high_s,
    "v of 0 or 1": lambda signature: signature[:64] + bytes([signature[64] - 27]),
    "v of 29": lambda signature: signature[:64] + bytes([29]),
    "EIP-155 v": lambda signature: signature[:64] + bytes([signature[64] + 10]),
    "64 bytes": lambda signature: signature[:64],
    "66 bytes": lambda signature: signature + b"\0",
    "empty": lambda _: b"",
    "zero": lambda _: bytes(64) + bytes([27]),
}


@pytest.mark.parametrize("form", MALFORMED)
def test_malformed_signatures_are_refused_here_and_in_python(world: World, form: str) -> None:
    swap = world.order()
    good = world.sign(swap)
    bad = MALFORMED[form](good)
    digest = unit(world.digest(swap))
    assert crypto.recover(digest, good) == swap.owner
    with pytest.raises(crypto.SignatureError):
        crypto.recover(digest, bad)
    refused = world.refuse(**paid(world, swap, signature=bad))
    assert refused == refusal("BadSignature", world.digest(swap))


def test_the_solvers_own_signer_is_accepted(world: World) -> None:
    swap = world.order()
    signature = crypto.sign(unit(world.digest(swap)), world.alice.key)
    world.settle(**paid(world, swap, signature=signature))
    assert world.filled(swap) == 1_000


def test_an_erc1271_wallet_sells_on_its_keys_word(world: World) -> None:
    wallet = world.chain.deploy("MockWallet", world.bob.address, sender=world.admin)
    world.chain.send(world.sell, "mint", wallet.address, 1_000, sender=world.admin)
    approval = (world.sell.address, world.holder.address, MAX)
    world.chain.send(wallet, "approve", *approval, sender=world.bob)
    swap = world.order(owner=lower(wallet))
    for signature in (world.sign(swap, world.alice), b"", world.sign(swap, world.bob)[:64]):
        refused = world.refuse(**paid(world, swap, signature=signature))
        assert refused == refusal("BadSignature", world.digest(swap))
    world.settle(**paid(world, swap, signature=world.sign(swap, world.bob)))
    assert world.balance(world.sell, wallet) == 0
    assert world.balance(world.buy, world.alice) == 2_000


def test_a_contract_that_is_no_wallet_signs_nothing(world: World) -> None:
    swap = world.order(owner=lower(world.sell))
    refused = world.refuse(trades=[world.trade(swap, 1_000, 2_000)])
    assert refused == refusal("BadSignature", world.digest(swap))


def test_a_cancelled_order_is_refused_even_half_filled(world: World) -> None:
    swap = world.order(partial_fill=True)
    world.settle(**paid(world, swap, 500, 1_000))
    digest = world.digest(swap)
    receipt = world.chain.send(world.settlement, "cancel", unit(digest), sender=world.alice)
    assert events(world.settlement, receipt, "Cancelled") == [
        {"digest": digest, "owner": lower(world.alice)}
    ]
    refused = world.refuse(**paid(world, swap, 500, 1_000))
    assert refused == refusal("OrderCancelled", digest)
    other = world.order()
    world.settle(**paid(world, other))


def test_nobody_cancels_the_order_of_another(world: World) -> None:
    swap = world.order()
    digest = unit(world.digest(swap))
    for meddler in (world.mallory, world.solver, world.admin):
        world.chain.send(world.settlement, "cancel", digest, sender=meddler)
    view = world.chain.view
    assert view(world.settlement, "cancelled", world.mallory.address, digest) is True
    assert view(world.settlement, "cancelled", world.alice.address, digest) is False
    world.settle(**paid(world, swap))
    assert world.filled(swap) == 1_000


# --- fields -----------------------------------------------------------------------------------

REFUSED_FIELDS: list[tuple[str, Callable[[World], dict[str, Any]]]] = [
    ("Unsupported", lambda _: {"account": batch_id(1)}),
    ("Unsupported", lambda _: {"min_health": 1}),
    ("Unsupported", lambda _: {"extension": batch_id(1)}),
    ("InvalidAddress", lambda _: {"owner": ZERO_ADDRESS}),
    ("InvalidAddress", lambda _: {"receiver": ZERO_ADDRESS}),
    ("InvalidAddress", lambda world: {"receiver": lower(world.settlement)}),
    ("InvalidAddress", lambda world: {"receiver": lower(world.holder)}),
    ("InvalidAddress", lambda world: {"receiver": lower(world.escrow)}),
    ("InvalidAddress", lambda world: {"buy_asset": asset(world.sell)}),
    ("InvalidAddress", lambda world: {"sell_asset": "0x" + "1".zfill(24) + lower(world.sell)[2:]}),
    ("InvalidAddress", lambda world: {"buy_asset": "0x80" + asset(world.buy)[4:]}),
    ("BadTimes", lambda world: {"fill_deadline": world.chain.time + 1_000}),
    ("BadTimes", lambda world: {"refund_after": world.chain.time + 1_000}),
]


@pytest.mark.parametrize(("error", "changes"), REFUSED_FIELDS)
def test_fields_that_make_no_sense_are_refused(
    world: World, error: str, changes: Callable[[World], dict[str, Any]]
) -> None:
    swap = world.order(**changes(world))
    refused = world.refuse(**paid(world, swap))
    assert refused == refusal(error, world.digest(swap))


def test_an_order_of_another_chain_is_refused(world: World) -> None:
    swap = world.order(sell_chain=OTHER_CHAIN)
    # The contract hashes the foreign chain id into the struct, but into its own domain.
    separator = crypto.domain_separator("Thalweg", "1", CHAIN, lower(world.settlement))
    digest = "0x" + crypto.typed_digest(separator, intent.struct_hash(swap)).hex()
    refused = world.refuse(**paid(world, swap))
    assert refused == refusal("WrongChain", digest, OTHER_CHAIN)


def test_validity_includes_both_ends(world: World) -> None:
    first = world.chain.time + 100
    swap = world.order(valid_from=first, valid_until=first + 50, partial_fill=True)
    parts = paid(world, swap, 500, 1_000)
    outside = refusal("OutsideValidity", world.digest(swap))
    assert world.refuse(at=first - 1, **parts) == outside
    world.settle(at=first, **parts)
    world.settle(at=first + 50, **paid(world, swap, 500, 1_000, before=500))
    assert world.filled(swap) == 1_000
    late = world.order(valid_until=world.chain.time)
    refused = world.refuse(trades=[world.trade(late, 1_000, 2_000)], at=late.valid_until + 1)
    assert refused == refusal("OutsideValidity", world.digest(late))


def test_another_solver_cannot_use_up_a_batch_id(world: World) -> None:
    setting = (world.settlement, "setSolver", world.mallory.address, True)
    world.chain.send(*setting, sender=world.admin)
    world.settle(by=world.mallory, batch=99)  # empty, with an id that it saw on its way
    swap = world.order()
    world.settle(batch=99, **paid(world, swap))
    assert world.refuse(batch=99) == refusal("BatchAlreadySettled", batch_id(99))


def test_dust_goes_to_nobody_of_ours(world: World) -> None:
    wrong = (ZERO_ADDRESS, *map(lower, (world.settlement, world.holder, world.escrow)))
    for address in wrong:
        setting = (world.settlement, "setFeeRecipient", to_checksum_address(address))
        refused = world.chain.refused(*setting, sender=world.admin)
        assert refused == refusal("InvalidFeeRecipient", address)
    arguments = (world.admin.address, ZERO_ADDRESS, world.verifier.address)
    with pytest.raises(AssertionError, match="could not be deployed"):
        world.chain.deploy("Settlement", *arguments, sender=world.admin)


def test_a_bundle_runs_until_its_deadline(world: World) -> None:
    deadline = world.chain.time + 100
    world.settle(deadline=deadline, at=deadline)
    refused = world.refuse(deadline=deadline, at=deadline + 1)
    assert refused == refusal("BundleExpired", deadline)


def test_an_interaction_cannot_leave_an_approval(world: World) -> None:
    token = world.sell
    for name in (
        "approve(address,uint256)",
        "increaseAllowance(address,uint256)",
        "increaseApproval(address,uint256)",
        "approveAndCall(address,uint256)",
        "approveAndCall(address,uint256,bytes)",
        "authorizeOperator(address)",
        "setOperator(address,bool)",
        "setApprovalForAll(address,bool)",
    ):
        selector = crypto.keccak(name.encode())[:4]
        data = selector + bytes(12) + bytes.fromhex(lower(world.bob)[2:]) + b"\xff" * 32
        target = (token.address, data, ZERO_ADDRESS, 0)
        assert world.refuse(interactions=[target]) == refusal(
            "ForbiddenCall", "0x" + selector.hex()
        )


def test_a_solver_cannot_spend_what_another_brought(world: World) -> None:
    data = bytes.fromhex("23b872dd") + b"".join(
        bytes(12) + bytes.fromhex(lower(who)[2:]) for who in (world.solver, world.bob)
    )
    target = (world.buy.address, data + (1).to_bytes(32, "big"), ZERO_ADDRESS, 0)
    refused = world.refuse(interactions=[target])
    assert refused == refusal("ERC20InsufficientAllowance", lower(world.settlement), 0, 1)

"""Cross-chain orders on a real Anvil: lock, claim and refund to the second, and who may do what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from msgspec.structs import replace
from web3.contract.contract import Contract
from web3.types import RPCEndpoint

from solver.core import crypto
from solver.core.types import ZERO_ADDRESS, Kind, Swap
from tests.chain.evm import (
    ATTESTATION_FIELDS,
    OTHER_CHAIN,
    Actor,
    Revert,
    World,
    anvil,
    artifact,
    asset,
    build_world,
    call,
    calldata,
    decode_revert,
    events,
    fill_hash,
    lower,
    order_id,
    refusal,
    unit,
)

CHAIN = 31_338
NONE, LOCKED, CLAIMED, REFUNDED = range(4)
TOKEN_ELSEWHERE = "0x00000000000000000000000000000000000beef1"


@pytest.fixture(scope="module")
def deployed() -> Iterator[World]:
    with anvil(CHAIN) as chain:
        yield build_world(chain)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    with deployed.chain.rewound():
        yield deployed


def cross_order(world: World, **changes: Any) -> Swap:
    """Alice's order whose bought side is on another chain."""
    now = world.chain.time
    times = {"valid_until": now + 900, "fill_deadline": now + 1_000, "refund_after": now + 2_000}
    elsewhere = {"buy_chain": OTHER_CHAIN, "buy_asset": asset(TOKEN_ELSEWHERE)}
    return world.order(**{**times, **elsewhere, **changes})


def lock(world: World, swap: Swap, sold: int = 1_000, bought: int = 2_000) -> tuple[str, str]:
    """Settle a cross-chain fill; its order id and fill hash, as Python works them out."""
    before = world.filled(swap)
    order = order_id(world.digest(swap), before)
    world.settle(trades=[world.trade(swap, sold, bought, before=before)])
    return order, fill_hash(order, swap, bought)


def state(world: World, order: str) -> int:
    return int(world.chain.view(world.escrow, "locks", unit(order))[-1])


def ended(world: World, order: str, swap: Swap) -> dict[str, Any]:
    names = {"orderId": order, "digest": world.digest(swap)}
    return {**names, "token": lower(world.sell), "amount": 1_000}


def claim(world: World, order: str, proof: bytes, at: int | None = None) -> Any:
    request = (world.escrow, "claim", unit(order), proof)
    return world.chain.send(*request, sender=world.mallory, at=at)


def claim_refused(world: World, order: str, proof: bytes) -> Revert:
    return world.chain.refused(world.escrow, "claim", unit(order), proof, sender=world.solver)


def refund(world: World, order: str, at: int) -> Any:
    return world.chain.send(world.escrow, "refund", unit(order), sender=world.mallory, at=at)


def refund_refused(world: World, order: str, at: int | None = None) -> Revert:
    request = (world.escrow, "refund", unit(order))
    return world.chain.refused(*request, sender=world.alice, at=at)


# --- locking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
def test_a_cross_chain_fill_locks_what_is_sold(world: World, kind: Kind) -> None:
    swap = cross_order(world, kind=kind, receiver=lower(world.bob))
    before = world.balance(world.sell, world.alice)
    sold = 1_000 if kind is Kind.EXACT_IN else 950
    receipt = world.settle(trades=[world.trade(swap, sold, 2_000)])
    order = order_id(world.digest(swap), 0)
    parties = {"solver": lower(world.solver), "owner": lower(world.alice)}
    fill = {"fillChain": OTHER_CHAIN, "fillHash": fill_hash(order, swap, 2_000)}
    held = {"token": lower(world.sell), "amount": sold, "refundAfter": swap.refund_after}
    named = {"orderId": order, "digest": world.digest(swap)}
    expected = named | parties | fill | held
    assert events(world.escrow, receipt, "Locked") == [expected]
    assert state(world, order) == LOCKED
    assert world.balance(world.sell, world.escrow) == sold
    assert world.balance(world.sell, world.alice) == before - sold
    assert world.balance(world.sell, world.settlement) == 0
    assert world.filled(swap) == swap.total


def test_limits_hold_for_cross_chain_fills_too(world: World) -> None:
    swap = cross_order(world, partial_fill=True, max_fee=10)
    digest = world.digest(swap)
    short = world.refuse(trades=[world.trade(swap, 333, 665)])
    assert short == refusal("LimitViolated", digest)
    dear = world.refuse(trades=[world.trade(swap, 333, 666, fee=4)])
    assert dear == refusal("FeeAboveCap", digest)
    world.settle(trades=[world.trade(swap, 333, 666, fee=3)])


def test_the_claim_window_has_at_least_600_seconds(world: World) -> None:
    deadline = world.chain.time + 1_000
    short = cross_order(world, fill_deadline=deadline, refund_after=deadline + 599)
    refused = world.refuse(trades=[world.trade(short, 1_000, 2_000)])
    assert refused == refusal("BadTimes", world.digest(short))
    far = cross_order(world, fill_deadline=2**64 - 1, refund_after=2**64 - 1)  # no overflow
    refused = world.refuse(trades=[world.trade(far, 1_000, 2_000)])
    assert refused == refusal("BadTimes", world.digest(far))
    lock(world, replace(short, refund_after=deadline + 600))


def test_nothing_is_locked_after_the_fill_deadline(world: World) -> None:
    swap = cross_order(world, valid_until=world.chain.time + 5_000, partial_fill=True)
    trades = [world.trade(swap, 500, 1_000)]
    world.settle(trades=trades, at=swap.fill_deadline)
    refused = world.refuse(trades=trades, at=swap.fill_deadline + 1)
    assert refused == refusal("BadTimes", world.digest(swap))


@pytest.mark.parametrize("field", ["buy_chain", "fill_deadline", "refund_after", "buy_asset"])
def test_the_cross_chain_terms_are_signed(world: World, field: str) -> None:
    swap = cross_order(world)
    signature = world.sign(swap)
    value = getattr(swap, field)
    changed = asset(world.buy) if isinstance(value, str) else value + 1
    tampered = replace(swap, **{field: changed})
    refused = world.refuse(trades=[world.trade(tampered, 1_000, 2_000, signature=signature)])
    assert refused == refusal("BadSignature", world.digest(tampered))
    world.settle(trades=[world.trade(swap, 1_000, 2_000, signature=signature)])


# --- claiming ---------------------------------------------------------------------------------


def test_a_proven_fill_pays_the_recorded_solver_once(world: World) -> None:
    swap = cross_order(world)
    order, fill = lock(world, swap)
    proof = world.attest(OTHER_CHAIN, order, fill)
    receipt = claim(world, order, proof)  # by a stranger
    assert events(world.escrow, receipt, "Claimed") == [
        ended(world, order, swap) | {"solver": lower(world.solver)}
    ]
    assert world.balance(world.sell, world.solver) == 1_000
    assert world.balance(world.sell, world.mallory) == world.balance(world.sell, world.escrow) == 0
    assert state(world, order) == CLAIMED
    lock(world, cross_order(world))  # so that the escrow could pay again
    assert claim_refused(world, order, proof) == refusal("NotLocked", order, CLAIMED)
    late = refund_refused(world, order, at=swap.refund_after + 1)
    assert late == refusal("NotLocked", order, CLAIMED)


def high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


Forgery = Callable[[World, str, str], bytes]
FORGERIES: dict[str, Forgery] = {
    "another attester": lambda w, o, f: w.attest(OTHER_CHAIN, o, f, signer=w.mallory),
    "the solver itself": lambda w, o, f: w.attest(OTHER_CHAIN, o, f, signer=w.solver),
    "another chain": lambda w, o, f: w.attest(OTHER_CHAIN + 1, o, f),
    "another order": lambda w, o, f: w.attest(OTHER_CHAIN, f, f),
    "another fill": lambda w, o, f: w.attest(OTHER_CHAIN, o, o),
    "high s": lambda w, o, f: high_s(w.attest(OTHER_CHAIN, o, f)),
    "64 bytes": lambda w, o, f: w.attest(OTHER_CHAIN, o, f)[:64],
    "empty": lambda w, o, f: b"",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_claim_needs_the_attesters_word_on_this_fill(world: World, forgery: str) -> None:
    order, fill = lock(world, cross_order(world))
    bad = FORGERIES[forgery](world, order, fill)
    assert claim_refused(world, order, bad) == refusal("FillNotProven", order)
    assert state(world, order) == LOCKED
    claim(world, order, world.attest(OTHER_CHAIN, order, fill))


def test_attestations_agree_with_eth_account(world: World) -> None:
    order, fill = "0x" + "12" * 32, "0x" + "ab" * 32
    domain = {
        "name": "Thalweg Attestation",
        "version": "1",
        "chainId": CHAIN,
        "verifyingContract": world.verifier.address,
    }
    message = {"fillChain": OTHER_CHAIN, "orderId": unit(order), "fillHash": unit(fill)}
    oracle: Any = encode_typed_data(domain, {"Attestation": ATTESTATION_FIELDS}, message)
    expected = crypto.keccak(b"\x19" + oracle.version + oracle.header + oracle.body)
    args = (OTHER_CHAIN, unit(order), unit(fill))
    assert world.chain.view(world.verifier, "attestationDigest", *args) == expected
    assert world.chain.view(world.verifier, "domainSeparator") == oracle.header
    good = world.attest(OTHER_CHAIN, order, fill)
    assert world.chain.view(world.verifier, "verify", *args, good) is True
    assert world.chain.view(world.verifier, "verify", *args, good[:64]) is False


def test_partial_fills_are_claimed_one_by_one(world: World) -> None:
    swap = cross_order(world, partial_fill=True)
    first, first_fill = lock(world, swap, 400, 800)
    second, second_fill = lock(world, swap, 600, 1_200)
    assert first == order_id(world.digest(swap), 0)
    assert second == order_id(world.digest(swap), 400)
    assert first != second
    assert world.balance(world.sell, world.escrow) == 1_000
    proof = world.attest(OTHER_CHAIN, first, first_fill)
    assert claim_refused(world, second, proof) == refusal("FillNotProven", second)
    claim(world, second, world.attest(OTHER_CHAIN, second, second_fill))
    assert world.balance(world.sell, world.solver) == 600
    claim(world, first, proof)
    assert world.balance(world.sell, world.solver) == 1_000


def test_equal_parts_in_one_bundle_are_different_fills(world: World) -> None:
    swap = cross_order(world, partial_fill=True)
    parts = [world.trade(swap, 500, 1_000, before=before) for before in (0, 500)]
    receipt = world.settle(trades=parts)
    locked = events(world.escrow, receipt, "Locked")
    expected = [order_id(world.digest(swap), before) for before in (0, 500)]
    assert [entry["orderId"] for entry in locked] == expected
    for entry in locked:
        proof = world.attest(OTHER_CHAIN, entry["orderId"], entry["fillHash"])
        claim(world, entry["orderId"], proof)
    assert world.balance(world.sell, world.solver) == 1_000


# --- refunding --------------------------------------------------------------------------------


def test_a_refund_comes_after_its_second_and_once(world: World) -> None:
    swap = cross_order(world)
    order, fill = lock(world, swap)
    before = world.balance(world.sell, world.alice)
    early = refund_refused(world, order, at=swap.refund_after)
    assert early == refusal("RefundTooEarly", order, swap.refund_after)
    receipt = refund(world, order, at=swap.refund_after + 1)  # by a stranger
    assert events(world.escrow, receipt, "Refunded") == [
        ended(world, order, swap) | {"owner": lower(world.alice)}
    ]
    assert world.balance(world.sell, world.alice) == before + 1_000
    assert state(world, order) == REFUNDED
    lock(world, cross_order(world))  # so that the escrow could pay again
    assert refund_refused(world, order) == refusal("NotLocked", order, REFUNDED)
    proof = world.attest(OTHER_CHAIN, order, fill)
    assert claim_refused(world, order, proof) == refusal("NotLocked", order, REFUNDED)


def test_a_claim_is_open_until_the_refund(world: World) -> None:
    swap = cross_order(world)
    order, fill = lock(world, swap)
    claim(world, order, world.attest(OTHER_CHAIN, order, fill), at=swap.refund_after + 500)
    assert world.balance(world.sell, world.solver) == 1_000


def test_an_unknown_order_is_not_locked(world: World) -> None:
    order = "0x" + "77" * 32
    proof = world.attest(OTHER_CHAIN, order, order)
    assert claim_refused(world, order, proof) == refusal("NotLocked", order, NONE)
    assert refund_refused(world, order) == refusal("NotLocked", order, NONE)


# --- the fill on the buy chain ----------------------------------------------------------------


def payment(world: World, order: str, amount: int, deadline: int) -> tuple[Any, ...]:
    return (unit(order), world.buy.address, world.bob.address, amount, deadline)


def test_a_fill_is_paid_and_recorded(world: World) -> None:
    order, deadline = "0x" + "01" * 32, world.chain.time + 100
    swap = cross_order(
        world,
        buy_chain=CHAIN,
        buy_asset=asset(world.buy),
        receiver=lower(world.bob),
        fill_deadline=deadline,
    )
    receipt = world.settle(
        fills=[payment(world, order, 2_000, deadline)], funding=[(world.buy, 2_000)], at=deadline
    )
    expected = fill_hash(order, swap, 2_000)
    assert world.chain.view(world.settlement, "fills", unit(expected)) is True
    assert world.balance(world.buy, world.bob) == 2_000
    assert events(world.settlement, receipt, "CrossFilled") == [
        {
            "orderId": order,
            "fillHash": expected,
            "receiver": lower(world.bob),
            "token": lower(world.buy),
            "amount": 2_000,
        }
    ]


def test_a_late_fill_is_refused(world: World) -> None:
    order, deadline = "0x" + "02" * 32, world.chain.time + 100
    fills = [payment(world, order, 2_000, deadline)]
    refused = world.refuse(fills=fills, funding=[(world.buy, 2_000)], at=deadline + 1)
    assert refused == refusal("FillTooLate", order)
    assert world.balance(world.buy, world.bob) == 0


def test_an_order_is_filled_once(world: World) -> None:
    order, deadline = "0x" + "03" * 32, world.chain.time + 1_000
    fill = payment(world, order, 1_000, deadline)
    again = refusal("AlreadyFilled", order)
    assert world.refuse(fills=[fill, fill], funding=[(world.buy, 2_000)]) == again
    wrong = payment(world, order, 1, deadline)
    world.settle(fills=[wrong], funding=[(world.buy, 1)])  # does not block the right payment
    world.settle(fills=[fill], funding=[(world.buy, 1_000)])
    assert world.refuse(fills=[fill], funding=[(world.buy, 1_000)]) == again
    assert world.balance(world.buy, world.bob) == 1_001


def test_an_unfunded_fill_is_refused(world: World) -> None:
    fill = payment(world, "0x" + "04" * 32, 1_000, world.chain.time + 1_000)
    refused = world.refuse(fills=[fill], funding=[(world.buy, 999)])
    assert refused == refusal("ERC20InsufficientBalance", lower(world.settlement), 999, 1_000)


def test_from_lock_to_claim_over_two_chains(world: World) -> None:
    with anvil(OTHER_CHAIN) as other_chain:
        other = build_world(other_chain)
        deadline = max(world.chain.time, other_chain.time) + 5_000
        swap = cross_order(
            world,
            receiver=lower(world.bob),
            buy_asset=asset(other.buy),
            fill_deadline=deadline,
            refund_after=deadline + 600,
            partial_fill=True,
        )
        paid, fill = lock(world, swap, 500, 1_000)
        underpaid, demanded = lock(world, swap, 500, 1_000)
        other.settle(
            fills=[payment(other, paid, 1_000, deadline), payment(other, underpaid, 999, deadline)],
            funding=[(other.buy, 1_999)],
        )
        recorded = [
            other_chain.view(other.settlement, "fills", unit(one)) for one in (fill, demanded)
        ]
    assert recorded == [True, False]
    claim(world, paid, world.attest(OTHER_CHAIN, paid, fill))
    honest = world.attest(OTHER_CHAIN, underpaid, fill_hash(underpaid, swap, 999))
    assert claim_refused(world, underpaid, honest) == refusal("FillNotProven", underpaid)
    assert world.balance(world.sell, world.solver) == 500


# --- who may do what --------------------------------------------------------------------------


def test_only_listed_solvers_settle(world: World) -> None:
    assert world.refuse(by=world.mallory) == refusal("NotSolver", lower(world.mallory))
    assert world.refuse(by=world.admin) == refusal("NotSolver", lower(world.admin))
    setting = (world.settlement, "setSolver", world.mallory.address)
    receipt = world.chain.send(*setting, True, sender=world.admin)
    assert events(world.settlement, receipt, "SolverSet") == [
        {"solver": lower(world.mallory), "allowed": True}
    ]
    world.settle(by=world.mallory)
    world.chain.send(*setting, False, sender=world.admin)
    assert world.refuse(by=world.mallory) == refusal("NotSolver", lower(world.mallory))


def test_only_the_owner_administers(world: World) -> None:
    unauthorised = refusal("OwnableUnauthorizedAccount", lower(world.solver))
    me, refused = world.solver.address, world.chain.refused
    for name, args in (
        ("setSolver", (me, True)),
        ("setFeeRecipient", (me,)),
        ("transferOwnership", (me,)),
    ):
        assert refused(world.settlement, name, *args, sender=world.solver) == unauthorised


def test_ownership_moves_in_two_steps(world: World) -> None:
    send, contract = world.chain.send, world.settlement
    send(contract, "transferOwnership", world.bob.address, sender=world.admin)
    assert world.chain.view(contract, "owner") == world.admin.address
    refused = world.chain.refused(contract, "acceptOwnership", sender=world.mallory)
    assert refused == refusal("OwnableUnauthorizedAccount", lower(world.mallory))
    send(contract, "acceptOwnership", sender=world.bob)
    assert world.chain.view(contract, "owner") == world.bob.address


def test_the_holder_pulls_for_the_settlement_alone(world: World) -> None:
    pull = (world.sell.address, world.alice.address, world.mallory.address, 1)
    for caller in (world.mallory, world.solver, world.admin, world.alice):
        refused = world.chain.refused(world.holder, "pull", *pull, sender=caller)
        assert refused == refusal("OnlySettlement", lower(caller))


def test_only_the_settlement_locks_and_each_order_once(world: World) -> None:
    me = world.solver.address
    terms = (bytes(32), bytes(32), OTHER_CHAIN, 1, me, me, world.sell.address, 0, NONE)
    request = (world.escrow, "lock", bytes(32), terms)
    refused = world.chain.refused(*request, sender=world.solver)
    assert refused == refusal("OnlySettlement", lower(world.solver))
    as_settlement = Actor(b"", str(world.settlement.address))
    world.chain.send(*request, sender=as_settlement)
    again = world.chain.refused(*request, sender=as_settlement)
    assert again == refusal("AlreadyLocked", bytes(32))


def deployment_refused(world: World, name: str, *args: Any) -> Revert:
    data = artifact(name)
    factory = world.chain.w3.eth.contract(abi=data["abi"], bytecode=data["bytecode"])
    creation: Any = factory.constructor(*args)
    tx = {"from": world.admin.address, "data": creation.data_in_transaction}
    answer: Any = world.chain.w3.provider.make_request(RPCEndpoint("eth_call"), [tx, "latest"])
    return decode_revert(answer["error"]["data"])


def test_a_verifier_and_its_attester_are_demanded(world: World) -> None:
    refused = deployment_refused(world, "Escrow", world.mallory.address)
    assert refused == refusal("InvalidVerifier", lower(world.mallory))
    assert deployment_refused(world, "AttestedFillVerifier", ZERO_ADDRESS) == refusal(
        "ZeroAttester"
    )


@pytest.mark.parametrize("target", ["settlement", "holder", "escrow"])
def test_interactions_cannot_use_the_settlements_own_rights(world: World, target: str) -> None:
    contract: Contract = getattr(world, target)
    forbidden = refusal("ForbiddenTarget", lower(contract))
    pull = call(world.holder, "pull", world.sell.address, world.alice.address, world.bob.address, 1)
    assert world.refuse(interactions=[(contract.address, *pull[1:])]) == forbidden
    assert world.refuse(interactions=[(contract.address, b"", ZERO_ADDRESS, 0)]) == forbidden


def test_an_interaction_cannot_spend_what_owners_approved(world: World) -> None:
    theft = call(world.sell, "transferFrom", world.alice.address, world.solver.address, 1)
    refused = world.refuse(interactions=[theft])
    assert refused == refusal("ERC20InsufficientAllowance", lower(world.settlement), 0, 1)


def test_funding_comes_from_the_solver_who_settles(world: World) -> None:
    world.chain.send(world.settlement, "setSolver", world.mallory.address, True, sender=world.admin)
    refused = world.refuse(by=world.mallory, funding=[(world.buy, 1)])
    assert refused == refusal("ERC20InsufficientAllowance", lower(world.holder), 0, 1)


# --- reentrancy -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["claim", "refund"])
def test_a_lock_cannot_end_again_from_within(world: World, ending: str) -> None:
    hostile = world.chain.deploy("HostileToken", sender=world.mallory)
    world.fund(hostile, world.alice, 10_000, world.holder)
    swap = cross_order(world, sell_asset=asset(hostile), partial_fill=True)
    order, fill = lock(world, swap, 500, 1_000)
    spare, _ = lock(world, swap, 500, 1_000)  # what a second payment would come from

    def call_back(target: str) -> bool:
        """End ``order`` while the token, in mid-transfer, asks for a refund of ``target``."""
        with world.chain.rewound():
            data = calldata(world.escrow, "refund", unit(target))
            callback = (hostile, "setCallback", world.escrow.address, data)
            world.chain.send(*callback, sender=world.mallory)
            at = swap.refund_after + 1
            if ending == "claim":
                claim(world, order, world.attest(OTHER_CHAIN, order, fill), at=at)
            else:
                refund(world, order, at=at)
            left = 500 if target == order else 0
            assert world.balance(hostile, world.escrow) == left
            return bool(world.chain.view(hostile, "callbackSucceeded"))

    assert call_back(order) is False
    assert call_back(spare) is True  # the callback itself works

"""An endpoint may say anything: only Unreachable comes of it, and whose fault it is stays right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import pytest
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from solver.chain import Chain, FeeAboveCap, Refusal, Rpc, RpcError, Unreachable, Wallet
from solver.core.types import JsonObject
from tests.make import KEY, SETTLEMENT

GWEI = 10**9
BLOCK: JsonObject = {
    "number": "0x7",
    "timestamp": "0x9",
    "hash": "0x" + "ab" * 32,
    "baseFeePerGas": hex(3 * GWEI),
}
WALLET = Wallet(KEY)
ODD: list[Any] = [
    None, True, 7, -1, 1.5, "", "0x", "0xzz", "-0x1", "0x" + "f" * 65, "latest", [], [None], {},
    {"number": None}, {"number": "0x1"}, {"status": "0x1"}, {"baseFeePerGas": 5}, {"gasUsed": []},
    RpcError(-32_005, "too many requests"), RpcError(-32_000, "missing trie node"),
    RpcError(3, "execution reverted", "0x"), RpcError(0, "", "nonsense"),
]  # fmt: skip
QUESTIONS: dict[str, Callable[[Chain], Any]] = {
    "check": lambda chain: chain.check(),
    "head": lambda chain: chain.head(),
    "clock": lambda chain: chain.clock(),
    "gas price": lambda chain: chain.gas_price_wei(),
    "balances": lambda chain: chain.balances([(SETTLEMENT, WALLET.address)], SETTLEMENT),
    "orders": lambda chain: chain.orders(SETTLEMENT, [(WALLET.address, "0x" + "12" * 32)]),
    "read": lambda chain: chain.read(SETTLEMENT, "fills(bytes32)", ["bool"], bytes(32)),
    "estimate": lambda chain: chain.estimate(WALLET.address, SETTLEMENT, "0x"),
    "nonce": lambda chain: chain.nonce(WALLET.address),
    "prepare": lambda chain: chain.prepare(WALLET, SETTLEMENT, "0x", 21_000, 0),
    "send": lambda chain: chain.send("0x00"),
    "receipt": lambda chain: chain.receipt("0x" + "34" * 32),
}


class Scripted(Rpc):
    """An endpoint that answers what it is told to."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.url = "http://node.example/v3/SECRETKEY123?token=alsosecret"
        self._answer = answer

    async def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        return [self._answer(method) for method, _ in calls]


def chain_that(answer: Callable[[str], Any], max_fee_wei: int = 200 * GWEI) -> Chain:
    return Chain(1, Scripted(answer), False, max_fee_wei)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_odd_answers_are_the_endpoints_fault(question: str) -> None:
    for odd in ODD:
        chain = chain_that(lambda _, odd=odd: odd)  # type: ignore[misc]  # binds the loop's value
        with contextlib.suppress(Unreachable, FeeAboveCap):
            await QUESTIONS[question](chain)


async def test_one_odd_answer_in_a_batch_is_the_endpoints_fault() -> None:
    for odd in ODD:
        for method in ("eth_getBlockByNumber", "eth_maxPriorityFeePerGas"):
            answers = {"eth_getBlockByNumber": BLOCK, "eth_maxPriorityFeePerGas": "0x1"}
            answers[method] = odd
            with contextlib.suppress(Unreachable, FeeAboveCap):
                await chain_that(answers.__getitem__).prepare(WALLET, SETTLEMENT, "0x", 21_000, 0)


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (RpcError(3, "execution reverted", "0x"), True),
        (RpcError(-32_000, "execution reverted", "0x08c379a0"), True),
        (RpcError(-32_000, "gas required exceeds allowance (30000000)"), True),
        (RpcError(-32_005, "daily request count exceeded"), False),
        (RpcError(-32_000, "insufficient funds for gas * price + value"), False),
        (RpcError(-32_603, "internal error", "see the log"), False),
    ],
)
async def test_only_the_contract_refuses_a_call(error: RpcError, is_refusal: bool) -> None:
    chain = chain_that(lambda _: error)
    if is_refusal:
        assert isinstance(await chain.estimate(WALLET.address, SETTLEMENT, "0x"), Refusal)
    else:
        with pytest.raises(Unreachable):
            await chain.estimate(WALLET.address, SETTLEMENT, "0x")


def fees(raw: str) -> tuple[int, int, int]:
    found = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return found["maxFeePerGas"], found["maxPriorityFeePerGas"], found["nonce"]


def market(base_fee_wei: int, tip_wei: int) -> Callable[[str], Any]:
    answers = {
        "eth_getBlockByNumber": BLOCK | {"baseFeePerGas": hex(base_fee_wei)},
        "eth_maxPriorityFeePerGas": hex(tip_wei),
    }
    return answers.__getitem__


async def test_fees_stay_within_the_operators_cap() -> None:
    async def signed(base_fee_wei: int, tip_wei: int) -> tuple[int, int, int]:
        chain = chain_that(market(base_fee_wei, tip_wei), 50 * GWEI)
        return fees((await chain.prepare(WALLET, SETTLEMENT, "0x", 21_000, 4)).raw)

    assert await signed(10 * GWEI, GWEI) == (21 * GWEI, GWEI, 4)
    assert await signed(40 * GWEI, GWEI) == (50 * GWEI, GWEI, 4)
    assert await signed(10 * GWEI, 10**6 * GWEI) == (50 * GWEI, 40 * GWEI, 4)
    with pytest.raises(FeeAboveCap):
        await signed(50 * GWEI, GWEI)


async def test_a_replacement_outbids_both_fees_or_is_not_made() -> None:
    chain = chain_that(market(10 * GWEI, GWEI), 25 * GWEI)
    first = await chain.prepare(WALLET, SETTLEMENT, "0x1234", 21_000, 4)
    second = await chain.replacement(WALLET, first.raw, cancels=False)
    for before, after in zip(fees(first.raw)[:2], fees(second.raw)[:2], strict=True):
        assert after * 8 >= before * 9
    assert (fees(second.raw)[2], second.nonce) == (4, 4)
    kept = TypedTransaction.from_bytes(HexBytes(second.raw)).as_dict()
    assert (kept["to"].hex(), kept["data"].hex()) == (SETTLEMENT[2:], "1234")
    with pytest.raises(FeeAboveCap):
        await chain.replacement(WALLET, second.raw, cancels=False)
    nothing = await chain_that(market(10 * GWEI, GWEI)).replacement(WALLET, second.raw, True)
    ended = TypedTransaction.from_bytes(HexBytes(nothing.raw)).as_dict()
    assert ("0x" + ended["to"].hex(), ended["data"].hex()) == (WALLET.address, "")


async def test_what_a_node_has_already_is_sent() -> None:
    for words in ("already known", "AlreadyKnown", "Transaction already imported"):
        assert await chain_that(lambda _, w=words: RpcError(-32_000, w)).send("0x00") == ""  # type: ignore[misc]  # binds the loop's value
    refusal = RpcError(-32_000, "nonce too low")
    assert await chain_that(lambda _: refusal).send("0x00") == "nonce too low"


async def test_a_node_that_repeats_its_url_is_not_repeated() -> None:
    async with aiohttp.ClientSession() as session:
        rpc = Rpc("http://user:longpassword@127.0.0.1:1/v3/SECRETKEY123?t=alsosecret", session, 1.0)
        with pytest.raises(Unreachable) as caught:
            await rpc.call("eth_chainId")
        said = rpc.told("no project SECRETKEY123 at /v3/SECRETKEY123?t=alsosecret, longpassword")
    assert str(caught.value).startswith("127.0.0.1: ")
    for secret in ("SECRETKEY123", "alsosecret", "longpassword"):
        assert secret not in str(caught.value) + said

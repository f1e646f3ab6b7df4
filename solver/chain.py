"""One EVM chain over JSON-RPC: reads pinned to a block, simulation, sending, receipts.

aiohttp and msgspec with JSON-RPC batches, because contract objects are two orders of magnitude
slower for many reads. The endpoint is not trusted to be well-formed: every answer is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from eth_account import Account
from msgspec import Struct

from solver.core import crypto
from solver.core.abi import AbiError, decode_answer, encode_call
from solver.core.types import JsonObject
from solver.core.venue import BlockRef, EventLog, ReadError

_MAX_BATCH = 500
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_UINT256_MAX = 2**256 - 1
_OVERRIDE_GAS = 500_000_000  # nodes lower it to their own cap


class RpcError(Exception):
    """The endpoint answered with an error. ``data`` is revert data where there is some."""

    def __init__(self, code: int, message: str, data: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Unreachable(Exception):
    """The endpoint does not answer, or not in time, or not JSON-RPC."""


class _Error(Struct):
    message: str = ""
    code: int = 0
    data: Any = None


class _Answer(Struct):
    id: int | None = None
    result: Any = None
    error: _Error | None = None


class Rpc:
    """A JSON-RPC endpoint."""

    def __init__(self, url: str, session: aiohttp.ClientSession, timeout_seconds: float) -> None:
        self.url = url
        self._session = session
        self._timeout_seconds = timeout_seconds

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one call; raises RpcError or Unreachable."""
        (answer,) = await self.batch([(method, list(params))])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Results in order; a call that failed gives its RpcError as a value."""
        found: list[Any] = []
        for start in range(0, len(calls), _MAX_BATCH):
            found += await self._batch(calls[start : start + _MAX_BATCH])
        return found

    async def _batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        body = msgspec.json.encode(
            [
                {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                for number, (method, params) in enumerate(calls)
            ]
        )
        raw = await self._post(body)
        try:
            answers = msgspec.json.decode(raw, type=list[_Answer])
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self.url} does not speak JSON-RPC: {error}") from error
        by_number = {answer.id: answer for answer in answers}
        if by_number.keys() != set(range(len(calls))):
            raise Unreachable(f"{self.url} answered other calls than were asked")
        return [_value(by_number[number]) for number in range(len(calls))]

    async def _post(self, body: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with self._session.post(
                    self.url, data=body, headers={"content-type": "application/json"}
                ) as response:
                    raw = await response.content.read(_MAX_ANSWER_BYTES)
                    while not response.content.at_eof() and len(raw) < _MAX_ANSWER_BYTES:
                        raw += await response.content.read(_MAX_ANSWER_BYTES)
                    if response.status != 200:
                        raise Unreachable(f"{self.url} answered HTTP {response.status}")
                    return raw
        except TimeoutError as error:
            raise Unreachable(
                f"{self.url} did not answer within {self._timeout_seconds} s"
            ) from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"{self.url}: {error}") from error


def _value(answer: _Answer) -> Any:
    if answer.error is None:
        return answer.result
    data = answer.error.data if isinstance(answer.error.data, str) else ""
    return RpcError(answer.error.code, answer.error.message, data)


class PinnedReader:
    """Reads at one block, named by its hash: after a reorg they fail instead of mixing blocks."""

    def __init__(self, rpc: Rpc, block: BlockRef) -> None:
        self._rpc = rpc
        self._block = block

    @property
    def block(self) -> BlockRef:
        """The block."""
        return self._block

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        """See :class:`solver.core.venue.Reader`."""
        pin = {"blockHash": self._block.hash}
        extra: JsonObject = {"gas": hex(_OVERRIDE_GAS)} if code else {}
        override = [{place: {"code": body} for place, body in code.items()}] if code else []
        questions = [
            ("eth_call", [{"to": target, "data": data, **extra}, pin, *override])
            for target, data in calls
        ]
        try:
            answers = await self._rpc.batch(questions)
        except Unreachable as error:
            raise ReadError(str(error)) from error
        for (target, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, RpcError):
                raise ReadError(f"{target}: {answer}")
            if not isinstance(answer, str):
                raise ReadError(f"{target}: the endpoint answered {type(answer).__name__}")
        return answers

    async def logs(self, address: str, topic: str, from_block: int) -> list[EventLog]:
        """See :class:`solver.core.venue.Reader`."""
        query = {
            "address": address,
            "topics": [topic],
            "fromBlock": hex(from_block),
            "toBlock": hex(self._block.number),
        }
        try:
            found = await self._rpc.call("eth_getLogs", query)
            return [
                EventLog(
                    log["address"].lower(),
                    tuple(log["topics"]),
                    log["data"],
                    int(log["blockNumber"], 16),
                )
                for log in found
            ]
        except (Unreachable, RpcError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReadError(f"logs of {address}: {error}") from error


class Receipt(Struct, frozen=True):
    """What the chain says about a transaction."""

    succeeded: bool
    block: int
    gas_used: int
    cost_wei: int


class Refusal(Struct, frozen=True):
    """Why a call would fail: the node's words and the revert data, ``""`` when there is none."""

    reason: str
    data: str


class Signed(Struct, frozen=True):
    """A signed transaction, ready to be sent and sent again."""

    nonce: int
    raw: str
    tx_hash: str


class Wallet:
    """A signer. The key stays in here: it has no representation and is never logged."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.address = crypto.address_from_key(key)

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    def sign_digest(self, digest: bytes) -> bytes:
        """r ‖ s ‖ v over a 32-byte digest."""
        return crypto.sign(digest, self._key)

    def sign_transaction(self, transaction: JsonObject) -> Signed:
        """An EIP-1559 transaction."""
        signed = Account.sign_transaction(transaction, self._key)
        return Signed(
            transaction["nonce"], "0x" + signed.raw_transaction.hex(), "0x" + signed.hash.hex()
        )


class Chain:
    """One chain and the questions that the daemon asks it."""

    def __init__(self, chain_id: int, rpc: Rpc, is_local: bool = False) -> None:
        self.id = chain_id
        self.rpc = rpc
        self.is_local = is_local

    async def check(self) -> None:
        """Raise Unreachable unless the endpoint serves this chain."""
        answered = _integer(await self._ask("eth_chainId"))
        if answered != self.id:
            raise Unreachable(f"{self.rpc.url} serves chain {answered}, not {self.id}")

    async def head(self) -> BlockRef:
        """The latest block."""
        block = await self._ask("eth_getBlockByNumber", "latest", False)
        try:
            number, stamp = _integer(block["number"]), _integer(block["timestamp"])
            return BlockRef(self.id, number, str(block["hash"]), stamp)
        except (KeyError, TypeError) as error:
            raise Unreachable(f"{self.rpc.url} sent no block: {error}") from error

    async def reader(self) -> PinnedReader:
        """A reader pinned to the latest block."""
        return PinnedReader(self.rpc, await self.head())

    async def gas_price_wei(self) -> int:
        """The price that the endpoint suggests."""
        return _integer(await self._ask("eth_gasPrice"))

    async def balances(
        self, wanted: Sequence[tuple[str, str]], spender: str, reader: PinnedReader | None = None
    ) -> list[int]:
        """What ``spender`` may take of each (token, owner): the lesser of balance and allowance.

        A token that does not answer counts as zero.
        """
        pin: Any = "latest" if reader is None else {"blockHash": reader.block.hash}
        calls = [
            ("eth_call", [{"to": token, "data": data}, pin])
            for token, owner in wanted
            for data in (
                encode_call("balanceOf(address)", owner),
                encode_call("allowance(address,address)", owner, spender),
            )
        ]
        answers = [_word(answer) for answer in await self.rpc.batch(calls)]
        return [min(pair) for pair in zip(answers[::2], answers[1::2], strict=True)]

    async def orders(
        self, settlement: str, wanted: Sequence[tuple[str, str]]
    ) -> list[tuple[bool, int]]:
        """For each (owner, digest): whether it is cancelled on chain, and how much is filled."""
        calls = [
            ("eth_call", [{"to": settlement, "data": data}, "latest"])
            for owner, digest in wanted
            for data in (
                encode_call("cancelled(address,bytes32)", owner, bytes.fromhex(digest[2:])),
                encode_call("filled(bytes32)", bytes.fromhex(digest[2:])),
            )
        ]
        answers = await self.rpc.batch(calls)
        if any(isinstance(answer, RpcError) for answer in answers):
            raise Unreachable(f"{self.rpc.url} refuses to read {settlement}")
        words = [_word(answer) for answer in answers]
        return [(bool(flag), filled) for flag, filled in zip(words[::2], words[1::2], strict=True)]

    async def read(self, target: str, signature: str, types: Sequence[str], *arguments: Any) -> Any:
        """One view at the latest block; a single result is unwrapped."""
        call = {"to": target, "data": encode_call(signature, *arguments)}
        answer = await self._ask("eth_call", call, "latest")
        try:
            values = decode_answer(types, answer)
        except (AbiError, AttributeError) as error:
            raise Unreachable(f"{target}.{signature}: {error}") from error
        return values[0] if len(values) == 1 else values

    async def estimate(self, sender: str, target: str, data: str) -> int | Refusal:
        """The gas that a call would need now, or why it would fail."""
        try:
            answer = await self.rpc.call(
                "eth_estimateGas", {"from": sender, "to": target, "data": data}, "latest"
            )
        except RpcError as error:
            return Refusal(str(error), error.data)
        return _integer(answer)

    async def nonce(self, address: str) -> int:
        """The next nonce by mined transactions only."""
        return _integer(await self._ask("eth_getTransactionCount", address, "latest"))

    async def prepare(self, wallet: Wallet, target: str, data: str, gas: int, nonce: int) -> Signed:
        """Sign a transaction that pays up to twice the base fee plus a tip; nothing is sent."""
        block, tip = await self.rpc.batch(
            [("eth_getBlockByNumber", ["latest", False]), ("eth_maxPriorityFeePerGas", [])]
        )
        for answer in (block, tip):
            if isinstance(answer, RpcError):
                raise answer
        tip_wei = _integer(tip)
        base_fee_wei = _integer(block.get("baseFeePerGas", "0x0"))
        return wallet.sign_transaction(
            {
                "type": 2,
                "chainId": self.id,
                "nonce": nonce,
                "to": checksum(target),
                "value": 0,
                "data": data,
                "gas": gas,
                "maxFeePerGas": 2 * base_fee_wei + tip_wei,
                "maxPriorityFeePerGas": tip_wei,
            }
        )

    async def send(self, raw: str) -> str:
        """Send the bytes: empty when the node has them (again), else why it refuses them."""
        try:
            await self.rpc.call("eth_sendRawTransaction", raw)
        except RpcError as error:
            known = ("already imported", "already known", "known transaction")
            if any(phrase in str(error).lower() for phrase in known):
                return ""
            return str(error)
        return ""

    async def forget(self, tx_hash: str) -> None:
        """Drop a transaction from a local chain's pool, so that sending it again is news.

        Anvil may leave a transaction aside for good when it arrives while a block is being made.
        """
        if self.is_local:
            with contextlib.suppress(RpcError):
                await self.rpc.call("anvil_dropTransaction", tx_hash)

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """The receipt, or None while the chain has not mined the transaction."""
        answer = await self._ask("eth_getTransactionReceipt", tx_hash)
        if answer is None:
            return None
        try:
            gas_used = _integer(answer["gasUsed"])
            return Receipt(
                _integer(answer["status"]) == 1,
                _integer(answer["blockNumber"]),
                gas_used,
                gas_used * _integer(answer["effectiveGasPrice"]),
            )
        except (KeyError, TypeError) as error:
            raise Unreachable(f"{self.rpc.url} sent no receipt: {error}") from error

    async def _ask(self, method: str, *params: Any) -> Any:
        try:
            return await self.rpc.call(method, *params)
        except RpcError as error:
            raise Unreachable(f"{self.rpc.url} refuses {method}: {error}") from error


def checksum(address: str) -> str:
    """The EIP-55 spelling, which transaction encoders insist on."""
    digits = address.removeprefix("0x").lower()
    marks = crypto.keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(mark, 16) > 7 else digit
        for digit, mark in zip(digits, marks, strict=False)
    )


def _integer(value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError) as error:
        raise Unreachable(f"expected a hex number, got {value!r}") from error


def _word(answer: Any) -> int:
    """A uint256 answer; anything else counts as zero."""
    if not isinstance(answer, str) or len(answer) != 66:
        return 0
    try:
        return min(int(answer, 16), _UINT256_MAX)
    except ValueError:
        return 0

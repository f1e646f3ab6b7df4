"""One EVM chain over JSON-RPC: reads pinned to a block, simulation, sending, receipts.

aiohttp and msgspec with JSON-RPC batches, because contract objects are two orders of magnitude
slower for many reads. The endpoint is not trusted to be well-formed: every answer is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from msgspec import Struct

from solver.core import crypto
from solver.core.abi import AbiError, decode_answer, encode_call
from solver.core.types import JsonObject
from solver.core.venue import BlockRef, EventLog, ReadError

_MAX_BATCH = 500
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_UINT256_MAX = 2**256 - 1
_OVERRIDE_GAS = 500_000_000  # nodes lower it to their own cap
_REVERTED = 3  # the JSON-RPC code of a call that the contract refused
#: What nodes say of a call that uses up its gas; they give no code of its own to it.
_OUT_OF_GAS = ("out of gas", "outofgas", "gas required exceeds")
#: After an endpoint kept us waiting for nothing, others are not made to wait for it as well.
_SILENCE_SECONDS = 2.0
_CANCEL_GAS = 60_000
_IDLE_SECONDS = 1.0


class RpcError(Exception):
    """The endpoint answered with an error. ``data`` is revert data where there is some."""

    def __init__(self, code: int, message: str, data: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Unreachable(Exception):
    """The endpoint does not answer, or not in time, or not JSON-RPC."""


class FeeAboveCap(Exception):
    """The chain asks for more than the operator pays per unit of gas."""


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
        self._silent_until = 0.0

    @property
    def name(self) -> str:
        """The host: all that may be told of an endpoint, as the rest of a URL is often a key."""
        parts = urlsplit(self.url)
        return parts.hostname or "the endpoint"

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
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unreachable(f"{self.name} does not speak JSON-RPC: {error}") from error
        by_number = {answer.id: answer for answer in answers}
        if by_number.keys() != set(range(len(calls))):
            raise Unreachable(f"{self.name} answered other calls than were asked")
        return [self._value(by_number[number]) for number in range(len(calls))]

    async def _post(self, body: bytes) -> bytes:
        if time.monotonic() < self._silent_until:
            raise Unreachable(f"{self.name} did not answer lately")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with self._session.post(
                    self.url, data=body, headers={"content-type": "application/json"}
                ) as response:
                    raw = await response.content.read(_MAX_ANSWER_BYTES)
                    while not response.content.at_eof() and len(raw) < _MAX_ANSWER_BYTES:
                        raw += await response.content.read(_MAX_ANSWER_BYTES)
                    if response.status != 200:
                        raise Unreachable(f"{self.name} answered HTTP {response.status}")
                    return raw
        except TimeoutError as error:
            self._silent_until = time.monotonic() + _SILENCE_SECONDS
            raise Unreachable(
                f"{self.name} did not answer within {self._timeout_seconds} s"
            ) from error
        except aiohttp.ClientError as error:
            # The library's message may hold the URL, so nothing of it is passed on.
            raise Unreachable(f"{self.name}: {_kind(error)}") from None

    def _value(self, answer: _Answer) -> Any:
        if answer.error is None:
            return answer.result
        data = answer.error.data if isinstance(answer.error.data, str) else ""
        return RpcError(answer.error.code, self.told(answer.error.message), data)

    def told(self, message: str) -> str:
        """What the endpoint says, less those parts of its URL that may be a key."""
        parts = urlsplit(self.url)
        secrets = [*parts.path.split("/"), parts.query, parts.username, parts.password]
        for secret in (self.url, *(s for s in secrets if s and len(s) > 7)):
            message = message.replace(secret, "…")
        return message


def _kind(error: aiohttp.ClientError) -> str:
    reason = getattr(getattr(error, "os_error", None), "strerror", None)
    return str(reason or type(error).__name__)


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

    def __init__(
        self,
        chain_id: int,
        rpc: Rpc,
        is_local: bool = False,
        max_fee_wei: int = _UINT256_MAX,
    ) -> None:
        self.id = chain_id
        self.rpc = rpc
        self.is_local = is_local
        self.max_fee_wei = max_fee_wei

    def __str__(self) -> str:
        return f"chain {self.id} at {self.rpc.name}"

    async def check(self) -> None:
        """Raise Unreachable unless the endpoint serves this chain."""
        answered = _integer(await self._ask("eth_chainId"))
        if answered != self.id:
            raise Unreachable(f"{self.rpc.name} serves chain {answered}, not {self.id}")

    async def head(self) -> BlockRef:
        """The latest block."""
        block = await self._ask("eth_getBlockByNumber", "latest", False)
        try:
            number, stamp = _integer(block["number"]), _integer(block["timestamp"])
            return BlockRef(self.id, number, str(block["hash"]), stamp)
        except (KeyError, TypeError) as error:
            raise Unreachable(f"{self} sent no block: {error}") from error

    async def clock(self) -> float:
        """The time as of which this chain may already act: the later of its head's and ours.

        An idle local chain makes a block first, because nobody else does and its head would stay
        behind for ever.
        """
        head = await self.head()
        if self.is_local and time.time() - head.timestamp > _IDLE_SECONDS:
            await self.mine()
            head = await self.head()
        return max(float(head.timestamp), time.time())

    async def mine(self) -> None:
        """Make a block; on local chains only."""
        if self.is_local:
            await self._ask("evm_mine")

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
            raise Unreachable(f"{self} refuses to read {settlement}")
        words = [_word(answer) for answer in answers]
        return [(bool(flag), filled) for flag, filled in zip(words[::2], words[1::2], strict=True)]

    async def read(
        self,
        target: str,
        signature: str,
        types: Sequence[str],
        *arguments: Any,
        block: int | None = None,
    ) -> Any:
        """One view at a block, by default the latest; a single result is unwrapped."""
        call = {"to": target, "data": encode_call(signature, *arguments)}
        answer = await self._ask("eth_call", call, "latest" if block is None else hex(block))
        try:
            values = decode_answer(types, answer)
        except (AbiError, AttributeError, TypeError) as error:
            raise Unreachable(f"{self}: {target}.{signature}: {error}") from error
        return values[0] if len(values) == 1 else values

    async def estimate(self, sender: str, target: str, data: str) -> int | Refusal:
        """The gas that a call would need now, or why the contract would refuse it.

        Everything else that a node may say (rate limits, missing state, no funds for gas) is no
        fault of the call, and raises Unreachable.
        """
        try:
            answer = await self.rpc.call(
                "eth_estimateGas", {"from": sender, "to": target, "data": data}, "latest"
            )
        except RpcError as error:
            words = str(error).lower()
            used_up = any(phrase in words for phrase in _OUT_OF_GAS)
            if error.code == _REVERTED or error.data.startswith("0x") or used_up:
                return Refusal(str(error), error.data)
            raise Unreachable(f"{self} refuses to simulate: {error}") from error
        return _integer(answer)

    async def nonce(self, address: str) -> int:
        """The next nonce by mined transactions only."""
        return _integer(await self._ask("eth_getTransactionCount", address, "latest"))

    async def prepare(self, wallet: Wallet, target: str, data: str, gas: int, nonce: int) -> Signed:
        """Sign a transaction that pays up to twice the base fee plus a tip; nothing is sent.

        Raises FeeAboveCap when the base fee alone is above the operator's cap.
        """
        max_fee_wei, tip_wei = await self._fees()
        return wallet.sign_transaction(
            {
                "type": 2,
                "chainId": self.id,
                "nonce": nonce,
                "to": checksum(target),
                "value": 0,
                "data": data,
                "gas": gas,
                "maxFeePerGas": max_fee_wei,
                "maxPriorityFeePerGas": tip_wei,
            }
        )

    async def replacement(self, wallet: Wallet, raw: str, cancels: bool) -> Signed:
        """Sign the same again, or nothing at all with the same nonce, for fees that nodes accept.

        Nodes want both fees an eighth higher. Raises FeeAboveCap when that is above the cap.
        """
        before = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        max_fee_wei, tip_wei = await self._fees()
        tip_wei = max(tip_wei, _eighth_more(before["maxPriorityFeePerGas"]))
        max_fee_wei = max(max_fee_wei, tip_wei, _eighth_more(before["maxFeePerGas"]))
        if max_fee_wei > self.max_fee_wei:
            raise FeeAboveCap(f"{self}: {max_fee_wei} wei per gas to replace a transaction")
        target = wallet.address if cancels else "0x" + bytes(before["to"]).hex()
        return wallet.sign_transaction(
            {
                "type": 2,
                "chainId": self.id,
                "nonce": before["nonce"],
                "to": checksum(target),
                "value": 0,
                "data": "0x" if cancels else "0x" + bytes(before["data"]).hex(),
                "gas": _CANCEL_GAS if cancels else before["gas"],
                "maxFeePerGas": max_fee_wei,
                "maxPriorityFeePerGas": tip_wei,
            }
        )

    async def _fees(self) -> tuple[int, int]:
        """Most per gas, and tip, as the endpoint suggests them but within the operator's cap."""
        block, tip = await self.rpc.batch(
            [("eth_getBlockByNumber", ["latest", False]), ("eth_maxPriorityFeePerGas", [])]
        )
        for answer in (block, tip):
            if isinstance(answer, RpcError):
                raise Unreachable(f"{self} tells no fees: {answer}")
        try:
            base_fee_wei = _integer(block.get("baseFeePerGas", "0x0"))
        except AttributeError as error:
            raise Unreachable(f"{self} sent no block: {error}") from error
        if base_fee_wei >= self.max_fee_wei:
            raise FeeAboveCap(f"{self}: the base fee is {base_fee_wei} wei")
        tip_wei = min(_integer(tip), self.max_fee_wei - base_fee_wei)
        return min(2 * base_fee_wei + tip_wei, self.max_fee_wei), tip_wei

    async def send(self, raw: str) -> str:
        """Send the bytes: empty when the node has them (again), else why it refuses them."""
        try:
            await self.rpc.call("eth_sendRawTransaction", raw)
        except RpcError as error:
            known = ("already imported", "already known", "alreadyknown", "known transaction")
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
            raise Unreachable(f"{self} sent no receipt: {error}") from error

    async def _ask(self, method: str, *params: Any) -> Any:
        try:
            return await self.rpc.call(method, *params)
        except RpcError as error:
            raise Unreachable(f"{self} refuses {method}: {error}") from error


def checksum(address: str) -> str:
    """The EIP-55 spelling, which transaction encoders insist on."""
    digits = address.removeprefix("0x").lower()
    marks = crypto.keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(mark, 16) > 7 else digit
        for digit, mark in zip(digits, marks, strict=False)
    )


def _eighth_more(fee_wei: int) -> int:
    return fee_wei * 9 // 8 + 1


def _integer(value: Any) -> int:
    try:
        number = int(value, 16)
    except (TypeError, ValueError) as error:
        raise Unreachable(f"expected a hex number, got {str(value)[:60]!r}") from error
    if not 0 <= number <= _UINT256_MAX:
        raise Unreachable(f"expected a uint256, got {str(value)[:60]!r}")
    return number


def _word(answer: Any) -> int:
    """A uint256 answer; anything else counts as zero."""
    if not isinstance(answer, str) or len(answer) != 66:
        return 0
    try:
        return max(0, min(int(answer, 16), _UINT256_MAX))
    except ValueError:
        return 0

"""A real Anvil with the contracts on it, and typed hands to work them.

Nothing here is faked: every call goes through JSON-RPC to a node. Block times are set for each
transaction (one second after the last unless a test says when), so that windows can be tested to
the second. Refused calls are named by the custom error of the committed artifacts.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import requests
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from msgspec.structs import astuple, replace
from web3 import Web3
from web3.contract.contract import Contract
from web3.logs import DISCARD
from web3.providers.rpc import HTTPProvider
from web3.types import RPCEndpoint, TxReceipt

from solver.core import crypto, intent
from solver.core.types import ZERO_ADDRESS, ZERO_BYTES32, JsonObject, Kind, Swap

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "contracts" / "artifacts"
PACKAGED_ANVIL = ROOT / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
OTHER_CHAIN = 4242
MAX = 2**256 - 1
GAS = 20_000_000
_START_SECONDS = 30.0
_NUMBERS = count(1)  # nonces and batch ids, each used once


def fields_of(text: str) -> list[dict[str, str]]:
    """The fields of an EIP-712 type, as eth_account wants them."""
    pairs = (field.split() for field in text.split(","))
    return [{"name": name, "type": kind} for kind, name in pairs]


#: The signed type, written out a second time on purpose: the oracle must not share the field
#: list of the code that it judges.
SWAP_FIELDS = fields_of(
    "address owner,bytes32 account,address receiver,uint256 sellChain,bytes32 sellAsset,"
    "uint256 buyChain,bytes32 buyAsset,uint256 sellAmount,uint256 buyAmount,string kind,"
    "bool partialFill,uint256 nonce,uint64 validFrom,uint64 validUntil,uint64 fillDeadline,"
    "uint64 refundAfter,uint256 maxFee,uint256 minHealth,bytes32 extension"
)
ATTESTATION_FIELDS = fields_of("uint256 fillChain,bytes32 orderId,bytes32 fillHash")


@dataclass(frozen=True)
class Actor:
    """An account with a key; Anvil lets it send without signing the transaction."""

    key: bytes
    address: str

    @classmethod
    def named(cls, name: str) -> Actor:
        """The same account for the same name, in every run."""
        key = crypto.keccak(b"thalweg test actor " + name.encode())
        return cls(key, str(Account.from_key(key).address))


@dataclass(frozen=True)
class Revert:
    """Why a call was refused: the error's name and its arguments, hex in lower case."""

    name: str
    args: tuple[Any, ...] = ()


def refusal(name: str, *args: Any) -> Revert:
    """The expected value for :meth:`Chain.refused`."""
    return Revert(name, tuple(_plain(value) for value in args))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value.lower() if isinstance(value, str) and value.startswith("0x") else value


@functools.cache
def artifact(name: str) -> JsonObject:
    """A committed artifact."""
    loaded: JsonObject = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return loaded


@functools.cache
def error_types() -> dict[str, tuple[str, list[str]]]:
    """Selector (hex) → name and argument types of each error that Solidity or an artifact knows."""
    known = {"08c379a0": ("Error", ["string"]), "4e487b71": ("Panic", ["uint256"])}
    for path in sorted(ARTIFACTS.glob("*.json")):
        for entry in artifact(path.stem)["abi"]:
            if entry["type"] == "error":
                types = [str(item["type"]) for item in entry["inputs"]]
                signature = f"{entry['name']}({','.join(types)})"
                known[crypto.keccak(signature.encode())[:4].hex()] = (entry["name"], types)
    return known


def decode_revert(data: str) -> Revert:
    """Revert data as an error with a name; what no ABI knows keeps its raw data."""
    raw = bytes.fromhex(data.removeprefix("0x"))
    selector, body = raw[:4].hex(), raw[4:]
    if selector not in error_types():
        return Revert("unknown", (data,))
    name, types = error_types()[selector]
    return refusal(name, *decode(types, body))


class Chain:
    """One Anvil over JSON-RPC."""

    def __init__(self, url: str, chain_id: int, session: requests.Session) -> None:
        self.id = chain_id
        self.w3 = Web3(HTTPProvider(url, session=session))
        self.time = 0

    def rpc(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC call."""
        answer = self.w3.provider.make_request(RPCEndpoint(method), list(params))
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Everything that happens inside is undone."""
        snapshot, before = self.rpc("evm_snapshot"), self.time
        try:
            yield
        finally:
            assert self.rpc("evm_revert", snapshot), "Anvil did not revert to the snapshot"
            self.time = before

    def deploy(self, name: str, *args: Any, sender: Actor) -> Contract:
        """Deploy a committed artifact."""
        return self.deploy_code(name, artifact(name), *args, sender=sender)

    def deploy_code(self, name: str, data: JsonObject, *args: Any, sender: Actor) -> Contract:
        """Deploy what an artifact of another build has as ``abi`` and ``bytecode``."""
        code = "0x" + str(data["bytecode"]).removeprefix("0x")
        factory = self.w3.eth.contract(abi=data["abi"], bytecode=code)
        constructor: Any = factory.constructor(*args)
        receipt = self._transact({"data": str(constructor.data_in_transaction)}, sender, None)
        assert receipt["status"] == 1, f"{name} could not be deployed"
        address = to_checksum_address(str(receipt["contractAddress"]))
        return self.w3.eth.contract(address, abi=data["abi"])

    def contract(self, name: str, address: str) -> Contract:
        """A contract that is deployed already."""
        return self.w3.eth.contract(to_checksum_address(address), abi=artifact(name)["abi"])

    def send(
        self, contract: Contract, name: str, *args: Any, sender: Actor, at: int | None = None
    ) -> TxReceipt:
        """A transaction that must succeed; when it does not, the test fails with the reason."""
        return self.send_data(contract, calldata(contract, name, *args), sender=sender, at=at)

    def send_data(
        self, contract: Contract, data: str, *, sender: Actor, at: int | None = None
    ) -> TxReceipt:
        """The same with calldata that is encoded already."""
        receipt = self._transact({"to": str(contract.address), "data": data}, sender, at)
        if receipt["status"] != 1:
            reason = self.try_data(contract, data, sender=sender, at=self.time)
            raise AssertionError(f"{data[:10]} was refused: {reason}")
        return receipt

    def refused(
        self, contract: Contract, name: str, *args: Any, sender: Actor, at: int | None = None
    ) -> Revert:
        """The reason for which a call is refused, after it was refused as a transaction too."""
        return self.refused_data(contract, calldata(contract, name, *args), sender=sender, at=at)

    def refused_data(
        self, contract: Contract, data: str, *, sender: Actor, at: int | None = None
    ) -> Revert:
        """The same with calldata that is encoded already."""
        when = self.time + 1 if at is None else at
        reason = self.try_data(contract, data, sender=sender, at=when)
        assert reason is not None, f"{data[:10]} was not refused"
        receipt = self._transact({"to": str(contract.address), "data": data}, sender, when)
        assert receipt["status"] == 0, f"{data[:10]} was refused as a call, not as a transaction"
        return reason

    def try_call(
        self, contract: Contract, name: str, *args: Any, sender: Actor, at: int | None = None
    ) -> Revert | None:
        """What a call would be refused for, None if it would pass. Changes nothing."""
        return self.try_data(contract, calldata(contract, name, *args), sender=sender, at=at)

    def try_data(
        self, contract: Contract, data: str, *, sender: Actor, at: int | None = None
    ) -> Revert | None:
        """The same with calldata that is encoded already."""
        tx = {"from": sender.address, "to": str(contract.address), "data": data, "gas": hex(GAS)}
        block = {"time": hex(self.time + 1 if at is None else at)}
        endpoint = RPCEndpoint("eth_call")
        answer = self.w3.provider.make_request(endpoint, [tx, "latest", {}, block])
        if "error" not in answer:
            return None
        error: Any = answer["error"]
        assert isinstance(error.get("data"), str), f"not a revert: {error}"
        return decode_revert(error["data"])

    def view(self, contract: Contract, name: str, *args: Any) -> Any:
        """The result of a view."""
        return contract.functions[name](*args).call()

    def _transact(self, tx: dict[str, str], sender: Actor, at: int | None) -> TxReceipt:
        self.rpc("anvil_setBalance", sender.address, hex(10**24))
        when = self.time + 1 if at is None else at
        self.rpc("evm_setNextBlockTimestamp", when)
        full = {**tx, "from": sender.address, "gas": hex(GAS)}
        receipt = self.w3.eth.wait_for_transaction_receipt(
            self.rpc("eth_sendTransaction", full), timeout=20, poll_latency=0.002
        )
        self.time = when
        return receipt


def calldata(contract: Contract, name: str, *args: Any) -> str:
    """The encoded call."""
    return str(contract.encode_abi(name, args=list(args)))


def events(contract: Contract, receipt: TxReceipt, name: str) -> list[dict[str, Any]]:
    """The arguments of each event of that name which ``contract`` itself emitted, in order."""
    logs = contract.events[name]().process_receipt(receipt, errors=DISCARD)
    own = [log for log in logs if log["address"] == contract.address]
    return [{key: _plain(value) for key, value in log["args"].items()} for log in own]


def anvil_binary() -> str:
    """The packaged Anvil, else the one on PATH."""
    if os.access(PACKAGED_ANVIL, os.X_OK):
        return str(PACKAGED_ANVIL)
    found = shutil.which("anvil")
    if found is None:
        raise FileNotFoundError(f"no anvil: neither {PACKAGED_ANVIL} nor on PATH; run `make setup`")
    return found


@contextmanager
def anvil(chain_id: int) -> Iterator[Chain]:
    """A fresh Anvil on a free port, gone at the end whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [anvil_binary(), "--hardfork", "cancun", "--silent"]
    command += ["--chain-id", str(chain_id), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with closing(requests.Session()) as session:
            chain = Chain(f"http://127.0.0.1:{port}", chain_id, session)
            _wait_until_up(chain, process)
            chain.rpc("anvil_autoImpersonateAccount", True)
            chain.time = int(chain.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
            yield chain
    finally:
        process.kill()
        process.wait()


def _wait_until_up(chain: Chain, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"anvil ended at once with code {process.returncode}")
        try:
            answered = int(chain.rpc("eth_chainId"), 16)
        except requests.ConnectionError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            assert answered == chain.id, f"chain {answered} answers on the port of {chain.id}"
            return


def asset(token: Contract | str) -> str:
    """A token as the signed type names it: left-padded to 32 bytes."""
    address = token if isinstance(token, str) else str(token.address)
    return "0x" + address.lower().removeprefix("0x").rjust(64, "0")


def lower(holder: Actor | Contract) -> str:
    """An address as the solver writes it."""
    return str(holder.address).lower()


def unit(value: str) -> bytes:
    """32 bytes of a hash in hex."""
    return bytes.fromhex(value.removeprefix("0x"))


def struct_of(swap: Swap, kind: int | None = None) -> tuple[Any, ...]:
    """The swap as the contract's calldata struct; ``kind`` replaces the kind's number."""
    number = list(Kind).index(swap.kind) if kind is None else kind
    convert: dict[str, Callable[[Any], Any]] = {
        "address": to_checksum_address,
        "bytes32": unit,
        "string": lambda _: number,
    }
    return tuple(
        convert.get(entry["type"], lambda value: value)(value)
        for entry, value in zip(SWAP_FIELDS, astuple(swap), strict=True)
    )


def signable(swap: Swap, settlement: Contract) -> Any:
    """eth_account's encoding of the order."""
    names = [entry["name"] for entry in SWAP_FIELDS]
    message = dict(zip(names, struct_of(swap), strict=True))
    message["kind"] = swap.kind.value
    domain = {
        "name": "Thalweg",
        "version": "1",
        "chainId": swap.sell_chain,
        "verifyingContract": settlement.address,
    }
    return encode_typed_data(domain, {"Swap": SWAP_FIELDS}, message)


def order_id(digest: str, filled_before: int) -> str:
    """The name of a cross-chain fill."""
    return "0x" + crypto.keccak(encode(["bytes32", "uint256"], [unit(digest), filled_before])).hex()


def fill_hash(order: str, swap: Swap, bought: int) -> str:
    """What the settlement of the buy chain must record for a fill, worked out in Python."""
    types = ["bytes32", "uint256", "bytes32", "address", "uint256", "uint64"]
    values = [unit(order), swap.buy_chain, unit(swap.buy_asset), swap.receiver, bought]
    return "0x" + crypto.keccak(encode(types, [*values, swap.fill_deadline])).hex()


@dataclass
class World:
    """A settlement on one chain with an owner who sells and a solver who can pay."""

    chain: Chain
    settlement: Contract
    holder: Contract
    escrow: Contract
    verifier: Contract
    sell: Contract
    buy: Contract
    admin: Actor
    solver: Actor
    alice: Actor
    bob: Actor
    mallory: Actor
    attester: Actor
    dust: Actor

    def order(self, **changes: Any) -> Swap:
        """Alice sells exactly 1,000 for at least 2,000; ``changes`` replace fields."""
        base = Swap(
            owner=lower(self.alice),
            account=ZERO_BYTES32,
            receiver=lower(self.alice),
            sell_chain=self.chain.id,
            sell_asset=asset(self.sell),
            buy_chain=self.chain.id,
            buy_asset=asset(self.buy),
            sell_amount=1_000,
            buy_amount=2_000,
            kind=Kind.EXACT_IN,
            partial_fill=False,
            nonce=next(_NUMBERS),
            valid_from=0,
            valid_until=self.chain.time + 10_000,
            fill_deadline=0,
            refund_after=0,
            max_fee=0,
            min_health=0,
            extension=ZERO_BYTES32,
        )
        return replace(base, **changes)

    def digest(self, swap: Swap) -> str:
        """The order's digest as Python sees it."""
        return intent.digest_of(swap, str(self.settlement.address).lower())

    def sign(self, swap: Swap, signer: Actor | None = None) -> bytes:
        """eth_account's signature over the order, by Alice unless told otherwise."""
        key = (signer or self.alice).key
        return bytes(Account.sign_message(signable(swap, self.settlement), key).signature)

    def trade(
        self,
        swap: Swap,
        sold: int,
        bought: int,
        fee: int = 0,
        signature: bytes | None = None,
        before: int = 0,
    ) -> tuple[Any, ...]:
        """A fill, signed by Alice unless a signature is given; ``before`` is filled already."""
        signed = self.sign(swap) if signature is None else signature
        return (struct_of(swap), signed, sold, bought, fee, before)

    def attest(self, fill_chain: int, order: str, fill: str, signer: Actor | None = None) -> bytes:
        """A proof for the escrow, by the attester unless told otherwise."""
        domain = {
            "name": "Thalweg Attestation",
            "version": "1",
            "chainId": self.chain.id,
            "verifyingContract": self.verifier.address,
        }
        message = {"fillChain": fill_chain, "orderId": unit(order), "fillHash": unit(fill)}
        document = encode_typed_data(domain, {"Attestation": ATTESTATION_FIELDS}, message)
        return bytes(Account.sign_message(document, (signer or self.attester).key).signature)

    def bundle(
        self,
        *,
        trades: Sequence[tuple[Any, ...]] = (),
        funding: Sequence[tuple[Contract, int]] = (),
        interactions: Sequence[tuple[Any, ...]] = (),
        fills: Sequence[tuple[Any, ...]] = (),
        sweep: Sequence[Contract] = (),
        batch: int | None = None,
        deadline: int = MAX,
    ) -> tuple[Any, ...]:
        """The arguments of ``settle``, with a batch id of its own."""
        number = next(_NUMBERS) if batch is None else batch
        return (
            number.to_bytes(32, "big"),
            deadline,
            list(trades),
            [(token.address, amount) for token, amount in funding],
            list(interactions),
            list(fills),
            [token.address for token in sweep],
        )

    def settle(self, *, by: Actor | None = None, at: int | None = None, **parts: Any) -> TxReceipt:
        """A settlement that must succeed."""
        request = (self.settlement, "settle", *self.bundle(**parts))
        return self.chain.send(*request, sender=by or self.solver, at=at)

    def refuse(self, *, by: Actor | None = None, at: int | None = None, **parts: Any) -> Revert:
        """A settlement that must fail, and why it does."""
        request = (self.settlement, "settle", *self.bundle(**parts))
        return self.chain.refused(*request, sender=by or self.solver, at=at)

    def would(self, **parts: Any) -> Revert | None:
        """Why a settlement would fail, None if it would not; nothing is sent."""
        request = (self.settlement, "settle", *self.bundle(**parts))
        return self.chain.try_call(*request, sender=self.solver)

    def balance(self, token: Contract, who: Actor | Contract) -> int:
        """A balance in base units."""
        return int(self.chain.view(token, "balanceOf", who.address))

    def filled(self, swap: Swap) -> int:
        """How much of the order the settlement counts as filled."""
        return int(self.chain.view(self.settlement, "filled", unit(self.digest(swap))))

    def allowance(self, token: Contract, owner: Contract, spender: Contract) -> int:
        """An allowance in base units."""
        return int(self.chain.view(token, "allowance", owner.address, spender.address))

    def fund(self, token: Contract, who: Actor, amount: int, spender: Contract) -> None:
        """Mint tokens to somebody who approves them all to ``spender``."""
        self.chain.send(token, "mint", who.address, amount, sender=self.admin)
        self.chain.send(token, "approve", spender.address, MAX, sender=who)


def call(
    contract: Contract, name: str, *args: Any, approve: tuple[Contract, int] | None = None
) -> tuple[Any, ...]:
    """An interaction of a bundle."""
    token, amount = (str(approve[0].address), approve[1]) if approve else (ZERO_ADDRESS, 0)
    return (contract.address, calldata(contract, name, *args), token, amount)


def build_world(chain: Chain) -> World:
    """Deploy everything; Alice holds 10²⁴ to sell, the solver 10²⁴ to pay with."""
    names = ("admin", "solver", "alice", "bob", "mallory", "attester", "dust")
    actors = {name: Actor.named(name) for name in names}
    admin = actors["admin"]
    verifier = chain.deploy("AttestedFillVerifier", actors["attester"].address, sender=admin)
    settlement = chain.deploy(
        "Settlement", admin.address, actors["dust"].address, verifier.address, sender=admin
    )
    world = World(
        chain=chain,
        settlement=settlement,
        holder=chain.contract("AllowanceHolder", chain.view(settlement, "holder")),
        escrow=chain.contract("Escrow", chain.view(settlement, "escrow")),
        verifier=verifier,
        sell=chain.deploy("TestToken", "Sold", "SELL", 18, sender=admin),
        buy=chain.deploy("TestToken", "Bought", "BUY", 6, sender=admin),
        **actors,
    )
    chain.send(settlement, "setSolver", world.solver.address, True, sender=admin)
    world.fund(world.sell, world.alice, 10**24, world.holder)
    world.fund(world.buy, world.solver, 10**24, world.holder)
    return world

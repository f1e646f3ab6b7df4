"""The default world: two local Anvil chains with contracts, tokens and funded mock venues.

The chains run in sessions of their own and outlive a daemon that is killed; the next one finds
them again through the run file. A daemon that stops in order stops them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from eth_abi.abi import encode
from eth_account import Account
from msgspec import Struct

from solver.chain import Rpc, RpcError, Unreachable, Wallet
from solver.core.abi import decode_answer, encode_call
from solver.core.types import JsonObject

ANVIL_VERSIONS = ("1.",)
_PACKAGED = Path("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")
_ROOT = Path(__file__).resolve().parents[1]
_MNEMONIC = "test test test test test test test test test test test junk"  # Anvil's, public
_MAX = 2**256 - 1
_MINING_SECONDS = 30.0
_STOP_SECONDS = 5.0
_ATTACH_SECONDS = 10.0
_ACCOUNTS = 10
ADMIN, SOLVER, ATTESTER, FEES, FIRST_USER = 0, 1, 2, 3, 4

TOKENS = (("WETH", 18), ("USDC", 6), ("DAI", 18), ("WBTC", 8))
#: name: (token, token, fee in bps, whole tokens of each). Prices: WETH 2,500, WBTC 60,000.
PAIRS: Mapping[str, tuple[str, str, int, int, int]] = {
    "WETH-USDC-30": ("WETH", "USDC", 30, 1_000, 2_500_000),
    "WETH-USDC-5": ("WETH", "USDC", 5, 600, 1_500_000),
    "WETH-DAI-30": ("WETH", "DAI", 30, 500, 1_250_000),
    "DAI-USDC-5": ("DAI", "USDC", 5, 2_000_000, 2_000_000),
    "WBTC-WETH-30": ("WBTC", "WETH", 30, 40, 960),
}
#: Levels of the WETH-USDC book: (is bid, USDC per lot of 0.01 WETH in cents, lots).
BOOK_LEVELS = ((True, 2_499, 300), (True, 2_495, 800), (False, 2_502, 300), (False, 2_507, 800))
_LOT_WEI, _CENT = 10**16, 10**4
_BRIDGED = ("WETH", "USDC")
#: Whole tokens per user and for the solver's inventory.
GRANTS = {"WETH": 1_000, "USDC": 2_500_000, "DAI": 2_500_000, "WBTC": 50}


#: The chains that this process started; those of a daemon before us are known by their pid.
_children: dict[int, subprocess.Popen[bytes]] = {}


class DevnetError(Exception):
    """The local chains cannot be had; one line that says why and what to do."""


class Deployment(Struct, frozen=True):
    """A local chain: where it answers, its process, the address of every name and its birth."""

    chain: int
    url: str
    pid: int
    addresses: dict[str, str]
    born_at: float = 0.0


@cache
def account(number: int) -> Wallet:
    """One of Anvil's public test accounts."""
    Account.enable_unaudited_hdwallet_features()
    path = f"m/44'/60'/0'/0/{number}"
    return Wallet(bytes(Account.from_mnemonic(_MNEMONIC, account_path=path).key))


def user(number: int) -> Wallet:
    """An account to play with, funded on every local chain."""
    return account(FIRST_USER + number)


def user_count() -> int:
    """How many accounts there are to play with."""
    return _ACCOUNTS - FIRST_USER


async def attach_or_start(
    chains: Sequence[tuple[int, int]],
    directory: Path,
    session: aiohttp.ClientSession,
    timeout_seconds: float,
) -> tuple[dict[int, Deployment], bool]:
    """The local chains (id, port or 0), and whether they were running already.

    Raises DevnetError when Anvil is missing or does not start.
    """
    path = directory / "devnet.json"
    known = read_run_file(path)
    if set(known) == {chain for chain, _ in chains}:
        alive = [await _is_alive(known[chain], session) for chain, _ in chains]
        if all(alive):
            return known, True
    stop(known)
    binary = find_anvil()
    directory.mkdir(parents=True, exist_ok=True)
    started: dict[int, Deployment] = {}
    try:
        for chain, wanted in chains:
            port = wanted or free_port()
            # Known before it exists: a kill between the two would leave an Anvil that nobody ends.
            started[chain] = Deployment(chain, _url(port), 0, {}, time.time())
            _write_run_file(path, started)
            started[chain] = _start(binary, chain, port)
            _write_run_file(path, started)
        for deployment in started.values():
            await _wait(deployment, session, timeout_seconds)
        ready = await asyncio.gather(
            *(_deploy(deployment, session, timeout_seconds) for deployment in started.values())
        )
        await _connect_bridges(ready, session, timeout_seconds)
    except (Unreachable, RpcError, DevnetError, TimeoutError) as error:
        stop(started)
        raise DevnetError(f"the local chains cannot be prepared: {error}") from error
    except BaseException:
        stop(started)
        raise
    found = {deployment.chain: deployment for deployment in ready}
    _write_run_file(path, found)
    return found, False


def stop(deployments: Mapping[int, Deployment]) -> None:
    """End the processes; those that are gone, or are no Anvil of ours, are left alone."""
    for deployment in deployments.values():
        pid = deployment.pid or _pid_of(deployment)
        if pid > 0 and _is_anvil(pid):
            os.kill(pid, signal.SIGTERM)
    for deployment in deployments.values():
        child = _children.pop(deployment.pid, None)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_SECONDS)


def find_anvil() -> str:
    """An Anvil on PATH whose version fits, else the packaged one; raises DevnetError."""
    on_path = shutil.which("anvil")
    if on_path is not None and _version(on_path).startswith(ANVIL_VERSIONS):
        return on_path
    for root in (Path.cwd(), _ROOT):
        if os.access(root / _PACKAGED, os.X_OK):
            return str(root / _PACKAGED)
    found = f" (the one on PATH is version {_version(on_path)})" if on_path else ""
    raise DevnetError(
        f"no anvil {ANVIL_VERSIONS[0]}x{found}: run `make setup`, put one on PATH, or name an "
        "rpc_url for every chain in the config"
    )


def _version(binary: str) -> str:
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = answer.stdout.replace(":", " ").split()
    return next((word for word in words if word[:1].isdigit()), "unknown")


def _start(binary: str, chain: int, port: int) -> Deployment:
    process = subprocess.Popen(
        [binary, *_arguments(chain, port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _children[process.pid] = process
    return Deployment(chain, _url(port), process.pid, {}, time.time())


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _arguments(chain: int, port: int) -> list[str]:
    """What an Anvil of ours is started with; no other process has the same."""
    fixed = ["--hardfork", "cancun", "--silent", "--accounts", str(_ACCOUNTS)]
    return [*fixed, "--chain-id", str(chain), "--host", "127.0.0.1", "--port", str(port)]


def _pid_of(deployment: Deployment) -> int:
    """The process that was about to be started when its daemon was killed; 0 when there is none."""
    port = int(deployment.url.rpartition(":")[2])
    wanted = "\0".join(_arguments(deployment.chain, port)).encode()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if command.read_bytes().rstrip(b"\0").endswith(wanted):
                return int(command.parent.name)
    return 0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _wait(
    deployment: Deployment, session: aiohttp.ClientSession, timeout_seconds: float
) -> None:
    rpc = Rpc(deployment.url, session, timeout_seconds)
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while True:
        try:
            answered = int(await rpc.call("eth_chainId"), 16)
        except (Unreachable, RpcError) as error:
            if asyncio.get_running_loop().time() > deadline or not _is_anvil(deployment.pid):
                raise DevnetError(f"anvil for chain {deployment.chain}: {error}") from error
            await asyncio.sleep(0.02)
        else:
            if answered != deployment.chain:
                raise DevnetError(f"{deployment.url} is taken by chain {answered}")
            return


class _Builder:
    """Sends transactions from accounts that Anvil has unlocked, and waits for each batch."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._nonces: dict[str, int] = {}

    async def deploy(self, artifact: str, types: Sequence[str], *arguments: Any) -> str:
        data = _artifact(artifact)["bytecode"] + encode(list(types), arguments).hex()
        (receipt,) = await self._send([{"from": account(ADMIN).address, "data": data}])
        return str(receipt["contractAddress"]).lower()

    async def call(self, *calls: tuple[int, str, str]) -> None:
        """Each call is (account number, target, data)."""
        await self._send(
            [{"from": account(who).address, "to": to, "data": data} for who, to, data in calls]
        )

    async def view(self, target: str, signature: str, kind: str) -> Any:
        call = {"to": target, "data": encode_call(signature)}
        return decode_answer([kind], await self._rpc.call("eth_call", call, "latest"))[0]

    async def _send(self, transactions: Sequence[JsonObject]) -> list[JsonObject]:
        # Anvil works on the calls of a batch side by side, so each needs its nonce from here.
        for sender in {tx["from"] for tx in transactions} - self._nonces.keys():
            count = await self._rpc.call("eth_getTransactionCount", sender, "latest")
            self._nonces[sender] = int(count, 16)
        numbered = []
        for tx in transactions:
            nonce = self._nonces[tx["from"]]
            self._nonces[tx["from"]] = nonce + 1
            numbered.append({"gas": hex(8_000_000), "nonce": hex(nonce), **tx})
        hashes = []
        for answer in await self._rpc.batch([("eth_sendTransaction", [tx]) for tx in numbered]):
            if isinstance(answer, RpcError):
                raise answer
            hashes.append(answer)
        receipts: list[Any] = [None]
        async with asyncio.timeout(_MINING_SECONDS):
            while None in receipts:
                await self._rpc.call("evm_mine")
                receipts = await self._rpc.batch(
                    [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes]
                )
        for receipt in receipts:
            if not isinstance(receipt, dict) or receipt.get("status") != "0x1":
                raise DevnetError(f"a transaction of the set-up failed: {receipt}")
        return receipts


async def _deploy(
    deployment: Deployment, session: aiohttp.ClientSession, timeout_seconds: float
) -> Deployment:
    rpc = Rpc(deployment.url, session, timeout_seconds)
    builder = _Builder(rpc)
    # Anvil forgets transactions that arrive out of order while it mines the one before them.
    await rpc.call("evm_setAutomine", False)
    admin = account(ADMIN).address
    names: dict[str, str] = {}
    names["verifier"] = await builder.deploy(
        "AttestedFillVerifier", ["address"], account(ATTESTER).address
    )
    names["settlement"] = await builder.deploy(
        "Settlement",
        ["address", "address", "address"],
        admin,
        account(FEES).address,
        names["verifier"],
    )
    for name in ("holder", "escrow"):
        names[name] = await builder.view(names["settlement"], f"{name}()", "address")
    for symbol, decimals in TOKENS:
        names[symbol] = await builder.deploy(
            "TestToken", ["string", "string", "uint8"], symbol, symbol, decimals
        )
    for name, (token0, token1, fee_bps, _, _) in PAIRS.items():
        names[name] = await builder.deploy(
            "MockPair", ["address", "address", "uint256"], names[token0], names[token1], fee_bps
        )
    names["WETH-USDC-book"] = await builder.deploy(
        "MockOrderBook",
        ["address", "address", "uint256", "uint256", "uint256"],
        names["WETH"],
        names["USDC"],
        _LOT_WEI,
        _CENT,
        2,
    )
    names["bridge"] = await builder.deploy("MockBridge", [])
    await builder.call(*_funding(names))
    return msgspec.structs.replace(deployment, addresses=names)


def _funding(names: Mapping[str, str]) -> list[tuple[int, str, str]]:
    unit = {symbol: 10**decimals for symbol, decimals in TOKENS}

    def mint(symbol: str, to: str, whole: int) -> tuple[int, str, str]:
        data = encode_call("mint(address,uint256)", to, whole * unit[symbol])
        return (ADMIN, names[symbol], data)

    solver = account(SOLVER).address
    allow = encode_call("setSolver(address,bool)", solver, True)
    calls = [(ADMIN, names["settlement"], allow)]
    for name, (token0, token1, _, whole0, whole1) in PAIRS.items():
        calls += [mint(token0, names[name], whole0), mint(token1, names[name], whole1)]
        calls.append((ADMIN, names[name], encode_call("sync()")))
    book = names["WETH-USDC-book"]
    calls += [mint("WETH", book, 20), mint("USDC", book, 50_000)]
    for is_bid, cents, lots in BOOK_LEVELS:
        data = encode_call("setLevel(bool,uint256,uint256)", is_bid, cents * _CENT, lots)
        calls.append((ADMIN, book, data))
    approve = encode_call("approve(address,uint256)", names["holder"], _MAX)
    for number in (SOLVER, *range(FIRST_USER, _ACCOUNTS)):
        for symbol, whole in GRANTS.items():
            calls.append(mint(symbol, account(number).address, whole))
            calls.append((number, names[symbol], approve))
    return calls


async def _connect_bridges(
    deployments: Sequence[Deployment], session: aiohttp.ClientSession, timeout_seconds: float
) -> None:
    """Routes from every chain to every other: 5 bps, a small fixed fee, half a minute.

    The last step of the set-up: from here on each transaction is mined at once.
    """
    unit = dict(TOKENS)
    for here in deployments:
        builder = _Builder(Rpc(here.url, session, timeout_seconds))
        for there in deployments:
            for symbol in _BRIDGED if there.chain != here.chain else ():
                fixed = 10 ** unit[symbol] // (2_500 if symbol == "WETH" else 1)
                route = (there.addresses[symbol], fixed, 5, GRANTS[symbol] * 10 ** unit[symbol], 30)
                data = encode_call(
                    "setRoute(address,uint256,(address,uint256,uint256,uint256,uint64))",
                    here.addresses[symbol],
                    there.chain,
                    route,
                )
                await builder.call((ADMIN, here.addresses["bridge"], data))
        await Rpc(here.url, session, timeout_seconds).call("evm_setAutomine", True)


@cache
def _artifact(name: str) -> JsonObject:
    path = _ROOT / "contracts" / "artifacts" / f"{name}.json"
    loaded: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    return loaded


async def _is_alive(deployment: Deployment, session: aiohttp.ClientSession) -> bool:
    rpc = Rpc(deployment.url, session, _ATTACH_SECONDS)
    settlement = deployment.addresses.get("settlement")
    if settlement is None:
        return False
    try:
        answers = await rpc.batch([("eth_chainId", []), ("eth_getCode", [settlement, "latest"])])
    except Unreachable:
        return False
    return answers[0] == hex(deployment.chain) and len(str(answers[1])) > 2


def _is_anvil(pid: int) -> bool:
    """Whether the process is alive and an Anvil; pids are used again by others."""
    child = _children.get(pid)
    if child is not None:
        return child.poll() is None
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.parent.parent.exists() and Path("/proc/self").exists():
        try:
            command = proc.read_bytes()
            # Empty for an instant while a process is being started.
            return not command or b"anvil" in command
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def read_run_file(path: Path) -> dict[int, Deployment]:
    """The local chains of a data directory; none when there is no sound run file."""
    try:
        listed = msgspec.json.decode(path.read_bytes(), type=list[Deployment])
    except (OSError, msgspec.DecodeError):
        return {}
    return {deployment.chain: deployment for deployment in listed}


def _write_run_file(path: Path, deployments: Mapping[int, Deployment]) -> None:
    """Replace the file whole, so that a crash leaves the old one or the new one."""
    scratch = path.with_suffix(".new")
    scratch.write_bytes(msgspec.json.encode(list(deployments.values())))
    scratch.replace(path)

"""What the tests of a whole daemon share: config, orders, foreign transactions, patience."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from solver import config as configs
from solver import devnet
from solver.chain import Receipt
from solver.core.abi import encode_call
from solver.core.intent import cancel_digest, digest_of
from solver.core.journal import IntentRecord
from solver.core.lifecycle import IntentState
from solver.core.types import Kind, Swap, TokenId
from solver.daemon import Daemon
from solver.intake import blank_swap

HERE, THERE = 31337, 31338
_NONCES = itertools.count(1)

T = TypeVar("T")

#: For what happens in a second or two: on a busy machine it takes longer, and a failure may wait.
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05


def config_in(directory: Path, tick_seconds: float = 0.1, **batch: float) -> configs.Config:
    """The shipped config, a free port, its own directory, patience; ``batch`` replaces keys."""
    base, patience = configs.load(configs.DEFAULT_PATH), PATIENCE_SECONDS
    batch = {"solve_timeout_seconds": patience, **batch}
    return replace(
        base,
        server=replace(base.server, port=0, request_timeout_seconds=patience),
        storage=replace(base.storage, directory=str(directory)),
        batch=replace(base.batch, tick_seconds=tick_seconds, **batch),
        limits=replace(
            base.limits,
            venue_timeout_seconds=patience,
            rpc_timeout_seconds=patience,
            start_timeout_seconds=2 * patience,
        ),
    )


async def submit(
    daemon: Daemon,
    user: int,
    sell: tuple[str, int] = ("WETH", HERE),
    buy: tuple[str, int] = ("USDC", HERE),
    amount: int = 10**17,
    limit: int = 0,
    partial: bool = False,
    lifetime_seconds: int = 900,
) -> str:
    """An accepted sale of a user, within 3 % of the reference price unless ``limit`` says more."""
    wallet = devnet.user(user)
    sold, bought = (
        TokenId(chain, daemon.deployments[chain].addresses[symbol]) for symbol, chain in (sell, buy)
    )
    blank = blank_swap(
        wallet.address, wallet.address, sold, bought,
        Kind.EXACT_IN, amount, limit, partial, next(_NONCES), 0,
    )  # fmt: skip
    swap = daemon.intake.complete(blank, lifetime_seconds, 300)
    assert isinstance(swap, Swap), swap
    digest = digest_of(swap, daemon.world.contracts[swap.sell_chain].settlement)
    signature = "0x" + wallet.sign_digest(bytes.fromhex(digest[2:])).hex()
    outcome = await daemon.intake.submit(swap, signature)
    assert isinstance(outcome, tuple), outcome
    return digest


async def cancel(daemon: Daemon, user: int, digest: str) -> None:
    """The owner's cancellation over the door."""
    chain = record_of(daemon, digest).intent.swap.sell_chain
    asked = cancel_digest(digest, chain, daemon.world.contracts[chain].settlement)
    signature = "0x" + devnet.user(user).sign_digest(asked).hex()
    record = await daemon.intake.cancel(digest, signature)
    assert isinstance(record, IntentRecord), record
    assert record.state is IntentState.CANCELLED


async def transact(daemon: Daemon, chain: int, sender: str, to: str, data: str) -> Receipt:
    """A transaction of somebody else, mined."""
    tx = {"from": sender, "to": to, "data": data, "gas": hex(5_000_000)}
    tx_hash = await daemon.chain(chain).rpc.call("eth_sendTransaction", tx)
    receipt = await eventually(
        lambda: daemon.chain(chain).receipt(tx_hash), lambda seen: seen is not None
    )
    assert receipt is not None, "not mined"
    assert receipt.succeeded
    return receipt


async def give(daemon: Daemon, chain: int, symbol: str, sender: str, to: str, amount: int) -> None:
    """A transfer of tokens."""
    token = daemon.deployments[chain].addresses[symbol]
    await transact(
        daemon, chain, sender, token, encode_call("transfer(address,uint256)", to, amount)
    )


async def balance(daemon: Daemon, symbol: str, chain: int, owner: str) -> int:
    """A balance in base units."""
    token = daemon.deployments[chain].addresses[symbol]
    amount = await daemon.chain(chain).read(token, "balanceOf(address)", ["uint256"], owner)
    return int(amount)


async def later(daemon: Daemon, seconds: int) -> None:
    """Let time pass on both chains."""
    for number in (HERE, THERE):
        await daemon.chain(number).rpc.call("evm_increaseTime", hex(seconds))
        await daemon.chain(number).rpc.call("evm_mine")


async def ticks(daemon: Daemon, count: int) -> None:
    """So many ticks, with a little time in between."""
    for _ in range(count):
        await daemon.tick()
        await asyncio.sleep(0.02)


def record_of(daemon: Daemon, digest: str) -> IntentRecord:
    """What the ledger knows of an intent."""
    return daemon.ledger.book.intents[digest]


def states_of(daemon: Daemon, *digests: str) -> list[str]:
    """The states of intents."""
    return [record_of(daemon, digest).state.value for digest in digests]


async def eventually(
    look: Callable[[], Awaitable[T]],
    is_done: Callable[[T], bool],
    seconds: float = PATIENCE_SECONDS,
) -> T:
    """What ``look`` sees once it ``is_done``, or the last it saw when the time is up."""
    deadline = time.monotonic() + seconds
    seen = await look()
    while not is_done(seen) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        seen = await look()
    return seen

"""Many pools in one ``eth_call``: the contract PoolReader, put in place by a state override.

An endpoint that grants less gas than all the pools need answers for the first of them; the rest is
asked in further calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from solver.core.abi import encode_call, selector
from solver.core.crypto import keccak
from solver.core.venue import Reader, ReadError

ADDRESS = "0x" + keccak(b"thalweg pool reader").hex()[-40:]  # nobody has a key of it
MAX_POOLS_PER_CALL = 2_000
_T = TypeVar("_T")
_FAILED = 2**256 - 1
_MASK_112 = 2**112 - 1
_MASK_128 = 2**128 - 1
_MASK_160 = 2**160 - 1
_ARTIFACT = Path(__file__).resolve().parents[1] / "contracts" / "artifacts" / "PoolReader.json"


class RawPool(Struct, frozen=True):
    """A concentrated pool as read: ``raw_ticks`` are 32-byte words, tick << 128 | liquidityNet."""

    sqrt_price_x96: int
    tick: int
    liquidity: int
    raw_ticks: bytes

    def nets(self) -> dict[int, int]:
        """Tick → liquidityNet."""
        found = {}
        for start in range(0, len(self.raw_ticks), 32):
            word = self.raw_ticks[start : start + 32]
            tick = int.from_bytes(word[:16], "big", signed=True)
            found[tick] = int.from_bytes(word[16:], "big", signed=True)
        return found


async def ask(reader: Reader, targets: Sequence[str], signature: str) -> list[int | None]:
    """The first word that each target answers to a view without arguments; None where it fails."""
    return await _all(
        reader,
        targets,
        lambda part: encode_call("ask(address[],bytes4)", part, selector(signature)),
        _words,
    )


async def ask_one(reader: Reader, target: str, calls: Sequence[str]) -> list[int | None]:
    """The first word that one target answers to each call (hex); None where it fails."""
    return await _all(
        reader,
        calls,
        lambda part: encode_call(
            "askOne(address,bytes[])", target, [bytes.fromhex(call[2:]) for call in part]
        ),
        _words,
    )


async def reserves(reader: Reader, pairs: Sequence[str]) -> list[tuple[int, int] | None]:
    """The reserves of Uniswap v2 pairs; None for what is no pair."""
    words = await _all(reader, pairs, lambda part: encode_call("reserves(address[])", part), _words)
    return [None if word is None else (word & _MASK_112, word >> 112) for word in words]


async def concentrated(reader: Reader, pools: Sequence[str], words: int) -> list[RawPool | None]:
    """Uniswap v3 pools with the ticks of ``words`` bitmap words on each side of the price's.

    None for what is no pool; a pool that was not initialised yet has a price of 0.
    """
    return await _all(
        reader,
        pools,
        lambda part: encode_call("concentrated(address[],uint256)", part, words),
        _raw_pools,
    )


async def _all(
    reader: Reader,
    asked: Sequence[str],
    encode: Callable[[Sequence[str]], str],
    decode: Callable[[bytes], list[_T]],
) -> list[_T]:
    found: list[_T] = []
    while len(found) < len(asked):
        part = asked[len(found) : len(found) + MAX_POOLS_PER_CALL]
        (answer,) = await reader.call([(ADDRESS, encode(part))], {ADDRESS: _code()})
        try:
            entries = decode(bytes.fromhex(answer.removeprefix("0x")))
        except ValueError as error:
            raise ReadError(f"the pool reader answered {answer[:42]}…: {error}") from error
        if not 0 < len(entries) <= len(part):
            raise ReadError(
                f"the pool reader answered {len(entries)} of {len(part)} questions: the endpoint "
                "must take state overrides and grant enough gas for one pool"
            )
        found += entries
    return found


def _words(answer: bytes) -> list[int | None]:
    if len(answer) % 32:
        raise ValueError(f"{len(answer)} bytes are no words")
    values = (int.from_bytes(answer[at : at + 32], "big") for at in range(0, len(answer), 32))
    return [None if value == _FAILED else value for value in values]


def _raw_pools(answer: bytes) -> list[RawPool | None]:
    if len(answer) % 32:
        raise ValueError(f"{len(answer)} bytes are no words")
    found: list[RawPool | None] = []
    at = 0
    while at < len(answer):
        head = int.from_bytes(answer[at : at + 32], "big")
        at += 32
        if head == _FAILED:
            found.append(None)
            continue
        state = int.from_bytes(answer[at : at + 32], "big")
        end = at + 32 + 32 * (state >> 128)
        if end > len(answer):
            raise ValueError("the last pool is cut off")
        tick = int.from_bytes(answer[at - 32 : at - 20], "big", signed=True)
        found.append(RawPool(head & _MASK_160, tick, state & _MASK_128, answer[at + 32 : end]))
        at = end
    return found


@cache
def _code() -> str:
    """The reader's runtime bytecode, from the committed artifact."""
    artifact = json.loads(_ARTIFACT.read_text(encoding="utf-8"))
    return str(artifact["deployedBytecode"])

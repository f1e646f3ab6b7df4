"""ABI encoding of calls and answers: eth-abi and a selector, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from solver.core.crypto import keccak


class AbiError(ValueError):
    """An answer that is not what the called function returns."""


def selector(signature: str) -> bytes:
    """The first four bytes of the keccak of ``name(type,…)``."""
    return keccak(signature.encode())[:4]


def topic(signature: str) -> str:
    """The first topic of an event."""
    return "0x" + keccak(signature.encode()).hex()


def split_types(signature: str) -> list[str]:
    """The argument types of ``name(type,…)``; commas inside tuples do not split."""
    body = signature[signature.index("(") + 1 : -1]
    types, depth, start = [], 0, 0
    for position, character in enumerate(body):
        if character == "," and depth == 0:
            types.append(body[start:position])
            start = position + 1
        depth += (character == "(") - (character == ")")
    return [*types, body[start:]] if body else []


def encode_call(signature: str, *arguments: Any) -> str:
    """Calldata as ``0x`` hex."""
    return "0x" + (selector(signature) + encode(split_types(signature), arguments)).hex()


def decode_answer(types: Sequence[str], data: str) -> tuple[Any, ...]:
    """Decode returned hex; raises AbiError when it does not fit the types."""
    try:
        return decode(list(types), bytes.fromhex(data.removeprefix("0x")))
    except (DecodingError, ValueError, OverflowError) as error:
        raise AbiError(f"expected ({', '.join(types)}), got {data[:42]}…: {error}") from error

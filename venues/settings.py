"""Reading an adapter's options from config: each mistake is a ValueError that names the key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def refuse_unknown(options: Mapping[str, object], known: set[str]) -> None:
    """Every option must be one that the adapter knows."""
    for key in options:
        if key not in known:
            raise ValueError(f"unknown option {key!r}; known: {', '.join(sorted(known))}")


def addresses(options: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of addresses, lower case."""
    value = options.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} must be a list of addresses")
    return tuple(_address(item, key) for item in value)


def address(options: Mapping[str, object], key: str) -> str:
    """One address, lower case."""
    return _address(options.get(key), key)


def integer(options: Mapping[str, object], key: str, default: int, least: int = 0) -> int:
    """An integer option with a default."""
    value = options.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}")
    return value


def integers(
    options: Mapping[str, object], key: str, default: Sequence[int], least: int = 0
) -> tuple[int, ...]:
    """A list of integers with a default."""
    value = options.get(key, list(default))
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} must be a list of integers")
    return tuple(integer({key: item}, key, 0, least) for item in value)


def token_pairs(options: Mapping[str, object], key: str) -> tuple[tuple[str, str], ...]:
    """Every two of a list of tokens, lower case and in the contracts' order."""
    tokens = sorted(set(addresses(options, key)))
    if len(tokens) < 2:
        raise ValueError(f"{key} must name at least two tokens")
    return tuple(combinations(tokens, 2))


def exactly_one(options: Mapping[str, object], *keys: str) -> str:
    """The one of these options that is given."""
    given = [key for key in keys if key in options]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(keys)}")
    return given[0]


def _address(value: object, key: str) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError(f"{key}: {value!r} is not an address")
    return value.lower()

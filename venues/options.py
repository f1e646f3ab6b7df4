"""Reading an adapter's options from config: each mistake is a ValueError that names the key."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def _address(value: object, key: str) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError(f"{key}: {value!r} is not an address")
    return value.lower()

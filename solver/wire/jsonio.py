"""Strict JSON: bounded, UTF-8, no duplicate keys, no unknown fields, no floats as amounts."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from solver.core.types import Rejection

T = TypeVar("T")

# An unterminated string ends with the body, so that the scan is linear for any input.
_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

#: No document of ours nests deeper; the recursive scanner behind ``json`` may exhaust the C stack.
MAX_NESTING = 64


class _DuplicateKey(ValueError):
    """A key that occurs twice; msgspec would keep the last one silently."""


def decode(body: bytes, shape: type[T], max_bytes: int) -> T | Rejection:
    """The body as ``shape``, or why it is refused; never raises for bad input."""
    if len(body) > max_bytes:
        return Rejection("body_too_large", f"the body has {len(body)} bytes, {max_bytes} allowed")
    if _nesting(body) > MAX_NESTING:
        return Rejection("too_deep", f"more than {MAX_NESTING} levels of nesting")
    try:
        text = body.decode("utf-8")
        json.loads(text, object_pairs_hook=_unique, parse_int=str, parse_float=str)
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError as error:
        return Rejection("bad_utf8", f"not UTF-8 at byte {error.start}")
    except _DuplicateKey as error:
        return Rejection("duplicate_key", str(error))
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        return Rejection("invalid_field", reason, _pointer(path.rstrip("`")))
    except (msgspec.DecodeError, ValueError) as error:
        return Rejection("bad_json", str(error))


def _nesting(body: bytes) -> int:
    """The greatest number of brackets open at once, those inside strings left out."""
    deepest = depth = 0
    for token in _BRACKET_OR_STRING.finditer(body):
        character = token.group()
        if character in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKey(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def _pointer(path: str) -> str:
    """msgspec's ``.a.b[0]`` as a JSON pointer ``/a/b/0``."""
    return path.replace("[", "/").replace("]", "").replace(".", "/")


def amount(text: str) -> int | None:
    """A canonical decimal string below 2²⁵⁶, or None."""
    canonical = text.isascii() and text.isdigit() and len(text) <= 78
    if not canonical or (len(text) > 1 and text[0] == "0"):
        return None
    value = int(text)
    return value if value < 2**256 else None

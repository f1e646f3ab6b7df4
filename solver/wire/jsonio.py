"""Strict JSON: bounded, UTF-8, no duplicate keys, no unknown fields, no floats as amounts."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from solver.core.types import UINT256_MAX, Rejection

T = TypeVar("T")

# An unterminated string ends with the body, so that the scan is linear for any input.
_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

_HEX = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)

# What the description of the API says about a field. The checks themselves are ours, because they
# answer with codes of their own and because ``$`` in a pattern admits a trailing newline.
Amount = Annotated[
    str, Meta(extra_json_schema={"pattern": "^(0|[1-9][0-9]{0,77})$", "maxLength": 78})
]
OptionalAmount = Annotated[
    str, Meta(extra_json_schema={"pattern": "^(0|[1-9][0-9]{0,77})?$", "maxLength": 78})
]
Address = Annotated[str, Meta(extra_json_schema={"pattern": "^0x[0-9a-fA-F]{40}$"})]
OptionalAddress = Annotated[
    str,
    Meta(extra_json_schema={"pattern": "^(0x(0{24})?[0-9a-fA-F]{40})?$"}),
]
Asset = Annotated[str, Meta(extra_json_schema={"pattern": "^0x(0{24})?[0-9a-fA-F]{40}$"})]
Digest = Annotated[str, Meta(extra_json_schema={"pattern": "^0x[0-9a-fA-F]{64}$"})]
Signature = Annotated[str, Meta(extra_json_schema={"pattern": "^0x[0-9a-fA-F]{130}$"})]
Uint64 = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": 2**64 - 1})]

#: No document of ours nests deeper; the recursive scanner behind ``json`` may exhaust the C stack.
MAX_NESTING = 64


class Invalid(ValueError):
    """A value of a file that cannot be used, with the pointer to it."""

    def __init__(self, code: str, detail: str, pointer: str) -> None:
        super().__init__(detail)
        self.code, self.detail, self.pointer = code, detail, pointer


class _NotCanonical(ValueError):
    """A key that occurs twice, of which msgspec would keep the last one silently, or a ``-0``."""


def decode(body: bytes, shape: type[T], max_bytes: int) -> T | Rejection:
    """The body as ``shape``, or why it is refused; never raises for bad input."""
    if len(body) > max_bytes:
        return Rejection("body_too_large", f"the body has {len(body)} bytes, {max_bytes} allowed")
    if body.startswith(_BYTE_ORDER_MARK):
        return Rejection("bad_json", "it starts with a byte order mark; send UTF-8 without one")
    if _nesting(body) > MAX_NESTING:
        return Rejection("too_deep", f"more than {MAX_NESTING} levels of nesting")
    try:
        text = body.decode("utf-8")
        json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_float=str)
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError as error:
        return Rejection("bad_utf8", f"not UTF-8 at byte {error.start}")
    except _NotCanonical:
        return _located(text)
    except msgspec.ValidationError as error:
        return invalid(str(error))
    except (msgspec.DecodeError, ValueError) as error:
        return Rejection("bad_json", str(error))


def invalid(message: str) -> Rejection:
    """A refusal from msgspec's words.

    It names the object around a missing or unknown field; the pointer names the field.
    """
    reason, _, path = message.rpartition(" - at `$") if " - at `$" in message else (message, "", "")
    pointer = _pointer(path.removesuffix("`"))
    field = _FIELD.fullmatch(reason)
    return Rejection(
        "invalid_field", reason, f"{pointer}/{escape(field.group(1))}" if field else pointer
    )


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
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NotCanonical
    return found


def _integer(text: str) -> str:
    if text == "-0":
        raise _NotCanonical
    return text


class _Pairs(list[tuple[str, Any]]):
    """An object with every pair it was written with."""


class _NegativeZero:
    """A ``-0`` in the place of an integer."""


def _located(text: str) -> Rejection:
    """The refusal of a text that is not canonical, with the pointer to the place."""
    document = json.loads(
        text,
        object_pairs_hook=_Pairs,
        parse_int=lambda digits: _NegativeZero() if digits == "-0" else 0,
        parse_float=lambda digits: 0,
    )
    return _search(document, "") or Rejection("bad_json", "it is not canonical")


def _search(value: Any, pointer: str) -> Rejection | None:
    if isinstance(value, _NegativeZero):
        return Rejection("invalid_field", "-0 is not a canonical integer", pointer)
    items: list[tuple[str, Any]] = []
    if isinstance(value, _Pairs):
        items = [(escape(key), entry) for key, entry in value]
        seen: set[str] = set()
        for key, _ in value:
            if key in seen:
                detail = f"the key {key!r} occurs twice"
                return Rejection("duplicate_key", detail, f"{pointer}/{escape(key)}")
            seen.add(key)
    elif isinstance(value, list):
        items = [(str(number), entry) for number, entry in enumerate(value)]
    for name, entry in items:
        found = _search(entry, f"{pointer}/{name}")
        if found is not None:
            return found
    return None


def escape(key: str) -> str:
    """A key as a part of a JSON pointer, fit for UTF-8: half of a surrogate pair is replaced."""
    whole = key.encode("utf-8", "replace").decode("utf-8")
    return whole.replace("~", "~0").replace("/", "~1")


def _pointer(path: str) -> str:
    """msgspec's ``.a.b[0]`` as a JSON pointer ``/a/b/0``."""
    return path.replace("[", "/").replace("]", "").replace(".", "/")


def positive(text: str, pointer: str) -> int:
    """A canonical amount that is not zero. Raises Invalid."""
    value = whole(text, pointer)
    if value == 0:
        raise Invalid("zero_amount", "must be positive", pointer)
    return value


def whole(text: str, pointer: str) -> int:
    """A canonical amount. Raises Invalid."""
    value = amount(text)
    if value is None:
        raise Invalid("bad_amount", "not a canonical decimal below 2^256", pointer)
    return value


def amount(text: str) -> int | None:
    """A canonical decimal string below 2²⁵⁶, or None."""
    canonical = text.isascii() and text.isdigit() and len(text) <= 78
    if not canonical or (len(text) > 1 and text[0] == "0"):
        return None
    value = int(text)
    return value if value < 2**256 else None


def camel(name: str) -> str:
    """The spelling of a field on the wire."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def integer(text: object, pointer: str = "") -> int:
    """An unsigned integer of 256 bits, decimal or hex as CoW Protocol has it. Raises Invalid."""
    value: int | None = None
    if isinstance(text, str):
        is_hex = _HEX.fullmatch(text) is not None
        value = int(text, 16) if is_hex else amount(text)
    elif isinstance(text, int) and not isinstance(text, bool) and 0 <= text <= UINT256_MAX:
        value = text
    if value is None:
        detail = f"{str(text)[:40]!r} is not an unsigned integer of 256 bits"
        raise Invalid("bad_amount", detail, pointer)
    return value

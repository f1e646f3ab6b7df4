"""The signed order as JSON, in the spelling that every door has for it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from solver.core.types import JsonObject, Kind, Rejection, Swap
from solver.wire.jsonio import Address, Amount, Asset, Digest, Uint64, amount, camel

_AMOUNTS = ("sell_amount", "buy_amount", "nonce", "max_fee", "min_health")


class SwapDocument(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The signed fields as JSON: amounts are canonical decimal strings, times are integers."""

    owner: Address
    receiver: Address
    sell_chain: Uint64
    sell_asset: Asset
    buy_chain: Uint64
    buy_asset: Asset
    sell_amount: Amount
    buy_amount: Amount
    kind: Kind
    partial_fill: bool
    nonce: Amount
    valid_from: Uint64
    valid_until: Uint64
    account: Digest = "0x" + "00" * 32
    fill_deadline: Uint64 = 0
    refund_after: Uint64 = 0
    max_fee: Amount = "0"
    min_health: Amount = "0"
    extension: Digest = "0x" + "00" * 32


def swap_to_core(document: SwapDocument, pointer: str = "/swap") -> Swap | Rejection:
    """A swap with every field in its canonical form, or the first field that is not."""
    fields: dict[str, object] = {}
    for name in SwapDocument.__struct_fields__:
        value = getattr(document, name)
        place = f"{pointer}/{camel(name)}"
        if name in _AMOUNTS:
            value = amount(value)
            if value is None:
                return Rejection("bad_amount", "not a canonical decimal below 2^256", place)
        elif name in ("owner", "receiver", "account", "extension", "sell_asset", "buy_asset"):
            width = 40 if name in ("owner", "receiver") else 64
            canonical = _hex(value, width, pad=name.endswith("asset"))
            if canonical is None:
                return Rejection("bad_hex", f"not 0x and {width} hex digits", place)
            value = canonical
        elif isinstance(value, int) and not isinstance(value, bool) and not 0 <= value < 2**64:
            return Rejection("bad_integer", "not in [0, 2^64)", place)
        fields[name] = value
    return msgspec.convert(fields, Swap)


def swap_document(swap: Swap) -> SwapDocument:
    """The document of a swap."""
    fields = {name: getattr(swap, name) for name in SwapDocument.__struct_fields__}
    return SwapDocument(**fields | {name: str(fields[name]) for name in _AMOUNTS})


def swap_from_core(swap: Swap) -> JsonObject:
    """The same as plain JSON."""
    return dict(msgspec.to_builtins(swap_document(swap)))


def _hex(value: str, width: int, pad: bool) -> str | None:
    """Lower-case canonical hex; a 20-byte asset is padded to 32 bytes."""
    digits = value[2:]
    if not value.startswith("0x") or any(c not in "0123456789abcdefABCDEF" for c in digits):
        return None
    if pad and len(digits) == 40:
        digits = digits.rjust(64, "0")
    return "0x" + digits.lower() if len(digits) == width else None

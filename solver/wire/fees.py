"""Fee policies as CoW Protocol writes them on an order of an auction."""

from __future__ import annotations

from collections.abc import Sequence

from solver.core.fees import (
    FeePolicy,
    PriceImprovementFee,
    ReferenceQuote,
    SurplusFee,
    VolumeFee,
)
from solver.core.types import JsonObject
from solver.wire.jsonio import Invalid, integer

_KINDS = ("surplus", "priceImprovement", "volume")


def policies(entries: Sequence[JsonObject], pointer: str) -> tuple[FeePolicy, ...]:
    """The policies in their order. Raises Invalid.

    The description of the API has ``{"kind": "volume", "factor": 0.1}``, the code that serves it
    ``{"volume": {"factor": 0.1}}``; both are read.
    """
    return tuple(_policy(entry, f"{pointer}/{k}") for k, entry in enumerate(entries))


def _policy(entry: JsonObject, place: str) -> FeePolicy:
    kind, fields = entry.get("kind"), entry
    if kind is None and len(entry) == 1:
        ((kind, fields),) = entry.items()
        place = f"{place}/{kind}"
    if kind not in _KINDS or not isinstance(fields, dict):
        known = ", ".join(_KINDS)
        raise Invalid("invalid_field", f"{str(kind)[:40]!r} is none of {known}", place)
    factor = _factor(fields, "factor", place)
    if kind == "volume":
        return VolumeFee(factor)
    cap = _factor(fields, "maxVolumeFactor", place)
    if kind == "surplus":
        return SurplusFee(factor, cap)
    return PriceImprovementFee(factor, cap, _quote(fields.get("quote"), f"{place}/quote"))


def _factor(fields: JsonObject, name: str, place: str) -> float:
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise Invalid("invalid_field", "not a number between 0 and 1", f"{place}/{name}")


def _quote(value: object, place: str) -> ReferenceQuote:
    if not isinstance(value, dict):
        raise Invalid("invalid_field", "no quote to measure the improvement by", place)
    sell, buy, fee = (
        integer(value.get(name), f"{place}/{name}") for name in ("sellAmount", "buyAmount", "fee")
    )
    return ReferenceQuote(sell, buy, fee)

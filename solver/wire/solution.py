"""Solutions, reasons and certificates as JSON: camelCase names, integers as decimal strings.

An integer above 2^53 would lose its end in most readers of JSON.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from solver.core.types import (
    Certificate,
    Charges,
    Fill,
    InventoryUse,
    Leaf,
    Leg,
    OpenReason,
    Row,
    Solution,
    StandAlone,
)
from solver.wire.accounts import KeptDocument, kept_document
from solver.wire.jsonio import Amount

#: What binds where an order was routed alone, so that no row of a program did.
_BINDING = {
    "limit_out_of_reach": "limit",
    "partly_filled": "limit",
    "no_route": "venues",
    "fee_above_cap": "maxFee",
    "insufficient_balance": "balance",
}


class LegDocument(Struct, frozen=True, rename="camel"):
    """One use of a pool; tokens as ``chain:address``."""

    pool: str
    token_in: str
    token_out: str
    amount_in: Amount
    amount_out: Amount
    gas: int


class ReasonDocument(Struct, frozen=True, rename="camel"):
    """Why an intent is not, or not wholly, filled.

    ``bestRate`` and ``limitRate`` are bought per sold, in base units; the rates ``perToken`` are
    the same in whole tokens, where their decimals are known. ``binding`` names what stands in the
    way: ``limit``, ``depth``, or rows and capacities of the batch. ``paradox`` is true where the
    order's pair is traded at a rate that its limit allows.
    """

    digest: str
    code: str
    detail: str
    best_rate: str = ""
    limit_rate: str = ""
    binding: str = ""
    paradox: bool = False
    best_rate_per_token: str = ""
    limit_rate_per_token: str = ""


class CertificateDocument(Struct, frozen=True, rename="camel"):
    """The proof that comes with every answer; see :class:`solver.core.types.Certificate`."""

    objective: str
    normalisation: str
    value: str
    bound: str
    arb_floor: str
    gap: str
    net_gap: str
    net_gap_bps: str
    prices: dict[str, str]
    multipliers: dict[str, str]
    snapshot_hash: str
    assumptions: list[str]
    binding: list[str]
    leaves: list[Leaf]
    floors: dict[str, str]
    caps: dict[str, str]
    reference: dict[str, str]
    arbitrage: list[list[LegDocument]]
    rows: dict[str, Row]


class ChargesDocument(Struct, frozen=True, rename="camel"):
    """The operator's fees on a fill beside gas, in the order's surplus token: bought for exactIn,
    sold for exactOut.
    """

    volume: Amount = "0"
    surplus: Amount = "0"
    improvement: Amount = "0"
    solver: Amount = "0"


class FillDocument(Struct, frozen=True, rename="camel"):
    """What one intent gets; ``buy`` is net of ``fee``, and ``charges`` are taken already."""

    digest: str
    sell: Amount
    buy: Amount
    fee: Amount
    charges: ChargesDocument = ChargesDocument()


class InventoryDocument(Struct, frozen=True, rename="camel"):
    """What the solver pays from its own for tokens in escrow."""

    token_in: str
    token_out: str
    amount_in: Amount
    amount_out: Amount


class AloneDocument(Struct, frozen=True, rename="camel"):
    """What an order would have got without the others; ``buy`` is net of the fee."""

    digest: str
    sell: Amount
    buy: Amount
    value: str
    bound: str


class SolutionDocument(Struct, frozen=True, rename="camel"):
    """The answer of ``thalweg solve`` to an instance file."""

    fills: list[FillDocument]
    legs: list[LegDocument]
    inventory: list[InventoryDocument]
    clearing: dict[str, tuple[Amount, Amount]]
    dust: dict[str, Amount]
    open: list[ReasonDocument]
    certificate: CertificateDocument
    stage: str
    warnings: list[str]
    alone: list[AloneDocument]
    margin: list[KeptDocument]


def alone_document(answers: Iterable[StandAlone]) -> list[AloneDocument]:
    """The stand-alone answers."""
    return [
        AloneDocument(one.digest, str(one.sell), str(one.buy), one.value, one.bound)
        for one in answers
    ]


def solution_document(solution: Solution, warnings: Iterable[str] = ()) -> SolutionDocument:
    """The document of a solution."""
    return SolutionDocument(
        fills_document(solution.fills),
        legs_document(solution.legs),
        inventory_document(solution.inventory),
        {pair: (str(rate[0]), str(rate[1])) for pair, rate in solution.clearing.items()},
        {token: str(amount) for token, amount in solution.dust.items()},
        [reason_document(reason) for reason in solution.open],
        certificate_document(solution.certificate),
        solution.stage,
        list(warnings),
        alone_document(solution.alone),
        [kept_document(kept) for kept in solution.margin],
    )


def certificate_document(certificate: Certificate) -> CertificateDocument:
    """The document of a certificate."""
    fields = msgspec.structs.asdict(certificate)
    fields["arbitrage"] = [legs_document(cycle) for cycle in certificate.arbitrage]
    return CertificateDocument(**fields)


def reason_document(reason: OpenReason, decimals: tuple[int, int] | None = None) -> ReasonDocument:
    """The document of a reason; ``decimals`` of the sold and the bought token give whole rates."""
    fields = msgspec.structs.asdict(reason)
    fields["binding"] = reason.binding or _BINDING.get(reason.code, "")
    whole = ("", "")
    if decimals is not None:
        scale = 10.0 ** (decimals[0] - decimals[1])
        best, limit = (
            f"{float(rate) * scale:.12g}" if rate else ""
            for rate in (reason.best_rate, reason.limit_rate)
        )
        whole = (best, limit)
    return ReasonDocument(
        **fields,
        best_rate_per_token=whole[0],
        limit_rate_per_token=whole[1],
    )


def fills_document(fills: Iterable[Fill]) -> list[FillDocument]:
    """The documents of fills."""
    return [
        FillDocument(
            fill.digest,
            str(fill.sell),
            str(fill.buy),
            str(fill.fee),
            charges_document(fill.charges),
        )
        for fill in fills
    ]


def charges_document(charges: Charges) -> ChargesDocument:
    """The document of what was taken from a fill."""
    return ChargesDocument(
        str(charges.volume), str(charges.surplus), str(charges.improvement), str(charges.solver)
    )


def inventory_document(uses: Iterable[InventoryUse]) -> list[InventoryDocument]:
    """The documents of uses of the inventory."""
    return [
        InventoryDocument(
            str(use.token_in), str(use.token_out), str(use.amount_in), str(use.amount_out)
        )
        for use in uses
    ]


def legs_document(legs: Iterable[Leg]) -> list[LegDocument]:
    """The documents of legs."""
    return [
        LegDocument(
            leg.pool,
            str(leg.token_in),
            str(leg.token_out),
            str(leg.amount_in),
            str(leg.amount_out),
            leg.gas,
        )
        for leg in legs
    ]

"""What CoW Protocol's solver engines answer and are told, in the form of the reference's code.

Amounts are decimal strings, addresses and uids lower-case hex. What the description of the API
spells otherwise is read where it is read (:mod:`solver.wire.cow`) and never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from solver.core.baseline import Single
from solver.core.joint import Settlement
from solver.core.journal import AuctionRecord, Offered
from solver.core.types import JsonObject, Leg, Rejection
from solver.wire import cow, jsonio
from solver.wire.jsonio import Invalid

CODES = (
    "tradingOutsideAllowedWindow", "tokenTemporarilySuspended", "insufficientLiquidity", "other"
)  # fmt: skip
KINDS = frozenset(
    {
        "timeout", "emptySolution", "duplicatedSolutionId", "simulationFailed",
        "invalidClearingPrices", "missingPrice", "invalidExecutedAmount",
        "nonBufferableTokensUsed", "solverAccountInsufficientBalance", "settlementStarted",
        "success", "revert", "driverError", "cancelled", "expired", "fail",
        "postprocessingTimedOut", "deserializationError", "banned",
    }
)  # fmt: skip
_MAX_ID = 2**63
_MAX_SOLUTIONS = 1_000
_MAX_KIND = 100


# What the description says of a notification; the checks are below, with codes of their own.
_Word = Annotated[str, Meta(extra_json_schema={"pattern": "^[ -~]{1,100}$"})]
_SolutionId = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": _MAX_ID - 1})]


class TradeDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An executed order. ``executedAmount`` is sold without ``fee`` (sell orders) or bought."""

    kind: str
    order: str
    executed_amount: str
    fee: str | None = None


class InteractionDocument(Struct, frozen=True, rename="camel"):
    """One use of the auction's own liquidity."""

    kind: str
    internalize: bool
    id: str
    input_token: str
    output_token: str
    input_amount: str
    output_amount: str


class WrapperDocument(Struct, frozen=True, rename="camel"):
    """A contract that the settlement is called through."""

    address: str
    data: str


class _Solution(Struct, frozen=True, rename="camel"):
    id: int
    prices: dict[str, str]
    trades: list[TradeDocument]
    pre_interactions: list[JsonObject]
    interactions: list[InteractionDocument]
    post_interactions: list[JsonObject]
    gas: int


class SolutionDocument(_Solution, frozen=True, rename="camel", omit_defaults=True):
    """One way to settle some of the orders, with a price per token."""

    wrappers: list[WrapperDocument] = []


class SolveAnswer(Struct, frozen=True):
    """The answer to ``POST /cow/solve``; empty where there is nothing to settle."""

    solutions: list[SolutionDocument]


class EngineError(Struct, frozen=True, omit_defaults=True):
    """Why there is no answer. ``code`` is one of the four that the protocol has."""

    code: str
    message: str = ""


class ErrorAnswer(Struct, frozen=True):
    """An error as the engine's API has it."""

    error: EngineError


class Notification(Struct, frozen=True, rename="camel"):
    """What became of a solution. ``data`` of a kind are further members of the same object."""

    kind: _Word
    auction_id: cow.Number = None
    solution_id: _SolutionId | list[_SolutionId] | None = None


class Heard(Struct, frozen=True):
    """A notification is in the ledger."""


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class OfferedView(Struct, frozen=True, rename="camel"):
    """A solution that was offered, as it was."""

    id: int
    orders: tuple[str, ...]
    solution: msgspec.Raw


class NoticeView(Struct, frozen=True, rename="camel"):
    """A notification, as it came; ``solutions`` are the ids that it speaks of."""

    kind: str
    solutions: tuple[int, ...]
    at: float
    body: msgspec.Raw


class AuctionView(Struct, frozen=True, rename="camel"):
    """What was offered last in an auction, and what the driver said since; times in Unix seconds.

    ``leftOut`` says what made no sense in the auction, each with its place. ``at`` is zero where
    the auction itself never came here.
    """

    auction: str
    at: float
    seconds: float
    left_out: tuple[str, ...]
    solutions: list[OfferedView]
    notices: list[NoticeView]


def auction_view(record: AuctionRecord) -> AuctionView:
    """A record of the ledger, for its door."""
    told = record.answer
    return AuctionView(
        record.auction,
        told.at if told else 0.0,
        told.seconds if told else 0.0,
        told.left_out if told else (),
        [
            OfferedView(offered.id, offered.orders, msgspec.Raw(offered.document.encode()))
            for offered in (told.solutions if told else ())
        ],
        [
            NoticeView(notice.kind, notice.solutions, notice.at, msgspec.Raw(notice.body.encode()))
            for notice in record.notices
        ],
    )


def refusal(rejection: Rejection) -> ErrorAnswer:
    """A refused request in the engine's words."""
    place = f"{rejection.pointer}: " if rejection.pointer else ""
    return ErrorAnswer(EngineError("other", f"{rejection.code}: {place}{rejection.detail}"[:1000]))


def single(problem: cow.Problem, found: Single, number: int) -> SolutionDocument:
    """The solution of one order on its path."""
    order = problem.orders[found.index]
    return SolutionDocument(
        number,
        {token.address: str(price) for token, price in found.prices.items()},
        [
            TradeDocument(
                "fulfillment",
                found.digest.lower(),
                str(found.executed),
                None if found.fee is None else str(found.fee),
            )
        ],
        [],
        interactions(problem, found.legs),
        [],
        found.gas,
        wrappers(order),
    )


def settlement(problem: cow.Problem, found: Settlement, number: int) -> SolutionDocument:
    """The solution of several orders at one price per token."""
    return SolutionDocument(
        number,
        {token.address: str(price) for token, price in sorted(found.prices.items())},
        [
            TradeDocument(
                "fulfillment",
                trade.digest.lower(),
                str(trade.executed),
                None if trade.fee is None else str(trade.fee),
            )
            for trade in found.trades
        ],
        [],
        interactions(problem, found.legs),
        [],
        found.gas,
    )


def interactions(problem: cow.Problem, legs: Sequence[Leg]) -> list[InteractionDocument]:
    """Legs as uses of the auction's liquidity, internalised where the buffers cover them."""
    return [InteractionDocument(**fields) for fields in cow.liquidity_uses(problem, legs)]


def wrappers(order: cow.AuctionOrder) -> list[WrapperDocument]:
    """The wrappers that an order asks for."""
    return [
        WrapperDocument(str(entry.get("address", "")).lower(), str(entry.get("data", "0x")).lower())
        for entry in order.wrappers or []
    ]


class Notice(Struct, frozen=True):
    """A notification that makes sense; ``auction`` is empty for a quote."""

    auction: str
    solutions: tuple[int, ...]
    kind: str


def notice(document: Notification) -> Notice:
    """Raises Invalid where the ids or the kind cannot be kept."""
    kind = document.kind
    if not 0 < len(kind) <= _MAX_KIND or not kind.isprintable():
        raise Invalid("invalid_field", f"not a word of 1 to {_MAX_KIND} letters", "/kind")
    said = document.solution_id
    numbers = [] if said is None else [said] if isinstance(said, int) else said
    if len(numbers) > _MAX_SOLUTIONS or not all(0 <= number < _MAX_ID for number in numbers):
        raise Invalid("invalid_field", "not an id of a solution, or too many", "/solutionId")
    return Notice(auction_id(document.auction_id, "/auctionId"), tuple(numbers), kind)


def auction_id(value: str | int | None, pointer: str) -> str:
    """The id of an auction in decimal, empty for a quote. Raises Invalid."""
    if value is None:
        return ""
    text = str(value)
    digits = text.removeprefix("-")
    if jsonio.amount(digits) is None or int(digits) >= _MAX_ID:
        raise Invalid("invalid_field", "not the number of an auction", pointer)
    return text


class Reply(Struct, frozen=True):
    """An answer with what the ledger keeps of it. ``auction`` is empty for a quote.

    ``due`` is when it must be out, in Unix seconds; ``joinable`` the orders that may be solved
    together; ``singles`` the baseline, for the process that goes on from it.
    """

    auction: str
    solutions: tuple[Offered, ...]
    body: bytes
    due: float
    left_out: tuple[str, ...] = ()
    joinable: int = 0
    singles: tuple[Single, ...] = ()


Answer = Reply | Rejection

"""One auction of CoW Protocol, from its bytes to the bytes of an answer; no process, no loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from solver.core import baseline
from solver.core.baseline import Market, Rules
from solver.core.journal import Offered
from solver.core.types import Rejection
from solver.wire import cow, engine, jsonio
from solver.wire.engine import Answer, Reply, SolutionDocument
from solver.wire.jsonio import Invalid


class Settings(Struct, frozen=True):
    """How the engine solves. It stops ``slack_seconds`` before a deadline, and in any case after
    ``max_seconds``.
    """

    chain: int
    rules: Rules
    profile: str = "full"
    slack_seconds: float = 0.5
    max_seconds: float = 30.0


class Question(Struct, frozen=True):
    """A request's body; ``joint`` asks for what the profile *full* adds."""

    settings: Settings
    body: bytes
    joint: bool = False


def answer(question: Question, clock: Callable[[], float] = time.time) -> Answer:
    """What the processes do with a question."""
    settings, started = question.settings, clock()
    try:
        auction = _decode(question.body)
        due = min(
            _deadline(auction.deadline) - settings.slack_seconds, started + settings.max_seconds
        )
        number = engine.auction_id(auction.id, "/id")
        digest = "0x" + hashlib.sha256(question.body).hexdigest()
        problem = cow.to_core(auction, settings.chain, digest, lenient=True)
    except Invalid as error:
        return Rejection(error.code, error.detail, error.pointer)

    def is_late() -> bool:
        return clock() >= due

    market = Market(problem.snapshot.pools, problem.wei, problem.gas_price, settings.rules, is_late)
    charged = [order.pays_for_gas for order in problem.orders]
    singles = list(baseline.solve(market, problem.intents, charged))
    documents = [engine.single(problem, found, found.index) for found in singles]
    return Reply(
        number,
        tuple(_offered(document) for document in documents),
        msgspec.json.encode(engine.SolveAnswer(documents)),
        due,
        problem.warnings,
    )


def _offered(document: SolutionDocument) -> Offered:
    orders = tuple(trade.order for trade in document.trades)
    return Offered(document.id, orders, msgspec.json.encode(document).decode())


def _decode(body: bytes) -> cow.Auction:
    """Raises Invalid. Nothing but the decoder reads the body: it may have ten megabytes."""
    try:
        return msgspec.json.decode(body, type=cow.Auction)
    except msgspec.ValidationError as error:
        refused = jsonio.invalid(str(error))
        raise Invalid(refused.code, refused.detail, refused.pointer) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("bad_json", str(error)[:200], "") from error


def _deadline(text: str) -> float:
    """Unix seconds; without a zone it is UTC. Raises Invalid."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Invalid("invalid_field", "not an ISO 8601 date and time", "/deadline") from error

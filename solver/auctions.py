"""One auction of CoW Protocol, from its bytes to the bytes of an answer; no process, no loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from solver.core import baseline, joint, winners
from solver.core.baseline import Market, Rules, Single
from solver.core.joint import Charges, Settlement
from solver.core.journal import Offered
from solver.core.types import Intent, Rejection
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
        auction = cow.checked(_decode(question.body))
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
    singles = list(
        baseline.solve(market, problem.intents, [order.pays_for_gas for order in problem.orders])
    )
    documents: list[SolutionDocument] = []
    if question.joint:
        together = list(_together(problem, market, singles))
        documents = [engine.settlement(problem, found, k) for k, found in enumerate(together)]
        singles = [found for found in singles if not _is_beaten(problem, found, together)]
    first = len(documents) if question.joint else 0
    documents += [engine.single(problem, found, first + found.index) for found in singles]
    return Reply(
        number,
        tuple(_offered(document) for document in documents),
        msgspec.json.encode(_said(settings, number, documents)),
        due,
        problem.warnings,
    )


def _together(
    problem: cow.Problem, market: Market, singles: Sequence[Single]
) -> Iterator[Settlement]:
    """The joint settlements of the orders that need nothing but a swap."""
    paths = {single.digest: single for single in singles}
    intents, fees, wei = [], {}, {}
    for order, intent in zip(problem.orders, problem.intents, strict=True):
        if intent.swap.sell == intent.swap.buy or order.wrappers or order.flashloan_hint:
            continue
        intents.append(intent)
        if order.pays_for_gas:
            token = intent.swap.sell
            wei[token] = baseline.native_price(market, token) or 0
            path = paths.get(intent.digest)
            least = market.rules.overhead_gas + cow.HOP_GAS
            found = path.fee if path else baseline.fee_of(market, token, least)
            fees[intent.digest] = found or 0
    charges = Charges(market.gas_price, market.rules.overhead_gas, wei, fees)
    yield from joint.settlements(problem.snapshot, intents, charges)


def _is_beaten(problem: cow.Problem, found: Single, together: Sequence[Settlement]) -> bool:
    """Whether a settlement does for this order alone what its path does, or more."""
    intent = problem.intents[found.index]
    alone = [
        settlement.trades[0]
        for settlement in together
        if len(settlement.trades) == 1 and settlement.trades[0].digest == found.digest
    ]
    sold, bought = baseline.moved(found, intent)
    return any(
        _surplus(intent, trade.sold, trade.bought) >= _surplus(intent, sold, bought)
        for trade in alone
    )


def _surplus(intent: Intent, sold: int, bought: int) -> int:
    """As the protocol scores it, in the bought token."""
    swap = intent.swap
    order = winners.Order(swap.kind, "", "", swap.sell_amount, swap.buy_amount)
    return winners.score(order, winners.Trade(intent.digest, sold, bought), winners.PRICE_UNIT)


def _said(
    settings: Settings, auction: str, documents: list[SolutionDocument]
) -> engine.SolveAnswer | engine.ErrorAnswer:
    """The answer; a quote of the profile *full* that finds nothing says why."""
    if documents or auction or settings.profile != "full":
        return engine.SolveAnswer(documents)
    return engine.ErrorAnswer(
        engine.EngineError("insufficientLiquidity", "no liquidity for the whole amount in time")
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

"""One auction of CoW Protocol, from its bytes to the bytes of an answer; no process, no loop."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from solver.core import baseline, joint, winners
from solver.core.baseline import Market, Rules, Single
from solver.core.joint import Charges, Settlement
from solver.core.journal import Offered
from solver.core.routing.clock import Clock
from solver.core.types import Intent, Rejection, TokenId
from solver.wire import cow, engine, jsonio
from solver.wire.engine import Answer, Reply, SolutionDocument
from solver.wire.jsonio import Invalid


class Settings(Struct, frozen=True):
    """How the engine solves. It stops ``slack_seconds`` before a deadline, and in any case after
    ``max_seconds``. At most ``joint_orders`` are solved together.
    """

    chain: int
    rules: Rules
    profile: str = "full"
    slack_seconds: float = 0.5
    max_seconds: float = 30.0
    joint_orders: int = 50


class Stage(Enum):
    """What is looked for, from what is always there in time to what may take long."""

    BASELINE = "baseline"
    ALONE = "alone"
    TOGETHER = "together"


class Question(Struct, frozen=True):
    """A request's body and how far to go; ``singles`` is its baseline, where that is known."""

    settings: Settings
    body: bytes
    stage: Stage = Stage.BASELINE
    singles: tuple[Single, ...] | None = None


class _Prepared(Struct, frozen=True):
    """An auction, and the answer to each of its orders on the best single path."""

    body: bytes
    number: str
    started: float
    due: float
    problem: cow.Problem
    market: Market
    singles: tuple[Single, ...]


class Solver:
    """Answers questions; the last auction is remembered, so that the next stage can go on."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last: _Prepared | None = None

    def answer(self, question: Question) -> Answer:
        """The solutions of a stage; those of BASELINE are in ALONE or beaten there, while TOGETHER
        has only what settles several orders.
        """
        goes_on = question.stage is Stage.TOGETHER
        if not goes_on or self._last is None or self._last.body != question.body:
            self._last = None  # the same bytes, asked again, have all their time again
            try:
                self._last = self._prepare(question)
            except Invalid as error:
                return Rejection(error.code, error.detail, error.pointer)
        return self._reply(question, self._last)

    def _prepare(self, question: Question) -> _Prepared:
        settings, started = question.settings, self._clock()
        auction = cow.checked(decode(question.body))
        due = min(
            _deadline(auction.deadline or "") - settings.slack_seconds,
            started + settings.max_seconds,
        )
        number = engine.auction_id(auction.id, "/id")
        digest = "0x" + hashlib.sha256(question.body).hexdigest()
        problem = cow.to_core(auction, settings.chain, digest, lenient=True)
        market = Market(
            problem.snapshot.pools,
            problem.wei,
            problem.gas_price,
            settings.rules,
            lambda: self._clock() >= due,
        )
        singles = question.singles
        if singles is None:
            pays = [order.pays_for_gas for order in problem.orders]
            singles = tuple(baseline.solve(market, problem.intents, pays))
        return _Prepared(question.body, number, started, due, problem, market, singles)

    def _reply(self, question: Question, found: _Prepared) -> Reply:
        problem, count = found.problem, len(found.problem.orders)
        intents, charges = _terms(found)
        documents: list[SolutionDocument] = []
        if question.stage is Stage.TOGETHER:
            intents = _chosen(intents, found, question.settings.joint_orders)
            joined = joint.together(problem.snapshot, intents, charges)
            documents = [
                engine.settlement(problem, each, count + k) for k, each in enumerate(joined)
            ]
        else:
            routed: dict[str, Settlement] = {}
            if question.stage is Stage.ALONE:
                # Half of the time is for what several orders can do together.
                share = 1.0 if len(intents) == 1 else 0.5
                clock = Clock(self._clock, found.started + share * (found.due - found.started))
                each = joint.alone(problem.snapshot, intents, charges, clock)
                routed = {settlement.trades[0].digest: settlement for settlement in each}
            documents = _best(found, routed)
        return Reply(
            found.number,
            tuple(_offered(document) for document in documents),
            msgspec.json.encode(_said(question.settings, found.number, documents)),
            found.due,
            problem.warnings,
            len(intents),
            found.singles if question.stage is Stage.BASELINE else (),
        )


def merged(several: Reply, each: Reply) -> Reply:
    """Both answers in one: what settles several orders first."""
    solutions = (*several.solutions, *each.solutions)
    if not solutions:
        return each
    body = '{"solutions":[' + ",".join(offered.document for offered in solutions) + "]}"
    return replace(each, solutions=solutions, body=body.encode())


def _terms(found: _Prepared) -> tuple[list[Intent], Charges]:
    """The orders that need nothing but a swap, and what gas costs them."""
    problem, market = found.problem, found.market
    paths = {single.digest: single for single in found.singles}
    intents: list[Intent] = []
    fees: dict[str, int] = {}
    wei: dict[TokenId, int] = {}
    for order, intent in zip(problem.orders, problem.intents, strict=True):
        token = intent.swap.sell
        if token == intent.swap.buy or order.wrappers or order.flashloan_hint:
            continue
        intents.append(intent)
        if order.pays_for_gas:
            if token not in wei:
                wei[token] = baseline.native_price(market, token) or 0
            path = paths.get(intent.digest)
            least = market.rules.overhead_gas + cow.HOP_GAS
            fee = path.fee if path else baseline.fee_of(market, token, least)
            fees[intent.digest] = fee or 0
    buffers = {
        token: problem.buffers.get(token.address, 0)
        for intent in intents
        for token in (intent.swap.sell, intent.swap.buy)
    }
    priced = any(problem.wei.values())
    overhead_gas = market.rules.overhead_gas
    return intents, Charges(market.gas_price, overhead_gas, wei, fees, priced, buffers)


def _chosen(intents: list[Intent], found: _Prepared, most: int) -> list[Intent]:
    """At most so many orders, those with a path first."""
    paths = {single.digest for single in found.singles}
    return sorted(intents, key=lambda intent: intent.digest not in paths)[:most]


def _best(found: _Prepared, routed: Mapping[str, Settlement]) -> list[SolutionDocument]:
    """One solution per order: its path, or its route where that scores as much or more."""
    problem = found.problem
    paths = {single.digest: single for single in found.singles}
    documents = []
    for number, intent in enumerate(problem.intents):
        path, route = paths.get(intent.digest), routed.get(intent.digest)
        if route and path:
            trade = route.trades[0]
            gained = _surplus(intent, trade.sold, trade.bought)
            path = path if _surplus(intent, *baseline.moved(path, intent)) > gained else None
        if path:
            documents.append(engine.single(problem, path, number))
        elif route:
            documents.append(engine.settlement(problem, route, number))
    return documents


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


def decode(body: bytes) -> cow.Auction:
    """An auction from its bytes. Raises Invalid.

    Nothing but the decoder reads the body, which may have ten megabytes. The collector would look
    at all of the growing document again and again: most of the time.
    """
    gc.disable()
    try:
        return msgspec.json.decode(body, type=cow.Auction)
    except msgspec.ValidationError as error:
        refused = jsonio.invalid(str(error))
        raise Invalid(refused.code, refused.detail, refused.pointer) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("bad_json", str(error)[:200], "") from error
    finally:
        gc.enable()


def _deadline(text: str) -> float:
    """Unix seconds; without a zone it is UTC. Raises Invalid."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Invalid("invalid_field", "not an ISO 8601 date and time", "/deadline") from error

"""HTTP for a CoW Protocol driver: ``/cow/solve``, ``/cow/notify``, ``/cow/healthz``.

The statuses are those of the protocol (200, 400, 429, 500), errors are in its form.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram

from solver.core.journal import Auctioned, Book, Notified
from solver.core.types import Rejection
from solver.wire import cow, engine, jsonio
from solver.wire.engine import Answer, Reply
from solver.wire.jsonio import Invalid

log = structlog.get_logger("thalweg.cow")

_JSON = "application/json"
_STATUS = {"not_found": 404, "busy": 429, "internal": 500}
_NOTICE_BYTES = 2**18
SOLVE = "/cow/solve"


class CowService(Protocol):
    """What the routes need of the daemon."""

    @property
    def book(self) -> Book: ...

    async def solve_auction(self, body: bytes) -> Answer:
        """The answer, or why there is none."""
        ...

    async def record(self, event: Auctioned | Notified) -> None:
        """Return when the event is durable."""
        ...


class CowLimits(Struct, frozen=True):
    """How large a body may be, and how long it may take to come."""

    max_body_bytes: int
    body_timeout_seconds: float


class CowApi:
    """The handlers and their metrics."""

    def __init__(self, service: CowService, limits: CowLimits, registry: CollectorRegistry) -> None:
        self._service = service
        self._limits = limits
        self._solutions = Counter(
            "thalweg_cow_solutions_total", "Solutions offered", registry=registry
        )
        self._notices = Counter(
            "thalweg_cow_notifications_total", "Notifications", ["kind"], registry=registry
        )
        self._left = Histogram(
            "thalweg_cow_seconds_left",
            "Time before an answer is due, when it is ready",
            buckets=(0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
            registry=registry,
        )

    def routes(self) -> list[web.RouteDef]:
        """For an application."""

        def bound(route: CowRoute) -> Callable[[web.Request], Awaitable[web.Response]]:
            async def handle(request: web.Request) -> web.Response:
                return await route.handler(self, request)

            return handle

        return [web.route(route.method, route.path, bound(route)) for route in ROUTES]

    async def solve(self, request: web.Request) -> web.Response:
        """The answer to an auction, in the ledger before it is out; a quote is not recorded."""
        started = time.monotonic()
        body = await self._body(request, self._limits.max_body_bytes)
        if isinstance(body, Rejection):
            return _refuse(body)
        answer = await self._service.solve_auction(body)
        if isinstance(answer, Rejection):
            return _refuse(answer)
        self._solutions.inc(len(answer.solutions))
        self._left.observe(max(0.0, answer.due - time.time()))
        seconds = round(time.monotonic() - started, 6)
        log.info(
            "auction", id=answer.auction, solutions=len(answer.solutions), seconds=seconds,
            left_out=len(answer.left_out),
        )  # fmt: skip
        if answer.auction:
            await self._service.record(_event(answer, seconds))
        return web.Response(body=answer.body, content_type=_JSON)

    async def notify(self, request: web.Request) -> web.Response:
        """Keep what a driver says, whatever kind of thing it is."""
        body = await self._body(request, _NOTICE_BYTES)
        if isinstance(body, Rejection):
            return _refuse(body)
        document = jsonio.decode(body, engine.Notification, _NOTICE_BYTES)
        if isinstance(document, Rejection):
            return _refuse(document)
        try:
            notice = engine.notice(document)
        except Invalid as error:
            return _refuse(Rejection(error.code, error.detail, error.pointer))
        known = notice.kind if notice.kind in engine.KINDS else "unknown"
        self._notices.labels(known).inc()
        await self._service.record(
            Notified(notice.auction, notice.solutions, notice.kind, body.decode(), time.time())
        )
        return web.Response(body=msgspec.json.encode(engine.Heard()), content_type=_JSON)

    async def auction(self, request: web.Request) -> web.Response:
        """What the ledger has of an auction; of quotes, the notifications."""
        name = request.match_info["auction"]
        record = self._service.book.auctions.get("" if name == "quote" else name)
        if record is None:
            return _refuse(Rejection("not_found", "no auction of late with this id"))
        view = engine.auction_view(record)
        return web.Response(body=msgspec.json.encode(view), content_type=_JSON)

    async def healthz(self, request: web.Request) -> web.Response:
        """Whether the process answers."""
        return web.Response(body=msgspec.json.encode(engine.Alive()), content_type=_JSON)

    async def _body(self, request: web.Request, limit: int) -> bytes | Rejection:
        """The body, chunk by chunk, and no more of it than may be."""
        too_large = Rejection("body_too_large", f"at most {limit} bytes")
        if request.content_type != _JSON:
            return Rejection("wrong_media_type", f"send {_JSON}")
        if request.headers.getall("Content-Encoding", []):
            return Rejection("unsupported_encoding", "send the body as it is")
        if (request.content_length or 0) > limit:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        return too_large
        except TimeoutError:
            return Rejection("timeout", "the body took too long")
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
            return Rejection("bad_http", f"the body cannot be read: {error!r}"[:200])
        return bytes(body)


def _event(answer: Reply, seconds: float) -> Auctioned:
    return Auctioned(answer.auction, answer.solutions, answer.left_out, seconds, time.time())


def _refuse(rejection: Rejection) -> web.Response:
    response = web.Response(
        body=msgspec.json.encode(engine.refusal(rejection)),
        status=_STATUS.get(rejection.code, 400),
        content_type=_JSON,
        headers={"Retry-After": "1"} if rejection.code == "busy" else {},
    )
    if rejection.code in ("body_too_large", "bad_http", "timeout"):
        response.force_close()  # the rest of the body may still be under way
    return response


class CowRoute(Struct, frozen=True):
    """One line of this door; see :class:`solver.api.Route`."""

    method: str
    path: str
    summary: str
    handler: Callable[[CowApi, web.Request], Awaitable[web.Response]]
    answers: dict[int, Any]
    body: Any = None


_ERRORS = dict.fromkeys((400, 500), engine.ErrorAnswer)

ROUTES = (
    CowRoute("POST", SOLVE, "Solve an auction of CoW Protocol; a quote has no id",
             CowApi.solve, {200: engine.SolveAnswer, 429: engine.ErrorAnswer, **_ERRORS},
             cow.Auction),
    CowRoute("POST", "/cow/notify", "What became of a solution; kept, whatever its kind",
             CowApi.notify, {200: engine.Heard, **_ERRORS}, engine.Notification),
    CowRoute("GET", "/cow/auctions/{auction}", "What was offered, and what became of it",
             CowApi.auction, {200: engine.AuctionView, 404: engine.ErrorAnswer}),
    CowRoute("GET", "/cow/healthz", "Whether the engine answers", CowApi.healthz,
             {200: engine.Alive}),
)  # fmt: skip

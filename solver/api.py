"""HTTP v1: bytes in, a value of the intake out, bytes out. Every error is a problem document."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp
import msgspec
import structlog
from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from solver.core.intent import digest_of, typed_data
from solver.core.journal import Batched, Book, BundleRecord, IntentRecord
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import JsonObject, Rejection, Solution, Swap
from solver.core.venue import Snapshot
from solver.wire import jsonio, v1
from solver.wire.instance import swap_to_core
from solver.wire.problem import CONTENT_TYPE, Problem, problem

log = structlog.get_logger("thalweg.api")

_JSON = "application/json"
_DEFAULT_PAGE, _MAX_PAGE = 100, 1000


class Service(Protocol):
    """What the routes need of the daemon; nothing here knows chains or venues."""

    @property
    def book(self) -> Book: ...
    @property
    def snapshot(self) -> Snapshot | None: ...
    @property
    def info(self) -> v1.Info: ...
    @property
    def venues(self) -> list[v1.VenueView]: ...
    @property
    def troubles(self) -> list[str]: ...
    def settlement(self, chain: int) -> str | None: ...
    def draft(self, draft: v1.Draft) -> Swap | Rejection: ...
    def cancel_typed_data(self, digest: str, chain: int) -> JsonObject: ...
    async def submit(self, swap: Swap, signature: str) -> tuple[IntentRecord, bool] | Rejection: ...
    async def cancel(self, digest: str, signature: str) -> IntentRecord | Rejection: ...
    async def quote(self, swap: Swap) -> Solution | Rejection: ...


class Limits(Struct, frozen=True):
    """How much a client may ask for at once."""

    max_body_bytes: int
    request_timeout_seconds: float
    max_pending_requests: int


Answer = tuple[int, Any]
_Handler = Callable[["Api", web.Request], Awaitable[Answer]]


class Route(Struct, frozen=True):
    """One line of the API; the routes and their description come from the same list."""

    method: str
    path: str
    summary: str
    handler: _Handler
    answers: dict[int, Any]
    body: Any = None
    query: tuple[tuple[str, str], ...] = ()


class Api:
    """The handlers and their metrics."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._pending = 0
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "thalweg_http_requests_total", "Requests", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "thalweg_http_seconds", "Time to answer", ["path"], registry=self._registry
        )
        self._intents = Gauge(
            "thalweg_intents", "Intents by state", ["state"], registry=self._registry
        )
        self._bundles = Gauge(
            "thalweg_bundles", "Bundles by state", ["state"], registry=self._registry
        )
        self._profit = Gauge(
            "thalweg_profit_numeraire", "Profit of confirmed bundles", registry=self._registry
        )
        self._excluded = Gauge(
            "thalweg_venues_excluded", "Venues left out", registry=self._registry
        )

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._limits.max_body_bytes
        )
        for route in ROUTES:
            app.router.add_route(route.method, route.path, self._adapt(route))
        return app

    def _adapt(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            status, value = await route.handler(self, request)
            if isinstance(value, Rejection):
                return _refuse(value)
            if isinstance(value, bytes):
                return web.Response(body=value, status=status, content_type="text/plain")
            body = msgspec.json.encode(value)
            return web.Response(body=body, status=status, content_type=_JSON)

        return handle

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._pending >= self._limits.max_pending_requests:
            return _refuse(Rejection("busy", "too many requests at once, try again"))
        started = time.monotonic()
        self._pending += 1
        try:
            async with asyncio.timeout(self._limits.request_timeout_seconds):
                response = await handler(request)
        except TimeoutError:
            response = _refuse(Rejection("timeout", "the request took too long"))
        except web.HTTPException as error:
            response = _refuse(_from_http(error))
        except (aiohttp.http_exceptions.HttpProcessingError, ConnectionError) as error:
            response = _refuse(Rejection("bad_json", str(error)))
        except Exception:
            log.exception("request_failed", path=request.path)
            response = _refuse(Rejection("internal", "a bug of ours; the log has it"))
        finally:
            self._pending -= 1
        resource = request.match_info.route.resource
        path = resource.canonical if resource else "unknown"
        self._requests.labels(path, str(response.status)).inc()
        self._seconds.labels(path).observe(time.monotonic() - started)
        return response

    async def _body(self, request: web.Request, shape: Any) -> Any:
        if request.content_type != _JSON:
            return Rejection("wrong_media_type", f"send {_JSON}")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            limit = self._limits.max_body_bytes
            return Rejection("body_too_large", f"at most {limit} bytes")
        return jsonio.decode(body, shape, self._limits.max_body_bytes)

    async def submit(self, request: web.Request) -> Answer:
        body = await self._body(request, v1.SubmitRequest)
        if isinstance(body, Rejection):
            return 0, body
        swap = swap_to_core(body.swap)
        if isinstance(swap, Rejection):
            return 0, swap
        outcome = await self._service.submit(swap, body.signature)
        if isinstance(outcome, Rejection):
            return 0, outcome
        record, is_new = outcome
        return (202 if is_new else 200), v1.intent_view(record, self._service.book)

    async def get(self, request: web.Request) -> Answer:
        record = self._service.book.intents.get(request.match_info["id"].lower())
        if record is None:
            return 0, Rejection("not_found", f"no intent {request.match_info['id']}"[:120])
        return 200, v1.intent_view(record, self._service.book)

    async def list(self, request: web.Request) -> Answer:
        page = _page(request)
        if isinstance(page, Rejection):
            return 0, page
        limit, after = page
        state, owner = request.query.get("state"), request.query.get("owner", "").lower()
        if state is not None and state not in {member.value for member in IntentState}:
            return 0, Rejection("bad_query", f"state must be one of {_states()}", "/state")
        found = [
            record
            for record in self._service.book.intents.values()
            if record.number > after
            and (state is None or record.state.value == state)
            and (not owner or record.intent.swap.owner == owner)
        ]
        shown = found[:limit]
        more = str(shown[-1].number) if len(found) > limit else ""
        views = [v1.intent_view(record, self._service.book) for record in shown]
        return 200, v1.IntentPage(views, more)

    async def cancel(self, request: web.Request) -> Answer:
        body = await self._body(request, v1.CancelRequest)
        if isinstance(body, Rejection):
            return 0, body
        outcome = await self._service.cancel(request.match_info["id"].lower(), body.signature)
        if isinstance(outcome, Rejection):
            return 0, outcome
        return 200, v1.intent_view(outcome, self._service.book)

    async def typed_data(self, request: web.Request) -> Answer:
        swap = await self._draft(request)
        if isinstance(swap, Rejection):
            return 0, swap
        settlement = self._service.settlement(swap.sell_chain) or ""
        digest = digest_of(swap, settlement)
        return 200, v1.TypedData(
            digest,
            v1.swap_document(swap),
            typed_data(swap, settlement),
            self._service.cancel_typed_data(digest, swap.sell_chain),
        )

    async def quote(self, request: web.Request) -> Answer:
        swap = await self._draft(request)
        if isinstance(swap, Rejection):
            return 0, swap
        solution = await self._service.quote(swap)
        if isinstance(solution, Rejection):
            return 0, solution
        digest = digest_of(swap, self._service.settlement(swap.sell_chain) or "")
        return 200, v1.quote_view(swap, digest, solution)

    async def _draft(self, request: web.Request) -> Any:
        body = await self._body(request, v1.Draft)
        return body if isinstance(body, Rejection) else self._service.draft(body)

    async def venues(self, request: web.Request) -> Answer:
        return 200, self._service.venues

    async def graph(self, request: web.Request) -> Answer:
        snapshot = self._service.snapshot
        if snapshot is None:
            return 0, Rejection("not_ready", "there is no snapshot of the market yet")
        return 200, v1.graph_view(snapshot)

    async def batches(self, request: web.Request) -> Answer:
        page = _page(request)
        if isinstance(page, Rejection):
            return 0, page
        newest = list(self._service.book.batches.values())[::-1][: page[0]]
        return 200, v1.BatchPage([self._batch(batch) for batch in newest])

    async def batch(self, request: web.Request) -> Answer:
        batch = self._service.book.batches.get(request.match_info["id"].lower())
        if batch is None:
            return 0, Rejection("not_found", "no such batch")
        return 200, self._batch(batch)

    def _batch(self, batch: Batched) -> v1.BatchView:
        own: list[BundleRecord] = [
            record
            for record in self._service.book.bundles.values()
            if record.bundle.batch == batch.id
        ]
        return v1.batch_view(batch, own)

    async def settlements(self, request: web.Request) -> Answer:
        page = _page(request)
        if isinstance(page, Rejection):
            return 0, page
        newest = list(self._service.book.bundles.values())[::-1][: page[0]]
        return 200, [v1.bundle_view(record) for record in newest]

    async def info(self, request: web.Request) -> Answer:
        return 200, self._service.info

    async def health(self, request: web.Request) -> Answer:
        return 200, v1.Health("ok", [])

    async def ready(self, request: web.Request) -> Answer:
        troubles = self._service.troubles
        status = 503 if troubles else 200
        return status, v1.Health("degraded" if troubles else "ok", troubles)

    async def metrics(self, request: web.Request) -> Answer:
        book = self._service.book
        for state in IntentState:
            count = sum(record.state is state for record in book.intents.values())
            self._intents.labels(state.value).set(count)
        for bundle_state in BundleState:
            count = sum(record.state is bundle_state for record in book.bundles.values())
            self._bundles.labels(bundle_state.value).set(count)
        confirmed = (r for r in book.bundles.values() if r.state is BundleState.CONFIRMED)
        self._profit.set(sum(float(record.bundle.profit) for record in confirmed))
        self._excluded.set(sum(bool(venue.reason) for venue in self._service.venues))
        return 200, generate_latest(self._registry)

    async def openapi(self, request: web.Request) -> Answer:
        return 200, openapi(self._service.info.version)


_PAGE = (("limit", "integer"), ("cursor", "string"))

ROUTES = (
    Route("POST", "/v1/intents", "Submit a signed intent; 202 once it is durable, 200 when known",
          Api.submit, {202: v1.IntentView, 200: v1.IntentView}, v1.SubmitRequest),
    Route("GET", "/v1/intents", "List intents in the order of acceptance", Api.list,
          {200: v1.IntentPage}, None, (*_PAGE, ("state", "string"), ("owner", "string"))),
    Route("GET", "/v1/intents/{id}", "One intent", Api.get, {200: v1.IntentView}),
    Route("POST", "/v1/intents/{id}/cancel", "Cancel an open intent with its owner's signature",
          Api.cancel, {200: v1.IntentView}, v1.CancelRequest),
    Route("POST", "/v1/typed-data", "Complete a draft and get what the wallet signs",
          Api.typed_data, {200: v1.TypedData}, v1.Draft),
    Route("POST", "/v1/quote", "What a draft would get now, alone, with its certificate",
          Api.quote, {200: v1.QuoteView}, v1.Draft),
    Route("GET", "/v1/venues", "Venues and why some are left out", Api.venues,
          {200: list[v1.VenueView]}),
    Route("GET", "/v1/graph", "The venue-liquidity graph", Api.graph, {200: v1.GraphView}),
    Route("GET", "/v1/batches", "Batches, the newest first", Api.batches, {200: v1.BatchPage},
          None, (("limit", "integer"),)),
    Route("GET", "/v1/batches/{id}", "One batch with certificate and bundles", Api.batch,
          {200: v1.BatchView}),
    Route("GET", "/v1/settlements", "Transactions, the newest first", Api.settlements,
          {200: list[v1.BundleView]}, None, (("limit", "integer"),)),
    Route("GET", "/v1/info", "Chains, contracts and tokens", Api.info, {200: v1.Info}),
    Route("GET", "/v1/health", "Whether the process answers", Api.health, {200: v1.Health}),
    Route("GET", "/v1/ready", "Whether batches are being settled", Api.ready,
          {200: v1.Health, 503: v1.Health}),
    Route("GET", "/v1/openapi.json", "This description", Api.openapi, {200: dict[str, Any]}),
    Route("GET", "/metrics", "Prometheus metrics", Api.metrics, {200: str}),
)  # fmt: skip


def openapi(version: str) -> JsonObject:
    """The API as OpenAPI 3.1, from the routes and their msgspec types."""
    types: list[Any] = [Problem]
    for route in ROUTES:
        types += [route.body] if route.body else []
        types += route.answers.values()
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thalweg", "version": version, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> JsonObject:
    media = "text/plain" if route.path == "/metrics" else _JSON
    answers = {
        str(status): {
            "description": route.summary,
            "content": {media: {"schema": schemas[str(shape)]}},
        }
        for status, shape in route.answers.items()
    }
    answers["default"] = {
        "description": "A problem document",
        "content": {CONTENT_TYPE: {"schema": schemas[str(Problem)]}},
    }
    named = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    asked = [{"name": name, "in": "query", "schema": {"type": kind}} for name, kind in route.query]
    found: JsonObject = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "responses": answers,
        "parameters": (named if "{id}" in route.path else []) + asked,
    }
    if route.body:
        content = {_JSON: {"schema": schemas[str(route.body)]}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _page(request: web.Request) -> tuple[int, int] | Rejection:
    """The page's length and the number after which it starts."""
    limit, cursor = request.query.get("limit", str(_DEFAULT_PAGE)), request.query.get("cursor", "0")
    for name, text in (("limit", limit), ("cursor", cursor)):
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            return Rejection("bad_query", f"{name} must be a whole number", f"/{name}")
    if not 1 <= int(limit) <= _MAX_PAGE:
        return Rejection("bad_query", f"limit must be in [1, {_MAX_PAGE}]", "/limit")
    return int(limit), int(cursor)


def _states() -> str:
    return ", ".join(member.value for member in IntentState)


def _refuse(rejection: Rejection) -> web.Response:
    document = problem(rejection)
    return web.Response(
        body=msgspec.json.encode(document), status=document.status, content_type=CONTENT_TYPE
    )


def _from_http(error: web.HTTPException) -> Rejection:
    if error.status == 404:
        return Rejection("not_found", "no such path; see /v1/openapi.json")
    if error.status == 405:
        return Rejection("method_not_allowed", "another method is expected here")
    if error.status == 413:
        return Rejection("body_too_large", "the body is too large")
    return Rejection("bad_json", error.reason)

"""HTTP v1: bytes in, a value of the intake out, bytes out. Every error is a problem document."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from solver.core.intent import digest_of, typed_data
from solver.core.journal import Batched, Book, BundleRecord, IntentRecord
from solver.core.lifecycle import BundleState, IntentState
from solver.core.types import JsonObject, Rejection, Solution, Swap, TokenId
from solver.core.venue import Snapshot
from solver.cow_api import ROUTES as COW_ROUTES
from solver.cow_api import SOLVE, CowApi, CowLimits, CowRoute, CowService
from solver.door import from_http, refuse
from solver.wire import jsonio, v1
from solver.wire.errors import CONTENT_TYPE, Problem
from solver.wire.swap import swap_document, swap_to_core

log = structlog.get_logger("thalweg.api")

_JSON = "application/json"
_DEFAULT_PAGE, _MAX_PAGE = 100, 1000
_MAX_CURSOR_DIGITS = 12
_SHOWN_BUNDLES = 100  # a series of a metric for each
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_ID = {"type": "string", "pattern": "^0[xX][0-9a-fA-F]{64}$"}

T = TypeVar("T")


class Service(CowService, Protocol):
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
    def venue_of(self, pool: str) -> str: ...
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
    max_auction_bytes: int = 10 * 2**20


class Query(Struct, frozen=True):
    """A parameter of a list and its JSON schema."""

    name: str
    schema: JsonObject


class Ask(Struct, frozen=True):
    """What a client asks: the id of the path, the query, the decoded body of the route's shape."""

    id: str
    query: dict[str, str]
    body: Any


Answer = tuple[int, Any]
_Handler = Callable[["Api", Ask], Awaitable[Answer]]


class Route(Struct, frozen=True):
    """One line of the API; the routes and their description come from the same list.

    ``refusals`` are the statuses of problems beyond those that every route has. An ``always`` route
    is answered however much else is going on: it tells the operator what.
    """

    method: str
    path: str
    summary: str
    handler: _Handler
    answers: dict[int, Any]
    body: Any = None
    query: tuple[Query, ...] = ()
    refusals: tuple[int, ...] = ()
    always: bool = False


class Api:
    """The handlers and their metrics."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._pending = 0
        self._decimals = {
            TokenId(token.chain, token.address): token.decimals for token in service.info.tokens
        }
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
        self._bundle_profit = Gauge(
            "thalweg_bundle_profit_numeraire",
            f"Profit of each of the last {_SHOWN_BUNDLES} confirmed bundles",
            ["bundle", "chain"],
            registry=self._registry,
        )
        self._excluded = Gauge(
            "thalweg_venues_excluded", "Venues left out", registry=self._registry
        )
        patience = CowLimits(limits.max_auction_bytes, limits.request_timeout_seconds)
        self._cow = CowApi(service, patience, self._registry)

    def _view(self, record: IntentRecord) -> v1.IntentView:
        return v1.intent_view(record, self._service.book, self._decimals)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._limits.max_body_bytes
        )
        for route in ROUTES:
            if route.method == "GET":
                app.router.add_get(route.path, self._adapt(route), allow_head=True)
            else:
                app.router.add_route(route.method, route.path, self._adapt(route))
        app.add_routes(self._cow.routes())
        return app

    def _adapt(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            ask = await self._read(request, route)
            if isinstance(ask, Rejection):
                return refuse(ask)
            # Slow bodies are above: whoever is still sending takes nobody's place.
            if route.always:
                return _respond(*await route.handler(self, ask))
            if self._pending >= self._limits.max_pending_requests:
                return refuse(Rejection("busy", "too many requests at once, try again"))
            self._pending += 1
            try:
                return _respond(*await route.handler(self, ask))
            finally:
                self._pending -= 1

        return handle

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        started = time.monotonic()
        resource = request.match_info.route.resource
        path = resource.canonical if resource else "unknown"
        # An auction says itself how long it has; its body has the time of any other request.
        patience = None if path == SOLVE else self._limits.request_timeout_seconds
        response: web.StreamResponse
        try:
            async with asyncio.timeout(patience):
                response = await handler(request)
        except TimeoutError:
            response = refuse(Rejection("timeout", "the request took too long"))
        except web.HTTPException as error:
            response = from_http(error)
        except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
            log.info("bad_body", path=request.path, reason=repr(error)[:200])
            response = refuse(Rejection("bad_http", "the body cannot be read"))
            response.force_close()
        except Exception:
            log.exception("request_failed", path=request.path)
            response = refuse(Rejection("internal", "a bug of ours; the log has it"))
        self._requests.labels(path, str(response.status)).inc()
        self._seconds.labels(path).observe(time.monotonic() - started)
        return response

    async def _read(self, request: web.Request, route: Route) -> Ask | Rejection:
        query = _query(request, route)
        if isinstance(query, Rejection):
            return query
        body = await self._body(request, route.body) if route.body else None
        if isinstance(body, Rejection):
            return body
        return Ask(request.match_info.get("id", "").lower(), query, body)

    async def _body(self, request: web.Request, shape: Any) -> Any:
        if request.content_type != _JSON:
            return Rejection("wrong_media_type", f"send {_JSON}")
        if request.headers.getall("Content-Encoding", []):
            return Rejection("unsupported_encoding", "send the body as it is")
        limit = self._limits.max_body_bytes
        too_large = Rejection("body_too_large", f"at most {limit} bytes")
        if (request.content_length or 0) > limit:
            return too_large  # what it says is enough; it need not be sent first
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return too_large
        return jsonio.decode(body, shape, self._limits.max_body_bytes)

    async def submit(self, ask: Ask) -> Answer:
        swap = swap_to_core(ask.body.swap)
        if isinstance(swap, Rejection):
            return 0, swap
        outcome = await self._service.submit(swap, ask.body.signature)
        if isinstance(outcome, Rejection):
            return 0, outcome
        record, is_new = outcome
        return (202 if is_new else 200), self._view(record)

    async def get(self, ask: Ask) -> Answer:
        record = self._service.book.intents.get(ask.id)
        if record is None:
            return 0, Rejection("not_found", f"no intent {ask.id}"[:120])
        return 200, self._view(record)

    async def list(self, ask: Ask) -> Answer:
        page = _page(ask)
        if isinstance(page, Rejection):
            return 0, page
        limit, cursor = page
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MAX_CURSOR_DIGITS):
            return 0, Rejection("bad_query", "cursor must be a whole number", "/cursor")
        after = int(cursor)
        state, owner = ask.query.get("state"), ask.query.get("owner", "").lower()
        if state is not None and state not in _STATES:
            return 0, Rejection("bad_query", f"state must be one of {', '.join(_STATES)}", "/state")
        if "owner" in ask.query and not _ADDRESS.fullmatch(owner):
            return 0, Rejection("bad_query", "owner must be 0x and 40 hex digits", "/owner")
        found = [
            record
            for record in self._service.book.intents.values()
            if record.number > after
            and (state is None or record.state.value == state)
            and (not owner or record.intent.swap.owner == owner)
        ]
        shown = found[:limit]
        more = str(shown[-1].number) if len(found) > limit else ""
        views = [self._view(record) for record in shown]
        return 200, v1.IntentPage(views, more)

    async def cancel(self, ask: Ask) -> Answer:
        outcome = await self._service.cancel(ask.id, ask.body.signature)
        if isinstance(outcome, Rejection):
            return 0, outcome
        return 200, self._view(outcome)

    async def typed_data(self, ask: Ask) -> Answer:
        swap = self._service.draft(ask.body)
        if isinstance(swap, Rejection):
            return 0, swap
        settlement = self._service.settlement(swap.sell_chain) or ""
        digest = digest_of(swap, settlement)
        return 200, v1.TypedData(
            digest,
            swap_document(swap),
            typed_data(swap, settlement),
            self._service.cancel_typed_data(digest, swap.sell_chain),
        )

    async def quote(self, ask: Ask) -> Answer:
        swap = self._service.draft(ask.body)
        if isinstance(swap, Rejection):
            return 0, swap
        solution = await self._service.quote(swap)
        if isinstance(solution, Rejection):
            return 0, solution
        digest = digest_of(swap, self._service.settlement(swap.sell_chain) or "")
        return 200, v1.quote_view(swap, digest, solution, self._decimals)

    async def venues(self, ask: Ask) -> Answer:
        return 200, self._service.venues

    async def graph(self, ask: Ask) -> Answer:
        snapshot = self._service.snapshot
        if snapshot is None:
            return 0, Rejection("not_ready", "there is no snapshot of the market yet")
        return 200, v1.graph_view(snapshot, self._service.venue_of)

    async def batches(self, ask: Ask) -> Answer:
        found = _newest(self._service.book.batches, ask)
        if isinstance(found, Rejection):
            return 0, found
        shown, more = found
        return 200, v1.BatchPage([self._batch(batch) for batch in shown], more)

    async def batch(self, ask: Ask) -> Answer:
        batch = self._service.book.batches.get(ask.id)
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

    async def settlements(self, ask: Ask) -> Answer:
        found = _newest(self._service.book.bundles, ask)
        if isinstance(found, Rejection):
            return 0, found
        return 200, [v1.bundle_view(record) for record in found[0]]

    async def info(self, ask: Ask) -> Answer:
        return 200, self._service.info

    async def health(self, ask: Ask) -> Answer:
        return 200, v1.Health("ok", [])

    async def ready(self, ask: Ask) -> Answer:
        troubles = self._service.troubles
        status = 503 if troubles else 200
        return status, v1.Health("degraded" if troubles else "ok", troubles)

    async def metrics(self, ask: Ask) -> Answer:
        book = self._service.book
        for state in IntentState:
            count = sum(record.state is state for record in book.intents.values())
            self._intents.labels(state.value).set(count)
        for bundle_state in BundleState:
            count = sum(record.state is bundle_state for record in book.bundles.values())
            self._bundles.labels(bundle_state.value).set(count)
        confirmed = [r.bundle for r in book.bundles.values() if r.state is BundleState.CONFIRMED]
        self._profit.set(sum(float(bundle.profit) for bundle in confirmed))
        self._bundle_profit.clear()
        for bundle in confirmed[-_SHOWN_BUNDLES:]:
            labels = self._bundle_profit.labels(bundle.id, str(bundle.chain))
            labels.set(float(bundle.profit))
        self._excluded.set(sum(bool(venue.reason) for venue in self._service.venues))
        return 200, generate_latest(self._registry)

    async def openapi(self, ask: Ask) -> Answer:
        return 200, openapi(self._service.info.version)


_PAGE = (
    Query("limit", {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE}),
    Query("cursor", {"type": "string", "description": "Where the page before ended"}),
)
_STATES = tuple(state.value for state in IntentState)
_FILTERS = (
    Query("state", {"type": "string", "enum": list(_STATES)}),
    Query("owner", {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}),
)
_SENT = (413, 415, 422)

ROUTES = (
    Route("POST", "/v1/intents", "Submit a signed intent; 202 once it is durable, 200 when known",
          Api.submit, {202: v1.IntentView, 200: v1.IntentView}, v1.SubmitRequest, (), _SENT),
    Route("GET", "/v1/intents", "List intents in the order of acceptance", Api.list,
          {200: v1.IntentPage}, None, (*_PAGE, *_FILTERS)),
    Route("GET", "/v1/intents/{id}", "One intent", Api.get, {200: v1.IntentView}, refusals=(404,)),
    Route("POST", "/v1/intents/{id}/cancel", "Cancel an open intent with its owner's signature",
          Api.cancel, {200: v1.IntentView}, v1.CancelRequest, (), (404, 409, *_SENT)),
    Route("POST", "/v1/typed-data", "Complete a draft and get what the wallet signs",
          Api.typed_data, {200: v1.TypedData}, v1.Draft, (), (*_SENT, 503)),
    Route("POST", "/v1/quote", "What a draft would get now, alone, with its certificate",
          Api.quote, {200: v1.QuoteView}, v1.Draft, (), (*_SENT, 503)),
    Route("GET", "/v1/venues", "Venues and why some are left out", Api.venues,
          {200: list[v1.VenueView]}),
    Route("GET", "/v1/graph", "The venue-liquidity graph", Api.graph, {200: v1.GraphView},
          refusals=(503,)),
    Route("GET", "/v1/batches", "Batches, the newest first; the cursor is the id of the last one",
          Api.batches, {200: v1.BatchPage}, None, _PAGE),
    Route("GET", "/v1/batches/{id}", "One batch with certificate and bundles", Api.batch,
          {200: v1.BatchView}, refusals=(404,)),
    Route("GET", "/v1/settlements",
          "Transactions, the newest first; the cursor is the id of the last one",
          Api.settlements, {200: list[v1.BundleView]}, None, _PAGE),
    Route("GET", "/v1/info", "Chains, contracts and tokens", Api.info, {200: v1.Info}),
    Route("GET", "/v1/health", "Whether the process answers", Api.health, {200: v1.Health},
          always=True),
    Route("GET", "/v1/ready", "Whether batches are being settled", Api.ready,
          {200: v1.Health, 503: v1.Health}, always=True),
    Route("GET", "/v1/openapi.json", "This description", Api.openapi, {200: dict[str, Any]}),
    Route("GET", "/metrics", "Prometheus metrics", Api.metrics, {200: str}, always=True),
)  # fmt: skip


def openapi(version: str) -> JsonObject:
    """The API as OpenAPI 3.1, from the routes and their msgspec types."""
    types: list[Any] = [Problem]
    for route in (*ROUTES, *COW_ROUTES):
        types += [route.body] if route.body else []
        types += route.answers.values()
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    for foreign in COW_ROUTES:
        paths[foreign.path] = {foreign.method.lower(): _foreign_operation(foreign, by_type)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thalweg", "version": version, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> JsonObject:
    media = "text/plain" if route.path == "/metrics" else _JSON
    answers: JsonObject = {
        str(status): {
            "description": route.summary,
            "content": {media: {"schema": schemas[str(shape)]}},
        }
        for status, shape in route.answers.items()
    }
    refusal = {
        "description": "A problem document",
        "content": {CONTENT_TYPE: {"schema": schemas[str(Problem)]}},
    }
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    busy = () if route.always else (429,)
    for status in sorted({400, 408, 500, *busy, *route.refusals}):
        headers = {"headers": retry} if status in (429, 503) else {}
        answers.setdefault(str(status), {**refusal, **headers})
    answers["default"] = refusal
    named = [{"name": "id", "in": "path", "required": True, "schema": _ID}]
    asked = [{"name": query.name, "in": "query", "schema": query.schema} for query in route.query]
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


def _foreign_operation(route: CowRoute, schemas: dict[str, Any]) -> JsonObject:
    """An operation whose errors are in the words of its protocol."""
    found: JsonObject = {
        "operationId": f"cow{route.handler.__name__.title()}",
        "summary": route.summary,
        "responses": {
            str(status): {
                "description": route.summary if status == 200 else "An error of the protocol",
                "content": {_JSON: {"schema": schemas[str(shape)]}},
            }
            for status, shape in route.answers.items()
        },
    }
    if "{auction}" in route.path:
        found["parameters"] = [
            {"name": "auction", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if route.body:
        content = {_JSON: {"schema": schemas[str(route.body)]}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _query(request: web.Request, route: Route) -> dict[str, str] | Rejection:
    """The query; a parameter that is unknown or comes twice would be ignored silently elsewhere."""
    known = [query.name for query in route.query]
    found: dict[str, str] = {}
    for name, text in request.query.items():
        place = f"/{jsonio.escape(name)}"
        if name not in known:
            listed = ", ".join(known) or "none"
            return Rejection("bad_query", f"unknown parameter; there are: {listed}", place)
        if name in found:
            return Rejection("bad_query", f"{name} comes twice", place)
        found[name] = text
    return found


def _page(ask: Ask) -> tuple[int, str] | Rejection:
    """The page's length and the cursor after which it starts."""
    limit = ask.query.get("limit", str(_DEFAULT_PAGE))
    digits = limit.isascii() and limit.isdigit() and len(limit) <= len(str(_MAX_PAGE))
    if not digits or not 1 <= int(limit) <= _MAX_PAGE:
        return Rejection("bad_query", f"limit must be in [1, {_MAX_PAGE}]", "/limit")
    return int(limit), ask.query.get("cursor", "0")


def _newest(records: Mapping[str, T], ask: Ask) -> tuple[list[T], str] | Rejection:
    """A page of what is only ever added to, the newest first, and the cursor of the next page."""
    page = _page(ask)
    if isinstance(page, Rejection):
        return page
    limit, cursor = page
    keys = list(records)[::-1]
    start = 0
    if "cursor" in ask.query:
        if cursor.lower() not in records:
            return Rejection("bad_query", "cursor must be the id of an entry", "/cursor")
        start = keys.index(cursor.lower()) + 1
    shown = keys[start : start + limit]
    more = shown[-1] if len(keys) > start + limit else ""
    return [records[key] for key in shown], more


def _respond(status: int, value: Any) -> web.Response:
    if isinstance(value, Rejection):
        return refuse(value)
    if isinstance(value, bytes):
        return web.Response(body=value, status=status, content_type="text/plain")
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=_JSON)

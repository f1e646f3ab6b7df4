"""The connection below the API: how many, how slow, and what is answered to what is not HTTP.

aiohttp would answer a broken request with plain text and a traceback in the log; here it is a
problem document and one line, like every other refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct

from solver.core.types import Rejection
from solver.wire.errors import CONTENT_TYPE, Problem, problem

log = structlog.get_logger("thalweg.door")

_IDLE_SECONDS = 75.0
_LINGER_SECONDS = 2.0
_STOP_SECONDS = 2.0
_RETRY_AFTER_SECONDS = "1"
_BUSY = (429, 503)
_SLOW = Rejection("timeout", "the header of the request took too long")
_FULL = Rejection("too_many_connections", "too many connections at once, try again")


class DoorLimits(Struct, frozen=True):
    """How many connections there may be, and how long a client may take to say what it wants."""

    max_connections: int
    header_timeout_seconds: float


def refuse(rejection: Rejection, headers: dict[str, str] | None = None) -> web.Response:
    """The problem document of a refusal as a response."""
    document = problem(rejection)
    return web.Response(
        body=msgspec.json.encode(document),
        status=document.status,
        content_type=CONTENT_TYPE,
        headers={**_retry(document), **(headers or {})},
    )


def from_http(error: web.HTTPException) -> web.Response:
    """The problem document of what aiohttp refuses by itself."""
    if error.status == 404:
        return refuse(Rejection("not_found", "no such path; see /v1/openapi.json"))
    if error.status == 405:
        allowed = {"Allow": error.headers.get("Allow", "")}
        return refuse(Rejection("method_not_allowed", "another method is expected here"), allowed)
    if error.status == 413:
        return refuse(Rejection("body_too_large", "the body is too large"))
    if error.status == 417:
        return refuse(Rejection("expectation_failed", "only Expect: 100-continue is understood"))
    return refuse(Rejection("bad_http", error.reason))


def _retry(document: Problem) -> dict[str, str]:
    return {"Retry-After": _RETRY_AFTER_SECONDS} if document.status in _BUSY else {}


def _raw(rejection: Rejection) -> bytes:
    """A whole response, for a connection on which aiohttp has nothing to answer to."""
    document = problem(rejection)
    body = msgspec.json.encode(document)
    headers = {
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **_retry(document),
    }
    lines = [f"HTTP/1.1 {document.status} {document.title}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Door(web.RequestHandler):
    """One connection."""

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, limits: DoorLimits
    ) -> None:
        # Nothing is decompressed: a small body could become a large one before it is measured.
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # what AppRunner passes for none
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,
        )
        self._server = server
        self._limits = limits
        self._is_refused = False
        self._answered = 0
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or tell it to come back when there are too many."""
        if len(self._server.connections) >= self._limits.max_connections:
            self._is_refused = True
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(_raw(_FULL))
            transport.close()
            return
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the client."""
        self._stop_clock()
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the header must be complete in time, the body is the API's to wait for."""
        if self._is_refused:
            return
        super().data_received(data)
        self._watch()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; what aiohttp raised before our handlers came is put in our words."""
        self._answered += 1
        if isinstance(resp, web.HTTPException):
            resp = from_http(resp)
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is not a request."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer was under way already")
        if isinstance(exc, HttpProcessingError):
            rejection = Rejection("bad_http", _first_line(message or exc.message))
        else:
            rejection = Rejection("internal", "a bug of ours; the log has it")
        log.info("not_http", status=status, reason=rejection.detail, error=repr(exc)[:200])
        response = refuse(rejection)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line: what ends a connection here is the client's doing, or our handlers log it."""
        log.info("connection_ended", reason=repr(kw.get("exc_info", args))[:200])

    def _watch(self) -> None:
        if self._request_count > self._answered:
            self._stop_clock()
        elif self._clock is None:
            self._clock = self._loop.call_later(
                self._limits.header_timeout_seconds, self._too_slow, self._request_count
            )

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self, known: int) -> None:
        self._clock = None
        if self._request_count > known or self.transport is None:
            return
        if not known:
            # Later on the connection, a client could take this for the answer to its next request.
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(_raw(_SLOW))
        self.force_close()


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].rstrip(":")[:200] if lines else "not HTTP"


@contextlib.asynccontextmanager
async def listening(
    application: web.Application, host: str, port: int, limits: DoorLimits
) -> AsyncIterator[tuple[str, int]]:
    """The application behind its door, and the address where it listens. Raises OSError."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None
    loop = asyncio.get_running_loop()
    listener: asyncio.Server | None = None
    try:
        listener = await loop.create_server(lambda: _Door(server, loop, limits), host, port)
        bound: tuple[str, int] = listener.sockets[0].getsockname()[:2]
        yield bound
    finally:
        if listener is not None:
            listener.close()
        await runner.cleanup()

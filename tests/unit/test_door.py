"""The HTTP door without a daemon behind it: slow clients, broken requests, too many of them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest

from solver.api import Api, Limits
from solver.core.journal import Auctioned, Book, IntentRecord, Notified
from solver.core.types import JsonObject, Rejection, Solution, Swap
from solver.door import DoorLimits, listening
from solver.wire import v1
from solver.wire.engine import Answer
from solver.wire.errors import Problem
from solver.wire.swap import swap_from_core
from tests.make import swap

_DRAFT = {
    "owner": "0x" + "11" * 20,
    "sellChain": 1,
    "sellAsset": "0x" + "22" * 20,
    "buyChain": 1,
    "buyAsset": "0x" + "33" * 20,
    "kind": "exactIn",
}


class Hall:
    """A service whose quotes take until told."""

    def __init__(self) -> None:
        self.book = Book()
        self.snapshot = None
        self.info = v1.Info("0", [], [])
        self.venues: list[v1.VenueView] = []
        self.troubles: list[str] = []
        self.go_on = asyncio.Event()

    def venue_of(self, pool: str) -> str:
        return ""

    def settlement(self, chain: int) -> str | None:
        return None

    def draft(self, draft: v1.Draft) -> Swap | Rejection:
        return swap()

    def cancel_typed_data(self, digest: str, chain: int) -> JsonObject:
        return {}

    async def submit(self, order: Swap, signature: str) -> tuple[IntentRecord, bool] | Rejection:
        raise ZeroDivisionError

    async def cancel(self, digest: str, signature: str) -> IntentRecord | Rejection:
        return Rejection("not_found", "none here")

    async def quote(self, order: Swap) -> Solution | Rejection:
        await self.go_on.wait()
        return Rejection("solver_failed", "told to")

    async def solve_auction(self, body: bytes) -> Answer:
        return Rejection("busy", "never free")

    async def record(self, event: Auctioned | Notified) -> None:
        raise ZeroDivisionError


@contextlib.asynccontextmanager
async def opened(
    pending: int = 4, connections: int = 100, header_seconds: float = 30.0, seconds: float = 30.0
) -> AsyncIterator[tuple[Hall, str, int]]:
    hall = Hall()
    app = Api(hall, Limits(16_384, seconds, pending)).application()
    async with listening(app, "127.0.0.1", 0, DoorLimits(connections, header_seconds)) as where:
        yield hall, *where


async def exchange(host: str, port: int, sent: bytes) -> tuple[int, dict[str, str], Problem]:
    """The first answer to raw bytes."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in fields.items()}
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    assert headers["content-type"].startswith("application/problem+json"), head
    problem = msgspec.json.decode(body, type=Problem)
    assert problem.status == int(head[0].split()[1])
    return problem.status, headers, problem


_POST = b"POST /v1/intents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "bad_http"),
        (b"FOO /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_http"),
        (b"GET /v1/health HTTP/1.1\r\n\r\n", 400, "bad_http"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_http"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 400, "bad_http"),
        (_POST + b"Content-Length: -1\r\n\r\n{}", 400, "bad_http"),
        (_POST + b"Content-Length: 99999999999\r\n\r\n{}", 413, "body_too_large"),
        (_POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400, "bad_http"),
        (_POST + b"Expect: foo\r\nContent-Length: 2\r\n\r\n{}", 417, "expectation_failed"),
        (b"GET /no HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n", 417, "expectation_failed"),
        (_POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415,
         "unsupported_encoding"),
        (_POST + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", 415,
         "unsupported_encoding"),
    ],
)  # fmt: skip
async def test_what_is_not_a_request_gets_a_problem(
    sent: bytes, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened() as (_, host, port):
        answer = await exchange(host, port, sent)
        assert (answer[0], answer[2].code) == (status, code), answer
    assert "Traceback" not in "".join(capsys.readouterr())


async def test_a_small_body_never_becomes_a_large_one() -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    async with opened() as (_, host, port), aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        url = f"http://{host}:{port}/v1/intents"
        async with session.post(url, data=bomb, headers=headers) as response:
            assert response.status == 415


async def test_methods_are_named_and_head_is_one() -> None:
    async with opened() as (_, host, port), aiohttp.ClientSession() as session:
        base = f"http://{host}:{port}"
        async with session.put(f"{base}/v1/intents") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET,HEAD,POST"
        async with session.head(f"{base}/v1/health") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_slow_bodies_and_waiting_quotes_leave_health_alone() -> None:
    async with opened(pending=2) as (hall, host, port), aiohttp.ClientSession() as session:
        base = f"http://{host}:{port}"
        slow = [await asyncio.open_connection(host, port) for _ in range(20)]
        for _, writer in slow:
            writer.write(_POST + b"Content-Length: 100\r\n\r\n{")
            await writer.drain()
        async with session.get(f"{base}/v1/info") as response:
            assert response.status == 200, "a body that is still being sent takes a place"
        quotes = [asyncio.create_task(session.post(f"{base}/v1/quote", json=_DRAFT)) for _ in "ab"]
        for _ in range(200):
            async with session.get(f"{base}/v1/info") as response:
                if response.status == 429:
                    break
            await asyncio.sleep(0.01)
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        for path in ("/v1/health", "/v1/ready", "/metrics"):
            async with session.get(base + path) as response:
                assert response.status == 200, path
        hall.go_on.set()
        for quote in quotes:
            async with await quote as response:
                assert response.status == 503
        for _, writer in slow:
            writer.close()


async def test_a_body_has_its_time() -> None:
    async with opened(seconds=0.2) as (_, host, port):
        sent = _POST + b"Content-Length: 100\r\n\r\n{"
        assert (await exchange(host, port, sent))[2].code == "timeout"


async def test_a_header_has_its_time() -> None:
    async with opened(header_seconds=0.2) as (_, host, port):
        status, _, problem = await exchange(host, port, b"GET /v1/health HTTP/1.1\r\nHos")
        assert (status, problem.code) == (408, "timeout")
        # The time is the header's: an answered connection may stay idle.
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(2):
            writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"}")
            await asyncio.sleep(0.4)
        writer.close()


async def test_there_is_a_last_connection() -> None:
    async with opened(connections=2) as (_, host, port):
        kept = [await asyncio.open_connection(host, port) for _ in "ab"]
        for reader, writer in kept:
            writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}")
        status, headers, problem = await exchange(host, port, b"")
        assert (status, problem.code) == (503, "too_many_connections")
        assert headers["retry-after"] == "1"
        kept[0][1].close()
        await kept[0][1].wait_closed()
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"}")
        for _, other in (*kept[1:], (reader, writer)):
            other.close()


async def test_a_bug_is_a_problem_too() -> None:
    body = msgspec.json.encode({"swap": swap_from_core(swap()), "signature": ""})
    async with opened() as (_, host, port):
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        status, _, problem = await exchange(host, port, _POST + length + body)
        assert (status, problem.code) == (500, "internal")


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/intents?bogus=1", "/bogus"),
        ("/v1/intents?limit=5&limit=6", "/limit"),
        ("/v1/intents?owner=0x12", "/owner"),
        ("/v1/intents?owner=", "/owner"),
        ("/v1/intents?cursor=x", "/cursor"),
        ("/v1/intents?limit=1001", "/limit"),
        ("/v1/batches?cursor=5", "/cursor"),
        ("/v1/settlements?cursor=x", "/cursor"),
        ("/v1/batches?state=open", "/state"),
        ("/v1/health?x=1", "/x"),
    ],
)
async def test_a_query_is_read_to_the_letter(path: str, pointer: str) -> None:
    async with opened() as (_, host, port):
        line = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        status, _, problem = await exchange(host, port, line)
        assert (status, problem.code, problem.pointer) == (400, "bad_query", pointer)

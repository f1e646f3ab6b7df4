"""The CoW door with its engine and a ledger, without chains: what a driver sees of a daemon."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry

from solver.config import CowConfig
from solver.core.journal import Auctioned, Notified
from solver.cow_api import CowApi, CowLimits
from solver.door import DoorLimits, listening
from solver.engine import Engine
from solver.ledger import Ledger
from solver.service import engine_of
from solver.wire.engine import Answer

BODY_SECONDS = 30.0


class Hall:
    """The service behind the door."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.engine, self.ledger = engine, ledger

    async def solve_auction(self, body: bytes) -> Answer:
        return await self.engine.solve(body)

    async def record(self, event: Auctioned | Notified) -> None:
        await self.ledger.append(event)


class Driver:
    """A client of the door."""

    def __init__(self, hall: Hall, session: aiohttp.ClientSession, url: str) -> None:
        self.hall, self._session, self._url = hall, session, url

    async def ask(
        self, path: str, body: Any, kind: str = "application/json", chunked: bool = True
    ) -> tuple[int, Any]:
        """Status and decoded answer. Bodies that are no bytes are written as JSON, in chunks."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 65_536):
                yield data[start : start + 65_536]

        async with self._session.post(
            self._url + path,
            data=chunks() if chunked else data,
            headers={"content-type": kind, "x-request-id": "7"},
        ) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, json.loads(await response.read())


class Config(Struct, frozen=True):
    """What the reference's ``solver_config`` and this engine both have."""

    profile: str
    given: dict[str, Any]

    def engine(self) -> CowConfig:
        """The engine's config."""
        given = {name.replace("-", "_"): value for name, value in self.given.items()}
        given["chain_id"] = int(given["chain_id"])
        given["base_tokens"] = tuple(given["base_tokens"])
        return CowConfig(profile=self.profile, **given)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(config: CowConfig, directory: Path) -> AsyncIterator[Driver]:
    """A driver's view of an engine."""
    ledger = Ledger(directory / "journal.sqlite3")
    engine = engine_of(config)
    hall = Hall(engine, ledger)
    api = CowApi(hall, CowLimits(config.max_body_bytes, BODY_SECONDS), CollectorRegistry())
    app = web.Application()
    app.add_routes(api.routes())
    try:
        async with (
            listening(app, "127.0.0.1", 0, DoorLimits(16, 30.0)) as (host, port),
            aiohttp.ClientSession() as session,
        ):
            yield Driver(hall, session, f"http://{host}:{port}")
    finally:
        await engine.stop()
        ledger.close()

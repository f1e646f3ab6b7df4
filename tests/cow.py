"""The CoW door with its engine and a ledger, without chains: what a driver sees of a daemon."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct
from prometheus_client import CollectorRegistry

from solver.auctions import Question, Settings, Solver, Stage, merged
from solver.config import CowConfig
from solver.core import winners
from solver.core.journal import Auctioned, Book, Notified
from solver.core.types import Exact, Kind, TokenId
from solver.cow_api import CowApi, CowLimits
from solver.door import DoorLimits, listening
from solver.engine import Engine
from solver.ledger import Ledger
from solver.service import engine_of
from solver.wire import cow
from solver.wire.engine import Answer, Reply

BODY_SECONDS = 30.0


class Hall:
    """The service behind the door."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self.engine, self.ledger = engine, ledger

    @property
    def book(self) -> Book:
        return self.ledger.book

    async def solve_auction(self, body: bytes) -> Answer:
        return await self.engine.solve(body)

    async def record(self, event: Auctioned | Notified) -> None:
        await self.ledger.append(event)


class Driver:
    """A client of the door."""

    def __init__(
        self, hall: Hall, session: aiohttp.ClientSession, address: tuple[str, int]
    ) -> None:
        self.hall, self.address = hall, address
        self._session, self._url = session, f"http://{address[0]}:{address[1]}"

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
            data=chunks() if chunked else io.BytesIO(data),
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
            listening(app, "127.0.0.1", 0, DoorLimits(64, 30.0)) as address,
            aiohttp.ClientSession() as session,
        ):
            yield Driver(hall, session, address)
    finally:
        await engine.stop()
        ledger.close()


def settings(profile: str = "full", **more: Any) -> Settings:
    """An engine on chain 1 without pauses."""
    return engine_of(CowConfig(profile=profile, **more)).settings  # type: ignore[arg-type]


def answered(request: Any, engine: Settings) -> Reply:
    """The answer of a process of the engine, in this one."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    solver = Solver()
    stages = (Stage.ALONE, Stage.TOGETHER) if engine.profile == "full" else (Stage.BASELINE,)
    found, *more = (solver.answer(Question(engine, body, stage)) for stage in stages)
    assert isinstance(found, Reply), found
    for several in more:
        assert isinstance(several, Reply), several
        found = merged(several, found)
    return found


def solutions(reply: Reply) -> list[dict[str, Any]]:
    """The solutions of an answer."""
    found: list[dict[str, Any]] = json.loads(reply.body).get("solutions", [])
    return found


def executed(request: Any, solution: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Sold (fee included) and bought by uid, in the arithmetic of the settlement contract."""
    orders = {order["uid"].lower(): order for order in request["orders"]}
    found = {}
    for trade in solution["trades"]:
        order, amount = orders[trade["order"]], int(trade["executedAmount"])
        sell, buy = (
            int(solution["prices"][order[side].lower()]) for side in ("sellToken", "buyToken")
        )
        fee = int(trade.get("fee", 0))
        if order["kind"] == "sell":
            found[trade["order"]] = amount + fee, -(-amount * sell // buy)
        else:
            found[trade["order"]] = amount * buy // sell + fee, amount
    return found


def scores(request: Any, solution: dict[str, Any]) -> dict[str, int]:
    """The score of each order, in the bought token. Raises Unscorable below a limit."""
    orders = {order["uid"].lower(): order for order in request["orders"]}
    found = {}
    for uid, (sold, bought) in executed(request, solution).items():
        signed = orders[uid]
        kind = Kind.EXACT_IN if signed["kind"] == "sell" else Kind.EXACT_OUT
        limit = int(signed["sellAmount"]), int(signed["buyAmount"])
        order = winners.Order(kind, signed["sellToken"], signed["buyToken"], *limit)
        found[uid] = winners.score(order, winners.Trade(uid, sold, bought), winners.PRICE_UNIT)
    return found


def check(request: Any, solution: dict[str, Any], chain: int = 1) -> None:
    """Replay a solution: every use of a pool to the unit, every limit, no token short."""
    problem = cow.to_core(msgspec.convert(request, cow.Auction), chain, "", lenient=True)
    pools = {pool.id: pool for pool in problem.snapshot.pools}
    orders = {order["uid"].lower(): order for order in request["orders"]}
    left: Counter[str] = Counter()
    for use in solution["interactions"]:
        source, target = (TokenId(chain, use[f"{side}Token"]) for side in ("input", "output"))
        amount, brought = int(use["inputAmount"]), int(use["outputAmount"])
        (name,) = (  # an id may come twice; there is one with these tokens
            pool.id
            for pool in pools.values()
            if pool.id.startswith(use["id"] + "#") and {source, target} <= set(pool.tokens)
        )
        step = pools[name].swap(source, target, amount, Exact.IN)
        assert (step.amount_in, step.amount_out) == (amount, brought)
        pools[name] = step.next_pool
        left[source.address] -= amount
        left[target.address] += brought
    fees = {trade["order"]: int(trade.get("fee", 0)) for trade in solution["trades"]}
    for trade in solution["trades"]:
        assert ("fee" in trade) == (orders[trade["order"]]["class"] == "limit")
    for uid, (sold, bought) in executed(request, solution).items():
        order = orders[uid]
        most, least = int(order["sellAmount"]), int(order["buyAmount"])
        assert most * bought >= least * sold
        assert sold <= most
        filled, whole = (sold, most) if order["kind"] == "sell" else (bought, least)
        assert filled == whole or order["partiallyFillable"]
        # The reference's sell orders swap their fee as well; what that brings is left over.
        left[order["sellToken"].lower()] += sold - fees[uid]
        left[order["buyToken"].lower()] -= bought
    count, pooled = len(fees), {use["outputToken"].lower() for use in solution["interactions"]}
    for token, amount in left.items():
        if count == 1:
            assert amount >= 0 or amount >= -sum(fees.values()), left
        elif amount < 0:  # rounding, covered by fees in this token or by the settlement's own
            held = int(request["tokens"].get(token, {}).get("availableBalance", "0"))
            kept = sum(
                fee for uid, fee in fees.items() if orders[uid]["sellToken"].lower() == token
            )
            assert token not in pooled and -amount <= min(count, held + kept), left
    assert all(0 < int(price) < 2**256 for price in solution["prices"].values())

"""Auctions of ten megabytes at the CoW door: is every answer out before its deadline?

The door, the engine's processes and the ledger are those of the daemon; the driver sends the body
in chunks over a local connection. Each round is another auction with a deadline of its own, and the
report counts the rounds, so an interrupted run is continued. The decoding is timed apart.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from benchmarks import machine
from solver import auctions
from solver.config import CowConfig
from solver.core.journal import Auctioned, Book, Notified
from solver.cow_api import SOLVE, CowApi, CowLimits
from solver.door import DoorLimits, listening
from solver.engine import Engine
from solver.ledger import Ledger
from solver.service import engine_of
from solver.wire.engine import Answer

Profile = Literal["baseline", "full"]
REPORT = Path("reports/auctions.json")
BYTES = 10 * 2**20
_NATIVE = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
_NEVER = "2106-01-01T00:00:00.000000Z"
_CHUNK = 2**16
_PATIENCE_SECONDS = 60.0
_WARM_SECONDS = 20.0
_TOGETHER = 20  # rounds at one door, between two writings of the report
_PARSE_MILLISECONDS = 150.0


def auction(seed: int, size: int) -> bytes:
    """An auction of at most ``size`` bytes and nearly so: a fifth of it orders, the rest pools.

    A few tokens are in many pools and most in few, as on a main net; pools agree on prices within
    their fee. Its deadline is still to be written: see :func:`due`.
    """
    rng = random.Random(seed)
    tokens = [_NATIVE, *(f"0x{rng.getrandbits(160):040x}" for _ in range(2_000))]
    worth = {token: 10 ** rng.uniform(-6, 1) for token in tokens}
    document: dict[str, Any] = {
        "id": str(seed),
        "tokens": {token: _token(worth[token]) for token in tokens},
        "orders": [],
        "liquidity": [],
        "effectiveGasPrice": "15000000000",
        "deadline": _NEVER,
        "surplusCapturingJitOrderOwners": [],
    }
    left = size - len(msgspec.json.encode(document))
    for name, share, write in (("orders", 0.2, _order), ("liquidity", 1.0, _pool)):
        room = left * share
        while True:
            entry = write(rng, tokens, worth, len(document[name]))
            room -= len(msgspec.json.encode(entry)) + 1
            if room < 0:
                break
            document[name].append(entry)
        left = size - len(msgspec.json.encode(document))
    return msgspec.json.encode(document)


def due(body: bytes, moment: float) -> bytes:
    """The auction with its deadline, in Unix seconds."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return body.replace(_NEVER.encode(), text.replace("+00:00", "Z").encode(), 1)


def _token(worth: float) -> dict[str, Any]:
    return {
        "decimals": 18, "symbol": "TOKEN", "referencePrice": str(int(worth * 10**18)),
        "availableBalance": "0", "trusted": False,
    }  # fmt: skip


def _pair(rng: random.Random, tokens: Sequence[str]) -> tuple[str, str]:
    """Two tokens, the first ones far more often than the last."""
    first = int(len(tokens) * rng.random() ** 4)
    second = int(len(tokens) * rng.random() ** 2)
    return (tokens[first], tokens[second]) if first != second else _pair(rng, tokens)


def _order(
    rng: random.Random, tokens: Sequence[str], worth: dict[str, float], number: int
) -> dict[str, Any]:
    sell, buy = _pair(rng, tokens)[:: rng.choice((1, -1))]
    value = 10 ** rng.uniform(16, 20)
    sold = int(value / worth[sell]) + 1
    bought = int(value / worth[buy] * rng.choice((0.9, 0.97, 0.995, 1.1))) + 1
    owner = f"0x{rng.getrandbits(160):040x}"
    amounts = {"SellAmount": str(sold), "BuyAmount": str(bought)}
    return {
        "uid": f"0x{number:064x}{owner[2:]}ffffffff",
        "sellToken": sell, "buyToken": buy,
        "sellAmount": str(sold), "buyAmount": str(bought),
        **{f"full{name}": amount for name, amount in amounts.items()},
        "feePolicies": [{"volume": {"factor": 0.0002}}],
        "validTo": 2**32 - 1, "kind": rng.choice(("sell", "buy")), "receiver": owner,
        "owner": owner, "partiallyFillable": rng.random() < 0.3, "class": "limit",
        "preInteractions": [], "postInteractions": [], "sellTokenSource": "erc20",
        "buyTokenDestination": "erc20", "appData": "0x" + "00" * 32,
        "signingScheme": "eip712", "signature": "0x" + "11" * 65,
    }  # fmt: skip


def _pool(
    rng: random.Random, tokens: Sequence[str], worth: dict[str, float], number: int
) -> dict[str, Any]:
    ends = _pair(rng, tokens)
    depth = 10 ** rng.uniform(18, 23)
    states = {
        token: {"balance": str(int(depth / worth[token] * rng.uniform(0.999, 1.001)) + 1)}
        for token in ends
    }
    found: dict[str, Any] = {
        "kind": "constantProduct", "id": str(number), "address": f"0x{rng.getrandbits(160):040x}",
        "gasEstimate": "90000", "fee": "0.003",
    }  # fmt: skip
    if rng.random() < 0.2:
        found |= {"kind": "weightedProduct", "version": "v0"}
        found["balancerPoolId"] = f"0x{rng.getrandbits(256):064x}"
        for state in states.values():
            state |= {"scalingFactor": "1", "weight": "0.5"}
    else:
        found["router"] = "0x7a250d5630b4cf539739df2c5dacb4c659f2488d"
    return {**found, "tokens": states}


class _Hall:
    """The service behind the door."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine, self._ledger = engine, ledger

    @property
    def book(self) -> Book:
        """What the ledger has."""
        return self._ledger.book

    async def solve_auction(self, body: bytes) -> Answer:
        """See :class:`solver.cow_api.CowService`."""
        return await self._engine.solve(body)

    async def record(self, event: Auctioned | Notified) -> None:
        """See :class:`solver.cow_api.CowService`."""
        await self._ledger.append(event)


def parse_milliseconds(body: bytes) -> tuple[float, float]:
    """One decoding, as the engine's process does it: on the clock, and of the processor alone.

    The two differ on a machine that does other things as well.
    """
    started, worked = time.perf_counter(), time.process_time()
    auctions.decode(body)
    return (time.perf_counter() - started) * 1e3, (time.process_time() - worked) * 1e3


async def play(
    rounds: Sequence[int], seconds: float, size: int, profile: Profile
) -> list[dict[str, Any]]:
    """The rounds at one door, one after another."""
    config = CowConfig(profile=profile, max_body_bytes=size, max_hops=2)
    engine = engine_of(config)
    with tempfile.TemporaryDirectory(prefix="thalweg-auctions-") as directory:
        ledger = Ledger(Path(directory) / "journal.sqlite3")
        hall = _Hall(engine, ledger)
        api = CowApi(hall, CowLimits(size, _PATIENCE_SECONDS), CollectorRegistry())
        app = web.Application()
        app.add_routes(api.routes())
        try:
            await engine.start()
            await asyncio.sleep(_WARM_SECONDS)  # the second process; auctions come later than that
            limits = DoorLimits(8, _PATIENCE_SECONDS)
            async with (
                listening(app, "127.0.0.1", 0, limits) as (host, port),
                aiohttp.ClientSession(f"http://{host}:{port}") as session,
            ):
                found = [await _round(session, seed, seconds, size) for seed in rounds]
        finally:
            await engine.stop()
            ledger.close()
    return found


async def _round(
    session: aiohttp.ClientSession, seed: int, seconds: float, size: int
) -> dict[str, Any]:
    body = auction(seed, size)
    parsed, worked = parse_milliseconds(body)
    document = auctions.decode(body)
    moment = time.time() + seconds
    body = due(body, moment)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]

    started = time.time()
    headers = {"content-type": "application/json"}
    async with session.post(SOLVE, data=chunks(), headers=headers) as response:
        answer = msgspec.json.decode(await response.read())
        finished = time.time()
        status = response.status
    solutions = answer.get("solutions", [])
    return {
        "seed": seed,
        "bytes": len(body),
        "orders": len(document.orders),
        "pools": len(document.liquidity),
        "status": status,
        "solutions": len(solutions),
        "filled": len({trade["order"] for each in solutions for trade in each["trades"]}),
        "parseMilliseconds": parsed,
        "parseCpuMilliseconds": worked,
        "seconds": finished - started,
        "secondsLeft": moment - finished,
        "load": machine.load(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when every answer was in time, and decoding typically below its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="from sending to the deadline")
    parser.add_argument("--bytes", type=int, default=BYTES)
    parser.add_argument("--profile", choices=("baseline", "full"), default="full")
    parser.add_argument("--fresh", action="store_true", help="forget the report")
    parser.add_argument("--report", type=Path, default=REPORT)
    asked = parser.parse_args(words)
    report = machine.Report(asked.report, asked.fresh)
    setup = {
        "seconds": asked.seconds,
        "bytes": asked.bytes,
        "profile": asked.profile,
        "code": machine.code(),
    }
    if report.content.get("setup") != setup:
        report.content |= {"setup": setup, "rounds": []}
    played: list[dict[str, Any]] = report.content["rounds"]
    while len(played) < asked.rounds:
        some = range(len(played), min(len(played) + _TOGETHER, asked.rounds))
        played += asyncio.run(play(some, asked.seconds, asked.bytes, asked.profile))
        report.content["summary"] = _summary(played)
        report.save()
        print(report.content["summary"], flush=True)
    summary = _summary(played)
    is_slow = summary["parseMilliseconds"]["p50"] > _PARSE_MILLISECONDS
    return 1 if summary["late"] or is_slow else 0


def _summary(played: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rounds": len(played),
        "late": sum(one["secondsLeft"] <= 0.0 or one["status"] != 200 for one in played),
        "empty": sum(not one["filled"] for one in played),
        **{
            name: machine.spread([one[name] for one in played])
            for name in ("parseMilliseconds", "parseCpuMilliseconds", "seconds", "filled")
        },
        "leastSecondsLeft": min(one["secondsLeft"] for one in played),
    }


if __name__ == "__main__":
    sys.exit(main())

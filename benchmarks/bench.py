"""How fast: intents accepted per second (durable), accept to settled, and what solving takes.

Writes one JSON file with the machine it ran on. Figures are medians unless named otherwise. What
the daemon's solver took is what the daemon says of its batches: question and answer between the two
processes included. The time of LPs and MIPs is that inside the optimiser's one door, from sparse
model to answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import structlog
from msgspec.structs import replace

from benchmarks import machine
from solver import config as configs
from solver import devnet
from solver.chain import Wallet
from solver.client import Client
from solver.core.batch import solve_batch
from solver.core.intent import digest_of
from solver.core.pools import ConstantProductPool
from solver.core.program import optimiser
from solver.core.types import Intent, Kind, Rejection, TokenId
from solver.core.venue import Snapshot
from solver.intake import blank_swap
from solver.service import serving
from solver.wire import v1
from solver.wire.swap import SwapDocument, swap_to_core

_SETTLEMENT = "0x" + "5e" * 20
_UNIT = 10**18
_TOGETHER = 10
_PATIENCE_SECONDS = 60.0


async def over_http(count: int, connections: int, settled: int) -> dict[str, Any]:
    """Settle some orders, one by one and together; then accept ``count`` from ``connections``."""
    base = configs.load(configs.DEFAULT_PATH)
    with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as directory:
        config = replace(
            base,
            server=replace(base.server, port=0),
            storage=replace(base.storage, directory=directory),
            batch=replace(base.batch, tick_seconds=0.1),
            limits=replace(base.limits, max_open_per_owner=count, max_open_total=count * 2),
        )
        async with serving(config) as (_, url), aiohttp.ClientSession() as session:
            client = Client(url, session)
            latencies = await _settle_some(client, settled)
            await _settle_together(client, max(1, settled // _TOGETHER))
            solved = await _solve_times(client)
            requests = await _signed(client, count)
            started = time.perf_counter()
            waits = await asyncio.gather(
                *(_post(client, requests[start::connections]) for start in range(connections))
            )
            seconds = time.perf_counter() - started
    flat = sorted(wait for part in waits for wait in part)
    return {
        "intents": count,
        "connections": connections,
        "acceptedPerSecond": round(count / seconds, 1),
        "acceptMilliseconds": round(statistics.median(flat) * 1e3, 2),
        "acceptMillisecondsP99": round(flat[int(len(flat) * 0.99)] * 1e3, 2),
        "tickSeconds": 0.1,
        "acceptToSettledMilliseconds": round(statistics.median(latencies) * 1e3, 1),
        "acceptToSettledMillisecondsMax": round(max(latencies) * 1e3, 1),
        "solveMilliseconds": solved,
    }


async def _signed(client: Client, count: int) -> list[v1.SubmitRequest]:
    """Orders out of reach, so that accepting is all that happens."""
    info = await client.info()
    tokens = {(token.symbol, token.chain): token.address for token in info.tokens}
    data = await client.draft(
        v1.Draft(
            owner=devnet.user(0).address,
            sell_chain=31337,
            sell_asset=tokens["WETH", 31337],
            buy_chain=31337,
            buy_asset=tokens["USDC", 31337],
            kind=Kind.EXACT_IN,
            sell_amount=str(_UNIT),
            buy_amount=str(10**12),
        )
    )
    settlement = next(chain.settlement for chain in info.chains if chain.chain == 31337)
    return [
        _sign(data.swap, number, settlement, devnet.user(number % devnet.user_count()))
        for number in range(count)
    ]


def _sign(document: SwapDocument, nonce: int, settlement: str, wallet: Wallet) -> v1.SubmitRequest:
    swap_document = replace(
        document, nonce=str(nonce), owner=wallet.address, receiver=wallet.address
    )
    swap = swap_to_core(swap_document)
    if isinstance(swap, Rejection):
        raise RuntimeError(swap.detail)
    digest = digest_of(swap, settlement)
    return v1.SubmitRequest(
        swap_document, "0x" + wallet.sign_digest(bytes.fromhex(digest[2:])).hex()
    )


async def _post(client: Client, requests: Sequence[v1.SubmitRequest]) -> list[float]:
    waits = []
    for request in requests:
        started = time.perf_counter()
        reply = await client.request("POST", "/v1/intents", request)
        waits.append(time.perf_counter() - started)
        if reply.status != 202:
            raise RuntimeError(f"not accepted: {reply.status} {reply.body!r}")
    return waits


async def _settle_some(client: Client, count: int) -> list[float]:
    """From the 202 to the first answer that says settled, one order at a time."""
    latencies = []
    for number in range(count):
        identity = await _submit(client, number)
        started = time.perf_counter()
        await _until_settled(client, identity)
        latencies.append(time.perf_counter() - started)
    return latencies


async def _settle_together(client: Client, rounds: int) -> None:
    """Orders against each other, several in a batch."""
    for _ in range(rounds):
        found = await asyncio.gather(*(_submit(client, number) for number in range(_TOGETHER)))
        await asyncio.gather(*(_until_settled(client, identity) for identity in found))


async def _submit(client: Client, number: int) -> str:
    """An order of about 2,500 USD, by turns each way."""
    tokens = {(token.symbol, token.chain): token.address for token in (await client.info()).tokens}
    wallet = devnet.user(number % devnet.user_count())
    pair = ("WETH", "USDC") if number % 2 else ("USDC", "WETH")
    data = await client.draft(
        v1.Draft(
            owner=wallet.address,
            sell_chain=31337,
            sell_asset=tokens[pair[0], 31337],
            buy_chain=31337,
            buy_asset=tokens[pair[1], 31337],
            kind=Kind.EXACT_IN,
            sell_amount=str(10**18 if number % 2 else 2_500 * 10**6),
            slippage_bps=500,
        )
    )
    return (await client.submit(data.swap, wallet)).id


async def _until_settled(client: Client, identity: str) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        state = ""
        while state != "settled":
            state = (await client.intent(identity)).state
            await asyncio.sleep(0.005)


async def _solve_times(client: Client) -> dict[str, Any]:
    """What the daemon says that its settled batches took to solve, by the way they were solved."""
    taken: dict[str, list[float]] = {}
    cursor = ""
    while True:
        page = await client.ask("GET", f"/v1/batches?limit=100{cursor}", v1.BatchPage)
        for solved in page.batches:
            taken.setdefault(solved.stage, []).append(solved.seconds * 1e3)
        if not page.next:
            break
        cursor = f"&cursor={page.next}"
    return {
        stage: {"batches": len(times), **machine.spread(times)}
        for stage, times in sorted(taken.items())
    }


def programs(sizes: Sequence[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """Whole batches, from snapshot to checked and certified integers, on random markets."""
    found = []
    for pools, orders in sizes:
        snapshot, intents = _market(pools, orders)
        times, gaps, spent = [], [], []
        for _ in range(repeats):
            with _optimiser_clock() as runs:
                started = time.perf_counter()
                solution = solve_batch(snapshot, intents)
                times.append(time.perf_counter() - started)
            spent.append(sum(runs))
            gaps.append(float(solution.certificate.net_gap_bps))
        found.append(
            {
                "pools": pools,
                "orders": orders,
                "filled": len(solution.fills),
                "milliseconds": round(statistics.median(times) * 1e3, 1),
                "programs": len(runs),
                "programMilliseconds": round(statistics.median(spent) * 1e3, 1),
                "netGapBps": gaps[-1],
            }
        )
    return found


@contextlib.contextmanager
def _optimiser_clock() -> Iterator[list[float]]:
    """The seconds of every LP and MIP that is run inside."""
    door, spent = optimiser.run, list[float]()

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        answer = door(*arguments, **options)
        spent.append(time.perf_counter() - started)
        return answer

    with mock.patch.object(optimiser, "run", timed):
        yield spent


def _market(pools: int, orders: int) -> tuple[Snapshot, list[Intent]]:
    random_ = random.Random(pools * 1_000 + orders)
    tokens = [TokenId(1, f"0x{number:040x}") for number in range(1, max(4, pools // 4) + 1)]
    listed = []
    for number in range(pools):
        first, second = random_.sample(tokens, 2)
        depth = random_.randint(100, 10_000) * _UNIT
        listed.append(
            ConstantProductPool(
                id=f"p{number:05}",
                token0=first,
                token1=second,
                reserve0=depth,
                reserve1=depth * random_.randint(995, 1005) // 1000,
                fee_num=30,
                fee_den=10_000,
                gas=0,
            )
        )
    intents = []
    for number in range(orders):
        sell, buy = random_.sample(tokens, 2)
        amount = random_.randint(1, 40) * _UNIT
        swap = blank_swap(
            "0x" + "01" * 20, "0x" + "01" * 20, sell, buy, Kind.EXACT_IN, amount,
            amount * 95 // 100, True, number, 0,
        )  # fmt: skip
        intents.append(Intent(digest_of(swap, _SETTLEMENT), swap, "0x"))
    prices = dict.fromkeys(tokens, 1e-18)
    return Snapshot({}, tuple(listed), prices, {}, {}, {}), intents


def main() -> int:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intents", type=int, default=2_000)
    parser.add_argument("--settled", type=int, default=100, help="one by one, before the others")
    parser.add_argument("--report", type=Path, default=Path("reports/bench.json"))
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    report = {
        "machine": machine.describe(),
        "code": machine.code(),
        "http": asyncio.run(over_http(arguments.intents, 16, arguments.settled)),
        "batches": programs([(5, 1), (20, 10), (50, 1), (50, 20), (100, 1)], 5),
    }
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

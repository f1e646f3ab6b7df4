"""kill -9 at random moments: nothing that was acknowledged is lost, nothing is settled twice.

A round starts a daemon with its two local chains, submits intents over HTTP while the daemon is
killed and started again, and at the end compares three accounts of what happened to the unit: the
answers that the client got, the ledger, and the chains. Owners cancel over HTTP and on chain at
random moments, so that cancellations meet batches on their way. A daemon that ends by itself is
counted as wrong: it must not pass as one of our kills. Rounds go into the report one by one, so an
interrupted run is continued; a report of other code is begun again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import machine
from solver import devnet
from solver.chain import Chain, Rpc, Wallet
from solver.client import Client, NoAnswer, Refused
from solver.config import DEFAULT_PATH
from solver.core.abi import encode_call
from solver.core.types import Kind
from solver.wire import v1

KILLS_PER_ROUND = 10
_QUIET_SECONDS = 60.0
_PORTS = (15_000, 30_000)  # below those that the system hands out
_TELLING = ("local_chains", "set_aside", "error", "Traceback")
_PAIRS = (
    (("WETH", 31337), ("USDC", 31337), 10**17, 3 * 10**18),
    (("USDC", 31337), ("WETH", 31337), 2 * 10**8, 6 * 10**9),
    (("DAI", 31337), ("USDC", 31337), 10**20, 5 * 10**21),
    (("WBTC", 31337), ("WETH", 31337), 10**6, 2 * 10**7),
    (("WETH", 31337), ("USDC", 31338), 10**17, 10**18),
    (("USDC", 31338), ("USDC", 31337), 10**8, 10**9),
    (("USDC", 31338), ("WETH", 31338), 10**8, 3 * 10**9),
)


class Round:
    """One data directory, its daemon, and everything the client was told."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.acknowledged: dict[str, v1.IntentView] = {}
        self.cancelled: set[str] = set()
        self.kills = 0
        self.exits: list[str] = []
        self.port = _quiet_port()
        self._process: asyncio.subprocess.Process | None = None

    async def play(self, kills: int) -> dict[str, Any]:
        """Kill so often, then let it come to rest, then compare."""
        self._write_config()
        async with aiohttp.ClientSession() as session:
            client = Client(f"http://127.0.0.1:{self.port}", session)
            try:
                for _ in range(kills):
                    await self._start(client, patient=self.random.random() > 0.15)
                    await self._live(client, self.random.uniform(0.0, 1.2))
                    await self._kill()
                await self._start(client, patient=True)
                await self._come_to_rest(client)
                return await self._compare(client, session)
            finally:
                await self._stop()

    def _write_config(self) -> None:
        text = DEFAULT_PATH.read_text(encoding="utf-8")
        text = text.replace("port = 8645", f"port = {self.port}")
        text = text.replace('directory = "data"', f'directory = "{self.directory}/data"')
        text = text.replace("tick_seconds = 0.5", "tick_seconds = 0.1")
        (self.directory / "config.toml").write_text(text, encoding="utf-8")

    async def _start(self, client: Client, patient: bool) -> None:
        """Start the daemon; unless ``patient`` it may be killed before it listens."""
        log = (self.directory / "daemon.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "solver",
            "run",
            "--config",
            str(self.directory / "config.toml"),
            stdout=log,
            stderr=log,
        )
        log.close()
        if not patient:
            return
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise RuntimeError(f"the daemon ended: {self._tail()}")
            with contextlib.suppress(NoAnswer):
                await client.ask("GET", "/v1/health", v1.Health)
                return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"the daemon does not listen: {self._tail()}")

    def _tail(self) -> str:
        return (self.directory / "daemon.log").read_text(encoding="utf-8")[-800:]

    async def _live(self, client: Client, seconds: float) -> None:
        """Submit and cancel until the time has come; whatever fails is the daemon's death."""
        cancels: set[asyncio.Task[None]] = set()
        try:
            with contextlib.suppress(TimeoutError, NoAnswer, Refused):
                async with asyncio.timeout(seconds):
                    while True:
                        view, wallet = await self._submit(client)
                        if self.random.random() < 0.4:
                            wait, on_chain = (
                                self.random.uniform(0.0, 0.4),
                                self.random.random() < 0.3,
                            )
                            cancelling = self._cancel(client, view, wallet, wait, on_chain)
                            cancels.add(asyncio.create_task(cancelling))
                        await asyncio.sleep(self.random.uniform(0.0, 0.15))
        finally:
            for task in cancels:
                task.cancel()
            await asyncio.gather(*cancels, return_exceptions=True)

    async def _cancel(
        self, client: Client, view: v1.IntentView, wallet: Wallet, wait: float, on_chain: bool
    ) -> None:
        """Withdraw an order a little later, when it may be in the middle of a batch."""
        await asyncio.sleep(wait)
        if on_chain:
            deployments = devnet.read_run_file(self.directory / "data" / "devnet.json")
            deployment = deployments[view.swap.sell_chain]
            data = encode_call("cancel(bytes32)", bytes.fromhex(view.id[2:]))
            tx = {"from": wallet.address, "to": deployment.addresses["settlement"], "data": data}
            async with aiohttp.ClientSession() as session:
                await Rpc(deployment.url, session, 5.0).call("eth_sendTransaction", tx)
            return
        with contextlib.suppress(NoAnswer, Refused):
            done = await client.cancel(view, wallet)
            if done.state == "cancelled":
                self.cancelled.add(view.id)

    async def _submit(self, client: Client) -> tuple[v1.IntentView, Wallet]:
        tokens = {(t.symbol, t.chain): t.address for t in (await client.info()).tokens}
        sell, buy, low, high = self.random.choice(_PAIRS)
        wallet = devnet.user(self.random.randrange(devnet.user_count()))
        kind = self.random.random()
        data = await client.draft(
            v1.Draft(
                owner=wallet.address,
                sell_chain=sell[1],
                sell_asset=tokens[sell],
                buy_chain=buy[1],
                buy_asset=tokens[buy],
                kind=Kind.EXACT_IN,
                sell_amount=str(self.random.randint(low, high)),
                slippage_bps=self.random.choice((0, 300, 500, 800)),
                partial_fill=self.random.random() < 0.3,
                lifetime_seconds=2 if kind < 0.1 else 900,
            )
        )
        view = await client.submit(data.swap, wallet)
        self.acknowledged[view.id] = view
        return view, wallet

    async def _kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            self._note_exit()
            return
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self.kills += 1

    def _note_exit(self) -> None:
        """Keep what a daemon said that ended without being killed."""
        assert self._process is not None
        self.exits.append(f"ended by itself with {self._process.returncode}: {self._tail()}")

    async def _come_to_rest(self, client: Client) -> None:
        """Until nothing is on its way any more: no batched, no escrowed, no pending bundle."""
        deadline = time.monotonic() + _QUIET_SECONDS
        quiet, moving, ready = 0, [""], v1.Health("", [])
        while quiet < 5:
            if time.monotonic() > deadline:
                kept = Path(tempfile.gettempdir()) / f"thalweg-restless-{time.time_ns()}"
                shutil.copytree(self.directory, kept)
                raise RuntimeError(f"no rest: {moving} {ready.reasons}; see {kept}")
            await asyncio.sleep(0.2)
            views = await self._intents(client)
            bundles = await client.ask("GET", "/v1/settlements?limit=1000", list[v1.BundleView])
            moving = [
                f"{view.id} {view.state} {view.code} {view.updated_at}"
                for view in views.values()
                if view.state in ("batched", "escrowed")
            ]
            moving += [
                f"{b.role} {b.state} {b.transaction}"
                for b in bundles
                if b.state in ("built", "sending", "sent")
            ]
            ready = await client.ask("GET", "/v1/ready", v1.Health)
            quiet = quiet + 1 if not moving and ready.status == "ok" else 0

    async def _intents(self, client: Client) -> dict[str, v1.IntentView]:
        found: dict[str, v1.IntentView] = {}
        cursor = "0"
        while cursor:
            page = await client.ask("GET", f"/v1/intents?limit=1000&cursor={cursor}", v1.IntentPage)
            found.update((view.id, view) for view in page.intents)
            cursor = page.next
        return found

    async def _compare(self, client: Client, session: aiohttp.ClientSession) -> dict[str, Any]:
        views = await self._intents(client)
        if self._process is not None and self._process.returncode is not None:
            self._note_exit()
        wrong = [f"lost {key}" for key in self.acknowledged if key not in views]
        if wrong:
            log = (self.directory / "daemon.log").read_text(encoding="utf-8").splitlines()
            wrong += [line for line in log if any(word in line for word in _TELLING)]
        wrong += self.exits
        wrong += [
            f"cancelled, now {views[key].state}: {key}"
            for key in self.cancelled & views.keys()
            if views[key].state != "cancelled"
        ]
        deployments = devnet.read_run_file(self.directory / "data" / "devnet.json")
        chains = {
            number: Chain(number, Rpc(deployment.url, session, 10.0))
            for number, deployment in deployments.items()
        }
        wrong += await self._check_filled(views, chains, deployments)
        wrong += await self._check_balances(client, views, chains, deployments)
        states: dict[str, int] = {}
        for view in views.values():
            states[view.state] = states.get(view.state, 0) + 1
        return {
            "kills": self.kills,
            "exits": len(self.exits),
            "acknowledged": len(self.acknowledged),
            "intents": len(views),
            "states": states,
            "wrong": wrong,
        }

    async def _check_filled(
        self,
        views: dict[str, v1.IntentView],
        chains: dict[int, Chain],
        deployments: dict[int, devnet.Deployment],
    ) -> list[str]:
        """The contract's count of each order is the ledger's, so each fill happened once."""
        wrong = []
        for number, chain in chains.items():
            here = [view for view in views.values() if view.swap.sell_chain == number]
            counts = await chain.orders(
                deployments[number].addresses["settlement"],
                [(view.swap.owner, view.id) for view in here],
            )
            wrong += [
                f"{view.id}: ledger {view.filled}, chain {filled}"
                for view, (_, filled) in zip(here, counts, strict=True)
                if str(filled) != view.filled
            ]
        return wrong

    async def _check_balances(
        self,
        client: Client,
        views: dict[str, v1.IntentView],
        chains: dict[int, Chain],
        deployments: dict[int, devnet.Deployment],
    ) -> list[str]:
        """Each user holds what they were given, less sold, plus bought, to the unit."""
        expected: dict[tuple[str, int, str], int] = {}
        tokens = (await client.info()).tokens
        for token in tokens:
            for number in range(devnet.user_count()):
                key = (devnet.user(number).address, token.chain, token.address)
                expected[key] = devnet.GRANTS[token.symbol] * 10**token.decimals
        for view in views.values():
            sold, bought = view.swap.sell_asset, view.swap.buy_asset
            expected[view.swap.owner, view.swap.sell_chain, "0x" + sold[-40:]] -= int(view.sold)
            expected[view.swap.owner, view.swap.buy_chain, "0x" + bought[-40:]] += int(view.bought)
        wrong = []
        for number, chain in chains.items():
            keys = [key for key in expected if key[1] == number]
            held = await chain.balances(
                [(key[2], key[0]) for key in keys], deployments[number].addresses["holder"]
            )
            wrong += [
                f"balance of {key}: expected {expected[key]}, is {amount}"
                for key, amount in zip(keys, held, strict=True)
                if amount != expected[key]
            ]
        return wrong

    async def _stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
        devnet.stop(devnet.read_run_file(self.directory / "data" / "devnet.json"))


def _quiet_port() -> int:
    """A free port that nobody gets by chance while the daemon is down between two kills."""
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


async def one_round(seed: int, kills: int) -> dict[str, Any]:
    """A round in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="thalweg-crash-") as directory:
        started = time.monotonic()
        result = await Round(seed, Path(directory)).play(kills)
        return {"seed": seed, "seconds": round(time.monotonic() - started, 1), **result}


def main(words: Sequence[str] | None = None) -> int:
    """Rounds until the report holds enough kills; exit code 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--fresh", action="store_true", help="forget the report there is")
    parser.add_argument("--report", type=Path, default=Path("reports/crash.json"))
    options = parser.parse_args(words)
    report = machine.begun(options.report, {"kills": 0, "wrong": 0, "rounds": []}, options.fresh)
    found = sum(entry["kills"] for entry in report["rounds"])
    while (done := sum(entry["kills"] for entry in report["rounds"])) < options.kills:
        seed = len(report["rounds"])
        entry = asyncio.run(one_round(seed, min(KILLS_PER_ROUND, options.kills - done)))
        report["rounds"].append(entry)
        report["kills"] = done + entry["kills"]
        report["wrong"] = sum(len(other["wrong"]) for other in report["rounds"])
        options.report.parent.mkdir(parents=True, exist_ok=True)
        scratch = options.report.with_suffix(".new")
        scratch.write_text(json.dumps(report, indent=1), encoding="utf-8")
        os.replace(scratch, options.report)
        print(f"round {seed}: {report['kills']} kills, {report['wrong']} wrong", flush=True)
        if entry["exits"]:
            break  # a daemon that ends by itself would never be killed often enough
    if done == found:
        print(
            f"{options.report} is complete for this code ({report['code'][:12] or 'no git'}): "
            f"{report['kills']} kills, {report['wrong']} wrong; FRESH=1 does it again"
        )
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

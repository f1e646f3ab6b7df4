"""The demo from end to end: every case shows what it is for, and balances agree to the unit."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from solver import demo, devnet
from solver.cli import app
from solver.client import Client
from solver.core.types import TokenId
from solver.daemon import Daemon
from solver.service import serving
from solver.wire import v1
from tests.e2e.make import PATIENCE_SECONDS, config_in

pytestmark = pytest.mark.xdist_group("daemon")


async def test_every_case_and_every_balance(tmp_path: Path) -> None:
    async with serving(config_in(tmp_path)) as (daemon, url), aiohttp.ClientSession() as session:
        rows = await demo.play(daemon, url, patience_seconds=PATIENCE_SECONDS)
        wrong = {row.case.name: (row.state, row.reason) for row in rows if not demo.has_shown(row)}
        assert not wrong
        assert all(row.reason for row in rows if row.state != "settled")
        assert all(float(row.surplus_bps) >= 0 for row in rows if row.state == "settled")
        client = Client(url, session)
        await _check_users(daemon, client)
        await _check_legs(client, {row.case.name: row.id for row in rows})
        assert daemon.escrows.count == 0
        _check_recorded(daemon, tmp_path)
        contracts = daemon.world.contracts
        for token in daemon.world.tokens:
            for holder in (contracts[token.chain].settlement, contracts[token.chain].escrow):
                assert await _balance(daemon, token, holder) == 0


async def _check_users(daemon: Daemon, client: Client) -> None:
    expected: dict[tuple[str, TokenId], int] = {}
    for identity, token in daemon.world.tokens.items():
        for number in range(devnet.user_count()):
            whole = devnet.GRANTS[token.symbol]
            expected[devnet.user(number).address, identity] = whole * 10**token.decimals
    page = await client.ask("GET", "/v1/intents", v1.IntentPage)
    for view in page.intents:
        swap = daemon.ledger.book.intents[view.id].intent.swap
        expected[swap.owner, swap.sell] -= int(view.sold)
        expected[swap.receiver, swap.buy] += int(view.bought)
    for (owner, token_id), amount in expected.items():
        assert await _balance(daemon, token_id, owner) == amount


async def _balance(daemon: Daemon, token: TokenId, owner: str) -> int:
    chain = daemon.chain(token.chain)
    amount = await chain.read(token.address, "balanceOf(address)", ["uint256"], owner)
    return int(amount)


async def _check_legs(client: Client, ids: dict[str, str]) -> None:
    """The matched pair used no pool; the split order's batch used several pools and the book."""
    batches = (await client.ask("GET", "/v1/batches", v1.BatchPage)).batches
    assert batches
    for batch in batches:
        assert float(batch.certificate.value) <= float(batch.certificate.bound) + 1e-6
        whole = sum(float(bundle.profit) for bundle in batch.bundles)
        assert abs(whole - float(batch.profit)) < 1e-5
    split = next(b for b in batches if ids["split over pools"] in _filled(b))
    pools = {pool for pool in split.pools if "pairs" in pool}
    assert len(pools) >= 2
    assert any(pool.startswith("book:") for pool in split.pools)
    match = next(b for b in batches if ids["match, one side"] in _filled(b))
    assert ids["match, other side"] in _filled(match)


def _check_recorded(daemon: Daemon, directory: Path) -> None:
    """Every batch is a file that `thalweg solve` solves again to the unit."""
    for batch in daemon.ledger.book.batches.values():
        path = directory / "batches" / f"{batch.id[2:18]}.json"
        result = CliRunner().invoke(app, ["solve", str(path), "--json"])
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout)
        fills = {(f["digest"], f["sell"], f["buy"], f["fee"]) for f in answer["fills"]}
        made = {(f.digest, str(f.sell), str(f.buy), str(f.fee)) for f in batch.solution.fills}
        assert fills == made


def _filled(batch: v1.BatchView) -> set[str]:
    return {digest for bundle in batch.bundles for digest in bundle.intents}

"""The demo from end to end: every case shows what it is for, and balances agree to the unit."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
        await _check_routes(client, rows)
        assert max(map(len, demo.as_text(rows, 80).splitlines())) <= 80
        assert all(row.id and row.route == "" for row in rows if not row.bought)
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


async def _check_routes(client: Client, rows: Sequence[demo.Shown]) -> None:
    """What each row says of its way is what the legs of its batch were, and every kind occurs."""
    batches = (await client.ask("GET", "/v1/batches", v1.BatchPage)).batches
    assert batches
    for batch in batches:
        assert float(batch.certificate.value) <= float(batch.certificate.bound) + 1e-6
        whole = sum(float(bundle.profit) for bundle in batch.bundles)
        assert abs(whole - float(batch.profit)) < 1e-5
    routes = [row.route for row in rows if row.state == "settled"]
    assert all(routes)
    for kind in ("matched without a pool", "split over", "two", "order book", "from inventory"):
        assert any(kind in route for route in routes), (kind, routes)
    by_name = {row.case.name: row for row in rows}
    for row in rows:
        if row.bought:
            _check_route(row, (await client.intent(row.id)).route)
    split = next(b for b in batches if by_name["split over pools"].id in _filled(b))
    pools = {pool for pool in split.pools if "pairs" in pool}
    assert len(pools) >= 2
    assert any(pool.startswith("book:") for pool in split.pools)
    match = next(b for b in batches if by_name["match, one side"].id in _filled(b))
    assert by_name["match, other side"].id in _filled(match)
    # The two tokens are in no pool of that chain, so only each other could have filled them.
    graph = await client.ask("GET", "/v1/graph", v1.GraphView)
    pair = (await client.intent(by_name["match, one side"].id)).swap
    for token in (pair.sell_asset, pair.buy_asset):
        assert not any(f"{pair.sell_chain}:0x{token[-40:]}" in pool.tokens for pool in graph.pools)
    assert by_name["match, one side"].route == "matched without a pool"


def _check_route(row: demo.Shown, hops: Sequence[v1.HopView]) -> None:
    pools = {hop.pool for hop in hops} - {v1.MATCHED, v1.INVENTORY}
    assert ("matched" in row.route) == ({hop.pool for hop in hops} == {v1.MATCHED})
    assert ("inventory" in row.route) == any(hop.pool == v1.INVENTORY for hop in hops)
    assert ("order book" in row.route) == any(pool.startswith("book:") for pool in pools)
    assert ("through one pool" in row.route) == (len(pools) == 1 and "book" not in row.route)
    if "split" in row.route:
        assert len(pools) >= 2


def _check_recorded(daemon: Daemon, directory: Path) -> None:
    """Every batch is a file that `thalweg solve` solves again to the unit, and replays."""
    for batch in daemon.ledger.book.batches.values():
        path = directory / "batches" / f"{batch.id[2:18]}.json.zst"
        again = CliRunner().invoke(app, ["replay", str(path), "--json"])
        assert again.exit_code == 0, again.stdout
        assert json.loads(again.stdout)["differs"] == ""
        result = CliRunner().invoke(app, ["solve", str(path), "--json"])
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout)
        fills = {(f["digest"], f["sell"], f["buy"], f["fee"]) for f in answer["fills"]}
        made = {(f.digest, str(f.sell), str(f.buy), str(f.fee)) for f in batch.solution.fills}
        assert fills == made


def _filled(batch: v1.BatchView) -> set[str]:
    return {digest for bundle in batch.bundles for digest in bundle.intents}

"""An operator's set-up: chains by RPC URL, addresses in the config, keys in keystores."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from eth_account import Account

from solver import devnet
from solver.client import Client
from solver.config import parse
from solver.core.types import Kind
from solver.daemon import Daemon
from solver.service import serving
from solver.startup import StartError, running
from solver.wire import v1
from tests.e2e.make import eventually

pytestmark = pytest.mark.xdist_group("daemon")
_MNEMONIC = "test test test test test test test test test test test junk"
_CHAINS = ((31337, 0), (31338, 0))


def _keystore(path: Path, number: int, password: str) -> Path:
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(_MNEMONIC, account_path=f"m/44'/60'/0'/0/{number}")
    path.write_text(json.dumps(Account.encrypt(account.key, password, iterations=2)))
    return path


def _config(directory: Path, deployments: dict[int, devnet.Deployment]) -> str:
    solver = _keystore(directory / "solver.json", devnet.SOLVER, "one")
    attester = _keystore(directory / "attester.json", devnet.ATTESTER, "two")
    lines = [
        f'[storage]\ndirectory = "{directory}/data"\n[server]\nport = 0',
        "[batch]\ntick_seconds = 0.1\nconfirmations = 1\npoll_seconds = 0.1",
        "[limits]\nvenue_timeout_seconds = 60.0\nrpc_timeout_seconds = 60.0",
        f'[solver]\nkeystore = "{solver}"\nattester_keystore = "{attester}"',
        '[prices.usd]\nWETH = "2500"\nUSDC = "1"',
    ]
    for chain, deployment in deployments.items():
        names = deployment.addresses
        other = next(number for number in deployments if number != chain)
        lines.append(
            f'[[chain]]\nchain_id = {chain}\nrpc_url = "{deployment.url}"\n'
            f'settlement = "{names["settlement"]}"'
        )
        for symbol, decimals in (("WETH", 18), ("USDC", 6)):
            lines.append(
                f'[[token]]\nsymbol = "{symbol}"\nchain = {chain}\ndecimals = {decimals}\n'
                f'address = "{names[symbol]}"'
            )
        lines.append(
            f'[[venue]]\nname = "pairs-{chain}"\nkind = "constant_product"\nchain = {chain}\n'
            f'options.pairs = ["{names["WETH-USDC-30"]}"]'
        )
        lines.append(
            f'[[venue]]\nname = "bridge-{chain}"\nkind = "bridge"\nchain = {chain}\n'
            f'options.bridge = "{names["bridge"]}"\noptions.to_chain = {other}\n'
            f'options.tokens = ["{names["USDC"]}"]'
        )
    return "\n".join(lines)


async def test_chains_by_url_and_keys_by_keystore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aiohttp.ClientSession() as session:
        deployments, _ = await devnet.attach_or_start(_CHAINS, tmp_path / "chains", session, 120)
        try:
            config = parse(_config(tmp_path, deployments))
            with pytest.raises(StartError, match="THALWEG_ATTESTER_PASSWORD"):
                async with running(config):
                    raise AssertionError("it started without a password")
            monkeypatch.setenv("THALWEG_KEYSTORE_PASSWORD", "wrong")
            monkeypatch.setenv("THALWEG_ATTESTER_PASSWORD", "two")
            with pytest.raises(StartError, match="cannot be unlocked"):
                async with running(config):
                    raise AssertionError("it started with a wrong password")
            monkeypatch.setenv("THALWEG_KEYSTORE_PASSWORD", "one")
            async with serving(config) as (daemon, url):
                assert daemon.deployments == {}
                view = await _trade(Client(url, session), deployments)
                escrows = await eventually(lambda: _open_escrows(daemon), lambda seen: seen == 0)
                assert (view.state, escrows) == ("settled", 0)
        finally:
            devnet.stop(deployments)


async def _trade(client: Client, deployments: dict[int, devnet.Deployment]) -> v1.IntentView:
    draft = v1.Draft(
        owner=devnet.user(0).address,
        sell_chain=31337,
        sell_asset=deployments[31337].addresses["USDC"],
        buy_chain=31338,
        buy_asset=deployments[31338].addresses["USDC"],
        kind=Kind.EXACT_IN,
        sell_amount=str(10**9),
        slippage_bps=100,
    )
    view = await client.submit((await client.draft(draft)).swap, devnet.user(0))
    return await eventually(lambda: client.intent(view.id), lambda seen: seen.state == "settled")


async def _open_escrows(daemon: Daemon) -> int:
    return daemon.escrows.count

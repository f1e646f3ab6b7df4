"""The command line against a running daemon, as the README's tour has it, and what is not there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from typer.testing import CliRunner, Result

from solver import devnet
from solver.cli import app
from solver.config import DEFAULT_PATH
from tests.e2e.make import PATIENCE_SECONDS

pytestmark = pytest.mark.xdist_group("daemon")
ROOT = Path(__file__).resolve().parents[2]
_COMMAND_SECONDS = 300.0


def thalweg(*arguments: str, url: str = "", cwd: Path | None = None) -> Any:
    """One command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "solver", *arguments],
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"THALWEG_URL": url} if url else {})},
    )


def inside(*arguments: str, url: str = "") -> Result:
    """The same in this process, which saves the imports."""
    return CliRunner().invoke(app, arguments, env={"THALWEG_URL": url} if url else {})


def config_file(directory: Path, **replaced: str) -> Path:
    """The shipped config with a free port, a directory of its own and other changes."""
    text = DEFAULT_PATH.read_text(encoding="utf-8")
    changes = {
        'directory = "data"': f'directory = "{directory}/data"',
        "port = 8645": "port = 0",
        "venue_timeout_seconds = 2.0": "venue_timeout_seconds = 60.0",
        "rpc_timeout_seconds = 5.0": "rpc_timeout_seconds = 60.0",
        "solve_timeout_seconds = 10.0": "solve_timeout_seconds = 60.0",
    }
    for old, new in {**changes, **replaced}.items():
        assert old in text
        text = text.replace(old, new, 1)
    path = directory / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("run")
    path = config_file(directory)
    with subprocess.Popen(
        [sys.executable, "-m", "solver", "run", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"http://\S+", first)
        assert found, first
        yield found.group()
        deployments = devnet.read_run_file(directory / "data" / "devnet.json")
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        assert process.wait(timeout=_COMMAND_SECONDS) == 0
        assert "accounts to play with" in said
        assert f"next: {sys.executable} -m solver submit" in said
    for deployment in deployments.values():
        port = int(deployment.url.rsplit(":", 1)[1])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, "a chain outlived its daemon"


def test_the_tour_of_the_readme(url: str) -> None:
    tour = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line.split()[1:] for block in tour for line in block.splitlines()
                if line.startswith("thalweg ")]  # fmt: skip
    assert len(commands) >= 6
    identity, outputs = "", []
    for command in commands:
        words = [identity if word == "ID" else word for word in command]
        answer = thalweg(*words, url=url)
        assert answer.returncode in (0, 1), (words, answer.stderr)
        if words[0] == "submit":
            assert answer.returncode == 0, answer.stderr
            identity = answer.stdout.split()[0]
        outputs.append(answer.stdout)
    text = "\n".join(outputs)
    assert "settled  sold 1000000000000000000" in text, text
    assert "cancelled" in text


def test_every_command_speaks_json(url: str) -> None:
    asked = ("--sell", "WBTC", "--buy", "USDC", "--amount", "0.5", "--json")
    quote = inside("quote", *asked, url=url)
    assert quote.exit_code == 0, quote.stderr
    assert json.loads(quote.stdout)["filled"] is True
    options = ("--sell", "WETH", "--buy", "USDC", "--amount", "1", "--limit", "9000", "--json")
    submitted = json.loads(inside("submit", *options, url=url).stdout)
    identity = submitted["id"]
    status = inside("status", identity, "--json", url=url)
    assert (status.exit_code, json.loads(status.stdout)["state"]) == (1, "open")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        told = json.loads(inside("explain", identity, "--json", url=url).stdout)
        if told["reason"] is not None or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert told["reason"]["code"] == "limit_out_of_reach"
    cancelled = json.loads(inside("cancel", identity, "--json", url=url).stdout)
    assert cancelled["state"] == "cancelled"
    venues = json.loads(inside("venues", "--json", url=url).stdout)
    assert {venue["reason"] for venue in venues} == {""}
    assert json.loads(inside("check-config", "--json").stdout)["ok"] is True


def test_what_is_refused_is_one_line_and_exit_2(url: str, tmp_path: Path) -> None:
    base = ("submit", "--buy", "USDC", "--amount")
    cases = [
        (*base, "1", "--sell", "NOPE"),
        (*base, "1_0", "--sell", "WETH"),
        (*base, "-1", "--sell", "WETH"),
        (*base, "0", "--sell", "WETH"),
        (*base, "1", "--sell", "WETH", "--account", "99"),
        (*base, "1", "--sell", "WETH", "--limit", "0"),
        ("status", "0x12"),
        ("status", "../info"),
        ("status", ".."),
        ("cancel", "a b/c?x#y"),
    ]
    for case in cases:
        answer = inside(*case, "--json", url=url)
        assert answer.exit_code == 2, (case, answer.stdout, answer.stderr)
        assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
        problem = json.loads(answer.stdout)
        assert problem["code"] in answer.stderr or problem["detail"] in answer.stderr
        if case[0] != "submit":
            assert problem["code"] == "not_found", case
    path = config_file(tmp_path, **{"tick_seconds = 0.5": "tick_second = 0.5"})
    for command in (("check-config", str(path)), ("run", "--config", str(path))):
        answer = inside(*command)
        assert answer.exit_code == 2
        expected = r"config.toml:\d+: batch.tick_second: unknown key; did you mean tick_seconds"
        assert re.search(expected, answer.stderr)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("options.book = ", "options.boook = ", r"venue.1.options.boook: unknown option 'boook'"),
        ('kind = "order_book"', 'kind = "order_bok"', r"venue.1.kind: .* did you mean order_book"),
        ('"devnet:WETH"', '"devnet:NOPE"', r"token.0.address: .* no contract 'NOPE'"),
    ],
)
def test_run_and_check_config_find_the_same(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = config_file(tmp_path, **{old: new})
    for command in (("check-config", str(path)), ("run", "--config", str(path))):
        answer = inside(*command)
        assert answer.exit_code == 2
        assert re.search(rf"config.toml:[1-9]\d*: {expected}", answer.stderr)
    assert not (tmp_path / "data").exists(), "something was started"


def test_what_is_not_there_is_one_line_and_exit_3(tmp_path: Path) -> None:
    answer = thalweg("venues", url="http://127.0.0.1:1")
    assert (answer.returncode, answer.stderr.count("\n")) == (3, 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = config_file(tmp_path)
        path.write_text(path.read_text().replace("port = 0", f"port = {port}", 1))
        answer = thalweg("run", "--config", str(path))
    assert answer.returncode == 3, answer.stderr
    assert f"cannot listen on 127.0.0.1:{port}" in answer.stderr.splitlines()[-1]


def test_an_unreachable_rpc_is_named(tmp_path: Path) -> None:
    keystore = tmp_path / "key.json"
    keystore.write_text(json.dumps(Account.encrypt(bytes([7]) * 32, "secret", iterations=2)))
    path = tmp_path / "config.toml"
    path.write_text(
        f'[storage]\ndirectory = "{tmp_path}/data"\n[solver]\nkeystore = "{keystore}"\n'
        "[batch]\nconfirmations = 2\n"
        '[prices.usd]\nWETH = "2500"\n[[chain]]\nchain_id = 1\nrpc_url = "http://127.0.0.1:1"\n'
        f'settlement = "0x{"11" * 20}"\n'
    )
    answer = thalweg("run", "--config", str(path))
    assert answer.returncode == 3
    assert "chain 1: 127.0.0.1: Connect" in answer.stderr.splitlines()[-1]
    assert "secret" not in answer.stderr


def test_a_missing_anvil_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devnet, "_PACKAGED", Path("nowhere/anvil"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(devnet.DevnetError, match="make setup"):
        devnet.find_anvil()
    fake = tmp_path / "anvil"
    fake.write_text("#!/bin/sh\necho anvil Version: 0.2.0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(devnet.DevnetError, match=r"version 0\.2\.0"):
        devnet.find_anvil()
    fake.write_text("#!/bin/sh\necho anvil Version: 1.9.0\n")
    assert devnet.find_anvil() == str(fake)


async def test_chains_outlive_a_killed_daemon(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        chains = ((31337, 0), (31338, 0))
        first, attached = await devnet.attach_or_start(chains, tmp_path, session, 30)
        second, again = await devnet.attach_or_start(chains, tmp_path, session, 30)
        assert (attached, again, first == second) == (False, True, True)
        devnet.stop(first)
        await asyncio.sleep(0)
        third, renewed = await devnet.attach_or_start(chains, tmp_path, session, 30)
        assert (renewed, third == first) == (False, False)
        devnet.stop(third)

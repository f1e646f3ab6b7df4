"""Local chains that a kill left behind."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec
import pytest

from solver import devnet
from solver.chain import Rpc, Unreachable
from tests.e2e.make import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.xdist_group("daemon")


async def _answers(rpc: Rpc) -> bool:
    try:
        await rpc.call("eth_chainId")
    except Unreachable:
        return False
    return True


async def test_an_anvil_that_was_started_just_before_a_kill_is_ended(tmp_path: Path) -> None:
    """The run file knows the port but not yet the process."""
    async with aiohttp.ClientSession() as session:
        chains, _ = await devnet.attach_or_start(
            [(31_339, 0)], tmp_path, session, 2 * PATIENCE_SECONDS
        )
        try:
            rpc = Rpc(chains[31_339].url, session, 5)
            assert await _answers(rpc)
            devnet.stop({31_339: msgspec.structs.replace(chains[31_339], pid=0)})
            assert not await eventually(lambda: _answers(rpc), lambda answers: not answers)
        finally:
            devnet.stop(chains)

"""The operator's fees on a chain: as they were quoted, swept to the recipient, in the record."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from solver import devnet
from solver.cli import app
from solver.config import FeeConfig
from solver.core.intent import digest_of
from solver.core.types import Fill, Kind, Solution, Swap, TokenId
from solver.daemon import Daemon
from solver.intake import blank_swap
from solver.startup import running
from solver.wire import v1
from tests.e2e.make import HERE, balance, config_in, record_of

pytestmark = pytest.mark.xdist_group("daemon")

FEES = FeeConfig(0.001, 0.25, 0.01, 0.5, 0.01, 0.0005)


async def recipient(daemon: Daemon) -> str:
    contract = daemon.world.contracts[HERE].settlement
    return str(await daemon.chain(HERE).read(contract, "feeRecipient()", ["address"]))


def order(daemon: Daemon, user: int, kind: Kind, nonce: int) -> Swap:
    """WETH for USDC, within 3 % of the reference price."""
    wallet = devnet.user(user)
    sold, bought = (
        TokenId(HERE, daemon.deployments[HERE].addresses[symbol]) for symbol in ("WETH", "USDC")
    )
    amounts = (10**18, 0) if kind is Kind.EXACT_IN else (0, 2_000 * 10**6)
    blank = blank_swap(
        wallet.address, wallet.address, sold, bought, kind, *amounts, False, nonce, 0
    )
    swap = daemon.intake.complete(blank, 900, 300)
    assert isinstance(swap, Swap), swap
    return swap


async def submitted(daemon: Daemon, user: int, swap: Swap) -> str:
    digest = digest_of(swap, daemon.world.contracts[HERE].settlement)
    signature = "0x" + devnet.user(user).sign_digest(bytes.fromhex(digest[2:])).hex()
    assert isinstance(await daemon.intake.submit(swap, signature), tuple)
    return digest


def fill_of(solution: Solution, digest: str) -> Fill:
    (fill,) = (fill for fill in solution.fills if fill.digest == digest)
    return fill


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_fill_pays_what_was_quoted_and_the_recipient_has_it(
    kind: Kind, tmp_path: Path
) -> None:
    async with running(replace(config_in(tmp_path), fees=FEES)) as daemon:
        token = "USDC" if kind is Kind.EXACT_IN else "WETH"
        swap = order(daemon, 1, kind, 1)
        quoted = await daemon.intake.quote(swap)
        assert isinstance(quoted, Solution)
        said = fill_of(quoted, digest_of(swap, daemon.world.contracts[HERE].settlement))
        assert min(said.charges.volume, said.charges.surplus, said.charges.solver) > 0
        assert said.charges.improvement == 0  # nobody else is in this batch

        target = await recipient(daemon)
        before = await balance(daemon, token, HERE, target)
        digest = await submitted(daemon, 1, swap)
        await daemon.tick()
        record = record_of(daemon, digest)
        assert record.state.value == "settled"
        view = v1.intent_view(record, daemon.ledger.book, {})
        (fill,) = view.fills
        taken = sum(
            int(getattr(fill.fees, name)) for name in ("volume", "surplus", "improvement", "solver")
        )
        assert taken == pytest.approx(said.charges.total, rel=1e-3)
        kept = await balance(daemon, token, HERE, target) - before
        gas = int(fill.fee) if kind is Kind.EXACT_IN else 0
        (batch,) = daemon.ledger.book.batches.values()  # whose dust is the pools' gas, and rounding
        dust = batch.solution.dust.get(str(swap.buy if kind is Kind.EXACT_IN else swap.sell), 0)
        assert kept == taken + gas + dust

        (file,) = (tmp_path / "batches").glob("*.json.zst")
        assert CliRunner().invoke(app, ["replay", str(file)]).exit_code == 0

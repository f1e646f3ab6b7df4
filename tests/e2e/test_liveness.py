"""One intent, one chain or one transaction may fail; everybody else is settled all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from msgspec.structs import replace

from solver import devnet, startup
from solver.chain import Refusal, Unreachable
from solver.core.abi import encode_call
from solver.core.journal import Bundled, IntentRecord
from solver.core.lifecycle import BundleState
from solver.core.types import Intent, Solution, TokenId
from solver.core.venue import Pool, Reader, Venue
from solver.daemon import Daemon
from solver.market import build_venue
from solver.service import serving
from solver.settler import Blame, blame_of
from solver.startup import running
from tests.bad_pools import BadPool
from tests.e2e.make import (
    HERE,
    PATIENCE_SECONDS,
    THERE,
    balance,
    cancel,
    config_in,
    eventually,
    give,
    record_of,
    states_of,
    submit,
    ticks,
    transact,
)
from tests.make import pair

pytestmark = pytest.mark.xdist_group("daemon")


def after_solving(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], times: int = 1
) -> None:
    """Do something between the answer of the solver and its use."""
    solve, left = daemon.worker.solve, [times]

    async def solve_and_act(*arguments: Any) -> Solution:
        solution = await solve(*arguments)
        if left[0] > 0:
            left[0] -= 1
            await act()
        return solution

    monkeypatch.setattr(daemon.worker, "solve", solve_and_act)


async def revoke(daemon: Daemon, user: int) -> None:
    data = encode_call("approve(address,uint256)", daemon.world.contracts[HERE].holder, 0)
    token = daemon.deployments[HERE].addresses["WETH"]
    await transact(daemon, HERE, devnet.user(user).address, token, data)


async def test_a_cancellation_while_its_batch_is_solved_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        hasty, other = await submit(daemon, 0), await submit(daemon, 1)
        after_solving(daemon, monkeypatch, lambda: cancel(daemon, 0, hasty))
        await daemon.tick()
        assert states_of(daemon, hasty, other) == ["cancelled", "settled"]


async def test_a_cancellation_while_its_bundle_is_simulated_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        hasty, other = await submit(daemon, 0), await submit(daemon, 1)
        check = daemon.settler.check
        seen: list[str] = []

        async def check_and_cancel(bundle: Bundled) -> Blame | int:
            answer = await check(bundle)
            if not seen:
                seen.append(bundle.id)
                await cancel(daemon, 0, hasty)
            return answer

        monkeypatch.setattr(daemon.settler, "check", check_and_cancel)
        await daemon.tick()
        assert states_of(daemon, hasty, other) == ["cancelled", "settled"]


async def test_an_intent_may_be_cancelled_over_the_door_and_on_chain_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        digest = await submit(daemon, 0)
        data = encode_call("cancel(bytes32)", bytes.fromhex(digest[2:]))
        settlement = daemon.world.contracts[HERE].settlement
        await transact(daemon, HERE, devnet.user(0).address, settlement, data)
        orders = daemon.chain(HERE).orders

        async def orders_and_cancel(*arguments: Any) -> list[tuple[bool, int]]:
            flags = await orders(*arguments)
            await cancel(daemon, 0, digest)
            return flags

        monkeypatch.setattr(daemon.chain(HERE), "orders", orders_and_cancel)
        await daemon.tick()
        assert record_of(daemon, digest).code == "cancelled_by_owner"


async def test_an_allowance_revoked_in_mid_tick_costs_the_others_no_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token's own error names nobody, so all are suspects and are tried in halves."""
    async with running(config_in(tmp_path)) as daemon:
        evil = await submit(daemon, 0)
        crowd = [await submit(daemon, 1 + n % 4) for n in range(4)]
        after_solving(daemon, monkeypatch, lambda: revoke(daemon, 0))
        await daemon.tick()
        late = await submit(daemon, 5)
        await daemon.tick()
        assert states_of(daemon, late) == ["settled"]
        await ticks(daemon, 4)
        assert states_of(daemon, *crowd) == ["settled"] * 4
        assert record_of(daemon, evil).reason is not None
        assert states_of(daemon, evil) == ["open"]


async def test_a_bundle_that_reverts_on_chain_holds_back_only_its_culprit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passed the simulation and failed when it was mined."""
    async with running(config_in(tmp_path)) as daemon:
        evil, good = await submit(daemon, 0), await submit(daemon, 1)
        after_solving(daemon, monkeypatch, lambda: revoke(daemon, 0))
        check = daemon.settler.check
        asked: list[str] = []

        async def too_early(bundle: Bundled) -> Blame | int:
            asked.append(bundle.id)
            return 2_000_000 if len(asked) <= 2 else await check(bundle)

        monkeypatch.setattr(daemon.settler, "check", too_early)
        await daemon.tick()
        (record,) = daemon.ledger.book.bundles.values()
        assert (record.state, states_of(daemon, evil, good)) == (
            BundleState.REVERTED,
            ["open", "open"],
        )
        await ticks(daemon, 2)
        assert states_of(daemon, evil, good) == ["open", "settled"]


async def test_a_suspect_that_can_never_be_filled_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        honest = await submit(daemon, 0)

        async def refuse(bundle: Bundled) -> Blame:
            return Blame("execution reverted: the price has moved")

        with monkeypatch.context() as patch:
            patch.setattr(daemon.settler, "check", refuse)
            await daemon.tick()
        solve = daemon.worker.solve

        async def too_dear(
            snapshot: Any, intents: tuple[Intent, ...], terms: Any, limit: float
        ) -> Solution:
            if any(intent.digest == honest for intent in intents):
                terms = replace(terms, fees={**terms.fees, honest: 10**30})
            return await solve(snapshot, intents, terms, limit)

        monkeypatch.setattr(daemon.worker, "solve", too_dear)
        good = [await submit(daemon, number) for number in (1, 2)]
        await ticks(daemon, 3)
        assert states_of(daemon, honest, *good) == ["open", "settled", "settled"]


async def test_a_named_culprit_is_left_out_and_at_last_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner who got code after signing: the daemon accepts the order, the contract does not."""
    config = config_in(tmp_path, tick_seconds=0.01, max_failures=3)
    async with running(config) as daemon:
        culprit, good = await submit(daemon, 0), await submit(daemon, 1)
        rpc = daemon.chain(HERE).rpc
        token = daemon.deployments[HERE].addresses["WETH"]
        code = await rpc.call("eth_getCode", token, "latest")
        await rpc.call("anvil_setCode", devnet.user(0).address, code)
        await daemon.tick()
        assert states_of(daemon, culprit, good) == ["open", "settled"]

        async def ticked() -> IntentRecord:
            await daemon.tick()
            return record_of(daemon, culprit)

        record = await eventually(ticked, lambda seen: seen.is_final)
        assert (record.state.value, record.code) == ("refused", "refused_by_contract")
        assert "BadSignature" in record.detail


async def test_a_receiver_who_cannot_be_paid_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle with the payment names nobody and moves nobody's tokens but the solver's."""
    async with running(config_in(tmp_path)) as daemon:
        bad = await submit(daemon, 0, ("WETH", HERE), ("USDC", THERE))
        good = [await submit(daemon, 1), await submit(daemon, 2)]
        check = daemon.settler.check

        async def refuse(bundle: Bundled) -> Blame | int:
            if bundle.payments:
                return Blame("execution reverted: account is blacklisted")
            return await check(bundle)

        monkeypatch.setattr(daemon.settler, "check", refuse)
        await daemon.tick()
        assert states_of(daemon, bad, *good) == ["open", "settled", "settled"]


async def test_orders_that_rest_do_not_fill_every_batch(tmp_path: Path) -> None:
    async with running(config_in(tmp_path, max_intents=3)) as daemon:
        resting = [await submit(daemon, 0, amount=10**15 + n, limit=10**12) for n in range(3)]
        good = await submit(daemon, 1)
        await daemon.tick()
        reason = record_of(daemon, good).reason
        assert reason is not None
        assert reason.code == "batch_full"
        await daemon.tick()
        assert states_of(daemon, good, *resting) == ["settled", *["open"] * 3]


async def test_directions_across_chains_take_turns(tmp_path: Path) -> None:
    async with running(config_in(tmp_path)) as daemon:
        old = await submit(daemon, 0, ("USDC", HERE), ("USDC", THERE), 10**9, limit=2 * 10**9)
        good = await submit(daemon, 1, ("USDC", THERE), ("USDC", HERE), 10**9)
        await daemon.tick()
        reason = record_of(daemon, good).reason
        assert reason is not None
        assert reason.code == "other_direction"
        await daemon.tick()
        assert states_of(daemon, old, good) == ["open", "settled"]


async def test_the_other_chain_goes_on_when_one_is_silent(tmp_path: Path) -> None:
    async with running(config_in(tmp_path)) as daemon:
        good = await submit(daemon, 1)
        far = await submit(daemon, 2, ("USDC", HERE), ("USDC", THERE), 10**9)
        rpc = daemon.chain(THERE).rpc
        url, rpc.url = rpc.url, "http://127.0.0.1:1/"
        await daemon.tick()
        assert states_of(daemon, good, far) == ["settled", "open"]
        assert daemon.market.snapshot is not None
        assert f"chain {THERE}" in daemon.market.snapshot.excluded
        reason = record_of(daemon, far).reason
        assert reason is not None
        assert reason.code == "chain_unreachable"
        rpc.url = url
        await daemon.tick()
        assert states_of(daemon, far) == ["settled"]


async def test_a_moment_of_silence_is_tried_again_on_an_idle_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        digest = await submit(daemon, 0)

        async def silent(bundle: Bundled) -> int:
            raise Unreachable("a blip")

        with monkeypatch.context() as patch:
            patch.setattr(daemon.settler, "check", silent)
            with pytest.raises(Unreachable):
                await daemon.tick()
        await daemon.tick()
        assert states_of(daemon, digest) == ["settled"]


async def test_a_node_that_tells_no_fees_costs_one_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        digest, rpc = await submit(daemon, 0), daemon.chain(HERE).rpc
        batch = rpc.batch

        async def without_block(calls: Any) -> list[Any]:
            answers = await batch(calls)
            if any(method == "eth_maxPriorityFeePerGas" for method, _ in calls):
                answers[0] = None
            return answers

        with monkeypatch.context() as patch:
            patch.setattr(rpc, "batch", without_block)
            await daemon.tick()
        assert states_of(daemon, digest) == ["open"]
        await submit(daemon, 1)
        await daemon.tick()
        assert states_of(daemon, digest) == ["settled"]


async def test_a_transaction_that_is_not_mined_is_outbid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path, bump_seconds=0.3)) as daemon:
        digest, chain = await submit(daemon, 0), daemon.chain(HERE)
        sent: list[str] = []
        send = chain.send

        async def first_is_ignored(raw: str) -> str:
            sent.append(raw)
            return "" if raw == sent[0] else await send(raw)

        monkeypatch.setattr(chain, "send", first_is_ignored)
        await daemon.tick()
        (record,) = daemon.ledger.book.bundles.values()
        assert (states_of(daemon, digest), record.state) == (["settled"], BundleState.CONFIRMED)
        assert (len(record.earlier), record.cancelling) == (1, ())
        old, new = (TypedTransaction.from_bytes(HexBytes(r)).as_dict() for r in (sent[0], sent[-1]))
        assert old["nonce"] == new["nonce"]
        for name in ("maxFeePerGas", "maxPriorityFeePerGas"):
            assert new[name] * 8 >= old[name] * 9


async def test_an_expired_transaction_gives_its_nonce_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain has it and does not mine it; past its deadline the contract would refuse it."""
    config = config_in(tmp_path, bundle_lifetime_seconds=4, watch_seconds=1.0)
    async with running(config) as daemon:
        digest, chain = await submit(daemon, 0), daemon.chain(HERE)
        far = await submit(daemon, 1, ("USDC", THERE), ("WETH", THERE), 10**9)
        sent: list[str] = []
        send = chain.send

        async def first_is_ignored(raw: str) -> str:
            sent.append(raw)
            return "" if raw == sent[0] else await send(raw)

        monkeypatch.setattr(chain, "send", first_is_ignored)
        await daemon.tick()
        assert states_of(daemon, digest, far) == ["batched", "settled"]  # one chain waits alone
        (bundle,) = (r.bundle for r in daemon.ledger.book.bundles.values() if r.is_pending)

        async def mined() -> int:
            await chain.mine()
            return (await chain.head()).timestamp

        async def ticked() -> list[str]:
            await daemon.tick()
            return states_of(daemon, digest)

        assert await eventually(mined, lambda at: at > bundle.deadline) > bundle.deadline
        assert await eventually(ticked, lambda seen: seen == ["settled"]) == ["settled"]
        first = next(r for r in daemon.ledger.book.bundles.values() if r.bundle.chain == HERE)
        assert (first.state, len(first.cancelling)) == (BundleState.DROPPED, 1)
        assert states_of(daemon, digest) == ["settled"]


async def test_a_stop_does_not_wait_for_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config_in(tmp_path, watch_seconds=10 * PATIENCE_SECONDS)) as daemon:
        digest = await submit(daemon, 0)

        async def ignored(raw: str) -> str:
            return ""

        async def states() -> list[str]:
            return states_of(daemon, digest)

        monkeypatch.setattr(daemon.chain(HERE), "send", ignored)
        stop = asyncio.Event()
        task = asyncio.create_task(daemon.run(stop))
        assert await eventually(states, lambda seen: seen == ["batched"]) == ["batched"]
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        (record,) = daemon.ledger.book.bundles.values()
        assert record.is_pending


async def test_no_key_in_a_url_is_told_to_anybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_in(tmp_path)
    key = "SECRETKEY123"
    async with serving(config) as (daemon, url), aiohttp.ClientSession() as session:
        digest = await submit(daemon, 0, limit=10**12)
        chain = daemon.chain(HERE)
        chain.rpc.url = f"http://127.0.0.1:1/v3/{key}"
        await asyncio.sleep(0.4)
        bodies = ""
        for path in ("ready", "venues", "intents", f"intents/{digest}", "settlements"):
            async with session.get(f"{url}/v1/{path}") as answer:
                bodies += await answer.text()
        with pytest.raises(Unreachable) as caught:
            await chain.head()
    bodies += str(caught.value) + "".join(capsys.readouterr())
    bodies += (tmp_path / "ledger.db").read_bytes().decode(errors="replace")
    assert "127.0.0.1" in bodies
    assert key not in bodies


async def test_a_lying_venue_answers_for_it_and_not_the_orders(tmp_path: Path) -> None:
    """It quotes a pair without the pair's fee: every bundle that uses it fails."""
    base = config_in(tmp_path)
    honest = next(venue for venue in base.venue if venue.name == "pairs")
    options = {"pairs": ["devnet:WETH-USDC-30"], "fee_bps": 0}
    liar = replace(honest, name="liar", options=options)
    async with running(replace(base, venue=(*base.venue, liar))) as daemon:
        digest = await submit(daemon, 0, amount=5 * 10**18)
        await daemon.tick()
        assert states_of(daemon, digest) == ["settled"]
        said = {status.name: status.reason for status in daemon.market.statuses}
        assert said.pop("liar").startswith("a bundle failed with it and not without it")
        assert not any(said.values())
        later = await submit(daemon, 1, amount=5 * 10**18)
        await daemon.tick()
        assert states_of(daemon, later) == ["settled"]


async def test_a_venue_whose_pools_break_in_the_solver_stops_no_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Breaking:
        """A venue whose pool is sound in small and raises in large."""

        name, chain = "breaking", HERE

        async def pools(self, reader: Reader) -> list[Pool]:
            sold, bought = (self.addresses[symbol] for symbol in ("WETH", "USDC"))
            ends = TokenId(HERE, sold), TokenId(HERE, bought)
            return [BadPool("raise", pool=pair("bad", *ends, 10**20, 10**12))]

        def __init__(self, addresses: Mapping[str, str]) -> None:
            self.addresses = addresses

    def building(name: str, *rest: Any) -> Venue:
        return Breaking(rest[-1]) if name == "breaking" else build_venue(name, *rest)

    monkeypatch.setattr(startup, "build_venue", building)
    base = config_in(tmp_path)
    breaking = replace(base.venue[0], name="breaking")
    async with running(replace(base, venue=(*base.venue, breaking))) as daemon:
        digest = await submit(daemon, 0, amount=2 * 10**19, limit=1)
        probe = daemon.intake.probe(record_of(daemon, digest).intent.swap)
        quoted = await daemon.intake.quote(probe.swap)
        assert isinstance(quoted, Solution) and quoted.fills
        assert not any(status.reason for status in daemon.market.statuses)
        await daemon.tick()
        assert states_of(daemon, digest) == ["settled"]
        said = {status.name: status.reason for status in daemon.market.statuses if status.reason}
        assert said == {"breaking": "bad: RuntimeError: boom"}


async def test_a_partial_order_above_its_owners_balance_takes_part_with_what_there_is(
    tmp_path: Path,
) -> None:
    async with running(config_in(tmp_path)) as daemon:
        held = await balance(daemon, "WETH", HERE, devnet.user(0).address)
        kept = 3 * 10**17
        stranger = devnet.user(5).address
        await give(daemon, HERE, "WETH", devnet.user(0).address, stranger, held - kept)
        whole = await submit(daemon, 0, amount=10**18)
        partial = await submit(daemon, 0, amount=10**18, partial=True)
        await daemon.tick()
        record = record_of(daemon, partial)
        assert (record.sold, record.state.value) == (kept, "open")
        assert await balance(daemon, "WETH", HERE, devnet.user(0).address) == 0
        for digest in (whole, partial):
            reason = record_of(daemon, digest).reason
            assert reason is not None and reason.code == "insufficient_balance"


async def test_stale_prices_are_the_reason(tmp_path: Path) -> None:
    async with running(config_in(tmp_path)) as daemon:
        digest = await submit(daemon, 0)
        daemon.market.prices = replace(daemon.market.prices, updated_at=1.0)
        await daemon.tick()
        reason = record_of(daemon, digest).reason
        assert reason is not None
        assert (reason.code, reason.detail.startswith("older than")) == ("prices_stale", True)


def test_known_errors_of_tokens_are_words() -> None:
    owner, bundle = "0x" + "11" * 20, Bundled("b", "", "settle", HERE, "", "", 0, 0, 0.0)
    data = encode_call("ERC20InsufficientBalance(address,uint256,uint256)", owner, 1, 2)
    blame = blame_of(Refusal("execution reverted", data), bundle)
    assert blame.reason == f"execution reverted ERC20InsufficientBalance({owner}, 1, 2)"
    assert blame_of(Refusal("reverted", "0x12345678"), bundle).reason == "reverted 0x12345678"

"""The fence around adapters: whatever one does, only its own pools are missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from solver.chain import Unreachable
from solver.core.types import TokenId
from solver.core.venue import BlockRef, LevelsArc, Pool, Reader
from solver.market import Market, PriceList, Stake, VenueError, build_venue, installed_kinds
from tests.bad_pools import BadPool
from tests.make import UNIT, A, B, pair

TIMEOUT_S = 1.5  # of a venue; long enough for a good one on a busy machine
BLOCK = BlockRef(1, 7, "0x" + "ab" * 32, 1_000)


class PinnedNowhere:
    """A reader of a block that nobody asks anything about."""

    block = BLOCK

    async def call(
        self, calls: Sequence[tuple[str, str]], code: Mapping[str, str] | None = None
    ) -> list[str]:
        raise AssertionError("not asked here")

    async def logs(self, address: str, topic: str, from_block: int) -> list[Any]:
        raise AssertionError("not asked here")


class QuietChain:
    """A chain without balances."""

    id = 1

    async def reader(self) -> PinnedNowhere:
        return PinnedNowhere()

    async def gas_price_wei(self) -> int:
        return 10**9

    async def balances(self, *arguments: Any) -> list[int]:
        return []


class SilentChain(QuietChain):
    """A chain whose endpoint does not answer."""

    id = 2

    async def reader(self) -> PinnedNowhere:
        raise Unreachable("the endpoint is down")


class Scripted:
    """A venue that does what the test says."""

    chain = 1

    def __init__(self, name: str, act: Any) -> None:
        self.name = name
        self.calls = 0
        self._act = act

    async def pools(self, reader: Reader) -> Sequence[Pool]:
        self.calls += 1
        found = self._act()
        return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]  # the script may return nonsense on purpose


class BadArcs:
    """A pool whose arc is no number."""

    id = "bad"
    tokens = (A, B)

    def swap(self, *arguments: Any) -> Any:
        raise AssertionError("not asked here")

    def encode(self, leg: Any) -> Any:
        raise AssertionError("not asked here")

    def arcs(self) -> list[LevelsArc]:
        return [LevelsArc(A, B, ((float("nan"), 1.0),))]


def good() -> list[Pool]:
    return [pair("good", A, B, UNIT, UNIT)]


def raises() -> list[Pool]:
    raise RuntimeError("the indexer is down")


def leaves() -> list[Pool]:
    raise SystemExit("goodbye")


def blocks() -> list[Pool]:
    time.sleep(2.5 * TIMEOUT_S)  # not awaited
    return good()


def unpicklable() -> list[Any]:
    class Local(BadPool, frozen=True):
        """A class that no other process can find."""

    return [Local("raise")]


FAR = TokenId(9, "0x" + "a" * 40)
NONSENSE: list[tuple[Any, str]] = [
    (raises, "RuntimeError: the indexer is down"),
    (lambda: asyncio.sleep(60), f"no answer within {TIMEOUT_S} s"),
    (blocks, f"no answer within {TIMEOUT_S} s"),
    (leaves, "SystemExit: goodbye"),
    (unpicklable, "no pickle"),
    (lambda: [BadPool("raise", threshold=0)], "RuntimeError: boom"),
    (lambda: [BadPool("loop", threshold=10**18)], f"no answer within {TIMEOUT_S} s"),
    (lambda: [BadPool("float", threshold=10**18)], "a swap of 1000000000000000000 gives"),
    (lambda: [BadPool("negative", threshold=10**18)], "gives"),
    (lambda: [BadPool("raise", id=7)], "is no text"),  # type: ignore[arg-type]  # on purpose
    (lambda: None, "TypeError"),
    (lambda: [object()], "object is not a pool"),
    (lambda: good() * 2, "occurs twice"),
    (lambda: [pair("p", A, A, 1, 1)], "does not name two tokens"),
    (lambda: [pair("p", A, FAR, 1, 1)], "another chain"),
    (lambda: [BadArcs()], "no number"),
]


def market(*venues: Scripted, prices_at: float | None = None) -> Market:
    listed = [("scripted", venue) for venue in venues]
    at = time.time() if prices_at is None else prices_at
    prices = PriceList("test", at, 60.0, {A: 1e-18})
    chain: Any = QuietChain()
    return Market({1: chain}, listed, prices, Stake("0x" + "00" * 20, {}, ()), TIMEOUT_S)


@pytest.mark.parametrize(("act", "reason"), NONSENSE)
async def test_a_bad_venue_is_left_out_with_its_reason(act: Any, reason: str) -> None:
    found = await market(Scripted("fine", good), Scripted("bad venue", act)).refresh()
    assert [pool.id for pool in found.pools] == ["good"]
    assert reason in found.excluded["bad venue"]
    assert "fine" not in found.excluded


async def test_a_silent_chain_is_left_out_with_its_venues() -> None:
    far = Scripted("far", good)
    far.chain = 2
    here: Any = QuietChain()
    silent: Any = SilentChain()
    venues = [("scripted", Scripted("fine", good)), ("scripted", far)]
    prices = PriceList("test", time.time(), 60.0, {A: 1e-18})
    read = Market({1: here, 2: silent}, venues, prices, Stake("0x" + "00" * 20, {}, ()), 0.05)
    found = await read.refresh()
    assert (set(found.blocks), [pool.id for pool in found.pools]) == ({1}, ["good"])
    assert found.excluded["chain 2"] == "the endpoint is down"
    assert "chain 2 does not answer" in found.excluded["far"]
    alone = Market({2: silent}, [], prices, Stake("0x" + "00" * 20, {}, ()), 0.05)
    with pytest.raises(Unreachable, match="the endpoint is down"):
        await alone.refresh()


async def test_a_venue_that_keeps_failing_is_paused() -> None:
    venue = Scripted("bad", raises)
    asked = market(venue)
    for _ in range(6):
        snapshot = await asked.refresh()
    assert venue.calls == 3
    assert snapshot.excluded["bad"] == (
        "paused, it failed 3 times: RuntimeError: the indexer is down"
    )


async def test_a_stuck_adapter_stops_nothing_and_is_asked_again_when_it_is_free() -> None:
    acts = iter([blocks, good, good, good, good, good, good, good])
    stuck = Scripted("stuck", lambda: next(acts)())
    asked = market(stuck)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    beating = asyncio.create_task(beat())
    await asked.refresh()
    assert beats > 5  # the loop of the daemon went on while the adapter slept
    snapshot = await asked.refresh()
    assert "still busy" in snapshot.excluded["stuck"]
    beating.cancel()
    await asyncio.sleep(2.0 * TIMEOUT_S)  # now it is free
    assert "stuck" not in (await asked.refresh()).excluded


async def test_a_looping_adapter_is_taken_out_of_its_loop() -> None:
    def loops() -> list[Pool]:
        while True:
            pass

    acts = iter([loops, good, good])
    asked = market(Scripted("loops", lambda: next(acts)()))
    await asked.refresh()
    await asked.refresh()  # notices that it is still busy
    await asyncio.sleep(0.1)
    assert "loops" not in (await asked.refresh()).excluded


async def test_what_shows_later_pauses_a_venue_longer_each_time() -> None:
    asked = market(Scripted("first", good))
    snapshot = await asked.refresh()
    assert asked.venues_of(["good", "unknown"]) == ["first"]
    assert asked.without(snapshot, ["first"], "why").pools == ()
    asked.doubt(["first"], "maybe")
    asked.doubt(["first"], "maybe")
    asked.trust(["good"])
    asked.doubt(["first"], "maybe")
    assert not (await asked.refresh()).excluded
    asked.accuse(["first"], "its quote is not what it does")
    assert asked.standing(snapshot).pools == ()
    assert asked.statuses[0].reason == "its quote is not what it does"
    said = "paused, it failed once: its quote is not what it does"
    assert (await asked.refresh()).excluded == {"first": said}


async def test_two_venues_cannot_claim_one_pool() -> None:
    snapshot = await market(Scripted("first", good), Scripted("second", good)).refresh()
    assert [pool.id for pool in snapshot.pools] == ["good"]
    assert snapshot.excluded["second"] == "pool id good belongs to venue first"


async def test_a_venue_with_a_foreign_pool_shows_why_it_is_left_out() -> None:
    asked = market(Scripted("first", good), Scripted("second", good))
    await asked.refresh()
    assert [(status.name, status.pools, bool(status.reason)) for status in asked.statuses] == [
        ("first", 1, False), ("second", 0, True),
    ]  # fmt: skip
    assert (asked.venue_of("good"), asked.venue_of("none")) == ("first", "")


async def test_stale_prices_value_nothing() -> None:
    snapshot = await market(Scripted("fine", good), prices_at=1.0).refresh()
    assert snapshot.prices == {}
    assert "older than" in snapshot.excluded["prices"]


async def test_the_hash_names_the_content() -> None:
    once, again = (
        await market(Scripted("a", good)).refresh(),
        await market(Scripted("a", good)).refresh(),
    )
    other = await market(Scripted("a", lambda: [pair("good", A, B, UNIT, 2 * UNIT)])).refresh()
    assert once.hash == again.hash != other.hash


def test_kinds_come_from_the_entry_points() -> None:
    assert {"constant_product", "order_book", "bridge"} <= set(installed_kinds())
    with pytest.raises(VenueError, match="not installed; there are"):
        build_venue("x", "nothing", 1, {}, {})
    with pytest.raises(VenueError, match="no such contract"):
        build_venue("x", "order_book", 1, {"book": "devnet:NOWHERE"}, {})
    with pytest.raises(VenueError, match="unknown option"):
        build_venue("x", "order_book", 1, {"book": "0x" + "11" * 20, "speed": 1}, {})

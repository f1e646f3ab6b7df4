"""The fence around adapters: whatever one does, only its own pools are missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from solver.core.types import TokenId
from solver.core.venue import BlockRef, LevelsArc, Pool, Reader
from solver.market import Market, PriceList, Stake, VenueError, build_venue, installed_kinds
from tests.make import UNIT, A, B, pair

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


FAR = TokenId(9, "0x" + "a" * 40)
NONSENSE: list[tuple[Any, str]] = [
    (raises, "RuntimeError: the indexer is down"),
    (lambda: asyncio.sleep(60), "no answer within 0.05 s"),
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
    return Market({1: chain}, listed, prices, Stake("0x" + "00" * 20, {}, ()), 0.05)


@pytest.mark.parametrize(("act", "reason"), NONSENSE)
async def test_a_bad_venue_is_left_out_with_its_reason(act: Any, reason: str) -> None:
    found = await market(Scripted("fine", good), Scripted("bad venue", act)).refresh()
    assert [pool.id for pool in found.pools] == ["good"]
    assert reason in found.excluded["bad venue"]
    assert "fine" not in found.excluded


async def test_a_venue_that_keeps_failing_is_paused() -> None:
    venue = Scripted("bad", raises)
    asked = market(venue)
    for _ in range(6):
        snapshot = await asked.refresh()
    assert venue.calls == 3
    assert "paused" in snapshot.excluded["bad"]


async def test_two_venues_cannot_claim_one_pool() -> None:
    snapshot = await market(Scripted("first", good), Scripted("second", good)).refresh()
    assert [pool.id for pool in snapshot.pools] == ["good"]
    assert "belongs to another venue" in snapshot.excluded["second"]


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

"""The door for a CoW Protocol driver: statuses, sizes, time, and what the ledger keeps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from solver.config import CowConfig
from solver.core.journal import AuctionRecord
from solver.ledger import Ledger
from tests.cow import Driver, opened
from tests.property.test_cow import auction as random_auction
from tests.unit.test_auctions import UID, auction

pytestmark = pytest.mark.asyncio(loop_scope="module")
_BODY = 20_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Driver]:
    config = CowConfig(max_body_bytes=_BODY, max_hops=2)
    async with opened(config, tmp_path_factory.mktemp("cow")) as found:
        yield found


def later(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat().replace("+00:00", "Z")


async def raw(driver: Driver, *parts: bytes) -> bytes:
    """What the door answers to these bytes, after which nothing more is sent."""
    host, port = driver.address
    reader, writer = await asyncio.open_connection(host, port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_an_auction_is_answered_and_kept(driver: Driver) -> None:
    for chunked in (True, False):
        status, answer = await driver.ask("/cow/solve", auction(), chunked=chunked)
        assert status == 200
        (found,) = answer["solutions"]
        assert list(answer) == ["solutions"]
        assert found["trades"][0]["order"] == UID.lower()
    record = driver.hall.ledger.book.auctions["7"]
    assert record.answer is not None
    assert json.loads(record.answer.solutions[0].document) == found
    assert record.answer.solutions[0].orders == (UID.lower(),)


async def test_a_quote_is_not_kept(driver: Driver) -> None:
    status, answer = await driver.ask("/cow/solve", {**auction(), "id": None})
    assert status == 200 and answer["solutions"]
    assert "" not in driver.hall.ledger.book.auctions


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"{", "application/json", "bad_json"),
        (b"", "application/json", "bad_json"),
        (b"{}", "text/plain", "wrong_media_type"),
        (b" " * (_BODY + 1), "application/json", "body_too_large"),
        (b" " * 10**7, "application/json", "body_too_large"),
        ({**auction(), "effectiveGasPrice": "-1"}, "application/json", "/effectiveGasPrice"),
    ],
    ids=["truncated", "empty", "media", "a byte too large", "huge", "a bad field"],
)
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_bad_body_is_refused_in_the_words_of_the_protocol(
    driver: Driver, body: Any, kind: str, said: str, chunked: bool
) -> None:
    status, answer = await driver.ask("/cow/solve", body, kind, chunked)
    assert status == 400
    assert answer["error"]["code"] == "other"
    assert said in answer["error"]["message"]


async def test_a_body_that_breaks_off_is_refused(driver: Driver) -> None:
    head = b"POST /cow/solve HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    for rest in (
        (b"Content-Length: 100\r\n\r\n", b'{"tokens":'),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"64\r\n{}"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"never\r\n{}\r\n"),
        (b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n", b"{}"),
    ):
        said = await raw(driver, head, *rest)
        assert not said or said.startswith(b"HTTP/1.1 400"), said[:100]


async def test_it_is_busy_when_too_many_ask(driver: Driver) -> None:
    asked = [driver.ask("/cow/solve", auction()) for _ in range(24)]
    statuses = [status for status, _ in await asyncio.gather(*asked)]
    assert set(statuses) == {200, 429}
    assert (await driver.ask("/cow/solve", auction()))[0] == 200


async def test_it_answers_before_the_deadline(tmp_path: Path) -> None:
    """Many orders over many pools, and no time for all of them; the event loop goes on."""
    requests = [random_auction(seed, 12) for seed in range(60)]
    orders = [
        {**order, "uid": f"0x{number:056x}{index:056x}"}
        for number, request in enumerate(requests)
        for index, order in enumerate(request["orders"])
    ]
    pools = [
        {**pool, "id": f"{number}-{pool['id']}"}
        for number, request in enumerate(requests)
        for pool in request["liquidity"]
    ]
    async with opened(CowConfig(max_hops=2, slack_seconds=0.5, prestart=True), tmp_path) as found:
        await found.hall.engine.start()
        for seconds in (2.0, 1.5):
            deadline = later(seconds)
            due = time.time() + seconds
            request = {**requests[0], "orders": orders, "liquidity": pools, "deadline": deadline}
            asked = asyncio.create_task(found.ask("/cow/solve", request))
            longest = 0.0
            while not asked.done():
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)
            status, answer = asked.result()
            assert status == 200
            assert time.time() < due
            assert answer["solutions"]
            assert longest < 0.4


NOTICES: list[dict[str, Any]] = [
    {"kind": "timeout"},
    {
        "kind": "simulationFailed",
        "block": 1,
        "succeededOnce": True,
        "tx": {"from": "0x" + "1" * 40},
    },
    {"kind": "missingPrice", "tokenAddress": "0x" + "1" * 40},
    {"kind": "success", "transaction": "0x" + "2" * 64},
    {"kind": "revert", "transaction": "0x" + "3" * 64},
    {"kind": "settlementStarted"},
    {"kind": "deserializationError", "reason": "no such field"},
    {"kind": "banned"},
    {"kind": "somethingNobodyKnowsYet", "data": {"deep": [1, 2, {"x": None}]}},
]


@pytest.mark.parametrize("said", NOTICES, ids=lambda said: str(said["kind"]))
async def test_what_a_driver_says_is_kept_beside_the_solution(
    driver: Driver, said: dict[str, Any]
) -> None:
    await driver.ask("/cow/solve", auction())
    for auction_id, solution, kept in (
        ("7", 0, (0,)), (7, [0, 3], (0, 3)), ("7", None, ()), (None, 1, (1,)), ("99", 0, (0,)),
    ):  # fmt: skip
        notice = {"auctionId": auction_id, "solutionId": solution, **said}
        status, _ = await driver.ask("/cow/notify", notice)
        assert status == 200
        name = "" if auction_id is None else str(auction_id)
        record = driver.hall.ledger.book.auctions[name]
        last = record.notices[-1]
        assert (last.kind, last.solutions) == (said["kind"], kept)
        assert json.loads(last.body) == notice
    assert driver.hall.ledger.book.auctions["7"].answer is not None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "bad_json"),
        ({}, "/kind"),
        ({"kind": ""}, "/kind"),
        ({"kind": "k" * 101}, "/kind"),
        ({"kind": "line\nbreak"}, "/kind"),
        ({"kind": 7}, "/kind"),
        ({"kind": "fail", "auctionId": "seven"}, "/auctionId"),
        ({"kind": "fail", "auctionId": 1.5}, "/auctionId"),
        ({"kind": "fail", "solutionId": -1}, "/solutionId"),
        ({"kind": "fail", "solutionId": "0"}, "/solutionId"),
        ({"kind": "fail", "solutionId": list(range(2_000))}, "/solutionId"),
        ({"kind": "fail", "reason": "x" * 300_000}, "body_too_large"),
    ],
)
async def test_a_notification_that_cannot_be_kept_is_refused(
    driver: Driver, body: Any, said: str
) -> None:
    status, answer = await driver.ask("/cow/notify", body)
    assert status == 400
    assert said in answer["error"]["message"]


async def test_the_ledger_keeps_it_over_a_restart(tmp_path: Path) -> None:
    async with opened(CowConfig(profile="baseline"), tmp_path) as driver:
        await driver.ask("/cow/solve", auction())
        notice = {"auctionId": "7", "solutionId": 0, "kind": "cancelled"}
        await driver.ask("/cow/notify", notice)
        before = dict(driver.hall.ledger.book.auctions)
    ledger = Ledger(tmp_path / "journal.sqlite3")
    assert ledger.book.auctions == before
    record: AuctionRecord = ledger.book.auctions["7"]
    assert record.answer is not None
    assert [notice.kind for notice in record.notices] == ["cancelled"]
    ledger.close()


async def test_only_the_latest_auctions_stay_in_memory(driver: Driver) -> None:
    ledger = driver.hall.ledger
    await driver.ask("/cow/solve", auction())
    answered = ledger.book.auctions["7"].answer
    assert answered is not None
    for number in range(1_100):
        ledger.book.apply(replace(answered, auction=str(number + 1_000)))
    assert len(ledger.book.auctions) == 1_000
    assert "7" not in ledger.book.auctions

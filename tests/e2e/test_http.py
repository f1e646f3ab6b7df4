"""The HTTP door of a running daemon: every bad request is a 4xx problem and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from eth_account.messages import encode_typed_data
from msgspec.structs import replace
from openapi_spec_validator import OpenAPIV31SpecValidator

from solver import devnet
from solver.client import Client, Refused
from solver.core import crypto
from solver.core.abi import encode_call
from solver.core.types import Kind
from solver.core.venue import Snapshot
from solver.daemon import Daemon
from solver.service import local_names, serving
from solver.wire import v1
from solver.wire.errors import Problem
from tests.e2e.make import config_in, eventually

pytestmark = [pytest.mark.xdist_group("daemon"), pytest.mark.asyncio(loop_scope="module")]
A = 31337
_QUOTA = 3
_NEVER = str(10**12)  # USDC for one WETH
_SYMBOLS = ("WETH", "USDC")


class Door:
    """A client and what it needs to make orders."""

    def __init__(
        self, daemon: Daemon, client: Client, session: aiohttp.ClientSession, info: v1.Info
    ) -> None:
        self.daemon, self.client, self.session = daemon, client, session
        self.tokens = {(token.symbol, token.chain): token.address for token in info.tokens}

    def draft(self, **changes: Any) -> v1.Draft:
        """User 0 sells one WETH for USDC; ``changes`` replace fields."""
        fields: dict[str, Any] = {
            "owner": devnet.user(0).address,
            "sell_chain": A,
            "sell_asset": self.tokens["WETH", A],
            "buy_chain": A,
            "buy_asset": self.tokens["USDC", A],
            "kind": Kind.EXACT_IN,
            "sell_amount": str(10**18),
            "slippage_bps": 500,
        }
        return v1.Draft(**{**fields, **changes})

    async def signed(self, **changes: Any) -> dict[str, Any]:
        """A request that would be accepted, as plain JSON."""
        data = await self.client.draft(self.draft(**changes))
        request = await self.client.signed(data.swap, devnet.user(0))
        return dict(msgspec.to_builtins(request))

    async def settled(self, **changes: Any) -> v1.IntentView:
        """An intent of user 3, submitted and settled."""
        data = await self.client.draft(self.draft(owner=devnet.user(3).address, **changes))
        view = await self.client.submit(data.swap, devnet.user(3))
        view = await eventually(
            lambda: self.client.intent(view.id), lambda seen: seen.state == "settled"
        )
        assert view.state == "settled", view
        return view

    async def refusal(self, path: str, **changes: Any) -> Problem:
        """The problem that a draft gets."""
        with pytest.raises(Refused) as caught:
            await self.client.ask("POST", path, v1.TypedData, self.draft(**changes))
        return caught.value.problem

    async def post(
        self, body: bytes, path: str = "/v1/intents", kind: str = "application/json"
    ) -> tuple[int, Problem]:
        """The status and the problem of a raw body."""
        headers = {"content-type": kind}
        async with self.session.post(
            self.client.url + path, data=body, headers=headers
        ) as response:
            assert response.content_type == "application/problem+json", await response.text()
            return response.status, msgspec.json.decode(await response.read(), type=Problem)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    directory: Path = tmp_path_factory.mktemp("daemon")
    base = config_in(directory)
    config = replace(base, limits=replace(base.limits, max_open_per_owner=_QUOTA))
    async with serving(config) as (daemon, url), aiohttp.ClientSession() as session:
        client = Client(url, session)
        yield Door(daemon, client, session, await client.info())


def _with(request: dict[str, Any], field: str, value: Any) -> bytes:
    return json.dumps({**request, "swap": {**request["swap"], field: value}}).encode()


_SWAPS: list[tuple[str, str, Any, int, str]] = [
    ("underscore", "sellAmount", "1_000", 422, "bad_amount"),
    ("float", "sellAmount", 1.5, 400, "invalid_field"),
    ("number", "sellAmount", 10, 400, "invalid_field"),
    ("negative", "sellAmount", "-1", 422, "bad_amount"),
    ("2^256", "sellAmount", str(2**256), 422, "bad_amount"),
    ("5000 digits", "sellAmount", "9" * 5000, 422, "bad_amount"),
    ("leading zero", "sellAmount", "010", 422, "bad_amount"),
    ("other digits", "sellAmount", "١٢", 422, "bad_amount"),
    ("zero", "sellAmount", "0", 422, "bad_signature"),
    ("unknown field", "colour", "red", 400, "invalid_field"),
    ("kind", "kind", "sell", 400, "invalid_field"),
    ("chain", "sellChain", 5, 422, "wrong_chain"),
    ("negative time", "validUntil", -1, 422, "bad_integer"),
    ("owner", "owner", "0x12", 422, "bad_hex"),
    ("other owner", "owner", devnet.user(1).address, 422, "bad_signature"),
]


@pytest.mark.parametrize(("name", "field", "value", "status", "code"), _SWAPS)
async def test_a_bad_field_is_refused_by_name(
    door: Door, name: str, field: str, value: Any, status: int, code: str
) -> None:
    before = len(door.daemon.ledger.book.intents)
    answer = await door.post(_with(await door.signed(), field, value))
    assert (answer[0], answer[1].code) == (status, code), name
    assert len(door.daemon.ledger.book.intents) == before


async def _duplicate(door: Door) -> bytes:
    text = json.dumps(await door.signed())
    return text.replace('"signature"', '"signature": "0x", "signature"').encode()


async def _high_s(door: Door) -> bytes:
    request = await door.signed()
    raw = bytes.fromhex(request["signature"][2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(raw[32:64], "big")
    flipped = raw[:32] + s.to_bytes(32, "big") + bytes([55 - raw[64]])
    return json.dumps({**request, "signature": "0x" + flipped.hex()}).encode()


async def _other_contract(door: Door) -> bytes:
    data = await door.client.draft(door.draft())
    document = dict(data.typed_data)
    document["domain"] = {**document["domain"], "verifyingContract": "0x" + "11" * 20}
    encoded = encode_typed_data(full_message=document)
    digest = crypto.keccak(b"\x19" + encoded.version + encoded.header + encoded.body)
    signature = "0x" + devnet.user(0).sign_digest(digest).hex()
    swap = msgspec.to_builtins(data.swap)
    return json.dumps({"swap": swap, "signature": signature}).encode()


async def _constant(body: bytes) -> bytes:
    return body


_BODIES: list[tuple[str, Callable[[Door], Awaitable[bytes]], int, str]] = [
    ("duplicate key", _duplicate, 400, "duplicate_key"),
    ("high s", _high_s, 422, "bad_signature"),
    ("another contract's domain", _other_contract, 422, "bad_signature"),
    ("empty", lambda _: _constant(b""), 400, "bad_json"),
    ("no JSON", lambda _: _constant(b"{"), 400, "bad_json"),
    ("a list", lambda _: _constant(b"[]"), 400, "invalid_field"),
    ("bad UTF-8", lambda _: _constant(b'{"swap": "\xff"}'), 400, "bad_utf8"),
    ("nesting bomb", lambda _: _constant(b"[" * 16_000), 400, "too_deep"),
    ("oversize", lambda _: _constant(b" " * 16_385), 413, "body_too_large"),
    ("NaN", lambda _: _constant(b'{"swap": NaN}'), 400, "bad_json"),
]


@pytest.mark.parametrize(("name", "make", "status", "code"), _BODIES)
async def test_a_bad_body_is_refused_by_name(
    door: Door, name: str, make: Callable[[Door], Awaitable[bytes]], status: int, code: str
) -> None:
    before = len(door.daemon.ledger.book.intents)
    answer = await door.post(await make(door))
    assert (answer[0], answer[1].code) == (status, code), (name, answer)
    assert answer[1].type == f"urn:thalweg:problem:{code}"
    assert len(door.daemon.ledger.book.intents) == before


@pytest.mark.parametrize("signature", ["0x", "0x12", "zz" * 66, "0x" + "g" * 130, "0x" + "0" * 130])
async def test_a_malformed_signature_is_refused(door: Door, signature: str) -> None:
    request = {**await door.signed(), "signature": signature}
    status, problem = await door.post(json.dumps(request).encode())
    assert (status, problem.code, problem.pointer) == (422, "bad_signature", "/signature")


async def test_another_media_type_path_and_method(door: Door) -> None:
    assert (await door.post(b"{}", kind="text/plain"))[1].code == "wrong_media_type"
    assert (await door.post(b"{}", "/v1/nothing"))[0] == 404
    assert (await door.post(b"{}", "/v1/health"))[0] == 405
    for query in ("limit=0", "limit=x", "cursor=-1", "state=happy"):
        with pytest.raises(Refused, match="bad_query"):
            await door.client.ask("GET", f"/v1/intents?{query}", v1.IntentPage)


async def test_the_same_intent_twice_is_one_intent(door: Door) -> None:
    request = await door.signed(buy_amount=_NEVER)
    first = await door.client.request("POST", "/v1/intents", request)
    second = await door.client.request("POST", "/v1/intents", request)
    views = [msgspec.json.decode(reply.body, type=v1.IntentView) for reply in (first, second)]
    assert (first.status, second.status) == (202, 200)
    assert views[0].id == views[1].id
    many = await asyncio.gather(
        *(door.client.request("POST", "/v1/intents", request) for _ in range(20))
    )
    assert {reply.status for reply in many} == {200}
    await door.client.cancel(views[0], devnet.user(0))


async def test_only_the_owner_cancels_and_only_once(door: Door) -> None:
    data = await door.client.draft(door.draft(buy_amount=_NEVER))
    view = await door.client.submit(data.swap, devnet.user(0))
    with pytest.raises(Refused, match="bad_signature"):
        await door.client.cancel(view, devnet.user(1))
    for _ in range(2):
        assert (await door.client.cancel(view, devnet.user(0))).state == "cancelled"
    with pytest.raises(Refused, match="not_found"):
        await door.client.intent("0x" + "00" * 32)


async def test_cancelled_on_chain_is_never_filled(door: Door) -> None:
    data = await door.client.draft(door.draft(buy_amount=_NEVER))
    view = await door.client.submit(data.swap, devnet.user(0))
    chain, contracts = door.daemon.chain(A), door.daemon.world.contracts[A]
    call = encode_call("cancel(bytes32)", bytes.fromhex(view.id[2:]))
    sender = devnet.user(0).address
    transaction = await chain.rpc.call(
        "eth_sendTransaction", {"from": sender, "to": contracts.settlement, "data": call}
    )
    receipt = await eventually(
        lambda: chain.rpc.call("eth_getTransactionReceipt", transaction), lambda seen: bool(seen)
    )
    assert receipt["status"] == "0x1"
    view = await eventually(lambda: door.client.intent(view.id), lambda seen: seen.state != "open")
    assert (view.state, view.code) == ("cancelled", "cancelled_on_chain")


async def test_a_quota_is_kept(door: Door) -> None:
    wallet = devnet.user(5)
    views = []
    for _ in range(_QUOTA):
        data = await door.client.draft(door.draft(owner=wallet.address, buy_amount=_NEVER))
        views.append(await door.client.submit(data.swap, wallet))
    data = await door.client.draft(door.draft(owner=wallet.address, buy_amount=_NEVER))
    with pytest.raises(Refused, match="owner_quota"):
        await door.client.submit(data.swap, wallet)
    for view in views:
        await door.client.cancel(view, wallet)


async def test_a_quote_is_what_a_fill_gives(door: Door) -> None:
    draft = door.draft(owner=devnet.user(3).address, sell_amount=str(3 * 10**18))
    quote = await door.client.ask("POST", "/v1/quote", v1.QuoteView, draft)
    view = await door.settled(sell_amount=str(3 * 10**18))
    assert quote.filled
    assert quote.fees == v1.FeesView(gas=quote.fee)
    # Gas has another price in the next block, so that the fee moves and the rest with it.
    quoted = int(quote.buy) + int(quote.fee)
    got = int(view.bought) + sum(int(fill.fee) for fill in view.fills)
    assert abs(got - quoted) <= quoted // 10**5
    assert float(quote.certificate.net_gap_bps) < 1.0


@pytest.mark.parametrize("path", ["/v1/typed-data", "/v1/quote"])
@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"lifetime_seconds": 2**300}, "too_long_lived", "/lifetimeSeconds"),
        ({"lifetime_seconds": 604_801}, "too_long_lived", "/lifetimeSeconds"),
        ({"lifetime_seconds": 0}, "bad_times", "/lifetimeSeconds"),
        ({"sell_chain": 5}, "wrong_chain", "/sellChain"),
        ({"buy_chain": 5}, "wrong_chain", "/buyChain"),
        ({"buy_asset": "0x" + "ab" * 20}, "unknown_asset", "/buyAsset"),
        ({"owner": "0x" + "00" * 20, "receiver": "0x" + "01" * 20}, "zero_address", "/owner"),
        ({"receiver": "0x" + "00" * 20}, "zero_address", "/receiver"),
        ({"sell_amount": "0"}, "zero_amount", "/sellAmount"),
        ({"buy_amount": "0"}, "zero_amount", "/buyAmount"),
        ({"sell_amount": str(2**256 - 1), "sell_asset": "USDC", "buy_asset": "WETH"},
         "amount_too_large", "/sellAmount"),
        ({"max_fee": str(2**255)}, "below_gas", "/maxFee"),
        ({"sell_amount": "1"}, "below_gas", "/sellAmount"),
    ],
)  # fmt: skip
async def test_a_draft_that_could_not_be_submitted_is_refused(
    door: Door, path: str, changes: dict[str, Any], code: str, pointer: str
) -> None:
    names = {key: door.tokens[value, A] for key, value in changes.items() if value in _SYMBOLS}
    problem = await door.refusal(path, **{**changes, **names})
    assert (problem.code, problem.pointer) == (code, pointer), problem


async def test_a_draft_keeps_to_the_rules_of_an_intent(door: Door) -> None:
    same = {"buy_asset": door.tokens["WETH", A], "buy_amount": "1"}
    assert (await door.refusal("/v1/quote", **same)).code == "same_asset"
    settlement = door.daemon.world.contracts[A].settlement
    refused = await door.refusal("/v1/typed-data", receiver=settlement)
    assert (refused.code, refused.pointer) == ("bad_receiver", "/receiver")
    data = await door.client.draft(door.draft(nonce="0", max_fee="0"))
    assert (data.swap.nonce, data.swap.max_fee) == ("0", "0")


async def test_an_order_that_offers_nothing_is_worth_nothing(door: Door) -> None:
    """It asks for a fortune: valued by what it buys, it would be the largest of its batch."""
    fields = {"kind": Kind.EXACT_OUT, "sell_amount": "1", "buy_amount": str(10**30)}
    data = await door.client.draft(door.draft(**fields))
    with pytest.raises(Refused, match="below_gas"):
        await door.client.submit(data.swap, devnet.user(0))
    # A low limit is its owner's choice and makes no small order.
    await door.settled(sell_amount=str(10**16), buy_amount="1")


async def test_lists_have_a_cursor(door: Door) -> None:
    mine = await door.settled(sell_amount=str(10**16))
    whole = await door.client.ask("GET", "/v1/intents", v1.IntentPage)
    found: list[str] = []
    cursor = "0"
    while cursor:
        path = f"/v1/intents?limit=2&cursor={cursor}"
        page = await door.client.ask("GET", path, v1.IntentPage)
        found += [view.id for view in page.intents]
        cursor = page.next
    assert found == [view.id for view in whole.intents]
    query = f"/v1/intents?owner={devnet.user(3).address}&state=settled"
    page = await door.client.ask("GET", query, v1.IntentPage)
    assert mine.id in {view.id for view in page.intents}
    assert {view.swap.owner for view in page.intents} == {devnet.user(3).address}


async def test_the_newest_come_first_page_by_page(door: Door) -> None:
    for _ in range(2):
        await door.settled(sell_amount=str(10**16))
    whole = (await door.client.ask("GET", "/v1/batches", v1.BatchPage)).batches
    found: list[str] = []
    query = ""
    while True:
        page = await door.client.ask("GET", f"/v1/batches?limit=1{query}", v1.BatchPage)
        found += [batch.id for batch in page.batches]
        if not page.next:
            break
        query = f"&cursor={page.next}"
    assert found == [batch.id for batch in whole]
    assert len(found) >= 2
    shape = list[v1.BundleView]
    bundles = await door.client.ask("GET", "/v1/settlements", shape)
    rest = await door.client.ask("GET", f"/v1/settlements?cursor={bundles[0].id}", shape)
    assert [bundle.id for bundle in rest] == [bundle.id for bundle in bundles[1:]]


async def test_the_description_is_valid_and_complete(door: Door) -> None:
    reply = await door.client.request("GET", "/v1/openapi.json")
    document = json.loads(reply.body)
    OpenAPIV31SpecValidator(document).validate()
    assert {"/v1/intents", "/v1/quote", "/v1/batches/{id}", "/metrics"} <= document["paths"].keys()


async def test_the_description_names_refusals_and_shapes(door: Door) -> None:
    document = json.loads((await door.client.request("GET", "/v1/openapi.json")).body)
    submit = document["paths"]["/v1/intents"]["post"]["responses"]
    assert {"200", "202", "400", "408", "413", "415", "422", "429", "500"} <= submit.keys()
    assert "Retry-After" in submit["429"]["headers"]
    cancel = document["paths"]["/v1/intents/{id}/cancel"]["post"]["responses"]
    assert {"404", "409"} <= cancel.keys()
    swap = document["components"]["schemas"]["SwapDocument"]["properties"]
    assert swap["sellAmount"]["pattern"].startswith("^(0|[1-9]")
    assert swap["owner"]["pattern"] == "^0x[0-9a-fA-F]{40}$"
    assert swap["validUntil"]["maximum"] == 2**64 - 1


async def test_the_rest_answers(door: Door) -> None:
    async def settled() -> float:
        metrics = (await door.client.request("GET", "/metrics")).body.decode()
        found = re.search(r'thalweg_intents\{state="settled"\} (\S+)', metrics)
        assert found
        return float(found.group(1))

    before = await settled()
    await door.settled(sell_amount=str(10**16))
    assert await settled() - before == 1
    bundles = await door.client.ask("GET", "/v1/settlements", list[v1.BundleView])
    profits = {b.id: float(b.profit) for b in bundles if b.state == "confirmed"}
    metrics = (await door.client.request("GET", "/metrics")).body.decode()
    series = re.findall(r'bundle_profit_numeraire\{bundle="(.*)",chain="31337"\} (\S+)', metrics)
    assert {bundle: float(profit) for bundle, profit in series} == profits != {}
    for path in ("/v1/venues", "/v1/graph", "/v1/batches", "/v1/settlements", "/v1/health"):
        assert (await door.client.request("GET", path)).status == 200
    ready = await eventually(
        lambda: door.client.ask("GET", "/v1/ready", v1.Health), lambda seen: seen.status == "ok"
    )
    assert ready.status == "ok", ready


async def test_the_graph_lists_its_arcs(door: Door) -> None:
    graph = await door.client.ask("GET", "/v1/graph", v1.GraphView)
    venues = await door.client.ask("GET", "/v1/venues", list[v1.VenueView])
    assert {arc.venue for arc in graph.arcs} == {venue.name for venue in venues}
    assert {arc.pool for arc in graph.arcs} == {pool.id for pool in graph.pools}
    weth, usdc = (f"{A}:{door.tokens[symbol, A]}" for symbol in _SYMBOLS)
    sales = [arc for arc in graph.arcs if (arc.token_in, arc.token_out) == (weth, usdc)]
    found = sorted((arc.venue, arc.kind) for arc in sales)
    assert found == [("book", "levels"), ("pairs", "constantProduct"), ("pairs", "constantProduct")]
    away = [arc for arc in graph.arcs if arc.kind == "bridge"]
    assert all(arc.token_in.split(":")[0] != arc.token_out.split(":")[0] for arc in away)
    assert away
    document = json.loads((await door.client.request("GET", "/v1/openapi.json")).body)
    schema = document["components"]["schemas"]["ArcView"]
    assert schema["required"] == ["venue", "pool", "tokenIn", "tokenOut", "kind"]


async def test_the_names_that_a_config_may_use_are_there(door: Door) -> None:
    for deployment in door.daemon.deployments.values():
        assert deployment.addresses.keys() == local_names()


async def _served_until_a_bug(directory: Path) -> None:
    """What hides the cancellation, as a test that suppresses too much would, must not hide it."""
    async with serving(config_in(directory)) as (daemon, _):
        daemon.market.refresh = _broken  # type: ignore[method-assign]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_tick_that_ends_by_a_bug_fails_what_it_serves(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the ticks ended"):
        await _served_until_a_bug(tmp_path)


async def _broken() -> Snapshot:
    raise ZeroDivisionError

"""The HTTP door of a running daemon: every bad request is a 4xx problem and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from eth_account.messages import encode_typed_data
from openapi_spec_validator import OpenAPIV31SpecValidator

from solver import devnet
from solver.client import Client, Refused
from solver.core import crypto
from solver.core.abi import encode_call
from solver.core.types import Kind
from solver.daemon import Daemon
from solver.service import serving
from solver.wire import v1
from solver.wire.problem import Problem
from tests.e2e.make import config_in

pytestmark = [pytest.mark.xdist_group("daemon"), pytest.mark.asyncio(loop_scope="module")]
A = 31337


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
    async with serving(config_in(directory)) as (daemon, url), aiohttp.ClientSession() as session:
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
    request = await door.signed(slippage_bps=0, sell_amount=str(2 * 10**17))
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
    data = await door.client.draft(door.draft(buy_amount=str(10**12)))
    view = await door.client.submit(data.swap, devnet.user(0))
    with pytest.raises(Refused, match="bad_signature"):
        await door.client.cancel(view, devnet.user(1))
    for _ in range(2):
        assert (await door.client.cancel(view, devnet.user(0))).state == "cancelled"
    with pytest.raises(Refused, match="not_found"):
        await door.client.intent("0x" + "00" * 32)


async def test_cancelled_on_chain_is_never_filled(door: Door) -> None:
    data = await door.client.draft(door.draft(buy_amount=str(10**12)))
    view = await door.client.submit(data.swap, devnet.user(0))
    chain, contracts = door.daemon.chain(A), door.daemon.world.contracts[A]
    call = encode_call("cancel(bytes32)", bytes.fromhex(view.id[2:]))
    sender = devnet.user(0).address
    await chain.rpc.call(
        "eth_sendTransaction", {"from": sender, "to": contracts.settlement, "data": call}
    )
    for _ in range(100):
        await asyncio.sleep(0.05)
        view = await door.client.intent(view.id)
        if view.state != "open":
            break
    assert (view.state, view.code) == ("cancelled", "cancelled_on_chain")


async def test_a_quota_is_kept(door: Door) -> None:
    wallet = devnet.user(5)
    quota = door.daemon.config.limits.max_open_per_owner
    codes = []
    for _ in range(quota + 1):
        draft = door.draft(owner=wallet.address, buy_amount=str(10**12))
        data = await door.client.draft(draft)
        try:
            await door.client.submit(data.swap, wallet)
        except Refused as error:
            codes.append(error.problem.code)
    assert codes == ["owner_quota"]


async def test_a_quote_is_what_a_fill_gives(door: Door) -> None:
    draft = door.draft(owner=devnet.user(3).address, sell_amount=str(3 * 10**18))
    quote = await door.client.ask("POST", "/v1/quote", v1.QuoteView, draft)
    data = await door.client.draft(draft)
    view = await door.client.submit(data.swap, devnet.user(3))
    for _ in range(100):
        await asyncio.sleep(0.05)
        view = await door.client.intent(view.id)
        if view.state == "settled":
            break
    assert quote.filled
    assert abs(int(view.bought) - int(quote.buy)) <= int(quote.buy) // 10**6
    assert float(quote.certificate.net_gap_bps) < 1.0


async def test_lists_have_a_cursor(door: Door) -> None:
    whole = await door.client.ask("GET", "/v1/intents", v1.IntentPage)
    found: list[str] = []
    cursor = "0"
    while cursor:
        path = f"/v1/intents?limit=7&cursor={cursor}"
        page = await door.client.ask("GET", path, v1.IntentPage)
        found += [view.id for view in page.intents]
        cursor = page.next
    assert found == [view.id for view in whole.intents]
    mine = f"/v1/intents?owner={devnet.user(3).address}&state=settled"
    assert len((await door.client.ask("GET", mine, v1.IntentPage)).intents) == 1


async def test_the_description_is_valid_and_complete(door: Door) -> None:
    reply = await door.client.request("GET", "/v1/openapi.json")
    document = json.loads(reply.body)
    OpenAPIV31SpecValidator(document).validate()
    assert {"/v1/intents", "/v1/quote", "/v1/batches/{id}", "/metrics"} <= document["paths"].keys()


async def test_the_rest_answers(door: Door) -> None:
    for path in ("/v1/venues", "/v1/graph", "/v1/batches", "/v1/settlements", "/v1/health"):
        assert (await door.client.request("GET", path)).status == 200
    assert (await door.client.ask("GET", "/v1/ready", v1.Health)).status == "ok"
    metrics = (await door.client.request("GET", "/metrics")).body.decode()
    assert 'thalweg_intents{state="settled"} 1.0' in metrics

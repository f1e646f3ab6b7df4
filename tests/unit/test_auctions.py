"""Bad auctions: refused with the reason, or answered without the bad part, never with a crash."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from solver.auctions import Question, Solver, Stage
from solver.core.types import Rejection
from solver.wire.engine import Reply
from tests.cow import answered, check, settings, solutions

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
COW = "0xDEf1CA1fb7FBcDC777520aa7f396b4E015F497aB"
UID = "0x" + "2A" * 56
OTHER = "0x" + "2b" * 56
UINT = str(2**256 - 1)

Change = Callable[[dict[str, Any]], None]


def auction() -> dict[str, Any]:
    """One order that one pool fills, and a second pool elsewhere."""
    return {
        "id": "7",
        "tokens": {
            WETH: {"referencePrice": str(10**18), "availableBalance": "0", "trusted": True},
            COW: {"referencePrice": "53125132573502", "availableBalance": "0", "trusted": True},
        },
        "orders": [
            {
                "uid": UID,
                "sellToken": WETH,
                "buyToken": COW,
                "sellAmount": "133700000000000000",
                "buyAmount": "5900000000000000000000",
                "kind": "sell",
                "partiallyFillable": False,
                "class": "limit",
            }
        ],
        "liquidity": [
            {
                "kind": "constantProduct",
                "id": "0",
                "fee": "0.003",
                "tokens": {
                    WETH: {"balance": "3828187314911751990"},
                    COW: {"balance": "179617892578796375604692"},
                },
            }
        ],
        "effectiveGasPrice": "15000000000",
        "deadline": "2106-01-01T00:00:00.000Z",
    }


def order(**fields: Any) -> Change:
    return lambda request: request["orders"][0].update(fields)


def second(**fields: Any) -> Change:
    return lambda request: request["orders"].append({**request["orders"][0], **fields})


def top(**fields: Any) -> Change:
    return lambda request: request.update(fields)


def pool(**fields: Any) -> Change:
    """A further pool of the same pair, like the first but for the fields."""
    return lambda request: request["liquidity"].append(
        {**copy.deepcopy(request["liquidity"][0]), "id": "1", **fields}
    )


def token(**fields: Any) -> Change:
    return lambda request: request["tokens"][WETH].update(fields)


def balances(weth: Any, cow: Any) -> Change:
    return pool(tokens={WETH: {"balance": weth}, COW: {"balance": cow}})


def without(*path: str) -> Change:
    def change(request: dict[str, Any]) -> None:
        place: Any = request
        for name in path[:-1]:
            place = place[int(name) if name.isdigit() else name]
        del place[path[-1]]

    return change


def unpriced(request: dict[str, Any]) -> None:
    for state in request["tokens"].values():
        del state["referencePrice"]


WEIGHTED = {"version": "v0", "kind": "weightedProduct"}
TICKS = {"kind": "concentratedLiquidity", "tokens": [WETH, COW], "tick": 0}


def weighted(weth: dict[str, Any], cow: dict[str, Any], **fields: Any) -> Change:
    tokens = {
        WETH: {"balance": "1", "scalingFactor": "1", "weight": "0.5", **weth},
        COW: {"balance": "1", "scalingFactor": "1", "weight": "0.5", **cow},
    }
    return pool(**{**WEIGHTED, "tokens": tokens, **fields})


def ticks(**fields: Any) -> Change:
    state = {"sqrtPrice": str(2**96), "liquidity": "1", "liquidityNet": {}}
    return pool(**{**TICKS, **state, **fields})


REFUSED: dict[str, tuple[Change, str]] = {
    "no deadline": (without("deadline"), "/deadline"),
    "deadline of words": (top(deadline="soon"), "/deadline"),
    "deadline without end": (top(deadline="99999-01-01T00:00:00Z"), "/deadline"),
    "deadline as a number": (top(deadline=5), "/deadline"),
    "id of letters": (top(id="seven"), "/id"),
    "id beyond 64 bits": (top(id=str(2**64)), "/id"),
    "no orders": (without("orders"), "/orders"),
    "orders as an object": (top(orders={}), "/orders"),
    "an order of nothing": (top(orders=[None]), "/orders/0"),
    "gas price below zero": (top(effectiveGasPrice="-1"), "/effectiveGasPrice"),
    "gas price as a float": (top(effectiveGasPrice=1.5), "/effectiveGasPrice"),
    "gas price of 257 bits": (top(effectiveGasPrice=str(2**256)), "/effectiveGasPrice"),
    "reference price of words": (token(referencePrice="dear"), "/tokens/"),
    "buffer below zero": (token(availableBalance="-5"), "/tokens/"),
    "amount of words": (order(sellAmount="all"), "/orders/0/sellAmount"),
    "amount as a float": (order(buyAmount=1e18), "/orders/0/buyAmount"),
    "amount of 257 bits": (order(buyAmount=str(2**256)), "/orders/0/buyAmount"),
    "no address": (order(sellToken="WETH"), "/orders/0/sellToken"),
    "address with a newline": (order(buyToken=COW + "\n"), "/orders/0/buyToken"),
    "no kind": (order(kind="swap"), "/orders/0/kind"),
    "no uid": (without("orders", "0", "uid"), "/orders/0/uid"),
    "uid of words": (order(uid="first"), "/orders/0/uid"),
    "no class": (order(**{"class": "liquidity"}), "/orders/0/class"),
    "liquidity of words": (top(liquidity=["pool"]), "/liquidity/0"),
}

LEFT_OUT: dict[str, tuple[Change, str]] = {
    "a second order with the uid": (second(), "/orders/1/uid"),
    "the uid in other letters": (second(uid=UID.lower()), "/orders/1/uid"),
    "an order of zero": (second(uid=OTHER, sellAmount="0"), "/orders/1/sellAmount"),
    "an order for zero": (second(uid=OTHER, buyAmount="0x0"), "/orders/1/buyAmount"),
    "three tokens in a pair": (
        lambda request: pool(
            tokens={**request["liquidity"][0]["tokens"], "0x" + "1" * 40: {"balance": "1"}}
        )(request),
        "/liquidity/1",
    ),
    "one token in a pair": (pool(tokens={WETH: {"balance": "1"}}), "/liquidity/1"),
    "a token twice": (
        pool(tokens={WETH: {"balance": "1"}, WETH.lower(): {"balance": "2"}}),
        "/liquidity/1",
    ),
    "balance of words": (balances("much", "1"), "/liquidity/1"),
    "balance below zero": (balances("-1", "1"), "/liquidity/1"),
    "no balance": (pool(tokens={WETH: {}, COW: {"balance": "1"}}), "/liquidity/1"),
    "fee of words": (pool(fee="low"), "/liquidity/1"),
    "fee of everything": (pool(fee="1"), "/liquidity/1"),
    "fee beyond everything": (pool(fee="1.5"), "/liquidity/1"),
    "fee below zero": (pool(fee="-0.1"), "/liquidity/1"),
    "fee over zero": (pool(fee="1/0"), "/liquidity/1"),
    "fee in many digits": (pool(fee="1e-5000000"), "/liquidity/1"),
    "no id": (lambda request: [pool()(request), request["liquidity"][1].pop("id")][0], ""),
    "tokens of words": (pool(tokens="both"), "/liquidity/1"),
    "no address of a token": (
        pool(tokens={"WETH": {"balance": "1"}, COW: {"balance": "1"}}),
        "/liquidity/1",
    ),
    "unknown kind": (pool(kind="hyperbolic"), "hyperbolic"),
    "kind of nothing": (pool(kind=None), "None"),
    "weight of zero": (weighted({"weight": "0"}, {"weight": "1"}), "/liquidity/1"),
    "weights below zero": (weighted({"weight": "-0.5"}, {}), "/liquidity/1"),
    "weights beyond one": (weighted({"weight": "50"}, {"weight": "50"}), "/liquidity/1"),
    "scaling of zero": (weighted({"scalingFactor": "0"}, {}), "/liquidity/1"),
    "unknown version": (weighted({}, {}, version="v9"), "v9"),
    "amplification of nothing": (pool(kind="stable"), "/liquidity/1"),
    "amplification of zero": (pool(kind="stable", amplificationParameter="0"), "/liquidity/1"),
    "price without liquidity": (ticks(sqrtPrice="0"), "left out"),
    "tick elsewhere than the price": (ticks(tick=1000), "left out"),
    "more liquidity leaves than comes": (ticks(liquidityNet={"60": "-5"}), "left out"),
    "an order of its own for itself": (
        pool(kind="limitOrder", makerToken=WETH, takerToken=WETH, makerAmount="1", takerAmount="1"),
        "/liquidity/1",
    ),
    "an order that gives nothing": (
        pool(kind="limitOrder", makerToken=WETH, takerToken=COW, makerAmount="0", takerAmount="1"),
        "/liquidity/1",
    ),
}

#: What is odd and stays: the order is filled as ever.
HARMLESS: dict[str, Change] = {
    "empty pool": balances("0", "0"),
    "pool with one side": balances("0", str(10**30)),
    "pool of 256 bits": balances(UINT, UINT),
    "the same id": lambda request: pool(id="0", fee="0.5")(request),
    "id as a number": lambda request: request["liquidity"][0].update(id=0),
    "unknown token": second(uid=OTHER, buyToken="0x" + "9" * 40),
    "nothing but gas": second(uid=OTHER, sellAmount="1", buyAmount="1"),
    "limit of 256 bits": second(uid=OTHER, buyAmount=UINT),
    "everything of 256 bits": second(uid=OTHER, sellAmount=UINT, buyAmount=UINT, kind="buy"),
    "partial of 256 bits": second(uid=OTHER, sellAmount=UINT, partiallyFillable=True),
    "a token for itself": second(uid=OTHER, sellToken=COW, sellAmount="9", buyAmount="8"),
    "no reference prices": unpriced,
    "price of nothing": lambda request: request["tokens"][COW].update(referencePrice="0"),
    "price of 256 bits": lambda request: request["tokens"][COW].update(referencePrice=UINT),
    "no gas price": top(effectiveGasPrice="0"),
    "a hexadecimal gas price": top(effectiveGasPrice="0x37e11d600"),
    "unknown members": top(colour="red"),
    "a zone": top(deadline="2106-01-01T02:00:00+02:00"),
    "no zone": top(deadline="2106-01-01T00:00:00"),
    "fee policies of the code": order(feePolicies=[{"volume": {"factor": 0.1}}]),
    "fee policies of the description": order(feePolicies=[{"kind": "volume", "factor": 0.1}]),
}


def changed(change: Change) -> dict[str, Any]:
    request = auction()
    change(request)
    return request


def stage(profile: str) -> Stage:
    return Stage.ALONE if profile == "full" else Stage.BASELINE


def filled(reply: Reply) -> set[str]:
    return {trade["order"] for found in solutions(reply) for trade in found["trades"]}


@pytest.mark.parametrize("profile", ["baseline", "full"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_form_is_refused_by_name(name: str, profile: str) -> None:
    change, pointer = REFUSED[name]
    body = json.dumps(changed(change)).encode()
    found = Solver().answer(Question(settings(profile), body, stage(profile)))
    assert isinstance(found, Rejection), found
    assert found.pointer.startswith(pointer), found


@pytest.mark.parametrize("profile", ["baseline", "full"])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_makes_no_sense_is_left_out(name: str, profile: str) -> None:
    change, said = LEFT_OUT[name]
    request = changed(change)
    reply = answered(request, settings(profile))
    assert filled(reply) == {UID.lower()}
    assert any(said in line for line in reply.left_out), reply.left_out


@pytest.mark.parametrize("profile", ["baseline", "full"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_harms_nothing(name: str, profile: str) -> None:
    request = changed(HARMLESS[name])
    reply = answered(request, settings(profile))
    assert UID.lower() in filled(reply)
    assert not reply.left_out
    if len(request["orders"]) == 1 and name != "the same id":
        for found in solutions(reply):
            check(request, found)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"auction"', b"\xff\xfe", b'{"a": "\xed\xa0\x80"}',
        b"[" * 100_000, b'{"a":' * 100_000, json.dumps(auction()).encode()[:-1],
        json.dumps(auction()).encode()[:200],
    ],
    ids=lambda body: f"{len(body)} bytes",
)  # fmt: skip
def test_what_is_no_auction_is_refused(body: bytes) -> None:
    found = Solver().answer(Question(settings(), body))
    assert isinstance(found, Rejection)
    assert found.detail


def test_an_answer_after_the_deadline_is_empty() -> None:
    for deadline in ("1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        reply = answered(changed(top(deadline=deadline)), settings("baseline"))
        assert solutions(reply) == []


def test_it_stops_in_time() -> None:
    """The slack before the deadline, or the longest time; whichever comes first."""
    body = json.dumps(changed(top(deadline="1970-01-01T00:01:40Z"))).encode()
    asked = Question(settings("baseline"), body)
    for now, due in ((90.0, 99.5), (10.0, 40.0)):
        reply = Solver(lambda now=now: now).answer(asked)  # type: ignore[misc]
        assert isinstance(reply, Reply)
        assert reply.due == due
        assert solutions(reply)
    moment = [10.0]
    solver = Solver(lambda: moment[0])
    for now, due in ((10.0, 40.0), (50.0, 80.0)):  # the same bytes again have their time again
        moment[0] = now
        reply = solver.answer(asked)
        assert isinstance(reply, Reply)
        assert reply.due == due
    moments = iter([0.0, *[99.0] * 3])
    reply = Solver(lambda: next(moments, 100.0)).answer(asked)
    assert isinstance(reply, Reply)
    assert solutions(reply) == []


def test_a_quote_has_no_id_and_says_when_it_finds_nothing() -> None:
    for quote in (top(id=None), without("id")):
        reply = answered(changed(quote), settings())
        assert reply.auction == ""
        assert len(solutions(reply)) == 1
    nothing = changed(top(id=None, liquidity=[]))
    said = json.loads(answered(nothing, settings()).body)
    assert said["error"]["code"] == "insufficientLiquidity"
    assert json.loads(answered(nothing, settings("baseline")).body) == {"solutions": []}
    assert json.loads(answered(changed(top(liquidity=[])), settings()).body) == {"solutions": []}


def test_wrappers_go_with_their_order() -> None:
    wrapper = {"address": "0x" + "AB" * 20, "data": "0xFF", "isOmittable": False}
    for profile in ("baseline", "full"):
        (found,) = solutions(answered(changed(order(wrappers=[wrapper])), settings(profile)))
        assert found["wrappers"] == [{"address": "0x" + "ab" * 20, "data": "0xff"}]
    (plain,) = solutions(answered(auction(), settings()))
    assert "wrappers" not in plain


def test_a_token_for_itself_needs_no_pool() -> None:
    request = changed(order(buyToken=WETH, buyAmount="100000000000000000"))
    (found,) = solutions(answered(request, settings()))
    assert found["interactions"] == []
    assert found["gas"] == 106_391
    assert found["trades"][0]["fee"] == str(106_391 * 15 * 10**9)

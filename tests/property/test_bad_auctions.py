"""Auctions with anything anywhere: an answer or a refusal with its place, never a fault of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from solver.auctions import Question, Solver, Stage
from solver.core.types import Rejection
from solver.wire.engine import Reply
from tests.cow import settings, solutions
from tests.unit.test_auctions import COW, OTHER, UID, WETH, auction

PAIR = {"balance": "1000000000000000000", "scalingFactor": "1"}
MORE: list[dict[str, Any]] = [
    {"kind": "weightedProduct", "id": "1", "version": "v3Plus", "fee": "0.01",
     "tokens": {WETH: {**PAIR, "weight": "0.5"}, COW: {**PAIR, "weight": "0.5"}}},
    {"kind": "stable", "id": "2", "amplificationParameter": "5000.0", "fee": "0.0001",
     "address": "0x" + "3" * 40, "tokens": {WETH: PAIR, COW: PAIR}},
    {"kind": "concentratedLiquidity", "id": "3", "fee": "0.003", "tokens": [WETH, COW],
     "sqrtPrice": str(2**96), "tick": 0, "liquidity": "1000000",
     "liquidityNet": {"-60": "1000000", "60": "-1000000"}},
    {"kind": "limitOrder", "id": "4", "hash": "0x" + "4" * 64, "makerToken": COW,
     "takerToken": WETH, "makerAmount": "50", "takerAmount": "7", "takerTokenFeeAmount": "1"},
]  # fmt: skip
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, 0, -1, 2**64, 2**256, 1.5, 1e308, "", "0", "-0", "0x", "0x0", "1e999999", "NaN",
        "1/0", "٣", "9" * 400, "0" * 79, WETH, WETH.lower(), COW, UID, [], {}, [[]], {"": {}},
        str(2**256 - 1), "0x" + "f" * 64, "2106-01-01T00:00:00Z", "sell", "stable", "\x00",
        "\ud83d",
    ]
)  # fmt: skip


def whole() -> dict[str, Any]:
    """An auction with every kind of order and pool."""
    request = auction()
    request["liquidity"] += copy.deepcopy(MORE)
    first = request["orders"][0]
    more = {"uid": OTHER, "kind": "buy", "partiallyFillable": True, "class": "market"}
    request["orders"].append({**first, **more})
    return request


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


PLACES = list(places(whole()))


@hypothesis_settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), JUNK, st.sampled_from("sdk")), max_size=3),
    st.sampled_from(["baseline", "full"]),
)
def test_it_answers_or_says_why_not(
    changes: list[tuple[tuple[Any, ...], Any, str]], profile: str
) -> None:
    request: Any = whole()
    for (*path, last), junk, how in changes:
        place = request
        try:
            for key in path:
                place = place[key]
            if how == "s":
                place[last] = junk
            elif how == "d":
                del place[last]
            else:
                place[str(junk)] = place.pop(last)
        except (AttributeError, IndexError, KeyError, TypeError):
            continue  # an earlier change took the place away
    body = json.dumps(request).encode()
    solver = Solver()
    stages = (Stage.ALONE, Stage.TOGETHER) if profile == "full" else (Stage.BASELINE,)
    for stage in stages:
        found = solver.answer(Question(settings(profile), body, stage))
        if isinstance(found, Rejection):
            assert found.code and found.detail
        else:
            assert isinstance(found, Reply)
            assert all(solution["trades"] for solution in solutions(found))
            if not changes and stage is not Stage.TOGETHER:
                assert len(solutions(found)) == 2

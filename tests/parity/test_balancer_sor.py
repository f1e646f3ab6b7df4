"""Real routing problems over Balancer's pools: never worse than the old production router."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.engine import solve
from benchmarks.public import Instance, balancer, balancer_pool
from solver.core.routing.network import Network
from solver.core.routing.replay import replay
from solver.core.routing.router import find_route
from solver.core.types import TokenId
from tests.parity.cases import DATA, load

FAMILY = "balancer-sor"
WITHIN = 1e-4  # of the stored answer: it may come from other rounding
TOLERANCE = 1e-6


def cases() -> list[Any]:
    """One parameter per stored case."""
    path = DATA / FAMILY / "cases.json"
    if not path.is_file():
        absent = pytest.mark.skip(reason=f"{FAMILY} is not in {DATA.name}")
        return [pytest.param(None, None, id=f"{FAMILY}/absent", marks=absent)]
    states = load(DATA / FAMILY / "pool_states.json")
    return [pytest.param(case, states, id=f"{FAMILY}/{case['name']}") for case in load(path)]


def unsupported(case: Any, states: Any) -> str | None:
    """Why the stored answer cannot be reached: a pool in it is of a kind that we do not have."""
    by_id = {}
    for key in case["pools"]:
        state = states[key]
        by_id[str(state["id"]).lower()] = state
    for path in case["v1Result"]["swaps"]:
        for swap in path:
            state = by_id.get(str(swap["pool"]).lower())
            pool = balancer_pool(state) if state is not None else None
            if isinstance(pool, str) and pool.startswith("unsupported"):
                return f"{swap['pool']}: {pool}"
    return None


def least_input(network: Network, source: int, target: int, wanted: int, start: float) -> int:
    """Base units of ``source`` whose exact output is at least ``wanted``, as few as are found.

    By proportion from ``start`` (numeraire): outputs are concave, so that each step from above
    stays above but for rounding, which a small margin covers.
    """
    best, amount = 0, start
    for _ in range(40):
        answer = solve(network, source, target, amount, TOLERANCE).answer
        paid = int(amount * float(network.unit[source]))
        gross = answer.gross if answer is not None else 0
        if gross >= wanted and (not best or paid < best):
            best = paid
        if gross == 0:
            amount *= 2.0
            continue
        following = amount * wanted / gross * (1.0 + 2e-6)
        if best and abs(following - amount) <= 3e-6 * amount:
            break
        amount = following
    assert best, "no input gives enough"
    return best


@pytest.mark.parametrize(("case", "states"), cases())
def test_balancer_sor(case: Any, states: Any) -> None:
    trade = case["tradeInfo"]
    token_in, token_out = (TokenId(1, trade[key].lower()) for key in ("TokenIn", "TokenOut"))
    instance: Instance = balancer((states[key] for key in case["pools"]), token_in)
    reason = unsupported(case, states)
    if reason is not None:
        pytest.skip(reason)
    network = Network(instance.pools, instance.prices)
    source, target = network.index[token_in], network.index[token_out]
    stored, given = int(case["v1Result"]["returnAmount"]), int(trade["SwapAmount"])
    if trade["SwapType"] == "swapExactIn":
        amount = given / float(network.unit[source])
        solved = solve(network, source, target, amount, TOLERANCE)
        assert solved.answer is not None
        if solved.answer.unsold:  # pools take no more than 30 % of a balance; selling all loses
            plain, _ = find_route(network, source, target, amount, TOLERANCE)
            assert solved.answer.gross > replay(network, plain, given).amount_out
        assert solved.answer.gross >= stored * (1.0 - WITHIN)
        assert solved.answer.gross / float(network.unit[target]) <= solved.route.bound * (1 + 1e-9)
    else:
        start = 0.5 * stored / float(network.unit[source])
        paid = least_input(network, source, target, given, start)
        assert paid <= stored * (1.0 + WITHIN)

"""Published routing problems: the certificate at their prices, and the optimum of our program.

Several of them are no single orders but baskets and pure arbitrage. What they all share is the dual
function g(ν): ours at the published prices must give the published value. Where one token is sold,
the interior point on all arcs must find the optimum too, and a route must lie below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from msgspec import Struct

from benchmarks.baselines import Order, prices_bound
from benchmarks.public import heavy_tailed, instance, token
from solver.core.kernels import Array
from solver.core.pools import ConstantProductPool, WeightedPool, WeightedVersion
from solver.core.routing.model import Local, build_model
from solver.core.routing.network import Network
from solver.core.routing.router import find_route
from solver.core.types import Call, Exact, Leg, TokenId
from solver.core.venue import Arc, LevelsArc, Pool, Step
from tests.parity.cases import DATA, load

ONE = 10**18
WITHIN = 1e-6
PRICE_WITHIN = 1e-8


class ConstantSum(Struct, frozen=True, kw_only=True):
    """x + y = const until one side is empty; a toy of the paper, with arcs and without integers."""

    id: str
    tokens: tuple[TokenId, ...]
    reserves: tuple[int, ...]
    fee: float

    def arcs(self) -> Sequence[Arc]:
        """One level per direction."""
        rate = 1.0 - self.fee
        (a, b), (x, y) = self.tokens, self.reserves
        return LevelsArc(a, b, ((y / rate, rate),)), LevelsArc(b, a, ((x / rate, rate),))

    def swap(self, token_in: TokenId, token_out: TokenId, amount: int, exact: Exact) -> Step:
        raise NotImplementedError

    def encode(self, leg: Leg) -> Sequence[Call]:
        raise NotImplementedError


def pool_of(number: int, given: Any) -> Pool:
    tokens = tuple(token(t) for t in given["tokens"])
    reserves = tuple(round(size * ONE) for size in given["reserves"])
    fee = 1.0 - given["gamma"]
    name = f"{given['type']}:{number}"
    if given["type"] == "constant_sum":
        return ConstantSum(id=name, tokens=tokens, reserves=reserves, fee=fee)
    if given["type"] == "constant_product":
        return ConstantProductPool(
            id=name, token0=tokens[0], token1=tokens[1], reserve0=reserves[0],
            reserve1=reserves[1], fee_num=round(fee * 10**6), fee_den=10**6, gas=0,
        )  # fmt: skip
    if given["type"] == "geometric_mean":
        whole = sum(given["int_weights"])
        return WeightedPool(
            id=name, coins=tokens, balances=reserves,
            weights=tuple(weight * ONE // whole for weight in given["int_weights"]),
            scaling=(1,) * len(tokens), rates=(ONE,) * len(tokens), fee=round(fee * ONE),
            version=WeightedVersion.V3_PLUS, gas=0,
        )  # fmt: skip
    pytest.skip(f"unsupported kind {given['type']}")


def network_of(inputs: Any, chosen: Sequence[int] | None = None) -> Network:
    """Token t of the file is worth 1 a piece."""
    pools = [pool_of(k, given) for k, given in enumerate(inputs["pools"])]
    pools = [pools[k] for k in (range(len(pools)) if chosen is None else chosen)]
    return Network(pools, {token(t): 1.0 / ONE for t in range(inputs["n_tokens"])})


def at_prices(network: Network, prices: Sequence[float]) -> Array:
    return np.array([prices[int(t.address, 16) - 1] for t in network.tokens])


def optimum(network: Network, source: int, target: int, amount: float) -> float:
    """V(Δ): the interior point on all arcs, cycles included; what its prices prove.

    Relative to the optimum the bound is accurate to about the tolerance.
    """
    arcs = np.arange(network.arc_count)
    others = [t for t in range(len(network.tokens)) if t not in (source, target)]
    tokens = np.array([source, target, *others])
    rank = np.empty(len(tokens), np.int64)
    rank[tokens] = np.arange(len(tokens))
    local = Local(tokens, rank[network.tail], rank[network.head], arcs)
    nu = np.ones(len(tokens))
    model = build_model(network, arcs, local, nu, amount, np.zeros(network.arc_count))
    x = np.minimum(0.4 * model.capacity, 0.03)
    prices = np.concatenate([nu, model.node_nu])
    model.solve(x, prices, 1e-2, 1e-9)
    whole = np.empty(len(tokens))
    whole[tokens] = prices[: len(tokens)]
    return prices_bound(network, Order(source, target, amount), whole)


def published() -> list[Any]:
    """The cases of the paper's figures: inputs and what is expected."""
    found = []
    for name in ("angeris2022_arbitrage_liquidation", "angeris2022_two_asset_sweep"):
        path = DATA / "routing" / f"{name}.json"
        if not path.is_file():
            mark = pytest.mark.skip(reason=f"routing/{name} is not in {DATA.name}")
            found.append(pytest.param(None, None, id=f"routing/{name}/absent", marks=mark))
        elif isinstance(content := load(path), list):
            for case in content:
                given, expected = case["inputs"], case["expected"]
                label = f"routing/{name}/{given['name']}"
                found.append(pytest.param(given, expected, id=label))
        else:
            for number, row in enumerate(content["rows"]):
                label = f"routing/{name}/{number}-{row['t']:.4g}"
                found.append(pytest.param(content["inputs"], row, id=label))
    return found


def supply(inputs: Any, expected: Any) -> list[float]:
    """What is given of each token."""
    objective = inputs["objective"]
    if "t" in expected:
        return [expected["t"]] + [0.0] * (inputs["n_tokens"] - 1)
    if objective["kind"] == "arbitrage":
        return [0.0] * inputs["n_tokens"]
    basket = list(objective["basket"])
    basket[objective["target"]] = 0.0  # what is there already is not part of the published value
    return basket


@pytest.mark.parametrize(("inputs", "expected"), published())
def test_published(inputs: Any, expected: Any) -> None:
    network = network_of(inputs)
    given = supply(inputs, expected)
    prices = expected.get("dual_prices") or expected["prices"]
    nu = at_prices(network, prices)
    bound = prices_bound(network, Order(0, 0, 0.0), nu)
    bound += sum(price * size for price, size in zip(prices, given, strict=True))
    assert bound == pytest.approx(expected["dual_bound"], rel=PRICE_WITHIN)
    if expected.get("t", 0.0) > 0.0:
        source, target = (
            network.index[token(0)],
            network.index[token(inputs["objective"]["target"])],
        )
        best = optimum(network, source, target, expected["t"])
        assert best == pytest.approx(expected["u"], rel=WITHIN)
        route, _ = find_route(network, source, target, expected["t"])
        assert route.value <= expected["u"] * (1.0 + WITHIN)
        assert route.bound >= expected["u"] * (1.0 - WITHIN)


def charged(name: str) -> list[Any]:
    path = DATA / "routing" / f"{name}.json"
    if not path.is_file():
        mark = pytest.mark.skip(reason=f"routing/{name} is not in {DATA.name}")
        return [pytest.param(None, None, id=f"routing/{name}/absent", marks=mark)]
    content = load(path)
    return [
        pytest.param(content.get("inputs"), row, id=f"routing/{name}/{number}")
        for number, row in enumerate(content["rows"])
    ]


@pytest.mark.parametrize(("inputs", "row"), charged("fixed_cost_five_pool_enumeration"))
def test_fixed_cost_enumeration(inputs: Any, row: Any) -> None:
    """The best of all sets of pools, each set's optimum by our program less its charges."""
    count, target = len(inputs["pools"]), inputs["objective"]["target"]
    best: dict[tuple[int, ...], float] = {}
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            network = network_of(inputs, chosen)
            ends = network.index.get(token(0)), network.index.get(token(target))
            if ends[0] is None or ends[1] is None:
                continue
            gross = optimum(network, ends[0], ends[1], row["t"])
            best[chosen] = gross - row["q"] * size
    wanted = tuple(k for k, used in enumerate(row["best_active"]) if used)
    scale = WITHIN * row["gross"]
    assert best[wanted] == pytest.approx(row["net_objective"], abs=scale)
    assert max(best.values()) <= row["net_objective"] + scale


@pytest.mark.parametrize(("_", "row"), charged("fixed_cost_random_certified"))
def test_fixed_cost_random(_: Any, row: Any) -> None:
    """The optimum without charges of the regenerated market, and the bounds with them."""
    numbers = re.fullmatch(r"real\(m=(\d+),seed=(\d+),usd=(\d+)\)", row["call"])
    assert numbers is not None
    m, seed, usd = (int(number) for number in numbers.groups())
    found = instance(heavy_tailed(m, seed))
    network = Network(found.pools, found.prices)
    source, target = network.index[token(1)], network.index[token(0)]
    blind = row["gas_blind_optimum_net"] + row["q"] * row["gas_blind_pools"]
    best = optimum(network, source, target, float(usd))
    assert best == pytest.approx(blind, rel=WITHIN)
    route, _ = find_route(network, source, target, float(usd))
    assert route.value <= blind * (1.0 + WITHIN)
    assert route.bound >= blind * (1.0 - WITHIN)
    assert row["upper_bound"] <= blind * (1.0 + WITHIN)  # charges only take away

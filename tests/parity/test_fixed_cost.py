"""Gas as a fixed charge against enumerated and certified optima (family routing)."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest

from solver.core.routing.charges import net_of_gas
from solver.core.routing.network import Network
from solver.core.routing.router import find_route
from solver.core.types import TokenId
from solver.core.venue import Arc, LevelsArc, WeightedArc
from tests.charges import BarePool
from tests.parity.cases import DATA, rows


def token(number: int) -> TokenId:
    return TokenId(1, f"0x{number + 1:040x}")


def pool(number: int, row: Any) -> BarePool | None:
    """A pool of the five-pool file; None if its kind is unknown."""
    tokens = [token(t) for t in row["tokens"]]
    pairs = [(i, j) for i in range(len(tokens)) for j in range(len(tokens)) if i != j]
    held, fee = row["reserves"], 1.0 - row["gamma"]
    arcs: tuple[Arc, ...]
    if row["type"] == "geometric_mean":
        arcs = tuple(
            WeightedArc(
                tokens[i], tokens[j], held[i], held[j], row["weights"][i], row["weights"][j], fee, 1
            )
            for i, j in pairs
        )
    elif row["type"] == "constant_product":
        arcs = tuple(
            WeightedArc(tokens[i], tokens[j], held[i], held[j], 0.5, 0.5, fee, 1) for i, j in pairs
        )
    elif row["type"] == "constant_sum":
        arcs = tuple(
            LevelsArc(tokens[i], tokens[j], ((held[j] / row["gamma"], row["gamma"]),), 1)
            for i, j in pairs
        )
    else:
        return None
    return BarePool(id=str(number), tokens=tuple(tokens), curves=arcs)


@pytest.mark.parametrize(
    ("data", "row"), rows("routing", "fixed_cost_five_pool_enumeration.json", "rows")
)
def test_five_pools(data: Any, row: Any) -> None:
    """The optimum over all subsets lies between the route and its bound.

    It includes arbitrage that needs no order, which is not the user's. On the pools S of the
    optimum V_S(Δ) − V_S(0) ≤ the best acyclic route (docs/certificate.md), so that the optimum is
    above the best route net of gas by no more than idle, which is V(0) without gas.
    """
    pools = [pool(k, entry) for k, entry in enumerate(data["inputs"]["pools"])]
    if any(entry is None for entry in pools):
        pytest.skip("a pool of an unknown type")
    target = data["inputs"]["objective"]["target"]
    prices = {token(t): 1.0 for t in range(data["inputs"]["n_tokens"])}
    network = Network([entry for entry in pools if entry is not None], prices)
    source = network.index[token(0)]
    route = net_of_gas(network, source, network.index[token(target)], row["t"], row["q"])
    wanted = max(0.0, row["net_objective"])
    idle, _ = find_route(network, source, network.index[token(target)], 1e-6)
    assert route.bound >= wanted - idle.bound - 1e-6
    assert route.net <= wanted + 1e-6
    assert route.net >= wanted - idle.bound - 1e-4


def call(text: str) -> dict[str, int] | None:
    """The arguments of a generator's call, as ``real(m=10,seed=1,usd=10000)``."""
    match = re.fullmatch(r"real\((.*)\)", text)
    if match is None:
        return None
    return {key: int(value) for key, value in (part.split("=") for part in match[1].split(","))}


@pytest.mark.parametrize(
    ("data", "row"), rows("routing", "fixed_cost_random_certified.json", "rows")
)
def test_certified_random_markets(data: Any, row: Any) -> None:
    """Not below the stored feasible answer, and the stored bounds agree with ours."""
    arguments = call(row["call"])
    if arguments is None:
        pytest.skip(f"generator of {row['call']}")
    if not (DATA / "routing" / "generators.py").is_file():
        pytest.skip("routing/generators.py is absent")
    made = runpy.run_path(str(DATA / "routing" / "generators.py"))["real"](**arguments)
    pools = []
    for k in range(len(made["w"])):
        a, b, w = token(int(made["a"][k])), token(int(made["b"][k])), float(made["w"][k])
        x, y = (float(r) for r in made["R"][k])
        fee = 1.0 - float(made["g"][k])
        arcs = (
            WeightedArc(a, b, x, y, w, 1 - w, fee, 1),
            WeightedArc(b, a, y, x, 1 - w, w, fee, 1),
        )
        pools.append(BarePool(id=str(k), tokens=(a, b), curves=arcs))
    prices = {token(t): float(p) for t, p in enumerate(made["p"])}
    network = Network(pools, prices)
    source, target = (network.index[token(made[key])] for key in ("src", "target"))
    usd = float(made["h"][made["src"]] * made["p"][made["src"]])
    route = net_of_gas(network, source, target, usd, row["q"])
    slack = 1e-6 * usd + 1e-4
    assert route.bound >= row["best_feasible"] - slack
    assert route.net <= row["upper_bound"] + slack
    assert route.net >= row["best_feasible"] - 5e-6 * usd - slack

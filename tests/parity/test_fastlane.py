"""A snapshot of real venues without expected answers: what must hold on any pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.baselines import Order, single_path
from benchmarks.engine import solve
from benchmarks.exact import FREE
from benchmarks.public import draw_orders, fastlane, fastlane_pool
from solver.core import curves, kernels
from solver.core.routing.network import Network
from solver.core.types import Exact
from solver.core.venue import DeclaresArcs, Pool
from tests.parity.cases import files, load

FAMILY = "fastlane-snapshot"
ORDERS = 12
WITHIN = 1e-9


def kinds() -> list[Any]:
    """One case per kind of venue in each snapshot."""
    found = []
    for case in files(FAMILY):
        if case.values[0] is None:
            found.append(pytest.param(None, "", id=f"{FAMILY}/absent", marks=case.marks))
            continue
        path = case.values[0]
        names = sorted({str(row.get("exchange_name")) for row in load(path)})
        found += [pytest.param(path, name, id=f"{case.id}/{name}") for name in names]
    return found


@pytest.mark.parametrize(("path", "kind"), kinds())
def test_venues(path: Path, kind: str) -> None:
    """The curve that the program sees lies on the integers of the swap, or just above them."""
    found = [fastlane_pool(row) for row in load(path) if row.get("exchange_name") == kind]
    pools = [pool for pool in found if not isinstance(pool, str)]
    if not pools:
        pytest.skip(f"{kind}: " + ", ".join(sorted({str(reason) for reason in found})))
    for pool in pools:
        check_curve(pool)


def check_curve(pool: Pool) -> None:
    assert isinstance(pool, DeclaresArcs)
    for arc in pool.arcs():
        kind, par, capacity = curves.packed(curves.levels(arc))
        if not len(kind):
            continue
        rate = float(kernels.slopes(kind[:1], par[:1], np.zeros(1))[0])
        deep = float(kernels.level_input_at(kind[0], par[0], capacity[0], rate / 1.05))
        amount = int(deep)
        if amount <= 0:
            continue
        step = pool.swap(arc.token_in, arc.token_out, amount, Exact.IN)
        most, least = (
            float(kernels.outputs(kind[:1], par[:1], np.array([max(0.0, x)]))[0])
            for x in (float(step.amount_in), step.amount_in - 2.0)  # fee and input round up
        )
        assert step.amount_out <= most * (1.0 + 1e-12) + 1.0
        # 18-digit powers are rounded in the pool's favour, by up to 1e-14 of its balance
        assert step.amount_out >= least * (1.0 - 1e-9) - 1e4


@pytest.mark.parametrize("path", files(FAMILY))
def test_orders(path: Path) -> None:
    """Value and integers below the bound, nothing lost on the way, no worse than one path."""
    found = fastlane(load(path))
    network = Network(found.pools, found.prices)
    for token_in, token_out, amount in draw_orders(found, ORDERS, lambda _: 5e18, 3):
        source, target = network.index[token_in], network.index[token_out]
        solved = solve(network, source, target, amount, 1e-6)
        assert solved.route.value <= solved.route.bound * (1.0 + WITHIN)
        assert solved.answer is not None
        gross = solved.answer.gross / float(network.unit[target])
        assert gross <= solved.route.bound * (1.0 + WITHIN)
        path_answer = single_path(network, Order(source, target, amount), FREE)
        if path_answer is not None:
            single = path_answer.gross / float(network.unit[target])
            assert single <= solved.route.bound * (1.0 + WITHIN)
            assert gross >= single * (1.0 - 1e-6)

"""The interior point of large batches against closed forms, and against the simplex on segments."""

from __future__ import annotations

import random

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.batches import random_batch
from solver.core import graph, program
from solver.core.canonical import canonical
from solver.core.kernels import LINEAR, PRODUCT, WIDTH
from solver.core.problem import Problem, buy_node, normalise, sell_node
from solver.core.program.interior import Curves, Program, maximise
from solver.core.types import Intent
from solver.core.venue import Snapshot


def problem_of(market: Snapshot, intents: list[Intent]) -> Problem:
    wanted = [node(intent) for intent in intents for node in (sell_node, buy_node)]
    built = graph.build(market, wanted)
    prices = graph.complete_prices(built, market.prices)
    return normalise(built, canonical(intents, market.hash), {}, prices).problem


def one_pool(depth: float, gamma: float, supply: float) -> Program:
    """Sell at most ``supply`` to one pool and be paid what comes out; two rows, two columns."""
    par = np.zeros((1, WIDTH))
    par[0, :3] = depth, depth, gamma
    curves = Curves(np.array([1]), np.array([PRODUCT], np.int8), par)
    return Program(
        curves, np.array([0, 2, 3]), np.array([0, 1, 1]), np.array([-1.0, 1.0, -1.0]),
        np.array([0.0, 1.0]), np.zeros(2), np.array([10.0, np.inf]), np.array([-supply, 0.0]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("depth", "gamma", "supply"), [(10, 0.997, 1), (0.1, 0.99, 1), (1e3, 1, 3)]
)
def test_one_pool_gives_what_its_formula_says(depth: float, gamma: float, supply: float) -> None:
    found = maximise(one_pool(depth, gamma, supply), np.ones(2))
    assert found is not None
    values, prices = found
    assert values == pytest.approx(
        [supply, depth * gamma * supply / (depth + gamma * supply)], rel=1e-7
    )
    slope = depth * depth * gamma / (depth + gamma * supply) ** 2
    assert prices == pytest.approx([slope, 1.0], rel=1e-6)


def test_a_program_without_a_solution_has_none() -> None:
    """The supply row asks for more than the first column can ever leave there."""
    impossible = replace(one_pool(1.0, 1.0, 1.0), least=np.array([1.0, 0.0]))
    assert maximise(impossible, np.ones(2)) is None


def test_fixed_columns_keep_their_value() -> None:
    held = replace(one_pool(10.0, 1.0, 1.0), low=np.array([0.5, 0.0]), high=np.array([0.5, np.inf]))
    found = maximise(held, np.ones(2))
    assert found is not None
    assert found[0] == pytest.approx([0.5, 10 * 0.5 / 10.5], rel=1e-7)


def test_linear_arcs_are_curves_as_well() -> None:
    held = one_pool(1.0, 1.0, 1.0)
    par = np.zeros((1, WIDTH))
    par[0, 0] = 0.25
    linear = Curves(held.curves.head, np.array([LINEAR], np.int8), par)
    found = maximise(replace(held, curves=linear), np.ones(2))
    assert found is not None
    assert found[0] == pytest.approx([1.0, 0.25], rel=1e-7)


@pytest.mark.parametrize("seed", range(60))
def test_whole_curves_and_segments_agree(seed: int) -> None:
    market, intents = random_batch(random.Random(30_000_000 + seed))
    problem = problem_of(market, intents)
    segments = program.solve(problem)
    whole = program.solve(replace(problem, guess=np.maximum(segments.nu, 1e-3)))
    volume = sum(order.size for order in problem.orders)
    assert whole.value == pytest.approx(segments.value, abs=1e-6 * volume)

"""The compiled kernels against finite differences, against one another and against exact pools."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.markets import Shape, generate
from solver.core import curves, kernels
from solver.core.kernels import LINEAR, LOG, PRODUCT, STABLE, WEIGHTED, WIDTH, Array
from solver.core.routing import arcs as table_kernels
from solver.core.routing.arcs import STEPS, TICKS
from solver.core.routing.network import Network
from solver.core.types import Exact
from solver.core.venue import DeclaresArcs, StableArc
from tests.curves import stable_out_real
from tests.make import A, B, C
from tests.routes import rounding, units_in

QUIET = settings(max_examples=60, deadline=None, derandomize=True)
SIZE = st.floats(1e-3, 1e12)
GAMMA = st.floats(0.9, 1.0)
BENT = (PRODUCT, WEIGHTED, STABLE)


@st.composite
def levels(draw: st.DrawFn, kinds: tuple[int, ...]) -> tuple[int, Array, float]:
    """Kind, numbers and a natural size of the input."""
    kind = draw(st.sampled_from(kinds))
    p = np.zeros(WIDTH)
    if kind == LINEAR:
        p[0] = draw(st.floats(1e-9, 1e9))
        return kind, p, 1.0
    if kind == STABLE:
        arc = draw(stable_arcs())
        numbers = curves.stable_numbers(arc)
        assert numbers is not None
        p[:] = numbers
        return kind, p, p[0] / p[2]
    p[0], p[1], p[2] = draw(SIZE), draw(SIZE), draw(GAMMA)
    if kind == WEIGHTED:
        p[3] = draw(st.floats(1 / 99, 99.0))
    if kind == LOG:
        p[1] = draw(st.sampled_from([1.0, -1.0])) / draw(SIZE)
        return kind, p, 1.0 / abs(p[1])
    return kind, p, p[0] / p[2]


@st.composite
def stable_arcs(draw: st.DrawFn) -> StableArc:
    n = draw(st.integers(2, 5))
    size = draw(st.floats(1.0, 1e9))
    balances = tuple(size * draw(st.floats(0.2, 3.0)) for _ in range(n))
    ann = n * draw(st.sampled_from([1.0, 7.0, 200.0, 5000.0, 1e6]))
    scales = tuple(draw(st.sampled_from([1.0, 1e-3, 1.2])) for _ in range(n))
    return StableArc(A, B, 0, 1, balances, scales, ann, draw(st.sampled_from([0.0, 4e-4])), 0.0)


@QUIET
@given(levels((LINEAR, PRODUCT, WEIGHTED, STABLE, LOG)), st.floats(1e-4, 3.0))
def test_slope_and_bend_are_derivatives(level: tuple[int, Array, float], share: float) -> None:
    kind, p, size = level
    if kind == LOG and p[1] < 0.0:
        share = share / 3.2
    x, h = share * size, 1e-4 * share * size
    near, far = ([kernels.level_output(kind, p, x + k * h) for k in (-n, n)] for n in (1, 2))
    slope = kernels.level_slope(kind, p, x)
    lost = 1e-15 * abs(far[1]) / h  # digits of nearly equal outputs
    if kind == STABLE:  # −b = Σ others − D loses more of them where the pool is nearly flat
        lost *= 100.0
    rise = (8.0 * (near[1] - near[0]) - (far[1] - far[0])) / (12.0 * h)  # its error is O(h⁴)
    assert rise == pytest.approx(slope, rel=1e-9, abs=lost)
    slopes = [kernels.level_slope(kind, p, x + k * h) for k in (-1, 1)]
    bend = kernels.level_bend(kind, p, x)
    noise = 1e-11 * abs(slope) / h  # what is left of the digits of nearly equal slopes
    if kind == STABLE:  # −b = Σ others − D loses digits where the pool is nearly flat
        noise *= 100.0
    assert (slopes[1] - slopes[0]) / (2 * h) == pytest.approx(bend, rel=1e-5, abs=noise)
    assert bend <= 0.0
    assert kernels.level_output(kind, p, 0.0) == 0.0


@QUIET
@given(levels(BENT), st.floats(1e-6, 1e3))
def test_input_at_inverts_the_slope(level: tuple[int, Array, float], share: float) -> None:
    kind, p, size = level
    x = share * size
    r = kernels.level_slope(kind, p, x)
    # f′ is flat where the curve is: the found point has the wanted slope, if not the same x
    found = kernels.level_input_at(kind, p, inf, r)
    assert kernels.level_slope(kind, p, found) == pytest.approx(r, rel=1e-11)
    assert kernels.level_input_at(kind, p, 0.5 * x, r) == pytest.approx(0.5 * x, rel=1e-9)
    start = kernels.level_slope(kind, p, 0.0)
    assert kernels.level_input_at(kind, p, inf, start * 1.0001) == 0.0


def test_a_line_is_taken_whole_or_not_at_all() -> None:
    p = np.array([2.0, 0, 0, 0, 0, 0])
    assert kernels.level_input_at(LINEAR, p, 7.0, 2.0) == 7.0
    assert kernels.level_input_at(LINEAR, p, 7.0, 2.0000001) == 0.0


@QUIET
@given(levels((PRODUCT, WEIGHTED, STABLE, LOG)), st.lists(st.floats(1e-9, 0.3), min_size=3))
def test_concave_rising_below_the_first_slope(
    level: tuple[int, Array, float], shares: list[float]
) -> None:
    kind, p, size = level
    xs = sorted(share * size for share in shares)
    first = kernels.level_slope(kind, p, 0.0)
    for low, high in pairwise(xs):
        middle = 0.5 * (low + high)
        f = [kernels.level_output(kind, p, x) for x in (low, middle, high)]
        assert f[1] >= 0.5 * (f[0] + f[2]) - 1e-14 * abs(f[1])
        assert f[0] <= f[2] if first > 0.0 else f[0] >= f[2]
        assert f[0] <= first * low + 1e-14 * abs(f[0])
        assert kernels.level_slope(kind, p, low) >= kernels.level_slope(kind, p, high) * (1 - 1e-12)


@QUIET
@given(levels(BENT))
def test_the_supremum_is_the_limit(level: tuple[int, Array, float]) -> None:
    kind, p, size = level
    top = kernels.supremum(kind, p)
    assert kernels.level_output(kind, p, 1e3 * size) <= top
    far = 1e200 if kind == WEIGHTED else 1e15
    least = 0.0 if kind == WEIGHTED and p[3] < 0.1 else 1.0 - 1e-6
    assert kernels.level_output(kind, p, far * size) >= least * top


@QUIET
@given(stable_arcs(), st.floats(1e-10, 2.0))
def test_a_stable_level_keeps_its_digits(arc: StableArc, share: float) -> None:
    """A dust trade in a deep pool: the difference of two balances has to survive."""
    numbers = curves.stable_numbers(arc)
    assert numbers is not None
    amount = share * arc.balances[0] / arc.scales[0]
    exact = stable_out_real(arc, amount)
    found = kernels.level_output(STABLE, np.array(numbers), amount)
    unit = 2e-11 / arc.scales[1]  # of the integers in the check
    assert found == pytest.approx(exact, rel=1e-9, abs=unit)


@pytest.mark.parametrize("seed", range(4))
def test_arcs_of_a_network_equal_levels_and_integers(seed: int) -> None:
    market = generate(Shape(60), seed)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(seed)
    kinds = set()
    for a in range(network.arc_count):
        pool = network.pools[network.pool[a]]
        assert isinstance(pool, DeclaresArcs)
        ends = network.tokens[network.tail[a]], network.tokens[network.head[a]]
        arc = next(arc for arc in pool.arcs() if (arc.token_in, arc.token_out) == ends)
        rows = curves.levels(arc)
        unit_in, unit_out = network.unit[network.tail[a]], network.unit[network.head[a]]
        kind, p, place = network.kind[a], network.par[a], network.table[a]
        room = table_kernels.arc_capacity(kind, p, place, network.rows)
        assert room == pytest.approx(sum(row[2] for row in rows) / unit_in, rel=1e-9)
        sizes = 10.0 ** rng.uniform(-6, 6, 4)
        for x in (*sizes, 0.5 * room) if room < inf else sizes:
            given_ = table_kernels.arc_output(kind, p, place, network.rows, x)
            assert given_ == pytest.approx(_by_levels(rows, x * unit_in) / unit_out, rel=1e-9)
            _check_integers(network, a, float(x), given_)
        kinds.add(int(kind))
        first = table_kernels.arc_spot(kind, p, place, network.rows)
        tiny = min(1e-9, 1e-3 * room)
        assert table_kernels.arc_output(kind, p, place, network.rows, tiny) == pytest.approx(
            first * tiny, rel=1e-6
        )
        assert network.spot[a] == first
    assert {TICKS, STEPS, PRODUCT, WEIGHTED, STABLE} == kinds


def _by_levels(rows: list[curves.Level], amount: float) -> float:
    given_ = 0.0
    for kind, numbers, capacity in rows:
        p = np.zeros(WIDTH)
        p[: len(numbers)] = numbers
        used = min(amount, capacity)
        given_ += kernels.level_output(kind, p, used)
        amount -= used
        if amount <= 0.0:
            break
    return given_


def _check_integers(network: Network, a: int, x: float, given_: float) -> None:
    """The pool's swap gives as much, less rounding (and lots), and never more."""
    pool = network.pools[network.pool[a]]
    unit_in, unit_out = network.unit[network.tail[a]], network.unit[network.head[a]]
    ends = network.tokens[network.tail[a]], network.tokens[network.head[a]]
    amount = int(x * unit_in)
    step = pool.swap(*ends, amount, Exact.IN)
    if step.amount_in < amount or network.kind[a] == STEPS:
        return  # lots, or the limit of a trade
    loose = 1e-9 * given_ * unit_out + float(rounding(pool, *ends))
    assert step.amount_out <= given_ * unit_out * (1 + 1e-9) + 1
    loose += units_in(pool) * network.spot[a] * unit_out / unit_in
    assert step.amount_out >= given_ * unit_out - loose


@pytest.mark.parametrize("seed", range(3))
def test_best_trades_beat_all_others(seed: int) -> None:
    market = generate(Shape(40), seed)
    network = Network(market.pools, market.prices)
    rng = np.random.default_rng(seed)
    for a in range(network.arc_count):
        kind, p, place = network.kind[a], network.par[a], network.table[a]
        price_in, price_out = 1.0, 1.0 + 10.0 ** rng.uniform(-4, 1)
        x, value = table_kernels.arc_best(kind, p, place, network.rows, price_in, price_out)
        assert value >= 0.0
        assert x < inf
        got = price_out * table_kernels.arc_output(kind, p, place, network.rows, x) - price_in * x
        assert value == pytest.approx(max(got, 0.0), rel=1e-9, abs=1e-12 * x)
        for factor in (0.0, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
            other = max(x, 1.0) * factor
            got = table_kernels.arc_output(kind, p, place, network.rows, other)
            assert price_out * got - price_in * other <= value + 1e-12 * max(other, x)


def test_tokens_without_a_price_take_no_part() -> None:
    market = generate(Shape(30), 2)
    for nothing in (0.0, -1.0, float("nan"), inf):
        prices = {**market.prices, market.hubs[1]: nothing}
        network = Network(market.pools, prices)
        assert market.hubs[1] not in network.index
        assert np.all(np.isfinite(network.spot))
    assert C not in Network(market.pools, market.prices).index

"""What others do, on our arrays: the routers that the engine is compared with.

Each baseline takes a network, a pair of its tokens, an amount in numeraire and a price of gas, and
returns a route executed in exact integers. They search compiled and see every pool, with the gas of
each; where a published router reads a few pools only, ours is the stronger. Written from the
published descriptions of the methods, no code taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from msgspec import Struct
from scipy.sparse import csr_array

from benchmarks import search
from benchmarks.exact import Answer, Gas, along_flow, along_paths, base_units
from solver.core.kernels import PRODUCT, WEIGHTED, Array, IntArray
from solver.core.routing.arcs import IndexArray
from solver.core.routing.extension import gaining
from solver.core.routing.flow import order_tokens, prune
from solver.core.routing.joint import joint_total
from solver.core.routing.labels import select
from solver.core.routing.network import Network

_GRID = 20
_MOST_SPLITS = 7
_PATHS = 8
_PER_SIZE = 60
_MOST_PATHS = 6_000
_SIZES = (1.0 / 20.0, 1.0 / 8.0, 1.0 / 2.0, 1.0)
_FRANK_WOLFE_PATHS = 4
_LEAST_SHARE = 0.05
_LINE_EVALUATIONS = 12
_GOLDEN = (5.0**0.5 - 1.0) / 2.0
_MOST_CONIC_ARCS = 3_000


class Order(Struct, frozen=True):
    """Sell ``amount`` (numeraire) of token ``source`` for token ``target``."""

    source: int
    target: int
    amount: float


class Conic(Struct, frozen=True):
    """What Clarabel says: value and bound in numeraire, the executed route; None of them if the
    solver did not converge, with its status.
    """

    status: str
    value: float | None = None
    bound: float | None = None
    answer: Answer | None = None


def _charge(network: Network, gas: Gas) -> Array:
    return np.asarray(network.pool_gas[network.pool] * gas.price)


def _best(network: Network, order: Order, amount: float, charge: Array, prior: Array) -> list[int]:
    found = np.empty(search.MOST_HOPS, np.int64)
    hops, _ = search.best_path(
        network.out_start, network.out_arc, network.in_start, network.in_arc, network.tail,
        network.head, network.pool, charge, prior, network.kind, network.par, network.table,
        network.rows, order.source, order.target, amount, found,
    )  # fmt: skip
    return [int(a) for a in found[:hops]]


def single_path(network: Network, order: Order, gas: Gas) -> Answer | None:
    """The best path of at most three hops over all pools, net of gas (CoW's baseline solver)."""
    prior = np.zeros(network.arc_count)
    path = _best(network, order, order.amount, _charge(network, gas), prior)
    if not path:
        return None
    amount = base_units(network, order.source, order.amount)
    return along_paths(network, order.target, amount, [path], [1.0], gas)


def _candidates(network: Network, order: Order) -> IntArray:
    """All paths over the arcs that lie on the best paths at several sizes, and the best path."""
    chosen = np.zeros(network.arc_count)
    for share in _SIZES:
        select(
            network.out_start, network.out_arc, network.in_start, network.in_arc,
            network.tail, network.head, network.rates(share * order.amount),
            order.source, order.target, _PER_SIZE, chosen,
        )  # fmt: skip
    arcs = np.nonzero(chosen)[0]
    arcs = arcs[np.argsort(-chosen[arcs], kind="stable")]
    found = np.empty((_MOST_PATHS, search.MOST_HOPS), np.int64)
    count = search.all_paths(
        arcs, network.tail, network.head, network.pool, order.source, order.target, found
    )
    return found[:count]


def _quotes(network: Network, paths: IntArray, sizes: Array) -> Array:
    prior = np.zeros(network.arc_count)
    return np.asarray(
        search.quotes(paths, sizes, prior, network.kind, network.par, network.table, network.rows)
    )


def _path_charges(paths: IntArray, charge: Array) -> Array:
    return np.asarray(np.where(paths >= 0, charge[np.maximum(paths, 0)], 0.0).sum(axis=1))


def grid(network: Network, order: Order, gas: Gas) -> Answer | None:
    """A 5 % grid with at most seven splits, no pool twice (Uniswap's smart order router)."""
    paths = _candidates(network, order)
    if not len(paths):
        return None
    sizes = order.amount * np.arange(1, _GRID + 1) / _GRID
    net = _quotes(network, paths, sizes)
    net -= _path_charges(paths, _charge(network, gas))[:, None]
    ranked = np.argsort(-net, axis=0, kind="stable")
    best = np.full((_MOST_SPLITS, 2), -1, np.int64)
    search.best_grid(paths, net, ranked, network.pool, _MOST_SPLITS, best)
    best = best[best[:, 0] >= 0]
    amount = base_units(network, order.source, order.amount)
    return along_paths(
        network, order.target, amount, [_arcs(paths[p]) for p in best[:, 0]],
        [float(part) / _GRID for part in best[:, 1]], gas,
    )  # fmt: skip


def _arcs(path: IntArray) -> list[int]:
    return [int(a) for a in path if a >= 0]


def _disjoint(network: Network, paths: IntArray, worth: Array, most: int) -> IntArray:
    """The best paths without common pools."""
    used: set[int] = set()
    chosen = []
    for p in np.argsort(-worth, kind="stable"):
        pools = {int(network.pool[a]) for a in paths[p] if a >= 0}
        if used.isdisjoint(pools):
            used |= pools
            chosen.append(int(p))
            if len(chosen) == most:
                break
    return paths[chosen]


def equal_margins(network: Network, order: Order, gas: Gas) -> Answer | None:
    """Equal marginal prices over the best paths without common pools, as many as pay for gas.

    At most eight paths, ranked by their quote for an eighth of the order and for all of it; the
    better ranking and number of paths counts (Balancer's SOR equalises in this way).
    """
    paths = _candidates(network, order)
    if not len(paths):
        return None
    charge = _charge(network, gas)
    costs = _path_charges(paths, charge)
    sizes = order.amount * np.array([1.0 / _PATHS, 1.0])
    outputs = _quotes(network, paths, sizes)
    prior = np.zeros(network.arc_count)
    best: tuple[float, IntArray, Array] | None = None
    for column in range(len(sizes)):
        # an eighth of the order is not asked to pay for whole pools; charges count below
        cost = costs * (sizes[column] / order.amount)
        ranked = _disjoint(network, paths, outputs[:, column] - cost, _PATHS)
        for count in range(1, len(ranked) + 1):
            some = ranked[:count]
            share = np.empty(count)
            value = search.equalise(
                some, order.amount, prior, network.kind, network.par, network.table,
                network.rows, share,
            )  # fmt: skip
            net = value - float(_path_charges(some, charge).sum())
            if best is None or net > best[0]:
                best = net, some, share
    assert best is not None
    _, some, share = best
    amount = base_units(network, order.source, order.amount)
    return along_paths(
        network, order.target, amount, [_arcs(path) for path in some],
        [float(x) / order.amount for x in share], gas,
    )  # fmt: skip


class _Split:
    """Paths with shares, which may have arcs in common."""

    def __init__(self, network: Network, order: Order, charge: Array) -> None:
        self._network, self._order, self._charge = network, order, charge
        self._prior = np.zeros(network.arc_count)

    def output(self, paths: IntArray, share: Array) -> tuple[float, IntArray]:
        """What arrives net of gas, and the arcs used; their flow stays in the state."""
        network = self._network
        touched = np.empty(search.MOST_HOPS * len(paths), np.int64)
        value, count = search.split_output(
            paths, share, self._order.amount, network.kind, network.par, network.table,
            network.rows, self._prior, touched,
        )  # fmt: skip
        used = touched[:count]
        pools = np.unique(network.pool[used])
        first = network.first_arc[pools]
        return value - float(self._charge[first].sum()), used

    def net(self, paths: IntArray, share: Array) -> float:
        """What arrives net of gas."""
        value, used = self.output(paths, share)
        self._prior[used] = 0.0
        return value

    def next_path(self, paths: IntArray, share: Array, size: float) -> list[int]:
        """The best path for ``size`` more when these are in use: their pools are paid already."""
        network = self._network
        _, used = self.output(paths, share)
        charge = self._charge.copy()
        for pool in np.unique(network.pool[used]):
            charge[network.first_arc[pool] : network.first_arc[pool + 1]] = 0.0
        # no path back through a pool against its flow: its price there is not this one's
        opposed = np.isin(network.pool, network.pool[used])
        opposed[used] = False
        charge[opposed] = np.inf
        path = _best(network, self._order, size, charge, self._prior)
        self._prior[used] = 0.0
        return path


def frank_wolfe(network: Network, order: Order, gas: Gas) -> Answer | None:
    """Path Frank–Wolfe with fynd's defaults: 4 paths, at least 5 % each, 12 evaluations a line.

    Starts from the best path; each round finds the best path at the state that the flow so far
    leaves and moves the share to it that a line search finds best, net of gas.
    """
    charge = _charge(network, gas)
    split = _Split(network, order, charge)
    first = _best(network, order, order.amount, charge, np.zeros(network.arc_count))
    if not first:
        return None
    paths = _rows([first])
    share = np.ones(1)
    value = split.net(paths, share)
    for _ in range(_FRANK_WOLFE_PATHS - 1):
        improved = False
        for size in (_LEAST_SHARE, 0.25):
            path = split.next_path(paths, share * (1.0 - size), size * order.amount)
            if not path or any(path == _arcs(row) for row in paths):
                continue
            more = np.vstack([paths, _rows([path])])
            step, net = _line(split, more, share)
            if net > value:
                paths, value = more, net
                share = np.append(share * (1.0 - step), step)
                improved = True
                break
        if not improved:
            break
    amount = base_units(network, order.source, order.amount)
    return along_paths(
        network, order.target, amount, [_arcs(path) for path in paths],
        [float(part) for part in share], gas,
    )  # fmt: skip


def _rows(paths: list[list[int]]) -> IntArray:
    rows = np.full((len(paths), search.MOST_HOPS), -1, np.int64)
    for k, path in enumerate(paths):
        rows[k, : len(path)] = path
    return rows


def _line(split: _Split, paths: IntArray, share: Array) -> tuple[float, float]:
    """Golden section for the share of the last path; no path falls below the least share."""
    low, high = _LEAST_SHARE, 1.0 - _LEAST_SHARE / float(share.min())
    if high <= low:
        return 0.0, -np.inf

    def net(step: float) -> float:
        return split.net(paths, np.append(share * (1.0 - step), step))

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    net_left, net_right = net(left), net(right)
    for _ in range(_LINE_EVALUATIONS - 2):
        if net_left > net_right:
            high, right, net_right = right, left, net_left
            left = high - _GOLDEN * (high - low)
            net_left = net(left)
        else:
            low, left, net_left = left, right, net_right
            right = low + _GOLDEN * (high - low)
            net_right = net(right)
    return (left, net_left) if net_left > net_right else (right, net_right)


BASELINES: dict[str, Callable[[Network, Order, Gas], Answer | None]] = {
    "single path": single_path,
    "5 % grid": grid,
    "equal margins": equal_margins,
    "Frank–Wolfe": frank_wolfe,
}


def conic(network: Network, order: Order, gas: Gas, tolerance: float = 1e-9) -> Conic:
    """cvxpy and Clarabel on the whole network, which must be product and weighted arcs only.

    Blind to gas: the optimum of the convex program and its dual value, to check ours by other code.
    Cycles are part of the program, so in a noisy market the value is V(Δ), not a user's fill.
    """
    cvxpy: Any = import_module("cvxpy")  # seconds to import, and only this baseline needs it
    if not np.isin(network.kind, (PRODUCT, WEIGHTED)).all():
        raise ValueError("a conic program here has product and weighted arcs only")
    if network.arc_count > _MOST_CONIC_ARCS:
        return Conic(f"{network.arc_count} arcs are more than {_MOST_CONIC_ARCS}")
    par, size = network.par, network.arc_count
    a, b = par[:, 0] / order.amount, par[:, 1] / order.amount
    x, y = cvxpy.Variable(size, nonneg=True), cvxpy.Variable(size)
    grown = 1.0 + cvxpy.multiply(par[:, 2] / a, x)
    power = np.where(network.kind == PRODUCT, 1.0, par[:, 3])
    rules = []
    for exponent in np.unique(power):
        same = np.nonzero(power == exponent)[0]
        rules.append(y[same] <= cvxpy.multiply(b[same], 1.0 - cvxpy.power(grown[same], -exponent)))
    count = len(network.tokens)
    into = _incidence(network.head, count)
    out_of = _incidence(network.tail, count)
    given = np.zeros(count)
    given[order.source] = 1.0
    kept = np.arange(count) != order.target
    conserve = (into @ y - out_of @ x + given)[kept] >= 0.0
    arriving = (into @ y - out_of @ x)[order.target]
    problem = cvxpy.Problem(cvxpy.Maximize(arriving), [*rules, conserve])
    status = ""
    for accuracy in (tolerance, 1e2 * tolerance):  # what Clarabel cannot do to 1e-9 it may to 1e-7
        status = _solve(cvxpy, problem, accuracy)
        if status == "optimal":
            break
    if status != "optimal":
        return Conic(f"did not converge: {status}")
    nu = np.zeros(count)
    nu[kept] = np.abs(conserve.dual_value)
    nu[order.target] = 1.0
    bound = prices_bound(network, order, nu)
    answer = _executed(network, order, np.maximum(x.value, 0.0), gas)
    return Conic("optimal", float(problem.value) * order.amount, bound, answer)


def _solve(cvxpy: Any, problem: Any, accuracy: float) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the status says the same
        try:
            problem.solve(
                solver=cvxpy.CLARABEL, tol_gap_abs=accuracy, tol_gap_rel=accuracy,
                tol_feas=accuracy,
            )  # fmt: skip
        except cvxpy.SolverError as error:
            return str(error)
    return str(problem.status)


def _incidence(tokens: IndexArray, count: int) -> Any:
    size = len(tokens)
    return csr_array((np.ones(size), (tokens, np.arange(size))), shape=(count, size))


def prices_bound(network: Network, order: Order, nu: Array) -> float:
    """g(ν) = ν_A·Δ + Σ over all pools of the most that a trade gains at ν, in numeraire."""
    everywhere = np.arange(len(network.tokens))
    arcs, gains = gaining(
        everywhere, network.out_start, network.out_arc, network.head, network.spot, nu,
        network.kind, network.par, network.table, network.rows,
    )  # fmt: skip
    joint = network.joint
    none = np.zeros(len(joint.ann))
    gained = joint_total(
        joint.of_pool[network.pool[arcs]], gains, joint.start, joint.token, joint.reserve,
        joint.weight, joint.into, joint.out, joint.excess, nu, none, none, True,
    )  # fmt: skip
    return float(nu[order.source]) * order.amount + float(gained)


def _executed(network: Network, order: Order, flow: Array, gas: Gas) -> Answer | None:
    """The best replay of a flow: dust dropped at several thresholds."""
    tail, head = network.tail.astype(np.int64), network.head.astype(np.int64)
    count = len(network.tokens)
    amount = base_units(network, order.source, order.amount)
    best: Answer | None = None
    for threshold in (1e-7, 1e-5, 1e-3):
        kept = flow > threshold
        prune(tail, head, count, order.source, order.target, kept)
        ranked = order_tokens(tail, head, count, order.source, kept, flow)
        prune(tail, head, count, order.source, order.target, kept)
        rank = np.empty(count, np.int64)
        rank[ranked] = np.arange(len(ranked))
        arcs = np.nonzero(kept)[0]
        arcs = arcs[np.argsort(rank[tail[arcs]], kind="stable")]
        answer = along_flow(network, order.source, order.target, amount, arcs, flow[arcs], gas)
        if best is None or answer.net > best.net:
            best = answer
    return best

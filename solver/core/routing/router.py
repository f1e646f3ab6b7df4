"""One order through the whole graph: candidates, interior point, route, bound, until they meet.

Each round solves the candidate graph, makes a feasible route of the flows, extends the prices to
every token and bounds what any route could pay. Arcs that break the bound join the candidates, with
the way that their price came from, until value and bound are within the tolerance. What is returned
is always a feasible route and a true bound; how far apart they are is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
from msgspec import Struct

from solver.core.kernels import WIDTH, Array, IntArray, level_input_at
from solver.core.routing.arcs import expand
from solver.core.routing.extension import extend, follow, gaining
from solver.core.routing.flow import order_tokens, prune, push
from solver.core.routing.interior import interior_point
from solver.core.routing.labels import select
from solver.core.routing.network import Network

_SIZES = (1.0 / 64.0, 1.0 / 8.0, 1.0)
_PER_SIZE = 60
_MOST_ROUNDS = 12
_ADDED = 150
_PATH = 16
_SLACK = 4e-3
_NEAR = 12e-4
_THRESHOLDS = (1e-6, 3e-5, 5e-4)
_VISITS = 40


class Route(Struct, frozen=True):
    """A feasible route in numeraire and a bound on every route.

    ``arc`` and ``used`` are the arcs in topological order with the input of each; ``value`` is what
    arrives, ``bound`` what no route exceeds, ``nu`` the prices that prove it (ν = 1 at the target).
    """

    source: int
    target: int
    amount: float
    arc: IntArray
    used: Array
    value: float
    bound: float
    nu: Array
    rounds: int
    note: str = ""

    @property
    def gap(self) -> float:
        """(bound − value)/bound."""
        return (self.bound - self.value) / self.bound if self.bound > 0.0 else 0.0


class Warm(Struct, frozen=True):
    """What one solve leaves for the next: candidate arcs, their flows, and every token's ν."""

    arc: IntArray
    flow: Array
    nu: Array


def find_route(
    network: Network,
    source: int,
    target: int,
    amount: float,
    tolerance: float = 1e-5,
    warm: Warm | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Route, Warm | None]:
    """The best route for ``amount`` (numeraire) within ``tolerance``, or as far as ``stop`` lets.

    A warm state that stalls is dropped and the order solved again from nothing.
    """
    search = _Search(network, source, target, amount, tolerance)
    if warm is not None:
        search.resume(warm)
        search.run(stop, most_rounds=6)
        if search.certified or stop():
            return search.answer()
    search.begin()
    search.run(stop, _MOST_ROUNDS)
    return search.answer()


class _Search:
    """The state of one solve."""

    def __init__(
        self, network: Network, source: int, target: int, amount: float, tolerance: float
    ) -> None:
        self._network = network
        self._source, self._target = source, target
        self._amount, self._tolerance = amount, tolerance
        self._candidates: IntArray = np.empty(0, np.int64)
        self._member = np.zeros(network.arc_count, np.bool_)
        self._flow: Array = np.empty(0)
        self._guess: Array | None = None
        self._warm = False
        self._rounds = 0
        self._best: tuple[float, IntArray, Array] = (0.0, np.empty(0, np.int64), np.empty(0))
        self._bound = inf
        self._bound_nu: Array = np.zeros(len(network.tokens))
        self._last_nu: Array | None = None
        self._note = ""

    @property
    def certified(self) -> bool:
        """Whether value and bound are within the tolerance."""
        return self._bound - self._best[0] <= self._tolerance * self._bound

    def begin(self) -> None:
        """Candidates from labels at three sizes."""
        network = self._network
        chosen = np.zeros(network.arc_count)
        guess = np.zeros(len(network.tokens))
        for share in _SIZES:
            reach = select(
                network.out_start, network.out_arc, network.in_start, network.in_arc,
                network.tail, network.head, network.rates(share * self._amount),
                self._source, self._target, _PER_SIZE, chosen,
            )  # fmt: skip
            guess = np.maximum(guess, reach)
        self._member[:] = False
        self._candidates = np.empty(0, np.int64)
        self._flow = np.empty(0)
        self._warm = False
        self._guess = guess
        self._add(np.nonzero(chosen)[0])

    def resume(self, warm: Warm) -> None:
        """Candidates and prices of the block before."""
        self._guess = warm.nu
        self._warm = True
        self._add(warm.arc)
        self._flow = warm.flow.copy()

    def run(self, stop: Callable[[], bool], most_rounds: int) -> None:
        """Rounds until certified, stopped, or nothing more changes."""
        threshold, accuracy = 1e-5, 1.0
        before = inf
        for _ in range(most_rounds):
            self._rounds += 1
            solved = self._solve(accuracy)
            if solved is None:
                return
            tokens, nu, inflow = solved
            grew = self._prove(tokens, nu, inflow, threshold)
            if self.certified or stop():
                return
            gap = self._bound - self._best[0]
            if gap > 0.5 * before or not grew:
                threshold *= 1e-4
                accuracy *= 0.3
                if threshold < 1e-30:
                    return
            before = gap

    def answer(self) -> tuple[Route, Warm | None]:
        """The best route and bound so far."""
        value, arc, used = self._best
        route = Route(
            self._source, self._target, self._amount, arc, used, value, self._bound,
            self._bound_nu, self._rounds, self._note,
        )  # fmt: skip
        if self._last_nu is None:
            return route, None
        return route, self._state(self._last_nu)

    def _state(self, nu: Array) -> Warm:
        network = self._network
        arcs = self._candidates
        near = network.spot[arcs] * nu[network.head[arcs]] >= nu[network.tail[arcs]] * (1 - _NEAR)
        kept = near | (self._flow > 1e-6)
        return Warm(arcs[kept], self._flow[kept], nu)

    def _add(self, arcs: IntArray) -> None:
        fresh = arcs[~self._member[arcs]]
        self._member[fresh] = True
        self._candidates = np.concatenate([self._candidates, fresh])
        self._flow = np.concatenate([self._flow, np.zeros(len(fresh))])

    def _solve(self, accuracy: float) -> tuple[IntArray, Array, Array] | None:
        """Interior point and route on the candidates: local tokens, their ν, flow into each."""
        network = self._network
        local = _localise(network, self._candidates, self._source, self._target)
        if local is None:
            self._note = "no_route"
            self._bound = 0.0 if self._bound == inf else self._bound
            return None
        tokens, tail, head, place = local
        arcs = self._candidates[place]
        guess = self._guess
        assert guess is not None
        start = np.maximum(guess[tokens], 1e-6)
        level = _levels(network, arcs, start[tail], start[head], self._amount)
        arc_of, kind, par, capacity = level
        flow = self._flow[place]
        x = np.minimum(0.4 * capacity, 0.03)
        if self._warm:
            x = np.minimum(np.maximum(_spread(flow, arc_of, capacity), 1e-4), 0.9 * capacity)
        nu = start.copy()
        solved, _ = interior_point(
            tail[arc_of], head[arc_of], kind, par, capacity, 0, 1, x, nu,
            1e-4 if self._warm else 1e-2, self._tolerance * accuracy,
        )  # fmt: skip
        if not solved and self._warm:
            x = np.minimum(0.4 * capacity, 0.03)
            nu = start.copy()
            solved, _ = interior_point(
                tail[arc_of], head[arc_of], kind, par, capacity, 0, 1, x, nu, 1e-2,
                self._tolerance * accuracy,
            )  # fmt: skip
        if not np.all(np.isfinite(x)) or not np.all(np.isfinite(nu)):
            self._note = "interior point failed"
            return None
        flow = np.bincount(arc_of, weights=x, minlength=len(arcs))
        self._flow[:] = 0.0
        self._flow[place] = flow
        self._improve(arcs, tail, head, len(tokens), flow)
        inflow = np.bincount(head, weights=flow, minlength=len(tokens))
        return tokens, nu, inflow

    def _improve(
        self, arcs: IntArray, tail: IntArray, head: IntArray, tokens: int, flow: Array
    ) -> None:
        network = self._network
        for threshold in _THRESHOLDS:
            kept = flow > threshold
            prune(tail, head, tokens, 0, 1, kept)
            order = order_tokens(tail, head, tokens, 0, kept, flow)
            prune(tail, head, tokens, 0, 1, kept)
            used = np.zeros(len(arcs))
            value = push(
                order, tail, head, kept, flow, tokens, 0, 1, self._amount, arcs,
                network.kind, network.par, network.table, network.rows, used,
            )  # fmt: skip
            if value > self._best[0]:
                rank = np.empty(tokens, np.int64)
                rank[order] = np.arange(len(order))
                there = np.nonzero(used > 0.0)[0]
                there = there[np.argsort(rank[tail[there]], kind="stable")]
                self._best = (value, arcs[there], used[there])

    def _prove(self, tokens: IntArray, nu: Array, inflow: Array, threshold: float) -> bool:
        """Extend the prices, keep the bound if it is better, add what breaks it."""
        network = self._network
        cap = np.full(len(network.tokens), inf)
        fixed = tokens[(inflow > threshold) | (tokens == self._source)]
        cap[tokens] = np.where((inflow > threshold) | (tokens == self._source), nu, inf)
        cap[self._target] = 1.0
        whole = np.empty(len(network.tokens))
        ended = extend(
            network.in_start, network.in_tail, network.in_spot, cap, self._target, _VISITS, whole
        )
        if not ended:
            self._note = "gaining cycle"
            return False
        capped = np.unique(np.append(fixed, self._target))
        arcs, gains = gaining(
            capped, network.out_start, network.out_arc, network.head, network.spot, whole,
            network.kind, network.par, network.table, network.rows,
        )  # fmt: skip
        bound = float(whole[self._source]) * self._amount + float(np.sum(gains))
        self._last_nu = whole
        if bound < self._bound:
            self._bound, self._bound_nu = bound, whole
        if self._bound - self._best[0] <= self._tolerance * self._bound:
            return True
        fresh = ~self._member[arcs]
        arcs, gains = arcs[fresh], gains[fresh]
        if len(arcs) == 0:
            return False
        if len(arcs) > _ADDED:
            top = np.argpartition(-gains, _ADDED)[:_ADDED]
            arcs = arcs[np.sort(top)]
        found = np.empty(_PATH, np.int64)
        more = [arcs]
        for a in arcs:
            count = follow(
                int(network.head[a]), network.out_start, network.out_arc, network.head,
                network.spot, whole, cap, self._target, _PATH, found,
            )  # fmt: skip
            more.append(found[:count].copy())
        self._guess = whole
        self._warm = False
        self._add(np.unique(np.concatenate(more)))
        return True


def _localise(
    network: Network, candidates: IntArray, source: int, target: int
) -> tuple[IntArray, IntArray, IntArray, IntArray] | None:
    """Local tokens (source 0, target 1), local tail and head, and which candidates take part."""
    tokens, inverse = np.unique(
        np.concatenate([[source, target], network.tail[candidates], network.head[candidates]]),
        return_inverse=True,
    )
    count = len(candidates)
    tail, head = inverse[2 : 2 + count], inverse[2 + count :]
    kept = np.ones(count, np.bool_)
    prune(tail, head, len(tokens), int(inverse[0]), int(inverse[1]), kept)
    place = np.nonzero(kept)[0]
    if len(place) == 0:
        return None
    tokens, inverse = np.unique(
        np.concatenate([network.tail[candidates[place]], network.head[candidates[place]]]),
        return_inverse=True,
    )
    # ascending degree keeps the factor sparse; source and target come first by convention
    degree = np.bincount(inverse, minlength=len(tokens)).astype(float)
    degree[tokens == source] = -2.0
    degree[tokens == target] = -1.0
    order = np.argsort(degree, kind="stable")
    rank = np.empty(len(tokens), np.int64)
    rank[order] = np.arange(len(tokens))
    local = rank[inverse]
    return tokens[order].astype(np.int64), local[: len(place)], local[len(place) :], place


def _levels(
    network: Network, arcs: IntArray, price_in: Array, price_out: Array, amount: float
) -> tuple[IntArray, Array, Array, Array]:
    """Levels of the arcs with flows in units of the order: arc position, kind, numbers, capacity."""
    room = 4 * len(arcs) + 64
    while True:
        arc_of = np.empty(room, np.int64)
        kind = np.zeros(room, np.int8)
        par = np.zeros((room, WIDTH))
        capacity = np.empty(room)
        n = expand(
            arcs, price_in, price_out, _SLACK, 2.0 * amount, network.kind, network.par,
            network.table, network.rows, arc_of, kind, par, capacity,
        )  # fmt: skip
        if n >= 0:
            break
        room *= 2
    arc_of, kind, par, capacity = arc_of[:n], kind[:n], par[:n], capacity[:n]
    pooled = (kind == 1) | (kind == 2)
    par[pooled, :2] /= amount
    stable = kind == 3
    par[stable, 2] *= amount
    par[stable, 3] /= amount
    return arc_of, kind, par, capacity / amount


def _spread(flow: Array, arc_of: IntArray, capacity: Array) -> Array:
    """Flows of arcs over their levels, in order."""
    left = flow.copy()
    x = np.zeros(len(arc_of))
    for k in range(len(arc_of)):
        x[k] = min(left[arc_of[k]], capacity[k])
        left[arc_of[k]] -= x[k]
    return x


__all__ = ["Route", "Warm", "find_route", "level_input_at"]

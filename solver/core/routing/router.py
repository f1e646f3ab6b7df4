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

from solver.core.kernels import Array, IntArray
from solver.core.routing.extension import extend, gaining, moved_pools, ways
from solver.core.routing.flow import order_tokens, prune, push
from solver.core.routing.joint import gaining_pairs, joint_total
from solver.core.routing.labels import fewest_hops, select
from solver.core.routing.model import Local, build_model, localise
from solver.core.routing.network import Network

_SIZES = (1.0 / 64.0, 1.0 / 8.0, 1.0)
_PER_SIZE = 60
_MOST_ROUNDS = 24
_ADDED = 100
_PATH = 16
_NEAR = 12e-4
_MOVED = 1e-6  # of the order: what a joint pool takes that is moved by it
_THRESHOLDS = (1e-6, 3e-5, 5e-4)
_VISITS = 40
_WARM_ROUNDS = 6
_GROWTH = 2.5  # how much longer than the last a round may take
_WHOLE = 0.03
_LOOSE = 1e-3  # gaps above it are worth a pass at the reference prices
_OUTWARD = 1.0 + 1e-12  # what floating point may have lost of a bound
_SCALES = (1.0, 0.03, 30.0, 1e-3, 1e3, 1e-5, 1e5)  # sizes to try where the interior point fails


class Route(Struct, frozen=True):
    """A feasible route in numeraire and a bound on every route.

    ``arc`` and ``used`` are the arcs in topological order with the input of each; ``value`` is what
    arrives, ``bound`` what no route exceeds, ``nu`` the prices that prove it (ν = 1 at the target),
    ``unearned`` their Σ arb(ν).
    """

    source: int
    target: int
    amount: float
    arc: IntArray
    used: Array
    value: float
    bound: float
    nu: Array
    unearned: float
    rounds: int
    note: str = ""

    @property
    def gap(self) -> float:
        """(bound − value)/bound."""
        if self.bound == inf:
            return 1.0
        return (self.bound - self.value) / self.bound if self.bound > 0.0 else 0.0


class Clock(Struct, frozen=True):
    """How long a solve may take: a monotonic ``now`` in seconds, and when it must have ended."""

    now: Callable[[], float]
    deadline: float

    def allows(self, seconds: float) -> bool:
        """Whether so much time is left."""
        return self.now() + seconds < self.deadline


UNLIMITED = Clock(lambda: 0.0, inf)


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
    clock: Clock = UNLIMITED,
    keep_rate: float = 0.0,
) -> tuple[Route, Warm | None]:
    """The best route for ``amount`` (numeraire) within ``tolerance``, or as far as ``clock`` lets.

    A warm state that stalls is dropped and the order solved again from nothing. Where tokens can
    be turned into more of themselves, candidates prove nothing, and all arcs are solved together.
    With a ``keep_rate`` any part may stay unsold at that worth per unit: the route's ``amount`` is
    then what is sold, and value and bound contain what the rest is worth. ValueError for an amount
    that is not positive and finite, and unless source and target are two tokens of the network.
    """
    count = len(network.tokens)
    if source == target or not (0 <= source < count and 0 <= target < count):
        raise ValueError(f"{source} and {target} are not two of {count} tokens")
    if not 0.0 < amount < inf:
        raise ValueError(f"an order of {amount} is not a positive amount")
    search = _Search(network, source, target, amount, tolerance, keep_rate, clock)
    if warm is not None:
        search.resume(warm)
        search.run(_WARM_ROUNDS)
        if search.finished:
            return search.answer()
    if not search.cyclic:
        search.begin()
        search.run(_MOST_ROUNDS)
    if search.cyclic and not search.finished:
        search.run_whole()
    return search.answer()


def fair_prices(network: Network, target: int) -> Array | None:
    """Prices at which no arc gains, 1 at the target; None where a cycle of arcs does."""
    nu = np.empty(len(network.tokens))
    count = len(network.tokens)
    ended = extend(
        network.in_start, network.in_tail, network.in_spot, np.full(count, inf), np.zeros(count),
        target, _VISITS, nu,
    )  # fmt: skip
    gains = ended and bool(
        np.any(network.spot * nu[network.head] > nu[network.tail] * (1.0 + 1e-15))
    )
    return nu if ended and not gains else None


class _Solved(Struct, frozen=True):
    """Local tokens, their ν and inflow; λ and μ of the joint pools, and which of them moved."""

    tokens: IntArray
    nu: Array
    inflow: Array
    lam: Array
    mu: Array
    moved: IntArray


class _Search:
    """The state of one solve."""

    def __init__(
        self,
        network: Network,
        source: int,
        target: int,
        amount: float,
        tolerance: float,
        keep_rate: float,
        clock: Clock,
    ) -> None:
        self._network = network
        self._clock = clock
        self.cyclic = False
        self._keep_rate = keep_rate
        self._source, self._target = source, target
        self._amount, self._tolerance = amount, tolerance
        self._candidates: IntArray = np.empty(0, np.int64)
        self._member = np.zeros(network.arc_count, np.bool_)
        self._useful = np.zeros(network.arc_count, np.bool_)
        self._flow: Array = np.empty(0)
        self._guess: Array | None = None
        self._warm = False
        self._rounds = 0
        nothing = np.empty(0, np.int64), np.empty(0), 0.0 if keep_rate > 0.0 else amount
        self._best: tuple[float, IntArray, Array, float] = (keep_rate * amount, *nothing)
        self._bound = inf
        self._bound_nu: Array = np.zeros(len(network.tokens))
        self._best_guess = inf
        self._pending: tuple[Array, IntArray, Array, Array, Array] | None = None
        self._unearned = 0.0
        self._last_nu: Array | None = None
        self._note = ""

    @property
    def certified(self) -> bool:
        """Whether value and bound are within the tolerance."""
        return self._bound < inf and self._bound - self._best[0] <= self._tolerance * self._bound

    @property
    def finished(self) -> bool:
        """Certified, or out of time with an answer in hand."""
        return self.certified or (self._rounds > 0 and not self._clock.allows(0.0))

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

    def run(self, most_rounds: int) -> None:
        """Rounds until certified, out of time, or nothing more changes."""
        threshold, accuracy = 1e-7, 1e-2
        before, spent = inf, 0.0
        for _ in range(most_rounds):
            started = self._clock.now()
            if self._rounds and not self._clock.allows(_GROWTH * spent):
                return
            self._rounds += 1
            solved = self._solve(accuracy)
            if solved is None:
                return
            grew = self._prove(solved, threshold)
            if self.certified or self.cyclic:
                return
            gap = min(self._bound, self._best_guess) - self._best[0]
            if gap > 0.5 * before or not grew:
                accuracy *= 0.3
                if accuracy < 1e-5:
                    return
            before = gap
            spent = self._clock.now() - started

    def run_whole(self) -> None:
        """One solve over every arc near the reference prices: the bound contains all arbitrage.

        The route is then improved on the arcs that its own flow uses, which have no cycle.
        """
        network = self._network
        self._rounds += 1
        near = np.nonzero(network.spot >= 1.0 - _WHOLE)[0]
        local = localise(network, near, self._source, self._target, whole=True)
        if local is None:
            return
        arcs = near[local.place]
        nu = np.ones(len(local.tokens))
        model = build_model(network, arcs, local, nu, self._amount, np.zeros(len(arcs)))
        x = np.minimum(0.4 * model.capacity, 0.03)
        prices = np.concatenate([nu, model.node_nu])
        model.solve(x, prices, 1e-2, self._tolerance)
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(prices))):
            return
        whole = np.ones(len(network.tokens))
        whole[local.tokens] = prices[: len(local.tokens)]
        self._prove_whole(whole, *model.multipliers(prices))
        flow = model.arc_flow(x)
        if self._keep_rate > 0.0:
            flow = np.minimum(flow, 1.0)
        kept = np.ones(len(arcs), np.bool_)
        prune(local.tail, local.head, len(local.tokens), 0, 1, kept)
        kept &= flow > _THRESHOLDS[0]
        order = order_tokens(local.tail, local.head, len(local.tokens), 0, kept, flow)
        rank = np.full(len(network.tokens), len(order), np.int64)
        rank[local.tokens[order]] = np.arange(len(order))
        forward = rank[network.tail[near]] < rank[network.head[near]]
        self._member[:] = False
        self._candidates, self._flow = np.empty(0, np.int64), np.empty(0)
        self._guess, self._warm = whole, False
        self._add(near[forward])
        self._solve(1.0)

    def _prove_whole(self, nu: Array, lam: Array, mu: Array) -> None:
        """The bound at given prices, over every arc."""
        network = self._network
        nu[self._target] = 1.0
        arcs, gains = gaining(
            np.arange(len(network.tokens)), network.out_start, network.out_arc, network.head,
            network.spot, nu, network.kind, network.par, network.table, network.rows,
        )  # fmt: skip
        self._pending = (nu, network.joint.of_pool[network.pool[arcs]], gains, lam, mu)
        self._settle_bound()

    def _settle_bound(self) -> None:
        """The exact bound of the best prices so far; joint pools make it dearer than the guess."""
        if self._pending is None:
            return
        paid = self._paid(self._pending[0])
        bound = (paid + self._gained(self._pending, exact=True)) * _OUTWARD
        if bound < self._bound:
            self._bound, self._bound_nu = bound, self._pending[0]
            self._unearned = bound - paid
        self._pending = None

    def _paid(self, nu: Array) -> float:
        """What the order's input is worth at prices ν, kept where that is more."""
        return max(float(nu[self._source]), self._keep_rate) * self._amount

    def _gained(self, proof: tuple[Array, IntArray, Array, Array, Array], exact: bool) -> float:
        """Σ arb(ν)."""
        whole, group, gains, lam, mu = proof
        joint = self._network.joint
        return joint_total(
            group, gains, joint.start, joint.token, joint.reserve, joint.weight, joint.into,
            joint.out, joint.excess, whole, lam, mu, exact,
        )  # fmt: skip

    def answer(self) -> tuple[Route, Warm | None]:
        """The best route and bound so far; reference prices prove one where nothing else did."""
        self._settle_bound()
        if self._bound - self._best[0] > _LOOSE * self._amount:
            joints = len(self._network.joint.ann)
            fair = np.ones(len(self._network.tokens))
            self._prove_whole(fair, np.zeros(joints), np.zeros(joints))
        value, arc, used, sold = self._best
        route = Route(
            self._source, self._target, sold, arc, used, value, self._bound,
            self._bound_nu, self._unearned, self._rounds, self._note,
        )  # fmt: skip
        if self._last_nu is None:
            return route, None
        return route, self._state(self._last_nu)

    def _state(self, nu: Array) -> Warm:
        network = self._network
        arcs = self._candidates
        with np.errstate(over="ignore"):  # absurd rates at absurd prices are near, too
            worth = network.spot[arcs] * nu[network.head[arcs]]
        near = worth >= nu[network.tail[arcs]] * (1 - _NEAR)
        kept = near | (self._flow > 1e-6)
        return Warm(arcs[kept], self._flow[kept], nu)

    def _add(self, arcs: IntArray) -> None:
        fresh = arcs[~self._member[arcs]]
        self._member[fresh] = True
        self._candidates = np.concatenate([self._candidates, fresh])
        self._flow = np.concatenate([self._flow, np.zeros(len(fresh))])

    def _solve(self, accuracy: float) -> _Solved | None:
        """Interior point and route on the candidates."""
        network = self._network
        local = localise(network, self._candidates, self._source, self._target)
        if local is None:  # labels see three hops, and a warm state may be of another pair
            self._add(
                fewest_hops(
                    network.out_start, network.out_arc, network.head, network.spot,
                    self._source, self._target,
                )
            )  # fmt: skip
            local = localise(network, self._candidates, self._source, self._target)
        if local is None:
            self._note = "no_route"
            if self._bound == inf:
                self._bound = self._best[0]
            return None
        arcs = self._candidates[local.place]
        self._useful[:] = False
        self._useful[arcs] = True
        guess = self._guess
        assert guess is not None
        nu = np.maximum(guess[local.tokens], 1e-6)
        flow = self._flow[local.place]
        for scale in _SCALES:
            model = build_model(
                network, arcs, local, nu, scale * self._amount, flow, self._keep_rate
            )
            solved = False
            if self._warm:
                x, prices = model.warm_start, np.concatenate([nu, model.node_nu])
                solved = model.solve(x, prices, 1e-4, self._tolerance * accuracy)
            if not solved:
                x = np.minimum(0.4 * model.capacity, 0.03)
                prices = np.concatenate([nu, model.node_nu])
                model.solve(x, prices, 1e-2, self._tolerance * accuracy)
            if np.all(np.isfinite(x)) and np.all(np.isfinite(prices)):
                break
        else:
            self._note = "the interior point failed"
            return None
        flow = model.arc_flow(x)
        self._flow[:] = 0.0
        self._flow[local.place] = flow
        kept = float(x[-1]) if model.keeps else 0.0
        self._improve(arcs, local, flow, kept if kept > 1e-7 else 0.0)
        inflow = np.zeros(len(local.tokens))
        np.add.at(inflow, local.head, flow)
        lam, mu = model.multipliers(prices)
        group = network.joint.of_pool[network.pool[arcs]]
        moved = np.unique(group[(group >= 0) & (flow > _MOVED)])
        return _Solved(local.tokens, prices[: len(local.tokens)], inflow, lam, mu, moved)

    def _improve(self, arcs: IntArray, local: Local, flow: Array, unsold: float) -> None:
        sold = (1.0 - unsold) * self._amount
        worth = self._keep_rate * unsold * self._amount
        network, tokens = self._network, len(local.tokens)
        joint = network.joint
        for threshold in _THRESHOLDS:
            kept = flow > threshold
            prune(local.tail, local.head, tokens, 0, 1, kept)
            order = order_tokens(local.tail, local.head, tokens, 0, kept, flow)
            prune(local.tail, local.head, tokens, 0, 1, kept)
            used = np.zeros(len(arcs))
            value = push(
                order, local.tail, local.head, kept, flow, tokens, 0, 1, sold, arcs,
                network.kind, network.par, network.table, network.rows,
                joint.of_pool[network.pool[arcs]], joint.start, joint.coin_in[arcs],
                joint.coin_out[arcs], joint.reserve.copy(), joint.weight, joint.ann, joint.into,
                joint.out, joint.gross, used,
            )  # fmt: skip
            if value + worth > self._best[0]:
                rank = np.empty(tokens, np.int64)
                rank[order] = np.arange(len(order))
                there = np.nonzero(used > 0.0)[0]
                there = there[np.argsort(rank[local.tail[there]], kind="stable")]
                self._best = (value + worth, arcs[there], used[there], sold)

    def _extend(self, solved: _Solved, cap: Array, floor: Array, whole: Array) -> bool:
        """ν of every token into ``whole``, floors of moved pools' coins into ``floor``."""
        network, joint = self._network, self._network.joint
        moved = solved.moved[solved.lam[solved.moved] > 0.0]
        places, spots = moved_pools(
            moved, joint.start, joint.token, joint.reserve, joint.weight, joint.into, solved.lam,
            solved.mu, joint.pool_of, network.first_arc, network.in_place, network.in_spot, floor,
        )  # fmt: skip
        try:
            return extend(
                network.in_start, network.in_tail, network.in_spot, cap, floor, self._target,
                _VISITS, whole,
            )  # fmt: skip
        finally:
            network.in_spot[places] = spots

    def _prove(self, solved: _Solved, threshold: float) -> bool:
        """Extend the prices, keep the bound if it is better, add what breaks it."""
        network, tokens = self._network, solved.tokens
        cap = np.full(len(network.tokens), inf)
        fixed = (solved.inflow > threshold) | (tokens == self._source)
        cap[tokens] = np.where(fixed, solved.nu, inf)
        cap[self._target] = 1.0
        floor, whole = np.zeros(len(network.tokens)), np.empty(len(network.tokens))
        ended = self._extend(solved, cap, floor, whole)
        if not ended:
            self.cyclic = True
            self._note = "arbitrage in the graph"
            return False
        capped = np.unique(
            np.concatenate([tokens[fixed], [self._target], np.nonzero(floor > 0.0)[0]])
        )
        arcs, gains = gaining(
            capped, network.out_start, network.out_arc, network.head, network.spot, whole,
            network.kind, network.par, network.table, network.rows,
        )  # fmt: skip
        self._last_nu = whole
        group = network.joint.of_pool[network.pool[arcs]]
        pending = (whole, group, gains, solved.lam, solved.mu)
        guess = self._paid(whole) + self._gained(pending, exact=False)
        if guess < self._best_guess:
            self._best_guess, self._pending = guess, pending
            if guess - self._best[0] <= self._tolerance * guess:
                self._settle_bound()
        if self.certified:
            return True
        self._guess = whole  # the next round takes ticks and levels as far as these prices
        # members of the candidates may lead to where their way on is missing
        seeds = ~self._useful[arcs] | (cap[network.head[arcs]] == inf)
        arcs, gains = arcs[seeds], gains[seeds]
        if len(arcs) > _ADDED:
            top = np.argpartition(-gains, _ADDED)[:_ADDED]
            arcs = arcs[np.sort(top)]
        joint = network.joint
        pairs = gaining_pairs(
            group, joint.pool_of, network.first_arc, joint.coin_in, joint.coin_out, joint.token,
            joint.reserve, joint.weight, joint.into, joint.out, whole, solved.lam, solved.mu,
        )  # fmt: skip
        found = ways(
            np.concatenate([arcs, pairs]), network.out_start, network.out_arc, network.head,
            network.spot, whole, cap, self._target, _PATH,
        )  # fmt: skip
        self._warm = True
        before = len(self._candidates)
        self._add(found)
        return len(self._candidates) > before

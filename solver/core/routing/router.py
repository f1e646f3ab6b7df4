"""One order through the whole graph: candidates, interior point, route, bound, until they meet.

Each round solves the candidate graph, makes a feasible route of the flows, extends the prices to
every token and bounds what any route could pay. Arcs that break the bound join the candidates, with
the way that their price came from, until value and bound are within the tolerance. What is returned
is always a feasible route and a true bound; how far apart they are is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import numpy as np
from msgspec import Struct

from solver.core.kernels import Array, IntArray
from solver.core.routing.acyclic import forward, pair_flows, row_of_tokens
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.extension import (
    coin_prices,
    costs,
    extend,
    gaining,
    silence,
    ways,
    ways_to,
)
from solver.core.routing.joint import gaining_pairs, joint_total
from solver.core.routing.labels import fewest_hops, select
from solver.core.routing.model import Local, build_model, localise, walk
from solver.core.routing.network import Network
from solver.core.routing.paths import best_paths
from solver.core.routing.whole import Question, fair_yield, settle, solve_part, solve_whole

_SIZES = (1.0, 1.0 / 8.0, 1.0 / 64.0)  # of the order; where time is short, the first alone
_PER_SIZE = 60
_MOST_ROUNDS = 24
_ADDED = 100
_PATH = 16
_NEAR = 12e-4
_FAR = 30.0  # tolerances between value and bound that are worth a look at what tokens cost
_FLOWS = 1e-7  # of the order: what a token must receive for its price to be the interior point's
_MOVED = 1e-6  # of the order: what a joint pool takes that is moved by it
_THRESHOLDS = (1e-6, 3e-5, 5e-4)
_VISITS = 40
_WARM_ROUNDS = 6
_IDLE = 2  # rounds in which nothing changes, after which nothing will
_FINEST = 1e-5  # of the tolerance: the accuracy of the interior point in the last rounds
_GROWTH = 2.5  # how much longer than the last a round may take
_LOT = 1e-3  # of the order: what comes in larger lots would strand too much along a long way
_UNIT = 0.01  # of what arbitrage yields: no smaller unit for flows over everything
_LOOSE = 1e-3  # gaps above it are worth a pass at the reference prices
_OUTWARD = 1.0 + 1e-12  # what floating point may have lost of a bound
_SCALES = (1.0, 0.03, 30.0, 1e-3, 1e3, 1e-5, 1e5)  # sizes to try where the interior point fails


class Route(Struct, frozen=True):
    """A feasible route in numeraire and a bound on every route.

    ``arc`` and ``used`` are the arcs in topological order with the input of each; ``value`` is what
    arrives, ``bound`` what no route exceeds, ``nu`` the prices that prove it (ν = 1 at the target),
    ``unearned`` their Σ arb(ν). Where tokens can be turned into more of themselves, ``joint`` is
    what a plan with cycles brings, the order and all arbitrage: the bound is about such plans.
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
    joint: float = 0.0

    @property
    def gap(self) -> float:
        """(bound − value)/bound."""
        if self.bound == inf:
            return 1.0
        return (self.bound - self.value) / self.bound if self.bound > 0.0 else 0.0


ARBITRAGE = "arbitrage in the graph"


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

    A warm state that runs out of rounds is dropped and the order solved again from nothing. Where
    tokens can be turned into more of themselves, candidates prove nothing, and all arcs are solved
    together. With a ``keep_rate`` any part may stay unsold at that worth per unit: the route's
    ``amount`` is then what is sold, value and bound contain the rest's worth. ValueError unless it
    is positive and finite, and unless source and target are two tokens of the network.
    """
    count = len(network.tokens)
    if source == target or not (0 <= source < count and 0 <= target < count):
        raise ValueError(f"{source} and {target} are not two of {count} tokens")
    if not 0.0 < amount < inf:
        raise ValueError(f"an order of {amount} is not a positive amount")
    search = _Search(network, source, target, amount, tolerance, keep_rate, clock)
    settled = network.settled
    if clock.deadline == inf and settled is not None and settled.block == network.block:
        # a deadline wants an answer of candidates first, although it will prove nothing
        search.cyclic = settled.value > tolerance * amount
    if search.cyclic:
        search.run_whole()
        return search.answer()
    if warm is not None:
        search.resume(warm)
        search.run(_WARM_ROUNDS)
        if search.finished or (search.exhausted and search.near):
            return search.answer()
    if not search.cyclic:
        search.begin()
        search.run(_MOST_ROUNDS)
    if not search.finished and (search.cyclic or search.is_among_arbitrage()):
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
        self.exhausted = False
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
        self._joint = 0.0
        self._last_nu: Array | None = None
        self._note = ""

    @property
    def certified(self) -> bool:
        """Whether value and bound are within the tolerance."""
        return self._bound < inf and self._bound - self._best[0] <= self._tolerance * self._bound

    @property
    def near(self) -> bool:
        """Whether candidates of another search would hardly help."""
        bound = min(self._bound, self._best_guess)
        return bound - self._best[0] <= _LOOSE * self._amount

    @property
    def finished(self) -> bool:
        """Certified, or out of time with an answer in hand."""
        return self.certified or (self._rounds > 0 and not self._clock.allows(0.0))

    def is_among_arbitrage(self) -> bool:
        """Whether pools yield more than the tolerance without any order."""
        settled = settle(self._network, self._clock)
        return settled is not None and settled.value > self._tolerance * self._amount

    def begin(self) -> None:
        """Candidates from labels at three sizes, as far as there is time."""
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
            if not self._clock.allows(0.0):
                break
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
        accuracy, idle = 1e-2, 0
        before, spent = inf, 0.0
        for _ in range(most_rounds):
            started = self._clock.now()
            if self._rounds and not self._clock.allows(_GROWTH * spent):
                return
            self._rounds += 1
            solved = self._solve(accuracy)
            if solved is None:
                return
            grew = self._prove(solved)
            if self.certified or self.cyclic:
                return
            gap = min(self._bound, self._best_guess) - self._best[0]
            idle = 0 if grew or gap < 0.9 * before else idle + 1
            if idle == _IDLE:  # what is left, the route loses on the way through moved pools
                self.exhausted = True
                return
            if gap > 0.5 * before:
                accuracy = max(0.3 * accuracy, _FINEST)
            before = gap
            spent = self._clock.now() - started

    def run_whole(self) -> None:
        """One solve over everything: the bound contains all arbitrage, the route has no cycle.

        The tokens are put in a row in the manner of the joint plan, and what runs forward in it is
        solved for the order alone.
        """
        network, amount = self._network, self._amount
        self._rounds += 1
        self._note = ARBITRAGE
        settled = settle(network, self._clock)
        keep = (self._source, self._keep_rate) if self._keep_rate > 0.0 else None
        question = Question(self._target, {self._source: amount}, keep)
        unit = max(amount, _UNIT * settled.value) if settled else amount
        near = settled.prices if settled else None
        accuracy = self._tolerance * amount / unit
        plan = solve_whole(network, question, near, accuracy, unit, self._clock)
        if plan is None:
            return
        self._joint = plan.value
        if plan.bound < self._bound:
            self._bound, self._bound_nu = plan.bound, plan.prices.nu
            self._unearned, self._pending = plan.unearned, None
        if self._clock.allows(0.0):
            rank = row_of_tokens(network, pair_flows(network, plan), self._source, self._target)
            part = forward(network, rank, plan, _LOT * amount)
            alone = solve_part(network, question, plan.prices, part, amount, self._clock)
            if alone is not None:
                self._take(pair_flows(network, alone) / amount)
        self._take_paths()

    def _take_paths(self) -> None:
        """The best single paths: a row of tokens in the manner of arbitrage may have none."""
        network, ends = self._network, (self._source, self._target)
        for arcs in best_paths(network, *ends, self._amount, np.zeros(len(network.pools))):
            local = localise(network, arcs, *ends)
            if local is not None:
                self._improve(arcs[local.place], local, np.ones(len(local.place)), 0.0)

    def _take(self, flow: Array) -> None:
        """Make a route of flows per arc of the network, in units of the order."""
        network = self._network
        arcs = np.nonzero(flow > _THRESHOLDS[0])[0]
        local = localise(network, arcs, self._source, self._target)
        if local is not None:
            arcs = arcs[local.place]
            sold = float(np.sum(flow[arcs[local.tail == 0]]))
            kept = 1.0 - sold if self._keep_rate > 0.0 else 0.0
            self._improve(arcs, local, flow[arcs], kept if kept > 1e-7 else 0.0)

    def _prove_fair(self) -> None:
        """The bound at reference prices, over every arc."""
        fair = np.ones(len(self._network.tokens))
        paid = self._paid(fair)
        bound = (paid + fair_yield(self._network)) * _OUTWARD
        if bound < self._bound:
            self._bound, self._bound_nu, self._unearned = bound, fair, bound - paid

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
        if self._bound - max(self._best[0], self._joint) > _LOOSE * self._amount:
            self._prove_fair()
        value, arc, used, sold = self._best
        route = Route(
            self._source, self._target, sold, arc, used, value, self._bound,
            self._bound_nu, self._unearned, self._rounds, self._note, self._joint,
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
            fair = fair_prices(network, self._target)
            if self._bound == inf and fair is not None:  # the source is worth nothing there
                self._bound, self._bound_nu = self._best[0], fair
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
        for threshold in _THRESHOLDS:
            walked = walk(self._network, arcs, local, flow, threshold, sold)
            if walked is not None and walked[0] + worth > self._best[0]:
                self._best = (walked[0] + worth, walked[1], walked[2], sold)

    def _prove(self, solved: _Solved) -> bool:
        """Extend the prices, keep the bound if it is better, add what breaks it."""
        network, joint, tokens = self._network, self._network.joint, solved.tokens
        count = len(network.tokens)
        cap, floor, ceiling = np.full(count, inf), np.zeros(count), np.full(count, inf)
        fixed = (solved.inflow > _FLOWS) | (tokens == self._source)
        cap[tokens] = np.where(fixed, solved.nu, inf)
        cap[self._target] = 1.0
        moved = solved.moved[solved.lam[solved.moved] > 0.0]
        coin_prices(
            moved, joint.start, joint.token, joint.reserve, joint.weight, joint.into, joint.out,
            solved.lam, solved.mu, floor, ceiling,
        )  # fmt: skip
        whole = self._extend(moved, cap, floor)
        if whole is None:
            self.cyclic = True
            self._note = ARBITRAGE
            return False
        capped = np.unique(
            np.concatenate([tokens[fixed], [self._target], np.nonzero(floor > 0.0)[0]])
        )
        arcs, gains = self._bound_at(whole, capped, solved)
        if self.certified:
            return True
        # members of the candidates may lead to where their way on is missing
        seeds = ~self._useful[arcs] | (cap[network.head[arcs]] == inf)
        found = [self._onward(arcs[seeds], gains[seeds], whole, cap)]
        group = joint.of_pool[network.pool[arcs]]
        found.append(
            gaining_pairs(
                group, joint.pool_of, network.first_arc, joint.coin_in, joint.coin_out,
                joint.token, joint.reserve, joint.weight, joint.into, joint.out, whole,
                solved.lam, solved.mu,
            )
        )  # fmt: skip
        if self._best_guess - self._best[0] > _FAR * self._tolerance * self._best_guess:
            cost = self._costs(moved, cap, ceiling)
            if cost is not None:
                limit = np.minimum(cap, cost)
                whole = self._extend(moved, limit, floor)
                if whole is None:
                    whole = limit
                arcs, gains = self._bound_at(whole, np.arange(count), solved)
                if self.certified:
                    return True
                found.append(self._onward(arcs, gains, whole, limit))
                found.append(
                    ways_to(
                        found[-1], network.tail, network.in_start, network.in_arc,
                        network.in_tail, network.in_spot, cost, cap, _PATH,
                    )
                )  # fmt: skip
        self._guess = whole  # the next round takes ticks and levels as far as these prices
        self._warm = True
        before = len(self._candidates)
        self._add(np.unique(np.concatenate(found)))
        return len(self._candidates) > before

    def _bound_at(self, whole: Array, capped: IntArray, solved: _Solved) -> tuple[IntArray, Array]:
        """Keep the bound at these prices if it is better; the arcs that gain, and their gains."""
        network = self._network
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
        return arcs, gains

    def _onward(self, arcs: IntArray, gains: Array, whole: Array, cap: Array) -> IntArray:
        """The arcs that gain most and their ways on to tokens with a cap."""
        network = self._network
        if len(arcs) > _ADDED:
            top = np.argpartition(-gains, _ADDED)[:_ADDED]
            arcs = arcs[np.sort(top)]
        return ways(
            arcs, network.out_start, network.out_arc, network.head, network.spot, whole, cap,
            self._target, _PATH,
        )  # fmt: skip

    def _extend(self, moved: IntArray, cap: Array, floor: Array) -> Array | None:
        """ν of every token; None where a cycle gains."""
        network = self._network
        whole = np.empty(len(network.tokens))
        with self._silenced(moved):
            ended = extend(
                network.in_start, network.in_tail, network.in_spot, cap, floor, self._target,
                _VISITS, whole,
            )  # fmt: skip
        return whole if ended else None

    def _costs(self, moved: IntArray, cap: Array, ceiling: Array) -> Array | None:
        """For how much every token can be had."""
        network = self._network
        cost = np.empty(len(network.tokens))
        with self._silenced(moved):
            ended = costs(
                network.out_start, network.out_arc, network.head, network.spot, cap, ceiling,
                _VISITS, cost,
            )  # fmt: skip
        return cost if ended else None

    @contextmanager
    def _silenced(self, moved: IntArray) -> Iterator[None]:
        """Without the pairs of joint pools that the order moves."""
        network = self._network
        arcs, spots = silence(
            moved, network.joint.pool_of, network.first_arc, network.in_place, network.spot,
            network.in_spot,
        )  # fmt: skip
        try:
            yield
        finally:
            network.spot[arcs] = spots
            network.in_spot[network.in_place[arcs]] = spots

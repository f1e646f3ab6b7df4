"""Arbitrage shown: a plan without any input, replayed in the pools' exact integers.

The plan of the interior point is one of flows: cycles run through each other, and no order of its
legs has every token when it is spent. Within a plan tokens are therefore borrowed; in the end none
may be short, and what is left over of one token is the gain. Pools are swapped one after another in
integers. Rounding leaves every other token a little short or over: along a tree of used arcs, from
the leaves to the gain's token, each token passes this on by swapping a little less or more, so that
at the end only that token has a balance. What a token lacks that no such arc reaches, a pool that
the plan leaves alone sells to it.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core.kernels import Array
from solver.core.pools import BookPool
from solver.core.routing.acyclic import pair_flows
from solver.core.routing.arcs import STEPS
from solver.core.routing.network import Network
from solver.core.routing.whole import Part, Question, everything, settle, solve_rest
from solver.core.types import Exact, Leg
from solver.core.venue import Pool, Step

_ACCURACY = 1e-4  # of what arbitrage yields: a floor may be a little low
_LEAST = 1e-6  # of that, too: smaller flows are left out
_TRIES = 4


class Yield(Struct, frozen=True):
    """What pools give without input: ``gained`` base units of a token after the ``legs``.

    ``worth`` is that in numeraire.
    """

    token: int
    legs: tuple[Leg, ...] = ()
    gained: int = 0
    worth: float = 0.0


def exhibit(network: Network, token: int) -> Yield:
    """The best plan without input for a token that is found and survives the integers.

    It is remembered until the network's next block.
    """
    known = network.yields.get(token)
    if isinstance(known, Yield):
        return known
    found = _search(network, token)
    network.yields[token] = found
    return found


def _search(network: Network, token: int) -> Yield:
    settled = settle(network)
    if settled is None or settled.value <= 0.0:
        return Yield(token)
    every = everything(network)
    ask = Question(token, {})
    lots = solve_rest(network, ask, settled.prices, every, _ACCURACY, settled.value)
    if lots is None:
        return Yield(token)
    books, part = _books(network, lots.flow)
    supply: dict[int, float] = {}
    for a, step in books.items():
        i, o = int(network.tail[a]), int(network.head[a])
        supply[i] = supply.get(i, 0.0) - step.amount_in / float(network.unit[i])
        supply[o] = supply.get(o, 0.0) + step.amount_out / float(network.unit[o])
    plan = solve_rest(network, Question(token, supply), lots.prices, part, _ACCURACY, settled.value)
    if plan is None:
        return Yield(token)
    flow = pair_flows(network, plan)
    flow[flow < _LEAST * settled.value] = 0.0
    for _ in range(_TRIES):
        legs = _Legs(network, flow, books)
        legs.balance_out(token)
        short = legs.short(token)
        gained = legs.net[token]
        if not short:
            if gained <= 0:
                break
            worth = gained / float(network.unit[token])
            return Yield(token, legs.listed(), gained, worth)
        # what cannot be paid back is not borrowed
        flow[np.isin(network.tail, short)] = 0.0
        books = {a: step for a, step in books.items() if int(network.tail[a]) not in short}
    return Yield(token)


def _books(network: Network, flow: Array) -> tuple[dict[int, Step], Part]:
    """Swaps of whole lots nearest to a plan, and the part of the network that trades no lots.

    At the best plan's prices a lot more or less at the last level costs nothing.
    """
    steps: dict[int, Step] = {}
    arcs = np.ones(network.arc_count, np.bool_)
    for a in np.nonzero(network.kind == STEPS)[0].tolist():
        pool = network.pools[network.pool[a]]
        if not isinstance(pool, BookPool):
            continue
        arcs[a] = False
        i, o = int(network.tail[a]), int(network.head[a])
        amount = int(flow[a] * network.unit[i])
        if amount > 0:
            ends = network.tokens[i], network.tokens[o]
            step = pool.swap(*ends, amount, Exact.IN)
            if step.amount_in > 0:
                steps[a] = step
    return steps, replace(everything(network), arcs=arcs)


class _Legs:
    """The swaps of a plan, one per used arc, and every token's balance after all of them.

    ``fixed`` swaps are of pools that the flows do not use.
    """

    def __init__(self, network: Network, flow: Array, fixed: dict[int, Step]) -> None:
        self._network, self._flow = network, flow
        self._used = np.nonzero(flow > 0.0)[0]
        self.net = [0] * len(network.tokens)
        self._amount: dict[int, int] = {}
        self._step: dict[int, Step] = {}
        self._before: dict[int, Pool] = {}
        self._last: dict[int, int] = {}
        asked = flow[self._used] * network.unit[network.tail[self._used]]
        state: dict[int, Pool] = {}
        for a, amount in zip(self._used.tolist(), asked.tolist(), strict=True):
            number = int(network.pool[a])
            pool = state.get(number, network.pools[number])
            self._before[a] = pool
            self._last[number] = a
            self._amount[a] = 0
            self._swap(a, int(amount))
            if a in self._step:
                state[number] = self._step[a].next_pool
        for a, step in fixed.items():
            self._step[a] = step
            self.net[int(network.tail[a])] -= step.amount_in
            self.net[int(network.head[a])] += step.amount_out

    def _swap(self, a: int, amount: int) -> None:
        """Swap so much on an arc instead of what was swapped before."""
        network = self._network
        i, o = int(network.tail[a]), int(network.head[a])
        old = self._step.pop(a, None)
        if old is not None:
            self.net[i] += old.amount_in
            self.net[o] -= old.amount_out
        self._amount[a] = max(0, amount)
        if amount > 0:
            step = self._before[a].swap(network.tokens[i], network.tokens[o], amount, Exact.IN)
            if step.amount_in > 0:
                self._step[a] = step
                self.net[i] -= step.amount_in
                self.net[o] += step.amount_out

    def balance_out(self, token: int) -> None:
        """Pass what every token lacks or has over on to the given one."""
        network = self._network
        tree = self._tree(token)
        self._buy_in({token, *(t for t, _ in tree)})
        for t, a in reversed(tree):
            left = self.net[t]
            if not left:
                continue
            if int(network.tail[a]) == t:
                self._swap(a, self._amount[a] + left)
            elif a in self._step:
                wanted = self._step[a].amount_out - left
                ends = network.tokens[network.tail[a]], network.tokens[t]
                needed = self._before[a].swap(*ends, wanted, Exact.OUT).amount_in if wanted else 0
                if needed or left > 0:
                    self._swap(a, needed)

    def _buy_in(self, reached: set[int]) -> None:
        """Buy what tokens lack that are not reached, in unused pools, for tokens that are."""
        network = self._network
        for t, left in enumerate(self.net):
            if left >= 0 or t in reached:
                continue
            arcs = network.in_arc[network.in_start[t] : network.in_start[t + 1]]
            for a in arcs[np.argsort(-network.spot[arcs])].tolist():
                i, number = int(network.tail[a]), int(network.pool[a])
                if i not in reached or number in self._last or network.kind[a] == STEPS:
                    continue
                pool = network.pools[number]
                step = pool.swap(network.tokens[i], network.tokens[t], -left, Exact.OUT)
                if step.amount_out >= -left:
                    self._before[a], self._last[number] = pool, a
                    self._swap(a, step.amount_in)
                    break

    def _tree(self, root: int) -> list[tuple[int, int]]:
        """Tokens in the order in which widest arcs lead from the root to them, either way.

        Only the last arc of a pool may change without changing others.
        """
        network = self._network
        near: dict[int, list[int]] = {}
        for a in self._last.values():
            if a in self._step:
                near.setdefault(int(network.head[a]), []).append(a)
                near.setdefault(int(network.tail[a]), []).append(a)
        reached = {root}
        tree: list[tuple[int, int]] = []
        edge: list[tuple[float, int, int]] = []
        t = root
        while True:
            for a in near.get(t, ()):
                other = int(network.tail[a]) if int(network.head[a]) == t else int(network.head[a])
                if other not in reached:
                    heappush(edge, (-float(self._flow[a]), a, other))
            while edge and edge[0][2] in reached:
                heappop(edge)
            if not edge:
                return tree
            _, a, t = heappop(edge)
            reached.add(t)
            tree.append((t, a))

    def short(self, token: int) -> list[int]:
        """Tokens of which more was spent than came in."""
        return [t for t, left in enumerate(self.net) if left < 0 and t != token]

    def listed(self) -> tuple[Leg, ...]:
        """The legs, pool by pool."""
        network = self._network
        return tuple(
            Leg(
                network.pools[network.pool[a]].id,
                network.tokens[network.tail[a]],
                network.tokens[network.head[a]],
                step.amount_in,
                step.amount_out,
                step.gas,
            )
            for a, step in sorted(self._step.items())
        )

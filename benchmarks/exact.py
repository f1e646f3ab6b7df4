"""Routes executed in the contracts' integers: what arrives, what it costs in gas, what is left.

The same replay serves the engine and the baselines, so that they are compared on what would happen
on chain and not on what each of them believes. Pools change from leg to leg.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from solver.core.kernels import Array, IntArray
from solver.core.routing.arcs import STEPS
from solver.core.routing.network import Network
from solver.core.routing.replay import Replay
from solver.core.types import Exact, TokenId
from solver.core.venue import Pool, Step

SETTLEMENT_GAS = 106_391
"""What a settlement costs without its swaps (CoW Protocol's default)."""


class Gas(Struct, frozen=True):
    """``price``: numeraire per unit of gas; ``overhead``: gas of a settlement without swaps."""

    price: float
    overhead: int = SETTLEMENT_GAS


FREE = Gas(0.0, 0)


class Done(Struct, frozen=True):
    """One executed leg in base units."""

    pool: str
    token_in: TokenId
    token_out: TokenId
    amount_in: int
    amount_out: int


class Answer(Struct, frozen=True):
    """An executed route: ``gross`` base units of the target, ``unsold`` of the source.

    ``unsold`` is what pools refused at their capacity, wherever on the way. ``net`` is gross less
    gas, in numeraire.
    """

    legs: tuple[Done, ...]
    gross: int
    unsold: int
    gas: int
    net: float

    @property
    def pools(self) -> int:
        """Different pools used."""
        return len({leg.pool for leg in self.legs})


class _Execution:
    """Pools as they are after the legs so far, and the dearest swap of each."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._state: dict[int, Pool] = {}
        self._gas: dict[tuple[int, TokenId, TokenId], int] = {}
        self.legs: list[Done] = []

    def swap(self, arc: int, amount: int) -> Step:
        """One leg, all of ``amount`` if the pool takes it."""
        network = self._network
        number = int(network.pool[arc])
        pool = self._state.get(number, network.pools[number])
        ends = network.tokens[network.tail[arc]], network.tokens[network.head[arc]]
        step = pool.swap(*ends, amount, Exact.IN)
        self._state[number] = step.next_pool
        if step.amount_out:
            # two legs over one pair of a pool can be one call: its gas counts once
            self._gas[number, *ends] = max(self._gas.get((number, *ends), 0), step.gas)
            self.legs.append(Done(pool.id, *ends, step.amount_in, step.amount_out))
        return step

    def answer(self, target: int, gross: int, unsold: int, gas: Gas) -> Answer:
        """The sum of it."""
        total = gas.overhead + sum(self._gas.values())
        net = gross / float(self._network.unit[target]) - total * gas.price
        return Answer(tuple(self.legs), gross, unsold, total, net)


def base_units(network: Network, token: int, amount: float) -> int:
    """``amount`` of numeraire in base units, rounded down."""
    return int(amount * float(network.unit[token]))


def along_paths(
    network: Network,
    target: int,
    amount: int,
    paths: Sequence[Sequence[int]],
    shares: Sequence[float],
    gas: Gas,
) -> Answer:
    """Sell ``amount`` base units along paths of arcs in turn; the last path takes the rest."""
    execution = _Execution(network)
    left, gross, unsold = amount, 0, 0
    for number, (path, share) in enumerate(zip(paths, shares, strict=True)):
        flow = left if number == len(paths) - 1 else min(left, int(amount * share))
        left -= flow
        for position, arc in enumerate(path):
            step = execution.swap(arc, flow)
            if position == 0:
                unsold += flow - step.amount_in
            flow = step.amount_out
        gross += flow
    return execution.answer(target, gross, unsold + left, gas)


def of_replay(network: Network, target: int, amount: int, found: Replay, gas: Gas) -> Answer:
    """The engine's own replay, with gas counted as for the baselines; ``amount`` was offered."""
    dearest: dict[tuple[str, TokenId, TokenId], int] = {}
    for leg in found.legs:
        key = leg.pool, leg.token_in, leg.token_out
        dearest[key] = max(dearest.get(key, 0), leg.gas)
    total = gas.overhead + sum(dearest.values())
    net = found.amount_out / float(network.unit[target]) - total * gas.price
    legs = tuple(
        Done(leg.pool, leg.token_in, leg.token_out, leg.amount_in, leg.amount_out)
        for leg in found.legs
    )
    return Answer(legs, found.amount_out, amount - found.amount_in, total, net)


def along_flow(
    network: Network, source: int, target: int, amount: int, arcs: IntArray, used: Array, gas: Gas
) -> Answer:
    """Sell ``amount`` base units in the proportions of a flow; arcs in topological order.

    What a pool refuses goes to the next arc of the same token; books, which take whole lots, come
    first.
    """
    execution = _Execution(network)
    balance = {source: amount}
    tails = [int(network.tail[arc]) for arc in arcs]
    first = 0
    while first < len(tails):
        last = first
        while last < len(tails) and tails[last] == tails[first]:
            last += 1
        held = left = balance.pop(tails[first], 0)
        total = float(used[first:last].sum())
        owed = 0
        group = sorted(range(first, last), key=lambda k: network.kind[arcs[k]] != STEPS)
        for k in group:
            flow = left
            if k != group[-1]:
                owed += int(held * (float(used[k]) / total))
                flow = max(0, min(left, owed - (held - left)))
            step = execution.swap(int(arcs[k]), flow)
            left -= step.amount_in
            head = int(network.head[arcs[k]])
            balance[head] = balance.get(head, 0) + step.amount_out
        if left:
            balance[tails[first]] = left
        first = last
    return execution.answer(target, balance.get(target, 0), balance.get(source, 0), gas)

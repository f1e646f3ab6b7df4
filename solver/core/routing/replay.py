"""A route in the pools' exact integers.

The route only says in which proportions each token is split. Its pools are swapped one after
another in topological order, each on the state that the ones before have left; the last use of a
token takes the remainder, and what a pool cannot take goes on to the next. Pools that trade in
whole lots come first among the uses of a token, so that their remainders find another way.
"""

from __future__ import annotations

from itertools import groupby

from msgspec import Struct

from solver.core.routing.network import Network
from solver.core.routing.router import Route
from solver.core.types import Exact, Leg
from solver.core.venue import Pool, trades_in_lots

_WEIGHT = 2**62


class Replay(Struct, frozen=True):
    """Legs in order; what arrived, what was taken of the input, and other tokens left on the way.

    All in base units. ``stranded`` is zero unless a pool saturates behind a split.
    """

    legs: tuple[Leg, ...]
    amount_in: int
    amount_out: int
    stranded: dict[int, int]

    @property
    def gas(self) -> int:
        """Gas of all legs."""
        return sum(leg.gas for leg in self.legs)


def replay(network: Network, route: Route, amount: int) -> Replay:
    """Send ``amount`` base units of the source through the route."""
    balance: dict[int, int] = {route.source: amount}
    pools: dict[int, Pool] = {}
    legs: list[Leg] = []
    tail, head = network.tail[route.arc].tolist(), network.head[route.arc].tolist()
    number = network.pool[route.arc].tolist()
    for token, group in groupby(range(len(tail)), key=tail.__getitem__):
        places = sorted(group, key=lambda k: not trades_in_lots(network.pools[number[k]]))
        left = balance.pop(token, 0)
        weights = [int(route.used[k] / route.amount * _WEIGHT) for k in places]
        whole = sum(weights)
        if left <= 0 or whole <= 0:
            balance[token] = left
            continue
        shares = [left * weight // whole for weight in weights]
        shares[-1] += left - sum(shares)
        carried = 0
        for k, share in zip(places, shares, strict=True):
            pool = pools.get(number[k], network.pools[number[k]])
            ends = network.tokens[token], network.tokens[head[k]]
            step = pool.swap(*ends, share + carried, Exact.IN)
            carried += share - step.amount_in
            left -= step.amount_in
            if step.amount_in:
                pools[number[k]] = step.next_pool
                legs.append(Leg(pool.id, *ends, step.amount_in, step.amount_out, step.gas))
                balance[head[k]] = balance.get(head[k], 0) + step.amount_out
        if left:
            balance[token] = left
    unsold = balance.pop(route.source, 0)
    arrived = balance.pop(route.target, 0)
    return Replay(tuple(legs), amount - unsold, arrived, {t: b for t, b in balance.items() if b})

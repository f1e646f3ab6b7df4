"""The engine as the benchmarks call it: one order, everything that belongs to an answer."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.exact import FREE, Answer, Gas, base_units, of_replay
from solver.core.routing.charges import net_of_gas
from solver.core.routing.execution import execute
from solver.core.routing.network import Network
from solver.core.routing.orders import Purchase, buy_exactly
from solver.core.routing.replay import Replay, replay
from solver.core.routing.router import Route, Warm, find_route


class Solved(Struct, frozen=True):
    """A route with the best integers found for it; ``warm`` is what the next block starts from."""

    route: Route
    answer: Answer | None
    warm: Warm | None


def solve(
    network: Network,
    source: int,
    target: int,
    amount: float,
    tolerance: float,
    warm: Warm | None = None,
    gas: Gas = FREE,
) -> Solved:
    """Candidates, interior point, certificate and integer replay; ``amount`` in numeraire.

    With a price of gas the route is the one that leaves most after it, or none where none pays.
    """
    if gas.price > 0.0:
        ends = network, source, target, amount
        found = net_of_gas(*ends, gas.price, gas.overhead, warm=warm, tolerance=tolerance)
        route, after = found.route, found.warm
    else:
        route, after = find_route(network, source, target, amount, tolerance, warm)
    answer = None
    if len(route.arc):
        given = base_units(network, source, amount)
        done = execute(network, route, given, gas.price, after)
        answer = of_replay(network, target, given, done.replay, gas)
    return Solved(route, answer, after)


class Bought(Struct, frozen=True):
    """An exact-out order: the route, the least input found for it in integers, and its replay.

    ``amount_in`` is None when the route does not bring what was asked.
    """

    purchase: Purchase
    amount_in: int | None
    replay: Replay | None


def buy(
    network: Network, source: int, target: int, wanted: int, most_input: float, tolerance: float
) -> Bought:
    """At least ``wanted`` base units of the target for as little of the source as possible.

    The route's proportions stay; its input is the least whose replay brings enough, to 1e-12.
    """
    purchase, _ = buy_exactly(
        network, source, target, wanted / float(network.unit[target]), most_input, tolerance
    )
    route = purchase.route
    if not len(route.arc):
        return Bought(purchase, None, None)
    low, high = 0, base_units(network, source, route.amount) + 1
    found = replay(network, route, high)
    step = max(1, high // 10**7)
    for _ in range(30):  # the route may end a little below what was asked
        if found.amount_out >= wanted:
            break
        low, high = high, high + step
        step *= 2
        found = replay(network, route, high)
    if found.amount_out < wanted:
        return Bought(purchase, None, None)
    low = max(low, high - 2 * step)
    while replay(network, route, low).amount_out >= wanted and low > 0:
        low, step = max(0, low - step), 2 * step
    while high - low > max(1, high // 10**12):
        middle = (low + high) // 2
        tried = replay(network, route, middle)
        if tried.amount_out >= wanted:
            high, found = middle, tried
        else:
            low = middle
    return Bought(purchase, high, found)

"""Orders on top of :func:`find_route`: exact output, and partial fills down to a limit.

V(x), the most that x can buy, is concave with slope ν_A. An exact output Y is the root of V(x) = Y,
found by Newton's method on warm solves; the prices of any of them prove that every input which
buys Y is at least (ν_B·Y − Σ arb(ν))/ν_A. A partial fill may keep what is not worth its limit ℓ:
one more arc from A to B of slope ℓ, so that V and the bound contain what is kept.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.network import Network
from solver.core.routing.router import Route, Warm, find_route

_NEWTON = 8


class Purchase(Struct, frozen=True):
    """A route that buys ``wanted``; no input below ``least_input`` can (∞: nothing can).

    ``reached`` says whether the route really brings that much; the prices of ``proof`` prove the
    least input.
    """

    route: Route
    proof: Route
    wanted: float
    least_input: float
    reached: bool

    @property
    def gap(self) -> float:
        """(input − least input)/input."""
        return max(0.0, 1.0 - self.least_input / self.route.amount)


class Sale(Struct, frozen=True):
    """A route for the part of an order that is worth its limit, and a bound on its surplus.

    ``surplus`` is what arrives beyond limit·sold; ``surplus_bound`` holds for every fill.
    """

    route: Route
    surplus: float
    surplus_bound: float


def buy_exactly(
    network: Network,
    source: int,
    target: int,
    wanted: float,
    most_input: float,
    tolerance: float = 1e-5,
    warm: Warm | None = None,
    clock: Clock = UNLIMITED,
) -> tuple[Purchase, Warm | None]:
    """The least input that buys ``wanted`` (numeraire), at most ``most_input``."""
    amount = min(1.002 * wanted, most_input)
    least = 0.0
    best: Route | None = None
    proof: Route | None = None
    for _ in range(_NEWTON):
        route, found = find_route(network, source, target, amount, tolerance, warm, clock)
        warm = found or warm
        if best is None or route.value >= wanted * (1.0 - 1e-12) or route.value > best.value:
            best = route
        if proof is None or _least_input(route, wanted) > least:
            least, proof = _least_input(route, wanted), route
        if least > most_input or not clock.allows(0.0):
            break
        missing = wanted - route.value
        if abs(missing) <= 0.1 * tolerance * wanted and (missing <= 0.0 or amount >= most_input):
            break
        slope = max(float(route.nu[source]), 1e-9)
        amount = min(most_input, amount + (missing + 0.02 * tolerance * wanted) / slope)
        if amount <= 0.0:
            break
    assert best is not None
    assert proof is not None
    return Purchase(best, proof, wanted, least, best.value >= wanted * (1.0 - 1e-12)), warm


def sell_down_to(
    network: Network,
    source: int,
    target: int,
    most: float,
    limit: float,
    tolerance: float = 1e-5,
    warm: Warm | None = None,
    clock: Clock = UNLIMITED,
) -> tuple[Sale, Warm | None]:
    """The fill of at most ``most`` with the largest surplus over ``limit`` (both in numeraire)."""
    route, warm = find_route(network, source, target, most, tolerance, warm, clock, keep_rate=limit)
    worth = limit * most
    sale = Sale(route, max(0.0, route.value - worth), max(0.0, route.bound - worth))
    return sale, warm


def _least_input(route: Route, wanted: float) -> float:
    rest = wanted - route.unearned
    slope = float(route.nu[route.source])
    if route.bound == inf or rest <= 0.0:
        return 0.0
    return rest / slope if slope > 0.0 else inf

"""The engine as the benchmarks call it: one order, everything that belongs to an answer.

The parts that are not in the engine yet are found by name and reported as missing, never guessed.
"""

from __future__ import annotations

from importlib.util import find_spec

from msgspec import Struct

from benchmarks.exact import FREE, Answer, Gas, along_flow, base_units
from solver.core.routing.network import Network
from solver.core.routing.router import Route, Warm, find_route

MISSING = {
    name: module
    for name, module in (
        ("net of gas", "solver.core.routing.charges"),
        ("anytime", "solver.core.routing.anytime"),
        ("exact-out", "solver.core.routing.exact_out"),
    )
    if find_spec(module) is None
}
"""What cannot be measured yet, and the module that it waits for."""


class Solved(Struct, frozen=True):
    """A route with its executed integers; ``warm`` is what the next block starts from."""

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
    """Candidates, interior point, certificate and integer replay; ``amount`` in numeraire."""
    route, after = find_route(network, source, target, amount, tolerance, warm)
    answer = None
    if len(route.arc):
        given = base_units(network, source, amount)
        answer = along_flow(network, source, target, given, route.arc, route.used, gas)
    return Solved(route, answer, after)

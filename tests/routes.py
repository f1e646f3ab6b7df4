"""Checks of routes, written apart from the engine: bounds in plain numpy, swaps in integers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log1p, sqrt

import numpy as np
import pytest
from scipy.optimize import minimize

from solver.core import curves, kernels
from solver.core.kernels import LINEAR, PRODUCT, WEIGHTED, Array
from solver.core.pools import BookPool, ConcentratedPool, CurvePool, StablePool, WeightedPool
from solver.core.pools.fixed_point import ONE
from solver.core.routing.network import Network
from solver.core.routing.replay import Replay, replay
from solver.core.routing.router import Route
from solver.core.types import Exact, TokenId
from solver.core.venue import Arc, DeclaresArcs, Pool, StableArc, WeightedArc


def rounding(pool: Pool, token_in: TokenId, token_out: TokenId) -> int:
    """How many units of ``token_out`` one swap may give less than the curve.

    Units of the coins, what the contract is off by on purpose (1e-14 of a balance in pow, the
    precision of A in V2's stable balance), a unit per tick on the way.
    """
    if isinstance(pool, WeightedPool):
        return 8 + pool.balances[pool.coins.index(token_out)] // 10**13
    if isinstance(pool, StablePool | CurvePool):
        i, o = pool.coins.index(token_in), pool.coins.index(token_out)
        if isinstance(pool, CurvePool):
            return 8 + 40 * pool.rates[i] // pool.rates[o]
        factor = [s * r for s, r in zip(pool.scaling, pool.rates, strict=True)]
        return 8 + (40 * factor[i] + 1000 * ONE) // factor[o]
    if isinstance(pool, ConcentratedPool):
        return 8 + 2 * len(pool.ticks.ticks)
    return 8


def units_in(pool: Pool) -> int:
    """How many units of the input rounding may take: at the fee, and at every tick."""
    return 4 + (len(pool.ticks.ticks) if isinstance(pool, ConcentratedPool) else 0)


def check_route(network: Network, route: Route) -> Replay | None:
    """Everything that must hold for any answer; its replay in integers if it has legs."""
    tokens = len(network.tokens)
    assert np.isfinite(route.value) and route.value >= 0.0
    assert np.isfinite(route.bound) and route.value <= route.bound
    assert route.nu.shape == (tokens,) and np.all(np.isfinite(route.nu)) and np.all(route.nu >= 0.0)
    assert len(route.arc) == len(route.used) == len(set(route.arc.tolist()))
    assert np.all(np.isfinite(route.used)) and np.all(route.used > 0.0)
    assert 0.0 <= route.gap <= 1.0
    if len(route.arc) == 0:
        assert route.value == 0.0
        return None
    _check_flow(network, route)
    return _check_integers(network, route)


def _check_flow(network: Network, route: Route) -> None:
    """Order of legs and conservation; what single pools give is the float of their own levels."""
    balance = np.zeros(len(network.tokens))
    balance[route.source] = route.amount
    closed: set[int] = set()
    joint: dict[int, Pool] = {}
    for a, used in zip(route.arc.tolist(), route.used.tolist(), strict=True):
        tail, head = int(network.tail[a]), int(network.head[a])
        assert head != route.source and tail != route.target
        assert head not in closed, "a token is paid into after it was spent"
        closed.add(tail)
        balance[tail] -= used
        assert balance[tail] >= -1e-9 * max(route.amount, used), "spends what is not there"
        number = int(network.pool[a])
        if network.joint.of_pool[number] >= 0:
            joint.setdefault(number, network.pools[number])
        balance[head] += given(network, a, used)
    if not joint:  # a joint pool is priced on the state that earlier legs leave
        assert balance[route.target] == pytest.approx(route.value, rel=1e-9)


def given(network: Network, a: int, used: float) -> float:
    """f of an arc by the levels of its own pool."""
    unit_in, unit_out = network.unit[network.tail[a]], network.unit[network.head[a]]
    amount, out = used * unit_in, 0.0
    for kind, numbers, capacity in curves.levels(arc_of(network, a)):
        level = curves.packed([(kind, numbers, capacity)])
        taken = min(amount, capacity)
        out += float(kernels.outputs(level[0], level[1], np.array([taken]))[0])
        amount -= taken
        if amount <= 0.0:
            break
    return float(out / unit_out)


def arc_of(network: Network, a: int) -> Arc:
    """The declared arc behind a row of the network."""
    pool = network.pools[network.pool[a]]
    assert isinstance(pool, DeclaresArcs)
    ends = network.tokens[network.tail[a]], network.tokens[network.head[a]]
    return next(arc for arc in pool.arcs() if (arc.token_in, arc.token_out) == ends)


def _check_integers(network: Network, route: Route) -> Replay:
    unit_in, unit_out = network.unit[route.source], network.unit[route.target]
    amount = int(route.amount * unit_in)
    done = replay(network, route, amount)
    by_id = {pool.id: pool for pool in network.pools}
    assert len(by_id) == len(network.pools)
    balance = {network.tokens[route.source]: amount}
    worth = 2.0  # what rounding may cost in units of the target, at the prices of the certificate
    for a in route.arc.tolist():
        pool, token = network.pools[network.pool[a]], network.tokens[network.tail[a]]
        towards = network.tokens[network.head[a]]
        worth += _worth(network, route, towards) * rounding(pool, token, towards)
        worth += _worth(network, route, token) * units_in(pool)
        if isinstance(pool, BookPool):
            worth += _lot(network, route, pool, token)
    for leg in done.legs:
        step = by_id[leg.pool].swap(leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
        assert (step.amount_in, step.amount_out) == (leg.amount_in, leg.amount_out)
        balance[leg.token_in] = balance.get(leg.token_in, 0) - leg.amount_in
        assert balance[leg.token_in] >= 0
        balance[leg.token_out] = balance.get(leg.token_out, 0) + leg.amount_out
        by_id[leg.pool] = step.next_pool
    assert balance.pop(network.tokens[route.source]) == amount - done.amount_in
    assert balance.pop(network.tokens[route.target], 0) == done.amount_out
    left = {network.tokens[t]: units for t, units in done.stranded.items()}
    assert {t: units for t, units in balance.items() if units} == left
    assert done.amount_out <= route.bound * unit_out * (1.0 + 1e-9) + 1.0
    if not any(
        _is_limited(network, a, used) for a, used in zip(route.arc, route.used, strict=True)
    ):
        assert done.amount_out >= route.value * unit_out * (1.0 - 1e-8) - worth
    return done


def _worth(network: Network, route: Route, token: TokenId) -> float:
    """Units of the target per unit of a token, generously: ν is marginal, reference prices not."""
    t = network.index[token]
    nu = max(1.0, float(route.nu[t]))
    return nu * float(network.unit[route.target] / network.unit[t])


def _lot(network: Network, route: Route, pool: BookPool, token: TokenId) -> float:
    """The lot that is not filled stays as input, at a book's price."""
    lot = pool.lot_size if token == pool.base else max(level.price for level in pool.asks)
    return 1.1 * lot * _worth(network, route, token)


def _is_limited(network: Network, a: int, used: float) -> bool:
    """Near a weighted pool's limit of a trade, 30 % of a balance, which its curve does not have."""
    pool = network.pools[network.pool[a]]
    if not isinstance(pool, WeightedPool):
        return False
    balances = dict(zip(pool.coins, pool.balances, strict=True))
    ends = [(network.tail[a], used), (network.head[a], given(network, a, used))]
    return any(amount * network.unit[t] > 0.29 * balances[network.tokens[t]] for t, amount in ends)


def proven_bound(network: Network, route: Route) -> float:
    """ν_A·Δ + Σ over all arcs and joint pools of what they gain at the route's prices."""
    nu = route.nu
    total = float(nu[route.source]) * route.amount
    for number, pool in enumerate(network.pools):
        assert isinstance(pool, DeclaresArcs)
        arcs = [
            arc
            for arc in pool.arcs()
            if arc.token_in in network.index and arc.token_out in network.index
        ]
        prices = {  # per base unit
            token: float(nu[network.index[token]] / network.unit[network.index[token]])
            for arc in arcs
            for token in (arc.token_in, arc.token_out)
        }
        if network.joint.of_pool[number] >= 0:
            total += _joint_gain(arcs, prices)
        else:
            total += sum(
                _arc_gain(arc, prices[arc.token_in], prices[arc.token_out]) for arc in arcs
            )
    return total


def _arc_gain(arc: Arc, cost: float, worth: float) -> float:
    if worth <= 0.0:
        return 0.0
    if isinstance(arc, StableArc):
        return _stable_gain(arc, cost, worth)
    gain = 0.0
    for kind, numbers, capacity in curves.levels(arc):
        if kind == LINEAR:
            gain += max(0.0, worth * numbers[0] - cost) * (capacity if capacity < inf else 0.0)
            continue
        a, b, gamma = numbers[:3]
        if kind == PRODUCT:
            x = (sqrt(a * b * gamma * worth / cost) - a) / gamma if cost > 0.0 else capacity
            x = min(max(x, 0.0), capacity)
            out = b * gamma * x / (a + gamma * x) if x < inf else b
        else:
            assert kind == WEIGHTED
            w = numbers[3]
            x = inf
            if cost > 0.0:
                x = a / gamma * ((b * w * gamma * worth / (a * cost)) ** (1 / (w + 1)) - 1)
            x = max(x, 0.0)
            out = b * (1.0 - (1.0 + gamma * x / a) ** -w) if x < inf else b
        gain += max(0.0, worth * out - (cost * x if cost > 0.0 else 0.0))
    return gain


def _stable_gain(arc: StableArc, cost: float, worth: float) -> float:
    """By golden section on the size, in extended precision."""
    numbers = curves.stable_numbers(arc)
    assert numbers is not None
    z0, _, g, h, q, k = (np.longdouble(number) for number in numbers)

    def other(z: np.longdouble) -> np.longdouble:
        b = q + z
        root = np.sqrt(b * b + 4 * k / z)
        return np.longdouble(2 * k / (z * (b + root)) if b > 0 else (root - b) / 2)

    start = other(z0)

    def gain(step: float) -> float:
        x = np.longdouble(np.exp(step))
        return float(np.longdouble(worth) * h * (start - other(z0 + g * x)) - cost * x)

    low, high = float(np.log(z0 / g)) - 30.0, float(np.log(z0 / g)) + 5.0
    ratio = (sqrt(5.0) - 1.0) / 2.0
    for _ in range(90):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if gain(left) > gain(right):
            high = right
        else:
            low = left
    return max(0.0, gain(0.5 * (low + high)))


def _joint_gain(arcs: Sequence[Arc], prices: dict[TokenId, float]) -> float:
    """The best joint trade that scipy finds, as deposits and withdrawals relative to the balance.

    It is feasible to rounding, so that it is never more than the true maximum by more than that.
    """
    first = arcs[0]
    coins = list(dict.fromkeys(arc.token_in for arc in arcs))
    value, gamma_in, gamma_out = np.empty(len(coins)), 1.0, 1.0
    if isinstance(first, WeightedArc):
        by_coin = {arc.token_in: arc for arc in arcs if isinstance(arc, WeightedArc)}
        weight = np.array([by_coin[coin].weight_in for coin in coins])
        weight = weight / weight.sum()
        gamma_in = 1.0 - first.fee
        for k, coin in enumerate(coins):
            value[k] = prices[coin] * by_coin[coin].reserve_in

        def invariant(n: Array) -> float:
            return float(np.dot(weight, np.log1p(n)))
    else:
        assert isinstance(first, StableArc)
        index = {arc.token_in: arc.index_in for arc in arcs if isinstance(arc, StableArc)}
        balances = np.array([first.balances[index[coin]] for coin in coins])
        d = kernels.stable_invariant(np.array(first.balances), first.ann)
        excess = (sum(first.balances) - d + d / first.ann) / balances.sum()
        share = balances / balances.sum()
        gamma_in, gamma_out = 1.0 - first.fee_in, 1.0 - first.fee_out
        for k, coin in enumerate(coins):
            value[k] = prices[coin] * balances[k] / first.scales[index[coin]]

        def invariant(n: Array) -> float:
            total = float(np.dot(share, n)) / excess
            return (log1p(total) if total > -1.0 else -inf) + float(np.sum(np.log1p(n)))

    scale = float(value.max())
    if scale <= 0.0:
        return 0.0

    def net(t: Array) -> Array:
        return gamma_in * t[: len(coins)] - t[len(coins) :]

    def loss(t: Array) -> float:
        deposits, withdrawals = t[: len(coins)], t[len(coins) :]
        return float(np.dot(value, deposits) - gamma_out * np.dot(value, withdrawals)) / scale

    best = 0.0
    for i, o in ((0, 1), (1, 0), (len(coins) - 1, 0)):
        start = np.zeros(2 * len(coins))
        start[i], start[len(coins) + o] = 1e-3, 0.5e-3
        bounds = [(0.0, 50.0)] * len(coins) + [(0.0, 0.999)] * len(coins)
        found = minimize(
            loss, start, method="SLSQP", bounds=bounds,
            constraints=[{"type": "ineq", "fun": lambda t: invariant(net(t))}],
            options={"ftol": 1e-15, "maxiter": 100},
        )  # fmt: skip
        if np.all(np.isfinite(found.x)):
            missing = max(0.0, -invariant(net(found.x)))  # is paid for at a generous λ
            best = max(best, -loss(found.x) * scale - 2.0 * float(value.sum()) * missing)
    return best

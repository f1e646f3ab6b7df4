"""Instances that others published: generators of papers and snapshots of real pools.

The generators are those of CFMMRouter.jl (``benchmark/scaling.jl``), router-experiments and
ConvexFlows.jl, drawn by PCG64 because Julia's seeds cannot be replayed, and a heavy-tailed one. The
snapshots come from the folder THALWEG_PARITY_DATA (``balancer-sor``, ``fastlane-snapshot``); what
is not there is left out and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from heapq import heappop, heappush
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks import engine
from benchmarks.exact import base_units
from benchmarks.machine import Report, load, spread
from solver.core import curves, kernels
from solver.core.pools import (
    ConcentratedPool,
    ConstantProductPool,
    StablePool,
    StableVersion,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.pools.tick_math import MAX_SQRT_PRICE, MIN_SQRT_PRICE, tick_at
from solver.core.routing.network import Network
from solver.core.types import TokenId
from solver.core.venue import DeclaresArcs, Pool

DATA = Path(
    os.environ.get("THALWEG_PARITY_DATA", Path(__file__).resolve().parents[2] / "shared/data")
)
_ONE = 10**18
_CHAIN = 1
_WETH = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"
_ETHER = "0x" + "e" * 40
_SPACING = {0.0001: 1, 0.0005: 10, 0.0025: 50, 0.003: 60, 0.01: 200}
_PRODUCTS = {
    "uniswap_v2", "sushiswap_v2", "pancakeswap_v2", "bancor_v2", "bancor_v3", "velocimeter_v2",
}  # fmt: skip
_RANGES = {"uniswap_v3", "pancakeswap_v3"}


class Instance(Struct, frozen=True):
    """Pools with reference prices; ``left_out`` counts what was not taken in, by reason."""

    pools: tuple[Pool, ...]
    prices: dict[TokenId, float]
    left_out: dict[str, int] = {}


class Drawn(Struct, frozen=True):
    """A market of a published generator: arrays per pool, prices per token.

    Pool k trades token ``first[k]`` with ``second[k]``, holds ``reserves[k]`` and gives the first
    token the weight ``weight[k]``; ``gamma`` is 1 − fee.
    """

    reserves: kernels.Array
    weight: kernels.Array
    gamma: kernels.Array
    first: kernels.IntArray
    second: kernels.IntArray
    prices: kernels.Array


def cfmm_router(m: int, seed: int, density: int = 2) -> Drawn:
    """CFMMRouter.jl: product pools, reserves U(0, 1000), γ 0.997 or 1, density·√m tokens."""
    rng = np.random.default_rng(seed)
    n = max(2, round(density * m**0.5))
    first = rng.integers(0, n, m)
    return Drawn(
        1000.0 * rng.random((m, 2)), np.full(m, 0.5), rng.choice([0.997, 1.0], m), first,
        (first + rng.integers(1, n, m)) % n, rng.random(n),
    )  # fmt: skip


def router_experiments(m: int, seed: int, low: float = 1000.0) -> Drawn:
    """router-experiments: reserves U(low, 2·low), half product, half 80/20, 2·√m tokens."""
    rng = np.random.default_rng(seed)
    n = round(2 * m**0.5)
    reserves = low + low * rng.random((m, 2))
    weight = np.where(rng.random(m) < 0.5, 0.5, 0.8)
    first = rng.integers(0, n, m)
    second = (first + rng.integers(1, n, m)) % n
    prices = rng.random(n) * 0.99 + 0.01
    return Drawn(reserves, weight, np.full(m, 0.997), first, second, prices)


def convex_flows(m: int, seed: int) -> Drawn:
    """ConvexFlows.jl: as router-experiments with reserves U(100, 200)."""
    return router_experiments(m, seed, 100.0)


def heavy_tailed(m: int, seed: int) -> Drawn:
    """Lognormal depth, 60 % of the pools at one of four hubs, 10 bp of mispricing."""
    rng = np.random.default_rng(seed)
    n = max(4, round(2 * m**0.5))
    prices = np.exp(rng.normal(0.0, 3.0, n))
    prices[:2] = 1.0, 2000.0
    depth = np.exp(rng.normal(np.log(2e5), 1.8, m))
    weight = np.where(rng.random(m) < 0.8, 0.5, 0.8)
    hub = rng.random(m) < 0.6
    first = np.where(hub, rng.integers(0, min(4, n), m), rng.integers(0, n, m))
    second = (first + rng.integers(1, n, m)) % n
    gamma = rng.choice([0.997, 0.9995, 0.9999, 0.99], m, p=[0.6, 0.25, 0.05, 0.1])
    off = np.exp(rng.normal(0.0, 0.001, m))
    reserves = np.stack(
        [depth * weight / prices[first] * off, depth * (1.0 - weight) / prices[second]], axis=1
    )
    return Drawn(reserves, weight, gamma, first, second, prices)


GENERATORS: dict[str, Callable[[int, int], Drawn]] = {
    "CFMMRouter": cfmm_router,
    "router-experiments": router_experiments,
    "ConvexFlows": convex_flows,
    "heavy-tailed": heavy_tailed,
}


def token(number: int) -> TokenId:
    """The token of that number."""
    return TokenId(_CHAIN, f"0x{number + 1:040x}")


def instance(drawn: Drawn, gas: int = 0) -> Instance:
    """Pools of 18 decimals; empty reserves of a draw become one unit."""
    pools: list[Pool] = []
    for k in range(len(drawn.weight)):
        ends = token(int(drawn.first[k])), token(int(drawn.second[k]))
        x, y = (max(1, int(size * _ONE)) for size in drawn.reserves[k])
        fee = round((1.0 - float(drawn.gamma[k])) * 10_000)
        weight = round(float(drawn.weight[k]) * 100)
        if weight == 50:
            pools.append(
                ConstantProductPool(
                    id=f"product:{k}",
                    token0=ends[0],
                    token1=ends[1],
                    reserve0=x,
                    reserve1=y,
                    fee_num=fee,
                    fee_den=10_000,
                    gas=gas,
                )
            )
        else:
            pools.append(
                WeightedPool(
                    id=f"weighted:{k}",
                    coins=ends,
                    balances=(x, y),
                    weights=(weight * _ONE // 100, (100 - weight) * _ONE // 100),
                    scaling=(1, 1),
                    rates=(_ONE, _ONE),
                    fee=fee * _ONE // 10_000,
                    version=WeightedVersion.V3_PLUS,
                    gas=gas,
                )
            )
    prices = {token(t): float(price) / _ONE for t, price in enumerate(drawn.prices)}
    return Instance(tuple(pools), prices)


def balancer_pool(state: Mapping[str, Any]) -> Pool | str:
    """A pool of ``balancer-sor/pool_states.json``, or the reason why it is left out.

    A composable pool's own token does not trade; ``priceRate`` scales balances of stable kinds.
    """
    kind = str(state["poolType"])
    if not state.get("swapEnabled", True):
        return "swaps are disabled"
    own = str(state["address"]).lower()
    coins = [coin for coin in state["tokens"] if str(coin["address"]).lower() != own]
    if len(coins) < 2:
        return "fewer than two tokens"
    decimals = [int(coin["decimals"]) for coin in coins]
    balances = tuple(
        int(Decimal(coin["balance"]) * 10**places)
        for coin, places in zip(coins, decimals, strict=True)
    )
    if min(balances) <= 0:
        return "an empty balance"
    tokens = tuple(TokenId(_CHAIN, str(coin["address"]).lower()) for coin in coins)
    if len(set(tokens)) < len(tokens):
        return "a token twice"
    scaling = tuple(10 ** (18 - places) for places in decimals)
    fee = int(Decimal(state["swapFee"]) * _ONE)
    name = str(state["id"])
    if kind in ("Weighted", "Investment", "LiquidityBootstrapping"):
        weights = [Decimal(coin["weight"]) for coin in coins]
        if min(weights) <= 0:
            return "a weight of zero"
        return WeightedPool(
            id=name, coins=tokens, balances=balances,
            weights=tuple(int(weight * _ONE / sum(weights)) for weight in weights),
            scaling=scaling, rates=(_ONE,) * len(tokens), fee=fee,
            version=WeightedVersion.V3_PLUS, gas=100_000,
        )  # fmt: skip
    if kind in ("Stable", "MetaStable", "StablePhantom", "ComposableStable"):
        rates = tuple(int(Decimal(coin.get("priceRate") or "1") * _ONE) for coin in coins)
        return StablePool(
            id=name, coins=tokens, balances=balances, amp=int(Decimal(state["amp"]) * 1000),
            scaling=scaling, rates=rates, fee=fee, version=StableVersion.BALANCER_V2, gas=183_520,
        )  # fmt: skip
    return f"unsupported kind {kind}"


def balancer(states: Iterable[Mapping[str, Any]], base: TokenId) -> Instance:
    """The pools of a routing problem of ``balancer-sor``, priced from ``base``."""
    return _collect(((state, balancer_pool(state)) for state in states), base)


def fastlane_pool(row: Mapping[str, Any]) -> Pool | str:
    """A venue of ``fastlane-snapshot``, or the reason why it is left out.

    Concentrated pools have their current range only. Ether counts as its wrapped token.
    """
    kind = str(row.get("exchange_name"))
    if kind not in _PRODUCTS | _RANGES | {"balancer"}:
        return f"unsupported kind {kind}"
    places = sorted(int(key[3:-8]) for key in row if key.startswith("tkn") and "_address" in key)
    tokens = tuple(_fastlane_token(str(row[f"tkn{k}_address"])) for k in places)
    if len(set(tokens)) < max(2, len(tokens)):
        return "a token twice"
    fee = float(row["fee_float"])
    name = f"{kind}:{row['cid']}"
    if kind in _RANGES:
        return _range(row, name, tokens, fee)
    balances = tuple(int(Decimal(str(row.get(f"tkn{k}_balance") or 0))) for k in places)
    if min(balances) <= 1:
        return "an empty balance"
    if kind in _PRODUCTS:
        return ConstantProductPool(
            id=name, token0=tokens[0], token1=tokens[1], reserve0=balances[0],
            reserve1=balances[1], fee_num=round(fee * 1e6), fee_den=10**6, gas=90_000,
        )  # fmt: skip
    weights = [float(row.get(f"tkn{k}_weight") or 0.0) for k in places]
    if row.get("pool_type", "Weighted") != "Weighted" or min(weights) <= 0.0:
        return f"unsupported kind balancer {row.get('pool_type')}"
    return WeightedPool(
        id=name, coins=tokens, balances=balances,
        weights=tuple(int(weight / sum(weights) * _ONE) for weight in weights),
        scaling=tuple(10 ** (18 - int(row[f"tkn{k}_decimals"])) for k in places),
        rates=(_ONE,) * len(tokens), fee=round(fee * _ONE), version=WeightedVersion.V3_PLUS,
        gas=100_000,
    )  # fmt: skip


def _range(
    row: Mapping[str, Any], name: str, tokens: tuple[TokenId, ...], fee: float
) -> Pool | str:
    liquidity = int(Decimal(str(row.get("liquidity") or 0)))
    root = int(Decimal(str(row.get("sqrt_price_q96") or 0)))
    if liquidity <= 0 or not MIN_SQRT_PRICE <= root < MAX_SQRT_PRICE:
        return "an empty range"
    spacing = int(float(row.get("tick_spacing") or 0)) or _SPACING.get(fee, 0)
    if not spacing:
        return "no tick spacing"
    tick = tick_at(root)
    low = tick // spacing * spacing
    ticks = TickMap.of({low: liquidity, low + spacing: -liquidity}, spacing)
    return ConcentratedPool(
        id=name, token0=tokens[0], token1=tokens[1], fee_pips=round(fee * 1e6),
        tick_spacing=spacing, sqrt_price_x96=root, tick=tick, liquidity=liquidity, ticks=ticks,
        gas=110_000, gas_per_tick=20_000,
    )  # fmt: skip


def _fastlane_token(address: str) -> TokenId:
    lower = address.lower()
    return TokenId(_CHAIN, _WETH if lower == _ETHER else lower)


def fastlane(rows: Iterable[Mapping[str, Any]]) -> Instance:
    """All venues of a snapshot that are of a known kind, priced from wrapped ether."""
    return _collect(((row, fastlane_pool(row)) for row in rows), TokenId(_CHAIN, _WETH))


def _collect(found: Iterable[tuple[Mapping[str, Any], Pool | str]], base: TokenId) -> Instance:
    pools: list[Pool] = []
    left_out: dict[str, int] = {}
    known: set[str] = set()
    for _, pool in found:
        if isinstance(pool, str):
            left_out[pool] = left_out.get(pool, 0) + 1
        elif pool.id in known:
            left_out["an id twice"] = left_out.get("an id twice", 0) + 1
        else:
            known.add(pool.id)
            pools.append(pool)
    return Instance(tuple(pools), spot_prices(pools, base), left_out)


def spot_prices(pools: Sequence[Pool], base: TokenId) -> dict[TokenId, float]:
    """The value of one base unit of each token in base units of ``base``.

    Spot prices along the deepest pools: of all arcs out of priced tokens the one with the most
    value on the priced side prices the next token. Tokens that no pool connects have no price.
    """
    arcs: dict[TokenId, list[tuple[float, TokenId, float]]] = {}
    for pool in pools:
        assert isinstance(pool, DeclaresArcs)
        for arc in pool.arcs():
            kind, par, capacity = curves.packed(curves.levels(arc)[:1])
            if len(kind):
                rate = float(kernels.slopes(kind, par, np.zeros(1))[0])
                depth = float(kernels.level_input_at(kind[0], par[0], capacity[0], rate / 1.02))
                if rate > 0.0 and isfinite(rate):
                    arcs.setdefault(arc.token_in, []).append((depth, arc.token_out, rate))
    prices: dict[TokenId, float] = {}
    waiting: list[tuple[float, TokenId, float]] = [(0.0, base, 1.0)]
    while waiting:
        _, known, price = heappop(waiting)
        if known in prices:
            continue
        prices[known] = price
        for depth, following, rate in arcs.get(known, ()):
            if following not in prices:
                heappush(waiting, (-depth * price, following, price / rate))
    return prices


def measure(
    found: Instance, orders: Sequence[tuple[TokenId, TokenId, float]], note: str = ""
) -> dict[str, Any]:
    """Solve orders cold, with cached rates; amounts in numeraire."""
    network = Network(found.pools, found.prices)
    times, gaps, rounds, losses = [], [], [], []
    certified = without = 0
    for source, target, amount in orders:
        s, t = network.index[source], network.index[target]
        engine.solve(network, s, t, amount, 1e-5)  # rates, and compilation
        started = time.perf_counter()
        solved = engine.solve(network, s, t, amount, 1e-5)
        times.append((time.perf_counter() - started) * 1e3)
        route = solved.route
        rounds.append(float(route.rounds))
        if isfinite(route.bound):
            gap = max(0.0, route.bound - float(getattr(route, "floor", 0.0)) - route.value)
            gaps.append(gap / max(route.bound, 1e-300) * 1e4)
            certified += gap <= 1e-5 * route.bound
        else:
            without += 1
        if solved.answer is not None and route.value > 0.0:
            gross = solved.answer.gross / float(network.unit[t])
            given = base_units(network, s, amount) / float(network.unit[s])
            losses.append((route.value * given / amount - gross) / route.value * 1e4)
    return {
        "pools": len(network.pools),
        "tokens": len(network.tokens),
        "orders": len(orders),
        "ms": spread(times),
        "netGapBps": spread(gaps),
        "rounds": spread(rounds),
        "integerLossBps": spread(losses),
        "certifiedShare": certified / len(orders),
        "withoutBound": without,
        "leftOut": found.left_out,
        "note": note,
        "loadAverage": load(),
    }


def connected(network: Network, source: TokenId) -> set[TokenId]:
    """Tokens that ``source`` can become."""
    seen = {network.index[source]}
    queue = list(seen)
    while queue:
        i = queue.pop()
        for place in range(network.out_start[i], network.out_start[i + 1]):
            j = int(network.head[network.out_arc[place]])
            if j not in seen:
                seen.add(j)
                queue.append(j)
    return {network.tokens[i] for i in seen}


def draw_orders(
    found: Instance, count: int, amount: Callable[[TokenId], float], seed: int
) -> list[tuple[TokenId, TokenId, float]]:
    """Connected pairs, uniform over the tokens."""
    rng = np.random.default_rng(seed)
    network = Network(found.pools, found.prices)
    orders: list[tuple[TokenId, TokenId, float]] = []
    reach: dict[TokenId, set[TokenId]] = {}
    while len(orders) < count:
        a, b = (network.tokens[k] for k in rng.choice(len(network.tokens), 2, replace=False))
        if a not in reach:
            reach[a] = connected(network, a)
        if b in reach[a]:
            orders.append((a, b, amount(a)))
    return orders


def run(report: Report, quick: bool) -> None:
    """Generators, then snapshots."""
    count = 10 if quick else 100
    for name, generator in GENERATORS.items():
        for m in (100,) if quick else (100, 1_000, 10_000):
            key = f"{name}, m = {m}"
            if report.has("instances", key):
                continue
            found = instance(generator(m, 1))
            heavy = name == "heavy-tailed"

            # 1 % of a typical reserve, where the paper's prices have no unit
            def amount(given: TokenId, prices: dict[TokenId, float] = found.prices,
                       heavy: bool = heavy, low: float = 1.0) -> float:  # fmt: skip
                return 1e4 if heavy else low * prices[given] * _ONE

            report.put("instances", key, measure(found, draw_orders(found, count, amount, 1)))
            print(key, report.content["instances"][key]["ms"], flush=True)
    path = DATA / "fastlane-snapshot"
    for file in sorted(path.glob("*.json")):
        key = f"fastlane-snapshot {file.stem}"
        if not report.has("instances", key):
            found = fastlane(json.loads(file.read_text(encoding="utf-8")))
            orders = draw_orders(found, count, lambda _: 5e18, 1)
            note = "5 ETH an order; left out: " + ", ".join(
                f"{number} {reason}" for reason, number in found.left_out.items()
            )
            report.put("instances", key, measure(found, orders, note))
            print(key, report.content["instances"][key]["ms"], flush=True)
    report.save()


def main() -> int:
    """Write reports/public.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few orders on small markets")
    parser.add_argument("--fresh", action="store_true", help="measure finished instances again")
    arguments = parser.parse_args()
    path = Path(f"reports/public{'-quick' if arguments.quick else ''}.json")
    run(Report(path, arguments.fresh), arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())

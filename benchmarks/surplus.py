"""How much more the engine pays than other routers: same orders, same pools, same integer replay.

Per market, order size and price of gas: net output of the engine and of each baseline in basis
points of the order, and the time of each. Restricted markets (two-coin product and weighted pools)
are also solved by cvxpy and Clarabel, as a check of value and bound by other code.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks import engine, orders
from benchmarks.baselines import BASELINES, Order, conic
from benchmarks.exact import SETTLEMENT_GAS, Gas, base_units
from benchmarks.machine import Report, load, spread
from benchmarks.markets import Shape, generate
from solver.core.pools import ConstantProductPool, WeightedPool
from solver.core.routing.network import Network

_TOLERANCE = 1e-6
_USD_PER_GAS = 2e-5  # 10 gwei at 2,000 USD: 1.8 USD for a constant-product swap
_WORSE = 1e-9  # of the order: below this a difference is the floats' and not the route's


class Case(Struct, frozen=True):
    """One distribution of the report."""

    pools: int
    usd: float
    gas_price: float
    noisy: bool = False

    @property
    def name(self) -> str:
        """Readable and unique."""
        gas = "gas free" if self.gas_price == 0.0 else "net of gas"
        size = f"{self.pools // 1000}k pools, {self.usd:.0e} USD, {gas}".replace("e+0", "e")
        return size + (", noisy" if self.noisy else "")


CASES = tuple(
    Case(pools, usd, price)
    for pools in (1_000, 10_000)
    for price in (_USD_PER_GAS, 0.0)
    for usd in (1e3, 1e4, 1e5)
)
CONIC_POOLS = 200


def measure(case: Case, seeds: Sequence[int], count: int) -> dict[str, Any]:
    """The engine and all baselines on ``count`` orders per seed."""
    gas = Gas(case.gas_price, SETTLEMENT_GAS if case.gas_price else 0)
    names = list(BASELINES)
    surplus: dict[str, list[float]] = {name: [] for name in names}
    times: dict[str, list[float]] = {name: [] for name in ("engine", *names)}
    used: dict[str, list[float]] = {name: [] for name in ("engine", *names)}
    worse: list[dict[str, Any]] = []
    no_path: dict[str, int] = dict.fromkeys(names, 0)
    unreachable = 0
    for seed in seeds:
        market = generate(Shape(case.pools, noisy=case.noisy), seed)
        network = Network(market.pools, market.prices)
        found = orders.draw(market, network, count, seed)
        unreachable += found.unreachable
        for source, target in found.pairs:
            # the rates of these sizes are there for everybody, as they are between blocks
            for share in (1 / 64, 1 / 20, 1 / 8, 1 / 2, 1):
                network.rates(share * case.usd)
            started = time.perf_counter()
            ours = engine.solve(network, source, target, case.usd, _TOLERANCE, gas=gas)
            times["engine"].append((time.perf_counter() - started) * 1e3)
            net = ours.answer.net if ours.answer is not None else 0.0
            used["engine"].append(ours.answer.pools if ours.answer is not None else 0)
            # an order below one base unit of an expensive token is sold as what can be sold
            sold = base_units(network, source, case.usd) / float(network.unit[source])
            for name in names:
                started = time.perf_counter()
                theirs = BASELINES[name](network, Order(source, target, case.usd), gas)
                times[name].append((time.perf_counter() - started) * 1e3)
                if theirs is None:
                    no_path[name] += 1
                    continue
                used[name].append(theirs.pools)
                better = (net - theirs.net) / max(sold, 1e-9)
                surplus[name].append(better * 1e4)
                if better < -_WORSE:
                    worse.append(
                        {
                            "seed": seed,
                            "baseline": name,
                            "source": network.tokens[source].address,
                            "target": network.tokens[target].address,
                            "bps": round(better * 1e4, 6),
                            "engineNetGapBps": round(ours.route.gap * 1e4, 6),
                            "note": ours.route.note,
                        }
                    )
    return {
        "pools": case.pools,
        "usd": case.usd,
        "usdPerGas": case.gas_price,
        "noisy": case.noisy,
        "seeds": list(seeds),
        "intents": count * len(seeds),
        "unreachablePairs": unreachable,
        "surplusBps": {name: _box(values) for name, values in surplus.items()},
        "worse": len(worse),
        "worseBeyondTolerance": sum(item["bps"] < -_TOLERANCE * 1e4 for item in worse),
        "worst": sorted(worse, key=lambda item: float(item["bps"]))[:20],
        "noPath": no_path,
        "ms": {name: spread(values) for name, values in times.items()},
        "poolsUsed": {name: spread(values) for name, values in used.items()},
        "values": {name: [round(v, 4) for v in values] for name, values in surplus.items()},
        "loadAverage": load(),
    }


def _box(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    cuts = np.percentile(values, [0, 5, 25, 50, 75, 95, 100])
    names = ("min", "p5", "p25", "p50", "p75", "p95", "max")
    found = {name: round(float(cut), 4) for name, cut in zip(names, cuts, strict=True)}
    return {**found, "mean": round(float(np.mean(values)), 4)}


def cross_check(seeds: Sequence[int], count: int, usd: float) -> dict[str, Any]:
    """The engine against Clarabel on two-coin product and weighted pools, without gas."""
    gas = Gas(0.0, 0)
    statuses: dict[str, int] = {}
    value_difference, bound_difference, times = [], [], []
    for seed in seeds:
        market = generate(Shape(CONIC_POOLS), seed)
        pools = [
            pool
            for pool in market.pools
            if isinstance(pool, ConstantProductPool | WeightedPool) and len(pool.tokens) == 2
        ]
        network = Network(pools, market.prices)
        for source, target in orders.draw(market, network, count, seed).pairs:
            ours = engine.solve(network, source, target, usd, _TOLERANCE)
            started = time.perf_counter()
            theirs = conic(network, Order(source, target, usd), gas)
            times.append((time.perf_counter() - started) * 1e3)
            status = theirs.status.split(":")[0]
            statuses[status] = statuses.get(status, 0) + 1
            if theirs.bound is not None and theirs.answer is not None and ours.answer is not None:
                value_difference.append((ours.answer.net - theirs.answer.net) / usd * 1e4)
                # each bound lies above the other's executed route, or one of them is wrong
                room = min(ours.route.bound - theirs.answer.net, theirs.bound - ours.answer.net)
                bound_difference.append(room / usd * 1e4)
    return {
        "pools": CONIC_POOLS,
        "usd": usd,
        "seeds": list(seeds),
        "intents": count * len(seeds),
        "statuses": statuses,
        "executedDifferenceBps": _box(value_difference),
        "boundsAboveTheOtherBps": _box(bound_difference),
        "ms": spread(times),
        "loadAverage": load(),
    }


def run(report: Report, cases: Sequence[Case], seeds: Sequence[int], count: int) -> None:
    """Measure what the report does not have."""
    measure(Case(1_000, 1e4, 0.0), (7,), 2)  # compiles
    for case in cases:
        if report.has("cases", case.name):
            continue
        started = time.perf_counter()
        found = measure(case, seeds, count)
        report.put("cases", case.name, found)
        medians = {name: box.get("p50") for name, box in found["surplusBps"].items()}
        spent = time.perf_counter() - started
        print(
            f"{case.name:36} {medians} worse {found['worse']} "
            f"({found['worseBeyondTolerance']} beyond the tolerance) in {spent:.0f} s",
            flush=True,
        )
    for usd in (1e3, 1e4, 1e5):
        if not report.has("conic", f"{usd:g}"):
            report.put("conic", f"{usd:g}", cross_check(seeds, max(2, count // 5), usd))
            print(f"conic {usd:g}: {report.content['conic'][f'{usd:g}']['statuses']}", flush=True)
    report.save()


def main() -> int:
    """Write reports/surplus.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few orders, 1k pools")
    parser.add_argument("--fresh", action="store_true", help="measure finished cases again")
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    default = Path(f"reports/surplus{'-quick' if arguments.quick else ''}.json")
    cases = [
        case
        for case in CASES
        if (not arguments.case or any(part in case.name for part in arguments.case))
        and not (arguments.quick and case.pools > 1_000)
    ]
    report = Report(arguments.report or default, arguments.fresh)
    seeds, count = ((201,), 10) if arguments.quick else ((201, 202, 203, 204, 205), 40)
    run(report, cases, seeds, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The routing engine in time, gap and memory: block after block, everything included.

A case is a market size, an order size and a tolerance. Per seed a market is generated; per block
its moved pools are taken over and a number of orders is solved three times: *cold* (no cached
rates, nothing known about the pair), *cached* (rates of the network are there) and *warm* (the same
pair one block earlier, the order another up to 5 % larger or smaller). A time is that of the block
update, the candidates, the interior point with its rounds, the certificate and the replay in exact
integers. Noisy markets are measured cold only, the order as the whole network without it first,
which counts as block update; the arbitrage that a certificate exhibits is not part of the time of
an order but has its own. Finished cases stay in the report, so an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks import engine, orders
from benchmarks.exact import Gas, base_units
from benchmarks.machine import Report, load, spread
from benchmarks.markets import Market, Shape, generate, move
from solver.core.routing.arbitrage import exhibit
from solver.core.routing.arcs import STEPS
from solver.core.routing.charges import net_of_gas
from solver.core.routing.clock import Clock
from solver.core.routing.network import Network
from solver.core.routing.router import ARBITRAGE, Warm, find_route
from solver.core.routing.whole import settle

MODES = ("cold", "cached", "warm")
_USD_PER_GAS = 2e-5  # 10 gwei at 2,000 USD: 1.8 USD for a constant-product swap
_SHARE_MOVED = 0.05
_AMOUNT_MOVED = 0.05
_REFERENCE_PATH = Path("reports/routing.json")


class Case(Struct, frozen=True):
    """One row of the table; ``bars`` are (p50, p99) in ms per mode, ``gap`` the tolerance."""

    pools: int
    usd: float
    gap: float = 1e-5
    noisy: bool = False
    modes: tuple[str, ...] = MODES
    bars: dict[str, tuple[float | None, float | None]] = {}

    @property
    def name(self) -> str:
        """Readable and unique."""
        size = f"{self.pools // 1000}k"
        fine = "" if self.gap == 1e-5 else f", {self.gap * 1e4:g} bp"
        return f"{size} pools, {self.usd:.0e} USD{fine}{', noisy' if self.noisy else ''}".replace(
            "e+0", "e"
        )


CASES = (
    Case(1_000, 1e4, bars={"warm": (2, 10), "cold": (3.5, 20)}),
    Case(10_000, 1e4, bars={"warm": (4, 40), "cold": (10, 80)}),
    Case(100_000, 1e4, bars={"warm": (18, 70), "cold": (60, 140)}),
    Case(10_000, 1e5, bars={"warm": (10, 80), "cold": (25, 200)}),
    Case(10_000, 1e4, gap=1e-6, bars={"cold": (15, None)}),
    Case(1_000, 1e4, noisy=True, modes=("cold",), bars={"cold": (20, None)}),
    Case(10_000, 1e4, noisy=True, modes=("cold",), bars={"cold": (150, None)}),
    Case(1_000, 1e3),
    Case(1_000, 1e5),
    Case(10_000, 1e3),
    Case(100_000, 1e3),
    Case(100_000, 1e5),
)
UPDATE_BAR_MS = 5.0
MEMORY_BAR_GB = 1.5


class Effort(Struct, frozen=True):
    """How much of it: ``orders`` per block, blocks per seed."""

    seeds: tuple[int, ...]
    blocks: int
    orders: int


FULL = Effort((101, 102, 103, 104, 105), 4, 50)
QUICK = Effort((101,), 2, 10)


class Sample(Struct):
    """What one case collects per mode."""

    wall: list[float]
    cpu: list[float]
    gap: list[float]
    net_gap: list[float]
    floor: list[float]
    floor_ms: list[float]
    loss: list[float]
    lot_loss: list[float]
    rounds: list[float]
    arcs: list[float]
    missed: list[dict[str, Any]]


def _sample() -> Sample:
    return Sample([], [], [], [], [], [], [], [], [], [], [])


class _Clock:
    """Wall and processor time in milliseconds."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        return (time.perf_counter() - self.wall) * 1e3, (time.process_time() - self.cpu) * 1e3


def _update(network: Network, moved: Sequence[Any], noisy: bool) -> tuple[float, float]:
    clock = _Clock()
    network.update(moved)
    if noisy:
        settle(network)
    return clock.stop()


def _settle() -> None:
    """Collect now; what stays is left out of later collections, as in a long-running process."""
    gc.collect()
    gc.freeze()


def compile_everything() -> None:
    """Solve a few orders of each kind, so that no measured call compiles."""
    for noisy in (False, True):
        market = generate(Shape(300, 40, noisy=noisy), 7)
        network = Network(market.pools, market.prices)
        for source, target in orders.draw(market, network, 4, 7).pairs:
            solved = engine.solve(network, source, target, 1e4, 1e-5)
            network.update(move(market, 8)[1])
            engine.solve(network, source, target, 1e4, 1e-5, solved.warm)
            engine.solve(network, source, target, 1e4, 1e-5, gas=Gas(_USD_PER_GAS))
            engine.buy(network, source, target, base_units(network, target, 1e4), 1e5, 1e-5)


def measure(cases: Sequence[Case], seed: int, effort: Effort) -> Iterator[dict[str, Any]]:
    """All cases of one market (same pools and noise) on one seed; one raw result per case."""
    first = cases[0]
    market = generate(Shape(first.pools, noisy=first.noisy), seed)
    network = Network(market.pools, market.prices)
    _settle()
    for number, case in enumerate(cases):
        yield from _measure_case(case, market, network, seed, number, effort)


def _measure_case(
    case: Case, market: Market, network: Network, seed: int, number: int, effort: Effort
) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng((seed, number))
    samples = {mode: _sample() for mode in case.modes}
    updates: list[tuple[float, float]] = []
    unreachable = 0
    # the network may stand at a later block of the case before: its pools are one block of many
    network.update(market.pools)
    if case.noisy:
        settle(network)
    for block in range(effort.blocks):
        found = orders.draw(market, network, effort.orders, seed * 1_000 + 100 * number + block)
        unreachable += found.unreachable
        amounts = case.usd * (1.0 + rng.uniform(-_AMOUNT_MOVED, _AMOUNT_MOVED, effort.orders))
        before: list[Warm | None] = [
            engine.solve(network, *pair, case.usd, case.gap).warm if "warm" in case.modes else None
            for pair in found.pairs
        ]
        market, moved = move(market, int(rng.integers(2**31)), _SHARE_MOVED)
        gc.collect()
        update = _update(network, moved, case.noisy)
        updates.append(update)
        for mode in reversed(case.modes):
            if mode == "cold":
                network.forget_rates()
                update = _update(
                    network, moved, case.noisy
                )  # the same rows again, now without rates
            for pair, amount, warm in zip(found.pairs, amounts, before, strict=True):
                if mode == "cold":
                    network.forget_rates()
                state = warm if mode == "warm" else None
                _one(case, network, pair, float(amount), state, update, samples[mode])
    yield {
        "seed": seed,
        "samples": samples,
        "updates": updates,
        "unreachable": unreachable,
    }


def _one(
    case: Case, network: Network, pair: tuple[int, int], amount: float, warm: Warm | None,
    update: tuple[float, float], sample: Sample,
) -> None:  # fmt: skip
    clock = _Clock()
    solved = engine.solve(network, *pair, amount, case.gap, warm)
    wall, cpu = clock.stop()
    route = solved.route
    sample.wall.append(wall + update[0])
    sample.cpu.append(cpu + update[1])
    floor = 0.0
    if route.note == ARBITRAGE:
        clock = _Clock()
        floor = exhibit(network, pair[1]).worth
        sample.floor_ms.append(clock.stop()[0])  # little where the token was asked for before
        sample.floor.append(floor)
    net_gap = max(0.0, route.bound - floor - route.value) / amount
    sample.net_gap.append(net_gap)
    reached = max(route.value, route.joint)
    sample.gap.append((route.bound - reached) / amount if isfinite(route.bound) else float("inf"))
    sample.rounds.append(route.rounds)
    sample.arcs.append(len(route.arc))
    if solved.answer is not None:
        given = base_units(network, pair[0], amount) / float(network.unit[pair[0]])
        scale = amount / given if given > 0.0 else 1.0
        gross = solved.answer.gross / float(network.unit[pair[1]])
        books = any(network.kind[arc] == STEPS for arc in route.arc)
        loss = (route.value - gross * scale) / amount
        (sample.lot_loss if books else sample.loss).append(loss)
    if not net_gap <= case.gap:
        sample.missed.append(
            {
                "source": network.tokens[pair[0]].address,
                "target": network.tokens[pair[1]].address,
                "usd": amount,
                "gapBps": _finite(net_gap * 1e4),
                "note": route.note,
            }
        )


def _finite(value: float) -> float | None:
    return round(value, 6) if isfinite(value) else None


EXACT_OUT_POOLS = (1_000, 10_000)


def exact_out(pools: int, usd: float, seeds: Sequence[int], count: int) -> dict[str, Any]:
    """Orders for an exact output, with cached rates: time, gap to the least input, integers."""
    times, gaps, over = [], [], []
    unfilled = certified = 0
    for seed in seeds:
        market = generate(Shape(pools), seed)
        network = Network(market.pools, market.prices)
        for source, target in orders.draw(market, network, count, seed + 1).pairs:
            wanted = base_units(network, target, usd)
            if wanted == 0:
                continue
            clock = _Clock()
            bought = engine.buy(network, source, target, wanted, 10.0 * usd, 1e-5)
            times.append(clock.stop()[0])
            if bought.amount_in is None or bought.replay is None:
                unfilled += 1
                continue
            gaps.append(bought.purchase.gap * 1e4)
            certified += bought.purchase.gap <= 1e-5
            over.append((bought.replay.amount_out / wanted - 1.0) * 1e4)
    return {
        "pools": pools,
        "usd": usd,
        "seeds": list(seeds),
        "intents": len(times),
        "ms": spread(times),
        "gapBps": spread(gaps),
        "certifiedShare": round(certified / len(times), 5),
        "unfilled": unfilled,
        "overfillBps": spread(over),
        "loadAverage": load(),
    }


GAS_CASES = ((1_000, 1e3), (1_000, 1e4), (1_000, 1e5), (10_000, 1e4))


def gas(pools: int, usd: float, seeds: Sequence[int], count: int) -> dict[str, Any]:
    """Orders net of gas, with cached rates: time, and gaps to both bounds in bp of the order.

    ``overCharge`` is the gap to U in parts of the mean charge q of a swap; the bar for its p99 is
    1.5.
    """
    times, gaps, inside, over = [], [], [], []
    unfilled = 0
    for seed in seeds:
        market = generate(Shape(pools), seed)
        network = Network(market.pools, market.prices)
        charge = _USD_PER_GAS * float(network.pool_gas.mean())
        for source, target in orders.draw(market, network, count, seed + 2).pairs:
            clock = _Clock()
            found = net_of_gas(network, source, target, usd, _USD_PER_GAS)
            times.append(clock.stop()[0])
            gaps.append((found.bound - found.net) / usd * 1e4)
            inside.append((found.bound_in_set - found.net) / usd * 1e4)
            over.append((found.bound - found.net) / charge)
            unfilled += len(found.arc) == 0
    return {
        "pools": pools,
        "usd": usd,
        "usdPerGas": _USD_PER_GAS,
        "seeds": list(seeds),
        "intents": len(times),
        "ms": spread(times),
        "gapToBoundBps": spread(gaps),
        "gapInSetBps": spread(inside),
        "overCharge": spread(over),
        "unfilled": unfilled,
        "barMs": 150,
        "barBps": 0.5,
        "barInSetBps": 0.1,
        "barOverCharge": 1.5,
        "loadAverage": load(),
    }


ANYTIME_MS = (1.0, 5.0, 20.0, 100.0)
OVERRUN_BAR_MS = 20.0


def anytime(
    pools: int, noisy: bool, deadline_ms: float, seeds: Sequence[int], count: int
) -> dict[str, Any]:
    """Cold orders of 1e5 USD under a deadline: how late answers are, and how good."""
    late, gaps = [], []
    unfilled = 0
    for seed in seeds:
        market = generate(Shape(pools, noisy=noisy), seed)
        network = Network(market.pools, market.prices)
        for source, target in orders.draw(market, network, count, seed + 3).pairs:
            network.forget_rates()
            started = time.perf_counter()
            until = Clock(time.perf_counter, started + deadline_ms / 1e3)
            route, _ = find_route(network, source, target, 1e5, clock=until)
            late.append((time.perf_counter() - started) * 1e3 - deadline_ms)
            if len(route.arc) == 0:
                unfilled += 1
            elif isfinite(route.bound):
                gaps.append(max(0.0, route.bound - max(route.value, route.joint)) / 1e5 * 1e4)
    return {
        "pools": pools,
        "noisy": noisy,
        "deadlineMs": deadline_ms,
        "seeds": list(seeds),
        "intents": len(late),
        "overrunMs": spread([max(0.0, value) for value in late]),
        "barMs": OVERRUN_BAR_MS,
        "gapToBoundBps": spread(gaps),
        "unfilled": unfilled,
        "loadAverage": load(),
    }


def summary(case: Case, raw: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Percentiles over all seeds."""
    modes = {}
    for mode in case.modes:
        samples: list[Sample] = [part["samples"][mode] for part in raw]
        whole = {
            name: [value for sample in samples for value in getattr(sample, name)]
            for name in Sample.__struct_fields__
        }
        intents = len(whole["wall"])
        certified = [gap for gap in whole["net_gap"] if gap <= case.gap]
        finite = [gap * 1e4 for gap in whole["net_gap"] if isfinite(gap)]
        modes[mode] = {
            "intents": intents,
            "ms": spread(whole["wall"]),
            "cpuMs": spread(whole["cpu"]),
            "barMs": case.bars.get(mode),
            "netGapBps": spread(finite),
            "gapToBoundBps": spread([gap * 1e4 for gap in whole["gap"] if isfinite(gap)]),
            "arbitrageUsd": spread(whole["floor"]),
            "exhibitMs": spread(whole["floor_ms"]),
            "withoutBound": intents - len(finite),
            "certifiedShare": round(len(certified) / intents, 5) if intents else None,
            "rounds": spread(whole["rounds"]),
            "arcsUsed": spread(whole["arcs"]),
            "integerLossBps": spread([loss * 1e4 for loss in whole["loss"]]),
            "lotLossBps": spread([loss * 1e4 for loss in whole["lot_loss"]]),
            "missed": [
                {"seed": part["seed"], **miss}
                for part in raw
                for miss in part["samples"][mode].missed
            ][:20],
            "latencies": [round(value, 3) for value in whole["wall"]],
            "gaps": [float(f"{gap * 1e4:.3g}") for gap in whole["net_gap"] if isfinite(gap)],
        }
    return {
        "pools": case.pools,
        "usd": case.usd,
        "tolerance": case.gap,
        "noisy": case.noisy,
        "seeds": [part["seed"] for part in raw],
        "unreachablePairs": sum(part["unreachable"] for part in raw),
        "updateMs": spread([wall for part in raw for wall, _ in part["updates"]]),
        "updateCpuMs": spread([cpu for part in raw for _, cpu in part["updates"]]),
        "updateBarMs": UPDATE_BAR_MS if case.pools == 10_000 else None,
        "modes": modes,
        "loadAverage": load(),
        "seconds": round(seconds, 1),
    }


def memory(pools: int, seed: int) -> dict[str, Any]:
    """Resident memory in GB of this process after each step; run it in a process of its own."""
    found: dict[str, Any] = {"pools": pools}
    compile_everything()
    found["baseGb"] = _peak()
    market = generate(Shape(pools), seed)
    ticks = {
        id(pool.ticks): len(pool.ticks.ticks) for pool in market.pools if hasattr(pool, "ticks")
    }
    found["ticks"] = sum(ticks.values())
    found["withPoolsGb"] = _peak()
    network = Network(market.pools, market.prices)
    found["withNetworkGb"] = _peak()
    for source, target in orders.draw(market, network, 10, seed).pairs:
        engine.solve(network, source, target, 1e4, 1e-5)
    found["peakGb"] = _peak()
    found["barGb"] = MEMORY_BAR_GB if pools == 100_000 else None
    return found


def _peak() -> float:
    """Linux: what getrusage gives for a child process begins at the size of its parent."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 2**20, 3)
    raise RuntimeError("no VmHWM in /proc/self/status")


def _memory_elsewhere(pools: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.routing", "--memory-of", str(pools)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _say(case: Case, found: dict[str, Any]) -> None:
    for mode, result in found["modes"].items():
        ms, gap = result["ms"], result["netGapBps"]
        bar = result["barMs"]
        print(
            f"{case.name:32} {mode:7} p50 {ms['p50']:8.2f} p99 {ms['p99']:8.2f} ms"
            f" (CPU {result['cpuMs']['p50']:8.2f} / {result['cpuMs']['p99']:8.2f})"
            f"{f'  bar {bar[0]} / {bar[1]}' if bar else '':18}"
            f" gap p99 {gap.get('p99', float('nan')):9.2e} bp"
            f"  certified {result['certifiedShare']:.4f} of {result['intents']}",
            flush=True,
        )


def run(report: Report, cases: Sequence[Case], effort: Effort) -> None:
    """Measure what the report does not have, market by market."""
    waiting = [case for case in cases if not report.has("cases", case.name)]
    markets = sorted({(case.noisy, case.pools) for case in waiting})
    if waiting:
        compile_everything()
    for noisy, pools in markets:
        group = [case for case in waiting if (case.noisy, case.pools) == (noisy, pools)]
        raw: list[list[dict[str, Any]]] = [[] for _ in group]
        seconds = [0.0] * len(group)
        for seed in effort.seeds:
            started = time.perf_counter()
            for number, result in enumerate(measure(group, seed, effort)):
                raw[number].append(result)
                now = time.perf_counter()
                seconds[number] += now - started
                started = now
                print(
                    f"  {group[number].name}: seed {seed} after {seconds[number]:.0f} s", flush=True
                )
            gc.unfreeze()
        for case, parts, spent in zip(group, raw, seconds, strict=True):
            found = summary(case, parts, spent)
            report.put("cases", case.name, found)
            _say(case, found)


def _more(report: Report, effort: Effort, most_pools: int) -> None:
    """Net of gas, and under deadlines."""
    for pools, usd in GAS_CASES:
        key = f"{pools // 1000}k pools, {usd:.0e} USD".replace("e+0", "e")
        if pools <= most_pools and not report.has("gas", key):
            report.put("gas", key, gas(pools, usd, effort.seeds, effort.orders))
            found = report.content["gas"][key]
            print(f"net of gas, {key}: {found['ms']} gap {found['gapToBoundBps']} bp", flush=True)
    for noisy in (False, True):
        for deadline_ms in ANYTIME_MS:
            key = f"{most_pools // 1000}k pools{', noisy' if noisy else ''}, {deadline_ms:g} ms"
            if not report.has("anytime", key):
                found = anytime(most_pools, noisy, deadline_ms, effort.seeds[:2], effort.orders)
                report.put("anytime", key, found)
                print(f"anytime, {key}: late {found['overrunMs']} ms", flush=True)


def main() -> int:
    """Write reports/routing.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few orders, no 100k pools")
    parser.add_argument("--fresh", action="store_true", help="measure finished cases again")
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(memory(arguments.memory_of, 1)))
        return 0
    default = Path("reports/routing-quick.json") if arguments.quick else _REFERENCE_PATH
    report = Report(arguments.report or default, arguments.fresh)
    cases = [
        case
        for case in CASES
        if (not arguments.case or any(part in case.name for part in arguments.case))
        and not (arguments.quick and not arguments.case and case.pools > 10_000)
    ]
    run(report, cases, QUICK if arguments.quick else FULL)
    for pools in () if arguments.case else EXACT_OUT_POOLS:
        key = f"{pools // 1000}k pools, 1e4 USD"
        if not report.has("exactOut", key) and not (arguments.quick and pools > 1_000):
            effort = QUICK if arguments.quick else FULL
            found = exact_out(pools, 1e4, effort.seeds, effort.orders)
            report.put("exactOut", key, found)
            print(f"exact out, {key}: {found['ms']} gap {found['gapBps']} bp", flush=True)
    if not arguments.case:
        _more(report, QUICK if arguments.quick else FULL, 1_000 if arguments.quick else 10_000)
    sizes = [10_000] if arguments.quick else [1_000, 10_000, 100_000]
    for pools in [] if arguments.case else sizes:
        if not report.has("memory", str(pools)):
            report.put("memory", str(pools), _memory_elsewhere(pools))
            print(f"memory {pools}: {report.content['memory'][str(pools)]}", flush=True)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())

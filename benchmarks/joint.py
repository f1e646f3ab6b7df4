"""How long a whole batch takes in a large market, and how near to its bound it ends.

Orders between popular tokens, as many one way as pools and chance have it, limits 20 to 300 bp
under the reference rate and three in ten near it. Every batch is solved as the daemon does it: the
network is kept from batch to batch, a block moves a twentieth of the pools in between, and the
answer is checked in integers and proven over the whole market. ``jointMs`` leaves out the reports
of what each order could have had alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks import orders
from benchmarks.batches import intent_of
from benchmarks.machine import Report, load, spread
from benchmarks.markets import Market, Shape, generate, move
from solver.core.batch import Memory, solve_batch
from solver.core.routing.network import Network
from solver.core.types import BPS, Intent, Kind, Solution
from solver.core.venue import Snapshot

_SHARE_MOVED = 0.05
_TIGHT = 0.3


class Case(Struct, frozen=True):
    """One row of the table; bars in ms, and for the median gap in bp of the volume."""

    pools: int
    intents: int
    partial: bool
    bar_p50_ms: float | None
    bar_p99_ms: float | None
    bar_gap_bps: float
    batches: int

    @property
    def name(self) -> str:
        """Readable and unique."""
        kind = "partial" if self.partial else "fill-or-kill"
        return f"{self.intents} {kind} over {self.pools // 1000}k pools"


CASES = (
    Case(1_000, 100, True, 150, 600, 0.05, 10),
    Case(1_000, 1_000, True, 600, None, 0.05, 2),
    Case(10_000, 100, True, 400, 1_500, 0.05, 4),
    Case(1_000, 100, False, 3_000, None, 1.0, 4),
)


def intents_of(market: Market, network: Network, case: Case, seed: int) -> list[Intent]:
    """The orders of one batch: 1e3 to 1e5 of numeraire, log-uniform."""
    rng = np.random.default_rng(seed)
    pairs = orders.draw(market, network, case.intents, seed).pairs
    found = []
    for number, (source, target) in enumerate(pairs):
        sell, buy = network.tokens[source], network.tokens[target]
        worth = 10.0 ** rng.uniform(3, 5)
        under = rng.uniform(0.0, 20.0) if rng.random() < _TIGHT else rng.uniform(20.0, 300.0)
        sold = max(1, int(worth / market.prices[sell]))
        bought = max(1, int(worth / market.prices[buy] * (1.0 - under / BPS)))
        found.append(intent_of(sell, buy, sold, bought, Kind.EXACT_IN, case.partial, number))
    return found


class _Stages:
    """When each stage of a solve began."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.at: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        self.at[stage] = time.perf_counter() - self.started

    def until(self, stage: str) -> float:
        """Milliseconds from the start to a stage, or to now where it was not reached."""
        return 1e3 * self.at.get(stage, time.perf_counter() - self.started)


def measure(case: Case, seed: int) -> dict[str, Any]:
    """All batches of a case on one market, block after block; the first one warms up."""
    market = generate(Shape(case.pools), seed)
    memory = Memory()
    raw: list[dict[str, Any]] = []
    for block in range(case.batches + 1):
        network = memory.network or Network(market.pools, market.prices)
        intents = intents_of(market, network, case, seed * 1_000 + block)
        hash_of_block = f"0x{seed * 1_000 + block:064x}"
        snapshot = Snapshot({}, tuple(market.pools), market.prices, {}, {}, {}, hash=hash_of_block)
        stages = _Stages()
        solution = solve_batch(snapshot, intents, progress=stages, memory=memory)
        if block:
            raw.append(_row(market, intents, solution, stages))
        market, _ = move(market, seed * 1_000 + block, _SHARE_MOVED)
    return _summary(case, seed, raw)


def _row(
    market: Market, intents: Sequence[Intent], solution: Solution, stages: _Stages
) -> dict[str, Any]:
    submitted = sum(i.swap.sell_amount * market.prices[i.swap.sell] for i in intents)
    filled = {fill.digest for fill in solution.fills}
    proven = solution.certificate
    return {
        "totalMs": stages.until("end"),
        "jointMs": stages.until("alone"),
        "referenceMs": stages.until("relax") - stages.until("reference"),
        "gapBps": float(proven.gap) / submitted * BPS,
        "netGapBps": float(proven.net_gap) / submitted * BPS,
        "surplusBps": float(proven.value) / submitted * BPS,
        "filled": len(filled),
        "legs": len(solution.legs),
        "stage": solution.stage,
    }


def _summary(case: Case, seed: int, raw: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = ("totalMs", "jointMs", "referenceMs", "gapBps", "netGapBps", "surplusBps", "filled")
    return {
        "pools": case.pools,
        "intents": case.intents,
        "partial": case.partial,
        "seed": seed,
        "batches": len(raw),
        **{name: spread([float(row[name]) for row in raw]) for name in figures},
        "stages": dict(Counter(row["stage"] for row in raw)),
        "barMs": [case.bar_p50_ms, case.bar_p99_ms],
        "barGapBps": case.bar_gap_bps,
        "loadAverage": load(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Write reports/joint.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two batches of the first case")
    parser.add_argument("--fresh", action="store_true", help="measure finished cases again")
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(words)
    default = Path(f"reports/joint{'-quick' if options.quick else ''}.json")
    report = Report(options.report or default, options.fresh)
    cases = [
        case
        for case in CASES
        if not options.case or any(part in case.name for part in options.case)
    ]
    if options.quick:
        cases = [Case(1_000, 20, True, None, None, 0.05, 2)]
    for case in cases:
        if not report.has("cases", case.name):
            found = measure(case, 301)
            report.put("cases", case.name, found)
            print(f"{case.name:32} {found['jointMs']} ms, gap {found['netGapBps']} bp", flush=True)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From reports/*.json to docs/benchmarks.md and its plots; measures nothing itself.

The tables stand between markers, so that the prose around them stays. A figure that was not
measured is named as such.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.margined import RULE
from solver.core.margin import tiers
from solver.core.margin.rules import Account, Expiry, Market, Option
from solver.core.margin.scenarios import requirement

_DOCUMENT = Path("docs/benchmarks.md")
_IMAGES = Path("docs/img")
_NOT_YET = "not yet measured"
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart
_COLOURS = {"cold": "#0072B2", "cached": "#56B4E9", "warm": "#E69F00"}
_ROUTERS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
_SIZE_COLOURS = {1e3: "#56B4E9", 1e4: "#0072B2", 1e5: "#E69F00"}
_BAR = "#D55E00"
_INK = "#333333"


def _plots() -> Any:
    """pyplot, drawing into files only."""
    import_module("matplotlib").use("Agg")
    plt: Any = import_module("matplotlib.pyplot")
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _INK,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "svg.hashsalt": "thalweg",
        }
    )
    return plt


def _save(plt: Any, figure: Any, name: str) -> None:
    _IMAGES.mkdir(parents=True, exist_ok=True)
    # no dates and no random ids: the same figures give the same files
    figure.savefig(_IMAGES / f"{name}.svg", metadata={"Date": None})
    figure.savefig(_IMAGES / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def latency(cases: dict[str, Any]) -> None:
    """Distribution of times per case and mode, with the bars."""
    plt = _plots()
    names = list(cases)
    figure, axes = plt.subplots(figsize=(9.5, 0.85 * len(names) + 1.6))
    for row, name in enumerate(names):
        for place, (mode, colour) in enumerate(_COLOURS.items()):
            result = cases[name]["modes"].get(mode)
            if result is None:
                continue
            times = np.array(result["latencies"])
            y = row + (place - 1) * 0.27
            low, q1, middle, q3, high = np.percentile(times, [1, 25, 50, 75, 99])
            axes.plot([low, high], [y, y], color=colour, lw=1.2)
            axes.plot([q1, q3], [y, y], color=colour, lw=6, solid_capstyle="butt")
            axes.plot([middle], [y], "o", color="white", mec=_INK, ms=5, mew=1.1)
            axes.plot([high], [y], "|", color=colour, ms=9, mew=2)
            for bar, mark in zip(result["barMs"] or (), ("o", "|"), strict=False):
                if bar is not None:
                    size = {"o": 7, "|": 13}[mark]
                    axes.plot([bar], [y], mark, color="none" if mark == "o" else _BAR,
                              mec=_BAR, ms=size, mew=1.8, zorder=4)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="#EEEEEE", lw=0.8)
    axes.set_xlabel("milliseconds, block update to exact integers (log scale)")
    axes.set_title("Time of one order: p1 to p99, quartiles and median", loc="left")
    line = import_module("matplotlib.lines").Line2D
    keys = [line([], [], color=colour, lw=6, label=mode) for mode, colour in _COLOURS.items()]
    keys += [
        line([], [], marker="o", ls="", color="white", mec=_INK, label="median"),
        line([], [], marker="o", ls="", color="none", mec=_BAR, mew=1.8, label="bar p50"),
        line([], [], marker="|", ls="", color=_BAR, ms=11, mew=2, label="bar p99"),
    ]
    below = -0.55 / len(names) - 0.015
    axes.legend(handles=keys, ncol=6, loc="upper left", bbox_to_anchor=(0, below),
                frameon=False, columnspacing=1.2, handlelength=1.4)  # fmt: skip
    _save(plt, figure, "latency")


def gaps(cases: dict[str, Any]) -> None:
    """Cumulative distribution of the certified gap."""
    plt = _plots()
    figure, axes = plt.subplots(figsize=(8.5, 4.6))
    shown = {name: case for name, case in cases.items() if case["modes"]["cold"]["gaps"]}
    floor = 1e-8
    for name, case in shown.items():
        result = case["modes"]["cold"]
        values = np.sort(np.maximum(np.array(result["gaps"]), floor))
        share = np.arange(1, len(values) + 1) / result["intents"]
        colour = _SIZE_COLOURS.get(case["usd"], _INK)
        if case["noisy"] or case["tolerance"] < 1e-5:
            colour = "#CC79A7" if case["noisy"] else "#D55E00"
        style = {1_000: ":", 10_000: "--"}.get(case["pools"], "-")
        axes.step(values, share, where="post", color=colour, ls=style, lw=1.8, label=name)
    axes.axvline(0.1, color=_INK, lw=1.1, ls=(0, (4, 3)))
    axes.annotate("tolerance 0.1 bp", (0.1, 0.03), xytext=(-5, 0), textcoords="offset points",
                  rotation=90, va="bottom", ha="right", color=_INK, fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(left=floor)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel(
        f"netGap in basis points of the order (log scale; below {floor:g}: at the left)"
    )
    axes.set_ylabel("orders with at most this gap")
    axes.set_title("How much any route could still add, cold", loc="left")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1))
    _save(plt, figure, "gap")


def surplus(cases: dict[str, Any]) -> None:
    """Surplus over each baseline per order size."""
    plt = _plots()
    panels = sorted({(case["pools"], case["usdPerGas"] > 0.0) for case in cases.values()})
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5.2 * columns + 0.6, 3.7 * rows + 0.5),
                                sharey=True, squeeze=False)  # fmt: skip
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (pools, priced) in zip(grid.flat, panels, strict=False):
        group = sorted(
            (c for c in cases.values() if (c["pools"], c["usdPerGas"] > 0.0) == (pools, priced)),
            key=lambda case: float(case["usd"]),
        )
        names = list(group[0]["values"])
        for number, name in enumerate(names):
            boxes = [case["values"][name] for case in group]
            places = [k + (number - (len(names) - 1) / 2) * 0.2 for k in range(len(group))]
            drawn = axes.boxplot(
                boxes,
                positions=places,
                widths=0.15,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                medianprops={"color": _INK, "lw": 1.5},
                boxprops={"facecolor": _ROUTERS[number], "edgecolor": _INK, "lw": 0.7},
                whiskerprops={"color": _INK, "lw": 0.9},
                capprops={"color": _INK, "lw": 0.9},
            )
            drawn["boxes"][0].set_label(name)
        axes.axhline(0.0, color=_INK, lw=1)
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xticks(range(len(group)), [f"{case['usd']:,.0f} USD" for case in group])
        axes.grid(axis="x", visible=False)
        axes.set_title(f"{pools:,} pools, {'net of gas' if priced else 'gas free'}", loc="left")
    for axes in grid[:, 0]:
        axes.set_ylabel("basis points more than\nthe baseline (symlog)")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=len(labels), loc="lower center", frameon=False,
                  bbox_to_anchor=(0.5, -0.07 / rows))  # fmt: skip
    figure.suptitle("What the engine pays more: median, quartiles, 5 % to 95 %", x=0.02, ha="left")
    figure.tight_layout()
    _save(plt, figure, "surplus")


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{float(value):.{digits}g}" if abs(float(value)) < 1000 else f"{float(value):,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _verdict(value: float | None, bar: float | None) -> str:
    if bar is None or value is None:
        return ""
    return " ✓" if value <= bar else " ✗"


def _barred(bar: float | None, value: float) -> str:
    return "" if bar is None else f"{_number(bar)}{_verdict(value, bar)}"


def routing_text(report: dict[str, Any]) -> list[str]:
    """Tables of time, gap and memory."""
    cases = report.get("cases", {})
    rows, more = [], []
    for name, case in cases.items():
        for mode, result in case["modes"].items():
            p50, p99 = result["barMs"] or (None, None)
            ms, gap = result["ms"], result["netGapBps"]
            rows.append(
                [
                    name,
                    mode,
                    str(result["intents"]),
                    *(_number(ms[key]) for key in ("p50", "p90", "p99", "max")),
                    f"{_number(result['cpuMs']['p50'])} / {_number(result['cpuMs']['p99'])}",
                    f"{_number(p50)} / {_number(p99)}"
                    f"{_verdict(ms['p50'], p50)}{_verdict(ms['p99'], p99)}"
                    if p50
                    else "",
                ]
            )
            loss = result["integerLossBps"]
            lots = result["lotLossBps"]
            more.append(
                [
                    name,
                    mode,
                    *(_number(gap.get(key)) for key in ("p50", "p99", "max")),
                    f"{100 * result['certifiedShare']:.2f} %",
                    str(result["withoutBound"]),
                    f"{_number(result['rounds']['p50'])} / {_number(result['rounds']['p99'])}",
                    f"{_number(result['arcsUsed']['p50'])} / {_number(result['arcsUsed']['p99'])}",
                    f"{_number(loss.get('p50'), 2)} / {_number(loss.get('max'), 2)}",
                    f"{_number(lots.get('p50'), 2)} / {_number(lots.get('max'), 2)}",
                ]
            )
    text = [
        "Milliseconds per order, from the update of the block's moved pools to exact integers; bar",
        "p50 / p99, ✓ met or ✗ missed in this order. CPU is the process's own time: the difference",
        "to the wall clock is what else the machine did.",
        "",
        *_table(
            ("case", "mode", "orders", "p50", "p90", "p99", "max", "CPU p50 / p99", "bar"), rows
        ),
        "",
        "![Time per case](img/latency.svg)",
        "",
        "Gaps are netGap in basis points of the order. The loss is that of exact integers against",
        "the route's value in floats, bp of the order; apart for routes through books, where what",
        "is less than a lot stays unsold and counts as lost.",
        "",
        *_table(
            (
                "case",
                "mode",
                "gap p50",
                "p99",
                "max",
                "certified",
                "no bound",
                "rounds p50 / p99",
                "arcs p50 / p99",
                "loss p50 / max",
                "with books p50 / max",
            ),
            more,
        ),
        "",
        "![Gap](img/gap.svg)",
        "",
    ]
    updates = [
        [
            name,
            *(_number(case["updateMs"][key]) for key in ("p50", "max")),
            _barred(case["updateBarMs"], case["updateMs"]["p50"]),
            f"{_number(case['seconds'])} s",
            _number(case["loadAverage"]),
            str(case["unreachablePairs"]),
        ]
        for name, case in cases.items()
    ]
    text += [
        "Block update: snapshot to arcs after a block that moved 5 % of the pools, ms.",
        "",
        *_table(
            ("case", "p50", "max", "bar", "took", "load average", "unreachable pairs drawn"),
            updates,
        ),
        "",
    ]
    bought = [
        [
            name,
            str(row["intents"]),
            *(_number(row["ms"][key]) for key in ("p50", "p99")),
            *(_number(row["gapBps"].get(key)) for key in ("p50", "p99")),
            f"{100 * row['certifiedShare']:.2f} %",
            str(row["unfilled"]),
            _number(row["overfillBps"].get("p99"), 2),
        ]
        for name, row in report.get("exactOut", {}).items()
    ]
    text += [
        "Exact output, with cached rates: ms with the search for the least integer input, gap to",
        "the least input in bp, and what more than asked arrives.",
        "",
        *_table(
            (
                "case",
                "orders",
                "p50",
                "p99",
                "gap p50",
                "p99",
                "certified",
                "unfilled",
                "overfill p99",
            ),
            bought,
        ),
        "",
    ]
    text += [
        *_noisy_text(cases),
        *_gas_text(report.get("gas", {})),
        *_anytime_text(report.get("anytime", {})),
    ]
    memory = [
        [
            f"{row['pools']:,}",
            f"{row['ticks']:,}",
            *(_number(row[key]) for key in ("baseGb", "withPoolsGb", "withNetworkGb", "peakGb")),
            _barred(row["barGb"], row["peakGb"]),
        ]
        for row in report.get("memory", {}).values()
    ]
    text += [
        "Peak resident memory in GB, in a process of its own: before the market, with the pools as",
        "values, with the network's arrays, and after ten orders.",
        "",
        *_table(("pools", "ticks", "base", "pools", "network", "peak", "bar"), memory),
        "",
    ]
    return text


def surplus_text(report: dict[str, Any]) -> list[str]:
    """Tables of the surplus over the baselines and of the check by Clarabel."""
    rows, times = [], []
    for name, case in report.get("cases", {}).items():
        for router, box in case["surplusBps"].items():
            worse = sum(1 for value in case["values"][router] if value < -1e-4)
            rows.append(
                [
                    name,
                    router,
                    str(len(case["values"][router])),
                    *(f"{box[key]:+.3g}" for key in ("min", "p5", "p50", "mean", "p95", "max")),
                    str(worse),
                ]
            )
        times.append(
            [name]
            + [
                f"{_number(case['ms'][who]['p50'])} / {_number(case['poolsUsed'][who]['p50'])}"
                for who in case["ms"]
            ]
        )
    rows += [[name, "all", *[_NOT_YET] * 8] for name in report.get("waiting", {})]
    text = [
        "Basis points of the order that the engine pays more than a baseline, both executed in",
        "exact integers. *worse* counts the orders on which the baseline paid over 0.0001 bp more.",
        "",
        *_table(
            ("case", "baseline", "orders", "min", "p5", "p50", "mean", "p95", "max", "worse"), rows
        ),
        "",
        "![Surplus over the baselines](img/surplus.svg)",
        "",
    ]
    if times:
        routers = list(next(iter(report["cases"].values()))["ms"])
        text += [
            "Median time in ms / median number of pools used.",
            "",
            *_table(("case", *routers), times),
            "",
        ]
    checks = [
        [
            f"{case['usd']:,.0f}",
            str(case["intents"]),
            ", ".join(f"{status}: {count}" for status, count in case["statuses"].items()),
            *(
                f"{case['executedDifferenceBps'].get(key, float('nan')):+.2g}"
                for key in ("min", "p50", "max")
            ),
            f"{case['boundsAboveTheOtherBps'].get('min', float('nan')):+.2g}",
            _number(case["ms"]["p50"]),
        ]
        for case in report.get("conic", {}).values()
    ]
    text += [
        "cvxpy + Clarabel on the same two-coin product and weighted pools (of 200), gas free. The",
        "difference is of executed integers, ours less theirs; *room* is by how much each bound",
        "lies above the other's executed value, at least. Clarabel is asked for 1e-9, then",
        "for 1e-7.",
        "",
        *_table(
            ("USD", "orders", "status", "difference min", "p50", "max", "room", "ms p50"), checks
        ),
        "",
    ]
    return text


def daemon_text(report: dict[str, Any]) -> list[str]:
    """The daemon's figures."""
    http = report["http"]
    rows = [
        [
            str(row["pools"]),
            str(row["orders"]),
            str(row["filled"]),
            _number(row["milliseconds"]),
            str(row["programs"]),
            _number(row["programMilliseconds"]),
            _number(row["netGapBps"]),
        ]
        for row in report["batches"]
    ]
    solved = [
        [
            {"route": "router, one order", "program": "joint program"}.get(stage, stage),
            str(row["batches"]),
            *(_number(row[name]) for name in ("p50", "p99", "max")),
        ]
        for stage, row in http["solveMilliseconds"].items()
    ]
    return [
        f"{http['acceptedPerSecond']:,} intents accepted per second from {http['connections']}",
        f"connections (answer after {http['acceptMilliseconds']} ms at the median,",
        f"{http['acceptMillisecondsP99']} ms at p99), durable before the answer. From there to",
        f"settled on a local chain: {http['acceptToSettledMilliseconds']} ms at the median,",
        f"at most {http['acceptToSettledMillisecondsMax']} ms; a tick is {http['tickSeconds']} s.",
        "",
        "What the daemon's solver took for its batches, a question to its process included:",
        "",
        *_table(("solved by", "batches", "ms p50", "ms p99", "ms max"), solved),
        "",
        "Whole batches without a daemon, and the part of the time inside the optimiser:",
        "",
        *_table(("pools", "orders", "filled", "ms", "LPs and MIPs", "ms", "netGap bp"), rows),
        "",
    ]


def machine_text(machine: dict[str, Any]) -> list[str]:
    """What it was measured on."""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memoryGb']} GB,",
        f"{machine['system']};",
        f"Python {machine['python']}, {packages}. One thread, compiled code warm.",
        "",
    ]


def _fill(text: str, part: str, lines: Sequence[str]) -> str:
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{_DOCUMENT} has no markers for {part}")
    head, rest = text.split(begin, 1)
    _, tail = rest.split(end, 1)
    body = "\n".join(lines).rstrip()
    return f"{head}{begin}\n{body}\n{end}{tail}"


def _ordered(cases: dict[str, Any]) -> dict[str, Any]:
    """Clean before noisy, small before large."""

    def key(name: str) -> tuple[Any, ...]:
        case = cases[name]
        return case["noisy"], case["pools"], case["usd"], -case["tolerance"]

    return {name: cases[name] for name in sorted(cases, key=key)}


def _noisy_text(cases: dict[str, Any]) -> list[str]:
    """What arbitrage adds to bounds, and what of it is exhibited."""
    rows = []
    for name, case in cases.items():
        result = case["modes"]["cold"]
        if not case["noisy"] or not result["arbitrageUsd"]:
            continue
        gap = result["gapToBoundBps"]
        rows.append(
            [
                name,
                *(_number(gap.get(key)) for key in ("p50", "p99", "max")),
                *(_number(result["arbitrageUsd"].get(key)) for key in ("p50", "max")),
                *(_number(result["exhibitMs"].get(key)) for key in ("p50", "max")),
            ]
        )
    return [
        "Noisy markets: the gap between the bound and V(Δ), the plan with all cycles, in bp of the",
        "order; USD of arbitrage that an exhibited plan without input brings in integers, and the",
        "ms to exhibit it, once per block and token and not part of the times above.",
        "",
        *_table(("case", "gap to V(Δ) p50", "p99", "max", "USD p50", "max", "ms p50", "max"), rows),
        "",
    ]


def _gas_text(cases: dict[str, Any]) -> list[str]:
    """Net of gas against the whole-graph bound U."""
    rows = [
        [
            name,
            str(row["intents"]),
            *(_number(row["ms"][key]) for key in ("p50", "p99")),
            _barred(row["barMs"], row["ms"]["p50"]),
            *(_number(row["gapToBoundBps"][key]) for key in ("p50", "p99")),
            _barred(row["barBps"], row["gapToBoundBps"]["p50"]),
            _number(row["overCharge"]["p99"]),
            _barred(row["barOverCharge"], row["overCharge"]["p99"]),
            _number(row["gapInSetBps"]["p50"]),
            _barred(row["barInSetBps"], row["gapInSetBps"]["p50"]),
            str(row["unfilled"]),
        ]
        for name, row in cases.items()
    ]
    return [
        "Net of gas, 2e-5 USD per unit: the gap to the bound U over the whole graph and to that of",
        "the branch-and-bound tree, in bp of the order; the p99 of the first in parts of the mean",
        "charge q of a pool. *Not worth it* are orders that no route fills with a gain.",
        "",
        *_table(
            ("case", "orders", "ms p50", "p99", "bar p50", "gap to U p50", "p99", "bar p50",
             "p99 ÷ q", "bar", "in the tree p50", "bar", "not worth it"),
            rows,
        ),
        "",
    ]  # fmt: skip


def _anytime_text(cases: dict[str, Any]) -> list[str]:
    """How late answers under a deadline are."""
    rows = [
        [
            name,
            str(row["intents"]),
            *(_number(row["overrunMs"][key]) for key in ("p50", "p99", "max")),
            _barred(row["barMs"], row["overrunMs"]["p99"]),
            *(_number(row["gapToBoundBps"].get(key)) for key in ("p50", "p99")),
            str(row["unfilled"]),
        ]
        for name, row in cases.items()
    ]
    return [
        "Under a deadline, cold, 1e5 USD: ms that the answer comes late, and its gap in bp.",
        "",
        *_table(
            ("case", "orders", "late p50", "p99", "max", "bar p99", "gap p50", "p99", "no route"),
            rows,
        ),
        "",
    ]


def _load(directory: Path, name: str, quick: bool) -> dict[str, Any] | None:
    path = directory / f"{name}{'-quick' if quick else ''}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def margin_curves() -> None:
    """Initial margin over size, volatility and open interest: the rules of docs/margin.md."""
    plt = _plots()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4))
    spot, sizes = 60_000.0, np.linspace(0.01, 2_000.0, 200)
    scale = tiers.SizeScale(0.02, 5e-5)
    steps = [tiers.Tier(0.0, 0.02), tiers.Tier(30e6, 0.05), tiers.Tier(80e6, 0.1)]
    by_size = [tiers.size_scaled(scale, n, spot) / (n * spot) for n in sizes]
    by_tier = [tiers.tiered(steps, n * spot) / (n * spot) for n in sizes]
    left.plot(sizes, 100 * np.array(by_size), color=_ROUTERS[0], label="by size")
    left.plot(sizes, 100 * np.array(by_tier), color=_ROUTERS[1], label="by tiers")
    left.set(xlabel="position in coins", ylabel="% of the notional")
    left.legend(frameon=False)
    vols = np.linspace(0.1, 2.0, 60)
    for colour, days in zip(_ROUTERS, (1, 30, 180), strict=False):
        asked = [_short_call(spot, float(vol), days) / spot for vol in vols]
        middle.plot(
            100 * vols, 100 * np.array(asked), color=colour, label=f"{days} day{'s' * (days > 1)}"
        )
    middle.set(xlabel="implied volatility, %", ylabel="% of the spot price")
    middle.legend(frameon=False, title="one call sold at the money", title_fontsize=9)
    tier = tiers.OpenInterestTier(50_000, 500_000, 25_000_000, 60_000_000)
    interest = np.linspace(0.0, 80e6, 200)
    figures = [tiers.open_interest_margin(tier, 10**6, int(oi)) for oi in interest]
    right.plot(interest / 1e6, [one / 1e4 for one, _ in figures], color=_ROUTERS[2],
               label="initial")  # fmt: skip
    right.plot(interest / 1e6, [two / 1e4 for _, two in figures], color=_ROUTERS[3],
               label="maintenance")  # fmt: skip
    right.set(xlabel="open interest, millions", ylabel="% of the notional")
    right.legend(frameon=False)
    figure.tight_layout()
    _save(plt, figure, "margin")


def _short_call(spot: float, vol: float, days: int) -> float:
    """What selling a call at the money takes off an account, beyond its price."""
    expiry = Expiry(86_400.0 * days, spot, 0.0, 1.0)
    market = Market(spot, 1.0, spot, 1.0, 1.0, (expiry,))
    sold = Account(0.0, 0.0, 0.0, (Option(0, spot, True, vol, -1.0),), ())
    report = requirement(sold, market, RULE)
    return report.value - report.initial


def main() -> int:
    """Write docs/benchmarks.md and docs/img."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    parser.add_argument("--quick", action="store_true", help="from the reports of --quick runs")
    arguments = parser.parse_args()
    text = _DOCUMENT.read_text(encoding="utf-8")
    routing = _load(arguments.reports, "routing", arguments.quick)
    found = _load(arguments.reports, "surplus", arguments.quick)
    public = _load(arguments.reports, "public", arguments.quick)
    batches = _load(arguments.reports, "joint", arguments.quick)
    owners = _load(arguments.reports, "manipulation", arguments.quick)
    accounts = _load(arguments.reports, "margin", arguments.quick)
    daemon = _load(arguments.reports, "bench", False)
    margin_curves()
    if routing is not None:
        routing["cases"] = _ordered(routing["cases"])
        latency(routing["cases"])
        gaps(routing["cases"])
        text = _fill(text, "machine", machine_text(routing["machine"]))
        text = _fill(text, "routing", routing_text(routing))
    if found is not None:
        surplus(found["cases"])
        text = _fill(text, "surplus", surplus_text(found))
    if public is not None:
        text = _fill(text, "public", public_text(public))
    if batches is not None:
        text = _fill(text, "joint", joint_text(batches))
    if owners is not None:
        text = _fill(text, "manipulation", manipulation_text(owners["summary"]))
    if accounts is not None:
        text = _fill(text, "margin", margin_text(accounts["cases"]))
    if daemon is not None:
        text = _fill(text, "daemon", daemon_text(daemon))
    _DOCUMENT.write_text(text, encoding="utf-8")
    print(f"{_DOCUMENT} and {_IMAGES} are up to date")
    return 0


def public_text(report: dict[str, Any]) -> list[str]:
    """Published generators and real snapshots."""
    rows = [
        [
            name,
            str(row["pools"]),
            str(row["orders"]),
            _number(row["ms"]["p50"]),
            _number(row["ms"]["p99"]),
            _number(row["netGapBps"].get("p50")),
            _number(row["netGapBps"].get("max")),
            f"{100 * row['certifiedShare']:.1f} %",
            str(row["withoutBound"]),
            row.get("note", ""),
        ]
        for name, row in report.get("instances", {}).items()
    ]
    return [
        *_table(
            (
                "instances",
                "pools",
                "orders",
                "ms p50",
                "ms p99",
                "netGap p50",
                "max",
                "certified",
                "no bound",
                "note",
            ),
            rows,
        ),
        "",
    ]


def joint_text(report: dict[str, Any]) -> list[str]:
    """Whole batches in large markets."""
    rows = []
    for name, row in report.get("cases", {}).items():
        took, (middle, high) = row["jointMs"], row["barMs"]
        rows.append(
            [
                name,
                str(row["batches"]),
                _number(took["p50"]),
                _barred(middle, took["p50"]),
                _number(took["max"]),
                _barred(high, took["max"]),
                _number(row["referenceMs"]["p50"]),
                _number(row["totalMs"]["p50"]),
                _number(row["filled"]["p50"]),
                _number(row["surplusBps"]["p50"]),
                _number(row["netGapBps"]["p50"]),
                _barred(row["barGapBps"], row["netGapBps"]["p50"]),
            ]
        )
    head = (
        "batch", "batches", "ms p50", "bar", "ms max", "bar", "of it R", "with stand-alone",
        "filled", "surplus bp", "netGap bp", "bar",
    )  # fmt: skip
    return [*_table(head, rows), ""]


def manipulation_text(found: dict[str, Any]) -> list[str]:
    """What owners gain by other orders than what they want, and where the surplus comes from."""
    figures = ("mean", "p5", "p50", "p95", "max")
    rows = [
        [name, str(row["count"]), *(_cents(row[key]) for key in figures), _percent(row["gaining"])]
        for name, row in found["deviations"].items()
    ]
    total, above = found["surplusBps"], found["aboveReferenceBps"]
    head = ("instead of the truth", "n", "mean", "5 %", "median", "95 %", "max", "gain")
    return [
        *_table(head, rows),
        "",
        f"The same {found['batches']} batches, surplus of all orders in bp of what was submitted:",
        f"{total['batchBps']:.1f} in the batch, {total['referenceBps']:.1f} in the reference",
        f"outcome, {total['inTurnBps']:.1f} when the router serves one order after another. Of",
        f"{above['count']} pairs that trade in the reference outcome, {_percent(above['gaining'])}",
        f"get a better rate than there: {above['mean']:.1f} bp on average over all,",
        f"{above['p95']:.1f} at the 95th percentile, {above['max']:.0f} at most, and",
        f"{_cents(above['p5'])} at the 5th percentile.",
        "",
    ]


def margin_text(cases: dict[str, Any]) -> list[str]:
    """Revaluing many accounts."""
    rows = [
        [
            f"{row['accounts']:,}",
            str(row["positions"]),
            str(row["scenarios"]),
            str(row["instruments"]),
            _number(row["valuationMs"]["p50"]),
            *(_number(row["ms"][key]) for key in ("p50", "p90", "max")),
            _barred(row["barMs"], row["ms"]["p50"]),
        ]
        for row in cases.values()
    ]
    head = (
        "accounts", "positions", "scenarios", "options", "valuation ms p50", "all ms p50", "p90",
        "max", "bar",
    )  # fmt: skip
    return [*_table(head, rows), ""]


def _cents(value: float) -> str:
    """Two digits, and no negative nothing."""
    return f"{round(value, 2) + 0.0:.2f}"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


if __name__ == "__main__":
    sys.exit(main())

"""What it takes to revalue many accounts: options once per scenario, then all accounts at once.

Ten thousand accounts of fifty options each over six expiries, thirty-one scenarios. The time counts
the valuation of every option in every scenario as well. A sample of the accounts is evaluated one
by one: the balances must be the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.machine import Report, load, spread
from solver.core.margin.rules import (
    Account,
    Expiry,
    Market,
    Option,
    Parameters,
    Scenario,
    Tilt,
    VolMove,
)
from solver.core.margin.scenarios import Grid, Holdings, requirement

_SPOT = 60_000.0
_DAYS = (1, 7, 30, 60, 90, 180)
_BAR_MS = 150.0
_SAMPLE = 20

RULE = Parameters(
    scenarios=(
        *(
            Scenario(1.0 + step * 0.045, vol)
            for step in range(-4, 5)
            for vol in ((VolMove.UP,) if abs(step) == 4 else
                        (VolMove.UP, VolMove.SAME, VolMove.DOWN))
        ),
        Scenario(0.34, VolMove.UP, 0.0545),
        Scenario(0.67, VolMove.UP, 0.109),
        Scenario(1.5, VolMove.UP, 0.072),
        Scenario(2.0, VolMove.UP, 0.036),
        Scenario(3.0, VolMove.UP, 0.018),
        Scenario(4.0, VolMove.UP, 0.012),
        Scenario(1.0, VolMove.SKEW),
        Scenario(1.0, VolMove.SMILE),
    ),
    tilt=Tilt(0.15, -0.05, 0.15, -0.05, 0.01, 4.0, 0.6, -0.1),
    vol_up=0.5, vol_down=0.275, least_vol_up=0.45, short_power=0.3, long_power=0.13,
    least_days=1.0, initial_factor=1.0, maintenance_factor=0.8, long_discount=0.95,
    long_rate_factor=1.0, long_rate_extra=0.08, short_discount=1.04, short_rate_factor=0.5,
    short_rate_extra=0.08, basis_up=1.045, basis_down=0.955, basis_base=0.5, basis_per_year=2.0,
    peg=0.98, peg_factor=2.0, confidence=0.55, confidence_factor=1.0, perp_maintenance=0.015,
    perp_initial=0.005, option_maintenance=0.003, option_initial=0.002,
)  # fmt: skip


def market() -> Market:
    """One underlying with six expiries."""
    expiries = tuple(
        Expiry(86_400.0 * days, _SPOT * (1.0 + 2e-4 * days), 0.05, 1.0) for days in _DAYS
    )
    return Market(_SPOT, 1.0, _SPOT, 1.0, 1.0, expiries)


def instruments() -> tuple[Option, ...]:
    """Calls and puts of seventeen strikes per expiry."""
    strikes = (_SPOT * np.linspace(0.5, 1.6, 17)).tolist()
    return tuple(
        Option(number, strike, is_call, 0.6, 1.0)
        for number in range(len(_DAYS))
        for strike in strikes
        for is_call in (True, False)
    )


def holdings(accounts: int, positions: int, options: int, seed: int) -> Holdings:
    """Random accounts with so many positions each."""
    rng = np.random.default_rng(seed)
    amounts = np.zeros((accounts, options))
    for row in amounts:
        row[rng.choice(options, positions, replace=False)] = rng.normal(0.0, 5.0, positions)
    cash, perps = rng.normal(0.0, 1e5, accounts), rng.normal(0.0, 3.0, accounts)
    return Holdings(cash, perps, np.zeros(accounts), amounts, np.zeros((accounts, 0)))


def single(held: Holdings, number: int, options: Sequence[Option]) -> Account:
    """One of the accounts by itself."""
    mine = tuple(
        replace(option, amount=float(amount))
        for option, amount in zip(options, held.options[number], strict=True)
        if amount
    )
    return Account(float(held.cash[number]), float(held.perps[number]), 0.0, mine, ())


def measure(accounts: int, positions: int, rounds: int) -> dict[str, Any]:
    """Times, and how far the sample is apart, as a part of the spot price."""
    where, options = market(), instruments()
    held = holdings(accounts, positions, len(options), 1)
    taken, valued = [], []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        grid = Grid(where, options, (), RULE)
        valued.append(1e3 * (time.perf_counter() - started))
        found = grid.balances(held)
        taken.append(1e3 * (time.perf_counter() - started))
    apart = 0.0
    for number in range(min(_SAMPLE, accounts)):
        alone = requirement(single(held, number, options), where, RULE)
        apart = max(apart, abs(alone.initial - float(found.initial[number])) / _SPOT)
    return {
        "accounts": accounts,
        "positions": positions,
        "scenarios": len(RULE.scenarios),
        "instruments": len(options),
        "ms": spread(taken[1:]),
        "valuationMs": spread(valued[1:]),
        "barMs": _BAR_MS,
        "sampleApart": apart,
        "loadAverage": load(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Write reports/margin.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few accounts")
    parser.add_argument("--fresh", action="store_true", help="measure again")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(words)
    default = Path(f"reports/margin{'-quick' if options.quick else ''}.json")
    report = Report(options.report or default, options.fresh)
    accounts, rounds = (500, 3) if options.quick else (10_000, 30)
    name = f"{accounts} accounts"
    if not report.has("cases", name):
        report.put("cases", name, measure(accounts, 50, rounds))
    report.save()
    print(report.content["cases"][name])
    return 0


if __name__ == "__main__":
    sys.exit(main())

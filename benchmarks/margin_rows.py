"""What margin rows cost: the same batch with and without twenty margin accounts.

A hundred partial orders over a thousand pools, five of each account. The tokens are options of one
underlying and collateral, so that every account has thirty-one scenarios; cash is so short that
rows bind. Both batches are solved block after block, one after the other, and compared in pairs:
what one program takes at the optimiser's door, and what the whole batch does, with all the programs
that are solved again because a plan broke rows that were not there yet.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from msgspec.structs import replace

from benchmarks.joint import Case, _Stages, intents_of
from benchmarks.machine import Report, load, spread
from benchmarks.margined import RULE
from benchmarks.markets import Shape, generate, move
from solver.core.batch import Memory, Terms, solve_batch
from solver.core.margin.book import Asset, Book, Held
from solver.core.margin.evaluator import Evaluator
from solver.core.margin.rules import Collateral, Expiry, Market, Option
from solver.core.program.flows import Flows
from solver.core.routing.network import Network
from solver.core.types import Intent, TokenId
from solver.core.venue import Snapshot

_CASE = Case(1_000, 100, True, None, None, 0.05, 0)
_ACCOUNTS = 20
_SPOT = 2_000.0
_CASH = 1e3  # worth of collateral per account, of orders of 1e3 to 1e5
_SHARE_MOVED = 0.05
_BINDS = 1e-6  # of the worth of the largest order, for a unit of a row's right side
_BAR_RATIO, _BAR_ROWS, _BAR_ADMISSION_US = 1.5, 20, 200
_ADMISSIONS = 20


def account(number: int) -> str:
    """The name of an account."""
    return f"0x{number + 1:064x}"


def book_of(intents: Sequence[Intent], prices: dict[TokenId, float], seed: int) -> Book:
    """Every token of the orders as an option, and a third of them as collateral."""
    rng = random.Random(seed)
    tokens = sorted({t for i in intents for t in (i.swap.sell, i.swap.buy)})
    assets: dict[TokenId, Asset] = {}
    for number, token in enumerate(tokens):
        unit = max(1, int(_SPOT * 0.05 / prices[token]))
        kind: Option | Collateral
        if number % 3 == 0:
            unit = max(1, int(1.0 / prices[token]))
            kind = Collateral(0.0, unit * prices[token], 1.0, 0.05, 0.05, False)
        else:
            strike = _SPOT * rng.uniform(0.8, 1.2)
            kind = Option(0, strike, rng.random() < 0.5, rng.uniform(0.4, 0.9), 0.0)
        assets[token] = Asset(kind, unit)
    market = Market(_SPOT, 1.0, _SPOT, 1.0, 1.0, (Expiry(30 * 86_400.0, _SPOT, 0.0, 1.0),))
    first = tokens[0]
    accounts = {
        account(k): Held(intents[0].swap.owner, {first: int(_CASH / prices[first])})
        for k in range(_ACCOUNTS)
    }
    return Book(RULE, market, assets, accounts)


@contextmanager
def timed(taken: list[float], stages: _Stages) -> Iterator[None]:
    """Note what every program of the batch takes, in ms; not those of orders alone."""
    optimum = Flows.optimum

    def noted(self: Flows) -> Any:
        started = time.perf_counter()
        found = optimum(self)
        if "alone" not in stages.at:
            taken.append(1e3 * (time.perf_counter() - started))
        return found

    with mock.patch.object(Flows, "optimum", noted):
        yield


def admission(intents: Sequence[Intent], book: Book) -> list[float]:
    """What it takes to see whether each order could be filled whole, alone, in microseconds."""
    evaluator, taken = Evaluator(book), list[float]()
    for _ in range(_ADMISSIONS):
        for intent in intents:
            whole = replace(intent, swap=replace(intent.swap, partial_fill=False))
            started = time.perf_counter()
            evaluator.admission(whole)
            taken.append(1e6 * (time.perf_counter() - started))
    return taken


def measure(batches: int, seed: int) -> dict[str, Any]:
    """Pairs of batches; the first pair warms up."""
    market = generate(Shape(_CASE.pools), seed)
    memories = Memory(), Memory()
    plain: list[float] = []
    margined: list[float] = []
    binding: list[float] = []
    filled: list[tuple[int, int]] = []
    programs: list[list[float]] = [[], []]
    for block in range(batches + 1):
        network = memories[0].network or Network(market.pools, market.prices)
        wallets = intents_of(market, network, _CASE, seed * 1_000 + block)
        own = [
            replace(intent, swap=replace(intent.swap, account=account(k % _ACCOUNTS)))
            for k, intent in enumerate(wallets)
        ]
        book = book_of(own, market.prices, seed + block)
        pools = tuple(market.pools)
        name = f"0x{seed * 1_000 + block:064x}"
        snapshot = Snapshot({}, pools, market.prices, {}, {}, {}, hash=name)
        found = []
        for side, (intents, terms) in enumerate(((wallets, Terms()), (own, Terms(margin=book)))):
            stages, taken = _Stages(), list[float]()
            with timed(taken, stages):
                solution = solve_batch(
                    snapshot, intents, terms, progress=stages, memory=memories[side]
                )
            programs[side] += taken if block else []
            found.append((stages.until("alone"), solution))
        if block:
            plain.append(found[0][0])
            margined.append(found[1][0])
            proof = found[1][1].certificate
            prices = [float(price) for price in proof.multipliers.values()]
            binding.append(float(sum(price > _BINDS for price in prices)))
            filled.append((len(found[0][1].fills), len(found[1][1].fills)))
        market, _ = move(market, seed * 1_000 + block, _SHARE_MOVED)
    return {
        "plainMs": spread(plain),
        "marginMs": spread(margined),
        "batchRatio": spread([two / one for one, two in zip(plain, margined, strict=True)]),
        "programMs": [spread(taken) for taken in programs],
        "programs": [len(taken) // batches for taken in programs],
        "programRatio": round(median(programs[1]) / median(programs[0]), 3),
        "bindingRows": spread(binding),
        "filled": filled,
        "admissionMicroseconds": spread(admission(own, book)),
        "barRatio": _BAR_RATIO,
        "barRows": _BAR_ROWS,
        "barAdmissionMicroseconds": _BAR_ADMISSION_US,
        "loadAverage": load(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Write reports/margin-rows.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair of batches")
    parser.add_argument("--fresh", action="store_true", help="measure again")
    options = parser.parse_args(words)
    name = "reports/margin-rows-quick.json" if options.quick else "reports/margin-rows.json"
    report = Report(Path(name), options.fresh)
    if not report.has("cases", "rows"):
        found = measure(1 if options.quick else 6, 401)
        report.put("cases", "rows", found)
        print(
            f"program {found['programRatio']}, batch {found['batchRatio']}, "
            f"binding rows {found['bindingRows']}",
            flush=True,
        )
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())

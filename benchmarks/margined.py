"""Does every account keep its margin? Random batches of options, perpetuals and coins.

Accounts with random positions, some below their margin already, order at random; two accounts may
meet, pools take the rest. After each batch every account is evaluated once more in whole numbers of
base units by the checker, which shares no code with the solver: a balance below zero may not have
fallen, and none may have become negative. How many would have lost it without the rows
is counted too. Seeds are played in their order, so an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import machine
from benchmarks.batches import intent_of
from benchmarks.margin import RULE as PUBLISHED
from solver.checker import margin as checker
from solver.core.batch import Terms, solve_batch
from solver.core.intent import digest_of
from solver.core.margin import black76
from solver.core.margin.book import HEALTH_ONE, Asset, Book, Cash, Held, Perpetual
from solver.core.margin.rules import Collateral, Expiry, Market, Option
from solver.core.pools import ConstantProductPool
from solver.core.types import ZERO_BYTES32, Intent, Kind, Solution, TokenId
from solver.core.venue import Pool, Snapshot

REPORT = Path("reports/margined.json")
RULE = replace(PUBLISHED, two_sided=True)
PER_TASK = 25
_OWNER = "0x" + "11" * 20
_SETTLEMENT = "0x" + "5e" * 20
_DAY = 86_400.0
_ROOM = 1e-8  # of the gross worth: what floats of the solver may differ by


def random_batch(rng: random.Random) -> tuple[Snapshot, list[Intent], Book]:
    """One underlying with some options, pools for each against cash, accounts and their orders."""
    spot = 10 ** rng.uniform(1, 5)
    expiry = Expiry(_DAY * 10 ** rng.uniform(0, 2.3), spot * rng.uniform(0.98, 1.04), 0.03, 1.0)
    market = Market(spot, 1.0, spot, 1.0, 1.0, (expiry,))
    tokens = [TokenId(1, f"0x{k + 1:040x}") for k in range(rng.randrange(4, 9))]
    cash, coin, perp, *options = tokens
    assets = {
        cash: Asset(Cash(), 10**6),
        coin: Asset(Collateral(0.0, spot, 1.0, 0.05, 0.05, True), 10**18),
        perp: Asset(Perpetual(), 10**18),
    }
    worth = {cash: 1.0, coin: spot, perp: spot}
    for token in options:
        strike, vol = spot * rng.uniform(0.7, 1.4), rng.uniform(0.3, 1.2)
        is_call = rng.random() < 0.5
        assets[token] = Asset(Option(0, strike, is_call, vol, 0.0), 10**18)
        value = black76.prices(expiry.forward, strike, expiry.years, vol, expiry.discount, is_call)
        worth[token] = max(float(value), spot * 1e-4)
    prices = {token: worth[token] / assets[token].unit for token in tokens}
    pools: list[Pool] = []
    for k, token in enumerate(tokens[1:]):
        depth = spot * 10 ** rng.uniform(1, 4)
        off = 1.0 + 0.01 * rng.uniform(-1, 1)
        pools.append(
            ConstantProductPool(
                id=f"pool-{k}",
                token0=token,
                token1=cash,
                reserve0=int(depth / prices[token]),
                reserve1=int(depth * off / prices[cash]),
                fee_num=rng.choice((1, 5, 30)),
                fee_den=10_000,
                gas=0,
            )
        )
    accounts = {f"0x{k + 1:064x}": _held(rng, tokens, assets, spot) for k in range(3)}
    intents = [
        _order(rng, number, tokens, prices, spot, sorted(accounts))
        for number in range(rng.randrange(2, 8))
    ]
    seed = f"0x{rng.getrandbits(256):064x}"
    snapshot = Snapshot({}, tuple(pools), prices, {}, {}, {}, hash=seed)
    return snapshot, intents, Book(RULE, market, assets, accounts)


def _held(
    rng: random.Random, tokens: Sequence[TokenId], assets: dict[TokenId, Asset], spot: float
) -> Held:
    amounts = {tokens[0]: int(spot * rng.uniform(-0.2, 3.0) * assets[tokens[0]].unit)}
    for token in tokens[1:]:
        if rng.random() < 0.5:
            low = 0.0 if token == tokens[1] else -2.0
            amounts[token] = int(rng.uniform(low, 2.0) * assets[token].unit)
    return Held(_OWNER, amounts)


def _order(
    rng: random.Random,
    number: int,
    tokens: Sequence[TokenId],
    prices: dict[TokenId, float],
    spot: float,
    accounts: Sequence[str],
) -> Intent:
    """A derivative or a coin for cash or back; one in five from a wallet, without an account."""
    other = rng.choice(tokens[1:])
    sell, buy = (tokens[0], other) if rng.random() < 0.5 else (other, tokens[0])
    size = spot * 10 ** rng.uniform(-2, 0.7)
    sold = max(1, int(size / prices[sell]))
    bought = max(1, int(size / prices[buy] * rng.uniform(0.9, 1.0)))
    kind = rng.choice((Kind.EXACT_IN, Kind.EXACT_OUT))
    plain = intent_of(sell, buy, sold, bought, kind, rng.random() < 0.7, number)
    account = ZERO_BYTES32 if rng.random() < 0.2 else rng.choice(accounts)
    floor = int(rng.choice((0.0, 0.0, 1.2, 2.0)) * HEALTH_ONE)
    swap = replace(plain.swap, account=account, min_health=floor)
    return Intent(digest_of(swap, _SETTLEMENT), swap, "0x")


def wrongs(book: Book, intents: Sequence[Intent], solution: Solution) -> list[str]:
    """Every account that a solution leaves with less margin than it may have, and a false proof."""
    found = [
        f"{breach.account}: {breach.what} {breach.after:.9g}, before {breach.before:.9g}"
        for breach in checker.breaches(book, intents, solution.fills, _ROOM)
    ]
    value, bound = float(solution.certificate.value), float(solution.certificate.bound)
    if value > bound + 1e-9 * (1.0 + abs(bound)):
        found.append(f"value {value} above bound {bound}")
    return found


def play(seed: int) -> dict[str, Any]:
    """One batch: what is wrong with it, and what it filled."""
    snapshot, intents, book = random_batch(random.Random(seed))
    solution = solve_batch(snapshot, intents, Terms(margin=book))
    wallets = [replace(i, swap=replace(i.swap, account=ZERO_BYTES32)) for i in intents]
    free = solve_batch(snapshot, wallets)
    return {
        "seed": seed,
        "orders": len(intents),
        "filled": len(solution.fills),
        "filledWithout": len(free.fills),
        "bound": sum(1 for kept in solution.margin if kept.prices),
        "heldBack": sum(1 for reason in solution.open if reason.code == "margin"),
        "without": bool(wrongs(book, intents, free)),
        "wrong": wrongs(book, intents, solution),
    }


def play_many(first: int) -> dict[str, Any]:
    """``PER_TASK`` batches from a seed on, counted."""
    played = [play(seed) for seed in range(first, first + PER_TASK)]
    totals = ("orders", "filled", "filledWithout", "bound", "heldBack", "without")
    return {
        "counts": Counter({name: sum(one[name] for one in played) for name in totals}),
        "wrong": [one for one in played if one["wrong"]],
    }


def main(words: Sequence[str] | None = None) -> int:
    """Play batches until the report has enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="forget the report there is")
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args(words)
    report = machine.begun(options.report, {"batches": 0, "counts": {}, "wrong": []}, options.fresh)
    machine.play_on(report, options.report, options.batches, options.workers, play_many, PER_TASK)
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

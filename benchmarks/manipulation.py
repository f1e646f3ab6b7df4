"""What owners gain by other orders than what they want, and who gets the surplus of a batch.

In random batches one owner's order is replaced by what a manipulator would send: parts, a raised
limit, half of it, or the truth beside an order that is not meant. What all his fills bring him at
the limit that he really has, less what the truth brings him, is his gain, in bp of his order. A
fake order that is filled counts at his limit or at the reference price, whichever is worse for him.

The second part compares each batch with its reference outcome R and with serving its orders one
after another, each by the router in what those before it left of the pools. No seed here was used
when the rules were chosen.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.batches import as_batch, disguised, intent_of
from benchmarks.machine import Report
from solver.core import reference
from solver.core.batch import solve_batch
from solver.core.canonical import canonical
from solver.core.pools import ConstantProductPool
from solver.core.problem import surplus_of
from solver.core.types import BPS, Exact, Fill, Intent, Kind, Solution, TokenId
from solver.core.venue import Pool, Snapshot, step_of

REPORT = Path("reports/manipulation.json")
_FIRST_SEED = 20_261_127
_UNIT = 10**18
_MINE = 1_000  # nonces from here on are the manipulator's
_GAIN_BPS = 0.01  # what counts as a gain

Send = Callable[[random.Random, Intent, Fill | None, Snapshot], list[Intent] | None]


def random_market(rng: random.Random) -> tuple[Snapshot, list[Intent]]:
    """Three to five tokens, pools about their prices in three depths, five to twelve orders.

    Every third pair has orders the other way as well; a third of the limits is up to 20 bp under
    the reference rate, the others 50 to 300; half of the orders are all or nothing.
    """
    tokens = [TokenId(1, f"0x{k + 1:040x}") for k in range(rng.randrange(3, 6))]
    prices = {token: 10 ** rng.uniform(-1, 1) / _UNIT for token in tokens}
    pools: list[Pool] = []
    for number in range(rng.randrange(5, 21)):
        one, two = rng.sample(tokens, 2)
        worth = rng.choice((1e6, 1e7, 1e8)) * rng.uniform(0.5, 2.0)
        off = 1.0 + rng.uniform(-1e-3, 1e-3)
        pools.append(
            ConstantProductPool(
                id=f"pool-{number}",
                token0=one,
                token1=two,
                reserve0=int(worth / prices[one]),
                reserve1=int(worth * off / prices[two]),
                fee_num=rng.choice((5, 30, 100)),
                fee_den=10_000,
                gas=0,
            )
        )
    pairs = [rng.sample(tokens, 2) for _ in range(rng.randrange(2, 5))]
    intents = []
    for number in range(rng.randrange(5, 13)):
        sell, buy = rng.choice(pairs)[:: rng.choice((1, 1, -1))]
        worth = 10 ** rng.uniform(3, 5.5)
        under = rng.uniform(0, 20) if rng.random() < 1 / 3 else rng.uniform(50, 300)
        amounts = sold_and_bought(prices, (sell, buy), worth, under)
        divisible = rng.random() < 0.5
        intents.append(intent_of(sell, buy, *amounts, Kind.EXACT_IN, divisible, number))
    seed = f"0x{rng.getrandbits(256):064x}"
    return Snapshot({}, tuple(pools), prices, {}, {}, {}, hash=seed), intents


def sold_and_bought(
    prices: dict[TokenId, float], ends: Sequence[TokenId], worth: float, under_bps: float
) -> tuple[int, int]:
    """Amounts for so much of the numeraire, the limit so far under the reference rate."""
    sold = int(worth / prices[ends[0]])
    return sold, int(worth / prices[ends[1]] * (1.0 - under_bps / BPS))


def _parts(mine: Intent, partial: Sequence[bool]) -> list[Intent]:
    swap = mine.swap
    third = swap.sell_amount // 3, swap.buy_amount // 3
    sizes = third, (swap.sell_amount - third[0], swap.buy_amount - third[1])
    return [
        intent_of(swap.sell, swap.buy, *size, swap.kind, divisible, _MINE + k)
        for k, (size, divisible) in enumerate(zip(sizes, partial, strict=True))
    ]


def _split(whole: bool, parts: tuple[bool, bool]) -> Send:
    """In two parts, a third and the rest."""

    def send(
        rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
    ) -> list[Intent] | None:
        return None if mine.swap.partial_fill == whole else _parts(mine, parts)

    return send


def _with_limit(mine: Intent, rate: float) -> list[Intent]:
    swap = mine.swap
    asked = max(swap.buy_amount, int(swap.sell_amount * rate))
    return [replaced(mine, swap.sell_amount, asked)]


def replaced(mine: Intent, sold: int, bought: int) -> Intent:
    """The same order with other amounts."""
    swap = mine.swap
    return intent_of(swap.sell, swap.buy, sold, bought, swap.kind, swap.partial_fill, _MINE)


def _half_way(
    rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
) -> list[Intent] | None:
    if got is None:
        return None
    return _with_limit(mine, (got.buy / got.sell + _limit(mine)) / 2)


def _just_under(
    rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
) -> list[Intent] | None:
    return None if got is None else _with_limit(mine, got.buy / got.sell * (1.0 - 1.0 / BPS))


def _half(
    rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
) -> list[Intent] | None:
    return [replaced(mine, mine.swap.sell_amount // 2, -(-mine.swap.buy_amount // 2))]


def _opposite(part: float) -> Send:
    """The truth, and an order of the same size the other way that asks ``part`` of the true rate.

    Above one it cannot be filled by pools; the rate is that of the reference prices.
    """

    def send(rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot) -> list[Intent]:
        swap, prices = mine.swap, market.prices
        sold = int(swap.sell_amount * prices[swap.sell] / prices[swap.buy])
        bought = int(swap.sell_amount * part)
        return [mine, intent_of(swap.buy, swap.sell, sold, bought, swap.kind, True, _MINE)]

    return send


def _tiny_above(
    rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
) -> list[Intent] | None:
    """The truth, and a thousandth of it that asks 20 bp more than the pair's rate."""
    if got is None:
        return None
    sold = mine.swap.sell_amount // 1_000
    bought = int(sold * got.buy / got.sell * (1.0 + 20.0 / BPS))
    return [mine, replaced(mine, sold, bought)]


def _large_loose(
    rng: random.Random, mine: Intent, got: Fill | None, market: Snapshot
) -> list[Intent]:
    """The truth, and half of it again at 300 bp under the reference rate."""
    swap, prices = mine.swap, market.prices
    worth = swap.sell_amount * prices[swap.sell] / 2
    return [mine, replaced(mine, *sold_and_bought(prices, (swap.sell, swap.buy), worth, 300.0))]


DEVIATIONS: dict[str, Send] = {
    "a partial order in two": _split(False, (True, True)),
    "a partial order in two, one all or nothing": _split(False, (True, False)),
    "an all-or-nothing order in two": _split(True, (False, False)),
    "limit half-way to the rate": _half_way,
    "limit 1 bp under the rate": _just_under,
    "half withheld": _half,
    "fake opposite that cannot fill": _opposite(1.05),
    "fake opposite at 0.998 of the reference": _opposite(0.998),
    "tiny fake, limit 20 bp above the rate": _tiny_above,
    "fake of half the size, loose limit": _large_loose,
}


def _limit(intent: Intent) -> float:
    return intent.swap.buy_amount / intent.swap.sell_amount


def utility(mine: Intent, orders: Sequence[Intent], answer: Solution, market: Snapshot) -> float:
    """What an owner's fills bring him beyond his true limit, in the bought token.

    What he sells beyond his order costs him the reference price if that is more than his limit;
    what a fake brings back of the sold token is worth the lesser of both.
    """
    swaps = {order.digest: order.swap for order in orders}
    swap, limit = mine.swap, _limit(mine)
    fair = market.prices[swap.sell] / market.prices[swap.buy]
    bought = sold = back = 0
    for fill in answer.fills:
        if fill.digest in swaps:
            if swaps[fill.digest].sell == swap.sell:
                sold, bought = sold + fill.sell, bought + fill.buy
            else:
                back, bought = back + fill.buy, bought - fill.sell
    beyond = max(0, sold - swap.sell_amount)
    return bought - limit * (sold - beyond) - max(limit, fair) * beyond + min(limit, fair) * back


def _gains(rng: random.Random, market: Snapshot, intents: Sequence[Intent]) -> dict[str, float]:
    """The gain of each deviation of one owner in bp of his order, by name."""
    mine = rng.choice(intents)
    others = [intent for intent in intents if intent is not mine]
    truth = solve_batch(market, intents)
    got = next((fill for fill in truth.fills if fill.digest == mine.digest), None)
    usual = utility(mine, [mine], truth, market)
    size = mine.swap.sell_amount * market.prices[mine.swap.sell] / market.prices[mine.swap.buy]
    guise = disguised(rng, intents)
    renamed = [intent for intent in guise if intent.swap == mine.swap]
    found = {
        "other ids, order and repetition": utility(
            mine, renamed, solve_batch(market, guise), market
        )
    }
    for name, send in DEVIATIONS.items():
        sent = send(rng, mine, got, market)
        if sent is not None:
            found[name] = utility(mine, sent, solve_batch(market, [*others, *sent]), market)
    return {name: (gained - usual) / size * BPS for name, gained in found.items()}


def in_turn(market: Snapshot, intents: Sequence[Intent]) -> float:
    """The surplus when orders are served one after another, each alone; in the numeraire."""
    pools = {pool.id: pool for pool in market.pools}
    total = 0.0
    for intent in canonical(intents, market.hash):
        answer = solve_batch(replace(market, pools=tuple(pools.values())), [intent])
        total += float(answer.certificate.value)
        for leg in answer.legs:
            step = step_of(pools[leg.pool], leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
            pools[leg.pool] = step.next_pool
    return total


def _shares(market: Snapshot, intents: Sequence[Intent]) -> dict[str, Any]:
    """The surplus in bp of the volume, and by how much each pair's rate is above that in R."""
    answer = solve_batch(market, intents)
    batch = as_batch(market, intents)
    assert batch is not None
    problem = batch.problem
    fair = reference.reference(batch, market.hash)
    volume = sum(i.swap.sell_amount * market.prices[i.swap.sell] for i in intents)
    everyone = range(len(problem.orders))
    owed = surplus_of(problem, everyone, fair.plan) * batch.scale if fair.plan else 0.0
    fills = {fill.digest: fill for fill in answer.fills}
    above: dict[str, float] = {}
    for i, intent in enumerate(batch.intents):
        fill, rate = fills.get(intent.digest), fair.rates[i] if fair.rates else 0.0
        if fill is not None and rate > 0.0:
            order = problem.orders[i]
            paid = fill.buy / fill.sell * batch.unit[order.sell] / batch.unit[order.buy]
            above[f"{intent.swap.sell}>{intent.swap.buy}"] = (float(paid) / rate - 1.0) * BPS
    return {
        "batchBps": float(answer.certificate.value) / volume * BPS,
        "referenceBps": float(owed) / volume * BPS,
        "inTurnBps": in_turn(market, intents) / volume * BPS,
        "aboveReferenceBps": list(above.values()),
    }


def play(seed: int) -> dict[str, Any]:
    """One batch: the gains of one owner, and who gets what."""
    rng = random.Random(seed)
    market, intents = random_market(rng)
    shares = _shares(market, intents)
    return {"gainsBps": _gains(rng, market, intents), "shares": shares}


def summary(played: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The distribution of the gains of each deviation, and of the surplus."""
    names = dict.fromkeys(name for one in played for name in one["gainsBps"])
    shares = [one["shares"] for one in played]
    above = [gain for share in shares for gain in share["aboveReferenceBps"]]
    return {
        "batches": len(played),
        "deviations": {
            name: _spread([one["gainsBps"][name] for one in played if name in one["gainsBps"]])
            for name in names
        },
        "surplusBps": {
            name: round(float(np.mean([share[name] for share in shares])), 4)
            for name in ("batchBps", "referenceBps", "inTurnBps")
        },
        "aboveReferenceBps": _spread(above),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Count, mean, quantiles, and the share of what is above a hundredth of a basis point."""
    low, middle, high = (float(q) for q in np.percentile(values, [5, 50, 95]))
    figures = {"mean": float(np.mean(values)), "p5": low, "p50": middle, "p95": high}
    figures |= {"max": max(values), "gaining": sum(v > _GAIN_BPS for v in values) / len(values)}
    return {"count": len(values), **{name: round(value, 4) for name, value in figures.items()}}


def main(words: Sequence[str] | None = None) -> int:
    """Write reports/manipulation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three batches")
    parser.add_argument("--fresh", action="store_true", help="play finished batches again")
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(words)
    quick = "-quick" if options.quick else ""
    path = options.report or REPORT.with_stem(REPORT.stem + quick)
    report = Report(path, options.fresh)
    count = 3 if options.quick else options.batches
    for seed in range(_FIRST_SEED, _FIRST_SEED + count):
        if not report.has("batches", str(seed)):
            report.put("batches", str(seed), play(seed))
            print(f"batch {seed - _FIRST_SEED + 1} of {count}", flush=True)
    report.content["summary"] = summary(list(report.content["batches"].values()))
    report.save()
    for name, row in report.content["summary"]["deviations"].items():
        print(f"{name:44} {row}")
    print(report.content["summary"]["surplusBps"], report.content["summary"]["aboveReferenceBps"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

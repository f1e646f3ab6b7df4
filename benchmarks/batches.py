"""Does every batch keep its promises? Random batches of small and large numbers.

Each is solved and checked in integers: no order below its limit, conservation per token to the
unit, one rate per directed pair, no pair below what the reference outcome gives it. Some are solved
again with other ids, shuffled and with repetitions: the answer must be the same; some with one
partial order in two parts: together they must not gain more than it did. Seeds are played in their
order and the report counts them, so an interrupted run is continued.
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
from solver.core import crypto, graph
from solver.core.batch import reference_of, solve_batch
from solver.core.canonical import canonical
from solver.core.intent import digest_of, respects_limit
from solver.core.pools import ConstantProductPool
from solver.core.problem import Batch, buy_node, normalise, sell_node
from solver.core.types import ZERO_BYTES32, Fill, Intent, Kind, Solution, Swap, TokenId
from solver.core.venue import Pool, Snapshot
from solver.core.verify import verify

REPORT = Path("reports/batches.json")
SETTLEMENT = "0x" + "5e" * 20
PER_TASK = 25
_AGAIN = 5  # every so many batches are solved again in another guise, and with an order split
_OWNER = "0x" + "11" * 20
_MOST_RATE = 1_000.0
_LEAST_SPLIT = 10**6  # base units, so that the parts' limits are the whole order's
_SPLIT_ROOM = 5e-5  # of the order: how well the sharing program reaches its end
_SPLIT_TRIFLE = 1e-6  # of the largest order: what a reference outcome does not see
_SPLIT_UNITS = 20  # base units that rounding legs and rates may move
_ROOM = 3e-6  # of the volume: what floats, floors and the smallest order that R sees may differ by


def random_batch(rng: random.Random) -> tuple[Snapshot, list[Intent]]:
    """Two to four tokens in large or small units, pools near their prices, two to six orders."""
    tokens = [TokenId(1, f"0x{k + 1:040x}") for k in range(rng.randrange(2, 5))]
    size = 10 ** rng.uniform(1, 27)
    units = {token: size * 10 ** rng.uniform(-0.5, 0.5) for token in tokens}
    prices = {token: 1.0 / unit for token, unit in units.items()}
    pools: list[Pool] = []
    for number in range(rng.randrange(0, 6)):
        one, two = rng.sample(tokens, 2)
        depth = 10 ** rng.uniform(-1, 4)
        off = 1.0 + rng.choice((0.0005, 0.03)) * rng.uniform(-1, 1)
        pools.append(
            ConstantProductPool(
                id=f"pool-{number}",
                token0=one,
                token1=two,
                reserve0=max(1, int(depth * units[one])),
                reserve1=max(1, int(depth * off * units[two])),
                fee_num=rng.choice((1, 5, 30, 100)),
                fee_den=10_000,
                gas=0,
            )
        )
    pairs = [tuple(rng.sample(tokens, 2)) for _ in range(rng.randrange(1, 4))]
    intents = []
    for number in range(rng.randrange(2, 7)):
        sell, buy = rng.choice(pairs)[:: rng.choice((1, -1))]
        worth = 10 ** rng.uniform(-2, 1) if rng.random() < 0.9 else 10 ** rng.uniform(-8, 3)
        sold = max(1, int(worth * units[sell]))
        bought = max(1, int(sold / units[sell] * units[buy] * rng.uniform(0.85, 1.01)))
        kind = rng.choice((Kind.EXACT_IN, Kind.EXACT_IN, Kind.EXACT_OUT))
        intents.append(intent_of(sell, buy, sold, bought, kind, rng.random() < 0.6, number))
    seed = f"0x{rng.getrandbits(256):064x}"
    return Snapshot({}, tuple(pools), prices, {}, {}, {}, hash=seed), intents


def intent_of(
    sell: TokenId, buy: TokenId, sold: int, bought: int, kind: Kind, partial: bool, nonce: int
) -> Intent:
    """An admitted order; nobody looks at its signature here."""
    words = ["0x" + "00" * 12 + token.address[2:] for token in (sell, buy)]
    swap = Swap(
        owner=_OWNER,
        account=ZERO_BYTES32,
        receiver=_OWNER,
        sell_chain=1,
        sell_asset=words[0],
        buy_chain=1,
        buy_asset=words[1],
        sell_amount=sold,
        buy_amount=bought,
        kind=kind,
        partial_fill=partial,
        nonce=nonce,
        valid_from=0,
        valid_until=2**40,
        fill_deadline=0,
        refund_after=0,
        max_fee=0,
        min_health=0,
        extension=ZERO_BYTES32,
    )
    return Intent(digest_of(swap, SETTLEMENT), swap, "0x")


def disguised(rng: random.Random, intents: Sequence[Intent]) -> list[Intent]:
    """The same orders under other ids, with repetitions, in another order."""
    renamed = []
    for intent in intents:
        digest = "0x" + crypto.keccak(rng.randbytes(8)).hex()
        renamed.append(replace(intent, digest=digest, signature="0x" + rng.randbytes(65).hex()))
    renamed += rng.sample(renamed, rng.randrange(len(renamed)))
    rng.shuffle(renamed)
    return renamed


def by_content(intents: Sequence[Intent], solution: Solution) -> dict[Swap, tuple[int, int, int]]:
    """Who gets what, by what was signed."""
    swaps = {intent.digest: intent.swap for intent in intents}
    return {swaps[fill.digest]: (fill.sell, fill.buy, fill.fee) for fill in solution.fills}


def wrongs(market: Snapshot, intents: Sequence[Intent], solution: Solution) -> list[str]:
    """Every promise that a solution breaks."""
    found = []
    pools = {pool.id: pool for pool in market.pools}
    broken = verify(
        intents, pools, [], solution.fills, solution.legs, solution.inventory, solution.clearing
    )
    if broken is not None:
        found.append(f"verify: {broken.code} {broken.detail}")
    by_digest = {intent.digest: intent for intent in intents}
    found += [
        f"limit: {fill.digest}"
        for fill in solution.fills
        if not respects_limit(by_digest[fill.digest].swap, fill.sell, fill.buy)
    ]
    if _residual(by_digest, solution) != solution.dust:
        found.append("conservation")
    if any(amount < 0 for amount in solution.dust.values()):
        found.append("overdrawn")
    named = {reason.digest for reason in solution.open}
    if named | {fill.digest for fill in solution.fills} != by_digest.keys():
        found.append("an order without an answer")
    if float(solution.certificate.value) > float(solution.certificate.bound) * (1 + 1e-9) + 1e-9:
        found.append("value above bound")
    return found + list(_below_reference(market, intents, solution))


def _residual(by_digest: dict[str, Intent], solution: Solution) -> dict[str, int]:
    balance: Counter[str] = Counter()
    for fill in solution.fills:
        swap = by_digest[fill.digest].swap
        balance[str(swap.sell)] += fill.sell
        balance[str(swap.buy)] -= fill.buy + fill.fee
    for leg in solution.legs:
        balance[str(leg.token_in)] -= leg.amount_in
        balance[str(leg.token_out)] += leg.amount_out
    return {token: amount for token, amount in balance.items() if amount}


def _below_reference(
    market: Snapshot, intents: Sequence[Intent], solution: Solution
) -> Sequence[str]:
    """The pairs whose surplus, or smallest rate, is below that of R beyond rounding.

    A unit per leg and order is rounding, in each of its two tokens.
    """
    batch = as_batch(market, intents)
    if batch is None or len(batch.intents) < 2:
        return []
    fair, _ = reference_of(market, batch)
    problem, fills = batch.problem, {fill.digest: fill for fill in solution.fills}
    smallest = min(float(batch.unit[n]) for n in range(problem.node_count) if batch.unit[n] > 0)
    grain = 2 * (len(solution.legs) + len(intents)) / smallest
    found = []
    for floor in fair.floors:
        paid = sum(_surplus(batch, i, fills) for i in floor.members)
        volume = sum(problem.orders[i].size for i in floor.members)
        if paid < floor.amount - grain - _ROOM * max(volume, 1.0):
            found.append(f"surplus below reference: {paid} of {floor.amount}")
    least = [(rate, i) for i, rate in enumerate(fair.rates) if rate > 0]
    reached = {i: _rate(batch, i, fills) for _, i in least if batch.intents[i].digest in fills}
    if reached and not found:
        worst = min(reached, key=lambda i: reached[i])
        sold = fills[batch.intents[worst].digest].sell / float(
            batch.unit[problem.orders[worst].sell]
        )
        allowed = min(rate for rate, _ in least) * (1 - _ROOM) - (grain + _ROOM) / sold
        if reached[worst] < allowed:
            found.append(f"rate below reference: {reached[worst]} of {min(least)[0]}")
    return found


def as_batch(market: Snapshot, intents: Sequence[Intent]) -> Batch | None:
    """The batch as programs see it; None where no order is in it."""
    wanted = [node(intent) for intent in intents for node in (sell_node, buy_node)]
    built = graph.build(market, wanted)
    prices = graph.complete_prices(built, market.prices)
    kept = [
        intent
        for intent in canonical(intents, market.hash)
        if intent.swap.buy_amount * prices[intent.swap.buy]
        <= _MOST_RATE * intent.swap.sell_amount * prices[intent.swap.sell]
    ]
    return normalise(built, kept, {}, prices) if kept else None


def _surplus(batch: Batch, i: int, fills: dict[str, Fill]) -> float:
    fill, order = fills.get(batch.intents[i].digest), batch.problem.orders[i]
    if fill is None:
        return 0.0
    sold, bought = fill.sell / batch.unit[order.sell], fill.buy / batch.unit[order.buy]
    return float((bought - order.limit * sold) / (order.limit if order.exact_out else 1.0))


def _rate(batch: Batch, i: int, fills: dict[str, Fill]) -> float:
    fill, order = fills[batch.intents[i].digest], batch.problem.orders[i]
    return float(fill.buy / fill.sell * batch.unit[order.sell] / batch.unit[order.buy])


def gain_of_splitting(
    rng: random.Random, market: Snapshot, intents: Sequence[Intent]
) -> float | None:
    """What a partial order gains by coming as two orders, beyond rounding, in the numeraire.

    None where there is no partial order large enough.
    """
    whole = next(
        (i for i in intents if i.swap.partial_fill and i.swap.sell_amount > _LEAST_SPLIT), None
    )
    if whole is None:
        return None
    swap = whole.swap
    part = rng.randrange(1, 10)
    sold, bought = swap.sell_amount * part // 10, swap.buy_amount * part // 10
    sizes = (sold, bought), (swap.sell_amount - sold, swap.buy_amount - bought)
    halves = [
        intent_of(swap.sell, swap.buy, *size, swap.kind, True, 1_000 + k)
        for k, size in enumerate(sizes)
    ]
    others = [intent for intent in intents if intent is not whole]
    one = _gained(market, [whole], solve_batch(market, [*others, whole]))
    two = _gained(market, halves, solve_batch(market, [*others, *halves]))
    worth = [intent.swap.sell_amount * market.prices[intent.swap.sell] for intent in intents]
    room = _SPLIT_ROOM * swap.sell_amount * market.prices[swap.sell] + _SPLIT_TRIFLE * max(worth)
    return two - one - room - _SPLIT_UNITS * max(market.prices.values())


def _gained(market: Snapshot, intents: Sequence[Intent], solution: Solution) -> float:
    """The surplus of some orders in the numeraire."""
    swaps = {intent.digest: intent.swap for intent in intents}
    total = 0.0
    for fill in solution.fills:
        swap = swaps.get(fill.digest)
        if swap is not None:
            over = fill.buy - fill.sell * swap.buy_amount / swap.sell_amount
            total += over * market.prices[swap.buy]
    return total


def play(seed: int) -> dict[str, Any]:
    """One batch: its stage and what is wrong with it."""
    rng = random.Random(seed)
    market, intents = random_batch(rng)
    solution = solve_batch(market, intents)
    found = wrongs(market, intents, solution)
    if seed % _AGAIN == 0:
        others = disguised(rng, intents)
        if by_content(others, solve_batch(market, others)) != by_content(intents, solution):
            found.append("another answer under other ids")
    if seed % _AGAIN == 1:
        gained = gain_of_splitting(rng, market, intents)
        if gained is not None and gained > 0.0:
            found.append(f"splitting an order gains {gained}")
    return {"seed": seed, "stage": solution.stage, "orders": len(intents), "wrong": found}


def play_many(first: int) -> dict[str, Any]:
    """``PER_TASK`` batches from a seed on, counted."""
    played = [play(seed) for seed in range(first, first + PER_TASK)]
    return {
        "stages": Counter(one["stage"] for one in played),
        "orders": sum(one["orders"] for one in played),
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
    report = machine.begun(
        options.report, {"batches": 0, "orders": 0, "stages": {}, "wrong": []}, options.fresh
    )
    found = report["batches"]
    machine.play_on(report, options.report, options.batches, options.workers, play_many, PER_TASK)
    if report["batches"] == found:
        print(
            f"{options.report} is complete for this code ({report['code'][:12] or 'no git'}): "
            f"{found} batches, {len(report['wrong'])} wrong; FRESH=1 does it again"
        )
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

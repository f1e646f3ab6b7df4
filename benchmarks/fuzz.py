"""Does the checker reject every false claim? Random corruptions of honest answers.

A round solves one batch (a random instance over every pool kind, or one of the public CoW
auctions), sees that its answer is accepted, and corrupts the answer many times. Each operator
returns only corruptions that it knows to be false, by arithmetic of its own or by the solver's
:mod:`solver.core.verify` and :mod:`solver.core.certificate`, which share no code with the checker.
Rounds go into the report one by one, so an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.answers import random_instance
from solver.checker import Verdict
from solver.checker.document import Malformed
from solver.cli import judge
from solver.core import certificate, graph
from solver.core.batch import solve_batch
from solver.core.intent import min_buy
from solver.core.problem import Batch, Floor, buy_node, normalise, sell_node
from solver.core.schedule import NO_FEES, gross, tightened
from solver.core.types import Charges, Fill, Intent, InventoryUse, Kind, Leg, TokenId
from solver.core.venue import PoolFault, Snapshot
from solver.core.verify import verify
from solver.wire import cow, instance
from solver.wire.solution import solution_document

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REPORT = Path("reports/fuzz.json")
PER_ROUND = 100
_EVERY_AUCTION = 20

Document = dict[str, Any]
Corruption = tuple[bytes, Document]
Operator = Callable[["Answer"], Corruption | None]


class Answer:
    """An honest answer and what an operator needs to know about it."""

    def __init__(self, rng: random.Random, body: bytes) -> None:
        self.rng = rng
        self.body = body
        self.file: Document = json.loads(body)
        self.native = "format" in self.file
        self.terms = None
        if self.native:
            document = msgspec.json.decode(body, type=instance.Instance)
            snapshot, intents, _ = instance.to_core(document)
            self.snapshot: Snapshot = replace(snapshot, hash=document.seed)
            self.intents: tuple[Intent, ...] = intents
            self.terms = instance.terms_to_core(document)
            solution = solve_batch(self.snapshot, intents, self.terms)
            said = msgspec.to_builtins(solution_document(solution))
        else:
            auction = msgspec.json.decode(body, type=cow.Auction)
            problem = cow.to_core(auction, 1, "")
            self.snapshot, self.intents = problem.snapshot, problem.intents
            solution = solve_batch(self.snapshot, self.intents)
            said = cow.from_core(problem, solution)
        self.solution = solution
        self.said: Document = json.loads(msgspec.json.encode(said))
        schedule = self.terms.schedule if self.terms else NO_FEES
        self.tight = tightened(self.intents, schedule)
        self.by_digest = {intent.digest: intent for intent in self.intents}
        self.size = max(
            abs(float(solution.certificate.bound)),
            abs(float(solution.certificate.value)),
            max(map(self._worth, self.intents), default=0.0),
        )

    def _worth(self, intent: Intent) -> float:
        swap, prices = intent.swap, self.snapshot.prices
        exact_in = swap.kind is Kind.EXACT_IN
        return intent.remaining * prices.get(swap.sell if exact_in else swap.buy, 0.0)

    def copy(self) -> Document:
        return deepcopy(self.said)

    def changed(self, said: Document) -> Corruption | None:
        """A corruption of the answer alone, unless nothing changed."""
        return None if said == self.said else (self.body, said)

    def step(self, amount: int) -> int:
        """Amount changed by a few units or by a part of it, never below zero."""
        rng = self.rng
        by = rng.choice([1, 2, rng.randrange(1, 1000), 1 + amount // rng.randrange(2, 10**6)])
        return amount + by if rng.random() < 0.5 or amount < by else amount - by

    def far(self, value: str) -> str:
        """A figure moved by at least a millionth of the batch."""
        by = self.size * 10 ** self.rng.uniform(-5.9, 0)
        return repr(float(value) + self.rng.choice([-by, by]))

    def is_infeasible(self, said: Document) -> bool:
        """What the solver's own check says, which shares no code with the checker."""
        uses = [InventoryUse(*_moved(use)) for use in said["inventory"]]
        fills = [self._gross(fill) for fill in said["fills"]]
        own = graph.inventories(self.snapshot, 0)
        pools = {pool.id: pool for pool in self.snapshot.pools}
        legs = [Leg(leg["pool"], *_moved(leg), leg["gas"]) for leg in said["legs"]]
        clearing = {name: (int(rate[0]), int(rate[1])) for name, rate in said["clearing"].items()}
        try:
            return verify(self.tight, pools, own, fills, legs, uses, clearing) is not None
        except PoolFault:  # a pool that does not trade one token for the other
            return True

    def _gross(self, fill: Document) -> Fill:
        sell, buy, fee = (int(fill[name]) for name in ("sell", "buy", "fee"))
        taken = Charges(**{kind: int(amount) for kind, amount in fill["charges"].items()})
        known = self.by_digest.get(fill["digest"])
        kind = known.swap.kind if known else Kind.EXACT_IN
        return gross(Fill(fill["digest"], sell, buy, fee, taken), kind)

    def proven(self, leaf: Document) -> float | None:
        """g at a leaf's prices by the solver's floats; None where it counts pools pair by pair.

        Or where the proof is that of the one order that was solved, without the others' nodes.
        """
        if any(len(pool.tokens) > 2 for pool in self.snapshot.pools) or self.terms is None:
            return None
        batch = self._batch()
        prices = self._prices()
        names = [
            str(node.token) + ("@escrow" if node.stage == graph.ESCROW else "")
            for node in batch.graph.nodes
        ]
        if any(
            node.token in prices and name not in leaf["prices"]
            for name, node in zip(names, batch.graph.nodes, strict=True)
        ):
            return None
        nu = np.array(
            [
                float(leaf["prices"][name]) / prices[node.token] if node.token in prices else 0.0
                for name, node in zip(names, batch.graph.nodes, strict=True)
            ]
        )
        index = {intent.digest: i for i, intent in enumerate(batch.intents)}
        whole, out = ([index[digest] for digest in leaf[key]] for key in ("whole", "out"))
        return float(certificate.bound(batch.problem, nu, np.zeros(0), whole, out) * batch.scale)

    def _prices(self) -> dict[Any, float]:
        proof = self.solution.certificate
        prices = dict(self.snapshot.prices)
        for token in {t for pool in self.snapshot.pools for t in pool.tokens}:
            if str(token) in proof.reference:
                prices[token] = float(proof.reference[str(token)])
        return prices

    def _batch(self) -> Batch:
        proof, terms, prices = self.solution.certificate, self.terms, self._prices()
        assert terms is not None
        kept = [i for i in sorted(self.tight, key=lambda i: i.digest) if i.digest in proof.caps]
        wanted = [sell_node(i) for i in self.tight] + [buy_node(i) for i in self.tight]
        built = graph.build(self.snapshot, wanted, terms.capital_bps)
        batch = normalise(built, kept, terms.fees, prices, terms.max_impact_bps)
        caps = tuple(
            float(proof.caps[intent.digest]) * float(batch.unit[order.sell] / batch.unit[order.buy])
            for intent, order in zip(kept, batch.problem.orders, strict=True)
        )
        floors = tuple(
            Floor((self._floor_member(kept, name),), float(amount) / batch.scale)
            for name, amount in proof.floors.items()
        )
        return replace(batch, problem=replace(batch.problem, caps=caps, floors=floors))

    def _floor_member(self, kept: Sequence[Intent], name: str) -> int:
        for i, intent in enumerate(kept):
            pair = f"{intent.swap.sell}>{intent.swap.buy}"
            if name == intent.digest or (name == pair and intent.swap.kind is Kind.EXACT_IN):
                return i
        raise ValueError(name)


def _moved(item: Document) -> tuple[TokenId, TokenId, int, int]:
    """The tokens and amounts of a leg or an inventory use."""
    tail, head = (TokenId.parse(item[side]) for side in ("tokenIn", "tokenOut"))
    return tail, head, int(item["amountIn"]), int(item["amountOut"])


def _pick(answer: Answer, said: Document, key: str) -> Document | None:
    return answer.rng.choice(said[key]) if said.get(key) else None


def _integer_of(key: str, names: Sequence[str]) -> Operator:
    """An amount of a fill, a leg or an inventory use: what is left over no longer fits."""

    def operator(answer: Answer) -> Corruption | None:
        said = answer.copy()
        item = _pick(answer, said, key)
        if item is None:
            return None
        name = answer.rng.choice(names)
        kind = type(item[name])
        item[name] = kind(answer.step(int(item[name])))
        return answer.changed(said)

    return operator


def _digest(answer: Answer) -> Corruption | None:
    said = answer.copy()
    item = _pick(answer, said, "fills")
    if item is None:
        return None
    others = [d for d in answer.by_digest if d != item["digest"]]
    item["digest"] = answer.rng.choice([*others, "0x" + "ab" * 32])
    return (answer.body, said) if answer.is_infeasible(said) else None


def _repeat(answer: Answer) -> Corruption | None:
    said = answer.copy()
    key = answer.rng.choice(["fills", "legs", "inventory"])
    item = _pick(answer, said, key)
    if item is None:
        return None
    said[key].insert(answer.rng.randrange(len(said[key]) + 1), deepcopy(item))
    return answer.changed(said)  # twice moved, so what is left over no longer fits


def _drop(answer: Answer) -> Corruption | None:
    said = answer.copy()
    key = answer.rng.choice(["fills", "legs", "inventory"])
    if not said.get(key):
        return None
    del said[key][answer.rng.randrange(len(said[key]))]
    return answer.changed(said)


def _swap_legs(answer: Answer) -> Corruption | None:
    said = answer.copy()
    if len(said["legs"]) < 2:
        return None
    one, two = answer.rng.sample(range(len(said["legs"])), 2)
    said["legs"][one], said["legs"][two] = said["legs"][two], said["legs"][one]
    return (answer.body, said) if answer.is_infeasible(said) else None


def _other_pool(answer: Answer) -> Corruption | None:
    said = answer.copy()
    leg = _pick(answer, said, "legs")
    if leg is None:
        return None
    names = [pool.id for pool in answer.snapshot.pools if pool.id != leg["pool"]]
    leg["pool"] = answer.rng.choice([*names, leg["pool"] + "x"])
    known = {pool.id: pool for pool in answer.snapshot.pools}
    pool = known.get(leg["pool"])
    tokens = {leg["tokenIn"], leg["tokenOut"]}
    if pool is not None and tokens <= {str(token) for token in pool.tokens}:
        return (answer.body, said) if answer.is_infeasible(said) else None
    return answer.body, said


def _turned_leg(answer: Answer) -> Corruption | None:
    said = answer.copy()
    leg = _pick(answer, said, "legs")
    if leg is None:
        return None
    leg["tokenIn"], leg["tokenOut"] = leg["tokenOut"], leg["tokenIn"]
    return answer.changed(said)


def _rate(answer: Answer) -> Corruption | None:
    said = answer.copy()
    if not said["clearing"]:
        return None
    name = answer.rng.choice(sorted(said["clearing"]))
    part = answer.rng.randrange(2)
    rate = list(said["clearing"][name])
    rate[part] = str(max(1, answer.step(int(rate[part]))))
    said["clearing"][name] = rate
    return (answer.body, said) if answer.is_infeasible(said) else None


def _lost_rate(answer: Answer) -> Corruption | None:
    said = answer.copy()
    if not said["clearing"]:
        return None
    del said["clearing"][answer.rng.choice(sorted(said["clearing"]))]
    return answer.body, said


def _dust(answer: Answer) -> Corruption | None:
    said = answer.copy()
    names = [*said["dust"], "1:0x" + "99" * 20]
    name = answer.rng.choice(names)
    if name in said["dust"] and answer.rng.random() < 0.3:
        del said["dust"][name]
    else:
        said["dust"][name] = str(answer.step(int(said["dust"].get(name, "0"))))
    if said["dust"].get(name, "0") == answer.said["dust"].get(name, "0"):
        return None
    return answer.body, said


def _charges(answer: Answer) -> Corruption | None:
    """Another fee than the terms say, or the same amounts under other names."""
    said = answer.copy()
    fill = _pick(answer, said, "fills")
    if fill is None:
        return None
    taken = fill["charges"]
    one, two = answer.rng.sample(sorted(taken), 2)
    if answer.rng.random() < 0.5 and taken[one] != taken[two]:
        taken[one], taken[two] = taken[two], taken[one]
    else:
        taken[one] = str(answer.step(int(taken[one])))
    return answer.changed(said)


def _below_limit(answer: Answer) -> Corruption | None:
    """One unit less than signed, with rate, dust and value made to fit."""
    said = answer.copy()
    alone = []
    for fill in said["fills"]:
        intent = answer.by_digest[fill["digest"]]
        pair = intent.swap.sell, intent.swap.buy
        mates = [
            other
            for other in said["fills"]
            if (
                answer.by_digest[other["digest"]].swap.sell,
                answer.by_digest[other["digest"]].swap.buy,
            )
            == pair
        ]
        if len(mates) == 1 and intent.swap.kind is Kind.EXACT_IN:
            alone.append((fill, intent))
    if not alone:
        return None
    fill, intent = answer.rng.choice(alone)
    swap = intent.swap
    least = min_buy(swap, int(fill["sell"])) - answer.rng.choice([1, 1, 2, 100])
    less = int(fill["buy"]) - least
    if least <= 0 or less <= 0:
        return None
    fill["buy"] = str(least)
    said["clearing"][f"{swap.sell}>{swap.buy}"] = [str(least + int(fill["fee"])), fill["sell"]]
    said["dust"][str(swap.buy)] = str(int(said["dust"].get(str(swap.buy), "0")) + less)
    price = answer._prices()[swap.buy]
    _with_value(said, float(said["certificate"]["value"]) - less * price)
    return answer.body, said


def _with_value(said: Document, value: float) -> None:
    proof = said["certificate"]
    gap = max(0.0, float(proof["bound"]) - value)
    proof.update(value=repr(value), gap=repr(gap))
    proof["netGap"] = repr(max(0.0, gap - float(proof["arbFloor"])))


def _fee(answer: Answer) -> Corruption | None:
    """More fee than the cap, taken from what the user gets, so that everything else fits."""
    said = answer.copy()
    fill = _pick(answer, said, "fills")
    if fill is None:
        return None
    swap = answer.by_digest[fill["digest"]].swap
    amount = int(fill["sell"] if swap.kind is Kind.EXACT_IN else fill["buy"])
    over = swap.max_fee * amount // swap.total + answer.rng.randrange(1, 1000) - int(fill["fee"])
    if over <= 0 or int(fill["buy"]) <= over:
        return None
    fill.update(fee=str(int(fill["fee"]) + over), buy=str(int(fill["buy"]) - over))
    return answer.body, said


def _overfilled(answer: Answer) -> Corruption | None:
    """The same answer where less of an order was left, or an all-or-nothing order was begun."""
    file = deepcopy(answer.file)
    fill = _pick(answer, answer.said, "fills")
    if fill is None:
        return None
    intent = answer.by_digest[fill["digest"]]
    swap = intent.swap
    amount = int(fill["sell"] if swap.kind is Kind.EXACT_IN else fill["buy"])
    place = next(k for k, i in enumerate(answer.intents) if i.digest == intent.digest)
    file["intents"][place]["filled"] = str(
        swap.total - amount + answer.rng.randrange(1, amount + 1)
    )
    return json.dumps(file).encode(), answer.copy()


def _other_order(answer: Answer) -> Corruption | None:
    """The same answer to another signed amount: its digest is not in the file any more."""
    file = deepcopy(answer.file)
    fill = _pick(answer, answer.said, "fills")
    if fill is None:
        return None
    place = next(k for k, i in enumerate(answer.intents) if i.digest == fill["digest"])
    swap = file["intents"][place]["swap"]
    name = answer.rng.choice(["sellAmount", "buyAmount"])
    swap[name] = str(max(1, answer.step(int(swap[name]))))
    return (json.dumps(file).encode(), answer.copy()) if file != answer.file else None


def _figure(answer: Answer) -> Corruption | None:
    said = answer.copy()
    name = answer.rng.choice(["value", "gap", "netGap", "arbFloor", "bound"])
    said["certificate"][name] = answer.far(said["certificate"][name])
    return answer.body, said


def _bps(answer: Answer) -> Corruption | None:
    said = answer.copy()
    proof = said["certificate"]
    by = answer.rng.choice([-1, 1]) * 10 ** answer.rng.uniform(-4, 3)
    proof["netGapBps"] = repr(float(proof["netGapBps"]) * (1 + abs(by)) + by)
    return answer.body, said


def _value(answer: Answer) -> Corruption | None:
    """Another value, with the gaps made to fit."""
    said = answer.copy()
    _with_value(said, float(answer.far(said["certificate"]["value"])))
    return answer.body, said


def _with_bound(said: Document, k: int, bound: float) -> None:
    """Leaf k at a new bound, everything that follows from it made to fit."""
    proof = said["certificate"]
    proof["leaves"][k]["bound"] = repr(bound)
    top = max(proof["leaves"], key=lambda leaf: float(leaf["bound"]))
    proof.update(bound=top["bound"], prices=top["prices"], multipliers=top["multipliers"])
    _with_value(said, float(proof["value"]))


def _lower_bound(answer: Answer) -> Corruption | None:
    """A leaf with a bound below what its prices prove."""
    said = answer.copy()
    leaves = said["certificate"]["leaves"]
    if not leaves:
        return None
    k = answer.rng.randrange(len(leaves))
    true = answer.proven(leaves[k])
    if true is None:
        return None
    by = answer.size * 10 ** answer.rng.uniform(-5.9, 0)
    _with_bound(said, k, min(true, float(leaves[k]["bound"])) - by)
    return answer.body, said


def _below_value(answer: Answer) -> Corruption | None:
    """Every bound below what the answer itself has."""
    said = answer.copy()
    proof = said["certificate"]
    by = answer.size * 10 ** answer.rng.uniform(-5.9, 0)
    for k in range(len(proof["leaves"])):
        _with_bound(said, k, float(proof["value"]) - by)
    return (answer.body, said) if proof["leaves"] else None


def _prices(answer: Answer) -> Corruption | None:
    """Other prices in a leaf, so that they no longer prove its bound."""
    said = answer.copy()
    leaves = said["certificate"]["leaves"]
    if not leaves:
        return None
    k = answer.rng.randrange(len(leaves))
    leaf = leaves[k]
    factor = 1 + answer.rng.choice([-1, 1]) * 10 ** answer.rng.uniform(-4, -0.1)
    everything = answer.rng.random() < 0.3
    for name in leaf["prices"] if everything else [answer.rng.choice(sorted(leaf["prices"]))]:
        leaf["prices"][name] = repr(float(leaf["prices"][name]) * factor)
    bound = float(leaf["bound"]) * (min(1.0, factor) if everything else 1.0)
    true = answer.proven(leaf)
    if true is None or true < bound + 1e-6 * answer.size:
        return None
    _with_bound(said, k, bound)
    return answer.body, said


def _lost_price(answer: Answer) -> Corruption | None:
    """A leaf without the price of a token that an order in it sells or buys."""
    said = answer.copy()
    leaves = said["certificate"]["leaves"]
    if not leaves:
        return None
    leaf = answer.rng.choice(leaves)
    names = {
        str(intent.swap.buy)
        for intent in answer.intents
        if intent.digest in said["certificate"]["caps"] and intent.digest not in leaf["out"]
    }
    if not names & leaf["prices"].keys():
        return None
    del leaf["prices"][answer.rng.choice(sorted(names & leaf["prices"].keys()))]
    return answer.body, said


def _leaves(answer: Answer) -> Corruption | None:
    """Cases that do not cover everything."""
    said, rng = answer.copy(), answer.rng
    leaves = said["certificate"]["leaves"]
    if not leaves:
        return None
    leaf = rng.choice(leaves)
    chosen = rng.randrange(3)
    if chosen == 0:
        leaves.remove(leaf)
    elif chosen == 1 and (leaf["whole"] or leaf["out"]):
        one, two = ("whole", "out") if leaf["whole"] else ("out", "whole")
        leaf[two].append(leaf[one].pop())
    else:
        free = set(said["certificate"]["caps"]) - {*leaf["whole"], *leaf["out"]}
        if not free:
            return None
        leaf[rng.choice(["whole", "out"])].append(rng.choice(sorted(free)))
    return answer.body, said


def _floors(answer: Answer) -> Corruption | None:
    """A floor that this answer does not pay, or of a pair that nobody trades."""
    said = answer.copy()
    floors = said["certificate"]["floors"]
    over = answer.size * 10 ** answer.rng.uniform(-5, 0)
    if floors and answer.rng.random() < 0.7:
        name = answer.rng.choice(sorted(floors))
        floors[name] = repr(float(said["certificate"]["value"]) + float(floors[name]) + over)
    else:
        floors["1:0x" + "98" * 20 + ">1:0x" + "99" * 20] = repr(over)
    return answer.body, said


def _caps(answer: Answer) -> Corruption | None:
    """A cap below the reference rate, below what this answer pays, or missing."""
    said = answer.copy()
    caps = said["certificate"]["caps"]
    if not caps:
        return None
    digest = answer.rng.choice(sorted(caps))
    if len(caps) > 1 and answer.rng.random() < 0.2:
        del caps[digest]
        return answer.body, said
    swap = answer.by_digest[digest].swap
    prices = answer._prices()
    fair = prices[swap.sell] / prices[swap.buy]
    for fill in answer.solution.fills:
        if fill.digest == digest and fill.buy > 10**6:
            fair = max(fair, (fill.buy + fill.fee) / fill.sell)
    caps[digest] = repr(fair * (1 - 10 ** answer.rng.uniform(-5, -0.1)))
    return answer.body, said


def _reference(answer: Answer) -> Corruption | None:
    said = answer.copy()
    reference = said["certificate"]["reference"]
    if not reference:
        return None
    name = answer.rng.choice(sorted(reference))
    reference[name] = repr(float(reference[name]) * 10 ** answer.rng.uniform(0.01, 3))
    return answer.body, said


def _arbitrage(answer: Answer) -> Corruption | None:
    """A plan without input that its pools do not carry out, or too little of one."""
    said, rng = answer.copy(), answer.rng
    cycles = said["certificate"]["arbitrage"]
    if not cycles:
        return None
    k = rng.randrange(len(cycles))
    if rng.random() < 0.4:
        gained = int(cycles[k][-1]["amountOut"]) - int(cycles[k][0]["amountIn"])
        prices = {str(t): p for t, p in answer._prices().items()}
        worth = gained * prices[cycles[k][0]["tokenIn"]]
        if worth <= 1e-9 * float(said["certificate"]["arbFloor"]):
            return None
        del cycles[k]
    else:
        leg = rng.choice(cycles[k])
        leg["amountOut"] = str(answer.step(int(leg["amountOut"])))
    return answer.body, said


def _assumption(answer: Answer) -> Corruption | None:
    """One that the answer rests on is not stated."""
    said = answer.copy()
    texts = said["certificate"]["assumptions"]
    needed = [t for t in texts if t.startswith(("every pair", "no pair", "curves", "missing"))]
    proof = said["certificate"]
    needed = [t for t in needed if not t.startswith("missing") or proof["reference"]]
    if not needed:
        return None
    texts.remove(answer.rng.choice(needed))
    return answer.body, said


def _malformed(answer: Answer) -> Corruption | None:
    """A field that is missing, or a number that is none."""
    said, rng = answer.copy(), answer.rng
    proof = said["certificate"]
    if rng.random() < 0.5:
        key = rng.choice(
            ["value", "bound", "arbFloor", "gap", "netGap", "prices", "leaves", "caps"]
        )
        del proof[key]
    else:
        key = rng.choice(["value", "bound", "arbFloor", "gap"])
        proof[key] = rng.choice(["NaN", "inf", "", "1e99999", "0x10", " 1", "1_0", "-", 1.5, None])
    return answer.body, said


def _executed(answer: Answer) -> Corruption | None:
    """CoW's form: another executed amount, which changes the value in any case."""
    said = answer.copy()
    if not said["solutions"]:
        return None
    trade = answer.rng.choice(said["solutions"][0]["trades"])
    amount = int(trade["executedAmount"])
    trade["executedAmount"] = str(
        max(0, amount + answer.rng.choice([-1, 1]) * (1 + amount // 1000))
    )
    return answer.changed(said)


def _cow_price(answer: Answer) -> Corruption | None:
    said = answer.copy()
    if not said["solutions"]:
        return None
    prices = said["solutions"][0]["prices"]
    traded = {
        address
        for trade in said["solutions"][0]["trades"]
        for swap in [answer.by_digest[trade["order"]].swap]
        for address in (swap.sell.address, swap.buy.address)
    }
    name = answer.rng.choice(sorted(traded & prices.keys()))
    scale = answer.rng.choice([999, 1001, 900, 1100])
    prices[name] = str(int(prices[name]) * scale // 1000)
    return answer.changed(said)


def _interaction(answer: Answer) -> Corruption | None:
    said, rng = answer.copy(), answer.rng
    if not said["solutions"] or not said["solutions"][0]["interactions"]:
        return None
    item = rng.choice(said["solutions"][0]["interactions"])
    chosen = rng.randrange(4)
    if chosen == 0:
        item["outputAmount"] = str(answer.step(int(item["outputAmount"])))
    elif chosen == 1:
        item["id"] += "x"
    elif chosen == 2:
        item["inputToken"], item["outputToken"] = item["outputToken"], item["inputToken"]
    else:
        tokens = {name.lower(): token for name, token in answer.file["tokens"].items()}
        token = tokens.get(item["inputToken"], {})
        if item["internalize"] or token.get("trusted"):
            return None
        item["internalize"] = True
    return answer.changed(said)


_PROOF: dict[str, Operator] = {
    "figure": _figure,
    "bps": _bps,
    "value": _value,
    "below_value": _below_value,
    "leaves": _leaves,
    "floors": _floors,
    "caps": _caps,
    "reference": _reference,
    "arbitrage": _arbitrage,
    "assumption": _assumption,
    "lost_price": _lost_price,
    "malformed": _malformed,
}
NATIVE: dict[str, Operator] = {
    "fill": _integer_of("fills", ("sell", "buy", "fee")),
    "leg": _integer_of("legs", ("amountIn", "amountOut")),
    "inventory": _integer_of("inventory", ("amountIn", "amountOut")),
    "digest": _digest,
    "repeat": _repeat,
    "drop": _drop,
    "swap_legs": _swap_legs,
    "other_pool": _other_pool,
    "turned_leg": _turned_leg,
    "rate": _rate,
    "lost_rate": _lost_rate,
    "dust": _dust,
    "below_limit": _below_limit,
    "fee": _fee,
    "charges": _charges,
    "overfilled": _overfilled,
    "other_order": _other_order,
    "lower_bound": _lower_bound,
    "prices": _prices,
    **_PROOF,
}
AUCTION: dict[str, Operator] = {
    "executed": _executed,
    "cow_price": _cow_price,
    "interaction": _interaction,
    **_PROOF,
}


def verdict_of(corruption: Corruption) -> Verdict:
    """What the checker says; a malformed answer is rejected too."""
    body, said = corruption
    try:
        return judge(body, json.dumps(said).encode())
    except Malformed as error:
        return Verdict((error.violation,), {})


def auctions() -> list[bytes]:
    """The public auctions whose liquidity is all known, as they are solved."""
    data = Path(os.environ.get("THALWEG_PARITY_DATA", DATA))
    found = [*sorted((data / "cow-baseline").glob("*.json"))]
    found += sorted((data / "solver-template-py").glob("*.modern.json"))
    cases = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    return [json.dumps(case.get("request", case)).encode() for case in cases]


def play(seed: int, count: int, public: Sequence[bytes] = ()) -> dict[str, Any]:
    """One round: an honest answer and ``count`` false ones."""
    rng = random.Random(seed)
    body = random_instance(rng)
    if public and seed % _EVERY_AUCTION == 0:
        body = public[seed // _EVERY_AUCTION % len(public)]
    answer = Answer(rng, body)
    honest = verdict_of((body, answer.said))
    made: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    survivors = []
    operators = NATIVE if answer.native else AUCTION
    names = sorted(operators)
    tries = 0
    while sum(made.values()) < count and tries < 20 * count:
        name = names[tries % len(names)]
        tries += 1
        corruption = operators[name](answer)
        if corruption is None:
            continue
        made[name] += 1
        verdict = verdict_of(corruption)
        if verdict.accepted:
            survivors.append({"operator": name, "try": tries})
        else:
            codes[verdict.violations[0].code] += 1
    return {
        "seed": seed,
        "honest": [f"{v.code} {v.pointer}: {v.detail}" for v in honest.violations],
        "made": dict(made),
        "codes": dict(codes),
        "survivors": survivors,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play rounds until the report has enough corruptions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corruptions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"seed": options.seed, "rounds": []}
    if options.report.exists():
        old = json.loads(options.report.read_text(encoding="utf-8"))
        if old.get("seed") == options.seed:
            report = old
    public = auctions()
    with ProcessPoolExecutor(options.workers) as pool:
        while _totals(report) < options.corruptions:
            first = options.seed * 1_000_000 + len(report["rounds"])
            seeds = range(first, first + 2 * options.workers)
            report["rounds"] += pool.map(play, seeds, repeat(PER_ROUND), repeat(public))
            total = _totals(report)
            options.report.parent.mkdir(parents=True, exist_ok=True)
            draft = options.report.with_suffix(".part")
            draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
            draft.replace(options.report)
            print(
                f"{total} corruptions, {report['accepted']} accepted, "
                f"{report['honest_rejected']} honest answers rejected",
                flush=True,
            )
    return 1 if report["accepted"] or report["honest_rejected"] else 0


def _totals(report: dict[str, Any]) -> int:
    made: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for entry in report["rounds"]:
        made.update(entry["made"])
        codes.update(entry["codes"])
    report["corruptions"] = sum(made.values())
    report["accepted"] = sum(len(entry["survivors"]) for entry in report["rounds"])
    report["honest_rejected"] = sum(bool(entry["honest"]) for entry in report["rounds"])
    report["by_operator"] = dict(sorted(made.items()))
    report["by_code"] = dict(sorted(codes.items()))
    return sum(made.values())


if __name__ == "__main__":
    sys.exit(main())

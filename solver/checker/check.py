"""The whole check: feasibility, value, bound, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from solver.checker import bound as bounds
from solver.checker import charges, margin
from solver.checker.bound import Ground
from solver.checker.document import Claim, Row, Violation
from solver.checker.feasible import Account, internalised, replay, stocks, violations
from solver.checker.gain import Curve, Unknown, curves, is_sampled
from solver.core.intent import max_fee
from solver.core.margin.book import Book
from solver.core.pools import RoutePool
from solver.core.schedule import NO_FEES, FeeSchedule, tightened
from solver.core.types import BPS, Fill, Intent, Kind, TokenId
from solver.core.venue import Pool, Snapshot, StatesRoutes

#: Of the largest figure in question: the solver's floats are printed with 17 digits.
_PRINTED = Fraction(1, 10**12)
#: What the solver's floats may be off when it compares its own integers with floors and caps.
_FLOATS = Fraction(1, 10**8)
_SAMPLED = "curves sampled, not declared: "
_DERIVED = "missing reference prices follow from pool rates"
_FLOORS = "every pair gets the surplus of the reference outcome at least"
_CAPS = "no pair is paid above"
_FAR_FROM_REFERENCE = 1_000


class Task(Struct, frozen=True):
    """A problem as the file states it. Rows are what the operator adds; files have none. Those of
    ``margin`` accounts are stated by the answer and tried out.
    """

    snapshot: Snapshot
    intents: tuple[Intent, ...]
    fees: Mapping[str, int] = {}
    max_impact_bps: int = BPS
    capital_bps: int = 0
    rows: Mapping[str, Row] = {}
    trusted: Mapping[str, bool] = {}
    buffers: Mapping[str, int] = {}
    schedule: FeeSchedule = NO_FEES
    margin: Book | None = None


class Verdict(Struct, frozen=True):
    """Every violated clause, none if the answer is accepted, and the recomputed figures."""

    violations: tuple[Violation, ...]
    figures: dict[str, str]

    @property
    def accepted(self) -> bool:
        """Whether everything holds."""
        return not self.violations


def check(task: Task, claim: Claim) -> Verdict:
    """Check a claim against its problem: first what was taken, then the gross fills."""
    found = list(charges.violations(claim, task.intents, task.schedule))
    if task.margin is not None:
        found += margin.violations(task.margin, task.intents, claim)
        task = replace(task, rows={**task.rows, **claim.rows})
    claim = replace(claim, fills=charges.before(claim.fills, task.intents))
    task = replace(task, intents=tuple(tightened(task.intents, task.schedule)))
    figures: dict[str, str] = {}
    by_digest = {intent.digest: intent for intent in task.intents}
    found += violations(claim, by_digest, task.snapshot, task.fees, task.capital_bps)
    if claim.internal is not None:
        found += internalised(claim, task.trusted, task.buffers)
    try:
        known = {pool.id: pool for pool in task.snapshot.pools}
        if len(known) != len(task.snapshot.pools):
            found.append(Violation("duplicate_pool", "", "two pools of the file have one id"))
        ground, missing = _ground(task, claim)
    except Unknown as error:
        found.append(Violation("unknown_kind", "", str(error)))
        return Verdict(tuple(found), figures)
    found += missing
    if any(fill.digest not in ground.intents for fill in claim.fills):
        found.append(Violation("unpriced", "/fills", "a fill of an order outside the bound"))
    elif not missing:
        found += _figures(task, claim, ground, figures)
    return Verdict(tuple(found), figures)


def _ground(task: Task, claim: Claim) -> tuple[Ground, list[Violation]]:
    found: list[Curve] = []
    sampled: list[str] = []
    for pool in task.snapshot.pools:
        if isinstance(pool, RoutePool | StatesRoutes):
            continue
        found += curves(pool)
        if is_sampled(pool):
            sampled.append(pool.id)
    stated = {token: Fraction(price) for token, price in task.snapshot.prices.items() if price > 0}
    reference, wrong = bounds.fill_in(stated, claim.reference, found)
    if len(reference) > len(stated) and _DERIVED not in claim.assumptions:
        wrong.append(Violation("unstated", "/certificate/assumptions", _DERIVED))
    listed = {
        name
        for text in claim.assumptions
        if text.startswith(_SAMPLED)
        for name in text.removeprefix(_SAMPLED).split(", ")
    }
    wrong += [
        Violation("unstated", "/certificate/assumptions", f"{name} is sampled: assumes_concave")
        for name in sampled
        if name not in listed
    ]
    intents = {
        intent.digest: intent for intent in task.intents if _counts(intent, task.fees, reference)
    }
    impact = None if task.max_impact_bps >= BPS else Fraction(task.max_impact_bps, BPS)
    own = stocks(task.snapshot, task.capital_bps)
    return Ground(intents, task.fees, found, own, reference, impact, task.rows), wrong


def _counts(intent: Intent, fees: Mapping[str, int], prices: Mapping[TokenId, Fraction]) -> bool:
    """Whether an order is in the batch: its fee is within its cap, its tokens have prices, and its
    limit is not a thousand times the reference rate. The solver refuses the others, and says so.
    """
    swap = intent.swap
    if fees.get(intent.digest, 0) > max_fee(swap, intent.remaining):
        return False
    if swap.sell not in prices or swap.buy not in prices or intent.remaining <= 0:
        return False
    asked = swap.buy_amount * prices[swap.buy]
    return asked <= _FAR_FROM_REFERENCE * swap.sell_amount * prices[swap.sell]


def surplus(intent: Intent, fill: Fill, reference: Mapping[TokenId, Fraction]) -> Fraction:
    """What a fill has beyond its signed limit, in the numeraire, exactly."""
    swap = intent.swap
    over = fill.buy * swap.sell_amount - fill.sell * swap.buy_amount
    if swap.kind is Kind.EXACT_IN:
        return Fraction(over, swap.sell_amount) * reference[swap.buy]
    return Fraction(over, swap.buy_amount) * reference[swap.sell]


def _figures(
    task: Task, claim: Claim, ground: Ground, figures: dict[str, str]
) -> Iterator[Violation]:
    said = claim.figures
    value = sum(
        (surplus(ground.intents[f.digest], f, ground.reference) for f in claim.fills), Fraction(0)
    )
    figures["value"] = _text(value)
    if ground.intents and said["value"] > said["bound"] + bounds.largest(ground) * _FLOATS:
        yield Violation("above_bound", "/certificate/bound", "the answer has more than its bound")
    unit = bounds.largest(ground)
    yield from _same("value", said["value"], value, max(abs(value), unit * _PRINTED))
    yield from _policy(claim, ground)
    if ground.intents:
        yield from _bound(claim, ground, figures, unit)
    elif said["bound"] != 0 or claim.leaves:
        yield Violation("bound", "/certificate/bound", "a batch without an order has nothing")
    yield from _arbitrage(task, claim, ground, figures)
    size = max(abs(said["bound"]), abs(said["value"]), unit)
    gap = max(Fraction(0), said["bound"] - said["value"])
    yield from _same("gap", said["gap"], gap, size)
    net = max(Fraction(0), said["gap"] - said["arbFloor"])
    yield from _same("netGap", said["netGap"], net, size)
    volume = sum(
        (
            (fill.buy + fill.fee) * ground.reference[ground.intents[fill.digest].swap.buy]
            for fill in claim.fills
        ),
        Fraction(0),
    )
    bps = said["netGap"] / volume * BPS if volume else Fraction(0)
    if abs(bps - said["netGapBps"]) > Fraction(1, 10**6) + bps * _PRINTED:
        yield Violation("netGapBps", "/certificate/netGapBps", f"it is {_text(bps)}")
    figures["gap"], figures["netGap"] = _text(gap), _text(net)


def _same(name: str, said: Fraction, exact: Fraction, size: Fraction) -> Iterator[Violation]:
    if abs(said - exact) > size * _PRINTED:
        yield Violation(name, f"/certificate/{name}", f"it is {_text(exact)}, not {_text(said)}")


def _policy(claim: Claim, ground: Ground) -> Iterator[Violation]:
    """Floors and caps narrow the plans that the bound is about; this answer must be one of them."""
    if claim.floors and _FLOORS not in claim.assumptions:
        yield Violation("unstated", "/certificate/assumptions", _FLOORS)
    if claim.caps and not any(
        text.startswith("no pair is paid above") for text in claim.assumptions
    ):
        yield Violation("unstated", "/certificate/assumptions", _CAPS)
    paid: dict[str, Fraction] = {}
    for fill in claim.fills:
        intent = ground.intents[fill.digest]
        pair = f"{intent.swap.sell}>{intent.swap.buy}"
        key = pair if intent.swap.kind is Kind.EXACT_IN else fill.digest
        paid[key] = paid.get(key, Fraction(0)) + surplus(intent, fill, ground.reference)
        cap = claim.caps.get(fill.digest)
        if cap is not None and fill.buy + fill.fee > cap * fill.sell * (1 + _FLOATS) + 1:
            place = f"/certificate/caps/{fill.digest}"
            yield Violation("above_cap", place, "this answer pays more than its own cap")
    for name, amount in claim.floors.items():
        if paid.get(name, Fraction(0)) < amount * (1 - _FLOATS):
            yield Violation("floor_not_paid", f"/certificate/floors/{name}", "less was paid")
    for digest, intent in ground.intents.items():
        place = f"/certificate/caps/{digest}"
        if not claim.caps:
            break
        swap = intent.swap
        fair = ground.reference[swap.sell] / ground.reference[swap.buy]
        if digest not in claim.caps:
            yield Violation("cap_missing", place, "caps are stated for some orders only")
        elif claim.caps[digest] < fair:
            yield Violation("cap_too_low", place, f"the reference rate is {_text(fair)}")
    for digest in sorted(claim.caps.keys() - ground.intents.keys()):
        yield Violation("unknown_intent", f"/certificate/caps/{digest}", "no such order")


def _bound(
    claim: Claim, ground: Ground, figures: dict[str, str], unit: Fraction
) -> Iterator[Violation]:
    divisible = {d: intent.swap.partial_fill for d, intent in ground.intents.items()}
    gaps = list(bounds.uncovered(claim.leaves, divisible))
    yield from gaps
    if gaps:
        return
    proven = []
    for k, leaf in enumerate(claim.leaves):
        place = f"/certificate/leaves/{k}"
        if bounds.is_empty(ground, claim, leaf):
            proven.append(Decimal(0))
            continue
        bound = bounds.bound(ground, claim, leaf, place)
        if isinstance(bound, Violation):
            yield bound
            return
        proven.append(bound)
        if leaf.bound < Fraction(bound) - max(abs(Fraction(bound)), unit) * _PRINTED:
            detail = f"these prices prove {bound:.17g}, not {_text(leaf.bound)}"
            yield Violation("bound", f"{place}/bound", detail)
    top = max(claim.leaves, key=lambda leaf: leaf.bound)
    if claim.figures["bound"] != top.bound:
        detail = f"the loosest leaf has {_text(top.bound)}"
        yield Violation("bound", "/certificate/bound", detail)
    same = [leaf for leaf in claim.leaves if leaf.bound == top.bound]
    if not any(
        (leaf.prices, leaf.multipliers) == (claim.prices, claim.multipliers) for leaf in same
    ):
        yield Violation("prices", "/certificate/prices", "they are not those of the loosest leaf")
    figures["bound"] = f"{bounds.worst(proven):.17g}"


def _arbitrage(
    task: Task, claim: Claim, ground: Ground, figures: dict[str, str]
) -> Iterator[Violation]:
    """The exhibited plans, replayed from the snapshot one after another.

    A plan may borrow while it runs; what it lacks in the end is a violation, and what it has left
    of tokens in which an order's surplus counts is its yield.
    """
    pools: dict[str, Pool] = {pool.id: pool for pool in task.snapshot.pools}
    counted = {
        intent.swap.buy if intent.swap.kind is Kind.EXACT_IN else intent.swap.sell
        for intent in ground.intents.values()
        if intent.swap.kind is Kind.EXACT_IN or not intent.swap.is_cross_chain
    }
    worth = Fraction(0)
    for k, plan in enumerate(claim.arbitrage):
        place = f"/certificate/arbitrage/{k}"
        lent: dict[Account, int] = {}
        for leg in plan:
            account = (leg.token_in, False)
            lent[account] = lent.get(account, 0) + leg.amount_in
        balance = dict(lent)
        broken = list(replay(plan, pools, balance, place))
        yield from broken
        if broken:
            return
        for account, left in balance.items():
            gained = left - lent.get(account, 0)
            if gained < 0:
                yield Violation("no_gain", place, f"{account[0]} lacks {-gained} in the end")
            elif account[0] in counted:
                worth += gained * ground.reference[account[0]]
    figures["arbFloor"] = _text(worth)
    said = claim.figures["arbFloor"]
    yield from _same("arbFloor", said, worth, worth)


def _text(value: Fraction) -> str:
    return f"{float(value):.17g}"

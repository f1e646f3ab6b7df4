"""A batch from snapshot and intents to a checked, certified solution.

reference, in integers → relax → choose (whole fills, one rate per pair) → settle without cycles →
whole lots → share → integers → verify. Three proposals can become the batch, the best first: the
program's, the incumbent's (the relaxation without the orders that spoil it), the reference
outcome's. What falls short by as little as integers do is planned again with more room; a proposal
that fails all the same costs one order and is tried again. The bound is always that of the whole
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from solver.core import graph, legs, nearby, pricing, program, proof, reference, room
from solver.core.acyclic import Rule, acyclic, without
from solver.core.canonical import canonical
from solver.core.curves import Array
from solver.core.intent import max_fee
from solver.core.lots import in_lots
from solver.core.margin.book import Book
from solver.core.margin.guard import Guard
from solver.core.pricing import Priced, backward_links
from solver.core.problem import (
    Batch,
    ExtraRow,
    Plan,
    Problem,
    buy_node,
    normalise,
    sell_node,
)
from solver.core.routing.network import Network, following
from solver.core.schedule import NO_FEES, FeeSchedule, charged, tightened
from solver.core.single import is_listed, routable, solve_single
from solver.core.types import (
    BPS,
    ZERO_BYTES32,
    Certificate,
    Fill,
    Infeasible,
    Intent,
    Kind,
    OpenReason,
    Solution,
    StandAlone,
    TokenId,
)
from solver.core.venue import Pool, Snapshot, StatesRoutes
from solver.core.verify import verify

_MOST_RATE = 1_000.0
_WIDENINGS = 12
_MOST_PLANS = 4
_MOST_CUTS = 12
_MOST_MARGIN_ROUNDS = 4
_TRIFLE = 1e-6  # the least price of a token that programs begin with
_SPOILT = 1e-5  # of the largest order: more than that, one rate per pair should not cost
_UNSEEN = 1e-5  # of the largest order: less than that, pools outside may gain


class Terms(Struct, frozen=True):
    """What the operator adds to a batch.

    ``fees`` is the flat fee per digest in its buy token, ``gas_value`` the numeraire per unit of
    gas, ``rows`` extra linear rows over the fill shares keyed by position in the intents, ``legs``
    the orders that are filled to the same share or not at all, ``schedule`` what is taken from each
    fill in the end. With ``token_prices`` (numeraire per base unit) nobody is paid more than they
    say, and nothing is owed by a reference outcome. ``margin`` are the accounts that orders may
    name, which must keep their margin.
    """

    fees: dict[str, int] = {}
    gas_value: float = 0.0
    max_impact_bps: int = BPS
    capital_bps: int = 0
    rows: tuple[ExtraRow, ...] = ()
    legs: tuple[legs.Group, ...] = ()
    schedule: FeeSchedule = NO_FEES
    token_prices: Mapping[TokenId, float] = {}
    margin: Book | None = None


_NO_TERMS = Terms()


class Memory(Struct):
    """What may be kept between batches; losing it costs time only."""

    network: Network | None = None


class _Proposal(Struct, frozen=True):
    """A choice of orders that some rule makes, and the plan whose flows show that it is feasible.

    ``settled`` says that the plan's fills stay, and only the rates are still to be shared.
    """

    stage: str
    chosen: list[bool]
    plan: Plan
    settled: bool = False


class _Answer(Struct, frozen=True):
    plan: Plan
    priced: Priced | None
    dropped: dict[str, str]
    stage: str


def solve_batch(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms = _NO_TERMS,
    progress: Callable[[str], None] = lambda stage: None,
    memory: Memory | None = None,
) -> Solution:
    """Solve one batch. Intents that cannot be filled come back in ``open`` with their reason.

    The answer does not depend on ids, nor on the order or repetition of the intents. One order
    alone goes through the router, several through the joint program. ``memory`` carries the network
    from batch to batch, so that only what moved is written again. The certificate is about gross
    fills, before the fees of the terms' schedule. Raises ProgramError only when not even the
    relaxation has a solution.
    """
    tight = tightened(intents, terms.schedule)
    if terms.margin is None:
        solution = _whole_groups(snapshot, tight, terms, progress, memory)
    else:
        solution = _within_margin(snapshot, tight, terms, terms.margin, progress, memory)
    return charged(solution, intents, terms.schedule)


def _within_margin(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms,
    book: Book,
    progress: Callable[[str], None],
    memory: Memory | None,
) -> Solution:
    """The batch after which every account has its margin, looked at as exact integers.

    What fails is solved again with more rows; an account whose fills fail all the same has no part
    in the batch.
    """
    guard = Guard(book, intents)
    out = {digest: OpenReason(digest, *why) for digest, why in sorted(guard.refused.items())}
    for number in count(1):
        left = [intent for intent in intents if intent.digest not in out]
        solution = _whole_groups(snapshot, left, terms, progress, memory, guard)
        fills = charged(solution, intents, terms.schedule).fills
        breaches = guard.breaches(fills)
        if not breaches:
            break
        if number >= _MOST_MARGIN_ROUNDS:
            for breach in breaches:
                for digest in guard.digests_of(breach.account):
                    why = f"{breach.name} would lack {breach.missing:.6g}"
                    out[digest] = OpenReason(digest, "margin", why, binding=breach.name)
    kept = guard.kept(fills, _row_prices(solution))
    return replace(solution, open=(*out.values(), *solution.open), margin=kept)


def _row_prices(solution: Solution) -> dict[str, float]:
    """What one more unit of each row's right side would bring, in the numeraire."""
    return {name: float(price) for name, price in solution.certificate.multipliers.items()}


def _whole_groups(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms,
    progress: Callable[[str], None],
    memory: Memory | None,
    guard: Guard | None = None,
) -> Solution:
    """The batch without the groups whose legs its integers fill to different shares."""
    left, out = list(intents), list[OpenReason]()
    while True:
        solution = _gross(snapshot, left, _with_legs(terms, intents, left), progress, memory, guard)
        group = legs.broken(terms.legs, left, solution.fills)
        if group is None:
            return replace(solution, open=(*out, *solution.open))
        known = {intent.digest for intent in left}
        left = [intent for intent in left if intent.digest not in group]
        detail = "its legs cannot be filled to the same share"
        out += [OpenReason(digest, "leg_missing", detail) for digest in group if digest in known]


def _with_legs(terms: Terms, intents: Sequence[Intent], left: Sequence[Intent]) -> Terms:
    """The terms over the orders that are left, with rows for those that belong together."""
    if not terms.legs:
        return terms
    rows = (*_rows_of(terms.rows, intents, left), *legs.rows_of(terms.legs, left))
    return replace(terms, rows=rows)


def _gross(
    snapshot: Snapshot,
    intents: Sequence[Intent],
    terms: Terms,
    progress: Callable[[str], None],
    memory: Memory | None,
    guard: Guard | None,
) -> Solution:
    ordered = canonical(intents, snapshot.hash)
    refused = _refused(snapshot, ordered, terms)
    prices = _all_prices(snapshot)
    for intent in ordered:
        for token in (intent.swap.sell, intent.swap.buy):
            if token not in prices:
                refused.setdefault(intent.digest, ("no_price", f"no reference price of {token}"))
        if intent.digest not in refused and is_absurd(intent, prices):
            refused[intent.digest] = ("limit_out_of_reach", "far above the reference rate")
    kept = [intent for intent in ordered if intent.digest not in refused]
    if not kept:
        return _empty(snapshot, refused)
    rows = _rows_of(terms.rows, intents, kept)
    has_rows = bool(rows or (guard and guard.rows(kept)))
    single = len(kept) == 1 and not has_rows
    network: Network | None = None
    if any(routable(intent, terms.max_impact_bps, False) for intent in kept):
        network = following(memory.network if memory else None, snapshot.pools, prices)
        if memory:
            memory.network = network
    market = _Market(snapshot, prices, terms, network, guard)
    refusals = tuple(OpenReason(digest, *reason) for digest, reason in sorted(refused.items()))
    if single and network is not None and is_listed(kept[0], network):
        progress("route")
        solution = _routed(market, kept[0])
        return replace(solution, open=(*refusals, *solution.open))
    solution = _joint(market, kept, rows, progress)
    if len(kept) > 1:
        progress("alone")
        solution = replace(solution, alone=tuple(_alone(market, intent) for intent in kept))
    return replace(solution, open=(*refusals, *solution.open))


class _Market(Struct, frozen=True):
    """What all solves of one batch share. ``network`` is None where nothing can be routed,
    ``guard`` where no order names a margin account.
    """

    snapshot: Snapshot
    prices: dict[TokenId, float]
    terms: Terms
    network: Network | None
    guard: Guard | None

    def rows(self, kept: Sequence[Intent]) -> tuple[ExtraRow, ...]:
        """The margin rows so far."""
        return self.guard.rows(kept) if self.guard else ()


def _all_prices(snapshot: Snapshot) -> dict[TokenId, float]:
    """The reference prices, completed by pools where a token has none."""
    known = snapshot.prices
    if all(known.get(token, 0.0) > 0.0 for pool in snapshot.pools for token in pool.tokens):
        return {token: price for token, price in known.items() if price > 0.0}
    return graph.complete_prices(graph.build(snapshot, ()), known)


def _rows_of(
    rows: Sequence[ExtraRow], intents: Sequence[Intent], kept: Sequence[Intent]
) -> tuple[ExtraRow, ...]:
    """The rows keyed by position in ``kept``; what is not in the batch counts as not filled."""
    place = {intent.digest: k for k, intent in enumerate(kept)}
    return tuple(
        ExtraRow(
            row.name,
            {
                place[intents[i].digest]: coefficient
                for i, coefficient in sorted(row.coefficients.items())
                if intents[i].digest in place
            },
            row.rhs,
        )
        for row in rows
    )


def _routed(market: _Market, intent: Intent) -> Solution:
    assert market.network is not None
    fee = market.terms.fees.get(intent.digest, 0)
    gas_value = market.terms.gas_value
    return solve_single(market.snapshot, intent, fee, gas_value, market.prices, market.network)


def _joint(
    market: _Market,
    kept: Sequence[Intent],
    rows: Sequence[ExtraRow],
    progress: Callable[[str], None] = lambda stage: None,
) -> Solution:
    """The orders through the joint program."""
    snapshot, terms, prices = market.snapshot, market.terms, market.prices
    batch, around = _seen(market, kept, rows)
    margin = _Rows(market.guard, rows)
    for _ in range(_MOST_CUTS if market.guard else 0):
        wider = margin.broken_in(batch, program.solve(batch.problem))
        if wider is None:
            break
        batch = wider
    progress("reference")
    fair, reached = reference_of(snapshot, batch, terms, margin)
    batch = _as_reached(_promised(margin.all_in(batch), fair), reached)
    progress("relax")
    relaxed = program.solve(batch.problem)
    progress("integers")
    exact = _Exact(snapshot, batch, terms, fair.plan, margin)
    answer = _to_integers(exact, batch, relaxed, reached)
    fills = answer.priced.fills if answer.priced else ()
    certificate = proof.prove(snapshot, batch, relaxed, answer.plan, fills, prices, around)
    reasons = _reasons(batch, relaxed, answer, fills)
    return _solution(answer, fills, tuple(reasons), certificate)


class _Rows:
    """The margin rows of one batch beside its other rows; they grow with the plans it looks at."""

    def __init__(self, guard: Guard | None, others: Sequence[ExtraRow] = ()) -> None:
        self._guard, self._others = guard, tuple(others)

    def all_in(self, batch: Batch) -> Batch:
        """The batch with all rows so far."""
        if self._guard is None:
            return batch
        wanted = (*self._others, *self._guard.rows(batch.intents))
        return replace(batch, problem=replace(batch.problem, rows=wanted))

    def broken_in(self, batch: Batch, plan: Plan) -> Batch | None:
        """The batch with the rows that a plan breaks; None where it breaks none."""
        if self._guard is None:
            return None
        shares = program.shares_of(batch.problem, plan)
        filled = {intent.digest: x for intent, x in zip(batch.intents, shares, strict=True)}
        return self.all_in(batch) if self._guard.look(filled) else None


def reference_of(
    snapshot: Snapshot,
    batch: Batch,
    terms: Terms = _NO_TERMS,
    margin: _Rows | None = None,
) -> tuple[reference.Outcome, _Answer | None]:
    """What is owed to whom, and R in integers; None where nothing is owed.

    An order that integers cannot fill as R does has no part in it: R is made again without it.
    """
    if terms.token_prices:
        return reference.at_prices(batch, terms.token_prices), None
    margin = margin or _Rows(None)
    lost: set[str] = set()
    while True:
        without = {i for i, intent in enumerate(batch.intents) if intent.digest in lost}
        fair = reference.reference(batch, snapshot.hash, without, margin.broken_in)
        if fair.plan is None:
            return fair, None
        batch = margin.all_in(batch)
        outcome = _Proposal("reference", list(fair.active), fair.plan, settled=True)
        exact = _Exact(snapshot, _promised(batch, fair), terms, fair.plan, margin)
        reached = exact.answer(outcome)
        more = exact.dropped.keys() - lost
        if not more or batch.problem.guess is not None:
            return fair, reached
        lost |= more


def _promised(batch: Batch, fair: reference.Outcome) -> Batch:
    promised = replace(batch.problem, floors=fair.floors, rates=fair.rates, caps=fair.caps)
    return replace(batch, problem=promised)


def _seen(
    market: _Market, kept: Sequence[Intent], rows: Sequence[ExtraRow]
) -> tuple[Batch, nearby.Surroundings | None]:
    """The batch over the whole market, or over what its orders need of a large one and the rest."""
    network, prices = market.network, market.prices
    if network is None or len(network.pools) <= nearby.MANY:
        return _normalised(market, market.snapshot.pools, kept, rows), None
    seen = nearby.near(network, kept, prices)
    always = {pool.id for pool in market.snapshot.pools if isinstance(pool, StatesRoutes)}
    declared: dict[str, graph.Declared] = {}
    known: dict[graph.Node, float] = {}
    for _ in range(_WIDENINGS):
        visible = always | {pool.id for pool, on in zip(network.pools, seen, strict=True) if on}
        pools = [pool for pool in market.snapshot.pools if pool.id in visible]
        batch = _with_guess(_normalised(market, pools, kept, rows, declared), known)
        around = nearby.Surroundings(network, seen)
        lifted = around.lift(batch, program.solve(batch.problem).nu)
        missing, more = around.gains(lifted)
        known = dict(zip(batch.graph.nodes, lifted.nodes.tolist(), strict=True))
        if missing <= _UNSEEN * batch.scale:
            break
        seen[more] = True
    return _with_guess(batch, known), around


def _with_guess(batch: Batch, known: Mapping[graph.Node, float]) -> Batch:
    guess = np.array([max(known.get(node, 1.0), _TRIFLE) for node in batch.graph.nodes])
    return replace(batch, problem=replace(batch.problem, guess=guess))


def _normalised(
    market: _Market,
    pools: Sequence[Pool],
    kept: Sequence[Intent],
    rows: Sequence[ExtraRow],
    declared: dict[str, graph.Declared] | None = None,
) -> Batch:
    terms = market.terms
    wanted = [sell_node(intent) for intent in kept] + [buy_node(intent) for intent in kept]
    snapshot = replace(market.snapshot, pools=tuple(pools))
    built = graph.build(snapshot, wanted, terms.capital_bps, declared)
    wanted_rows = (*rows, *market.rows(kept))
    return normalise(built, kept, terms.fees, market.prices, terms.max_impact_bps, wanted_rows)


def _alone(market: _Market, intent: Intent) -> StandAlone:
    """The order without the others, by the router where it can be routed."""
    has_rows = any(row.coefficients[0] > row.rhs for row in market.rows([intent]))
    if market.network is not None and routable(intent, market.terms.max_impact_bps, has_rows):
        solution = _routed(market, intent)
    else:
        solution = _joint(market, [intent], ())
    sold = sum(fill.sell for fill in solution.fills)
    bought = sum(fill.buy for fill in solution.fills)
    proven = solution.certificate
    return StandAlone(intent.digest, sold, bought, proven.value, proven.bound)


def _refused(
    snapshot: Snapshot, intents: Sequence[Intent], terms: Terms
) -> dict[str, tuple[str, str]]:
    refused = {}
    for intent in intents:
        fee = terms.fees.get(intent.digest, 0)
        cap = max_fee(intent.swap, intent.remaining)
        if terms.margin is None and intent.swap.account != ZERO_BYTES32:
            refused[intent.digest] = ("unknown_account", "there are no margin accounts here")
        if fee > cap:
            refused[intent.digest] = ("fee_above_cap", f"gas costs {fee}, maxFee allows {cap}")
    return refused


def is_absurd(intent: Intent, prices: Mapping[TokenId, float]) -> bool:
    """Whether a limit is so far from the reference rate that it would spoil the scaling of all."""
    swap = intent.swap
    asked = swap.buy_amount * prices[swap.buy]
    return asked > _MOST_RATE * swap.sell_amount * prices[swap.sell]


def _as_reached(batch: Batch, reached: _Answer | None) -> Batch:
    """The batch with the floors and rates of the reference outcome as its integers have them."""
    fills = reached.priced.fills if reached and reached.priced else ()
    floors = [
        replace(floor, amount=floor.amount - missing)
        for floor, missing in zip(
            batch.problem.floors, proof.short_of_floors(batch, fills), strict=True
        )
    ]
    got = proof.rates_of(batch, fills)
    rates = tuple(min(rate, got.get(i, 0.0)) for i, rate in enumerate(batch.problem.rates))
    kept = tuple(floor for floor in floors if floor.amount > 0.0)
    return replace(batch, problem=replace(batch.problem, floors=kept, rates=rates))


def _to_integers(exact: _Exact, batch: Batch, relaxed: Plan, reached: _Answer | None) -> _Answer:
    """The best proposal that survives the exact check; in the end nothing is filled.

    A proposal that does not keep every floor as integers counts less than one that does: what it
    loses to cycles, to rounding or by an order that was dropped, R still has.
    """
    found: list[_Answer] = []
    for proposal in _proposals(batch, relaxed):
        answer = exact.answer(proposal)
        if answer is not None:
            found.append(answer)
            if exact.worth(answer.priced)[0] == 0.0 and not answer.dropped:
                break
    found += [reached] if reached else []
    nothing = _Answer(relaxed, None, exact.dropped, "empty")
    return max(found, key=lambda answer: exact.worth(answer.priced), default=nothing)


def _proposals(batch: Batch, relaxed: Plan) -> list[_Proposal]:
    """What may become the batch beside the reference outcome, the largest surplus first."""
    problem = batch.problem
    filled = [share > program.FILLED for share in program.shares_of(problem, relaxed)]
    everyone = program.together(problem, filled)
    found: list[_Proposal | None] = []
    if program.needs_binaries(problem, relaxed):
        chosen = program.choose(problem, relaxed, [True] * len(everyone))
        found = [_proposed(problem, "program", chosen, relaxed)] if chosen else []
        found += [_incumbent(problem, relaxed, everyone)]
    else:
        found = [_proposed(problem, "program", everyone, relaxed)]
    kept = [proposal for proposal in found if proposal is not None]
    kept.sort(key=lambda proposal: -proposal.plan.value)
    return kept


def _proposed(problem: Problem, stage: str, chosen: list[bool], start: Plan) -> _Proposal | None:
    """The chosen orders with the fills of their largest total; None where that is infeasible."""
    if not any(chosen):
        return None
    try:
        return _Proposal(stage, chosen, program.settle(problem, chosen, start))
    except program.ProgramError:
        return None


def _incumbent(problem: Problem, relaxed: Plan, chosen: list[bool]) -> _Proposal | None:
    """The relaxation's orders, all whole and at one rate per pair, without the tightest ones that
    make this infeasible.

    Without how many is searched by steps that double and then halve: each try is a program.
    """
    orders = problem.orders
    tightest = sorted(
        (i for i, on in enumerate(chosen) if on), key=lambda i: (orders[i].limit, i), reverse=True
    )

    def without_first(count: int) -> _Proposal | None:
        out = set(tightest[:count])
        left = [on and i not in out for i, on in enumerate(chosen)]
        return _proposed(problem, "incumbent", left, relaxed)

    low, step, best = -1, 1, without_first(0)
    high = 0
    while best is None:
        low, high = high, high + step
        if high >= len(tightest):
            return None
        best, step = without_first(high), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        found = without_first(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    return best


def _tightest(problem: Problem, chosen: Sequence[bool]) -> int:
    """The chosen order whose limit is highest; the latest of several."""
    return max((i for i, on in enumerate(chosen) if on), key=lambda i: (problem.orders[i].limit, i))


class _Exact:
    """Proposals as exact integers. ``dropped`` names the orders that one of them lost, and why."""

    def __init__(
        self, snapshot: Snapshot, batch: Batch, terms: Terms, sample: Plan | None, margin: _Rows
    ) -> None:
        self._batch = batch
        self._margin = margin
        self._gas_value = terms.gas_value
        self._sample = sample
        self._pools = {pool.id: pool for pool in snapshot.pools}
        self._own = graph.inventories(snapshot, terms.capital_bps)
        self.dropped: dict[str, str] = {}

    def answer(self, proposal: _Proposal) -> _Answer | None:
        """Integers for a proposal; each failure drops orders. None when none is left.

        Without some of its orders the reference outcome cannot keep its own floors; what its
        integers then have is owed.
        """
        chosen, batch = list(proposal.chosen), self._batch
        dropped: dict[str, str] = {}
        while any(chosen):
            plan, outcome = self._realised(proposal, batch)
            if plan is not None and isinstance(outcome, Priced):
                return _Answer(plan, outcome, dropped, proposal.stage)
            assert isinstance(outcome, Infeasible)
            for i in self._left_out(outcome, chosen):
                chosen[i] = False
                dropped[self._batch.intents[i].digest] = outcome.code
            self.dropped |= dropped
            proposal = _Proposal(proposal.stage, chosen, proposal.plan)
            if proposal.stage == "reference":
                batch = replace(batch, problem=replace(batch.problem, floors=(), rates=()))
        return None

    def _realised(
        self, proposal: _Proposal, batch: Batch
    ) -> tuple[Plan | None, Priced | Infeasible]:
        """The best plan and integers of a proposal.

        Where a plan loses lots, or integers fall short of a limit or a floor by as little as they
        do, there is another plan: with what books really take, and with more room for those orders.
        """
        found: tuple[Plan | None, Priced | Infeasible] = (None, Infeasible("no_plan", ""))
        best: tuple[float, float] | None = None
        for _ in range(_MOST_PLANS):
            plan = self._plan(batch, proposal)
            if plan is None:
                break
            outcome = self._priced(plan, proposal.chosen)
            if isinstance(outcome, Priced) and not outcome.fills:
                break  # more room than there is
            worth = self.worth(outcome)
            if best is None or worth > best:
                found, best = (plan, outcome), worth
            problem = self._with_room(proposal, batch.problem, plan, outcome)
            if problem is batch.problem:
                break
            ordered = without(replace(batch, problem=problem), backward_links(batch, plan.flow))
            batch, proposal = replace(batch, problem=ordered), replace(proposal, settled=False)
        return found

    def worth(self, outcome: Priced | Infeasible | None) -> tuple[float, float]:
        """What integers pay less than floors, as a negative number, and their surplus; less than
        anything where they are invalid.
        """
        if not isinstance(outcome, Priced):
            return -np.inf, -1.0
        missing = sum(proof.missed_floors(self._batch, outcome.fills))
        return -missing, proof.surplus(self._batch, outcome.fills)

    def _with_room(
        self, proposal: _Proposal, problem: Problem, plan: Plan, outcome: Priced | Infeasible
    ) -> Problem:
        """The problem with more for those who get a little less in integers than they must."""
        if outcome.missing:
            wider = room.with_reserve(self._batch, problem, outcome.missing)
            return room.paid_by_floors(wider) if proposal.stage == "reference" else wider
        if isinstance(outcome, Priced):
            if proposal.stage == "reference":  # its own integers are the floors
                return problem
            if not any(proof.missed_floors(self._batch, outcome.fills)):
                return problem
            return room.with_floors(problem, proof.short_of_floors(self._batch, outcome.fills))
        if outcome.short:
            places = {intent.digest: i for i, intent in enumerate(self._batch.intents)}
            broken = [places[digest] for digest in outcome.detail.split()]
            return room.with_limits(problem, plan, dict(zip(broken, outcome.short, strict=True)))
        return problem

    def _plan(self, batch: Batch, proposal: _Proposal) -> Plan | None:
        """Fills, flows and rates without a cycle; with the fills of R, its own flows will do."""
        if proposal.settled:
            return _shared(batch, proposal.plan)
        fixed = acyclic(batch, _settled(proposal), self._sample)
        if fixed is None:
            return None
        batch, fixed = self._within_margin(batch, proposal, fixed)
        whole = in_lots(batch, fixed)
        if whole is not None:
            batch = replace(batch, problem=whole)
            fixed = acyclic(batch, _settled(replace(proposal, plan=fixed)), self._sample) or fixed
        shared = _shared(batch, fixed)
        even = program.at_mean_rates(batch.problem, fixed)
        if even is batch.problem or shared.value > fixed.value - _SPOILT:
            return shared
        # One rate per pair spoils the plan: both kinds of its orders get it to begin with.
        rule = _settled(replace(proposal, plan=fixed))
        evenly = acyclic(replace(batch, problem=even), rule, self._sample)
        again = shared if evenly is None else _shared(batch, evenly)
        return max(shared, again, key=lambda plan: plan.value)

    def _within_margin(self, batch: Batch, proposal: _Proposal, fixed: Plan) -> tuple[Batch, Plan]:
        """The plan again with the margin rows that it breaks, as often as there are new ones."""
        for _ in range(_MOST_CUTS):
            wider = self._margin.broken_in(batch, fixed)
            if wider is None:
                break
            again = acyclic(wider, _settled(replace(proposal, plan=fixed)), self._sample)
            if again is None:
                break
            batch, fixed = wider, again
        return batch, fixed

    def _left_out(self, failure: Infeasible, chosen: Sequence[bool]) -> list[int]:
        """Which orders a failure costs: one, and in a large market, to save time, all it names."""
        digests = failure.detail.split()
        named = [
            i for i, on in enumerate(chosen) if on and self._batch.intents[i].digest in digests
        ]
        if self._batch.problem.guess is None or not named:
            named = named[:1] or [_tightest(self._batch.problem, chosen)]
        return named

    def _priced(self, plan: Plan, chosen: Sequence[bool]) -> Priced | Infeasible:
        batch = self._batch
        gas = sum(batch.graph.gas[batch.kept[k]] for k in np.nonzero(plan.flow > 1e-9)[0])
        priced = pricing.price(batch, plan, chosen, gas * self._gas_value)
        if isinstance(priced, Infeasible):
            return priced
        broken = verify(
            batch.intents,
            self._pools,
            self._own,
            priced.fills,
            priced.outcome.legs,
            priced.outcome.inventory,
            priced.clearing,
        )
        return broken or priced


def _shared(batch: Batch, fixed: Plan) -> Plan:
    """A plan's fills at fair rates, if need be in the order that its own flows have."""
    problem = batch.problem
    shared = program.share(problem, fixed)
    if pricing.find_cycle(batch, shared.flow) is None:
        return shared
    problem = without(batch, backward_links(batch, fixed.flow))
    shared = program.share(problem, fixed)
    if pricing.find_cycle(batch, shared.flow) is None:
        return shared
    return program.uniform(problem, fixed)


def _settled(proposal: _Proposal) -> Rule:
    """The chosen orders' fills and flows; no plan where floors cannot be kept."""

    def plan(problem: Problem) -> Plan | None:
        try:
            return program.settle(problem, proposal.chosen, proposal.plan)
        except program.ProgramError:
            return None

    return plan


def _reasons(
    batch: Batch, relaxed: Plan, answer: _Answer, fills: Sequence[Fill]
) -> list[OpenReason]:
    dropped = answer.dropped
    clearing = answer.priced.clearing if answer.priced else {}
    filled = {fill.digest: fill for fill in fills}
    reasons = []
    binding = proof.binding(batch, relaxed, relaxed)
    held = ", ".join(binding)
    for intent, order in zip(batch.intents, batch.problem.orders, strict=True):
        fill = filled.get(intent.digest)
        amount = 0
        if fill is not None:
            amount = fill.sell if intent.swap.kind is Kind.EXACT_IN else fill.buy
        if amount >= intent.remaining:
            continue
        unit_rate = batch.unit[order.buy] / batch.unit[order.sell]
        limit = intent.swap.buy_amount / intent.swap.sell_amount
        best = _marginal_rate(batch.problem, relaxed.nu, order.sell, order.buy) * unit_rate
        pools = reference.best_path(batch.problem, order.sell, order.buy) * unit_rate
        own = ", ".join(name for name in binding if intent.swap.account in name.split(":"))
        alone = len(batch.intents) == 1
        case = _Case(fill is not None, limit, best, pools, bool(fills), alone, own)
        code, detail, why = _explain(intent, case, held, dropped)
        paradox = fill is None and _allows(intent, clearing)
        reasons.append(
            OpenReason(intent.digest, code, detail, f"{best:.12g}", f"{limit:.12g}", why, paradox)
        )
    return reasons


def _allows(intent: Intent, clearing: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the limit allows the rate at which the order's pair is traded."""
    swap = intent.swap
    buy, sell = clearing.get(f"{swap.sell}>{swap.buy}", (0, 1))
    return buy * swap.sell_amount >= swap.buy_amount * sell


class _Case(Struct, frozen=True):
    """What is known of an order that is not wholly filled.

    ``best`` is its marginal rate in the batch, ``pools`` the rate of the best path of pools before
    anybody trades, both in base units. ``margin`` are the rows of its account that bind.
    """

    is_partly: bool
    limit: float
    best: float
    pools: float
    others_filled: bool
    is_alone: bool
    margin: str


def _explain(
    intent: Intent, case: _Case, held: str, dropped: Mapping[str, str]
) -> tuple[str, str, str]:
    """Code, sentence and what binds; ``held`` names the rows and capacities at their end."""
    if case.is_partly and case.margin:
        return "partly_filled", "its account's margin allows no more", case.margin
    if case.is_partly:
        return "partly_filled", "the rest would cost more than the limit allows", held or "limit"
    if case.best <= 0.0:
        return "no_route", "no venue or order connects the two tokens", "venues"
    if case.others_filled and 0.0 < case.pools < case.limit:
        detail = f"the limit asks {case.limit / case.pools:.6g} times the pools' rate"
        if case.best > case.pools:
            detail += "; it could be filled only at the cost of other orders"
        return "limit_out_of_reach", detail, "limit"
    if case.best < case.limit:
        factor = case.limit / case.best
        detail = f"the limit asks {factor:.6g} times the best reachable rate"
        return "limit_out_of_reach", detail, "limit"
    if case.margin:
        return "margin", "its account would have too little margin", case.margin
    if intent.digest in dropped:
        detail = f"did not survive the exact check ({dropped[intent.digest]})"
        return "left_out", detail, held or dropped[intent.digest]
    if case.is_alone:
        detail = "a first part would get its limit, the whole order would not"
        return "limit_out_of_reach", detail, held or "depth"
    detail = "filling it whole would cost other orders more than it gains"
    return "not_chosen", detail, held or "other orders"


def _marginal_rate(problem: Problem, nu: Array, sell: int, buy: int) -> float:
    """ν_s/ν_t where both are worth something in this batch, else the best path's rate."""
    if nu[buy] > 1e-12 and nu[sell] > 1e-12:
        return float(nu[sell] / nu[buy])
    return reference.best_path(problem, sell, buy)


def _solution(
    answer: _Answer,
    fills: Sequence[Fill],
    reasons: tuple[OpenReason, ...],
    proven: Certificate,
) -> Solution:
    priced = answer.priced
    if priced is None:
        return Solution((), (), (), {}, {}, reasons, proven, answer.stage)
    dust = {proof.node_name(node): amount for node, amount in priced.dust.items()}
    return Solution(
        tuple(fills),
        priced.outcome.legs,
        priced.outcome.inventory,
        priced.clearing,
        dust,
        reasons,
        proven,
        answer.stage,
    )


def _empty(snapshot: Snapshot, refused: Mapping[str, tuple[str, str]]) -> Solution:
    reasons = tuple(OpenReason(digest, *reason) for digest, reason in sorted(refused.items()))
    return Solution((), (), (), {}, {}, reasons, proof.nothing(snapshot.hash), "empty")

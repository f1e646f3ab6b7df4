"""An auction of CoW Protocol as joint settlements: orders of one batch, one price per token.

The batch solver answers with a rate per directed pair. The protocol wants one price per token, pays
a sell order ⌈executed·p_sell/p_buy⌉ and asks ⌊executed·p_buy/p_sell⌋ of a buy order. So prices are
laid along the pairs, lowered by a unit per trade where rounding up would pay more than there is,
and then everything is checked in the protocol's own arithmetic: limits with fees, and no token
short. Where no such prices are found, the batch is solved again with limits raised to its own
shadow prices, one per token: then no pair has a worse rate than these prices say, so that opposite
orders can trade at them. What fits even then not is solved per directed pair. An order alone goes
through the router, which splits over paths and counts gas; there prices always fit.

An order that pays for its gas keeps its fee f, in the sold token, out of what it may swap: it is
solved with f less to sell. The fees of a settlement must cover its gas; if they do not, they are
raised and it is solved again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil, lcm

from msgspec import Struct
from msgspec.structs import replace

from solver.core import graph
from solver.core.batch import Terms, is_absurd, solve_batch
from solver.core.problem import buy_node, sell_node
from solver.core.routing.clock import UNLIMITED, Clock
from solver.core.routing.network import following
from solver.core.single import solve_single
from solver.core.types import Intent, Kind, Leg, Solution, Swap, TokenId
from solver.core.venue import Snapshot

_ATOMS = 10**18  # that a reference price is for
_RAISES = 3
_MOST_DIGITS = 2**160  # of a price; beyond it quotients of prices are rounded
_BELOW = (1e-3, 1e-5, 1e-7)  # how far limits stay below shadow prices


class Trade(Struct, frozen=True):
    """An order's part: ``executed`` as the protocol has it, all that is sold (fee included) and
    bought. ``fee`` is None for orders that pay none of their own.
    """

    digest: str
    executed: int
    fee: int | None
    sold: int
    bought: int


class Settlement(Struct, frozen=True):
    """Some orders at one price per token, and the pools that are used, in order."""

    prices: Mapping[TokenId, int]
    trades: tuple[Trade, ...]
    legs: tuple[Leg, ...]
    gas: int


class Charges(Struct, frozen=True):
    """What gas costs: wei per gas, the overhead of a settlement, wei per 10^18 of a token, and the
    fees to begin with, by digest, of those orders that pay for their gas. ``priced`` tells whether
    the snapshot's prices are in wei. ``buffers`` are the settlement's own tokens: where no pool
    pays a token out, they or the fees in it cover what rounding is short of, a unit per trade.
    """

    gas_price: int
    overhead_gas: int
    wei: Mapping[TokenId, int]
    fees: Mapping[str, int]
    priced: bool
    buffers: Mapping[TokenId, int] = {}


def alone(
    snapshot: Snapshot, intents: Sequence[Intent], charges: Charges, clock: Clock = UNLIMITED
) -> Iterator[Settlement]:
    """Each order for itself, routed through the whole graph, as long as there is time."""
    wanted = [node for intent in intents for node in (sell_node(intent), buy_node(intent))]
    prices = graph.complete_prices(graph.build(snapshot, wanted), snapshot.prices)
    network = following(None, snapshot.pools, prices)
    for intent in intents:
        priced = intent.swap.sell in prices and intent.swap.buy in prices
        if not clock.allows(0.0):
            return
        if not priced or is_absurd(intent, prices):
            continue

        def route(reduced: Sequence[Intent], gas_value: float) -> Solution:
            return solve_single(snapshot, reduced[0], 0, gas_value, prices, network, clock)

        found = _settle(route, [intent], charges)
        if isinstance(found, Settlement):
            yield found


def together(
    snapshot: Snapshot, intents: Sequence[Intent], charges: Charges
) -> Iterator[Settlement]:
    """One settlement of all orders, at shadow prices where their own rates do not fit together, or
    one per directed pair where nothing does.

    What settles one order only is left to :func:`alone`.
    """

    solved: dict[tuple[tuple[Intent, ...], float], Solution] = {}

    def batch(reduced: Sequence[Intent], gas_value: float) -> Solution:
        asked = tuple(reduced), gas_value
        if asked not in solved:
            solved[asked] = solve_batch(snapshot, reduced, Terms(gas_value=gas_value))
        return solved[asked]

    def at_shadow_prices(below: float) -> _Solve:
        def solve(reduced: Sequence[Intent], gas_value: float) -> Solution:
            first = batch(reduced, gas_value)
            prices = _shadow_prices(first)
            raised = _raised_to(prices, first, reduced, below)
            terms = Terms(gas_value=gas_value, token_prices=prices)
            return solve_batch(snapshot, raised, terms) if raised else first

        return solve

    whole = _settle(batch, intents, charges)
    if whole is True:
        tried = [_settle(at_shadow_prices(below), intents, charges) for below in _BELOW]
        fitting = [found for found in tried if isinstance(found, Settlement)]
        whole = max(fitting, key=lambda found: _gained(found, snapshot, intents), default=True)
    if isinstance(whole, Settlement):
        groups = []
    else:
        by_pair: dict[tuple[TokenId, TokenId], list[Intent]] = {}
        for intent in intents if whole else ():
            by_pair.setdefault((intent.swap.sell, intent.swap.buy), []).append(intent)
        groups = [group for group in by_pair.values() if 1 < len(group) < len(intents)]
    for found in (whole, *(_settle(batch, group, charges) for group in groups)):
        if isinstance(found, Settlement) and len(found.trades) > 1:
            yield found


def _gained(settlement: Settlement, snapshot: Snapshot, intents: Sequence[Intent]) -> float:
    """The surplus of a settlement at reference prices."""
    swaps = {intent.digest: intent.swap for intent in intents}
    total = 0.0
    for trade in settlement.trades:
        swap = swaps[trade.digest]
        over = trade.bought - trade.sold * swap.buy_amount / swap.sell_amount
        total += over * snapshot.prices.get(swap.buy, 0.0)
    return total


def _raised_to(
    prices: Mapping[TokenId, float], solution: Solution, intents: Sequence[Intent], below: float
) -> list[Intent]:
    """What was filled, as orders for just that, with limits a little below shadow prices.

    Limits are rounded towards the owner, so that none is looser than what was signed.
    """
    known = {intent.digest: intent for intent in intents}
    found = []
    for fill in solution.fills:
        intent = known[fill.digest]
        swap = intent.swap
        sell, buy = (Fraction(prices.get(token, 0.0)) for token in (swap.sell, swap.buy))
        if not sell or not buy:
            return []
        rate = max(sell / buy * (1 - Fraction(below)), Fraction(swap.buy_amount, swap.sell_amount))
        if swap.kind is Kind.EXACT_IN:
            amounts = fill.sell, ceil(fill.sell * rate)
        else:
            amounts = int(fill.buy / rate), fill.buy
        if min(amounts) > 0:
            part = replace(swap, sell_amount=amounts[0], buy_amount=amounts[1], partial_fill=False)
            found.append(replace(intent, swap=part))
    return found


def _shadow_prices(solution: Solution) -> dict[TokenId, float]:
    """ν of the one case of the proof in which this answer is; numeraire per base unit."""
    filled = {fill.digest for fill in solution.fills}
    for leaf in solution.certificate.leaves:
        if filled.issuperset(leaf.whole) and filled.isdisjoint(leaf.out):
            return {TokenId.parse(name): float(price) for name, price in leaf.prices.items()}
    return {}


_Solve = Callable[[Sequence[Intent], float], Solution]


def _settle(
    solve: _Solve,
    intents: Sequence[Intent],
    charges: Charges,
) -> Settlement | bool:
    """A settlement, or whether something was filled at all."""
    swaps = {intent.digest: intent.swap for intent in intents}
    fees = {digest: fee for digest, fee in charges.fees.items() if digest in swaps}
    pays_all = all(intent.digest in fees for intent in intents)
    gas_value = float(charges.gas_price) if pays_all and charges.priced else 0.0
    for _ in range(_RAISES):
        reduced = [found for intent in intents if (found := _reduced(intent, fees)) is not None]
        if not reduced:
            return False
        solution = solve(reduced, gas_value)
        if not solution.fills:
            return False
        raised = _raised(solution, swaps, fees, charges)
        if not raised:
            return _priced(solution, swaps, fees, charges) or True
        fees.update(raised)
    return True


def _reduced(intent: Intent, fees: Mapping[str, int]) -> Intent | None:
    """The order without what it pays for gas; None where nothing is left."""
    left = intent.swap.sell_amount - fees.get(intent.digest, 0)
    if left <= 0:
        return None
    return replace(intent, swap=replace(intent.swap, sell_amount=left))


def _raised(
    solution: Solution, swaps: Mapping[str, Swap], fees: Mapping[str, int], charges: Charges
) -> dict[str, int]:
    """Higher fees, where those of the filled orders are less than their share of the gas."""
    payers = [fill.digest for fill in solution.fills if fill.digest in fees]
    if not payers:
        return {}
    gas = charges.overhead_gas + sum(leg.gas for leg in solution.legs)
    cost = gas * charges.gas_price * _ATOMS * len(payers) // len(solution.fills)
    wei = {digest: charges.wei.get(swaps[digest].sell, 0) for digest in payers}
    # One more unit of each, because a fee is rounded down.
    if sum((fees[digest] + 1) * wei[digest] for digest in payers) >= cost:
        return {}
    shares = {digest: cost // (len(payers) * wei[digest]) for digest in payers if wei[digest]}
    return {digest: share for digest, share in shares.items() if share > fees[digest]}


def _priced(
    solution: Solution, swaps: Mapping[str, Swap], fees: Mapping[str, int], charges: Charges
) -> Settlement | None:
    """The solution at one price per token, if some prices pass every check."""
    gas = charges.overhead_gas + sum(leg.gas for leg in solution.legs)
    executed = {
        fill.digest: fill.sell if swaps[fill.digest].kind is Kind.EXACT_IN else fill.buy
        for fill in solution.fills
    }
    trimmed = _trimmed(executed, solution, swaps)
    fitting: Settlement | None = None
    for prices in _candidates(solution, swaps):
        for amounts in (executed, trimmed):
            trades = _trades(amounts, swaps, fees, prices)
            if trades is None:
                continue
            short = _short(trades, swaps, solution.legs)
            found = Settlement(prices, trades, solution.legs, gas)
            if not short:
                return found
            if _is_rounding(short, found, swaps, charges.buffers):
                fitting = fitting or found
    return fitting


def _trimmed(
    executed: Mapping[str, int], solution: Solution, swaps: Mapping[str, Swap]
) -> dict[str, int]:
    """The amounts without what is sold and that nobody needs, where it is a part of an order."""
    left = _left(solution, swaps)
    found = dict(executed)
    for fill in sorted(solution.fills, key=lambda fill: -fill.sell):
        swap = swaps[fill.digest]
        unused = left.get(swap.sell, 0)
        if swap.partial_fill and swap.kind is Kind.EXACT_IN and 0 < unused < fill.sell:
            found[fill.digest] -= unused
            left[swap.sell] = 0
    return found


def _candidates(solution: Solution, swaps: Mapping[str, Swap]) -> Iterator[dict[TokenId, int]]:
    """Price vectors, from the most generous one.

    The batch keeps the gas of its pools out of what it pays; here the fees pay for it. So first
    what is left of a token goes to the pair that buys it, if it is the only one.
    """
    pairs = [(*_tokens(name), *rate) for name, rate in sorted(solution.clearing.items())]
    left = _left(solution, swaps)
    bought_by = Counter(buy for _, buy, _, _ in pairs)
    sides = Counter(
        (swaps[fill.digest].sell, swaps[fill.digest].buy, swaps[fill.digest].kind)
        for fill in solution.fills
    )
    for slack in (0, 1):
        for extra in (left, {}):
            rates = []
            for sell, buy, bought, sold in pairs:
                more = extra.get(buy, 0) if bought_by[buy] == 1 else 0
                less = slack * sides[sell, buy, Kind.EXACT_IN]
                dear = slack * sides[sell, buy, Kind.EXACT_OUT]
                if bought + more > less:
                    rates.append((sell, buy, Fraction(bought + more - less, sold + dear)))
            if len(rates) == len(pairs):
                yield _prices(rates)
                if len(rates) > 1:
                    yield _prices(rates[::-1])


def _left(solution: Solution, swaps: Mapping[str, Swap]) -> dict[TokenId, int]:
    """What the batch leaves of each token."""
    left: Counter[TokenId] = Counter()
    for fill in solution.fills:
        left[swaps[fill.digest].sell] += fill.sell
        left[swaps[fill.digest].buy] -= fill.buy
    for leg in solution.legs:
        left[leg.token_in] -= leg.amount_in
        left[leg.token_out] += leg.amount_out
    return dict(left)


def _tokens(name: str) -> tuple[TokenId, TokenId]:
    sell, _, buy = name.partition(">")
    return TokenId.parse(sell), TokenId.parse(buy)


def _prices(rates: Sequence[tuple[TokenId, TokenId, Fraction]]) -> dict[TokenId, int]:
    """Prices along the pairs: p_sell/p_buy is the rate of the pair that first links the two."""
    known: dict[TokenId, Fraction] = {}
    waiting = list(rates)
    while waiting:
        touching = (entry for entry in waiting if entry[0] in known or entry[1] in known)
        entry = next(touching, waiting[0])
        waiting.remove(entry)
        sell, buy, rate = entry
        if buy not in known and sell not in known:
            known[buy] = Fraction(rate.denominator)
        if sell not in known:
            known[sell] = known[buy] * rate
        elif buy not in known:
            known[buy] = known[sell] / rate
    factor = Fraction(lcm(*(price.denominator for price in known.values())))
    highest = max(known.values()) * factor
    if highest > _MOST_DIGITS:
        factor = factor * _MOST_DIGITS / highest
    return {token: max(1, int(price * factor)) for token, price in known.items()}


def _trades(
    amounts: Mapping[str, int],
    swaps: Mapping[str, Swap],
    fees: Mapping[str, int],
    prices: Mapping[TokenId, int],
) -> tuple[Trade, ...] | None:
    """What each order sells and gets at these prices; None where one is below its limit."""
    trades = []
    for digest, executed in amounts.items():
        swap, fee = swaps[digest], fees.get(digest)
        price, other = prices[swap.sell], prices[swap.buy]
        exact_in = swap.kind is Kind.EXACT_IN
        sold = (executed if exact_in else executed * other // price) + (fee or 0)
        bought = -(-executed * price // other) if exact_in else executed
        if swap.sell_amount * bought < swap.buy_amount * sold or sold > swap.sell_amount:
            return None
        if not swap.partial_fill and (sold if exact_in else bought) != swap.total:
            return None
        trades.append(Trade(digest, executed, fee, sold, bought))
    return tuple(trades)


def _short(
    trades: Sequence[Trade], swaps: Mapping[str, Swap], legs: Sequence[Leg]
) -> dict[TokenId, int]:
    """Which tokens are short, without the fees; what is over stays with the settlement."""
    balance: Counter[TokenId] = Counter()
    for trade in trades:
        swap = swaps[trade.digest]
        balance[swap.sell] += trade.sold - (trade.fee or 0)
        balance[swap.buy] -= trade.bought
    for leg in legs:
        balance[leg.token_in] -= leg.amount_in
        balance[leg.token_out] += leg.amount_out
    return {token: -amount for token, amount in balance.items() if amount < 0}


def _is_rounding(
    short: Mapping[TokenId, int],
    settlement: Settlement,
    swaps: Mapping[str, Swap],
    buffers: Mapping[TokenId, int],
) -> bool:
    """Whether fees or buffers cover what is short: a unit per trade, of what no pool pays out."""
    spare = Counter(buffers)
    for trade in settlement.trades:
        spare[swaps[trade.digest].sell] += trade.fee or 0
    pooled = {leg.token_out for leg in settlement.legs}
    return all(
        token not in pooled and amount <= min(len(settlement.trades), spare[token])
        for token, amount in short.items()
    )

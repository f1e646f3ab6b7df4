"""The bound of docs/certificate.md, recomputed from prices, never below the exact value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from solver.checker.document import Case, Claim, Row, Violation
from solver.checker.feasible import Account, Stock, name_of, sold_into
from solver.checker.gain import Curve, Levels, gain, marginal_rates
from solver.checker.rounding import UP, total_up, up
from solver.core.types import BPS, Intent, Kind, TokenId

_ZERO = Fraction(0)
_RATE_TOLERANCE = 1e-9
#: More cases than the solver ever makes; more would only cost time.
_MOST_LEAVES = 256


class Ground(Struct, frozen=True):
    """What a bound is computed on: the orders of the batch, every curve, reference prices."""

    intents: dict[str, Intent]
    fees: Mapping[str, int]
    curves: Sequence[Curve]
    stocks: Sequence[Stock]
    reference: dict[TokenId, Fraction]
    impact: Fraction | None
    rows: Mapping[str, Row] = {}


def fill_in(
    stated: Mapping[TokenId, Fraction], claimed: Mapping[str, Fraction], curves: Sequence[Curve]
) -> tuple[dict[TokenId, Fraction], list[Violation]]:
    """Stated reference prices and the claimed others, each of which some pool's rate must give."""
    known = dict(stated)
    rates: list[tuple[TokenId, TokenId, float]] = []
    waiting: dict[TokenId, Fraction] = {}
    for name, price in claimed.items():
        chain, _, address = name.partition(":")
        token = TokenId(int(chain) if chain.isascii() and chain.isdigit() else 0, address)
        if token not in stated:
            waiting[token] = price
    if waiting:
        rates = [rate for curve in curves for rate in marginal_rates(curve)]
    progress = True
    while waiting and progress:
        progress = False
        for tail, head, rate in rates:
            if head in waiting and tail in known and rate > 0.0:
                follows = float(known[tail]) / rate
                if abs(follows - float(waiting[head])) <= _RATE_TOLERANCE * follows:
                    known[head] = waiting.pop(head)
                    progress = True
    wrong = [
        Violation("reference_price", f"/certificate/reference/{token}", "no pool has this rate")
        for token in waiting
    ]
    return known, wrong


def largest(ground: Ground) -> Fraction:
    """The worth of the largest order, the unit of the solver's own arithmetic."""
    return max(
        (
            intent.remaining
            * ground.reference[
                intent.swap.sell if intent.swap.kind is Kind.EXACT_IN else intent.swap.buy
            ]
            for intent in ground.intents.values()
        ),
        default=_ZERO,
    )


def bound(ground: Ground, claim: Claim, case: Case, place: str) -> Decimal | Violation:
    """g(ν, λ) of one case, rounded up; or what is missing for it."""
    nu: dict[TokenId, Fraction] = {}
    escrow: dict[TokenId, Fraction] = {}
    for name, price in case.prices.items():
        chain, _, rest = name.partition(":")
        address, _, stage = rest.partition("@")
        if not (chain.isascii() and chain.isdigit()) or stage not in ("", "escrow"):
            return Violation("unknown_price", f"{place}/prices/{name}", "not the name of a token")
        (escrow if stage else nu)[TokenId(int(chain), address)] = price
    terms = []
    charge: dict[str, Fraction] = {}
    for name, row in ground.rows.items():
        weight = case.multipliers.get(name, _ZERO)
        terms.append(up(weight * row.rhs))
        for digest, coefficient in row.coefficients.items():
            charge[digest] = charge.get(digest, _ZERO) + weight * coefficient
    for name in case.multipliers:
        if name not in ground.rows:
            return Violation("unknown_row", f"{place}/multipliers/{name}", "the file has no row")
    for digest, intent in ground.intents.items():
        if digest not in case.out:
            sold = sold_into(intent)
            ends = (escrow if sold[1] else nu).get(sold[0]), nu.get(intent.swap.buy)
            if ends[0] is None or ends[1] is None:
                missing = name_of(sold) if ends[0] is None else str(intent.swap.buy)
                return Violation("missing_price", f"{place}/prices/{missing}", "no ν of it")
            term = _order(ground, claim, digest, (ends[0], ends[1])) - charge.get(digest, _ZERO)
            terms.append(up(term if digest in case.whole else max(_ZERO, term)))
    for name, amount in claim.floors.items():
        account = _floor_account(ground, name)
        owed = (escrow if account and account[1] else nu).get(account[0]) if account else None
        if account is None or owed is None:
            return Violation("unknown_floor", f"/certificate/floors/{name}", "no such pair")
        own = ground.reference[account[0]]
        terms.append(up(-max(_ZERO, owed - own) / own * amount))
    for curve in ground.curves:
        missing_token = _missing(curve, nu)
        if missing_token is not None:
            return Violation("missing_price", f"{place}/prices/{missing_token}", "no ν of it")
        if _is_priced(curve, nu):
            terms.append(gain(curve, nu, ground.impact))
    for own_tokens in ground.stocks:
        if not _sells_into(ground, own_tokens.token_in):
            continue  # nobody has anything in this escrow
        rate = 1 - Fraction(own_tokens.cost_bps, BPS)
        tail, head = escrow[own_tokens.token_in], nu.get(own_tokens.token_out)
        if head is None:
            missing = str(own_tokens.token_out)
            return Violation("missing_price", f"{place}/prices/{missing}", "no ν of it")
        if rate > 0:
            terms.append(up(max(_ZERO, head * rate - tail) * own_tokens.capacity / rate))
    return total_up(terms)


def _tokens(curve: Curve) -> tuple[tuple[TokenId, ...], tuple[TokenId, ...]]:
    if isinstance(curve, Levels) or not hasattr(curve, "tokens"):
        return (curve.token_in,), (curve.token_out,)
    return curve.tokens, curve.tokens


def _is_priced(curve: Curve, nu: Mapping[TokenId, Fraction]) -> bool:
    tails, heads = _tokens(curve)
    return all(token in nu for token in (*tails, *heads))


def _missing(curve: Curve, nu: Mapping[TokenId, Fraction]) -> TokenId | None:
    """A token without ν that this curve could give for one with ν.

    What no priced token can ever become needs no price: nobody has any of it.
    """
    if _is_priced(curve, nu):
        return None
    for tail, head, rate in marginal_rates(curve):
        if tail in nu and head not in nu and rate > 0.0:
            return head
    return None


def _sells_into(ground: Ground, token: TokenId) -> bool:
    return any(sold_into(intent) == (token, True) for intent in ground.intents.values())


def default_cap(ground: Ground, intent: Intent) -> Fraction:
    """The cap on the rate of a pair for which the certificate states none: ten times the better of
    limit and reference rate, in base units bought per unit sold.
    """
    swap, fee = intent.swap, ground.fees.get(intent.digest, 0)
    sold, bought = whole_amounts(intent, fee)
    return 10 * max(bought / sold, ground.reference[swap.sell] / ground.reference[swap.buy])


def whole_amounts(intent: Intent, fee: int) -> tuple[Fraction, Fraction]:
    """What is sold and bought at the limit if all that remains is filled, the fee included."""
    swap = intent.swap
    share = Fraction(intent.remaining, swap.total)
    return swap.sell_amount * share, swap.buy_amount * share + fee


def _order(ground: Ground, claim: Claim, digest: str, ends: tuple[Fraction, Fraction]) -> Fraction:
    intent = ground.intents[digest]
    swap = intent.swap
    sold, bought = whole_amounts(intent, ground.fees.get(digest, 0))
    exact_in = swap.kind is Kind.EXACT_IN
    own = ground.reference[swap.buy if exact_in else swap.sell]
    paid = ends[1] if exact_in else ends[0]
    better, worse = max(own, paid), max(_ZERO, own - paid)
    cap = claim.caps.get(digest) or default_cap(ground, intent)
    if exact_in:
        return sold * ends[0] - bought * better + sold * worse * cap
    return sold * better - bought * ends[1] - bought * worse / cap


def is_empty(ground: Ground, claim: Claim, leaf: Case) -> bool:
    """Whether some pair cannot have its floor without the orders that are out in this case.

    What the others of the pair have at most is Σ sold·(cap − limit) at reference prices.
    """
    for name, amount in claim.floors.items():
        if amount > 0 and amount > _most_surplus(ground, claim, leaf, name):
            return True
    return False


def _most_surplus(ground: Ground, claim: Claim, leaf: Case, name: str) -> Fraction | float:
    """Of a pair, or of an exact-out order, among the orders that are not out; ∞ where unknown."""
    intent = ground.intents.get(name)
    if intent is not None:
        owed = intent.swap.kind is Kind.EXACT_OUT and name in leaf.out
        return _ZERO if owed else math.inf
    total = _ZERO
    for digest, other in ground.intents.items():
        swap = other.swap
        if swap.kind is not Kind.EXACT_IN or f"{swap.sell}>{swap.buy}" != name:
            continue
        if digest not in leaf.out:
            sold, bought = whole_amounts(other, ground.fees.get(digest, 0))
            cap = claim.caps.get(digest) or default_cap(ground, other)
            total += max(_ZERO, sold * cap - bought) * ground.reference[swap.buy]
    return total


def _floor_account(ground: Ground, name: str) -> Account | None:
    """The token in which the surplus of a pair, or of an exact-out order, counts."""
    intent = ground.intents.get(name)
    if intent is not None:
        return sold_into(intent) if intent.swap.kind is Kind.EXACT_OUT else None
    for other in ground.intents.values():
        swap = other.swap
        if swap.kind is Kind.EXACT_IN and f"{swap.sell}>{swap.buy}" == name:
            return (swap.buy, False)
    return None


def uncovered(leaves: Sequence[Case], divisible: Mapping[str, bool]) -> Iterator[Violation]:
    """Whether the leaves are the leaves of a binary tree over all-or-nothing orders."""
    if not 0 < len(leaves) <= _MOST_LEAVES:
        yield Violation("cases_missing", "/certificate/leaves", f"{len(leaves)} leaves")
        return
    for k, leaf in enumerate(leaves):
        for digest in sorted(leaf.whole | leaf.out):
            if divisible.get(digest, True):
                pointer = f"/certificate/leaves/{k}"
                detail = f"{digest} is no all-or-nothing order"
                yield Violation("bad_case", pointer, detail)
                return
        if leaf.whole & leaf.out:
            yield Violation("bad_case", f"/certificate/leaves/{k}", "an order is whole and out")
            return
    if not _is_tree([(leaf.whole, leaf.out) for leaf in leaves]):
        yield Violation("cases_missing", "/certificate/leaves", "they do not cover every case")


def _is_tree(leaves: list[tuple[frozenset[str], frozenset[str]]]) -> bool:
    if any(not whole | out for whole, out in leaves):
        return len(leaves) == 1
    shared = frozenset.intersection(*(whole | out for whole, out in leaves)) if leaves else None
    if not shared:
        return False
    # an order that all leaves name need not be the root, but any of them splits the cases in two
    order = min(shared)
    one = [(whole - {order}, out) for whole, out in leaves if order in whole]
    two = [(whole, out - {order}) for whole, out in leaves if order in out]
    return _is_tree(one) and _is_tree(two)


def worst(bounds: Sequence[Decimal]) -> Decimal:
    """The largest of the cases; the bound of the batch."""
    return UP.plus(max(bounds))

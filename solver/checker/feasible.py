"""Whether an answer can be executed and keeps what was signed, in exact integers.

Written apart from :mod:`solver.core.verify`, which the solver runs on its own proposals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from solver.checker.document import Claim, Violation
from solver.core.intent import max_fee, respects_limit
from solver.core.types import BPS, Exact, Fill, Intent, Kind, Leg, TokenId
from solver.core.venue import Pool, Snapshot, StatesRoutes

Account = tuple[TokenId, bool]
"""A token, and whether it lies in escrow."""


class Stock(Struct, frozen=True):
    """The solver's own tokens, paid on the destination for tokens in escrow."""

    token_in: TokenId
    token_out: TokenId
    capacity: int
    fixed_fee: int
    cost_bps: int

    def most(self, amount_in: int) -> int:
        """What may be paid at most for ``amount_in``."""
        cost = -(-amount_in * self.cost_bps // BPS)
        return max(0, min(self.capacity, amount_in - self.fixed_fee - cost))


def stocks(snapshot: Snapshot, capital_bps: int) -> list[Stock]:
    """One for each bridge to a token of which the solver holds some."""
    found = []
    for pool in snapshot.pools:
        if isinstance(pool, StatesRoutes):
            quote = pool.route()
            held = snapshot.inventory.get(quote.token_out, 0)
            if held > 0:
                cost = quote.fee_bps + capital_bps
                found.append(Stock(quote.token_in, quote.token_out, held, quote.fixed_fee, cost))
    return found


def name_of(account: Account) -> str:
    """``chain:address``, with ``@escrow`` for what a cross-chain order sells."""
    return f"{account[0]}@escrow" if account[1] else str(account[0])


def sold_into(intent: Intent) -> Account:
    """Where the sold tokens arrive."""
    return (intent.swap.sell, intent.swap.is_cross_chain)


def violations(
    claim: Claim,
    intents: Mapping[str, Intent],
    snapshot: Snapshot,
    fees: Mapping[str, int],
    capital_bps: int,
) -> Iterator[Violation]:
    """Every clause about fills, legs, inventory and what is left over that does not hold."""
    balance: dict[Account, int] = {}
    seen: set[str] = set()
    for k, fill in enumerate(claim.fills):
        place = f"/fills/{k}"
        intent = intents.get(fill.digest)
        if intent is None:
            yield Violation("unknown_intent", place, f"the file has no intent {fill.digest}")
            continue
        if fill.digest in seen:
            yield Violation("duplicate_fill", place, f"{fill.digest} is filled twice")
        seen.add(fill.digest)
        yield from _fill(intent, fill, fees.get(fill.digest, 0), claim.clearing, place)
        account = sold_into(intent)
        balance[account] = balance.get(account, 0) + fill.sell
    pairs = {f"{i.swap.sell}>{i.swap.buy}" for d in seen for i in [intents[d]]}
    for name in sorted(set(claim.clearing) - pairs):
        yield Violation("rate_without_fill", f"/clearing/{name}", "no fill of this pair")
    yield from _inventory(claim, stocks(snapshot, capital_bps), balance)
    yield from replay(claim.legs, {pool.id: pool for pool in snapshot.pools}, balance)
    for k, fill in enumerate(claim.fills):
        if fill.digest in intents:
            account = (intents[fill.digest].swap.buy, False)
            balance[account] = balance.get(account, 0) - fill.buy - fill.fee
            if balance[account] < 0:
                short = f"{name_of(account)} lacks {-balance[account]}"
                yield Violation("short", f"/fills/{k}", short)
    if claim.dust is not None:
        left = {name_of(account): amount for account, amount in balance.items() if amount}
        for name in sorted(left.keys() | claim.dust.keys()):
            if left.get(name, 0) != claim.dust.get(name, 0):
                detail = f"{left.get(name, 0)} is left, not {claim.dust.get(name, 0)}"
                yield Violation("dust", f"/dust/{name}", detail)


def _fill(
    intent: Intent, fill: Fill, flat_fee: int, clearing: Mapping[str, tuple[int, int]], place: str
) -> Iterator[Violation]:
    swap = intent.swap
    exact_in = swap.kind is Kind.EXACT_IN
    amount = fill.sell if exact_in else fill.buy
    if fill.sell <= 0 or fill.buy <= 0:
        yield Violation("nothing_filled", place, "an amount is zero")
    if amount > intent.remaining:
        yield Violation("overfilled", place, f"{amount} of {intent.remaining}")
    if not swap.partial_fill and amount != swap.total:
        yield Violation("partial_fill_forbidden", place, f"{amount} of {swap.total}")
    if not respects_limit(swap, fill.sell, fill.buy):
        yield Violation("limit", place, f"{fill.buy} for {fill.sell} is beyond the signed limit")
    if fill.fee > max_fee(swap, amount):
        yield Violation("fee_above_cap", place, f"{fill.fee} of {max_fee(swap, amount)}")
    if fill.fee != flat_fee:
        yield Violation("fee_differs", place, f"the terms say {flat_fee}, not {fill.fee}")
    rate = clearing.get(f"{swap.sell}>{swap.buy}")
    if rate is None:
        yield Violation("no_rate", place, f"no rate of {swap.sell}>{swap.buy}")
        return
    (buy, sell), gross = rate, fill.buy + fill.fee
    if exact_in and gross != fill.sell * buy // sell:
        yield Violation("not_uniform", place, f"the rate gives {fill.sell * buy // sell}")
    if not exact_in and fill.sell != -(-gross * sell // buy):
        yield Violation("not_uniform", place, f"the rate asks {-(-gross * sell // buy)}")


def _inventory(
    claim: Claim, own: Sequence[Stock], balance: dict[Account, int]
) -> Iterator[Violation]:
    spent: dict[TokenId, int] = {}
    for k, use in enumerate(claim.uses):
        place = f"/inventory/{k}"
        fit = [s for s in own if (s.token_in, s.token_out) == (use.token_in, use.token_out)]
        if use.amount_in < 0 or not 0 <= use.amount_out <= max(
            (s.most(use.amount_in) for s in fit), default=-1
        ):
            yield Violation("inventory_rate", place, f"{use.amount_out} for {use.amount_in}")
        spent[use.token_out] = spent.get(use.token_out, 0) + use.amount_out
        if spent[use.token_out] > max((s.capacity for s in fit), default=0):
            yield Violation("inventory_short", place, str(use.token_out))
        escrow = (use.token_in, True)
        balance[escrow] = balance.get(escrow, 0) - use.amount_in
        balance[use.token_out, False] = balance.get((use.token_out, False), 0) + use.amount_out
        if balance[escrow] < 0:
            yield Violation("overdrawn", place, f"escrow of {use.token_in}")


def replay(
    legs: Sequence[Leg], pools: dict[str, Pool], balance: dict[Account, int], place: str = "/legs"
) -> Iterator[Violation]:
    """Each leg against its pool in this order; ``pools`` and ``balance`` move along."""
    for k, leg in enumerate(legs):
        pointer = f"{place}/{k}"
        pool = pools.get(leg.pool)
        if pool is None or not {leg.token_in, leg.token_out} <= set(pool.tokens):
            yield Violation("unknown_pool", pointer, f"no {leg.pool} of these tokens")
            continue
        tail, head = (leg.token_in, False), (leg.token_out, False)
        balance[tail] = balance.get(tail, 0) - leg.amount_in
        if balance[tail] < 0:
            yield Violation("overdrawn", pointer, f"{leg.token_in} lacks {-balance[tail]}")
        try:
            step = pool.swap(leg.token_in, leg.token_out, leg.amount_in, Exact.IN)
        except ValueError as error:
            yield Violation("unknown_pool", pointer, str(error))
            continue
        if (step.amount_in, step.amount_out) != (leg.amount_in, leg.amount_out):
            detail = f"{leg.pool} takes {step.amount_in} and gives {step.amount_out}"
            yield Violation("leg_mismatch", pointer, detail)
        elif leg.gas not in (-1, step.gas):
            yield Violation("leg_gas", pointer, f"{leg.pool} costs {step.gas} gas")
        pools[leg.pool] = step.next_pool
        balance[head] = balance.get(head, 0) + leg.amount_out


def internalised(
    claim: Claim, trusted: Mapping[str, bool], buffers: Mapping[str, int]
) -> Iterator[Violation]:
    """Whether internalised interactions take trusted tokens and the buffers cover what they pay."""
    left = dict(buffers)
    for k, (leg, internal) in enumerate(zip(claim.legs, claim.internal or (), strict=True)):
        pointer = f"/solutions/0/interactions/{k}/internalize"
        if not internal:
            continue
        if not trusted.get(leg.token_in.address, False):
            yield Violation("untrusted", pointer, f"{leg.token_in} is not trusted")
        left[leg.token_out.address] = left.get(leg.token_out.address, 0) - leg.amount_out
        if left[leg.token_out.address] < 0:
            yield Violation("buffer_short", pointer, f"the buffer of {leg.token_out} is short")
